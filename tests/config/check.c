/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - the message of every kind of mistake, word for word; what each program needs;
 * allocations that fail. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "config/as_sft.h"
#include "config/config.h"
#include "config/leaks.h"
#include "support/test.h"

#define SFT "model_name_or_path = \"m\"; output_dir = \"o\"; train_data_file = \"t.jsonl\";\n"

/* Parses a file of this text, then up to two arguments. */
static hy3_status parse(const char *text, const char *one, const char *two)
{
    static char path[HY3_PATH_MAX];
    char *argv[4] = {"hy3_sft", path, (char *)(uintptr_t)one, (char *)(uintptr_t)two};
    bool finished;

    hy3_config_free(&config);
    snprintf(path, sizeof path, "%.4000s/run.cfg", hy3_test_directory());
    if (text)
        assert_ok(hy3_output_replace(path, text, strlen(text)));
    return hy3_config_parse(&config, MPI_COMM_WORLD, one ? two ? 4 : 3 : 2, argv, "", &finished);
}

/* The error text is `wanted`, where * stands for the directory of the file. */
static void assert_message(hy3_status status, const char *wanted)
{
    char text[HY3_ERROR_MAX];
    const char *star = strchr(wanted, '*');

    if (star)
        snprintf(text, sizeof text, "%.*s%s/%s", (int)(star - wanted), wanted, hy3_test_directory(),
                 star + 1);
    else
        snprintf(text, sizeof text, "%s", wanted);
    assert_int_equal(status, HY3_EUSAGE);
    assert_string_equal(hy3_error_text(), text);
}

static void a_mistake_in_an_argument_has_this_message(void **state)
{
    /* clang-format off */
    static const struct {
        const char *argument, *message;
    } cases[] = {
        {"max_step=3", "unknown key 'max_step'; did you mean 'max_steps'?"},
        {"weather=3", "unknown key 'weather'; see --help"},
        {"seed=many", "'seed' is many; it must be a whole number, 0 or more"},
        {"seed=1.0", "'seed' is 1.0; it must be a whole number, 0 or more"},
        {"seed=9223372036854775808", "'seed' is 9223372036854775808; it must be a whole number, 0 or more"},
        {"lora_rank=0", "'lora_rank' is 0; it must be a whole number, 1 to 65536"},
        {"learning_rate=inf", "'learning_rate' is inf; it must be a number, 0 to 1"},
        {"learning_rate=0x1", "'learning_rate' is 0x1; it must be a number, 0 to 1"},
        {"adam_beta2=1", "'adam_beta2' is 1; it must be a number from 0 to below 1"},
        {"adam_epsilon=0", "'adam_epsilon' is 0; it must be a number above 0"},
        {"weight_decay=-1", "'weight_decay' is -1; it must be a number, 0 or more"},
        {"bf16=1", "'bf16' is 1; it must be true or false"},
        {"device=gpu", "'device' is gpu; it must be one of auto, cpu, cuda"},
        {"max_shard_size=80", "'max_shard_size' is 80 without a unit; write 80G, or another of K M G T (powers of 1000) and KiB MiB GiB TiB (of 1024)"},
        {"max_shard_size=5000000000", "'max_shard_size' is 5000000000 without a unit; write 5000000000B, or K M G T (powers of 1000) or KiB MiB GiB TiB (of 1024)"},
        {"max_shard_size=0", "'max_shard_size' is 0; it must be a size such as \"5GB\" or \"512MiB\""},
        {"max_shard_size=0GB", "'max_shard_size' is 0GB; it must be a size such as \"5GB\" or \"512MiB\""},
        {"eval_data_file=a,,b", "'eval_data_file' is a,,b; it must be text or a list of texts"},
        {"cache_dir=\"a\",\"b\"", "'cache_dir' is \"a\",\"b\"; it must be text"},
        {"max_steps=0", "max_steps = 0 is no training; -1: num_train_epochs counts"},
        {"min_lr=0.5", "min_lr = 0.5 is above learning_rate = 1e-05"},
        {"val_size=1.5", "val_size = 1.5 is neither a fraction below 1 nor a whole number of samples"},
        {"report_to=trackio", "'report_to' is trackio; it must be one or more of none, tensorboard, mlflow, wandb, swanlab"},
        {"save_steps=2.5", "save_steps = 2.5 is neither a share below 1 nor a whole number of steps"},
        {"zero_stage=4", "'zero_stage' is 4; it must be a whole number, 0 to 3"},
        {"expert_parallel_size=0", "'expert_parallel_size' is 0; it must be a whole number, 1 to 65536, or auto"},
        {"expert_parallel_size=some", "'expert_parallel_size' is some; it must be a whole number, 1 to 65536, or auto"},
        {"offload_dir=/x", "offload_dir has no effect with offload = \"none\"; set offload, or leave it out"},
        {"adapter_name_or_path=a", "adapter_name_or_path needs finetuning_type = \"lora\", not \"full\"; merge the adapter into the model first, or leave it out"},
        {"base_dtype=fp8", "base_dtype = \"fp8\" is for weights that are not trained; finetuning_type = \"full\" trains all: use base_dtype = \"bf16\", or lora, attention or freeze"},
        {"finetuning_type=oft", "'finetuning_type' is oft; it must be one of full, lora, attention, freeze"},
    };

    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char wanted[512];

        snprintf(wanted, sizeof wanted, "argument '%s': %s", cases[i].argument, cases[i].message);
        assert_message(parse(SFT, cases[i].argument, NULL), wanted);
    }
}

