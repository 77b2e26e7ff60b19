/* SPDX-License-Identifier: Apache-2.0 */
/* dataset.c - opening a token file, building it first if none is usable, and reading samples. */
#include "data/dataset.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/planted.h"
#include "base/plural.h"
#include "base/random.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/lock_wait.h"
#include "data/fingerprint.h"
#include "data/parts.h"
#include "data/sample.h"
#include "data/token_file.h"
#include "data/token_maker.h"
#include "text/labels.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <unistd.h>
#include <xxhash.h>

struct hy3_dataset {
    struct hy3_token_header header;
    char *path;
    struct hy3_token_files files; /* new ones until they are published */
    bool is_pending;
    struct hy3_lock *lock; /* of the cache, while it is built and pending */
    int rank, fd;
    uint64_t *offsets; /* [samples + 1]; NULL: dummy data, all samples of the same length */
    struct hy3_source *sources;
    int source_count;
    uint64_t seed;    /* dummy data */
    int64_t shortest; /* of it; 0: all have the same length */
    int64_t vocab;    /* ids are below it; 0: not known */
};

/* Rank 0. The token file has its name: what was kept of its making is of no use. */
static void forget_parts(const struct hy3_dataset *d)
{
    char directory[HY3_PATH_MAX], *name;

    snprintf(directory, sizeof directory, "%s", d->path);
    name = strrchr(directory, '/');
    *name++ = '\0';
    name[strlen(name) - strlen(".h5")] = '\0';
    hy3_parts_remove(directory, name);
}

void hy3_dataset_close(struct hy3_dataset *dataset)
{
    if (!dataset)
        return;
    if (dataset->fd >= 0)
        close(dataset->fd);
    if (dataset->rank == 0)
        hy3_token_files_discard(&dataset->files);
    hy3_lock_close(dataset->lock);
    hy3_sources_free(dataset->sources, dataset->source_count);
    hy3_free(dataset->offsets);
    hy3_free(dataset->path);
    hy3_free(dataset);
}

hy3_status hy3_dataset_dummy(int64_t samples, int64_t length, int64_t vocab, uint64_t seed,
                             struct hy3_dataset **out)
{
    struct hy3_dataset *d = NULL;

    *out = NULL;
    if (samples < 1 || length < 2 || vocab < 1 || vocab > INT32_MAX)
        HY3_FAIL(HY3_EUSAGE,
                 "dummy data needs at least 1 sample of 2 tokens, not %lld of %lld; raise "
                 "max_samples or max_seq_length",
                 (long long)samples, (long long)length);
    HY3_TRY(hy3_alloc(&d, 1, sizeof *d));
    d->fd = -1;
    d->header.summary.samples = samples;
    d->header.summary.longest = length;
    d->seed = seed;
    d->vocab = vocab;
    *out = d;
    return HY3_OK;
}

const char *hy3_dataset_path(const struct hy3_dataset *dataset)
{
    return dataset->path;
}

int64_t hy3_dataset_count(const struct hy3_dataset *dataset)
{
    return dataset->header.summary.samples;
}

int64_t hy3_dataset_longest(const struct hy3_dataset *dataset)
{
    return dataset->header.summary.longest;
}

uint64_t hy3_dataset_fingerprint(const struct hy3_dataset *dataset)
{
    const struct hy3_token_header *h = &dataset->header;
    const uint64_t parts[] = {h->source,
                              h->tokenizer,
                              (uint64_t)h->max_seq_length,
                              (uint64_t)h->max_samples,
                              (uint64_t)h->keep_unlabelled,
                              (uint64_t)h->summary.samples,
                              (uint64_t)h->summary.longest,
                              dataset->seed,
                              (uint64_t)dataset->vocab};
    uint64_t sum = XXH3_64bits(parts, sizeof parts);

    if (h->reading != 0)
        sum = XXH3_64bits_withSeed(&h->reading, sizeof h->reading, sum);
    if (h->content_tokens == HY3_CONTENT_REJECT) /* as checkpoints have it that know no such key */
        return sum;
    return XXH3_64bits_withSeed(&h->content_tokens, sizeof h->content_tokens, sum);
}

