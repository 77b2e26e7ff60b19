/* SPDX-License-Identifier: Apache-2.0 */
/* added.c - added tokens. */
#include "text/added.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "text/pattern.h"
#include "text/utf8.h"

/* \w of Rust's regex crate, which decides what a single word is. */
#define WORD "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]"

struct token {
    char *text;
    size_t size;
    int32_t id;
    bool single_word, lstrip, rstrip;
};

struct matcher {
    struct token *tokens; /* [count], ascending by text */
    size_t count, capacity;
    bool begins[256]; /* first bytes */
};

struct hy3_added {
    struct hy3_vocab *vocab;
    struct matcher matchers[2]; /* 1: those with "normalized" */
    struct hy3_pattern *word;
    json_t *seen; /* keys: the texts so far */
    bool has_warned;
    int32_t next; /* id of a text that is no token yet: Hugging Face ignores the file's */
};

static hy3_status take_id(struct hy3_added *added, const json_t *words, const char *text,
                          int32_t in_file, const char *where, int32_t *id)
{
    const json_t *known = json_object_get(words, text);

    *id = known ? (int32_t)json_integer_value(known) : added->next;
    if (*id > HY3_ID_MAX)
        HY3_FAIL(HY3_EFORMAT, "%s: too many tokens", where);
    if (*id != in_file && !added->has_warned)
        hy3_log(HY3_LOG_WARN, "%s: the added token '%.60s' is %d as in Hugging Face, not %d", where,
                text, *id, in_file);
    added->has_warned |= *id != in_file;
    if (!known)
        HY3_TRY(hy3_vocab_add(added->vocab, *id, text, where));
    if (*id >= added->next)
        added->next = *id + 1;
    if (json_object_set_new(added->seen, text, json_true()) != 0)
        HY3_FAIL(HY3_ENOMEM, "%s: out of host memory for the added tokens", where);
    return HY3_OK;
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct token *)a)->text, ((const struct token *)b)->text);
}

static hy3_status read_token(struct hy3_added *added, const json_t *entry, const json_t *words,
                             const char *where)
{
    struct token token = {0};
    bool normalized, special;
    const char *text;
    int64_t in_file;
    struct matcher *matcher;

    if (!json_is_object(entry))
        HY3_FAIL(HY3_EFORMAT, "%s: an added token must be an object", where);
    HY3_TRY(hy3_json_text(entry, "content", where, &text));
    HY3_TRY(hy3_json_int(entry, "id", where, 0, HY3_ID_MAX, &in_file));
    HY3_TRY(hy3_json_bool_or(entry, "single_word", where, false, &token.single_word));
    HY3_TRY(hy3_json_bool_or(entry, "lstrip", where, false, &token.lstrip));
    HY3_TRY(hy3_json_bool_or(entry, "rstrip", where, false, &token.rstrip));
    HY3_TRY(hy3_json_bool_or(entry, "normalized", where, false, &normalized));
    HY3_TRY(hy3_json_bool_or(entry, "special", where, false, &special));
    if (*text == '\0')
        return HY3_OK;
    if (json_object_get(added->seen, text))
        HY3_FAIL(HY3_EFORMAT, "%s: the added token '%.60s' is given twice", where, text);
    HY3_TRY(take_id(added, words, text, (int32_t)in_file, where, &token.id));
    added->vocab->tokens[token.id].is_special |= special;
    added->vocab->tokens[token.id].is_control |= special;
    matcher = &added->matchers[normalized];
    HY3_TRY(hy3_grow(&matcher->tokens, &matcher->capacity, matcher->count + 1, sizeof token));
    token.size = strlen(text);
    HY3_TRY(hy3_strdup(text, &token.text));
    matcher->tokens[matcher->count++] = token;
    matcher->begins[(unsigned char)*text] = true;
    return HY3_OK;
}