static void a_mistake_in_a_file_has_this_message(void **state)
{
    /* clang-format off */
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"learning_rat = 1;", "unknown key 'learning_rat'; did you mean 'learning_rate'?"},
        {"bf16 = \"true\";", "'bf16' is \"true\"; it must be true or false"},
        {"bf16 = 1;", "'bf16' is 1; it must be true or false"},
        {"max_steps = 3.0;", "'max_steps' is 3.0; it must be a whole number, -1 or more"},
        {"max_steps = \"3\";", "'max_steps' is \"3\"; it must be a whole number, -1 or more"},
        {"learning_rate = 1e999;", "'learning_rate' is inf; it must be a number, 0 to 1"},
        {"cache_dir = 3;", "'cache_dir' is 3; it must be text"},
        {"cache_dir = [\"a\"];", "'cache_dir' is a list; it must be text"},
        {"eval_data_file = (\"a\", 1);", "'eval_data_file' is a list; it must be text or a list of texts"},
        {"template = \"\x1b[31m\";", "'template' is \"?[31m\"; it must be one of hy_v3"},
        {"training = { seed = 1; };", "'training' is a group; keys stand by themselves here"},
        {"report_to = [\"mlflow\", \"x\"];", "'report_to' is a list; it must be one or more of none, tensorboard, mlflow, wandb, swanlab"},
    };

    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512], wanted[512];

        snprintf(text, sizeof text, SFT "\n\n%s\n", cases[i].text);
        snprintf(wanted, sizeof wanted, "*run.cfg:4: %s", cases[i].message);
        assert_message(parse(text, NULL, NULL), wanted);
    }
}

static void a_key_that_stands_twice_in_a_file_is_refused_with_both_places(void **state)
{
    (void)state;
    assert_fails(HY3_EUSAGE, "run.cfg:3: 'cutoff_len' and 'max_length' (",
                 parse(SFT "max_length = 5;\ncutoff_len = 6;", NULL, NULL));
    assert_non_null(strstr(hy3_error_text(), "run.cfg:2) are the same key; keep one"));
    assert_fails(HY3_EUSAGE, "run.cfg:4: 'seed' is given twice, 5 in line 2 and 6 here; keep one",
                 parse(SFT "seed = 5; # first\n\nseed = 6;", NULL, NULL));
}

