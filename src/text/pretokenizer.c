/* SPDX-License-Identifier: Apache-2.0 */
/* pretokenizer.c - cuts text into words. */
#include "text/pretokenizer.h"

#include "base/json.h"
#include "base/memory.h"
#include "text/pattern.h"
#include "text/utf8.h"

enum { STEPS_MAX = 64 };

static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
    "|\\s+(?!\\S)|\\s+";

enum behavior { ISOLATED, REMOVED, WITH_PREVIOUS, WITH_NEXT, CONTIGUOUS, BEHAVIORS };

struct step {
    struct hy3_pattern *pattern; /* NULL: puts a space before the piece if there is none */
    enum behavior behavior;
    bool invert;
};

struct hy3_pretokenizer {
    struct step steps[STEPS_MAX];
    size_t count;
    bool is_complete; /* ByteLevel has been read */
    char *spaced;     /* a piece with its new space, and its shape */
    size_t spaced_capacity;
    struct hy3_budget *budget; /* of the text being split */
    hy3_pretokenizer_emit *emit;
    void *context;
};

static hy3_status add_step(struct hy3_pretokenizer *p, const char *pattern, bool is_literal,
                           enum behavior behavior, bool invert, const char *where)
{
    struct step step = {NULL, behavior, invert};

    if (p->count == STEPS_MAX)
        HY3_FAIL(HY3_EFORMAT, "%s: the pre-tokenizer has over %d steps", where, STEPS_MAX);
    if (pattern)
        HY3_TRY(hy3_pattern_create(pattern, is_literal, where, &step.pattern));
    p->steps[p->count++] = step;
    return HY3_OK;
}

static hy3_status read_split(struct hy3_pretokenizer *p, const json_t *value, const char *where)
{
    static const char *const names[BEHAVIORS] = {"Isolated", "Removed", "MergedWithPrevious",
                                                 "MergedWithNext", "Contiguous"};
    const json_t *pattern = json_object_get(value, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *text = regex ? regex : json_object_get(pattern, "String");
    enum behavior behavior = ISOLATED;
    const char *name;
    bool invert;

    if (!json_is_string(text))
        HY3_FAIL(HY3_EFORMAT, "%s: a Split needs a 'pattern' with 'Regex' or 'String'", where);
    if (strlen(json_string_value(text)) != json_string_length(text))
        HY3_FAIL(HY3_EFORMAT, "%s: a split pattern contains NUL", where);
    HY3_TRY(hy3_json_text(value, "behavior", where, &name));
    while (behavior < BEHAVIORS && strcmp(name, names[behavior]) != 0)
        behavior++;
    if (behavior == BEHAVIORS)
        HY3_FAIL(HY3_EFORMAT, "%s: the split behavior '%.60s' is not known", where, name);
    HY3_TRY(hy3_json_bool_or(value, "invert", where, false, &invert));
    return add_step(p, json_string_value(text), !regex, behavior, invert, where);
}

static hy3_status read_digits(struct hy3_pretokenizer *p, const json_t *value, const char *where)
{
    bool individual;

    HY3_TRY(hy3_json_bool_or(value, "individual_digits", where, false, &individual));
    return add_step(p, "\\p{N}", false, individual ? ISOLATED : CONTIGUOUS, false, where);
}

static hy3_status read_byte_level(struct hy3_pretokenizer *p, const json_t *value,
                                  const char *where)
{
    bool adds_space, splits;

    HY3_TRY(hy3_json_bool_or(value, "add_prefix_space", where, false, &adds_space));
    HY3_TRY(hy3_json_bool_or(value, "use_regex", where, true, &splits));
    if (adds_space)
        HY3_TRY(add_step(p, NULL, false, ISOLATED, false, where));
    if (splits)
        HY3_TRY(add_step(p, gpt2, false, ISOLATED, false, where));
    p->is_complete = true;
    return HY3_OK;
}

static hy3_status read_step(struct hy3_pretokenizer *p, const json_t *value, const char *where,
                            int depth)
{
    const json_t *list = json_object_get(value, "pretokenizers"), *item;
    const char *type;
    size_t i;

    if (!json_is_object(value))
        HY3_FAIL(HY3_EFORMAT, "%s: 'pre_tokenizer' must be an object ending in ByteLevel", where);
    HY3_TRY(hy3_json_text(value, "type", where, &type));
    if (p->is_complete)
        HY3_FAIL(HY3_EFORMAT, "%s: the pre-tokenizer '%.60s' follows ByteLevel, which must be last",
                 where, type);
    if (strcmp(type, "Split") == 0)
        return read_split(p, value, where);
    if (strcmp(type, "Digits") == 0)
        return read_digits(p, value, where);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(p, value, where);
    if (strcmp(type, "Sequence") != 0 || !json_is_array(list) || depth > 8)
        HY3_FAIL(HY3_EFORMAT, "%s: the pre-tokenizer '%.60s' is not supported", where, type);
    json_array_foreach(list, i, item) HY3_TRY(read_step(p, item, where, depth + 1));
    return HY3_OK;
}

hy3_status hy3_pretokenizer_create(const json_t *value, const char *where,
                                   struct hy3_pretokenizer **out)
{
    hy3_status status = HY3_OK;
    struct hy3_pretokenizer *p = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&p, 1, sizeof *p));
    HY3_TRY_DONE(read_step(p, value, where, 0));
    if (!p->is_complete)
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: the pre-tokenizer has no ByteLevel at its end", where);
    *out = HY3_TAKE(p);
