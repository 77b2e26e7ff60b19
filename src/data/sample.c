/* SPDX-License-Identifier: Apache-2.0 */
/* sample.c - the one place where a line becomes tokens and labels. */
#include "data/sample.h"

#include "base/memory.h"
#include "data/lines.h"
#include "text/labels.h"
#include "text/reasoning.h"
#include "text/template.h"

#include <xxhash.h>

struct hy3_sampler {
    struct hy3_tokenizer *tokenizer;
    size_t max_length;
    enum hy3_truncation truncation;
    struct hy3_conversation *conversation; /* of the last line */
    struct hy3_text text;
    struct hy3_contents contents; /* of the text */
    struct hy3_ids ids;
    struct hy3_turns turns; /* of the text */
    uint8_t *mask;
    float *weights; /* of the line, where is_weighed */
    size_t mask_capacity, weight_capacity;
    bool is_weighed;
    int64_t last_turn; /* its first message, from 1 */
    struct hy3_reading reading;
    char cut_reason[256], long_reason[128];
    bool keep_unlabelled;
    enum hy3_content_tokens content_tokens;
    struct hy3_form form; /* of the lines */
};

hy3_status hy3_sampler_create(struct hy3_tokenizer *tokenizer,
                              const struct hy3_dataset_options *options, struct hy3_sampler **out)
{
    int64_t length = options->max_seq_length;
    struct hy3_sampler *s = NULL;

    *out = NULL;
    HY3_TRY(hy3_alloc(&s, 1, sizeof *s));
    s->tokenizer = tokenizer;
    s->max_length = length < INT32_MAX ? (size_t)length : INT32_MAX;
    s->truncation = options->truncation;
    s->keep_unlabelled = options->keep_unlabelled;
    s->content_tokens = options->content_tokens;
    s->reading = options->reading;
    snprintf(s->cut_reason, sizeof s->cut_reason,
             "no label token within the %s %zu tokens (max_seq_length)%s",
             s->truncation == HY3_TRUNCATE_LEFT ? "last" : "first", s->max_length,
             s->reading.masks_history && s->truncation == HY3_TRUNCATE_RIGHT
                 ? "; only the last turn is learned: truncation_strategy = left keeps it"
                 : "");
    *out = s;
    return HY3_OK;
}

void hy3_sampler_free(struct hy3_sampler *sampler)
{
    if (!sampler)
        return;
    hy3_conversation_free(sampler->conversation);
    hy3_free(sampler->contents.items);
    hy3_free(sampler->text.data);
    hy3_free(sampler->turns.items);
    hy3_free(sampler->ids.data);
    hy3_free(sampler->ids.at);
    hy3_free(sampler->mask);
    hy3_free(sampler->weights);
    hy3_free(sampler);
}

void hy3_sampler_set_form(struct hy3_sampler *sampler, const struct hy3_form *form)
{
    sampler->form = form ? *form : (struct hy3_form){0};
}