/* Whatever its type, from a file and from an argument. */
static void an_empty_value_is_the_default_of_any_key(void **state)
{
    static const char *const lines[] = {"min_lr_rate = 0.5;",
                                        "seed = 7;",
                                        "bf16 = false;",
                                        "finetuning_type = \"lora\";",
                                        "cache_dir = \"c\";",
                                        "lora_target = [\"all\"];",
                                        "max_shard_size = \"1MB\";",
                                        "learning_rate = 0.5;",
                                        "expert_parallel_size = 2;"};
    char *before, *after;

    (void)state;
    assert_ok(parse(SFT, NULL, NULL));
    assert_ok(hy3_config_format(&config, &before));
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        int key = (int)strcspn(lines[i], " ");
        char text[256], unset[64];

        snprintf(text, sizeof text, SFT "\n%s", lines[i]);
        snprintf(unset, sizeof unset, "%.*s=", key, lines[i]);
        assert_ok(parse(text, unset, NULL));
        assert_ok(hy3_config_format(&config, &after));
        assert_string_equal(after, before);
        hy3_free(after);
        snprintf(text, sizeof text, SFT "\n%.*s = \"\";", key, lines[i]);
        assert_ok(parse(text, NULL, NULL));
        assert_ok(hy3_config_format(&config, &after));
        assert_string_equal(after, before);
        hy3_free(after);
    }
    assert_ok(parse(SFT "\nmin_lr_rate = 0.5;", "min_lr_rate=", "min_lr=1e-6"));
    hy3_free(before);
}

static void several_mistakes_stand_one_a_line(void **state)
{
    char wanted[1024];

    (void)state;
    snprintf(
        wanted, sizeof wanted,
        "3 problems:\n"
        "  %s/run.cfg:2: 'seed' is -1; it must be a whole number, 0 or more\n"
        "  argument 'nothing=1': unknown key 'nothing'; see --help\n"
        "  argument 'packing_length=100': packing_length = 100 holds no sample of max_seq_length = "
        "4096 tokens; raise it, or leave it at 0",
        hy3_test_directory());
    assert_message(parse(SFT "seed = -1; packing = true;", "nothing=1", "packing_length=100"),
                   wanted);
}

static void more_mistakes_than_a_message_holds_are_counted(void **state)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    for (int i = 0; i < 500; i++)
        fprintf(out, "unheard_of_%d = 1;\n", i);
    fclose(out);
    assert_int_equal(parse(text, NULL, NULL), HY3_EUSAGE);
    free(text);
    assert_non_null(strstr(hy3_error_text(), "503 problems:")); /* three keys are missing */
    assert_non_null(strstr(hy3_error_text(), ":1: unknown key 'unheard_of_0'"));
    assert_non_null(strstr(hy3_error_text(), "\n  and 4"));
    assert_true(strlen(hy3_error_text()) < HY3_ERROR_MAX - 1);
}

static void wrong_arguments_have_these_messages(void **state)
{
    char *none[] = {"hy3_sft"}, *two[] = {"hy3_sft", "a.cfg", "b.cfg"};
    char *dashes[] = {"hy3_sft", "--seed=1"};
    char *unknown[] = {"hy3_sft", "--verbose"};
    bool finished;

    (void)state;
    assert_message(hy3_config_parse(&config, MPI_COMM_WORLD, 1, none, "", &finished),
                   "no configuration file; usage: hy3_sft CONFIG [key=value ...], see --help");
    assert_fails(HY3_EUSAGE, "CONFIG: 'a.cfg' does not exist",
                 hy3_config_parse(&config, MPI_COMM_WORLD, 3, two, "", &finished));
    assert_message(hy3_config_parse(&config, MPI_COMM_WORLD, 2, dashes, "", &finished),
                   "unknown argument '--seed=1'; keys have no dashes: seed=1");
    assert_message(hy3_config_parse(&config, MPI_COMM_WORLD, 2, unknown, "", &finished),
                   "unknown argument '--verbose'; see --help");
}

static void a_second_file_is_refused(void **state)
{
    (void)state;
    assert_int_equal(parse(SFT, "other.cfg", NULL), HY3_EUSAGE);
    assert_non_null(strstr(hy3_error_text(), "two configuration files, '"));
}

static void a_file_that_is_too_large_is_refused(void **state)
{
    char *text;
    size_t size = (1 << 20) + 1;

    (void)state;
    assert_ok(hy3_alloc(&text, size + 1, 1));
    memset(text, '\n', size);
    assert_fails(HY3_EUSAGE, "more than", parse(text, NULL, NULL));
    text[size - 1] = '\0';
    assert_fails(HY3_EUSAGE, "is missing", parse(text, NULL, NULL)); /* read, and empty */
    hy3_free(text);
}

