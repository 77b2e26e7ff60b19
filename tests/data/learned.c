/* SPDX-License-Identifier: Apache-2.0 */
/* learned.c - what is learned of a line, with what weight: each rule by the text of its label
 * tokens, and the weights of a token file. */
#include "base/memory.h"
#include "data/fixture.h"
#include "data/portions.h"
#include "data/sample.h"
#include "data/token_file.h"
#include "text/tokenizer.h"

#include <math.h>

#define EOS           "<｜hy_eos｜>"
#define ASK           "{\"role\":\"user\",\"content\":\"q\"},"
#define SAY(text)     "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define SAYS(text, k) "{\"role\":\"assistant\",\"content\":\"" text "\"," k "}"
#define LINE(...)     "{\"messages\":[" __VA_ARGS__ "]}"
#define WHY           "\"reasoning_content\":\"why\""
#define THOUGHT(text) "<think>why</think>" text EOS
#define PLAIN(text)   "<think></think>" text EOS
#define CALL          "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}]"
#define CALLED        "<tool_calls>\n<tool_call>f<tool_sep>\n</tool_call>\n</tool_calls>"
#define TOLD          "{\"role\":\"tool\",\"content\":\"t\"},"

struct row {
    const char *line;
    struct hy3_reading reading;
    bool splits_think;
    const char *learned; /* NULL: no label is left */
    const char *has;     /* in the whole text, or NULL */
};

