/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_tokenize - JSONL files to token files, by all ranks; hy3_sft runs the same code where they
 * are missing. */
#include "base/file.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "config/config.h"
#include "data/dataset.h"
#include "data/sources.h"

static void print(const char *name, const char *cache, const struct hy3_dataset_summary *s)
{
    printf("%s: %s/%s.h5%s\n", name, cache, name, s->reused ? " (was there and fits)" : "");
    printf("  samples %lld, tokens %lld, label tokens %lld, longest %lld\n", (long long)s->samples,
           (long long)s->tokens, (long long)s->label_tokens, (long long)s->longest);
    printf("  truncated %lld, dropped %lld, bad lines %lld of %lld\n", (long long)s->truncated,
           (long long)s->dropped, (long long)s->bad, (long long)s->lines);
    if (!s->reused)
        printf("  %.1f MB in %.1f s: %.1f MB/s\n", 1e-6 * (double)s->bytes, s->seconds,
               1e-6 * (double)s->bytes / s->seconds);
}

static hy3_status tokenize(const struct hy3_config *c, const char *name, char *const *files,
                           int count)
{
    hy3_status status = HY3_OK;
    char cache[HY3_PATH_MAX];
    struct hy3_dataset *dataset = NULL;
    struct hy3_dataset_summary summary;
    struct hy3_dataset_options options = {.files = (const char *const *)files,
                                          .file_count = count,
                                          .tokenizer_directory = c->tokenizer_name_or_path
                                                                     ? c->tokenizer_name_or_path
                                                                     : c->model_name_or_path,
                                          .cache_directory = cache,
                                          .name = name,
                                          .max_seq_length = c->max_seq_length,
                                          .max_samples = c->max_samples,
                                          .max_bad_samples = c->max_bad_samples,
                                          .keep_unlabelled = c->disable_shuffling,
                                          .overwrite = c->overwrite_cache};

    if (!options.tokenizer_directory)
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "no tokenizer is named; set model_name_or_path or "
                      "tokenizer_name_or_path");
    HY3_TRY_DONE(hy3_cache_directory(c->cache_dir, c->output_dir, files[0], cache, sizeof cache));
    HY3_TRY_DONE(hy3_dataset_open(MPI_COMM_WORLD, &options, &dataset, &summary));
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        print(name, cache, &summary);
done:
    hy3_dataset_close(dataset);
    return status;
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_config c = {0};
    char **files = NULL;
    int count = 0;
    bool finished;

    HY3_TRY_DONE(hy3_start(&argc, &argv, "hy3_tokenize"));
    HY3_TRY_DONE(hy3_config_parse(&c, MPI_COMM_WORLD, argc, argv,
                                  "Turns conversations (JSONL) into token files.", &finished));
    if (finished)
        goto done; /* --help, --version */
    if (c.train_data_file.count == 0)
        HY3_AGREE_DONE(
            MPI_COMM_WORLD,
            hy3_sources_resolve(c.dataset_dir, c.dataset.items, c.dataset.count, &files, &count),
            "looking for the data");
    HY3_TRY_DONE(tokenize(&c, "train", files ? files : c.train_data_file.items,
                          files ? count : c.train_data_file.count));
    if (c.eval_data_file.count > 0)
        HY3_TRY_DONE(tokenize(&c, "eval", c.eval_data_file.items, c.eval_data_file.count));
done:
    hy3_sources_free_files(files, count);
    hy3_config_free(&c);
    return hy3_finish(status);
}
