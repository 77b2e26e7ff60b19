/* SPDX-License-Identifier: Apache-2.0 */
/* budget.c - cutting a text takes steps in proportion to its length: the patterns of published
 * tokenizers have plenty, hostile patterns and added tokens are stopped. */
#include "text/budget.h"

#include "base/json.h"
#include "support/test.h"
#include "text/added.h"
#include "text/pretokenizer.h"

enum { LONG = 10 * 1000 * 1000 };

static const char *const published[] = {
    /* GPT-2 (ByteLevel's own) */
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
    /* Llama 3, and Qwen with single digits */
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}"
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
    "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
    "\"use_regex\":false}]}",
    NULL, /* Hy3, from the golden tokenizer */
};

static struct hy3_pretokenizer *make(const char *text)
{
    struct hy3_pretokenizer *made;
    json_t *document = NULL, *value;

    if (text)
        assert_ok(hy3_json_parse(text, strlen(text), "test", &document));
    else
        document = hy3_golden_json("a/tokenizer/tokenizer.json");
    value = text ? document : json_object_get(document, "pre_tokenizer");
    assert_ok(hy3_pretokenizer_create(value, "test.json", &made));
    json_decref(document);
    return made;
}

/* With one Split. */
static struct hy3_pretokenizer *make_split(const char *kind, const char *pattern)
{
    char text[1024];

    snprintf(text, sizeof text,
             "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"%s\":"
             "\"%s\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":"
             "false,\"use_regex\":false}]}",
             kind, pattern);
    return make(text);
}

/* `unit` again and again. */
static char *repeat(const char *unit, size_t size)
{
    char *text = test_malloc(size);
    size_t length = strlen(unit);

    for (size_t i = 0; i < size; i++)
        text[i] = unit[i % length];
    return text;
}

static hy3_status sum_words(void *context, const char *word, size_t size)
{
    (void)word;
    *(size_t *)context += size;
    return HY3_OK;
}

static hy3_status sum_stretches(void *context, struct hy3_piece piece, int32_t id)
{
    (void)id;
    *(size_t *)context += piece.size;
    return HY3_OK;
}

static void ten_megabytes_leave_most_of_the_budget(void **state)
{
    static const char *const units[] = {"!a1 ", " ", "1!\t'"};

    (void)state;
    for (size_t p = 0; p < sizeof published / sizeof *published; p++) {
        struct hy3_pretokenizer *splitter = make(published[p]);

        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t size = u == 0 ? LONG : LONG / 10, sum = 0;
            char *text = repeat(units[u], size);
            struct hy3_budget budget = hy3_budget_of(size);
            int64_t all = budget.left;

            assert_ok(hy3_pretokenizer_split(splitter, (struct hy3_piece){text, text, size},
                                             &budget, sum_words, &sum));
            assert_int_equal(sum, size);
            if (all - budget.left > 20 * (int64_t)size)
                fail_msg("pattern %zu takes %.1f steps a byte of '%s'", p,
                         (double)(all - budget.left) / (double)size, units[u]);
            test_free(text);
        }
        hy3_pretokenizer_free(splitter);
    }
}

static void hostile_patterns_are_stopped_and_named(void **state)
{
    enum { SIZE = 200 * 1000 };

    /* from each place to the end, backwards, loops in loops, every way of parting */
    static const char *const patterns[] = {
        "a+b",           "a+?b",
        "(?=.*b)a",      "a*a*b",
        "(a+)+b",        "(a|a)*b",
        "(?:a|a?)+b",    "(?:a{1,3}){2,}b",
        "(a*)*b",        "(?<n>a+)+b",
        "(?:a?){99}b",   "a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?b",
        "(?>a+?a*b|a)c", "(?:aa|a){40}b",
        "(?i)(A+)+B",
    };
    char *text = repeat("a", SIZE);

    (void)state;
    memcpy(text + SIZE - 3, " cb", 3); /* or the pattern library sees that there is no b */
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        struct hy3_pretokenizer *splitter = make_split("Regex", patterns[p]);
        struct hy3_budget budget = hy3_budget_of(SIZE);
        char words[128];
        size_t sum = 0;

        snprintf(words, sizeof words, "test.json: the split pattern '%.63s' ", patterns[p]);
        assert_fails(HY3_EFORMAT, words,
                     hy3_pretokenizer_split(splitter, (struct hy3_piece){text, text, SIZE}, &budget,
                                            sum_words, &sum));
        assert_true(budget.left > -SIZE - 1000);
        assert_true(budget.left < 0 || strstr(hy3_error_text(), "JIT stack limit"));
        hy3_pretokenizer_free(splitter);
    }
    test_free(text);
}

static void long_patterns_are_refused(void **state)
{
    static const char head[] = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"";
    static const char plain[] = "{\"type\":\"Split\",\"pattern\":{\"String\":\"";
    struct hy3_pretokenizer *made;
    char text[8192];
    json_t *value;

    (void)state;
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "%s%0*d\"},\"behavior\":\"Isolated\"}", i ? plain : head,
                 i ? 257 : 4097, 1);
        assert_ok(hy3_json_parse(text, strlen(text), "test", &value));
        assert_fails(HY3_EFORMAT, i ? "257 bytes, more than 256" : "4097 bytes, more than 4096",
                     hy3_pretokenizer_create(value, "test.json", &made));
        json_decref(value);
    }
}

/* A token that almost matches at each place, and one that takes all white space behind itself. */
static void hostile_added_tokens_are_stopped_and_named(void **state)
{
    enum { SIZE = 200 * 1000 };

    char *text = repeat("a", SIZE), *spaces = repeat(" ", SIZE), token[SIZE / 2 + 2];
    json_t *words = json_object(), *list;

    (void)state;
    memset(token, 'a', sizeof token - 2);
    memcpy(token + sizeof token - 2, "b", 2);
    for (int i = 0; i < 2; i++) {
        struct hy3_vocab vocab = {0};
        struct hy3_added *added;
        struct hy3_added_text as_text = {.id = -1};
        struct hy3_budget budget = hy3_budget_of(SIZE);
        struct hy3_piece whole = {i ? spaces : text, i ? spaces : text, SIZE};
        size_t sum = 0;

        list = json_pack("[{s:s, s:i, s:b, s:b}]", "content", i ? " " : token, "id", 0, "special",
                         1, "rstrip", i);
        assert_ok(hy3_added_create(list, words, "test.json", &vocab, &added));
        assert_fails(HY3_EFORMAT, i ? "such as ' ', takes too many steps" : "such as 'aaaa",
                     hy3_added_cut(added, whole, &as_text, &budget, sum_stretches, &sum));
        hy3_added_free(added);
        hy3_vocab_release(&vocab);
        json_decref(list);
    }
    json_decref(words);
    test_free(text);
    test_free(spaces);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_megabytes_leave_most_of_the_budget),
        cmocka_unit_test(hostile_patterns_are_stopped_and_named),
        cmocka_unit_test(long_patterns_are_refused),
        cmocka_unit_test(hostile_added_tokens_are_stopped_and_named),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
