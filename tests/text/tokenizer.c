/* SPDX-License-Identifier: Apache-2.0 */
/* The golden tokenizer cases, added-token flags and splits as Hugging Face tokenizers 0.23 answers,
 * hostile files. */
#include "text/tokenizer.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "support/test.h"

#include <time.h>

static struct hy3_tokenizer *open_golden(const char *name)
{
    struct hy3_tokenizer *tokenizer;

    assert_ok(hy3_tokenizer_open(hy3_golden(name), &tokenizer));
    return tokenizer;
}

static bool same_ids(const json_t *want, const struct hy3_ids *ids)
{
    if (json_array_size(want) != ids->count)
        return false;
    for (size_t i = 0; i < ids->count; i++)
        if (json_integer_value(json_array_get(want, i)) != ids->data[i])
            return false;
    return true;
}

static void check_encoding(struct hy3_tokenizer *tokenizer, const json_t *text, bool as_text,
                           const json_t *want)
{
    struct hy3_ids ids = {0};

    assert_ok(hy3_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                                   as_text, &ids));
    if (!same_ids(want, &ids))
        fail_msg("other ids for '%s'", json_string_value(text));
    hy3_free(ids.data);
}

static void check_decoding(struct hy3_tokenizer *tokenizer, const json_t *list, bool skip,
                           const json_t *want)
{
    size_t count = json_array_size(list), size;
    int32_t *ids = test_calloc(count + 1, sizeof *ids);
    char *text;

    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    assert_ok(hy3_tokenizer_decode(tokenizer, ids, count, skip, &text, &size));
    if (size != json_string_length(want) || memcmp(text, json_string_value(want), size) != 0)
        fail_msg("decoded '%s', not '%s'", text, json_string_value(want));
    assert_int_equal(text[size], '\0');
    hy3_free(text);
    test_free(ids);
}

static void check_case(struct hy3_tokenizer *tokenizer, const json_t *row)
{
    const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
    const json_t *as_text = json_object_get(row, "ids_special_as_text");
    const json_t *decoded = json_object_get(row, "decoded");

    check_encoding(tokenizer, text, false, ids);
    check_encoding(tokenizer, text, true, as_text ? as_text : ids);
    check_decoding(tokenizer, ids, false, decoded ? decoded : text);
}

static void check_golden(const char *directory, const char *cases)
{
    struct hy3_tokenizer *tokenizer = open_golden(directory);
    json_t *golden = hy3_golden_json(cases);
    const json_t *row;
    size_t i;

    assert_true(json_array_size(json_object_get(golden, "cases")) > 400);
    json_array_foreach(json_object_get(golden, "cases"), i, row) check_case(tokenizer, row);
    assert_true(json_array_size(json_object_get(golden, "decode_cases")) > 40);
    json_array_foreach(json_object_get(golden, "decode_cases"), i, row) check_decoding(
        tokenizer, json_object_get(row, "ids"),
        json_is_true(json_object_get(row, "skip_special_tokens")), json_object_get(row, "text"));
    json_decref(golden);
    hy3_tokenizer_close(tokenizer);
}

static void preview_tokenizer_gives_the_golden_ids_and_texts(void **state)
{
    (void)state;
    check_golden("a/tokenizer", "a/tokenizer_cases.json");
}

static void final_tokenizer_gives_the_golden_ids_and_texts(void **state)
{
    (void)state;
    check_golden("a/tokenizer-final", "a/tokenizer_cases_final.json");
}

static void qwen_split_gives_the_golden_ids_and_texts(void **state)
{
    (void)state;
    check_golden("a/tokenizer-qwen", "a/tokenizer_cases_qwen.json");
}

/* Characters assigned after Unicode 14, which PCRE2 does not know. */
static void letters_newer_than_the_pattern_library_are_letters(void **state)
{
    static const char text[] = "x\U00013460y \U00031350\u1c89z 1\U00010d402 \u2ffca";
    static const int32_t want[] = {87,  172, 241, 239, 254, 88,  220, 172, 109, 235,  238, 157, 110,
                                   231, 89,  220, 16,  172, 238, 113, 222, 17,  1823, 123, 120, 64};
    struct hy3_tokenizer *tokenizer = open_golden("a/tokenizer");
    struct hy3_ids ids = {0};

    (void)state;
    assert_ok(hy3_tokenizer_encode(tokenizer, text, sizeof text - 1, false, &ids));
    assert_int_equal(ids.count, sizeof want / sizeof *want);
    assert_memory_equal(ids.data, want, sizeof want);
    hy3_free(ids.data);
    hy3_tokenizer_close(tokenizer);
}

