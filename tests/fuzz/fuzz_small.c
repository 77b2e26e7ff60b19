/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_small.c - any bytes as one of the small files of a run, a model or a cache; the first byte,
 * a letter, says as which. */
#include "base/json.h"
#include "base/lock_holder.h"
#include "base/log.h"
#include "ckpt/adapter/report.h"
#include "ckpt/hf/companions.h"
#include "ckpt/hf/publish.h"
#include "config/assign.h"
#include "config/compare.h"
#include "config/settings.h"
#include "data/lines.h"
#include "fuzz.h"
#include "text/tokenizer.h"
#include "train/mark.h"
#include "train/report.h"

/* The file `name` with these bytes, in a directory of that letter. */
static const char *place(char letter, const char *name, const char *data, size_t size)
{
    static char directory[HY3_PATH_MAX];
    char path[HY3_PATH_MAX];

    fuzz_path(directory, (char[]){letter, '\0'});
    if (hy3_directory_create(directory) != HY3_OK ||
        hy3_path_format(path, sizeof path, "%s/%s", directory, name) != HY3_OK)
        abort();
    fuzz_write(path, data, size);
    return directory;
}

static void read_again(const char *directory, const char *name, char **text, size_t *size)
{
    char path[HY3_PATH_MAX];

    if (hy3_path_format(path, sizeof path, "%s/%s", directory, name) != HY3_OK ||
        hy3_file_read(path, 1 << 24, text, size) != HY3_OK)
        abort();
}

/* What is kept once is kept again. */
static void log_of_a_run(const char *data, size_t size)
{
    const struct hy3_report_state from = {.step = 5};
    const char *directory = place('l', "train_log.jsonl", data, size);
    struct hy3_report *report;
    char *text[2];
    size_t kept[2];

    for (int i = 0; i < 2; i++) {
        if (hy3_report_open(directory, 9, 1, true, &from, &report) != HY3_OK)
            HY3_BUG("a log ends the run: %s", hy3_error_text());
        hy3_report_close(report);
        read_again(directory, "train_log.jsonl", &text[i], &kept[i]);
    }
    if (kept[0] != kept[1] || memcmp(text[0], text[1], kept[0]) != 0 || kept[0] > size)
        HY3_BUG("another log was kept");
    hy3_free(text[0]);
    hy3_free(text[1]);
}

/* A mark that is read can be written, and is the same then. */
static void mark_of_a_run(const char *data, size_t size)
{
    const char *directory = place('m', HY3_MARK_NAME, data, size);
    struct hy3_mark mark, again;
    bool found;

    if (hy3_mark_read(directory, &mark, &found) != HY3_OK)
        HY3_BUG("a mark ends the run: %s", hy3_error_text());
    if (found && hy3_mark_write(directory, &mark) == HY3_OK &&
        (hy3_mark_read(directory, &again, &found) != HY3_OK || mark.step != again.step ||
         mark.data != again.data || strcmp(mark.from, again.from) != 0))
        HY3_BUG("another mark was written");
}

static void lock(const char *data, size_t size)
{
    struct hy3_lock_holder holder;
    char path[HY3_PATH_MAX], text[1024];
    bool exists;

    snprintf(path, sizeof path, "%s/lock", place('k', "lock", data, size));
    if (hy3_lock_holder_read(path, &holder, &exists) != HY3_OK || strlen(holder.nonce) != 16 ||
        strspn(holder.nonce, "0123456789abcdef") != 16)
        HY3_BUG("a lock without a nonce");
    hy3_lock_holder_fate(&holder, false);
    hy3_lock_holder_describe(&holder, text, sizeof text);
}

static void configuration_of_before(const char *data, size_t size)
{
    struct hy3_config now = {0};
    struct hy3_changes changes;
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    if (hy3_config_defaults(&now) != HY3_OK)
        abort();
    if (hy3_config_compare(text, size, &now, &changes) == HY3_OK)
        hy3_changes_free(&changes);
    hy3_config_free(&now);
    free(text);
}

static void configuration(const char *data, size_t size)
{
    struct hy3_settings settings = {0};
    struct hy3_problems problems = {0};
    struct hy3_config config = {0};
    const struct hy3_option *o;
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    hy3_libconfig_read(text, size, "run.cfg", &settings, &problems);
    if (hy3_config_defaults(&config) != HY3_OK)
        abort();
    for (size_t i = 0; i < settings.count; i++)
        if ((o = hy3_option_find(hy3_options, settings.items[i].key)))
            hy3_option_assign(o, &settings.items[i], &config, &problems);
    hy3_config_free(&config);
    hy3_settings_free(&settings);
    free(text);
}

