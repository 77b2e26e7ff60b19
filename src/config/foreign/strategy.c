/* SPDX-License-Identifier: Apache-2.0 */
/* strategy.c - save_strategy and eval_strategy, and the steps that go with them. "no" is 0 steps:
 * hy3 saves and evaluates at the end in any case. */
#include "config/foreign/strategy.h"

/* Whether the word is one of no, false, off, which YAML has for the same. */
static bool is_no(const char *text)
{
    bool truth;

    return text && hy3_scalar_truth(text, &truth) && !truth;
}

static bool is_word(const char *text, const char *word)
{
    return text && strcmp(text, word) == 0;
}

static hy3_status refuse(struct hy3_translation *t, const struct hy3_setting *s, const char *words)
{
    const char *text = hy3_setting_text(s);

    hy3_problem(t->problems, s->where, "%s = %.64s is not available: use %s", s->key,
                text ? text : "a list", words);
    return HY3_OK;
}

hy3_status hy3_put_save_strategy(struct hy3_translation *t, const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);

    if (is_word(text, "epoch") || is_word(text, "best"))
        return hy3_put_text(t, s, "save_strategy", text);
    return is_word(text, "steps") || is_no(text) ? HY3_OK
                                                 : refuse(t, s, "steps, epoch, best or no");
}

hy3_status hy3_put_eval_strategy(struct hy3_translation *t, const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);

    if (is_word(text, "epoch"))
        return hy3_put_text(t, s, "eval_strategy", text);
    return is_word(text, "steps") || is_no(text) ? HY3_OK : refuse(t, s, "steps, epoch or no");
}

/* Steps that have no effect beside the word. */
static hy3_status drop(struct hy3_translation *t, const char *key)
{
    if (!hy3_ours(t, key))
        return HY3_OK;
    hy3_drop_ours(t, key);
    return hy3_note_unused(t, key);
}

static hy3_status put_save(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "save_strategy");
    const char *text = s ? hy3_setting_text(s) : NULL;

    if (is_no(text)) {
        hy3_drop_ours(t, "save_steps");
        return hy3_put_number(t, s, "save_steps", 0);
    }
    return is_word(text, "epoch") || is_word(text, "best") ? drop(t, "save_steps") : HY3_OK;
}

/* The word of eval_strategy; ms-swift evaluates as it saves where there is something to evaluate
 * on. NULL: it evaluates only at the end. */
static const char *eval_word(struct hy3_translation *t, const struct hy3_setting *s)
{
    const struct hy3_setting *save = hy3_theirs(t, "save_strategy");
    const char *text = save ? hy3_setting_text(save) : "steps";

    if (s)
        return hy3_setting_text(s);
    if (t->origin != HY3_MS_SWIFT || !(hy3_ours(t, "val_size") || hy3_ours(t, "eval_data_file")))
        return NULL;
    return is_word(text, "best") ? "steps" : text;
}

/* Trainer evaluates in between only by its strategy, and every logging_steps if not told
 * otherwise. */
static hy3_status put_eval(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "eval_strategy");
    const char *other = t->origin == HY3_MS_SWIFT ? "save_steps" : "logging_steps", *text;
    struct hy3_setting *ours = (struct hy3_setting *)(uintptr_t)hy3_ours(t, "eval_steps");

    s = s ? s : hy3_theirs(t, "evaluation_strategy");
    text = eval_word(t, s);
    if (is_word(text, "epoch")) {
        HY3_TRY(drop(t, "eval_steps"));
        return s ? HY3_OK : hy3_put_text(t, NULL, "eval_strategy", "epoch");
    }
    if (!is_word(text, "steps")) {
        if (!ours)
            return HY3_OK;
        ours->type = HY3_VALUE_INT;
        ours->integer = 0;
        ours->real = 0;
        return hy3_note_unused(t, "eval_steps");
    }
    if (ours)
        return HY3_OK;
    if (hy3_theirs(t, other))
        return hy3_put_plain(t, hy3_theirs(t, other), "eval_steps", NULL);
    return hy3_put_number(t, s, "eval_steps", 500);
}

/* ms-swift counts checkpoints without an improvement, hy3 evaluations. */
static void check_patience(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "early_stop_interval");
    const struct hy3_setting *saves = hy3_ours(t, "save_steps"), *evals = hy3_ours(t, "eval_steps");
    const char *save = hy3_ours_text(t, "save_strategy"), *eval = hy3_ours_text(t, "eval_strategy");
    bool is_same = save || eval ? save && eval && strcmp(save, eval) == 0
                                : evals && (saves ? saves->real : 500) == evals->real;

    if (s && !hy3_is_off(s) && !is_same)
        hy3_problem(t->problems, s->where,
                    "early_stop_interval counts checkpoints there, evaluations here: save and "
                    "evaluate at the same steps");
}

/* Whether an evaluation decides which checkpoint is the result, or ends the run. */
static bool chooses_best(const struct hy3_translation *t)
{
    const struct hy3_setting *best = hy3_theirs(t, "load_best_model_at_end");
    const struct hy3_setting *patience = hy3_ours(t, "early_stopping_patience");
    const char *text = best ? hy3_setting_text(best) : NULL;
    bool truth;

    return (text && hy3_scalar_truth(text, &truth) && truth) || (patience && patience->real > 0) ||
           is_word(hy3_ours_text(t, "save_strategy"), "best");
}

/* A first evaluation that comes later decides which is the best. */
static void check_delay(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "eval_delay");

    if (s && chooses_best(t) && !hy3_is_off(s))
        hy3_problem(t->problems, s->where,
                    "eval_delay is not available where evaluations choose a checkpoint: all count "
                    "here; leave it out");
}

hy3_status hy3_put_intervals(struct hy3_translation *t)
{
    HY3_TRY(put_save(t));
    HY3_TRY(put_eval(t));
    check_patience(t);
    check_delay(t);
    return HY3_OK;
}
