/* SPDX-License-Identifier: Apache-2.0 */
/* kept.c - the record of a piece: counts of its portions, what each spool has of it, unread keys.
 */
#include "data/kept.h"

#include "base/log.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "data/fingerprint.h"
#include "data/token_file.h"

#ifdef HAVE_CONFIG_H
#    include <config.h> /* configure's, not config/config.h */
#endif

#include <xxhash.h>

/* Pieces from which work is kept, 8 MB: less is done in seconds. */
enum { PIECES_MIN = 8, RECORD_FORMAT = 1, SPOOLS = 5, BLOCK = 1 << 16, NAME = 256 };

struct note { /* of an unread key; its text follows */
    int64_t portion, line, size;
};

struct part { /* of a spool: what a piece has of it; bytes */
    struct hy3_spool *spool;
    int64_t at, size;
};

/* All that decides what a portion becomes. */
static uint64_t identify(const struct hy3_tokenized *t, const struct hy3_tokenizer *tokenizer)
{
    static const char program[] = PACKAGE_VERSION;
    const struct hy3_dataset_options *o = t->options;
    const int64_t facts[] = {RECORD_FORMAT,
                             HY3_TOKEN_FORMAT,
                             (int64_t)hy3_tokenizer_fingerprint(tokenizer),
                             (int64_t)hy3_fingerprint_reading(o),
                             o->max_seq_length,
                             o->truncation,
                             o->keep_unlabelled,
                             o->content_tokens,
                             hy3_portions_piece_bytes(t->total_bytes),
                             (int64_t)sizeof(struct hy3_portion_counts),
                             (int64_t)sizeof(struct hy3_sample),
                             (int64_t)sizeof(struct hy3_reject)};
    uint64_t sum = XXH3_64bits_withSeed(program, sizeof program, XXH3_64bits(facts, sizeof facts));

    for (int f = 0; f < o->file_count; f++) {
        const struct hy3_source *s = &t->sources[f];
        const int64_t source[] = {s->size, s->mtime_ns, s->ctime_ns, s->layout, s->sampled};

        sum = XXH3_64bits_withSeed(source, sizeof source, sum);
    }
    return sum;
}

hy3_status hy3_kept_open(MPI_Comm comm, struct hy3_tokenized *t,
                         const struct hy3_tokenizer *tokenizer)
{
    const struct hy3_dataset_options *o = t->options;
    int64_t pieces = t->count > 0 ? t->portions[t->count - 1].piece + 1 : 0, kept = 0;

    if (pieces < PIECES_MIN)
        return HY3_OK;
    HY3_TRY(hy3_parts_open(comm, o->cache_directory, o->name, o->is_private, identify(t, tokenizer),
                           pieces, &t->parts));
    for (int64_t piece = 0; piece < pieces; piece++)
        kept += hy3_parts_size(t->parts, piece) > 0;
    if (kept > 0)
        hy3_log(HY3_LOG_INFO,
                "%s: %lld of %lld pieces (%.1f%%) were tokenized by a run that was ended; they are "
                "taken over",
                o->name, (long long)kept, (long long)pieces, 100 * (double)kept / (double)pieces);
    return HY3_OK;
}

hy3_status hy3_kept_note(struct hy3_tokenized *t, int64_t portion, int64_t line, json_t *names)
{
    const char *text;
    json_t *value;

    if (!t->parts)
        return HY3_OK;
    json_object_foreach(names, text, value)
    {
        struct note note = {portion, line, (int64_t)strlen(text)};

        HY3_TRY(hy3_text_append(&t->unread_text, (const char *)&note, sizeof note));
        HY3_TRY(hy3_text_append(&t->unread_text, text, (size_t)note.size));
    }
    return HY3_OK;
}

/* What the spools have between two places. */
static void list_parts(const struct hy3_tokenized *t, const struct place *from,
                       const struct place *to, struct part parts[SPOOLS])
{
    const struct {
        struct hy3_spool *spool;
        int64_t from, to, size;
    } all[SPOOLS] = {{t->ids, from->token, to->token, sizeof(uint32_t)},
                     {t->mask, from->token, to->token, 1},
                     {t->weights, from->weight, to->weight, sizeof(float)},
                     {t->samples, from->sample, to->sample, sizeof(struct hy3_sample)},
                     {t->rejects, from->reject, to->reject, sizeof(struct hy3_reject)}};

    for (int i = 0; i < SPOOLS; i++)
        parts[i] = (struct part){all[i].spool, all[i].from * all[i].size,
                                 (all[i].to - all[i].from) * all[i].size};
}

