/* SPDX-License-Identifier: Apache-2.0 */
/* tokenize.c - every rank tokenizes its pieces; then the counts are summed over ranks, and the end
 * of the data is found. */
#include "data/tokenize.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"
#include "comm/wait.h"
#include "data/fingerprint.h"
#include "data/items.h"
#include "data/kept.h"
#include "data/lines.h"
#include "data/tokenized.h"

struct tally { /* summed over ranks after each round */
    int64_t bytes, samples, bad, failed;
};

enum {
    TALLY = sizeof(struct tally) / sizeof(int64_t),
    COUNTS = sizeof(struct hy3_portion_counts) / 8,
    CHUNK = 4096 /* tokens */
};

void hy3_tokenized_free(struct hy3_tokenized *t)
{
    if (!t)
        return;
    hy3_parts_close(t->parts);
    hy3_free(t->unread_text.data);
    hy3_unread_free(t->unread);
    hy3_spool_close(t->ids);
    hy3_spool_close(t->mask);
    hy3_spool_close(t->weights);
    hy3_spool_close(t->samples);
    hy3_spool_close(t->rejects);
    hy3_sampler_free(t->sampler);
    hy3_lines_free(t->lines);
    hy3_free(t->places);
    hy3_free(t->counts);
    hy3_free(t->portions);
    hy3_free(t);
}

static hy3_status create(MPI_Comm comm, const struct hy3_dataset_options *options,
                         const struct hy3_source *sources, struct hy3_tokenizer *tokenizer,
                         struct hy3_tokenized **out)
{
    hy3_status status = HY3_OK;
    struct hy3_tokenized *t = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&t, 1, sizeof *t));
    t->options = options;
    t->sources = sources;
    t->rank = hy3_rank(comm);
    t->ranks = hy3_size(comm);
    for (int f = 0; f < options->file_count; f++)
        t->total_bytes += sources[f].size;
    HY3_TRY_DONE(hy3_portions_plan(sources, options->file_count,
                                   hy3_portions_piece_bytes(t->total_bytes), &t->portions,
                                   &t->count));
    HY3_TRY_DONE(hy3_alloc(&t->counts, (size_t)t->count, sizeof *t->counts));
    HY3_TRY_DONE(hy3_alloc(&t->places, (size_t)t->count, sizeof *t->places));
    HY3_TRY_DONE(hy3_lines_create(&t->lines));
    HY3_TRY_DONE(hy3_sampler_create(tokenizer, options, &t->sampler));
    HY3_TRY_DONE(hy3_unread_create(options->cache_directory, &t->unread));
    HY3_TRY_DONE(hy3_spool_open(options->cache_directory, &t->ids));
    HY3_TRY_DONE(hy3_spool_open(options->cache_directory, &t->mask));
    HY3_TRY_DONE(hy3_spool_open(options->cache_directory, &t->weights));
    HY3_TRY_DONE(hy3_spool_open(options->cache_directory, &t->samples));
    HY3_TRY_DONE(hy3_spool_open(options->cache_directory, &t->rejects));
    *out = HY3_TAKE(t);
done:
    hy3_tokenized_free(t);
    return status;
}

static void add_sample(struct hy3_portion_counts *counts, const struct hy3_sample *sample)
{
    counts->tokens += sample->length;
    counts->label_tokens += sample->labels;
    counts->truncated += sample->is_truncated;
    counts->null_contents += sample->null_contents;
    counts->weighted += sample->weighted;
    counts->unlabelled += sample->labels == 0;
    if (sample->length > counts->longest)
        counts->longest = sample->length;
}

/* Appends the weights of `count` tokens that have only a mask. */
static hy3_status spool_mask(struct hy3_tokenized *t, const uint8_t *mask, int64_t count)
{
    float weights[CHUNK];

    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;

        for (int64_t k = 0; k < n; k++)
            weights[k] = mask[i + k];
        HY3_TRY(hy3_spool_append(t->weights, weights, (size_t)n * sizeof *weights));
    }
    t->end.weight += count;
    return HY3_OK;
}

/* A portion has weights from its first sample that has some: those before get theirs now. */
static hy3_status begin_weights(struct hy3_tokenized *t, int64_t p)
{
    uint8_t mask[CHUNK];

    t->places[p].weight = t->end.weight;
    for (int64_t i = 0; i < t->counts[p].tokens; i += CHUNK) {
        int64_t left = t->counts[p].tokens - i, n = left < CHUNK ? left : CHUNK;

        HY3_TRY(hy3_tokenized_mask(t, p, (struct hy3_span){i, n}, mask));
        HY3_TRY(spool_mask(t, mask, n));
    }
    return HY3_OK;
}