/* A tokenizer of single letters and the merges ab, bc, abc, " a", " ab". */
#define LETTERS                                                                        \
    "\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"e\":4,\"f\":5,\"g\":6,\"h\":7,\"i\":8,\"j\":9," \
    "\"k\":10,\"l\":11,\"m\":12,\"n\":13,\"o\":14,\"p\":15,\"q\":16,\"r\":17,"         \
    "\"s\":18,\"t\":19,\"u\":20,\"v\":21,\"w\":22,\"x\":23,\"y\":24,\"z\":25,"         \
    "\"A\":26,\"B\":27,\"C\":28,\".\":29,\"1\":30,\"2\":31,\"'\":32,\"_\":33,"         \
    "\"-\":34,\"Ġ\":35,\"Ċ\":36,\"Ã\":37,\"©\":38,\"ab\":39,\"bc\":40,\"abc\":41," \
    "\"Ġa\":42,\"Ġab\":43"
#define SMALL_HEAD "{\"added_tokens\":["
#define SMALL_PRE  "],\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
#define SMALL_MODEL \
    "]},\"model\":{\"vocab\":{" LETTERS "},\"merges\":[\"a b\",\"b c\",\"ab c\",\"Ġ a\",\"Ġ ab\"]"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"

static hy3_status parse_small(const char *pre, const char *added, const char *model,
                              struct hy3_tokenizer **out)
{
    static char text[1 << 14];

    snprintf(text, sizeof text, SMALL_HEAD "%s" SMALL_PRE "%s" SMALL_MODEL "%s}}", added, pre,
             model);
    return hy3_tokenizer_parse(text, strlen(text), "small.json", out);
}

static void check_small(struct hy3_tokenizer *tokenizer, const char *text, bool as_text,
                        const char *want)
{
    struct hy3_ids ids = {0};
    char got[512] = "";
    size_t used = 0;

    assert_ok(hy3_tokenizer_encode(tokenizer, text, strlen(text), as_text, &ids));
    for (size_t i = 0; i < ids.count; i++)
        used += (size_t)snprintf(got + used, sizeof got - used, i > 0 ? " %d" : "%d", ids.data[i]);
    if (strcmp(got, want) != 0)
        fail_msg("'%s' gives %s, not %s", text, got, want);
    hy3_free(ids.data);
}

