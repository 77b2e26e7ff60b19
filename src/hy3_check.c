/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_check - checks that a model directory is complete and valid. */
#include "ckpt/hf/check.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_check check = {.spot_check = 16};
    struct hy3_check_summary sum;
    bool finished, all = false;
    const struct hy3_argument table[] = {
        {"DIR", HY3_ARG_WORD, &check.directory, NULL, "a checkpoint with inner or outer names"},
        {"spot-check", HY3_ARG_COUNT, &check.spot_check, "N",
         "read the values of N tensors (16); names, shapes and dtypes are checked of all"},
        {"all", HY3_ARG_FLAG, &all, NULL, "read the values of all tensors"},
    };
    const struct hy3_usage usage = {"hy3_check", "Checks a checkpoint directory.", table,
                                    sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(&usage, argc, argv, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished) /* --help, --version */
        goto done;
    if (all)
        check.spot_check = -1;
    HY3_TRY_DONE(hy3_check(MPI_COMM_WORLD, &check, stdout, &sum));
    fflush(stdout);
    if (sum.findings > 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "%lld findings in '%s', a line each on standard output",
                      (long long)sum.findings, check.directory);
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        printf(
            "'%s' is sound: %lld tensors in %lld shards, %.3f GB; the values of %lld were read\n",
            check.directory, (long long)sum.tensors, (long long)sum.shards,
            1e-9 * (double)sum.bytes, (long long)sum.read);
done:
    return hy3_finish(status);
}
