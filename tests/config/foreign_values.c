/* SPDX-License-Identifier: Apache-2.0 */
/* foreign_values.c - of other tools' configurations: values that mean off, values in arguments, in
 * JSON and behind flags, keys of one tool, and what is said of a text that cannot be read. */
#include "config/foreign/keys.h"
#include "config/options.h"
#include "config/scenes.h"

static const char *const offs[] = {"0",    "false", "\"\"", "[]",    "\"no\"",
                                   "none", "null",  "off",  "False", "\"0\""};

/* Writes "key: off" for each name of the entry; of a pattern, for a name that it takes. */
static void write_names(FILE *out, const struct hy3_foreign_key *k, const char *off)
{
    const char *names = k->names, *word;
    size_t length;

    while ((word = hy3_option_word(&names, &length))) {
        bool is_pattern = word[length - 1] == '*';

        fprintf(out, "%s%.*s%s: %s\n", k->origins == HY3_DEEPSPEED ? "deepspeed." : "",
                (int)(is_pattern ? length - 1 : length), word, is_pattern ? "x" : "", off);
    }
}

static void whatever_is_refused_may_be_switched_off(void **state)
{
    static const struct {
        unsigned origins;
        const char *needed;
    } tools[] = {{HY3_LLAMA_FACTORY | HY3_DEEPSPEED, LF}, {HY3_MS_SWIFT | HY3_DEEPSPEED, SWIFT}};

    (void)state;
    for (size_t t = 0; t < sizeof tools / sizeof *tools; t++)
        for (size_t o = 0; o < sizeof offs / sizeof *offs; o++) {
            struct scene scene = {.wanted = "seed = 42;"};
            char *text;
            size_t size;
            FILE *out = open_memstream(&text, &size);

            assert_non_null(out);
            fputs(tools[t].needed, out);
            for (const struct hy3_foreign_key *k = hy3_foreign_keys; k->names; k++)
                if (k->kind == HY3_FOREIGN_REFUSED && (k->origins & tools[t].origins))
                    write_names(out, k, offs[o]);
            assert_int_equal(fclose(out), 0);
            scene.text = text;
            assert_gives("off.yaml", &scene, 1);
            free(text);
        }
}