static void splits_and_flags_act_as_in_hugging_face(void **state)
{
    /* clang-format off */
    static const struct {
        const char *pre, *added, *model, *text; bool as_text; const char *ids;
    } rows[] = {
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "0 1 30 31 1 2 30 42 1 2 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"Isolated\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "0 1 30 31 1 2 30 42 1 2 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"Removed\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "0 2 42 2 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"Removed\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "1 30 31 1 30 1 31"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"MergedWithPrevious\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "39 30 31 1 2 30 43 2 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"MergedWithPrevious\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "0 1 30 31 40 30 42 40 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"MergedWithNext\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "0 1 30 31 40 30 42 40 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"MergedWithNext\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "39 30 31 1 2 30 43 2 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"Contiguous\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "0 1 30 31 1 2 30 42 1 2 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[12b]\"},\"behavior\":\"Contiguous\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab12bc1 abc2a", false, "0 1 30 31 1 2 30 42 1 2 31 0"},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"a.\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "a.abc", false, "0 29 41"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x*\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "abxxbc", false, "0 1 23 23 1 2"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x*\"},\"behavior\":\"MergedWithPrevious\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "abxxbc", false, "0 1 23 23 1 2"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "abgabc", false, "0 1 6 0 1 2"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\Bc\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "abc ab-c", false, "39 2 43 34 2"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"^a|b$\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab\nabc\nab", false, "0 1 36 0 40 36 0 1"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?m:b.c)\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab\nc", false, "0 1 36 2"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a{,1}b\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "abcb", false, "39 2 1"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\w]+é\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "ab_éc", false, "39 33 37 38 2"},
        {"{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "a12b", false, "0 30 31 1"},
        {"{\"type\":\"Digits\",\"individual_digits\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "a12b", false, "0 30 31 1"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}", "", "", "ab abc.bc", false, "43 35 41 29 40"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"zz\"}", "", "abzzab", false, "43 44 43"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", "", "aZbÿc", false, "39 37 2"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", ",\"unk_token\":\".\"", "aZZbc", false, "0 29 29 40"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", ",\"unk_token\":\".\",\"fuse_unk\":true", "aZZbc", false, "0 29 40"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "", ",\"ignore_merges\":true,\"merges\":[\"a b\"]", "abc", false, "41"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"ab\"}", "", "abc", false, "39 2"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"x\"},{\"id\":45,\"content\":\"xab\"},{\"id\":46,\"content\":\"xa\"}", "", "xabxaxb", false, "44 45 23 1"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"<s>\",\"special\":true},{\"id\":45,\"content\":\"<t>\"}", "", "a<s>b<t>c", false, "0 44 1 45 2"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"<s>\",\"special\":true},{\"id\":45,\"content\":\"<t>\"}", "", "a<s>b<t>c", true, "0 18 1 45 2"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"<s>x\",\"special\":true},{\"id\":45,\"content\":\"x\"}", "", "a<s>xb", true, "0 18 23 1"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"the\",\"single_word\":true}", "", "the atheb the, the_ éthe the", false, "44 42 19 7 4 1 35 44 35 19 7 4 33 35 37 38 19 7 4 35 44"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"k\",\"lstrip\":true}", "", "ab  k ab\nk", false, "39 10 43 10"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"k\",\"rstrip\":true}", "", "ab  k \n ab", false, "39 35 35 10 39"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"k\",\"lstrip\":true,\"rstrip\":true},{\"id\":45,\"content\":\" \",\"lstrip\":true,\"rstrip\":true}", "", "a  k  ka", false, "0 44 10 10 0"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"k\",\"rstrip\":true},{\"id\":45,\"content\":\"\\n\"}", "", "ak\nb", false, "0 10 44 1"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"k\",\"normalized\":true},{\"id\":45,\"content\":\"ak\"}", "", "akkak", false, "44 10 44"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}", "{\"id\":44,\"content\":\"bc\",\"normalized\":true},{\"id\":45,\"content\":\"ab\"}", "", "abc", false, "39 2"},
    };
    /* clang-format on */
    struct hy3_tokenizer *tokenizer;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_ok(parse_small(rows[i].pre, rows[i].added, rows[i].model, &tokenizer));
        check_small(tokenizer, rows[i].text, rows[i].as_text, rows[i].ids);
        hy3_tokenizer_close(tokenizer);
    }
}

#define SPLIT(regex)                                      \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex \
    "\"},\"behavior\":\"Isolated\"}," BYTE_LEVEL

