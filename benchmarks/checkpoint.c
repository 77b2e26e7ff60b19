/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.c - reading a model directory into the store, and writing it again, in MB/s. `run.sh`
 * sets it against cp.
 *
 *   mpiexec -n 2 checkpoint MODEL_DIR OUTPUT_DIR */
#include "app/loaded_model.h"
#include "base/log.h"
#include "ckpt/hf/writer.h"
#include "comm/end.h"
#include "comm/launch.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_loaded_model model = {0};
    struct hy3_loaded_model_options options = {
        .device = "cpu", .expert_parallel_size = 1, .store = {.dtype = HY3_BF16}};
    struct hy3_hf_writer_options write = {.dtype = HY3_BF16, .max_shard_bytes = 5000000000};
    double begin, loaded, saved, megabytes;

    HY3_TRY_DONE(hy3_start(&argc, &argv, "checkpoint"));
    if (argc != 3)
        HY3_FAIL_DONE(HY3_EUSAGE, "usage: checkpoint MODEL_DIR OUTPUT_DIR");
    options.directory = argv[1];
    HY3_TRY_DONE(hy3_loaded_model_open(MPI_COMM_WORLD, &options, &model));
    begin = hy3_seconds();
    HY3_TRY_DONE(hy3_loaded_model_load(&model, &options));
    loaded = hy3_seconds();
    write.output = argv[2];
    write.base = model.base;
    write.names = hy3_hf_dir_names(model.base);
    HY3_TRY_DONE(
        hy3_hf_write(model.layout.world.comm, &write, model.params, hy3_store_values(model.store)));
    saved = hy3_seconds();
    megabytes = 2e-6 * (double)model.params->total;
    if (model.layout.world.rank == 0)
        printf("load %.0f\nsave %.0f\n", megabytes / (loaded - begin),
               megabytes / (saved - loaded));
done:
    hy3_loaded_model_close(&model);
    return hy3_finish(status);
}