hy3_status hy3_added_create(const json_t *list, const json_t *words, const char *where,
                            struct hy3_vocab *vocab, struct hy3_added **out)
{
    hy3_status status = HY3_OK;
    struct hy3_added *added = NULL;
    const json_t *entry;
    size_t i;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&added, 1, sizeof *added));
    added->vocab = vocab;
    added->next = (int32_t)json_object_size(words);
    if (!(added->seen = json_object()))
        HY3_FAIL_DONE(HY3_ENOMEM, "%s: out of host memory for the added tokens", where);
    if (list && !json_is_null(list) && !json_is_array(list))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: 'added_tokens' must be a list", where);
    json_array_foreach(list, i, entry) HY3_TRY_DONE(read_token(added, entry, words, where));
    for (size_t m = 0; m < 2; m++)
        if (added->matchers[m].count > 0)
            qsort(added->matchers[m].tokens, added->matchers[m].count, sizeof(struct token),
                  compare);
    HY3_TRY_DONE(hy3_pattern_create(WORD, false, where, &added->word));
    *out = HY3_TAKE(added);
done:
    hy3_added_free(added);
    return status;
}

void hy3_added_free(struct hy3_added *added)
{
    if (!added)
        return;
    for (size_t m = 0; m < 2; m++) {
        for (size_t i = 0; i < added->matchers[m].count; i++)
            hy3_free(added->matchers[m].tokens[i].text);
        hy3_free(added->matchers[m].tokens);
    }
    hy3_pattern_free(added->word);
    json_decref(added->seen);
    hy3_free(added);
}

bool hy3_added_mention(const struct hy3_added *added, const char *part)
{
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; i < added->matchers[m].count; i++)
            if (strstr(added->matchers[m].tokens[i].text, part))
                return true;
    return false;
}

/* The longest token at the beginning of `text`, or NULL: narrows the sorted tokens byte by byte. */
static const struct token *longest(const struct matcher *matcher, const char *text, size_t size,
                                   struct hy3_budget *budget)
{
    size_t low = 0, high = matcher->count;
    const struct token *best = NULL;

    for (size_t depth = 0; low < high; depth++) {
        size_t first, last, middle;

        if (matcher->tokens[low].size == depth)
            best = &matcher->tokens[low++];
        if (depth == size)
            break;
        for (first = low, last = high; first < last;) { /* lower bound */
            middle = (first + last) / 2;
            if ((unsigned char)matcher->tokens[middle].text[depth] < (unsigned char)text[depth])
                first = middle + 1;
            else
                last = middle;
        }
        budget->left--;
        low = first;
        for (last = high; first < last;) { /* upper bound */
            middle = (first + last) / 2;
            if ((unsigned char)matcher->tokens[middle].text[depth] <= (unsigned char)text[depth])
                first = middle + 1;
            else
                last = middle;
        }
        high = first;
    }
    return best;
}

static const struct token *find(const struct matcher *matcher, struct hy3_piece whole,
                                struct hy3_budget *budget, size_t *at)
{
    const struct token *token;

    for (; *at < whole.size && budget->left >= 0; ++*at)
        if (matcher->begins[(unsigned char)whole.text[*at]] &&
            (token = longest(matcher, whole.text + *at, whole.size - *at, budget)))
            return token;
    return NULL;
}

static hy3_status is_word(const struct hy3_added *added, const char *shape, size_t size, bool *is)
{
    struct hy3_budget budget = hy3_budget_of(size);
    size_t start, end;

    *is = false;
    if (size == 0)
        return HY3_OK;
    return hy3_pattern_find(added->word, shape, size, 0, &budget, is, &start, &end);
}

/* Whether the token at [start, end) stands alone, with no word character on either side. */
static hy3_status stands_alone(const struct hy3_added *added, struct hy3_piece whole, size_t start,
                               size_t end, bool *alone)
{
    bool before, after;
    uint32_t code;
    size_t size;

    size = start > 0 ? hy3_utf8_last(whole.shape, start, &code) : 0;
    HY3_TRY(is_word(added, whole.shape + start - size, size, &before));
    size = end < whole.size ? hy3_utf8_next(whole.shape + end, whole.size - end, &code) : 0;
    HY3_TRY(is_word(added, whole.shape + end, size, &after));
    *alone = !before && !after;
    return HY3_OK;
}

