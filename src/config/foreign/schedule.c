/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.c - the learning-rate schedule of theirs and its lr_scheduler_kwargs. */
#include "config/foreign/schedule.h"

hy3_status hy3_put_schedule(struct hy3_translation *t, const struct hy3_setting *s)
{
    static const char *const others[] = {"reduce_lr_on_plateau", "greedy"};
    const char *text = hy3_setting_text(s);

    for (size_t i = 0; text && i < sizeof others / sizeof *others; i++)
        if (strcmp(text, others[i]) == 0) {
            hy3_problem(t->problems, s->where,
                        "lr_scheduler_type = %s is not available: it follows the loss; use "
                        "warmup_stable_decay or cosine, and early_stopping_patience to end a run "
                        "that no longer improves",
                        text);
            return HY3_OK;
        }
    return hy3_put_plain(t, s, "lr_scheduler_type", NULL);
}

/* The schedule of the run, by its settings or by the tool's default. */
static const char *type_of(const struct hy3_translation *t)
{
    const char *type = hy3_ours_text(t, "lr_scheduler_type");

    for (const struct hy3_foreign_default *d = hy3_foreign_defaults; !type && d->key; d++)
        if ((d->origins & t->origin) && strcmp(d->key, "lr_scheduler_type") == 0)
            type = d->value;
    return type ? type : "";
}

/* transformers hands all of them to the function of the schedule, which knows its own. */
static void check_arguments(struct hy3_translation *t, const char *type)
{
    for (size_t i = 0; i < t->ours->count; i++) {
        const struct hy3_setting *s = &t->ours->items[i];

        if (strstr(s->where, "(lr_scheduler_kwargs.") && !hy3_config_is_of_schedule(s->key, type))
            hy3_problem(t->problems, s->where,
                        "no meaning to lr_scheduler_type = %.64s, which transformers refuses with "
                        "it; leave it out",
                        type);
    }
}

void hy3_check_schedule(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "lr_scheduler_type");
    const char *type = type_of(t);
    bool needs_minimum =
        strcmp(type, "cosine_with_min_lr") == 0 || strcmp(type, "cosine_warmup_with_min_lr") == 0;

    check_arguments(t, type);
    if (s && needs_minimum && !hy3_ours(t, "min_lr") && !hy3_ours(t, "min_lr_rate"))
        hy3_problem(t->problems, s->where, "lr_scheduler_type = %s needs %s", type,
                    t->origin == HY3_TRAIN_PY && strcmp(type, "cosine_with_min_lr") == 0
                        ? "--min_lr"
                        : "lr_scheduler_kwargs with min_lr or min_lr_rate");
}
