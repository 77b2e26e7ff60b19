/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - files and arguments to one struct, every kind of mistake, and the way back to a
 * file. */
#include "config/config.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/random.h"
#include "comm/comm.h"
#include "config/leaks.h"
#include "support/test.h"

#include <fcntl.h>
#include <unistd.h>

static const char required[] =
    "model_name_or_path = \"m\"; output_dir = \"o\"; train_data_file = \"t.jsonl\";\n";

/* Parses a file with this text and up to two arguments. */
static hy3_status parse(struct hy3_config *config, const char *text, size_t size, const char *one,
                        const char *two)
{
    static char path[HY3_PATH_MAX + 16];
    char *argv[4] = {"hy3_sft", path, (char *)(uintptr_t)one, (char *)(uintptr_t)two};
    bool finished;

    snprintf(path, sizeof path, "%s/run.cfg", hy3_test_directory());
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        assert_ok(hy3_output_replace(path, text, size));
    hy3_barrier(MPI_COMM_WORLD, "testing");
    return hy3_config_parse(config, MPI_COMM_WORLD, one ? two ? 4 : 3 : 2, argv, "", &finished);
}

static bool says(const char *words)
{
    return strstr(hy3_error_text(), words) != NULL;
}

static void defaults_are_those_of_the_contract(void **state)
{
    struct hy3_config c = {0};

    (void)state;
    assert_all(parse(&c, required, strlen(required), NULL, NULL) == HY3_OK);
    assert_all(c.max_seq_length == 4096 && c.per_device_train_batch_size == 1 &&
               c.gradient_accumulation_steps == 1 && c.num_train_epochs == 3 && c.max_steps == -1);
    assert_all(c.learning_rate == 1e-5 && c.adam_beta1 == 0.9 && c.adam_beta2 == 0.999 &&
               c.adam_epsilon == 1e-8 && c.max_grad_norm == 1 && c.weight_decay == 0);
    assert_all(c.seed == 42 && c.bf16 && c.gradient_checkpointing && c.logging_steps == 1 &&
               c.plot_loss && c.save_steps == 500 && !c.disable_shuffling && !c.packing);
    assert_all(c.lr_scheduler_type == HY3_LR_cosine_with_min_lr);
    assert_all(c.lora_target.count == 4 && c.lora_rank == 64 && c.train_data_file.count == 1);
    hy3_config_free(&c);
}

static void arguments_override_the_file(void **state)
{
    struct hy3_config c = {0};

    (void)state;
    assert_all(parse(&c, required, strlen(required), "cutoff_len=77",
                     "train_data_file=a.jsonl,b.jsonl") == HY3_OK);
    assert_all(c.max_seq_length == 77 && c.train_data_file.count == 2);
    assert_all(strcmp(c.train_data_file.items[1], "b.jsonl") == 0);
    hy3_config_free(&c);
}

static void all_mistakes_are_reported_together(void **state)
{
    char text[1024];
    struct hy3_config c = {0};

    (void)state;
    snprintf(text, sizeof text, "%slearning_rat = 1e-4;\nbf16 = \"yes\";\nmax_steps = 1.5;\n",
             required);
    assert_all(parse(&c, text, strlen(text), "seed=-3", "lr_scheduler_type=linaer") == HY3_EUSAGE);
    assert_all(says("run.cfg:2") && says("learning_rate") && says("run.cfg:3") && says("bf16"));
    assert_all(says("run.cfg:4") && says("max_steps") && says("seed") && says("lr_scheduler_type"));
    hy3_config_free(&c);
}

static void wrong_values_and_combinations_are_refused(void **state)
{
    static const char *const wrong[] = {
        "learning_rate=nan",  "learning_rate=-1",
        "max_seq_length=0",   "max_seq_length=99999999999999999999",
        "bf16=maybe",         "finetuning_type=frozen",
        "zero_stage=4",       "report_to=trackio",
        "packing=half",       "offload=half",
        "max_shard_size=5XB", "val_size=nan",
        "adam_beta1=1",       "nothing=1",
        "save_steps=1.5",     "logging_steps=0",
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct hy3_config c = {0};
        hy3_status status = parse(&c, required, strlen(required), wrong[i], NULL);

        assert_all(status == HY3_EUSAGE);
        hy3_config_free(&c);
    }
}

static void the_echo_reads_back_as_the_same_configuration(void **state)
{
    struct hy3_config c = {0}, again = {0};
    char *text, *second;

    (void)state;
    assert_all(parse(&c, required, strlen(required), "cache_dir=a \"b\" \\ c\xc3\xa9",
                     "learning_rate=0.1") == HY3_OK);
    assert_ok(hy3_config_format(&c, &text));
    assert_all(parse(&again, text, strlen(text), NULL, NULL) == HY3_OK);
    assert_ok(hy3_config_format(&again, &second));
    assert_all(strcmp(text, second) == 0);
    assert_all(again.learning_rate == 0.1 && strcmp(again.cache_dir, c.cache_dir) == 0);
    hy3_free(text);
    hy3_free(second);
    hy3_config_free(&c);
    hy3_config_free(&again);
}

