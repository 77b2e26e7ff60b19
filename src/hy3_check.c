/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_check - checks that a model directory is complete and valid. */
#include "base/plural.h"
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
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("DIR", HY3_WORD, &check.directory, NULL,
                      "model directory with inner or outer names"),
         .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT(
            "spot-check", HY3_COUNT, &check.spot_check, "N",
            "read the values of N tensors (default 16), else only name, shape and dtype")},
        {HY3_ARGUMENT("all", HY3_BOOL, &all, NULL, "read the values of all tensors")},
        {.key = NULL},
    };
    const struct hy3_usage usage = {"hy3_check", "Checks a model directory.", table, NULL};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    if (all)
        check.spot_check = -1;
    HY3_TRY_DONE(hy3_check(MPI_COMM_WORLD, &check, stdout, &sum));
    fflush(stdout);
    if (sum.findings > 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "%lld finding%s in '%s', a line each on standard output",
                      (long long)sum.findings, hy3_s(sum.findings), check.directory);
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        printf(
            "'%s' is valid: %lld tensor%s in %lld shard%s, %.3f GB; the values of %lld were read\n",
            check.directory, (long long)sum.tensors, hy3_s(sum.tensors), (long long)sum.shards,
            hy3_s(sum.shards), 1e-9 * (double)sum.bytes, (long long)sum.read);
done:
    return hy3_finish(status);
}