static void what_is_not_supported_is_refused_by_name(void **state)
{
    static const struct {
        const char *pre, *added, *model, *words;
    } rows[] = {
        {"{\"type\":\"Metaspace\"}", "", "", "'Metaspace' is not supported"},
        {"", "", "", "no ByteLevel"},
        {BYTE_LEVEL "," BYTE_LEVEL, "", "", "must be last"},
        {"{\"type\":\"Split\"}", "", "", "needs a 'pattern'"},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Odd\"}", "", "",
         "'Odd' is not known"},
        {SPLIT("(a"), "", "", "does not compile"},
        {SPLIT(""), "", "", "is empty"},
        {SPLIT("[a[b]]"), "", "", "a class inside a class"},
        {SPLIT("[a&&b]"), "", "", "the intersection"},
        {SPLIT("[\\\\W]"), "", "", "the escape \\W"},
        {SPLIT("\\\\C"), "", "", "the escape \\C"},
        {SPLIT("\\\\p{Klingon}"), "", "", "does not compile"},
        {SPLIT("\\\\xff"), "", "", "a single byte"},
        {SPLIT("\\\\u12"), "", "", "four digits"},
        {SPLIT("a{1,2}+"), "", "", "{n,m}+"},
        {SPLIT("a(?i)b"), "", "", "options in mid-pattern"},
        {SPLIT("(*UTF)a"), "", "", "a verb"},
        {SPLIT("(?R)"), "", "", "an unknown group"},
        {SPLIT("a\\\\"), "", "", "a backslash at its end"},
        {BYTE_LEVEL, "7", "", "must be an object"},
        {BYTE_LEVEL, "{\"id\":1}", "", "'content' is missing"},
        {BYTE_LEVEL, "{\"id\":-1,\"content\":\"x\"}", "", "'id' is -1"},
        {BYTE_LEVEL, "{\"id\":99,\"content\":\"#\"},{\"id\":99,\"content\":\"#\"}", "",
         "given twice"},
        {BYTE_LEVEL, "", ",\"byte_fallback\":true", "'byte_fallback' is not supported"},
        {BYTE_LEVEL, "", ",\"dropout\":0.1", "'dropout' is not supported"},
        {BYTE_LEVEL, "", ",\"end_of_word_suffix\":\"</w>\"", "'end_of_word_suffix'"},
        {BYTE_LEVEL, "", ",\"unk_token\":\"<unk>\"", "'unk_token' is not in"},
        {BYTE_LEVEL, "", ",\"type\":\"Unigram\"", "'Unigram' is not supported"},
        {BYTE_LEVEL, "", ",\"merges\":[\"a b c\"]", "merge 1 is neither"},
        {BYTE_LEVEL, "", ",\"merges\":[[\"a\",\"z\"]]", "'az', which is not"},
        {BYTE_LEVEL, "", ",\"vocab\":{\"a\":0,\"b\":0}", "of another token"},
        {BYTE_LEVEL, "", ",\"vocab\":{\"a\":4294967295}", "must be an integer of 0"},
    };
    struct hy3_tokenizer *tokenizer;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_fails(HY3_EFORMAT, rows[i].words,
                     parse_small(rows[i].pre, rows[i].added, rows[i].model, &tokenizer));
}

static void normalizers_and_other_decoders_are_refused_by_name(void **state)
{
    static const char nfc[] = "{\"normalizer\":{\"type\":\"NFC\"}}";
    static const char other[] = "{\"decoder\":{\"type\":\"WordPiece\"}}";
    struct hy3_tokenizer *tokenizer;

    (void)state;
    assert_fails(HY3_EFORMAT, "the normalizer 'NFC'",
                 hy3_tokenizer_parse(nfc, sizeof nfc - 1, "t.json", &tokenizer));
    assert_fails(HY3_EFORMAT, "the decoder 'WordPiece'",
                 hy3_tokenizer_parse(other, sizeof other - 1, "t.json", &tokenizer));
}

static void check_bad_file(const char *name, const char *expect)
{
    struct hy3_tokenizer *tokenizer;
    char path[256], *text;
    hy3_status status;
    size_t size;

    snprintf(path, sizeof path, "a/bad_inputs/%s", name);
    assert_ok(hy3_file_read(hy3_golden(path), 1 << 20, &text, &size));
    status = hy3_tokenizer_parse(text, size, name, &tokenizer);
    if (strcmp(expect, "reject") == 0)
        assert_fails(HY3_EFORMAT, name, status);
    if (strcmp(expect, "accept") == 0)
        assert_ok(status);
    if (status == HY3_OK) {
        struct hy3_ids ids = {0};

        assert_ok(hy3_tokenizer_encode(tokenizer, "Some text 123", 13, false, &ids));
        assert_true(ids.count > 0);
        hy3_free(ids.data);
        hy3_tokenizer_close(tokenizer);
    }
    hy3_free(text);
}

static void golden_bad_files_are_refused_with_their_name(void **state)
{
    json_t *golden = hy3_golden_json("a/bad_inputs.json");
    const json_t *entry;
    size_t i, count = 0;

    (void)state;
    json_array_foreach(json_object_get(golden, "files"), i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "kind")), "tokenizer") != 0)
            continue;
        check_bad_file(json_string_value(json_object_get(entry, "file")),
                       json_string_value(json_object_get(entry, "expect")));
        count++;
    }
    assert_true(count >= 10);
    json_decref(golden);
}

