/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_sft - supervised fine-tuning: one configuration file, key=value arguments override it. */
#include "comm/end.h"
#include "comm/launch.h"
#include "config/arguments.h"
#include "train/run.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_config config = {0};
    struct hy3_run *run = NULL;
    bool finished, rehearses = false;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("dry-run", HY3_BOOL, &rehearses, NULL,
                      "checks and opens everything, says what a run would do, and ends before "
                      "step 1")},
        {.key = NULL},
    };
    const struct hy3_usage usage = {"hy3_sft", "Fine-tunes a Hy3 model on conversations.", table,
                                    &config, true};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program)); /* MPI, log; refuses a broken launch */
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(hy3_config_find(MPI_COMM_WORLD, &config, "hy3_sft"));
    if (rehearses) {
        HY3_TRY_DONE(hy3_run_rehearse(MPI_COMM_WORLD, &config));
        goto done;
    }
    HY3_TRY_DONE(hy3_run_open(MPI_COMM_WORLD, &config, &run));
    HY3_TRY_DONE(hy3_run_train(run));
done:
    hy3_run_close(run);
    hy3_config_free(&config);
    return hy3_finish(status); /* rank 0 prints the one message; MPI_Finalize; the exit code */
}