/* The weights of a sample that follows those of the portion; few have any. */
static hy3_status keep_weights(struct hy3_tokenized *t, int64_t p, const struct hy3_encoded *e)
{
    if (!e->weights && t->counts[p].weighted == 0)
        return HY3_OK;
    if (t->counts[p].weighted == 0)
        HY3_TRY(begin_weights(t, p));
    if (!e->weights)
        return spool_mask(t, e->mask, (int64_t)e->length);
    t->end.weight += (int64_t)e->length;
    return hy3_spool_append(t->weights, e->weights, e->length * sizeof *e->weights);
}

static hy3_status keep(struct hy3_tokenized *t, struct hy3_portion_counts *counts,
                       const struct hy3_encoded *e)
{
    int64_t portion = counts - t->counts;
    struct hy3_sample sample = {.line = counts->lines,
                                .length = (int64_t)e->length,
                                .labels = (int64_t)e->labels,
                                .checksum = hy3_sample_checksum(e->ids, e->mask, e->length),
                                .is_truncated = e->is_truncated,
                                .null_contents = e->null_contents,
                                .weighted = (int64_t)e->weighted};

    if (e->weights)
        sample.weight_checksum = hy3_sample_weight_checksum(e->weights, e->length);
    HY3_TRY(keep_weights(t, portion, e));
    HY3_TRY(hy3_spool_append(t->ids, e->ids, e->length * sizeof *e->ids));
    HY3_TRY(hy3_spool_append(t->mask, e->mask, e->length));
    HY3_TRY(hy3_spool_append(t->samples, &sample, sizeof sample));
    HY3_TRY(hy3_unread_add(t->unread, portion, counts->lines, e->unread));
    HY3_TRY(hy3_kept_note(t, portion, counts->lines, e->unread));
    counts->samples++;
    add_sample(counts, &sample);
    t->end.token += sample.length;
    t->end.sample++;
    return HY3_OK;
}

static hy3_status leave_out(struct hy3_tokenized *t, struct hy3_portion_counts *counts, bool is_bad,
                            const char *reason)
{
    struct hy3_reject reject;

    hy3_sample_reject(counts->lines, is_bad, reason, &reject);
    HY3_TRY(hy3_spool_append(t->rejects, &reject, sizeof reject));
    counts->bad += is_bad;
    counts->dropped += !is_bad;
    t->end.reject++;
    return HY3_OK;
}

static hy3_status take_line(struct hy3_tokenized *t, struct hy3_portion_counts *counts,
                            const char *line, int64_t size)
{
    hy3_status status;
    struct hy3_encoded encoded;

    status = hy3_sampler_encode(t->sampler, line, size, &encoded);
    if (status == HY3_EFORMAT)
        status = leave_out(t, counts, true, hy3_error_text());
    else if (status == HY3_OK && encoded.dropped)
        status = leave_out(t, counts, false, encoded.dropped);
    else if (status == HY3_OK && encoded.length > 0)
        status = keep(t, counts, &encoded);
    counts->lines++;
    return status;
}

static hy3_status take_portion(struct hy3_tokenized *t, int64_t p)
{
    const struct hy3_portion *portion = &t->portions[p];
    const char *line;
    int64_t size;

    t->places[p] = t->end;
    t->places[p].weight = -1;
    hy3_sampler_set_form(t->sampler, t->options->forms ? &t->options->forms[portion->file] : NULL);
    HY3_TRY(hy3_lines_begin(t->lines, &t->sources[portion->file], portion));
    for (;;) {
        HY3_TRY(hy3_lines_next(t->lines, &line, &size));
        if (!line)
            break;
        HY3_TRY(take_line(t, &t->counts[p], line, size));
        HY3_TRY(hy3_stop_check("tokenizing"));
    }
    t->counts[p].hash = hy3_lines_hash(t->lines);
    return HY3_OK;
}

/* The portions of piece `piece`, which begin at *p or later: of an earlier run, or tokenized. */
static hy3_status take_piece(struct hy3_tokenized *t, int64_t piece, int64_t *p,
                             struct tally *tally)
{
    hy3_status status = HY3_OK;
    int64_t first, end;
    bool is_kept = false;