/* clang-format off */
static void values_of_arguments_are_yaml(void **state)
{
    static const struct scene scenes[] = {
        {SWIFT, "system=\"x\" output_dir='o\"2'", "default_system = \"x\";|output_dir = \"o\\\"2\";"},
        {SWIFT, "system=\"a\\tb\\\\nc\"", "default_system = \"a\\tb\\nc\";"},
        {LF, "lora_target=[\"q_proj\",'v_proj'] dataset=a,b", "lora_target = [\"q_proj\", \"v_proj\"];|dataset = [\"a\", \"b\"];"},
        {LF, "cutoff_len=0x40 seed=017 bf16='no'", "max_seq_length = 64;|seed = 15;|bf16 = false;"},
        {LF "lr_scheduler_type: polynomial\nlr_scheduler_kwargs: {lr_end: 1e-8, power: 2}\n", "lr_scheduler_kwargs={\"power\":3}", "lr_power = 3;|lr_end = 1e-08;"},
        {LF "lr_scheduler_type: polynomial\nlr_scheduler_kwargs: '{\"lr_end\": 1e-8}'\n", "lr_scheduler_kwargs.lr_end=1e-7", "lr_end = 1e-07;"},
        {LF "deepspeed: {zero_optimization: {stage: 3}}\n", "deepspeed={\"zero_optimization\":{\"stage\":1}}", "zero_stage = 1;"},
        {LF, "output_dir=a:b tokenizer_name_or_path=*x default_system=Be:", "output_dir = \"a:b\";|tokenizer_name_or_path = \"*x\";|default_system = \"Be:\";"},
    };

    static const struct scene bad[] = {
        {LF, "default_system=[INST lora_target=\"q_proj", "2 problems|argument 'default_system=[INST': the value is not valid YAML|argument 'lora_target=\"q_proj': the value"},
        {LF, "seed=[1]", "argument 'seed=[1]': 'seed' is"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
    assert_refused("run.yaml", bad, sizeof bad / sizeof *bad);
}

static void arguments_may_stand_behind_flags(void **state)
{
    static const struct scene scenes[] = {
        {NULL, FLAGS "learning_rate=2e-5 --seed 3 lr_scheduler_kwargs.lr_end=1e-8 --lr_scheduler_type polynomial", "output_dir = \"o\";|learning_rate = 2e-05;|seed = 3;|lr_end = 1e-08;"},
        {NULL, FLAGS "--bf16 seed=3", "bf16 = true;|seed = 3;"},
        {NULL, FLAGS "--run_name seed=3 --train_data_file seed=4", "train_data_file = [\"seed=4\"];"},
        {NULL, "--model m --dataset a.jsonl b=c.jsonl max_length=64", "train_data_file = [\"a.jsonl\", \"b=c.jsonl\"];|max_seq_length = 64;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

#define JSON "{\"model_name_or_path\": \"m\", \"dataset\": \"d\", \"output_dir\": \"o\""

static void json_is_read_as_json(void **state)
{
    static const struct scene scenes[] = {
        {JSON ", \"default_system\": \"\\ud83d\\ude00\\/\x7f\\u00e9\"}", NULL, "default_system = \"\xf0\x9f\x98\x80/\\x7f\xc3\xa9\";"},
        {JSON ",\n\t\"seed\"\n\t:\r\n\t5, \"learning_rate\": 1E-5, \"save_total_limit\": null, \"use_dora\": false, \"deepspeed\": {}}", NULL, "seed = 5;|learning_rate = 1e-05;|save_total_limit = 0;"},
        {"\xef\xbb\xbf" JSON ", \"lora_target\": [\"q_proj\" , \"v_proj\"], \"bf16\": \"no\", \"deepspeed\": {\"zero_optimization\": {\"stage\": 1}, \"x\": [{\"y\": [null]}, [[\"}\"]]]}}", NULL,
         "lora_target = [\"q_proj\", \"v_proj\"];|bf16 = false;|zero_stage = 1;"},
    };
    static const struct scene bad[] = {
        {JSON ",\n\"lora_target\": [\"a\", null,\n {\"b\": \"\\\"]\"}],\n \"use_dora\": true,\n \"x\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": {\"a\": 1}}}}}}}}}}", NULL,
         "run.json:2: lora_target: a list|run.json:4: use_dora|run.json:5: the maps of 'x.a.a"},
        {"[1]", NULL, "run.json:1: the top level must be a map"},
        {JSON ", \"seed\": 1, \"seed\": 2}", NULL, "not valid JSON: duplicate object key"},
    };

    (void)state;
    assert_gives("run.json", scenes, sizeof scenes / sizeof *scenes);
    assert_refused("run.json", bad, sizeof bad / sizeof *bad);
}

static void a_key_of_json_may_be_long(void **state)
{
    static char longest[5000], file[sizeof longest + 256];
    const struct scene map = {file, NULL, "zero_stage = 2;"};
    const struct scene bad = {file, NULL, "run.json:1: unknown key 'kkkkkkkk"};

    (void)state;
    memset(longest, 'k', sizeof longest - 1);
    snprintf(file, sizeof file, "%s, \"deepspeed\": {\"%s\": 1, \"zero_optimization\": {\"stage\": 2}}}", JSON, longest);
    assert_gives("run.json", &map, 1);
    snprintf(file, sizeof file, "%s, \"%s\": 1}", JSON, longest);
    assert_refused("run.json", &bad, 1);
}

static void the_json_of_deepspeed_may_be_a_text(void **state)
{
    static const struct scene scenes[] = {
        {LF "deepspeed: '{\"zero_optimization\": {\"stage\": 1, \"cpu_offload\": true}}'\n", NULL, "zero_stage = 1;|offload = \"optimizer\";"},
        {NULL, FLAGS "--deepspeed {\"zero_optimization\":{\"stage\":2}}", "zero_stage = 2;"},
    };
    static const struct scene bad[] = {
        {LF "deepspeed: '{\"zero_optimization\": {\"stage\": 1}'\n", NULL, ":5: deepspeed = {\"zero_optimization\": {\"stage\": 1}: it is not valid JSON"},
        {LF "deepspeed: '{\"fp16\": {\"enabled\": true}}'\n", NULL, ":5: fp16.enabled is not"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
    assert_refused("run.yaml", bad, sizeof bad / sizeof *bad);
}

static void of_a_text_that_cannot_be_read_only_that_is_said(void **state)
{
    static const struct scene yaml[] = {
        {"model_name_or_path: m\nseed: [1\n", NULL, ":3: not valid YAML"},
        {"- a\n", NULL, ":1: the top level must be a map"},
    };
    static const struct scene json = {JSON ",}", "seed=5", ":1: not valid JSON"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_refused("run.yaml", &yaml[i], 1);
        assert_null(strstr(hy3_error_text(), "problems"));
    }
    assert_refused("run.json", &json, 1);
    assert_null(strstr(hy3_error_text(), "problems"));
}

/* clang-format on */

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start_as_sft, release)
    const struct CMUnitTest tests[] = {
        TEST(whatever_is_refused_may_be_switched_off),
        TEST(values_of_arguments_are_yaml),
        TEST(arguments_may_stand_behind_flags),
        TEST(json_is_read_as_json),
        TEST(a_key_of_json_may_be_long),
        TEST(the_json_of_deepspeed_may_be_a_text),
        TEST(of_a_text_that_cannot_be_read_only_that_is_said),
    };
#undef TEST

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
