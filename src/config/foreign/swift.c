/* SPDX-License-Identifier: Apache-2.0 */
/* swift.c - keys that only ms-swift has. */
#include "base/memory.h"
#include "config/foreign/translation.h"

#include <fnmatch.h>
#include <math.h>

/* mlp.experts.gate_up_proj, mlp.experts.down_proj: our experts are both. */
hy3_status hy3_put_swift_parameters(struct hy3_translation *t, const struct hy3_setting *s)
{
    static const char *const names[] = {"*mlp.experts.gate_up_proj", "*mlp.experts.down_proj"};
    hy3_status status = HY3_OK;
    struct hy3_list texts = {0};
    bool found[2] = {false};
    int count = 0;

    if (hy3_refuse_mixed(t, s))
        return HY3_OK;
    HY3_TRY_DONE(hy3_split_texts(s, &texts));
    for (int i = 0; i < texts.count; i++)
        for (int k = 0; k < 2; k++)
            if (fnmatch(names[k], texts.items[i], 0) == 0) {
                found[k] = true;
                count++;
            }
    if (texts.count == 0 || hy3_is_off(s))
        goto done;
    if (count != texts.count)
        hy3_problem(t->problems, s->where,
                    "%s: only the routed experts, mlp.experts.gate_up_proj and "
                    "mlp.experts.down_proj, can be chosen; others are named in target_modules",
                    s->key);
    else if (!found[0] || !found[1])
        hy3_problem(t->problems, s->where,
                    "%s names %s alone: hy3 adapts both parameters of the routed experts; name "
                    "mlp.experts.%s, too, or leave the key out",
                    s->key, names[found[1]] + 1, found[0] ? "down_proj" : "gate_up_proj");
    else if (!hy3_theirs(t, "target_modules"))
        status = hy3_put_words(t, s, "lora_target", HY3_FOREIGN_LINEAR ",experts");
done:
    hy3_list_free(&texts);
    return status;
}

/* A backslash and an n are a line end there (template_args.py). */
static hy3_status put_system_text(struct hy3_translation *t, const struct hy3_setting *s,
                                  const char *text)
{
    hy3_status status = HY3_OK;
    char *system, *out;

    HY3_TRY(hy3_strdup(text, &system));
    out = system;
    for (const char *p = text; *p; p++) {
        *out = *p;
        if (p[0] == '\\' && p[1] == 'n') {
            *out = '\n';
            p++;
        }
        out++;
    }
    *out = '\0';
    status = hy3_put_text(t, s, "default_system", system);
    hy3_free(system);
    return status;
}

/* ms-swift reads the text of a file that is named. */
hy3_status hy3_put_swift_system(struct hy3_translation *t, const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);
    size_t length = text ? strlen(text) : 0;

    if (length > 4 && strcmp(text + length - 4, ".txt") == 0) {
        hy3_problem(t->problems, s->where,
                    "%s = %.200s names a file, which is not read; give its text instead", s->key,
                    text);
        return HY3_OK;
    }
    return text ? put_system_text(t, s, text) : hy3_put_plain(t, s, "default_system", NULL);
}

/* "last_round+ignore_empty_think" */
hy3_status hy3_put_swift_loss(struct hy3_translation *t, const struct hy3_setting *s)
{
    static const struct {
        const char *word, *key;
    } scales[] = {{"default", NULL},
                  {"last_round", "mask_history"},
                  {"ignore_empty_think", "mask_empty_think"}};

    const size_t count = sizeof scales / sizeof *scales;
    const char *text = hy3_setting_text(s);

    for (const char *word = text; word; word = strchr(word, '+')) {
        size_t length, i = 0;

        word += *word == '+';
        length = strcspn(word, "+");
        while (i < count &&
               (strlen(scales[i].word) != length || strncmp(scales[i].word, word, length) != 0))
            i++;
        if (i == count) {
            text = NULL;
            break;
        }
        if (scales[i].key)
            HY3_TRY(hy3_put_truth(t, s, scales[i].key, true));
    }
    if (!text)
        hy3_problem(t->problems, s->where,
                    "%s = %.64s is not available: use default, last_round, ignore_empty_think, or "
                    "the last two joined by '+'",
                    s->key, hy3_setting_text(s) ? hy3_setting_text(s) : "a list");
    return HY3_OK;
}

/* Not given, ms-swift fills a step up to 16 samples (sft_args.py), and hy3 does not. */
static hy3_status note_accumulation(struct hy3_translation *t)
{
    const struct hy3_setting *given = hy3_ours(t, "per_device_train_batch_size");
    double batch = given && given->real >= 1 ? given->real : 1;
    double theirs = ceil(16 / batch / (t->ranks > 0 ? t->ranks : 1));
    char value[32] = "";

    if (hy3_ours(t, "gradient_accumulation_steps") || theirs <= 1)
        return HY3_OK;
    if (t->ranks > 0)
        snprintf(value, sizeof value, " = %.0f", theirs);
    return hy3_note(t,
                    "gradient_accumulation_steps is not given: 1 is taken; ms-swift itself takes "
                    "ceil(16 / per_device_train_batch_size / ranks)%s",
                    value);
}

/* ms-swift's own are the model's length, and a rate by the kind of training. */
hy3_status hy3_translate_swift(struct hy3_translation *t)
{
    const char *type = hy3_ours_text(t, "finetuning_type");
    bool is_full = type && strcmp(type, "full") == 0;

    if (!hy3_ours(t, "max_seq_length"))
        hy3_problem(t->problems, "",
                    "max_length is missing: ms-swift takes the length of the model, hy3 needs one "
                    "that fits into memory");
    HY3_TRY(note_accumulation(t));
    if (hy3_ours(t, "learning_rate"))
        return HY3_OK;
    return hy3_put_number(t, NULL, "learning_rate", is_full ? 1e-5 : 1e-4);
}