void hy3_dataset_vary(struct hy3_dataset *dataset, int64_t shortest)
{
    dataset->shortest = shortest;
}

static int64_t dummy_length(const struct hy3_dataset *d, int64_t i)
{
    double longest = (double)d->header.summary.longest, shortest = (double)d->shortest;
    uint32_t words[4];

    if (d->shortest == 0)
        return d->header.summary.longest;
    hy3_random(d->seed, HY3_RANDOM_DUMMY, (uint64_t)i, UINT64_MAX, words);
    return (int64_t)(shortest * pow(longest / shortest, hy3_random_uniform(words[0])));
}

int64_t hy3_dataset_length(const struct hy3_dataset *dataset, int64_t i)
{
    HY3_ASSERT(i >= 0 && i < hy3_dataset_count(dataset));
    if (!dataset->offsets)
        return dummy_length(dataset, i);
    return (int64_t)(dataset->offsets[i + 1] - dataset->offsets[i]);
}

static void draw_dummy(const struct hy3_dataset *d, int64_t i, int32_t *ids, uint8_t *mask)
{
    uint32_t words[4] = {0};

    for (int64_t t = 0; t < hy3_dataset_length(d, i); t++) {
        if (t % 4 == 0)
            hy3_random(d->seed, HY3_RANDOM_DUMMY, (uint64_t)i, (uint64_t)t / 4, words);
        ids[t] = (int32_t)(words[t % 4] % (uint32_t)d->vocab);
        mask[t] = t > 0;
    }
}

void hy3_dataset_set_vocab(struct hy3_dataset *dataset, int64_t vocab)
{
    dataset->vocab = vocab;
}

/* A file of another tokenizer, or of a stranger, may have ids that no row of the embedding has. */
static hy3_status check_ids(const struct hy3_dataset *d, int64_t i, const int32_t *ids,
                            int64_t length)
{
    char where[HY3_PATH_MAX];

    for (int64_t t = 0; t < length; t++) {
        if (ids[t] >= 0 && (d->vocab == 0 || ids[t] < d->vocab))
            continue;
        hy3_dataset_where(d, i, where, sizeof where);
        HY3_FAIL(HY3_EFORMAT,
                 "sample %lld (%s) of '%s' has the token id %d, the model's vocabulary only %lld: "
                 "the file is of another tokenizer; delete it or set overwrite_cache to rebuild it",
                 (long long)i, where, d->path, ids[t], (long long)d->vocab);
    }
    return HY3_OK;
}

hy3_status hy3_dataset_read(const struct hy3_dataset *dataset, int64_t i, int32_t *ids,
                            uint8_t *mask)
{
    const struct hy3_token_header *h = &dataset->header;
    size_t length = (size_t)hy3_dataset_length(dataset, i);
    uint64_t stored;
    int64_t at;
    char where[HY3_PATH_MAX];

    if (!dataset->offsets) {
        draw_dummy(dataset, i, ids, mask);
        return HY3_OK;
    }
    at = (int64_t)dataset->offsets[i];
    HY3_TRY(hy3_file_read_at(dataset->fd, ids, length * sizeof *ids,
                             h->tokens_at + at * (int64_t)sizeof *ids, dataset->path));
    HY3_TRY(hy3_file_read_at(dataset->fd, mask, length, h->mask_at + at, dataset->path));
    HY3_TRY(hy3_file_read_at(dataset->fd, &stored, sizeof stored,
                             h->checksum_at + i * (int64_t)sizeof stored, dataset->path));
    if (stored != hy3_sample_checksum(ids, mask, length)) {
        hy3_dataset_where(dataset, i, where, sizeof where);
        HY3_FAIL(HY3_EFORMAT,
                 "sample %lld (%s) of '%s' is damaged: its checksum differs; delete the file or "
                 "set overwrite_cache to rebuild it",
                 (long long)i, where, dataset->path);
    }
    return check_ids(dataset, i, ids, (int64_t)length);
}

bool hy3_dataset_is_weighted(const struct hy3_dataset *dataset)
{
    return dataset->header.summary.weighted > 0;
}