static bool is_blank(const char *line, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

static hy3_status refuse_token(const struct hy3_sampler *s, int32_t token, size_t at)
{
    const struct hy3_content *content = hy3_contents_find(&s->contents, at, at + 1);
    char place[40] = "the tools";
    const char *bytes;
    size_t size;

    HY3_TRY(hy3_tokenizer_bytes(s->tokenizer, token, &bytes, &size));
    if (content && content->message > 0)
        snprintf(place, sizeof place, "message %lld", (long long)content->message);
    HY3_FAIL(HY3_EFORMAT,
             "%s: the text has the control token '%.*s'; remove it, or set "
             "special_tokens_in_content = text to learn it as plain characters",
             place, (int)(size < 60 ? size : 60), bytes);
}

static hy3_status encode_text(struct hy3_sampler *s)
{
    int32_t found;
    size_t at;

    if (s->content_tokens == HY3_CONTENT_TOKEN)
        return hy3_tokenizer_encode(s->tokenizer, s->text.data, s->text.size, false, &s->ids);
    HY3_TRY(hy3_tokenizer_encode_rendered(s->tokenizer, s->text.data, s->text.size, &s->contents,
                                          &s->ids, &found, &at));
    if (found >= 0 && s->content_tokens == HY3_CONTENT_REJECT)
        return refuse_token(s, found, at);
    return HY3_OK;
}

/* The weight of a label whose stretch of text begins at byte `at`; *turn: the first answer that may
 * have it. */
static float weigh(const struct hy3_sampler *s, size_t at, size_t *turn)
{
    const struct hy3_turns *turns = &s->turns;
    const struct hy3_turn *own;

    while (*turn < turns->count && at >= turns->items[*turn].end)
        ++*turn;
    if (s->reading.masks_history &&
        (*turn == turns->count || turns->items[*turn].message < s->last_turn))
        return 0;
    if (*turn == turns->count || at < (own = &turns->items[*turn])->first)
        return 1; /* as only special_tokens_in_content = token has it */
    if (s->reading.masks_empty_think && !own->thinks && at < own->answer)
        return 0;
    return hy3_conversation_weight(s->conversation, own->message);
}

/* What is 0 is no label any more. */
static hy3_status weigh_labels(struct hy3_sampler *s)
{
    size_t turn = 0;

    if (!s->is_weighed)
        return HY3_OK;
    HY3_TRY(hy3_grow(&s->weights, &s->weight_capacity, s->ids.count, sizeof *s->weights));
    for (size_t i = 0; i < s->ids.count; i++) {
        s->weights[i] = s->mask[i] ? weigh(s, s->ids.at[i], &turn) : 0;
        s->mask[i] = s->weights[i] > 0;
    }
    return HY3_OK;
}

/* All ids and labels of a line, before truncation. */
static hy3_status encode_all(struct hy3_sampler *s, const char *line, int64_t size)
{
    const struct hy3_template_options training = {
        .is_training = true, .keep_thinking = -1, .turns = &s->turns};
    const struct hy3_specials *special = hy3_tokenizer_specials(s->tokenizer);

    s->text.size = 0;
    s->contents.count = 0;
    s->ids.count = 0;
    s->turns.count = 0;
    hy3_conversation_free(s->conversation);
    HY3_TRY(hy3_conversation_parse_form(line, (size_t)size, &s->form, &s->reading,
                                        hy3_dialect_names(hy3_tokenizer_dialect(s->tokenizer)),
                                        &s->conversation));
    HY3_TRY(hy3_template_render_marked(s->conversation, hy3_tokenizer_dialect(s->tokenizer),
                                       &training, &s->text, &s->contents));
    s->is_weighed = hy3_conversation_is_weighted(s->conversation) || s->reading.masks_history ||
                    s->reading.masks_empty_think;
    s->last_turn =
        1 + (int64_t)hy3_reasoning_last_turn(
                &s->reading, json_object_get(hy3_conversation_json(s->conversation), "messages"));
    s->ids.marks_places = s->is_weighed;
    HY3_TRY(encode_text(s));
    HY3_TRY(hy3_grow(&s->mask, &s->mask_capacity, s->ids.count, sizeof *s->mask));
    hy3_labels_mark(s->ids.data, s->ids.count, special->assistant, special->eos, s->mask);
    return weigh_labels(s);
}

static size_t count_labels(const uint8_t *mask, size_t length)
{
    size_t labels = 0;

    for (size_t t = 1; t < length; t++)
        labels += mask[t];
    return labels;
}

/* The weights of the tokens that are kept, unless all labels have 1. */
static void put_weights(const struct hy3_sampler *s, size_t first, struct hy3_encoded *out)
{
    if (!s->is_weighed)
        return;
    s->weights[first] = s->mask[first]; /* nothing predicts it */
    for (size_t t = 0; t < out->length; t++)
        out->weighted += s->mask[first + t] && s->weights[first + t] != 1;
    if (out->weighted > 0)
        out->weights = s->weights + first;
}

static hy3_status drop_long(struct hy3_sampler *s, struct hy3_encoded *out)
{
    snprintf(s->long_reason, sizeof s->long_reason, "%zu tokens are more than max_seq_length, %zu",
             s->ids.count, s->max_length);
    out->dropped = s->long_reason;
    return HY3_OK;
}

hy3_status hy3_sampler_encode(struct hy3_sampler *sampler, const char *line, int64_t size,
                              struct hy3_encoded *out)
{
    struct hy3_sampler *s = sampler;
    size_t length, first;

    memset(out, 0, sizeof *out);
    if (size < 0)
        HY3_FAIL(HY3_EFORMAT, "the line is longer than %d MiB", HY3_LINE_MAX >> 20);
    if (is_blank(line, size))
        return HY3_OK;
    HY3_TRY(encode_all(s, line, size));
    length = s->ids.count < s->max_length ? s->ids.count : s->max_length;
    if (length < s->ids.count && s->truncation == HY3_TRUNCATE_DELETE)
        return drop_long(s, out);
    first = s->truncation == HY3_TRUNCATE_LEFT ? s->ids.count - length : 0;
    out->labels = count_labels(s->mask + first, length);
    if (out->labels == 0 && !s->keep_unlabelled) {
        out->dropped = count_labels(s->mask, s->ids.count) == 0
                           ? "no label token: no answer of the assistant is learned"
                           : s->cut_reason;
        return HY3_OK;
    }
    out->length = length;
    out->is_truncated = length < s->ids.count;
    out->unread = hy3_conversation_unread(s->conversation);
    out->null_contents = hy3_conversation_null_contents(s->conversation);
    out->ids = s->ids.data + first;
    out->mask = s->mask + first;
    put_weights(s, first, out);
    return HY3_OK;
}

void hy3_sample_reject(int64_t line, bool is_bad, const char *reason, struct hy3_reject *out)
{
    size_t size = strlen(reason);

    memset(out, 0, sizeof *out);
    out->line = line;
    out->is_bad = is_bad;
    if (size >= sizeof out->reason) {
        size = sizeof out->reason - 1;
        while (size > 0 && ((unsigned char)reason[size] & 0xc0) == 0x80)
            size--;
    }
    memcpy(out->reason, reason, size);
}

uint64_t hy3_sample_weight_checksum(const float *weights, size_t length)
{
    uint64_t sum = XXH3_64bits(weights, length * sizeof *weights);

    return sum <= HY3_NO_WEIGHTS ? sum + 2 : sum;
}

uint64_t hy3_sample_checksum(const void *ids, const uint8_t *mask, size_t length)
{
    return XXH3_64bits_withSeed(mask, length, XXH3_64bits(ids, length * sizeof(uint32_t)));
}