/* Bytes changed at random: an error or not, but never a crash. */
static void hostile_bytes_do_no_harm(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 1500; round++) {
        char text[512];
        size_t size = (size_t)snprintf(
            text, sizeof text, "%sseed = 5; dataset = [\"a\", \"b\"]; bf16 = true;", required);
        struct hy3_config c = {0};
        uint32_t word[4];

        for (uint64_t i = 0; i < 1 + round % 6; i++) {
            hy3_random(9, HY3_RANDOM_DUMMY, round, i, word);
            text[word[0] % size] = (char)word[1];
        }
        (void)parse(&c, text, size, NULL, NULL);
        hy3_config_free(&c);
    }
}

/* Bytes that only rank 0 reads: what it finds wrong is told to all. */
static void a_missing_file_is_one_status_on_all(void **state)
{
    char *argv[] = {"hy3_sft", "nowhere.cfg"};
    struct hy3_config c = {0};
    bool finished;

    (void)state;
    assert_all(hy3_config_parse(&c, MPI_COMM_WORLD, 2, argv, "", &finished) == HY3_EUSAGE);
    assert_all(says("CONFIG: 'nowhere.cfg' does not exist") && !says("rank"));
    assert_all(!c.max_shard_size);
}

static void every_rank_gets_the_same_values(void **state)
{
    struct hy3_config c = {0};
    char *text;
    int64_t sum = 0;

    (void)state;
    assert_all(parse(&c, required, strlen(required), "seed=77", NULL) == HY3_OK);
    assert_ok(hy3_config_format(&c, &text));
    for (const char *p = text; *p; p++)
        sum = (31 * sum + *p) % 1000000007;
    {
        int64_t bounds[2] = {sum, -sum};

        hy3_allreduce_int(MPI_COMM_WORLD, bounds, 2, MPI_MIN, "testing");
        assert_all(bounds[0] == -bounds[1] && c.seed == 77);
    }
    hy3_free(text);
    hy3_config_free(&c);
}

/* On one rank there is nothing to differ from. */
static void different_arguments_are_refused(void **state)
{
    struct hy3_config c = {0};
    bool alone = hy3_size(MPI_COMM_WORLD) == 1;
    hy3_status status = parse(&c, required, strlen(required),
                              hy3_rank(MPI_COMM_WORLD) == 0 ? "seed=1" : "seed=2", NULL);

    (void)state;
    assert_all(status == (alone ? HY3_OK : HY3_EUSAGE));
    assert_all(alone || says("different arguments"));
    hy3_config_free(&c);
}

static void help_and_version_are_no_runs(void **state)
{
    static char *const words[] = {"--help", "-h", "--version", "--write-reference=md"};

    (void)state;
    fflush(stdout);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char *argv[] = {"hy3_sft", words[i], "nowhere.cfg"};
        struct hy3_config c = {0};
        bool finished = false;
        int kept = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);
        hy3_status status;

        dup2(null, STDOUT_FILENO);
        status = hy3_config_parse(&c, MPI_COMM_WORLD, 3, argv, "", &finished);
        fflush(stdout);
        dup2(kept, STDOUT_FILENO);
        close(kept);
        close(null);
        assert_all(status == HY3_OK && finished && !c.max_shard_size);
    }
}

static void sizes_have_units(void **state)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } units[] = {{"3K", 3000},  {"3M", 3000000},   {"80G", 80000000000}, {"1.5t", 1500000000000},
                 {"2Ki", 2048}, {"2 Mi", 2 << 20}, {"1Gi", 1 << 30},     {"4KiB", 4096}};

    int64_t n;

    (void)state;
    assert_ok(hy3_config_bytes("5GB", "k", &n));
    assert_true(n == 5000000000);
    assert_ok(hy3_config_bytes("3MiB", "k", &n));
    assert_true(n == 3 << 20);
    assert_fails(HY3_EUSAGE, "max_shard_size", hy3_config_bytes("lots", "max_shard_size", &n));
    assert_ok(hy3_config_bytes("1B", "k", &n));
    assert_true(n == 1);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        assert_ok(hy3_config_bytes(units[i].text, "k", &n));
        assert_true(n == units[i].bytes);
    }
    assert_fails(HY3_EUSAGE, "'k' is 80 without a unit; write 80G",
                 hy3_config_bytes("80", "k", &n));
    assert_ok(hy3_config_bytes("1.5 kb", "k", &n));
    assert_true(n == 1500);
    assert_ok(hy3_config_bytes("2TiB", "k", &n));
    assert_true(n == (int64_t)2 << 40);
    assert_fails(HY3_EUSAGE, "k", hy3_config_bytes("99999999999999GB", "k", &n));
    for (const char *const *wrong =
             (const char *const[]){"", "GB", "-1GB", "0", "1GB x", "1e3", "0x10", "nan", "inf",
                                   "5 XB", "1..2GB", NULL};
         *wrong; wrong++)
        assert_fails(HY3_EUSAGE, "'k' is", hy3_config_bytes(*wrong, "k", &n));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_contract),
        cmocka_unit_test(arguments_override_the_file),
        cmocka_unit_test(all_mistakes_are_reported_together),
        cmocka_unit_test(wrong_values_and_combinations_are_refused),
        cmocka_unit_test(the_echo_reads_back_as_the_same_configuration),
        cmocka_unit_test(hostile_bytes_do_no_harm),
        cmocka_unit_test(a_missing_file_is_one_status_on_all),
        cmocka_unit_test(every_rank_gets_the_same_values),
        cmocka_unit_test(different_arguments_are_refused),
        cmocka_unit_test(help_and_version_are_no_runs),
        cmocka_unit_test(sizes_have_units),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