    while (*p < t->count && t->portions[*p].piece < piece)
        ++*p;
    for (first = end = *p; end < t->count && t->portions[end].piece == piece;)
        end++;
    HY3_TRY_DONE(hy3_stop_check("tokenizing"));
    HY3_TRY_DONE(hy3_kept_take(t, piece, first, end, &is_kept));
    for (; *p < end; ++*p) {
        if (!is_kept)
            HY3_TRY_DONE(take_portion(t, *p));
        tally->bytes += t->portions[*p].end - t->portions[*p].begin;
        tally->samples += t->counts[*p].samples;
        tally->bad += t->counts[*p].bad;
    }
    if (!is_kept)
        status = hy3_kept_put(t, piece, first, end);
done:
    tally->failed = status != HY3_OK;
    return status;
}

static int set_of(const struct hy3_tokenized *t, int file)
{
    return t->options->sets ? t->options->sets[file] : file;
}

/* Samples that count of the file's set; 0: all. */
static int64_t limit_of(const struct hy3_tokenized *t, int file)
{
    int64_t asked = t->options->limits ? t->options->limits[file] : 0;
    int64_t most = t->options->max_samples;

    return asked > 0 && (most == 0 || asked < most) ? asked : most;
}

static bool is_enough(const struct hy3_tokenized *t, const struct tally *sum)
{
    const struct hy3_dataset_options *o = t->options;
    int64_t limit = limit_of(t, 0);

    return sum->failed > 0 ||
           (limit > 0 && set_of(t, 0) == set_of(t, o->file_count - 1) && sum->samples >= limit) ||
           (sum->bad > o->max_bad_samples && sum->bad >= HY3_BAD_LISTED);
}

static void add_round(struct tally *sum, const struct tally *round)
{
    sum->bytes += round->bytes;
    sum->samples += round->samples;
    sum->bad += round->bad;
    sum->failed += round->failed;
}

static void show_progress(const struct hy3_tokenized *t, const struct tally *sum, double begin)
{
    char label[32];

    snprintf(label, sizeof label, "tokenizing %.12s", t->options->name);
    hy3_log_progress_bytes(label, sum->bytes, t->total_bytes, begin);
}

/* All ranks finish the same rounds, so the pieces read are contiguous from the start of
 * the files. The sums of a round are awaited after the next one: no rank idles while they differ by
 * less than a piece. */
static hy3_status work(MPI_Comm comm, struct hy3_tokenized *t, bool *is_complete)
{
    hy3_status status = HY3_OK;
    int64_t p = 0, pieces = t->count > 0 ? t->portions[t->count - 1].piece + 1 : 0;
    int64_t rounds = (pieces + t->ranks - 1) / t->ranks, round;
    struct tally sum = {0}, mine, total;
    MPI_Request request = MPI_REQUEST_NULL;
    double begin = hy3_seconds();

    *is_complete = true;
    for (round = 0; round <= rounds; round++) {
        struct tally next = {.failed = status != HY3_OK};

        if (round < rounds && status == HY3_OK)
            status = take_piece(t, round * t->ranks + t->rank, &p, &next);
        if (round > 0) {
            hy3_wait(&request, "tokenizing");
            add_round(&sum, &total);
            show_progress(t, &sum, begin);
        }
        if (round == rounds || is_enough(t, &sum))
            break;
        mine = next;
        MPI_Iallreduce(&mine, &total, TALLY, MPI_INT64_T, MPI_SUM, comm, &request);
    }
    *is_complete = round == rounds;
    return hy3_agree(comm, status, "tokenizing");
}

/* Truncates the counts of a portion to its first `samples` samples. */
static hy3_status cut_row(struct hy3_tokenized *t, int64_t p, int64_t samples)
{
    struct hy3_portion_counts *counts = &t->counts[p],
                              cut = {.hash = counts->hash, .samples = samples};
    int64_t rejects = counts->dropped + counts->bad;
    struct hy3_sample sample = {.line = -1};
    struct hy3_reject reject;

    for (int64_t i = 0; i < samples; i++) {
        HY3_TRY(hy3_tokenized_samples(t, p, (struct hy3_span){i, 1}, &sample));
        add_sample(&cut, &sample);
    }
    cut.lines = sample.line + 1;
    for (int64_t i = 0; i < rejects; i++) {
        HY3_TRY(hy3_tokenized_rejects(t, p, (struct hy3_span){i, 1}, &reject));
        if (reject.line >= cut.lines)
            break;
        cut.bad += reject.is_bad;
        cut.dropped += !reject.is_bad;
    }
    *counts = cut;
    return HY3_OK;
}