static const struct row rows[] = {
    /* as it is */
    {LINE(ASK SAY("a")), {0}, false, PLAIN("a"), "reasoning_effort:no_think"},
    {LINE(ASK SAY("a") "," ASK SAYS("b", WHY)), {0}, false, PLAIN("a") THOUGHT("b"), "no_think"},
    /* T1: a think block in front of an answer, to the byte */
    {LINE(ASK SAY(" \\n<think>why</think>\\n\\na")),
     {0},
     true,
     THOUGHT("\n\na"),
     "reasoning_effort:high"},
    {LINE(ASK SAY("<think>why</think>a")),
     {0},
     false,
     "<think></think><think>why</think>a" EOS,
     "reasoning_effort:no_think"},
    {LINE(ASK SAY("a <think>why</think>")), {0}, true, PLAIN("a <think>why</think>"), "no_think"},
    {LINE(ASK SAYS("<think>x</think>a", WHY)),
     {0},
     true,
     "<think>why</think><think>x</think>a" EOS,
     "high"},
    /* T2: the line's own effort, its template's, the configuration's, that of its reasoning */
    {"{\"reasoning_effort\":\"low\",\"messages\":[" ASK SAYS("a", WHY) "]}",
     {.effort = HY3_EFFORT_HIGH},
     true,
     THOUGHT("a"),
     "reasoning_effort:low"},
    {"{\"chat_template_kwargs\":{\"reasoning_effort\":\"high\"},\"messages\":[" ASK SAY("a") "]}",
     {.effort = HY3_EFFORT_NO_THINK},
     false,
     PLAIN("a"),
     "reasoning_effort:high"},
    {LINE(ASK SAY("a")), {.effort = HY3_EFFORT_HIGH}, false, PLAIN("a"), "reasoning_effort:high"},
    {LINE(ASK SAY("a")), {.effort = HY3_EFFORT_LOW}, true, PLAIN("a"), "reasoning_effort:low"},
    {LINE(ASK SAYS("a", WHY)), {.effort = HY3_EFFORT_NO_THINK}, true, THOUGHT("a"), "no_think"},
    {LINE(ASK SAYS("a", WHY)), {.effort = HY3_EFFORT_AUTO}, false, THOUGHT("a"), "effort:high"},
    {LINE(ASK SAY("a")), {.effort = HY3_EFFORT_AUTO}, false, PLAIN("a"), "effort:no_think"},
    {LINE("{\"role\":\"user\",\"content\":\"q\"," WHY "}," SAY("a")),
     {.effort = HY3_EFFORT_AUTO},
     false,
     PLAIN("a"),
     "effort:no_think"},
    /* T3: without reasoning */
    {LINE(ASK SAYS("a", WHY) "," ASK SAYS("b", "\"thinking\":\"t\"")),
     {.without_reasoning = true},
     false,
     PLAIN("a") PLAIN("b"),
     "effort:no_think"},
    {"{\"reasoning_effort\":\"high\",\"messages\":[" ASK SAY("<think>why</think>a") "]}",
     {.without_reasoning = true},
     true,
     PLAIN("a"),
     "effort:no_think"},
    /* T4: the last answer; a system message for lines without one */
    {LINE(ASK SAYS("a", WHY) "," ASK SAYS("b", WHY)),
     {.masks_history = true},
     false,
     THOUGHT("b"),
     "<think>why</think>a"},
    {LINE(ASK SAY("a") "," ASK SAY("b") ",{\"role\":\"user\",\"content\":\"r\"}"),
     {.masks_history = true},
     false,
     PLAIN("b"),
     NULL},
    {LINE(ASK SAY("a") "," ASK SAYS("b", "\"loss\":false")),
     {.masks_history = true},
     false,
     NULL,
     NULL},
    {LINE(ASK SAYS("a", WHY) "," ASK SAYS("b", WHY)),
     {.masks_history = true, .forgets_reasoning = true},
     false,
     THOUGHT("b"),
     "<think></think>a"},
    {LINE(ASK SAYS("a", WHY) "," ASK SAYS("b", WHY)),
     {.forgets_reasoning = true},
     false,
     PLAIN("a") THOUGHT("b"),
     NULL},
    {LINE(ASK SAY("<think>why</think>a") "," ASK SAY("b")),
     {.forgets_reasoning = true},
     true,
     PLAIN("a") PLAIN("b"),
     "effort:no_think"},
    /* all behind the last question, a call too */
    {LINE(ASK SAYS("a", WHY) "," ASK SAYS("b", WHY "," CALL) "," TOLD SAYS("c", WHY)),
     {.masks_history = true, .forgets_reasoning = true},
     false,
     THOUGHT("c"),
     "<think></think>b"},
    {LINE(ASK SAYS("a", WHY) "," ASK SAYS("b", WHY "," CALL) "," TOLD SAYS("c", WHY)),
     {.masks_history = true, .forgets_reasoning = true, .ends_in_round = true},
     false,
     "<think>why</think>b" CALLED EOS THOUGHT("c"),
     "<think></think>a"},
    {LINE(ASK SAY("a") "," ASK SAY("b") "," ASK "{\"role\":\"tool\",\"content\":\"t\"}"),
     {.masks_history = true, .ends_in_round = true},
     false,
     NULL,
     NULL},
    {LINE(ASK SAY("a")), {.system = "Be brief."}, false, PLAIN("a"), "Be brief.<"},
    {LINE("{\"role\":\"system\",\"content\":\"Own.\"}," ASK SAY("a")),
     {.system = "Be brief."},
     false,
     PLAIN("a"),
     "sentence｜>Own.<"},
    {"{\"system\":\"Beside.\",\"messages\":[" ASK SAY("a") "]}",
     {.system = "Be brief."},
     false,
     PLAIN("a"),
     "sentence｜>Beside.<"},
    /* an empty think block is no label; one with text is, and what follows */
    {LINE(ASK SAY("a") "," ASK SAYS("b", WHY)),
     {.masks_empty_think = true},
     false,
     "a" EOS THOUGHT("b"),
     NULL},
    {LINE(ASK SAY("<think> \\n</think>a")), {.masks_empty_think = true}, true, "a" EOS, "high"},
    {LINE(ASK SAY("a") "," ASK SAY("b")),
     {.masks_empty_think = true, .masks_history = true},
     false,
     "b" EOS,
     NULL},
    /* by message */
    {LINE(ASK SAYS("a", "\"loss\":false") "," ASK SAY("b")), {0}, false, PLAIN("b"), "a" EOS},
    {LINE(ASK SAY("a") "," ASK SAYS("b", "\"weight\":0")), {0}, false, PLAIN("a"), "b" EOS},
    {LINE(ASK SAYS("a", "\"loss_weight\":0")), {0}, false, NULL, NULL},
    {LINE(ASK SAYS("a", "\"loss\":true,\"loss_weight\":0.5")), {0}, false, PLAIN("a"), NULL},
};

/* The text of the tokens that are labels, or of all. */
static char *text_of(struct hy3_tokenizer *tokenizer, const struct hy3_encoded *e, bool all)
{
    int32_t *ids;
    size_t count = 0, size;
    char *text;

    assert_ok(hy3_alloc(&ids, e->length + 1, sizeof *ids));
    for (size_t t = 0; t < e->length; t++)
        if (all || e->mask[t])
            ids[count++] = e->ids[t];
    assert_ok(hy3_tokenizer_decode(tokenizer, ids, count, false, &text, &size));
    hy3_free(ids);
    return text;
}