static void hy3_sft_needs_model_output_and_data(void **state)
{
    (void)state;
    assert_message(parse("seed = 1;", NULL, NULL),
                   "3 problems:\n"
                   "  train_data_file is missing: the JSONL training files\n"
                   "  model_name_or_path is missing: the directory of the model\n"
                   "  output_dir is missing: the directory for all output");
    assert_ok(parse("model_name_or_path = \"m\"; output_dir = \"o\"; use_dummy_data = true;", NULL,
                    NULL));
    assert_message(
        parse("model_name_or_path = \"m\"; output_dir = \"o\";", "dataset=x", NULL),
        "argument 'dataset=x': dataset needs dataset_dir, the directory of dataset_info.json");
    assert_ok(
        parse("model_name_or_path = \"m\"; output_dir = \"o\";", "dataset=x,y", "dataset_dir=d"));
    assert_message(parse(SFT, "dataset=x", "dataset_dir=d"),
                   "argument 'dataset=x': train_data_file and dataset are both given; keep one");
    assert_ok(parse(SFT, "train_data_file=", "use_dummy_data=true"));
    assert_int_equal(config.train_data_file.count, 0);
    assert_message(parse(SFT, "eval_data_file=e", "val_size=0.1"),
                   "argument 'val_size=0.1': eval_data_file and val_size are both given; keep one");
    assert_message(parse(SFT, "min_lr=0", "min_lr_rate=0"),
                   "argument 'min_lr_rate=0': min_lr and min_lr_rate are both given; keep one");
}

static void hy3_tokenize_needs_a_tokenizer_and_a_place(void **state)
{
    (void)state;
    hy3_log_start("hy3_tokenize", true);
    assert_message(parse("train_data_file = \"t\";", NULL, NULL),
                   "2 problems:\n"
                   "  tokenizer_name_or_path is missing: the directory of the tokenizer\n"
                   "  cache_dir is missing: the directory of tokenized data");
    assert_ok(parse("train_data_file = \"t\";", "tokenizer_name_or_path=t", "cache_dir=c"));
    assert_ok(parse("train_data_file = \"t\";", "model_name_or_path=t", "output_dir=c"));
    assert_message(
        parse(SFT, "use_dummy_data=true", NULL),
        "argument 'use_dummy_data=true': with use_dummy_data there is nothing to tokenize");
}

static void offloading_weights_needs_their_division(void **state)
{
    (void)state;
    assert_message(parse(SFT, "zero_stage=2", "offload=param"),
                   "argument 'offload=param': offload = \"param\" moves weights, which needs "
                   "zero_stage = 3, not 2");
    assert_ok(parse(SFT, "zero_stage=2", "offload=optimizer"));
    assert_message(parse(SFT, "zero_stage=0", "grad_dtype=bf16"),
                   "argument 'grad_dtype=bf16': grad_dtype = \"bf16\" is for gradients that are "
                   "sharded; set zero_stage = 1, 2 or 3, or leave it out");
    assert_ok(parse(SFT, "zero_stage=1", "grad_dtype=bf16"));
    assert_ok(parse(SFT, "zero_stage=3", "expert_parallel_size=auto"));
}

static void what_is_inert_is_accepted(void **state)
{
    (void)state;
    assert_ok(parse(SFT "finetuning_type = \"full\"; lora_rank = 64; lora_dropout = 0.05; "
                        "lora_target = [\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\"]; "
                        "zero_stage = 0; expert_parallel_size = 1; offload = \"none\"; "
                        "save_steps = 500; report_to = \"none\"; device = \"cuda\"; "
                        "resume_from_checkpoint = \"none\"; flash_attn = \"fa2\";",
                    "lora_rank=64", "packing=false"));
    assert_ok(parse(SFT "zero_stage = 3;", "zero_stage=0", NULL)); /* only what holds counts */
}

