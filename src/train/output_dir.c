/* SPDX-License-Identifier: Apache-2.0 */
/* output_dir.c - may this run write here? */
#include "train/output_dir.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "train/checkpoint.h"

/* Whether a finished model lies there. */
static bool has_model(const char *directory)
{
    char path[HY3_PATH_MAX];
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "adapter_model.safetensors"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (hy3_path_format(path, sizeof path, "%s/%s", directory, names[i]) == HY3_OK &&
            hy3_path_exists(path))
            return true;
    return false;
}

/* Whether config.cfg there says the same as `text`. */
static bool is_same(const char *path, const char *text)
{
    char *old = NULL;
    size_t size;
    bool same =
        hy3_file_read(path, (size_t)1 << 20, &old, &size) == HY3_OK && strcmp(old, text) == 0;

    hy3_free(old);
    return same;
}

/* Whether a checkpoint will be continued: one in the directory, or one that is named. */
static bool continues(const struct hy3_config *config)
{
    const char *from = config->resume_from_checkpoint;

    return hy3_checkpoints_continues(config) ||
           (strcmp(from, "auto") != 0 && strcmp(from, "none") != 0);
}

/* Rank 0. */
static hy3_status create_directory(MPI_Comm comm, const char *directory)
{
    if (hy3_rank(comm) != 0)
        return HY3_OK;
    if (hy3_path_exists(directory) && !hy3_path_is_directory(directory))
        HY3_FAIL(HY3_EUSAGE, "output_dir '%s' is not a directory", directory);
    return hy3_directory_create(directory);
}

hy3_status hy3_output_dir_lock(MPI_Comm comm, const struct hy3_config *config,
                               struct hy3_lock **out)
{
    char path[HY3_PATH_MAX];

    HY3_AGREE(comm, create_directory(comm, config->output_dir), "opening the output directory");
    HY3_AGREE(comm, hy3_path_format(path, sizeof path, "%s/.hy3_lock", config->output_dir),
              "opening the output directory");
    return hy3_lock_wait(comm, path, false, out);
}

static hy3_status open_local(const struct hy3_config *config, const char *text)
{
    hy3_status status = HY3_OK;
    const char *directory = config->output_dir;
    char path[HY3_PATH_MAX];
    int64_t *steps = NULL;
    size_t count = 0;
    bool empty;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/config.cfg", directory));
    HY3_TRY_DONE(hy3_directory_is_empty(directory, &empty));
    if (!empty && !config->overwrite_output_dir && !hy3_path_exists(path))
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "output_dir '%s' is not empty and no run of hy3_sft made it; name another "
                      "directory, or set overwrite_output_dir = true",
                      directory);
    HY3_TRY_DONE(hy3_checkpoints_list(directory, &steps, &count));
    if (count > 0 && !config->overwrite_output_dir && !continues(config))
        HY3_FAIL_DONE(
            HY3_EUSAGE,
            "output_dir '%s' holds checkpoints of an earlier run, the newest of step %lld; "
            "continue it with resume_from_checkpoint = auto, name another directory, or set "
            "overwrite_output_dir = true, which removes them",
            directory, (long long)steps[0]);
    if (!empty && !config->overwrite_output_dir && count == 0 && has_model(directory) &&
        !is_same(path, text))
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "output_dir '%s' holds the model of a run with another configuration "
                      "(its config.cfg differs); name another directory, or set "
                      "overwrite_output_dir = true",
                      directory);
    if (!empty && (count == 0 || !continues(config)))
        hy3_log(HY3_LOG_INFO, "output_dir '%s' holds an earlier run: starting over", directory);
    for (size_t i = 0; i < count && !continues(config); i++) {
        HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/checkpoint-%lld", directory,
                                     (long long)steps[i]));
        HY3_TRY_DONE(hy3_directory_remove(path));
    }
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/config.cfg", directory));
    HY3_TRY_DONE(hy3_output_replace(path, text, strlen(text)));
done:
    hy3_free(steps);
    return status;
}

hy3_status hy3_output_dir_open(MPI_Comm comm, const struct hy3_config *config)
{
    hy3_status status = HY3_OK;
    char *text = NULL;

    HY3_AGREE_DONE(comm, hy3_config_format(config, &text), "formatting the configuration");
    status = hy3_rank(comm) == 0 ? open_local(config, text) : HY3_OK;
    HY3_AGREE_DONE(comm, status, "opening the output directory");
done:
    hy3_free(text);
    return status;
}