static void specials_and_dialect_come_from_the_files(void **state)
{
    static const char *const names[] = {"a/tokenizer", "a/tokenizer-final"};
    static const char *const cases[] = {"a/template_cases.json", "a/template_cases_final.json"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct hy3_tokenizer *tokenizer = open_golden(names[i]);
        const struct hy3_specials *ids = hy3_tokenizer_specials(tokenizer);
        json_t *golden = hy3_golden_json(cases[i]);

        assert_int_equal(hy3_tokenizer_dialect(tokenizer),
                         i == 0 ? HY3_DIALECT_PREVIEW : HY3_DIALECT_FINAL);
        assert_int_equal(ids->assistant,
                         json_integer_value(json_object_get(golden, "assistant_token_id")));
        assert_int_equal(ids->eos, json_integer_value(json_object_get(golden, "eos_token_id")));
        assert_int_equal(ids->pad, json_integer_value(json_object_get(golden, "pad_token_id")));
        assert_int_equal(ids->bos, ids->pad - 2);
        assert_int_equal(ids->user, ids->assistant - 1);
        assert_int_equal(hy3_tokenizer_size(tokenizer), ids->bos + 48);
        json_decref(golden);
        hy3_tokenizer_close(tokenizer);
    }
}

/* Writes a tokenizer directory: golden tokenizer.json with `from` replaced by `to` of the same
 * length, and a config. */
static const char *write_directory(const char *from, const char *to, const char *config)
{
    static char path[HY3_PATH_MAX];
    char file[HY3_PATH_MAX], *text, *at;
    size_t size;

    snprintf(path, sizeof path, "%s/tokenizer", hy3_test_directory());
    assert_ok(hy3_directory_create(path));
    assert_ok(hy3_file_read(hy3_golden("a/tokenizer/tokenizer.json"), 1 << 20, &text, &size));
    assert_non_null(at = strstr(text, from));
    memcpy(at, to, strlen(to));
    assert_ok(hy3_path_format(file, sizeof file, "%s/tokenizer.json", path));
    assert_ok(hy3_output_replace(file, text, size));
    assert_ok(hy3_path_format(file, sizeof file, "%s/tokenizer_config.json", path));
    assert_ok(hy3_output_replace(file, config, strlen(config)));
    hy3_free(text);
    return path;
}

static void a_special_of_several_tokens_is_refused(void **state)
{
    struct hy3_tokenizer *tokenizer;

    (void)state;
    assert_ok(hy3_tokenizer_open(write_directory("{", "{", "{\"eos_token\":null}"), &tokenizer));
    assert_int_equal(hy3_tokenizer_specials(tokenizer)->eos, 1937);
    hy3_tokenizer_close(tokenizer);
    assert_ok(hy3_tokenizer_open(
        write_directory("{", "{", "{\"eos_token\":{\"content\":\"<｜hy_EOT｜>\"}}"), &tokenizer));
    assert_int_equal(hy3_tokenizer_specials(tokenizer)->eos, 1920);
    hy3_tokenizer_close(tokenizer);
    assert_fails(
        HY3_EFORMAT, "'pad_token' is '<pad>', which is",
        hy3_tokenizer_open(write_directory("{", "{", "{\"pad_token\":\"<pad>\"}"), &tokenizer));
    assert_fails(HY3_EFORMAT, "'user_token' must be a text",
                 hy3_tokenizer_open(write_directory("{", "{", "{\"user_token\":5}"), &tokenizer));
    assert_fails(HY3_EFORMAT, "'<think>', which is",
                 hy3_tokenizer_open(write_directory("\"<think>", "\"<thinK>", "{}"), &tokenizer));
}

static void the_fingerprint_follows_both_files(void **state)
{
    static const char *const configs[] = {"{}", "{ }", "{}"};
    uint64_t prints[4];
    struct hy3_tokenizer *tokenizer;

    (void)state;
    for (int i = 0; i < 4; i++) {
        const char *path = i < 3
                               ? write_directory("{", "{", configs[i])
                               : write_directory("\"version\": \"1.0", "\"version\": \"1.1", "{}");

        assert_ok(hy3_tokenizer_open(path, &tokenizer));
        prints[i] = hy3_tokenizer_fingerprint(tokenizer);
        hy3_tokenizer_close(tokenizer);
    }
    assert_true(prints[0] != prints[1] && prints[0] == prints[2] && prints[0] != prints[3]);
}