/* "PATH#N" of a set that has fewer lines. */
static hy3_status check_lines(const struct hy3_tokenized *t, int64_t first, int64_t end)
{
    int file = t->portions[first].file;
    int64_t asked = t->options->limits ? t->options->limits[file] : 0, lines = 0;

    for (int64_t p = first; p < end; p++)
        lines += t->counts[p].lines;
    if (lines < asked)
        HY3_FAIL(HY3_EUSAGE,
                 "'%s#%lld' asks for more samples than there are: %lld line%s; hy3 repeats none, "
                 "set num_train_epochs",
                 t->sources[file].path, (long long)asked, (long long)lines, hy3_s(lines));
    return HY3_OK;
}

/* Drops everything behind the last sample that counts of the portions [first, end), one set. */
static hy3_status cut_set(MPI_Comm comm, struct hy3_tokenized *t, int64_t first, int64_t end,
                          bool is_complete)
{
    hy3_status status = HY3_OK;
    int64_t left = limit_of(t, t->portions[first].file), p = first;

    if (left == 0)
        return HY3_OK;
    while (p < end && t->counts[p].samples < left)
        left -= t->counts[p++].samples;
    if (p == end)
        return is_complete ? check_lines(t, first, end) : HY3_OK;
    if (hy3_tokenized_is_mine(t, p))
        status = cut_row(t, p, left);
    HY3_AGREE(comm, status, "truncating the dataset");
    hy3_broadcast(comm, (int)(t->portions[p].piece % t->ranks), &t->counts[p], sizeof *t->counts,
                  "truncating the dataset");
    if (end == t->count)
        t->hashed = p + 1;
    for (int64_t q = p + 1; q < end; q++) /* the hash stays: it is the sources' */
        t->counts[q] = (struct hy3_portion_counts){.hash = t->counts[q].hash};
    return HY3_OK;
}

static hy3_status cut(MPI_Comm comm, struct hy3_tokenized *t, bool is_complete)
{
    t->hashed = t->count;
    for (int64_t first = 0, end; first < t->count; first = end) {
        end = first;
        while (end < t->count &&
               set_of(t, t->portions[end].file) == set_of(t, t->portions[first].file))
            end++;
        HY3_TRY(cut_set(comm, t, first, end, is_complete));
    }
    return HY3_OK;
}

/* The first line, sample and token of each portion, and the sums. */
static void place_counts(struct hy3_tokenized *t, struct hy3_dataset_summary *sum)
{
    int file = -1;
    int64_t line = 0;

    memset(sum, 0, sizeof *sum);
    sum->bytes = t->total_bytes;
    for (int64_t p = 0; p < t->count; p++) {
        struct hy3_portion_counts *counts = &t->counts[p];

        if (t->portions[p].file != file)
            line = 0;
        file = t->portions[p].file;
        counts->first_line = line;
        counts->first_sample = sum->samples;
        counts->first_token = sum->tokens;
        line += counts->lines;
        sum->lines += counts->lines;
        sum->samples += counts->samples;
        sum->tokens += counts->tokens;
        sum->label_tokens += counts->label_tokens;
        sum->truncated += counts->truncated;
        sum->dropped += counts->dropped;
        sum->bad += counts->bad;
        sum->null_contents += counts->null_contents;
        sum->weighted += counts->weighted;
        sum->unlabelled += counts->unlabelled;
        if (counts->longest > sum->longest)
            sum->longest = counts->longest;
    }
}

