/* SPDX-License-Identifier: Apache-2.0 */
/* compare.c - which keys of two configurations differ in effect. */
#include "config/compare.h"

#include "base/file.h"
#include "base/memory.h"
#include "config/assign.h"
#include "config/leaks.h"
#include "support/test.h"

#include <unistd.h>

/* The keys that differ between `old`, lines of a file, and the defaults with `now`, one setting;
 * "a b" in the order of the table. */
static const char *differences(const char *old, const char *key, const char *value)
{
    static char keys[256];
    struct hy3_config config = {0};
    struct hy3_changes changes;
    char *copy = NULL;
    struct hy3_setting setting = {.where = keys, .type = HY3_VALUE_WORD};
    struct hy3_problems problems = {0};

    assert_ok(hy3_config_defaults(&config));
    if (key) {
        assert_ok(hy3_strdup(value, &copy));
        setting.texts = (struct hy3_list){.items = &copy, .count = 1};
        assert_ok(
            hy3_option_assign(hy3_option_find(hy3_options, key), &setting, &config, &problems));
        assert_int_equal(problems.count, 0);
    }
    assert_ok(hy3_config_compare(old, strlen(old), &config, &changes));
    keys[0] = '\0';
    for (size_t i = 0; i < changes.count; i++)
        snprintf(keys + strlen(keys), sizeof keys - strlen(keys), "%s%s", i > 0 ? " " : "",
                 changes.items[i].option->key);
    hy3_changes_free(&changes);
    hy3_config_free(&config);
    hy3_free(copy);
    return keys;
}

static void what_is_written_otherwise_is_the_same(void **state)
{
    (void)state;
    assert_string_equal(differences("", NULL, NULL), "");
    assert_string_equal(differences("learning_rate = 0.00001; cutoff_len = 4096;", NULL, NULL), "");
    assert_string_equal(differences("learning_rate = 2e-5; seed = 7;", NULL, NULL),
                        "learning_rate seed");
    assert_string_equal(differences("seed = 7;", "seed", "7"), "");
}

static void keys_without_effect_do_not_count(void **state)
{
    (void)state;
    assert_string_equal(differences("lora_rank = 8;", NULL, NULL), "");
    assert_string_equal(
        differences("lora_rank = 8; finetuning_type = \"lora\";", "finetuning_type", "lora"),
        "lora_rank");
    assert_string_equal(differences("use_rslora = true; freeze_trainable_layers = 5;", NULL, NULL),
                        "");
    assert_string_equal(differences("finetuning_type = \"freeze\"; freeze_trainable_layers = 5;",
                                    "finetuning_type", "freeze"),
                        "freeze_trainable_layers");
    assert_string_equal(differences("freeze_router = true;", NULL, NULL), "freeze_router");
}

static void what_another_version_wrote_is_read_as_far_as_it_is_known(void **state)
{
    struct hy3_config config = {0};
    struct hy3_changes changes;
    static const char garbage[] =
        "\x7f"
        "ELF = = ;";

    (void)state;
    assert_string_equal(differences("key_of_tomorrow = 3; zero_stage = 99; seed = 7;", NULL, NULL),
                        "seed");
    assert_ok(hy3_config_defaults(&config));
    assert_fails(HY3_EFORMAT, "no configuration",
                 hy3_config_compare(garbage, sizeof garbage - 1, &config, &changes));
    assert_int_equal(changes.count, 0);
    hy3_config_free(&config);
}

static void two_paths_to_one_directory_are_the_same(void **state)
{
    char text[2 * HY3_PATH_MAX], link[HY3_PATH_MAX + 8];
    const char *directory = hy3_test_directory();

    (void)state;
    snprintf(link, sizeof link, "%s.link", directory);
    unlink(link);
    assert_int_equal(symlink(directory, link), 0);
    snprintf(text, sizeof text, "adapter_name_or_path = \"%s/\";", directory);
    assert_string_equal(differences(text, "adapter_name_or_path", link), "");
    unlink(link);
    assert_string_equal(differences(text, "adapter_name_or_path", link), "adapter_name_or_path");
}

static void a_failing_allocation_is_a_status(void **state)
{
    static const char old[] = "learning_rate = 2e-5; seed = 7;";
    hy3_status status = HY3_ENOMEM;

    (void)state;
    for (int64_t n = 1; status != HY3_OK; n++) {
        struct hy3_config config = {0};
        struct hy3_changes changes;

        assert_ok(hy3_config_defaults(&config));
        hy3_alloc_fail_at(n);
        status = hy3_config_compare(old, sizeof old - 1, &config, &changes);
        hy3_alloc_fail_at(0);
        assert_true(status == HY3_OK || status == HY3_ENOMEM);
        assert_int_equal(changes.count, status == HY3_OK ? 2 : 0);
        hy3_changes_free(&changes);
        hy3_config_free(&config);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_otherwise_is_the_same),
        cmocka_unit_test(keys_without_effect_do_not_count),
        cmocka_unit_test(what_another_version_wrote_is_read_as_far_as_it_is_known),
        cmocka_unit_test(two_paths_to_one_directory_are_the_same),
        cmocka_unit_test(a_failing_allocation_is_a_status),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