/* Widens [*start, *end) over white space, to the left not beyond `from`. */
static void strip(const struct token *token, struct hy3_piece whole, size_t from,
                  struct hy3_budget *budget, size_t *start, size_t *end)
{
    size_t size, before = *end - *start;
    uint32_t code;

    while (token->lstrip && *start > from) {
        size = hy3_utf8_last(whole.text, *start, &code);
        if (!hy3_utf8_is_space(code))
            break;
        *start -= size;
    }
    if (token->lstrip && *start < from)
        *start = from;
    while (token->rstrip && *end < whole.size) {
        size = hy3_utf8_next(whole.text + *end, whole.size - *end, &code);
        if (!hy3_utf8_is_space(code))
            break;
        *end += size;
    }
    budget->left -= (int64_t)(*end - *start) - (int64_t)before;
}

struct cut {
    const struct hy3_added *added;
    const char *begin; /* of the whole text */
    struct hy3_added_text *text;
    struct hy3_budget *budget;
    hy3_added_emit *emit;
    void *context;
};

static hy3_status cut_with(const struct cut *cut, size_t m, struct hy3_piece whole);

/* A text that matcher m has left goes to the next one. */
static hy3_status pass_on(const struct cut *cut, size_t m, struct hy3_piece piece)
{
    return m == 0 ? cut_with(cut, 1, piece) : cut->emit(cut->context, piece, -1);
}

/* Whether a match at `place` is a token, or a text that looks like one. `next` is where the search
 * goes on: a text within a content is used up; one that reaches beyond must not take a piece of the
 * template's own token with it. */
static bool counts_as_token(const struct cut *cut, const struct token *token, size_t place,
                            size_t *next)
{
    struct hy3_added_text *text = cut->text;
    const struct hy3_content *content;
    size_t end = place + token->size;

    if (text->all)
        return !cut->added->vocab->tokens[token->id].is_special;
    if (!text->contents || !cut->added->vocab->tokens[token->id].is_control ||
        !(content = hy3_contents_find(text->contents, place, end)))
        return true;
    if (text->id < 0) {
        text->id = token->id;
        text->at = content->first > place ? content->first : place;
    }
    if (content->first > place || content->end < end)
        *next -= token->size - 1;
    return false;
}

static hy3_status cut_with(const struct cut *cut, size_t m, struct hy3_piece whole)
{
    const struct matcher *matcher = &cut->added->matchers[m];
    size_t done_to = 0, at = 0, start, end;
    const struct token *token;

    while ((token = find(matcher, whole, cut->budget, &at))) {
        bool counts = true;

        start = at;
        end = at += token->size;
        if (token->single_word)
            HY3_TRY(stands_alone(cut->added, whole, start, end, &counts));
        counts =
            counts && counts_as_token(cut, token, (size_t)(whole.text - cut->begin) + start, &at);
        if (!counts)
            continue;
        strip(token, whole, done_to, cut->budget, &start, &end);
        if (done_to < start)
            HY3_TRY(pass_on(cut, m, hy3_piece_part(whole, done_to, start)));
        if (start > end) /* inside the white space of the token before; Hugging Face panics */
            continue;
        if (start < end)
            HY3_TRY(cut->emit(cut->context, hy3_piece_part(whole, start, end), token->id));
        done_to = end;
    }
    if (cut->budget->left < 0)
        HY3_FAIL(HY3_EFORMAT,
                 "looking for the added tokens, such as '%.60s', takes too many steps on a text of "
                 "%zu bytes",
                 matcher->tokens[0].text, whole.size);
    if (done_to < whole.size)
        HY3_TRY(pass_on(cut, m, hy3_piece_part(whole, done_to, whole.size)));
    return HY3_OK;
}

hy3_status hy3_added_cut(const struct hy3_added *added, struct hy3_piece whole,
                         struct hy3_added_text *text, struct hy3_budget *budget,
                         hy3_added_emit *emit, void *context)
{
    const struct cut cut = {added, whole.text, text, budget, emit, context};

    return cut_with(&cut, 0, whole);
}