static hy3_status add_part(struct hy3_parts *parts, const struct part *part)
{
    char block[BLOCK];

    for (int64_t done = 0; done < part->size;) {
        int64_t size = part->size - done < BLOCK ? part->size - done : BLOCK;

        HY3_TRY(hy3_spool_read(part->spool, block, (size_t)size, part->at + done));
        HY3_TRY(hy3_parts_add(parts, block, (size_t)size));
        done += size;
    }
    return HY3_OK;
}

hy3_status hy3_kept_put(struct hy3_tokenized *t, int64_t piece, int64_t first, int64_t end)
{
    struct part parts[SPOOLS];
    struct place from = t->end;

    if (!t->parts || first == end)
        return HY3_OK;
    for (int64_t p = end; p-- > first;) {
        int64_t weight = from.weight - (t->places[p].weight >= 0 ? t->counts[p].tokens : 0);

        from = t->places[p];
        from.weight = weight;
    }
    list_parts(t, &from, &t->end, parts);
    HY3_TRY(hy3_parts_add(t->parts, &t->counts[first], (size_t)(end - first) * sizeof *t->counts));
    for (int i = 0; i < SPOOLS; i++)
        HY3_TRY(add_part(t->parts, &parts[i]));
    HY3_TRY(hy3_parts_add(t->parts, t->unread_text.data, t->unread_text.size));
    t->unread_text.size = 0;
    return hy3_parts_keep(t->parts, piece);
}

static hy3_status take_notes(struct hy3_tokenized *t, const char *at, const char *end)
{
    hy3_status status = HY3_OK;
    struct note note, next;
    json_t *names = NULL;
    char name[NAME];

    while (end - at > (ptrdiff_t)sizeof note) {
        memcpy(&note, at, sizeof note);
        at += sizeof note;
        if (note.size < 0 || note.size > end - at || note.size >= NAME)
            break;
        snprintf(name, sizeof name, "%.*s", (int)note.size, at);
        if (!names && !(names = json_object()))
            HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
        if (json_object_set_new(names, name, json_true()) != 0)
            HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
        at += note.size;
        if (end - at > (ptrdiff_t)sizeof next) {
            memcpy(&next, at, sizeof next);
            if (next.portion == note.portion && next.line == note.line)
                continue;
        }
        HY3_TRY_DONE(hy3_unread_add(t->unread, note.portion, note.line, names));
        json_decref(names);
        names = NULL;
    }
done:
    json_decref(names);
    return status;
}

/* Where the portions of a record begin in the spools, and where they end. */
static void place(struct hy3_tokenized *t, int64_t first, int64_t end)
{
    for (int64_t p = first; p < end; p++) {
        t->places[p] = t->end;
        if (t->counts[p].weighted > 0)
            t->end.weight += t->counts[p].tokens;
        else
            t->places[p].weight = -1;
        t->end.token += t->counts[p].tokens;
        t->end.sample += t->counts[p].samples;
        t->end.reject += t->counts[p].dropped + t->counts[p].bad;
    }
}

/* Whether no count of what a record holds is more than its bytes. */
static bool are_within(const struct hy3_portion_counts *counts, int64_t portions, int64_t bytes)
{
    for (int64_t p = 0; p < portions; p++) {
        const struct hy3_portion_counts *c = &counts[p];
        const int64_t all[] = {c->samples, c->tokens, c->weighted, c->dropped, c->bad};

        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (all[i] < 0 || all[i] > bytes)
                return false;
    }
    return true;
}

hy3_status hy3_kept_take(struct hy3_tokenized *t, int64_t piece, int64_t first, int64_t end,
                         bool *taken)
{
    struct place before = t->end;
    struct part parts[SPOOLS];
    int64_t counts = (end - first) * (int64_t)sizeof *t->counts, size = counts, all;
    const char *record = NULL;
    bool is_ours;

    *taken = false;
    if (t->parts && first < end)
        HY3_TRY(hy3_parts_load(t->parts, piece, &record));
    all = record ? hy3_parts_size(t->parts, piece) : 0;
    if (!record || all < counts)
        return HY3_OK;
    memcpy(&t->counts[first], record, (size_t)counts);
    is_ours = are_within(&t->counts[first], end - first, all);
    place(t, first, is_ours ? end : first);
    list_parts(t, &before, &t->end, parts);
    for (int i = 0; i < SPOOLS; i++)
        size += parts[i].size;
    if (!is_ours || size > all) {
        memset(&t->counts[first], 0, (size_t)counts);
        t->end = before;
        return HY3_OK;
    }
    record += counts;
    for (int i = 0; i < SPOOLS; record += parts[i++].size)
        HY3_TRY(hy3_spool_append(parts[i].spool, record, (size_t)parts[i].size));
    HY3_TRY(take_notes(t, record, record + (all - size)));
    t->taken_over++;
    *taken = true;
    return HY3_OK;
}
