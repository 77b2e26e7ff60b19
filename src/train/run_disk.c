/* SPDX-License-Identifier: Apache-2.0 */
/* run_disk.c - planned space on disk against what is free. */
#include "train/run_disk.h"

#include "app/save.h"
#include "base/file.h"
#include "base/log.h"
#include "ckpt/state/state.h"

#include <sys/statvfs.h>

/* Bytes that output_dir, or the nearest of its parents that exists, has left; false: not known. */
static bool find_free(const char *directory, double *bytes)
{
    char path[HY3_PATH_MAX];
    struct statvfs disk;

    hy3_path_existing(directory, path);
    if (statvfs(path, &disk) != 0 || disk.f_blocks == 0)
        return false;
    *bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    return true;
}

hy3_status hy3_run_disk_check(const struct hy3_config *config, const struct hy3_loaded_model *model,
                              int64_t steps, int64_t every)
{
    const struct hy3_config *c = config;
    double available, least, all,
        result = hy3_save_bytes(model->params, c->bf16 ? HY3_BF16 : HY3_FP32);
    double checkpoint = c->save_only_model ? result : hy3_state_bytes(model->params);
    int64_t saves = steps / every + (steps % every != 0);

    if (model->layout.world.rank != 0 || !find_free(c->output_dir, &available))
        return HY3_OK;
    if (c->save_total_limit > 0 && saves > c->save_total_limit) /* the oldest goes after the newest
                                                                   is complete; the best stays */
        saves = c->save_total_limit + 1 + (c->save_total_limit == 1 && hy3_config_chooses(c));
    least = checkpoint > result ? checkpoint : result;
    all = (double)saves * checkpoint + result;
    if (available < least)
        HY3_FAIL(HY3_EIO,
                 "output_dir '%s' has %.3f GB left, but a checkpoint takes %.3f GB and the result "
                 "%.3f GB; free some space or name a directory on another disk",
                 c->output_dir, 1e-9 * available, 1e-9 * checkpoint, 1e-9 * result);
    if (available < all)
        hy3_log(HY3_LOG_WARN,
                "output_dir '%s' has %.3f GB left, but the run would fill %.3f GB: %lld "
                "checkpoints of %.3f GB and the result; save_total_limit keeps fewer",
                c->output_dir, 1e-9 * available, 1e-9 * all, (long long)saves, 1e-9 * checkpoint);
    return HY3_OK;
}