done:
    hy3_pretokenizer_free(p);
    return status;
}

void hy3_pretokenizer_free(struct hy3_pretokenizer *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++)
        hy3_pattern_free(p->steps[i].pattern);
    hy3_free(p->spaced);
    hy3_free(p);
}

static hy3_status run(struct hy3_pretokenizer *p, size_t index, struct hy3_piece piece);

/* What a split holds back until it knows whether the next range joins it. */
struct split {
    struct hy3_pretokenizer *p;
    size_t index; /* of the step */
    struct hy3_piece whole;
    size_t start, end; /* pending */
    bool is_pending, was_match;
};

static hy3_status hand_on(struct split *split, size_t start, size_t end)
{
    if (start == end)
        return HY3_OK;
    return run(split->p, split->index + 1, hy3_piece_part(split->whole, start, end));
}

static hy3_status flush(struct split *split)
{
    hy3_status status = HY3_OK;

    if (split->is_pending)
        status = hand_on(split, split->start, split->end);
    split->is_pending = false;
    return status;
}

/* The next range, a match or what lies between matches. The merging rules are the folds in Hugging
 * Face's NormalizedString::split. */
static hy3_status take(struct split *split, size_t start, size_t end, bool is_match)
{
    enum behavior behavior = split->p->steps[split->index].behavior;
    bool joins = false;

    if (behavior == ISOLATED)
        return hand_on(split, start, end);
    if (behavior == REMOVED)
        return is_match ? HY3_OK : hand_on(split, start, end);
    if (behavior == WITH_PREVIOUS)
        joins = is_match && !split->was_match;
    else if (behavior == WITH_NEXT)
        joins = !is_match && split->was_match;
    else
        joins = is_match == split->was_match;
    if (!(joins && split->is_pending)) {
        HY3_TRY(flush(split));
        split->start = start;
    }
    split->end = end;
    split->is_pending = true;
    split->was_match = is_match;
    return HY3_OK;
}

static hy3_status run_split(struct hy3_pretokenizer *p, size_t index, struct hy3_piece piece)
{
    struct split split = {.p = p, .index = index, .whole = piece};
    struct hy3_pattern *pattern = p->steps[index].pattern;
    bool invert = p->steps[index].invert, found = true;
    size_t from = 0, done_to = 0, last_end = SIZE_MAX, start, end;
    uint32_t code;

    while (from <= piece.size) {
        HY3_TRY(hy3_pattern_find(pattern, piece.shape, piece.size, from, p->budget, &found, &start,
                                 &end));
        if (!found)
            break;
        if (start == end && end == last_end) { /* no empty match right behind a match */
            from +=
                from < piece.size ? hy3_utf8_next(piece.shape + from, piece.size - from, &code) : 1;
            continue;
        }
        from = last_end = end;
        if (done_to != start)
            HY3_TRY(take(&split, done_to, start, invert));
        HY3_TRY(take(&split, start, end, !invert));
        done_to = end;
    }
    if (done_to != piece.size)
        HY3_TRY(take(&split, done_to, piece.size, invert));
    return flush(&split);
}

static hy3_status run_space(struct hy3_pretokenizer *p, size_t index, struct hy3_piece piece)
{
    size_t size = piece.size + 1;

    if (piece.text[0] == ' ')
        return run(p, index + 1, piece);
    HY3_TRY(hy3_grow(&p->spaced, &p->spaced_capacity, 2 * size, 1));
    p->spaced[0] = p->spaced[size] = ' ';
    memcpy(p->spaced + 1, piece.text, piece.size);
    memcpy(p->spaced + size + 1, piece.shape, piece.size);
    return run(p, index + 1, (struct hy3_piece){p->spaced, p->spaced + size, size});
}

static hy3_status run(struct hy3_pretokenizer *p, size_t index, struct hy3_piece piece)
{
    if (index == p->count)
        return p->emit(p->context, piece.text, piece.size);
    if (!p->steps[index].pattern)
        return run_space(p, index, piece);
    return run_split(p, index, piece);
}

hy3_status hy3_pretokenizer_split(struct hy3_pretokenizer *p, struct hy3_piece piece,
                                  struct hy3_budget *budget, hy3_pretokenizer_emit *emit,
                                  void *context)
{
    p->budget = budget;
    p->emit = emit;
    p->context = context;
    return run(p, 0, piece);
}
