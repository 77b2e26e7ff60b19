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
static void what_means_off_to_a_tool_is_no_mistake(void **state)
{
    static const struct scene scenes[] = {
        {LF "early_stopping_steps: 0\nfsdp: \"\"\nlr_scheduler_kwargs: \"\"\naccelerator_config: none\n", NULL, "early_stopping_patience = 0;"},
        {LF "deepspeed: \"\"\nreport_to: \"\"\nneftune_noise_alpha: 0\nval_size: 0\n", NULL, "zero_stage = 3;|report_to = \"none\";"},
        {LF "deepspeed: false\nfsdp: []\nadapter_name_or_path: \"\"\neval_delay: 0.0\n", NULL, "# adapter_name_or_path is not set"},
        {LF "tensor_parallel_size: 0\nlr_scheduler_kwargs: {}\neval_dataset: []\nadditional_target: \"\"\n", NULL, "seed = 42;"},
        {SWIFT "early_stop_interval: 0\nval_dataset: v.jsonl\neval_steps: 5\nsave_steps: 10\n", NULL, "early_stopping_patience = 0;"},
        {SWIFT "target_parameters: []\nmodules_to_save: []\nadapters: []\nsplit_dataset_ratio: 0\nsystem: \"\"\n", NULL, "# default_system is not set"},
        {SWIFT "target_parameters: \"\"\nloss_type: cross_entropy\noptimizer: null\ncallbacks: []\n", NULL, "\"up_proj\", \"down_proj\"];"},
        {LF "early_stopping_steps: false\nneftune_noise_alpha: no\nlabel_smoothing_factor: off\nwarmup_steps: False\nval_size: false\n", NULL, "early_stopping_patience = 0;|neftune_noise_alpha = 0;|val_size = 0;"},
        {LF "flash_attn: false\ntp_size: \"\"\npipeline_parallel_size: none\n", NULL, "flash_attn = \"disabled\";"},
        {SWIFT "target_modules: all-linear\ntarget_parameters: none\nsave_total_limit: false\n", NULL, "\"up_proj\", \"down_proj\"];|save_total_limit = 0;"},
        {NULL, FLAGS "--adafactor False --optim_args= --fp16 --no_fp16", "bf16 = true;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void keys_that_a_tool_has_are_known(void **state)
{
    static const struct scene scenes[] = {
        {LF "eval_num_beams: 4\nexport_dir: out\nexport_size: 5\nexport_legacy_format: false\ngradient_checkpointing_kwargs: {use_reentrant: false}\n", NULL, "seed = 42;"},
        {LF "pref_beta: 0.1\nppo_epochs: 4\nliger_kernel_config: {rope: true}\nlog_on_each_node: true\nfp16_opt_level: O1\n", NULL, "seed = 42;"},
        {SWIFT "gradient_checkpointing_kwargs: {use_reentrant: false}\nvit_gradient_checkpointing: true\nuse_cache: false\n", NULL, "gradient_checkpointing = true;"},
        {SWIFT "task_type: causal_lm\nuse_chat_template: true\nbnb_4bit_compute_dtype: bfloat16\nmodel_revision: master\n", NULL, "seed = 42;"},
    };
    static const struct scene bad[] = {
        {LF "adafactor: true\nsplit_special_tokens: true\nparallelism_config: {tp_size: 2}\n", NULL, ":5: adafactor is not|:6: split_special_tokens is not|:7: parallelism_config.tp_size is not"},
        {SWIFT "loss_type: dft\ncached_dataset: [c]\nexternal_plugins: p.py\nuse_chat_template: false\n", NULL,
         ":5: loss_type is not|:6: cached_dataset is not|:7: external_plugins is not|:8: use_chat_template = false"},
        {SWIFT "no_such_key_at_all: 1\n", NULL, ":5: unknown key 'no_such_key_at_all': neither ms-swift nor hy3 has it"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
    assert_refused("run.yaml", bad, sizeof bad / sizeof *bad);
}

static void what_only_ms_swift_has_becomes_ours(void **state)
{
    static const struct scene scenes[] = {
        {SWIFT "system: 'a\\n\\\\nb\\t'\n", NULL, "default_system = \"a\\n\\\\\\nb\\\\t\";"},
        {LF "default_system: 'a\\nb'\n", NULL, "default_system = \"a\\\\nb\";"},
        {SWIFT "model_kwargs: {max_pixels: 5, reasoning_effort: high}\n", NULL, "reasoning_effort = \"high\";"},
        {SWIFT "model_kwargs: '{\"reasoning_effort\": \"low\", \"fps\": 2}'\n", NULL, "reasoning_effort = \"low\";"},
        {SWIFT "ENV: {REASONING_EFFORT: low, OTHER: 1}\n", NULL, "reasoning_effort = \"low\";"},
    };
    static const struct scene bad[] = {
        {SWIFT "target_parameters: mlp.experts.gate_up_proj\n", NULL, ":5: target_parameters names mlp.experts.gate_up_proj alone|name mlp.experts.down_proj, too"},
        {SWIFT "target_modules: all-linear\ntarget_parameters: [model.layers.3.mlp.experts.down_proj]\n", NULL, ":6: target_parameters names mlp.experts.down_proj alone|mlp.experts.gate_up_proj, too"},
        {SWIFT "target_parameters: [mlp.experts.gate_up_proj, mlp.gate.weight]\n", NULL, ":5: target_parameters: only the routed experts"},
        {SWIFT "ENV: {REASONING_EFFORT: medium}\n", NULL, "(ENV.REASONING_EFFORT): 'reasoning_effort' is \"medium\""},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
    assert_refused("run.yaml", bad, sizeof bad / sizeof *bad);
}

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
        {NULL, FLAGS "--train_data_file seed=4 --run_name=seed=3 --seed 5", "train_data_file = [\"seed=4\"];|seed = 5;"},
        {NULL, "--model m --dataset a.jsonl b=c.jsonl max_length=64", "train_data_file = [\"a.jsonl\", \"b=c.jsonl\"];|max_seq_length = 64;"},
    };

    static const struct scene bad[] = {
        {NULL, FLAGS "--seed 42 --run_name seed=3", "'--run_name seed=3': write --run_name=seed=3 if that is its value, or put"},
        {NULL, FLAGS "foo=1 --seed 3 4", "2 problems|'--output_dir' takes one value, and 'foo=1' follows it|'--seed' takes one value, and '4' follows it"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
    assert_refused("run.yaml", bad, 2);
}

static void what_config_json_lacks_is_called_absent(void **state)
{
    static char texts[2][1024];
    const struct scene right = {texts[0], NULL, "seed = 42;"};
    const struct scene wrong = {texts[1], NULL, "2 problems|:4: moe_topk = 2: num_experts_per_tok is absent from the model's config.json|:5: moe_num_experts = 9 is not the 8 of"};

    (void)state;
    write_file("config.json", "{\"num_experts\": 8}");
    for (int i = 0; i < 2; i++)
        snprintf(texts[i], sizeof texts[i], "model_name_or_path: %s\ndataset: d\noutput_dir: o\n%s", hy3_test_directory(),
                 i == 0 ? "output_router_logits: false\nmoe_num_experts: 8\n" : "moe_topk: 2\nmoe_num_experts: 9\n");
    assert_gives("run.yaml", &right, 1);
    assert_refused("run.yaml", &wrong, 1);
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
        TEST(what_means_off_to_a_tool_is_no_mistake),
        TEST(keys_that_a_tool_has_are_known),
        TEST(what_only_ms_swift_has_becomes_ours),
        TEST(values_of_arguments_are_yaml),
        TEST(arguments_may_stand_behind_flags),
        TEST(what_config_json_lacks_is_called_absent),
        TEST(json_is_read_as_json),
        TEST(a_key_of_json_may_be_long),
        TEST(the_json_of_deepspeed_may_be_a_text),
        TEST(of_a_text_that_cannot_be_read_only_that_is_said),
    };
#undef TEST

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