/* Whether each label, and nothing else, has a weight. */
static bool fits_mask(const float *weights, const uint8_t *mask, size_t length)
{
    for (size_t t = 0; t < length; t++)
        if (mask[t] ? !(weights[t] > 0 && weights[t] <= HY3_WEIGHT_MAX) : weights[t] != 0)
            return false;
    return true;
}

hy3_status hy3_dataset_weights(const struct hy3_dataset *dataset, int64_t i, const uint8_t *mask,
                               float *weights)
{
    const struct hy3_token_header *h = &dataset->header;
    size_t length = (size_t)hy3_dataset_length(dataset, i);
    uint64_t stored = HY3_NO_WEIGHTS;
    char where[HY3_PATH_MAX];

    if (hy3_dataset_is_weighted(dataset))
        HY3_TRY(hy3_file_read_at(dataset->fd, &stored, sizeof stored,
                                 h->weight_checksum_at + i * (int64_t)sizeof stored,
                                 dataset->path));
    if (stored == HY3_NO_WEIGHTS) {
        for (size_t t = 0; t < length; t++)
            weights[t] = mask[t] ? 1 : 0;
        return HY3_OK;
    }
    HY3_TRY(hy3_file_read_at(
        dataset->fd, weights, length * sizeof *weights,
        h->weights_at + (int64_t)dataset->offsets[i] * (int64_t)sizeof *weights, dataset->path));
    if (stored == hy3_sample_weight_checksum(weights, length) && fits_mask(weights, mask, length))
        return HY3_OK;
    hy3_dataset_where(dataset, i, where, sizeof where);
    HY3_FAIL(HY3_EFORMAT,
             "the loss weights of sample %lld (%s) of '%s' are damaged; delete the file or set "
             "overwrite_cache to rebuild it",
             (long long)i, where, dataset->path);
}

void hy3_dataset_where(const struct hy3_dataset *dataset, int64_t i, char *out, size_t size)
{
    const struct hy3_token_header *h = &dataset->header;
    uint64_t line = 0;
    uint32_t file = 0;

    if (!dataset->offsets) {
        snprintf(out, size, "dummy data:%lld", (long long)i + 1);
        return;
    }
    if (i < 0 || i >= h->summary.samples ||
        hy3_file_read_at(dataset->fd, &line, sizeof line, h->line_at + i * (int64_t)sizeof line,
                         dataset->path) != HY3_OK ||
        hy3_file_read_at(dataset->fd, &file, sizeof file, h->file_at + i * (int64_t)sizeof file,
                         dataset->path) != HY3_OK ||
        file >= (uint32_t)dataset->source_count)
        snprintf(out, size, "%s:sample %lld", dataset->path, (long long)i);
    else
        hy3_source_place(&dataset->sources[file], (int64_t)line, out, size);
}

/* Why a sound file cannot be used for these options; NULL: it can. */
static const char *find_fault(const struct hy3_dataset_options *options,
                              const struct hy3_token_header *h, uint64_t tokenizer)
{
    if (options->overwrite)
        return "overwrite_cache is set";
    if (h->tokenizer != tokenizer)
        return "it was built with another tokenizer";
    if (h->max_seq_length != options->max_seq_length)
        return "it was built with another max_seq_length";
    if (h->reading != hy3_fingerprint_reading(options))
        return "it was built with another truncation_strategy, reasoning_effort, enable_thinking, "
               "default_system, mask_history, preserve_thinking, last_turn, mask_empty_think, "
               "split_think, guess_form or entry of dataset_info.json";
    if (h->max_samples != options->max_samples)
        return "it was built with another max_samples";
    if (h->keep_unlabelled != options->keep_unlabelled)
        return "it was built with another disable_shuffling";
    if (h->content_tokens != (int64_t)options->content_tokens)
        return "it was built with another special_tokens_in_content";
    if (h->summary.bad > options->max_bad_samples)
        return "it skipped more bad lines than max_bad_samples allows";
    return NULL;
}

/* Rank 0. Whether the existing file is usable; reason "" if there is none, or it is. */
static bool inspect(const struct hy3_dataset_options *options, uint64_t tokenizer,
                    struct hy3_dataset *d, char *reason, size_t size)
{
    const char *fault;