static void ids_out_of_range_and_broken_text_are_refused(void **state)
{
    struct hy3_tokenizer *tokenizer = open_golden("a/tokenizer");
    static const char *const broken[] = {"a\xff", "\xc3", "\xed\xa0\x80", "\xe0\x80\x80",
                                         "\xf4\x90\x80\x80"};
    const int32_t high = 1960, low = -1;
    struct hy3_ids ids = {0};
    const char *bytes;
    size_t size;
    char *text;

    (void)state;
    assert_fails(HY3_EFORMAT, "out of range",
                 hy3_tokenizer_decode(tokenizer, &high, 1, false, &text, &size));
    assert_fails(HY3_EFORMAT, "out of range",
                 hy3_tokenizer_decode(tokenizer, &low, 1, false, &text, &size));
    assert_ok(hy3_tokenizer_bytes(tokenizer, 1941, &bytes, &size));
    assert_int_equal(size, 7);
    assert_memory_equal(bytes, "<think>", 7);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        assert_fails(HY3_EFORMAT, "not valid UTF-8",
                     hy3_tokenizer_encode(tokenizer, broken[i], strlen(broken[i]), false, &ids));
    hy3_free(ids.data);
    hy3_tokenizer_close(tokenizer);
}

/* A megabyte without a split point takes O(n log n): quadratic merging would take minutes. */
static void a_long_word_takes_no_quadratic_time(void **state)
{
    static const char *const units[] = {"a", "ab", " ", "<", "\u4e2d", "  x", "1", "!?", "e\u0301"};
    struct hy3_tokenizer *tokenizer = open_golden("a/tokenizer");
    const size_t size = 1000000;
    char *text = test_malloc(size);

    (void)state;
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t unit = strlen(units[u]);
        struct hy3_ids ids = {0};
        clock_t start = clock();

        for (size_t i = 0; i + unit <= size; i += unit)
            memcpy(text + i, units[u], unit);
        assert_ok(hy3_tokenizer_encode(tokenizer, text, size / unit * unit, false, &ids));
        assert_true(ids.count > 0);
        assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 20);
        hy3_free(ids.data);
    }
    test_free(text);
    hy3_tokenizer_close(tokenizer);
}

static void every_failing_allocation_ends_cleanly(void **state)
{
    hy3_status status = HY3_ENOMEM;

    (void)state;
    for (int64_t n = 1; status != HY3_OK; n++) {
        struct hy3_tokenizer *tokenizer = NULL;
        struct hy3_ids ids = {0};
        size_t size;
        char *text = NULL;

        assert_true(n < 1000);
        hy3_alloc_fail_at(n);
        status = parse_small(BYTE_LEVEL, "{\"id\":46,\"content\":\"#\"}", ",\"ignore_merges\":true",
                             &tokenizer);
        if (status == HY3_OK)
            status = hy3_tokenizer_encode(tokenizer, "abc#ab", 6, false, &ids);
        if (status == HY3_OK)
            status = hy3_tokenizer_decode(tokenizer, ids.data, ids.count, false, &text, &size);
        hy3_alloc_fail_at(0);
        assert_true(status == HY3_OK || status == HY3_ENOMEM);
        hy3_free(text);
        hy3_free(ids.data);
        hy3_tokenizer_close(tokenizer);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preview_tokenizer_gives_the_golden_ids_and_texts),
        cmocka_unit_test(final_tokenizer_gives_the_golden_ids_and_texts),
        cmocka_unit_test(qwen_split_gives_the_golden_ids_and_texts),
        cmocka_unit_test(letters_newer_than_the_pattern_library_are_letters),
        cmocka_unit_test(splits_and_flags_act_as_in_hugging_face),
        cmocka_unit_test(what_is_not_supported_is_refused_by_name),
        cmocka_unit_test(normalizers_and_other_decoders_are_refused_by_name),
        cmocka_unit_test(golden_bad_files_are_refused_with_their_name),
        cmocka_unit_test(specials_and_dialect_come_from_the_files),
        cmocka_unit_test(a_special_of_several_tokens_is_refused),
        cmocka_unit_test(the_fingerprint_follows_both_files),
        cmocka_unit_test(ids_out_of_range_and_broken_text_are_refused),
        cmocka_unit_test(a_long_word_takes_no_quadratic_time),
        cmocka_unit_test(every_failing_allocation_ends_cleanly),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
