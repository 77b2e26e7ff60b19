/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_tokenize - JSONL files to token files, by all ranks; hy3_sft runs the same code where they
 * are missing. */
#include "app/datasets.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"

/* The result; its counts are in the log, in the words of hy3_sft. */
static void print(const char *name, const char *path, const struct hy3_dataset_summary *s)
{
    printf("%s: %s%s\n", name, path, s->reused ? " (existing file reused)" : "");
    if (!s->reused)
        printf("  %.1f MB in %.1f s: %.1f MB/s\n", 1e-6 * (double)s->bytes, s->seconds,
               1e-6 * (double)s->bytes / s->seconds);
}

static hy3_status tokenize(const struct hy3_config *config, const char *name)
{
    struct hy3_dataset *dataset;
    struct hy3_dataset_summary summary;

    HY3_TRY(hy3_datasets_open(MPI_COMM_WORLD, config, name, false, &dataset, &summary));
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        print(name, hy3_dataset_path(dataset), &summary);
    hy3_dataset_close(dataset);
    return HY3_OK;
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_config config = {0};
    bool finished;

    HY3_TRY_DONE(hy3_start(&argc, &argv, "hy3_tokenize"));
    HY3_TRY_DONE(hy3_config_parse(&config, MPI_COMM_WORLD, argc, argv,
                                  "Tokenizes conversations (JSONL).", &finished));
    if (finished)
        goto done; /* --help, --version */
    HY3_TRY_DONE(hy3_config_find(MPI_COMM_WORLD, &config, "hy3_tokenize"));
    HY3_TRY_DONE(tokenize(&config, "train"));
    if (config.eval_data_file.count > 0 || config.eval_dataset.count > 0)
        HY3_TRY_DONE(tokenize(&config, "eval"));
done:
    hy3_config_free(&config);
    return hy3_finish(status);
}
