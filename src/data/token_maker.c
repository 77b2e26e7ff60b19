/* SPDX-License-Identifier: Apache-2.0 */
/* token_maker.c - tokenizes, rejects bad or empty data, writes the file. */
#include "data/token_maker.h"

#include "base/file.h"
#include "base/plural.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "data/fingerprint.h"
#include "data/reject.h"
#include "data/token_writer.h"

#include <dirent.h>

static hy3_status judge_bad(const struct hy3_dataset_options *options,
                            const struct hy3_dataset_summary *sum, const struct hy3_bad_list *list,
                            bool is_complete, const char *rejected)
{
    char more[HY3_PATH_MAX / 2] = "";

    if (sum->bad <= options->max_bad_samples)
        return HY3_OK;
    if (sum->bad > list->count || !is_complete)
        snprintf(more, sizeof more, "\n  and %s%lld more, see '%.1000s'",
                 is_complete ? "" : "at least ", (long long)(sum->bad - list->count), rejected);
    HY3_FAIL(HY3_EFORMAT, "%s%lld bad line%s, max_bad_samples allows %lld:%s%s",
             is_complete ? "" : "at least ", (long long)sum->bad, hy3_s(sum->bad),
             (long long)options->max_bad_samples, list->text, more);
}

static hy3_status judge_empty(const struct hy3_dataset_options *options,
                              const struct hy3_dataset_summary *sum, const char *rejected)
{
    char others[32] = "";

    if (sum->samples > 0)
        return HY3_OK;
    if (options->file_count > 1)
        snprintf(others, sizeof others, " and %d other file%s", options->file_count - 1,
                 hy3_s(options->file_count - 1));
    if (sum->dropped + sum->bad == 0)
        HY3_FAIL(HY3_EFORMAT, "'%s'%s: no samples", options->files[0], others);
    HY3_FAIL(HY3_EFORMAT,
             "'%s'%s: no sample is left: dropped %lld, bad lines %lld; '%s' has the reasons",
             options->files[0], others, (long long)sum->dropped, (long long)sum->bad, rejected);
}

hy3_status hy3_token_files_publish(struct hy3_token_files *files)
{
    HY3_TRY(hy3_output_publish(&files->rejects));
    return hy3_output_publish(&files->tokens);
}

void hy3_token_files_sweep(const char *directory, const char *name)
{
    DIR *open = opendir(directory);
    const struct dirent *entry;
    char tokens[HY3_PATH_MAX], rejects[HY3_PATH_MAX], path[HY3_PATH_MAX];

    snprintf(tokens, sizeof tokens, "%s.h5.", name);
    snprintf(rejects, sizeof rejects, "%s.rejected.jsonl.", name);
    while (open && (entry = readdir(open))) {
        bool is_ours = strncmp(entry->d_name, tokens, strlen(tokens)) == 0 ||
                       strncmp(entry->d_name, rejects, strlen(rejects)) == 0;

        if (is_ours && hy3_ends_with(entry->d_name, ".part") &&
            hy3_path_format(path, sizeof path, "%s/%s", directory, entry->d_name) == HY3_OK)
            (void)hy3_file_remove(path);
    }
    if (open)
        closedir(open);
}

void hy3_token_files_discard(struct hy3_token_files *files)
{
    hy3_output_discard(&files->rejects);
    hy3_output_discard(&files->tokens);
}

/* Keeps the text of the failure before. */
static hy3_status publish_after(hy3_status failure, struct hy3_output *rejects)
{
    char text[HY3_ERROR_MAX];

    snprintf(text, sizeof text, "%s", hy3_error_text());
    HY3_TRY(hy3_output_publish(rejects));
    HY3_FAIL(failure, "%s", text);
}

/* Collective. Whether the data is good enough; if not, the message tells of the rejected lines. */
static hy3_status judge(MPI_Comm comm, const struct hy3_dataset_options *options,
                        const struct hy3_dataset_summary *sum, const struct hy3_bad_list *list,
                        bool is_complete, struct hy3_output *rejects)
{
    hy3_status status = HY3_OK;

    if (hy3_rank(comm) == 0) {
        status = judge_bad(options, sum, list, is_complete, rejects->path);
        if (status == HY3_OK)
            status = judge_empty(options, sum, rejects->path);
        if (status != HY3_OK)
            status = publish_after(status, rejects);
    }
    return hy3_agree(comm, status, "checking the data");
}

hy3_status hy3_token_file_make(MPI_Comm comm, const struct hy3_dataset_options *options,
                               struct hy3_tokenizer *tokenizer, const struct hy3_source *sources,
                               const char *path, struct hy3_token_files *files)
{
    hy3_status status = HY3_OK;
    struct hy3_tokenized *tokenized = NULL;
    struct hy3_bad_list list = {.count = 0};
    struct hy3_token_header h = {.format = HY3_TOKEN_FORMAT,
                                 .tokenizer = hy3_tokenizer_fingerprint(tokenizer),
                                 .reading = hy3_fingerprint_reading(options),
                                 .max_seq_length = options->max_seq_length,
                                 .max_samples = options->max_samples,
                                 .keep_unlabelled = options->keep_unlabelled,
                                 .content_tokens = options->content_tokens};
    char rejected[HY3_PATH_MAX];
    bool is_complete;

    files->tokens.is_private = files->rejects.is_private = options->is_private;
    HY3_TRY_DONE(hy3_path_format(rejected, sizeof rejected, "%s/%s.rejected.jsonl",
                                 options->cache_directory, options->name));
    HY3_TRY_DONE(
        hy3_tokenize(comm, options, sources, tokenizer, &tokenized, &h.summary, &is_complete));
    files->taken_over = h.summary.taken_over;
    h.piece_bytes = hy3_portions_piece_bytes(h.summary.bytes);
    h.hashed = hy3_tokenized_hashed(tokenized);
    h.source = hy3_tokenized_fingerprint(tokenized);
    if (h.summary.bad <= options->max_bad_samples) /* else not all of it may have been read */
        HY3_TRY_DONE(hy3_fingerprint_verify(comm, sources, options->file_count, h.piece_bytes,
                                            h.hashed, h.source));
    HY3_TRY_DONE(hy3_reject_write(comm, tokenized, rejected, &list, &files->rejects));
    HY3_TRY_DONE(judge(comm, options, &h.summary, &list, is_complete, &files->rejects));
    HY3_TRY_DONE(hy3_token_file_write(comm, path, &h, hy3_tokenizer_dialect(tokenizer), sources,
                                      options->file_count, tokenized, &files->tokens));
done:
    hy3_tokenized_free(tokenized);
    return status;
}