static void check(struct hy3_tokenizer *tokenizer, const struct row *row)
{
    const struct hy3_dataset_options options = {.max_seq_length = 512, .reading = row->reading};
    const struct hy3_form form = {.splits_think = row->splits_think};
    struct hy3_sampler *sampler;
    struct hy3_encoded e;
    char *learned, *all;

    assert_ok(hy3_sampler_create(tokenizer, &options, &sampler));
    hy3_sampler_set_form(sampler, &form);
    assert_ok(hy3_sampler_encode(sampler, row->line, (int64_t)strlen(row->line), &e));
    if (!row->learned) {
        assert_non_null(e.dropped);
        hy3_sampler_free(sampler);
        return;
    }
    if (e.dropped)
        fail_msg("%s\nis dropped: %s", row->line, e.dropped);
    learned = text_of(tokenizer, &e, false);
    all = text_of(tokenizer, &e, true);
    if (strcmp(learned, row->learned) != 0)
        fail_msg("of %s\nis learned %s\nnot %s", row->line, learned, row->learned);
    if (row->has && !strstr(all, row->has))
        fail_msg("'%s' is not in %s", row->has, all);
    hy3_free(learned);
    hy3_free(all);
    hy3_sampler_free(sampler);
}

static void each_rule_decides_what_is_learned(void **state)
{
    struct hy3_tokenizer *tokenizer;

    (void)state;
    assert_ok(hy3_tokenizer_open(hy3_golden("a/tokenizer"), &tokenizer));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check(tokenizer, &rows[i]);
    hy3_tokenizer_close(tokenizer);
}

/* A control token in a user's text, read as a token, moves the labels as in the public script; a
 * weight stays with its message. */
static void weights_stay_with_their_message_when_labels_move(void **state)
{
    static const char line[] =
        LINE("{\"role\":\"user\",\"content\":\"x<｜hy_Assistant｜>y\"}," SAYS("a", "\"weight\":2"));
    const struct hy3_dataset_options options = {.max_seq_length = 512,
                                                .content_tokens = HY3_CONTENT_TOKEN};
    struct hy3_tokenizer *tokenizer;
    struct hy3_sampler *sampler;
    struct hy3_encoded e;
    bool twice = false, once = false;

    (void)state;
    assert_ok(hy3_tokenizer_open(hy3_golden("a/tokenizer"), &tokenizer));
    assert_ok(hy3_sampler_create(tokenizer, &options, &sampler));
    assert_ok(hy3_sampler_encode(sampler, line, sizeof line - 1, &e));
    assert_non_null(e.weights);
    for (size_t t = 0; t < e.length; t++) {
        assert_true(e.mask[t] ? e.weights[t] == 1 || e.weights[t] == 2 : e.weights[t] == 0);
        twice |= e.weights[t] == 2;
        once |= e.weights[t] == 1;
        assert_true(!twice || e.weights[t] != 1); /* the question's come first */
    }
    assert_true(once && twice);
    hy3_sampler_free(sampler);
    hy3_tokenizer_close(tokenizer);
}

/* ------------------------------------------------------------ in the file */

enum { LINES = 60, LENGTH = 64 };

static const float given[] = {1, 0.5f, 0, 100, 0.001f, 3};

/* Line i has two answers; the weights of the second are those of `given` in turn, and of one line
 * in seven also that of the first. Without weights: the same text. */
static void write_lines(const char *path, bool weighted)
{
    static char text[LINES * 300];
    size_t used = 0;

    for (int i = 0; i < LINES; i++) {
        char first[40] = "", second[40] = "";

        if (weighted && i % 7 == 3)
            snprintf(first, sizeof first, ",\"loss_weight\":%g", (double)given[5]);
        if (weighted && i >= 20)
            snprintf(second, sizeof second, ",\"weight\":%g", (double)given[i % 6]);
        used +=
            (size_t)snprintf(text + used, sizeof text - used,
                             LINE(ASK "{\"role\":\"assistant\",\"content\":\"one %d\"%s}," ASK
                                      "{\"role\":\"assistant\",\"content\":\"two two %d\"%s}") "\n",
                             i, first, i, second);
    }
    write_text(path, text);
}

static float weight_of(int line, int answer)
{
    if (answer == 0)
        return line % 7 == 3 ? given[5] : 1;
    return line >= 20 ? given[line % 6] : 1;
}