    reason[0] = '\0';
    if (!hy3_path_exists(d->path))
        return false;
    if (hy3_token_file_inspect(d->path, d->sources, d->source_count, &d->header, &d->offsets) !=
        HY3_OK)
        snprintf(reason, size, "%s", hy3_error_text());
    else if ((fault = find_fault(options, &d->header, tokenizer)))
        snprintf(reason, size, "%s", fault);
    else
        return true;
    hy3_free(d->offsets);
    d->offsets = NULL;
    return false;
}

/* Collective. Whether the file at d->path is usable; rank 0 then holds header and offsets. Names,
 * sizes and times of the data files are compared; if they differ (a copied file has another time),
 * the contents. tells: why it will be rebuilt. */
static hy3_status find_file(MPI_Comm comm, const struct hy3_dataset_options *options,
                            const struct hy3_tokenizer *tokenizer, struct hy3_dataset *d,
                            bool tells, bool *fits)
{
    char reason[512] = "";
    uint64_t source;

    if (hy3_rank(comm) == 0)
        *fits = inspect(options, hy3_tokenizer_fingerprint(tokenizer), d, reason, sizeof reason);
    hy3_broadcast(comm, 0, fits, sizeof *fits, "checking the token file");
    hy3_broadcast(comm, 0, &d->header, sizeof d->header, "checking the token file");
    if (options->only_looks)
        *fits = *fits && d->header.has_same_sources;
    else if (*fits && !d->header.has_same_sources) {
        hy3_log(HY3_LOG_INFO,
                "%s: names, sizes, times or contents of the data files have changed since '%s' "
                "was built; comparing the contents",
                options->name, d->path);
        HY3_TRY(hy3_fingerprint_read(comm, d->sources, d->source_count, d->header.piece_bytes,
                                     d->header.hashed, &source));
        *fits = source == d->header.source;
        snprintf(reason, sizeof reason, "the data files have changed");
    }
    if (tells && !*fits && reason[0] != '\0')
        hy3_log(HY3_LOG_INFO, "%s: rebuilding '%s': %s", options->name, d->path, reason);
    if (!*fits) {
        hy3_free(d->offsets);
        d->offsets = NULL;
    }
    return HY3_OK;
}

/* Where the file is now. */
static const char *path_now(const struct hy3_dataset *d)
{
    return d->is_pending ? d->files.tokens.part : d->path;
}

/* Collective. Every rank gets what rank 0 has read, and a descriptor of its own. */
static hy3_status share_file(MPI_Comm comm, struct hy3_dataset *d)
{
    hy3_status status = HY3_OK;
    size_t count;

    hy3_broadcast(comm, 0, &d->header, sizeof d->header, "opening the token file");
    count = (size_t)d->header.summary.samples + 1;
    if (!d->offsets)
        status = hy3_alloc(&d->offsets, count, sizeof *d->offsets);
    if (status == HY3_OK)
        status = hy3_token_file_open(path_now(d), &d->header, &d->fd);
    HY3_AGREE(comm, status, "opening the token file");
    hy3_broadcast(comm, 0, d->offsets, count * sizeof *d->offsets, "opening the token file");
    return HY3_OK;
}

/* Collective. Reads the file that was just built; now a fault is an error. */
static hy3_status reopen_file(MPI_Comm comm, struct hy3_dataset *d)
{
    hy3_status status = HY3_OK;
    char reason[512];

    if (hy3_rank(comm) == 0 && hy3_token_file_inspect(path_now(d), d->sources, d->source_count,
                                                      &d->header, &d->offsets) != HY3_OK) {
        snprintf(reason, sizeof reason, "%s", hy3_error_text());
        status =
            hy3_fail(HY3_EIO, __FILE__, __LINE__,
                     "'%s' cannot be used although it was just written: %s", path_now(d), reason);
    }
    return hy3_agree(comm, status, "opening the token file");
}

/* Whether a dataset reads, replaces or removes what bears this name in its directory. */
static bool is_used(const char *name)
{
    return strncmp(name, ".hy3", 4) == 0 || strncmp(name, "train.", 6) == 0 ||
           strncmp(name, "eval.", 5) == 0;
}