static void tokenizer_config(const char *data, size_t size)
{
    const char *directory = place('t', "tokenizer_config.json", data, size);
    static bool is_copied;
    struct hy3_tokenizer *tokenizer;
    char from[HY3_PATH_MAX], to[HY3_PATH_MAX];

    snprintf(from, sizeof from, "%s/tests/golden/a/tokenizer/tokenizer.json", getenv("HY3_SOURCE"));
    snprintf(to, sizeof to, "%s/tokenizer.json", directory);
    if (!is_copied && hy3_output_copy(from, to) != HY3_OK)
        abort();
    is_copied = true;
    if (hy3_tokenizer_open(directory, &tokenizer) == HY3_OK)
        hy3_tokenizer_close(tokenizer);
}

/* auto_map, and the modules that a module imports. */
static void modules(char letter, const char *data, size_t size)
{
    static const char map[] = "{\"auto_map\": {\"AutoModel\": \"m.Model\"}}";
    char output[HY3_PATH_MAX];
    const char *directory = letter == 'a' ? place('a', "config.json", data, size)
                                          : place('i', "config.json", map, sizeof map - 1);

    if (letter == 'i')
        place('i', "m.py", data, size);
    snprintf(output, sizeof output, "%s/to", directory);
    if (hy3_directory_create(output) != HY3_OK)
        abort();
    hy3_hf_copy_modules(directory, output, NULL);
}

/* However a file is cut, its lines are the same. */
static void lines(const char *data, size_t size)
{
    char path[HY3_PATH_MAX];
    struct hy3_source source = {.path = path, .size = (int64_t)size};
    int64_t counts[2] = {0}, portion_count, length;
    struct hy3_portion *portions;
    struct hy3_lines *reader;
    const char *line;

    snprintf(path, sizeof path, "%s/lines", place('n', "lines", data, size));
    for (int i = 0; i < 2; i++) {
        if (hy3_lines_create(&reader) != HY3_OK ||
            hy3_portions_plan(&source, 1, i == 0 ? 7 : 1 << 30, &portions, &portion_count) !=
                HY3_OK)
            abort();
        for (int64_t p = 0; p < portion_count; p++) {
            if (hy3_lines_begin(reader, &source, &portions[p]) != HY3_OK)
                abort();
            while (hy3_lines_next(reader, &line, &length) == HY3_OK && line) {
                counts[i]++;
                if (memchr(line, '\n', (size_t)length))
                    HY3_BUG("a line is two");
            }
        }
        hy3_free(portions);
        hy3_lines_free(reader);
    }
    if (counts[0] != counts[1])
        HY3_BUG("%lld lines in pieces, %lld at once", (long long)counts[0], (long long)counts[1]);
}

static void json(const char *data, size_t size)
{
    char path[HY3_PATH_MAX];
    json_t *document;

    snprintf(path, sizeof path, "%s/x.json", place('j', "x.json", data, size));
    if (hy3_json_read(path, 1 << 20, &document) == HY3_OK &&
        hy3_json_write(path, document) != HY3_OK)
        HY3_BUG("what was read cannot be written");
    json_decref(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;

    fuzz_begin_mpi();
    if (size-- == 0)
        return 0;
    switch (data[0]) {
    case 'l':
        log_of_a_run(text, size);
        break;
    case 'm':
        mark_of_a_run(text, size);
        break;
    case 'k':
        lock(text, size);
        break;
    case 'c':
        configuration_of_before(text, size);
        break;
    case 'f':
        configuration(text, size);
        break;
    case 't':
        tokenizer_config(text, size);
        break;
    case 'a':
    case 'i':
        modules((char)data[0], text, size);
        break;
    case 'n':
        lines(text, size);
        break;
    case 'r':
        hy3_merge_report_tell(place('r', HY3_MERGE_REPORT, text, size), NULL);
        break;
    case 'u':
        hy3_hf_may_write(place('u', ".hy3_unfinished", text, size), "hy3_export");
        break;
    default:
        json(text, size);
    }
    return 0;
}
