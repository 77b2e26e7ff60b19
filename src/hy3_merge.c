/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_merge - merges a PEFT adapter into its model. */
#include "ckpt/adapter/merge.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"

static hy3_status check_arguments(struct hy3_merge *m, const char *dtype, int64_t workers)
{
    static const hy3_dtype dtypes[] = {HY3_BF16, HY3_FP16, HY3_FP32};
    int type = 0;

    if (!m->base || !m->adapter || !m->output)
        HY3_FAIL(HY3_EUSAGE,
                 "--base_model_path, --adapter_model_path and --output_path are "
                 "needed; see --help");
    while (type < 3 && strcmp(dtype, hy3_dtype_name(dtypes[type])) != 0)
        type++;
    if (type == 3)
        HY3_FAIL(HY3_EUSAGE, "--save_dtype is '%s', it must be fp16, bf16 or fp32", dtype);
    if (workers < 1 || workers > 1024)
        HY3_FAIL(HY3_EUSAGE, "--workers must be 1 to 1024");
    m->dtype = dtypes[type];
    m->workers = (int)workers;
    return HY3_OK;
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_merge m = {0};
    const char *dtype = "bf16";
    int64_t workers;
    bool finished;
    const struct hy3_argument table[] = {
        {"base_model_path", HY3_ARG_TEXT, &m.base, "DIR", "the model; it is only read"},
        {"adapter_model_path", HY3_ARG_TEXT, &m.adapter, "DIR", "its PEFT adapter"},
        {"output_path", HY3_ARG_TEXT, &m.output, "DIR",
         "the new one; an unfinished one is continued"},
        {"save_dtype", HY3_ARG_TEXT, &dtype, "TYPE", "fp16, bf16 or fp32 (bf16)"},
        {"workers", HY3_ARG_COUNT, &workers, "N", "threads of each rank (its share of the CPUs)"},
    };
    const struct hy3_usage usage = {"hy3_merge", "Merges a LoRA adapter into its model.", table,
                                    sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    workers = hy3_threads();
    HY3_TRY_DONE(hy3_arguments_parse(&usage, argc, argv, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(check_arguments(&m, dtype, workers));
    HY3_TRY_DONE(hy3_merge(MPI_COMM_WORLD, &m));
done:
    return hy3_finish(status);
}
