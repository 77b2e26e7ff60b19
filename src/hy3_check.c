/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_check - checks that a model, an adapter or a training checkpoint is complete and valid. */
#include "app/check.h"
#include "base/plural.h"
#include "comm/end.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_check check = {.spot_check = 16};
    int64_t findings = 0;
    bool finished, all = false;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("DIR", HY3_WORD, &check.directory, NULL,
                      "model directory with inner or outer names, adapter, or checkpoint-N"),
         .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("spot-check", HY3_COUNT, &check.spot_check, "N",
                      "read the values of N tensors (default 16), of all others name and shape")},
        {HY3_ARGUMENT(
            "all", HY3_BOOL, &all, NULL,
            "read the values of all tensors, and compare every byte with checksums.json")},
        {HY3_ARGUMENT("sha256", HY3_TEXT, &check.list, "FILE",
                      "read every byte and compare with this list, as sha256sum writes it"),
         .path = HY3_PATH_FILE},
        {.key = NULL},
    };
    const struct hy3_usage usage = {
        "hy3_check", "Checks a model, an adapter or a training checkpoint.", table, NULL, false};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    if (all)
        check.spot_check = -1;
    HY3_TRY_DONE(hy3_check_directory(MPI_COMM_WORLD, &check, stdout, &findings));
    fflush(stdout);
    if (findings > 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "%lld finding%s in '%s', a line each on standard output",
                      (long long)findings, hy3_s(findings), check.directory);
done:
    return hy3_finish(status);
}