static void values_of_every_type_arrive(void **state)
{
    (void)state;
    assert_ok(parse(SFT "max_samples = 3000000000; num_train_epochs = 2; val_size = 5; "
                        "eval_steps = 7; min_lr_rate = 0.25; bf16 = FALSE; warmup_ratio = .5; "
                        "template = \"hy_v3\"; max_shard_size = \"1.5 MiB\"; ",
                    "output_dir=\"a=b c\"", "train_data_file=[\"a,b.jsonl\", c]"));
    assert_true(config.max_samples == 3000000000 && config.num_train_epochs == 2);
    assert_true(config.val_size == 5 && config.eval_steps == 7 && config.min_lr_rate == 0.25);
    assert_true(!config.bf16 && config.warmup_ratio == 0.5 && config.min_lr < 0);
    assert_string_equal(config.max_shard_size, "1.5 MiB");
    assert_string_equal(config.output_dir, "a=b c");
    assert_int_equal(config.train_data_file.count, 2);
    assert_string_equal(config.train_data_file.items[0], "a,b.jsonl");
}

/* Every key away from its default, with every byte a text may hold. */
static void the_echo_of_hard_values_reads_back_the_same(void **state)
{
    char text[4096], bytes[1024], *first, *second;
    size_t used = 0;

    (void)state;
    for (int c = 1; c < 256; c++)
        used += (size_t)snprintf(bytes + used, sizeof bytes - used, "\\x%02x", (unsigned)c);
    snprintf(text, sizeof text,
             "model_name_or_path = \"%s\"; output_dir = \"@include \\\"x\\\"\\n#\";\n"
             "train_data_file = [\"a,b\", \"\\\\\", \"/* \xe4\xb8\xad */\"]; seed = "
             "9223372036854775807;\nlearning_rate = 0.1234567890123456789; adam_epsilon = 1e-300; "
             "min_lr = 3e-11;\nmax_steps = 99999999999; val_size = 0.30000000000000004; "
             "plot_loss = false;\n",
             bytes);
    assert_ok(parse(text, NULL, NULL));
    assert_int_equal(strlen(config.model_name_or_path), 255);
    assert_ok(hy3_config_format(&config, &first));
    assert_ok(parse(first, NULL, NULL));
    assert_ok(hy3_config_format(&config, &second));
    assert_string_equal(first, second);
    for (int c = 1; c < 256; c++)
        assert_int_equal((unsigned char)config.model_name_or_path[c - 1], c);
    assert_string_equal(config.output_dir, "@include \"x\"\n#");
    assert_true(config.seed == INT64_MAX && config.learning_rate == 0.1234567890123456789);
    assert_true(config.adam_epsilon == 1e-300 && config.min_lr == 3e-11 && config.min_lr_rate < 0);
    assert_true(config.max_steps == 99999999999 && config.val_size == 0.30000000000000004);
    assert_true(!config.plot_loss && config.train_data_file.count == 3);
    hy3_free(first);
    hy3_free(second);
}

/* The n-th allocation fails, for every n: a clean status, nothing kept (the sanitizers look for
 * leaks). */
static void a_failing_allocation_is_a_status(void **state)
{
    hy3_status status = HY3_ENOMEM;
    int64_t n = 0;

    (void)state;
    assert_ok(parse(SFT "dataset = [];", NULL, NULL));
    while (status == HY3_ENOMEM) {
        hy3_alloc_fail_at(++n);
        status = parse(NULL, "eval_data_file=a,b", "cutoff_len=9");
        hy3_alloc_fail_at(0);
        if (status != HY3_OK)
            assert_null(config.max_shard_size);
    }
    assert_int_equal(status, HY3_OK);
    assert_true(n > 40);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start_as_sft, release)
    const struct CMUnitTest tests[] = {
        TEST(a_mistake_in_an_argument_has_this_message),
        TEST(a_mistake_in_a_file_has_this_message),
        TEST(a_key_that_stands_twice_in_a_file_is_refused_with_both_places),
        TEST(an_empty_value_is_the_default_of_any_key),
        TEST(several_mistakes_stand_one_a_line),
        TEST(more_mistakes_than_a_message_holds_are_counted),
        TEST(wrong_arguments_have_these_messages),
        TEST(a_second_file_is_refused),
        TEST(a_file_that_is_too_large_is_refused),
        TEST(hy3_sft_needs_model_output_and_data),
        TEST(hy3_tokenize_needs_a_tokenizer_and_a_place),
        TEST(offloading_weights_needs_their_division),
        TEST(what_is_inert_is_accepted),
        TEST(values_of_every_type_arrive),
        TEST(the_echo_of_hard_values_reads_back_the_same),
        TEST(a_failing_allocation_is_a_status),
    };
#undef TEST

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
