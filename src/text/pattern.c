/* SPDX-License-Identifier: Apache-2.0 */
/* pattern.c - compiles and runs patterns.
 *
 * The pattern library limits the tries from one place of a text, not the places, nor what a try
 * reads. So a pattern calls back where it branches (onig.c), and each call takes from the budget of
 * the text what was read since the last one, and a part for the pattern's own length. */
#include "text/pattern.h"

#include "base/memory.h"
#include "text/onig.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    STACK_BYTES = 8 << 20,
    TRIES_MAX = 50 * 1000 * 1000, /* from one place, between two calls back */
    SOURCE_MAX = 4096,            /* bytes; the longest of a published tokenizer has 500 */
    LITERAL_MAX = 256,            /* bytes, each of which may be compared at each place */
    SOURCE_PER_STEP = 256,        /* bytes of the pattern that count as another step */
};

struct hy3_pattern {
    pcre2_code *code;
    pcre2_match_context *context;
    pcre2_match_data *match;
    pcre2_jit_stack *stack;
    bool has_jit;
    char where[256];
    char source[64];           /* its beginning, for messages */
    size_t last;               /* where the last call back was */
    int64_t step;              /* what a call back costs besides */
    struct hy3_budget *budget; /* of the text */
};

/* Called within a match: a negative result ends it. */
static int count_steps(pcre2_callout_block *block, void *context)
{
    struct hy3_pattern *pattern = context;
    size_t at = block->current_position, last = pattern->last;

    pattern->last = at;
    pattern->budget->left -= pattern->step + (int64_t)(at > last ? at - last : last - at);
    return pattern->budget->left < 0 ? PCRE2_ERROR_CALLOUT : 0;
}

static hy3_status compile(struct hy3_pattern *pattern, const char *source,
                          const struct hy3_text *translated, bool is_literal)
{
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_MULTILINE;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    hy3_status status = HY3_OK;
    char reason[256] = "";
    size_t at = 0;
    int error;

    if (!context)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory for a pattern");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
    if (is_literal)
        options = PCRE2_UTF | PCRE2_LITERAL;
    pattern->code = pcre2_compile((PCRE2_SPTR)translated->data, translated->size, options, &error,
                                  &at, context);
    if (!pattern->code) {
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof reason);
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: the pattern '%.300s' does not compile: %s", pattern->where,
                      source, reason);
    }
    pattern->has_jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
done:
    pcre2_compile_context_free(context);
    return status;
}

hy3_status hy3_pattern_create(const char *source, bool is_literal, const char *where,
                              struct hy3_pattern **out)
{
    hy3_status status = HY3_OK;
    struct hy3_pattern *pattern = NULL;
    struct hy3_text translated = {0};

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&pattern, 1, sizeof *pattern));
    snprintf(pattern->where, sizeof pattern->where, "%s", where);
    if (*source == '\0')
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: a split pattern is empty", where);
    if (strlen(source) > (is_literal ? LITERAL_MAX : SOURCE_MAX))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: the pattern '%.60s' has %zu bytes, more than %d", where,
                      source, strlen(source), is_literal ? LITERAL_MAX : SOURCE_MAX);
    snprintf(pattern->source, sizeof pattern->source, "%.63s", source);
    pattern->step = 1 + (int64_t)(strlen(source) / SOURCE_PER_STEP);
    if (is_literal)
        HY3_TRY_DONE(hy3_text_append(&translated, source, strlen(source)));
    else
        HY3_TRY_DONE(hy3_onig_translate(source, where, &translated));
    HY3_TRY_DONE(compile(pattern, source, &translated, is_literal));
    pattern->context = pcre2_match_context_create(NULL);
    pattern->match = pcre2_match_data_create(1, NULL);
    pattern->stack = pcre2_jit_stack_create(32 << 10, STACK_BYTES, NULL);
    if (!pattern->context || !pattern->match || !pattern->stack)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory for a pattern");
    pcre2_set_match_limit(pattern->context, TRIES_MAX);
    pcre2_set_callout(pattern->context, count_steps, pattern);
    pcre2_jit_stack_assign(pattern->context, NULL, pattern->stack);
    *out = HY3_TAKE(pattern);
done:
    hy3_pattern_free(pattern);
    hy3_free(translated.data);
    return status;
}

void hy3_pattern_free(struct hy3_pattern *pattern)
{
    if (!pattern)
        return;
    pcre2_jit_stack_free(pattern->stack);
    pcre2_match_data_free(pattern->match);
    pcre2_match_context_free(pattern->context);
    pcre2_code_free(pattern->code);
    hy3_free(pattern);
}

hy3_status hy3_pattern_find(struct hy3_pattern *pattern, const char *text, size_t size, size_t from,
                            struct hy3_budget *budget, bool *found, size_t *start, size_t *end)
{
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(pattern->match);
    char reason[256] = "";
    int result;

    pattern->last = from;
    pattern->budget = budget;
    if (pattern->has_jit)
        result = pcre2_jit_match(pattern->code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK,
                                 pattern->match, pattern->context);
    else
        result = pcre2_match(pattern->code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK,
                             pattern->match, pattern->context);
    *found = result >= 0;
    *start = range[0];
    *end = range[1];
    if (result >= 0 || result == PCRE2_ERROR_NOMATCH)
        return HY3_OK;
    if (result == PCRE2_ERROR_CALLOUT || result == PCRE2_ERROR_MATCHLIMIT)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: the split pattern '%s' takes too many steps on this text, of which a part of "
                 "%zu bytes is being cut: it goes back too often",
                 pattern->where, pattern->source, size);
    pcre2_get_error_message(result, (PCRE2_UCHAR *)reason, sizeof reason);
    HY3_FAIL(HY3_EFORMAT, "%s: the split pattern '%s' fails on a text of %zu bytes: %s",
             pattern->where, pattern->source, size, reason);
}