/* Rank 0. path: of the token file. */
static hy3_status open_directory(const struct hy3_dataset_options *options, const char *path)
{
    HY3_TRY(hy3_planted_check(options->cache_directory, is_used));
    if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0 && errno == EACCES)
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' may not be read: no permission; name another cache_dir, or, where the users "
                 "of a group share one, let each set private_files = false",
                 path);
    return options->is_private ? hy3_directory_create_private(options->cache_directory)
                               : hy3_directory_create(options->cache_directory);
}

/* Collective. Rank 0 needs the tokenizer to check a file, all ranks to build one. */
static hy3_status open_tokenizer(MPI_Comm comm, const char *directory, bool is_needed,
                                 struct hy3_tokenizer **tokenizer)
{
    hy3_status status = HY3_OK;

    if (is_needed && !*tokenizer)
        status = hy3_tokenizer_open(directory, tokenizer);
    return hy3_agree(comm, status, "reading the tokenizer");
}

static hy3_status create(MPI_Comm comm, const struct hy3_dataset_options *options,
                         struct hy3_dataset **out)
{
    hy3_status status = HY3_OK;
    struct hy3_dataset *d = NULL;
    char path[HY3_PATH_MAX];

    status = hy3_alloc(&d, 1, sizeof *d);
    if (status == HY3_OK) {
        d->fd = -1;
        d->rank = hy3_rank(comm);
    }
    if (status == HY3_OK)
        status =
            hy3_path_format(path, sizeof path, "%s/%s.h5", options->cache_directory, options->name);
    if (status == HY3_OK)
        status = hy3_strdup(path, &d->path);
    HY3_AGREE_DONE(comm, status, "opening the dataset");
    d->source_count = options->file_count;
    HY3_TRY_DONE(hy3_sources_stat(comm, options->files, options->file_count, &d->sources));
    if (hy3_rank(comm) == 0 && !options->only_looks)
        status = open_directory(options, path);
    HY3_AGREE_DONE(comm, status, "opening the dataset");
    *out = HY3_TAKE(d);
done:
    hy3_dataset_close(d);
    return status;
}

/* Collective. Programs that share the directory build a file one after the other, and each looks
 * first whether what it needs is there by then. Reading needs no lock: token files are replaced
 * whole. */
static hy3_status lock_cache(MPI_Comm comm, const struct hy3_dataset_options *options,
                             struct hy3_lock **out)
{
    char path[HY3_PATH_MAX];

    HY3_AGREE(comm,
              hy3_path_format(path, sizeof path, "%s/.hy3_lock_of_%s", options->cache_directory,
                              options->name),
              "opening the dataset");
    return hy3_lock_wait(comm, path, true, out);
}

/* The lock of a dataset that holds none. */
static struct hy3_lock *unlock(struct hy3_lock *lock)
{
    hy3_lock_close(lock);
    return NULL;
}

/* Collective. Builds the file; one that is there and shall be kept for now is not replaced yet. */
static hy3_status build(MPI_Comm comm, const struct hy3_dataset_options *options,
                        struct hy3_tokenizer *tokenizer, struct hy3_dataset *d)
{
    bool waits = options->is_tentative && hy3_path_exists(d->path);

    hy3_broadcast(comm, 0, &waits, sizeof waits, "opening the dataset");
    if (hy3_rank(comm) == 0)
        hy3_token_files_sweep(options->cache_directory, options->name);
    HY3_TRY(hy3_token_file_make(comm, options, tokenizer, d->sources, d->path, &d->files));
    d->is_pending = true;
    HY3_TRY(reopen_file(comm, d));
    return waits ? HY3_OK : hy3_dataset_publish(comm, d);
}

hy3_status hy3_dataset_publish(MPI_Comm comm, struct hy3_dataset *dataset)
{
    hy3_status status = HY3_OK;

    if (!dataset->is_pending)
        return HY3_OK;
    if (hy3_rank(comm) == 0)
        status = hy3_token_files_publish(&dataset->files);
    if (hy3_rank(comm) == 0 && status == HY3_OK)
        forget_parts(dataset);
    HY3_AGREE(comm, status, "writing the token file");
    dataset->is_pending = false;
    dataset->lock = unlock(dataset->lock);
    return HY3_OK;
}