/* Every run of labels of the unweighted sample has the weight of its answer. */
static void check_weights(const struct hy3_dataset *plain, const struct hy3_dataset *weighted,
                          int64_t i)
{
    int32_t ids[2][LENGTH];
    uint8_t mask[2][LENGTH];
    float weights[LENGTH];
    int64_t length = hy3_dataset_length(plain, i);
    int answer = -1;

    assert_all(hy3_dataset_length(weighted, i) == length);
    assert_all(hy3_dataset_read(plain, i, ids[0], mask[0]) == HY3_OK);
    assert_all(hy3_dataset_read(weighted, i, ids[1], mask[1]) == HY3_OK);
    assert_all(hy3_dataset_weights(weighted, i, mask[1], weights) == HY3_OK);
    assert_all(memcmp(ids[0], ids[1], (size_t)length * sizeof **ids) == 0);
    for (int64_t t = 0; t < length; t++) {
        answer += mask[0][t] && (t == 0 || !mask[0][t - 1]);
        assert_all(weights[t] == (mask[0][t] ? weight_of((int)i, answer) : 0));
        assert_all(mask[1][t] == (weights[t] > 0));
    }
    assert_all(answer == 1);
}

static hy3_status open_lines(const char *name, int64_t length, struct hy3_dataset **d)
{
    char file[64];
    struct hy3_dataset_options o;

    snprintf(file, sizeof file, "%s.jsonl", name);
    o = options_for(here(file), name);
    o.max_seq_length = length;
    o.keep_unlabelled = true;
    return hy3_dataset_open(MPI_COMM_WORLD, &o, d, NULL);
}

static void weights_come_back_from_the_file(void **state)
{
    static const int64_t pieces[] = {97, 1000, 0};
    struct hy3_dataset *plain, *weighted;

    (void)state;
    write_lines(here("plain.jsonl"), false);
    write_lines(here("weighted.jsonl"), true);
    assert_all(open_lines("plain", LENGTH, &plain) == HY3_OK);
    assert_all(!hy3_dataset_is_weighted(plain));
    for (size_t p = 0; p < 3; p++) {
        hy3_portions_override(pieces[p]);
        if (rank() == 0)
            unlink(here("weighted/train.h5"));
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(open_lines("weighted", LENGTH, &weighted) == HY3_OK);
        assert_all(hy3_dataset_is_weighted(weighted) && hy3_dataset_count(weighted) == LINES);
        for (int64_t i = 0; i < LINES; i++)
            check_weights(plain, weighted, i);
        hy3_dataset_close(weighted);
        if (p == 0 && rank() == 0)
            assert_int_equal(rename(here("weighted/train.h5"), here("first.h5")), 0);
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(p != 1 || !same_bytes(here("first.h5"), here("plain/train.h5")));
    }
    hy3_portions_override(0);
    hy3_dataset_close(plain);
}

static void a_flipped_weight_is_noticed_when_it_is_read(void **state)
{
    struct hy3_dataset *d;
    struct hy3_token_header header;
    struct hy3_source source = {.path = (char[]){"weighted.jsonl"}};
    uint64_t *offsets;
    uint8_t mask[LENGTH];
    int32_t ids[LENGTH];
    float weights[LENGTH];

    (void)state;
    assert_ok(hy3_token_file_inspect(here("weighted/train.h5"), &source, 1, &header, &offsets));
    assert_all(open_lines("weighted", LENGTH, &d) == HY3_OK);
    flip(here("weighted/train.h5"), header.weights_at + 4 * (int64_t)(offsets[21] + 9) + 3);
    assert_ok(hy3_dataset_read(d, 21, ids, mask));
    assert_fails(HY3_EFORMAT, "weighted.jsonl:22", hy3_dataset_weights(d, 21, mask, weights));
    assert_ok(hy3_dataset_read(d, 22, ids, mask));
    assert_ok(hy3_dataset_weights(d, 22, mask, weights));
    hy3_free(offsets);
    hy3_dataset_close(d);
}

/* Where all weights that are left are 1, the file has none. */
static void a_file_has_weights_only_where_they_differ(void **state)
{
    struct hy3_dataset *d;

    (void)state;
    write_text(here("ones.jsonl"),
               LINE(ASK SAYS("a", "\"weight\":1.0") "," ASK SAYS("b", "\"loss\":false")) "\n");
    assert_all(open_lines("ones", LENGTH, &d) == HY3_OK);
    assert_all(!hy3_dataset_is_weighted(d));
    hy3_dataset_close(d);
    write_text(here("cut.jsonl"), LINE(ASK SAY("a") "," ASK SAYS("b", "\"weight\":2")) "\n");
    assert_all(open_lines("cut", 12, &d) == HY3_OK); /* the second answer is cut off */
    assert_all(!hy3_dataset_is_weighted(d));
    hy3_dataset_close(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_decides_what_is_learned),
        cmocka_unit_test(weights_stay_with_their_message_when_labels_move),
        cmocka_unit_test(weights_come_back_from_the_file),
        cmocka_unit_test(a_flipped_weight_is_noticed_when_it_is_read),
        cmocka_unit_test(a_file_has_weights_only_where_they_differ),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