hy3_status hy3_tokenize(MPI_Comm comm, const struct hy3_dataset_options *options,
                        const struct hy3_source *sources, struct hy3_tokenizer *tokenizer,
                        struct hy3_tokenized **out, struct hy3_dataset_summary *summary,
                        bool *is_complete)
{
    hy3_status status = HY3_OK;
    struct hy3_tokenized *t = NULL;

    *out = NULL;
    HY3_AGREE_DONE(comm, create(comm, options, sources, tokenizer, &t), "tokenizing");
    HY3_TRY_DONE(hy3_items_locate(comm, sources, t->portions, t->count));
    HY3_TRY_DONE(hy3_kept_open(comm, t, tokenizer));
    HY3_TRY_DONE(work(comm, t, is_complete));
    hy3_allreduce_int(comm, (int64_t *)t->counts, (int)(t->count * COUNTS), MPI_SUM, "tokenizing");
    HY3_TRY_DONE(cut(comm, t, *is_complete));
    place_counts(t, summary);
    summary->taken_over = t->taken_over;
    hy3_allreduce_int(comm, &summary->taken_over, 1, MPI_SUM, "tokenizing");
    HY3_TRY_DONE(hy3_unread_sum(comm, t->unread, t->count > 0 ? &t->counts->lines : NULL, COUNTS,
                                summary->unread, sizeof summary->unread));
    *out = HY3_TAKE(t);
done:
    hy3_tokenized_free(t);
    return status;
}

int64_t hy3_tokenized_portions(const struct hy3_tokenized *tokenized)
{
    return tokenized->count;
}

const struct hy3_portion_counts *hy3_tokenized_counts(const struct hy3_tokenized *tokenized,
                                                      int64_t p)
{
    return &tokenized->counts[p];
}

int hy3_tokenized_owner(const struct hy3_tokenized *tokenized, int64_t p)
{
    return (int)(tokenized->portions[p].piece % tokenized->ranks);
}

bool hy3_tokenized_is_mine(const struct hy3_tokenized *tokenized, int64_t p)
{
    return hy3_tokenized_owner(tokenized, p) == tokenized->rank;
}

int hy3_tokenized_file(const struct hy3_tokenized *tokenized, int64_t p)
{
    return tokenized->portions[p].file;
}

const struct hy3_source *hy3_tokenized_source(const struct hy3_tokenized *tokenized, int64_t p)
{
    return &tokenized->sources[tokenized->portions[p].file];
}

hy3_status hy3_tokenized_ids(const struct hy3_tokenized *tokenized, int64_t p, struct hy3_span span,
                             uint32_t *out)
{
    return hy3_spool_read(tokenized->ids, out, (size_t)span.count * sizeof *out,
                          (tokenized->places[p].token + span.first) * (int64_t)sizeof *out);
}

hy3_status hy3_tokenized_mask(const struct hy3_tokenized *tokenized, int64_t p,
                              struct hy3_span span, uint8_t *out)
{
    return hy3_spool_read(tokenized->mask, out, (size_t)span.count,
                          tokenized->places[p].token + span.first);
}

hy3_status hy3_tokenized_weights(const struct hy3_tokenized *tokenized, int64_t p,
                                 struct hy3_span span, float *out)
{
    uint8_t mask[CHUNK];

    if (tokenized->places[p].weight >= 0)
        return hy3_spool_read(tokenized->weights, out, (size_t)span.count * sizeof *out,
                              (tokenized->places[p].weight + span.first) * (int64_t)sizeof *out);
    for (int64_t i = 0; i < span.count; i += CHUNK) {
        int64_t left = span.count - i, n = left < CHUNK ? left : CHUNK;

        HY3_TRY(hy3_tokenized_mask(tokenized, p, (struct hy3_span){span.first + i, n}, mask));
        for (int64_t k = 0; k < n; k++)
            out[i + k] = mask[k];
    }
    return HY3_OK;
}

hy3_status hy3_tokenized_samples(const struct hy3_tokenized *tokenized, int64_t p,
                                 struct hy3_span span, struct hy3_sample *out)
{
    return hy3_spool_read(tokenized->samples, out, (size_t)span.count * sizeof *out,
                          (tokenized->places[p].sample + span.first) * (int64_t)sizeof *out);
}

hy3_status hy3_tokenized_rejects(const struct hy3_tokenized *tokenized, int64_t p,
                                 struct hy3_span span, struct hy3_reject *out)
{
    return hy3_spool_read(tokenized->rejects, out, (size_t)span.count * sizeof *out,
                          (tokenized->places[p].reject + span.first) * (int64_t)sizeof *out);
}

int64_t hy3_tokenized_hashed(const struct hy3_tokenized *tokenized)
{
    return tokenized->hashed;
}

uint64_t hy3_tokenized_fingerprint(const struct hy3_tokenized *tokenized)
{
    return hy3_fingerprint_combine(tokenized->sources, tokenized->options->file_count,
                                   tokenized->count > 0 ? &tokenized->counts->hash : NULL, COUNTS,
                                   tokenized->hashed);
}