static double percent(int64_t part, int64_t whole)
{
    return whole > 0 ? 100 * (double)part / (double)whole : 0;
}

/* What became of the data: the same lines in every program, also for a file that is reused. */
static void report(const struct hy3_dataset_options *options, const struct hy3_dataset *d,
                   const char *how)
{
    const struct hy3_dataset_summary *s = &d->header.summary;
    const char *name = options->name;
    char rejected[HY3_PATH_MAX];

    snprintf(rejected, sizeof rejected, " -> '%s/%s.rejected.jsonl'", options->cache_directory,
             name);
    hy3_log(HY3_LOG_INFO,
            "%s: %lld sample%s, %lld token%s, label tokens %lld, learned %.1f%%, longest %lld; %s "
            "'%s'",
            name, (long long)s->samples, hy3_s(s->samples), (long long)s->tokens, hy3_s(s->tokens),
            (long long)s->label_tokens, percent(s->label_tokens, s->tokens), (long long)s->longest,
            how, d->path);
    hy3_log(HY3_LOG_INFO, "%s: truncated %lld (%.1f%%), dropped %lld, bad lines %lld of %lld%s",
            name, (long long)s->truncated, percent(s->truncated, s->samples), (long long)s->dropped,
            (long long)s->bad, (long long)s->lines, s->bad + s->dropped > 0 ? rejected : "");
    if (s->unlabelled > 0)
        hy3_log(HY3_LOG_WARN,
                "%s: without a label token %lld: these samples keep their place in the order of "
                "the file, and nothing of them is learned",
                name, (long long)s->unlabelled);
    if (s->weighted > 0)
        hy3_log(HY3_LOG_INFO, "%s: label tokens with another weight than 1: %lld", name,
                (long long)s->weighted);
    if (s->null_contents > 0)
        hy3_log(HY3_LOG_WARN, "%s: null contents %lld: these messages are empty texts", name,
                (long long)s->null_contents);
    if (s->unread[0] != '\0')
        hy3_log(HY3_LOG_INFO, "%s: ignored keys: %s", name, s->unread);
}

hy3_status hy3_dataset_open(MPI_Comm comm, const struct hy3_dataset_options *options,
                            struct hy3_dataset **out, struct hy3_dataset_summary *summary)
{
    hy3_status status = HY3_OK;
    struct hy3_dataset *d = NULL;
    struct hy3_tokenizer *tokenizer = NULL;
    double begin = hy3_seconds();
    bool fits = false;

    *out = NULL;
    HY3_TRY_DONE(create(comm, options, &d));
    HY3_TRY_DONE(
        open_tokenizer(comm, options->tokenizer_directory, hy3_rank(comm) == 0, &tokenizer));
    HY3_TRY_DONE(find_file(comm, options, tokenizer, d, false, &fits));
    if (!fits && options->only_looks)
        goto done;
    if (!fits) {
        HY3_TRY_DONE(lock_cache(comm, options, &d->lock));
        HY3_TRY_DONE(find_file(comm, options, tokenizer, d, true, &fits));
    }
    HY3_TRY_DONE(open_tokenizer(comm, options->tokenizer_directory, !fits, &tokenizer));
    if (!fits)
        HY3_TRY_DONE(build(comm, options, tokenizer, d));
    HY3_TRY_DONE(share_file(comm, d));
    d->header.summary.reused = fits;
    d->header.summary.taken_over = fits ? 0 : d->files.taken_over;
    d->header.summary.seconds = hy3_seconds() - begin;
    if (summary)
        *summary = d->header.summary;
    if (!d->is_pending)
        d->lock = unlock(d->lock);
    if (!options->only_looks)
        report(options, d, fits ? "read from" : "written to");
    *out = HY3_TAKE(d);
done:
    hy3_tokenizer_close(tokenizer);
    hy3_dataset_close(d);
    return status;
}
