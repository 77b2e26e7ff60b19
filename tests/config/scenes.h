/* SPDX-License-Identifier: Apache-2.0 */
/* scenes.h - configurations of other tools, each a file or flags, and what must come of them. */
#pragma once

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "config/as_sft.h"
#include "config/config.h"
#include "config/leaks.h"
#include "support/test.h"

#include <stdlib.h>

enum { ARGUMENTS_MAX = 24 };

struct scene {
    const char *text;   /* behind the needed keys; NULL: no file */
    const char *words;  /* arguments, in one text */
    const char *wanted; /* lines of the configuration, or words of the message, between '|' */
};

#define LF    "model_name_or_path: m\nstage: sft\ndataset: d\noutput_dir: o\n"
#define SWIFT "model: m\ndataset: [t.jsonl]\noutput_dir: o\nmax_length: 512\n"
#define FLAGS "--model_name_or_path m --train_data_file t.jsonl --output_dir o "

static inline void write_file(const char *name, const char *text)
{
    char path[HY3_PATH_MAX];

    assert_ok(hy3_path_format(path, sizeof path, "%s/%s", hy3_test_directory(), name));
    assert_ok(hy3_output_replace(path, text, strlen(text)));
}

/* Parses the scene; name: of the file. */
static inline hy3_status parse(const char *name, const struct scene *s)
{
    static char path[HY3_PATH_MAX + 64], words[2048];
    char *argv[ARGUMENTS_MAX] = {"hy3_sft"}, *rest = NULL;
    bool finished;
    int argc = 1;

    hy3_config_free(&config);
    snprintf(path, sizeof path, "%s/%s", hy3_test_directory(), name);
    if (s->text) {
        write_file(name, s->text);
        argv[argc++] = path;
    }
    snprintf(words, sizeof words, "%s", s->words ? s->words : "");
    for (char *w = strtok_r(words, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        assert_true(argc < ARGUMENTS_MAX);
        argv[argc++] = w;
    }
    return hy3_config_parse(&config, MPI_COMM_WORLD, argc, argv, "", &finished);
}

/* Every text between '|' stands in `text`. */
static inline void assert_has(const char *text, const char *wanted, const struct scene *s)
{
    char words[1024], *rest = NULL;

    snprintf(words, sizeof words, "%s", wanted);
    for (char *w = strtok_r(words, "|", &rest); w; w = strtok_r(NULL, "|", &rest))
        if (!strstr(text, w))
            fail_msg("'%s' is not in\n%s\nof %s\n%s", w, text, s->text ? s->text : "flags",
                     s->words ? s->words : "");
}

static inline void assert_gives(const char *name, const struct scene *scenes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *text = NULL;
        hy3_status status = parse(name, &scenes[i]);

        if (status != HY3_OK)
            fail_msg("%s\nof %s", hy3_error_text(), scenes[i].text ? scenes[i].text : "flags");
        assert_ok(hy3_config_format(&config, &text));
        assert_has(text, scenes[i].wanted, &scenes[i]);
        hy3_free(text);
    }
}

static inline void assert_refused(const char *name, const struct scene *scenes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        hy3_status status = parse(name, &scenes[i]);

        if (status != HY3_EUSAGE)
            fail_msg("taken: %s %s", scenes[i].text ? scenes[i].text : "flags",
                     scenes[i].words ? scenes[i].words : "");
        assert_has(hy3_error_text(), scenes[i].wanted, &scenes[i]);
    }
}
