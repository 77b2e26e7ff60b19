/* SPDX-License-Identifier: Apache-2.0 */
/* suggest.c - a search over what does not change the result of a run. */
#include "app/suggest.h"

#include "app/module_options.h"
#include "app/offload.h"
#include "base/size.h"
#include "comm/stop.h"
#include "config/check.h"
#include "parallel/layout.h"

#include <math.h>

enum { LAYOUTS = 8, KEPT = 32, PRINTED = 5 };

/* Two steps that differ by less take the same time. */
static const double same = 1.01;

struct candidate {
    struct hy3_config config; /* shares its texts, is not freed */
    double seconds, device, node;
};

struct search {
    const struct hy3_config *config;
    const struct hy3_shape *shape;
    const struct hy3_plan_options *options;
    struct candidate best[KEPT]; /* the fastest first */
    int count;
};

/* The settings that are searched; accumulation follows from the others and the global batch. */
enum setting { EXPERTS, SEQUENCE, BATCH, STAGE, OFFLOAD, RECOMPUTE, PREFETCH, SETTINGS };

static bool is_set(const struct hy3_config *c, const struct hy3_config *as, enum setting s)
{
    switch (s) {
    case EXPERTS:
        return c->expert_parallel_size == as->expert_parallel_size;
    case SEQUENCE:
        return c->sequence_parallel_size == as->sequence_parallel_size;
    case BATCH:
        return c->per_device_train_batch_size == as->per_device_train_batch_size;
    case STAGE:
        return c->zero_stage == as->zero_stage;
    case OFFLOAD:
        return c->offload == as->offload &&
               (c->offload_ratio >= as->offload_ratio && c->offload_ratio <= as->offload_ratio);
    case RECOMPUTE:
        return c->recompute == as->recompute && c->offload_activations == as->offload_activations;
    default:
        return c->stage3_prefetch_bucket_size == as->stage3_prefetch_bucket_size;
    }
}

/* Samples of a step that a rank, or a group that shares them, takes in the global batch of `as`; 0:
 * it cannot be. */
static int64_t samples_of(const struct hy3_config *c, const struct hy3_config *as)
{
    int64_t samples = as->per_device_train_batch_size * as->gradient_accumulation_steps;

    samples *= c->sequence_parallel_size;
    return samples % as->sequence_parallel_size == 0 ? samples / as->sequence_parallel_size : 0;
}

/* Leaves the global batch as it is; 0 steps of accumulation: it cannot be. */
static void keep_batch(struct hy3_config *c, const struct hy3_config *as)
{
    int64_t samples = samples_of(c, as), batch = c->per_device_train_batch_size;

    c->gradient_accumulation_steps = samples % batch == 0 ? samples / batch : 0;
}

static void set(struct hy3_config *c, const struct hy3_config *as, enum setting s)
{
    switch (s) {
    case EXPERTS:
        c->expert_parallel_size = as->expert_parallel_size;
        break;
    case SEQUENCE:
        c->sequence_parallel_size = as->sequence_parallel_size;
        keep_batch(c, as);
        break;
    case BATCH:
        c->per_device_train_batch_size = as->per_device_train_batch_size;
        keep_batch(c, as);
        break;
    case STAGE:
        c->zero_stage = as->zero_stage;
        break;
    case OFFLOAD:
        c->offload = as->offload;
        c->offload_ratio = as->offload_ratio;
        break;
    case RECOMPUTE:
        c->recompute = as->recompute;
        c->offload_activations = as->offload_activations;
        break;
    default:
        c->stage3_prefetch_bucket_size = as->stage3_prefetch_bucket_size;
    }
}

/* Plans it, with seconds if it fits. *fits: false for what is not allowed, and for what is too
 * large to be planned. */
static hy3_status weigh(const struct search *s, struct candidate *c, bool *fits)
{
    struct hy3_plan_options memory = *s->options; /* which takes less time to plan */
    struct hy3_config settled = c->config;        /* shares its texts, is not freed */
    struct hy3_plan plan;
    hy3_status status;

    *fits = false;
    memory.rates = NULL;
    if (!hy3_config_can_offload(&c->config) || c->config.gradient_accumulation_steps < 1)
        return HY3_OK;
    HY3_TRY(hy3_stop_check("planning"));
    status = hy3_plan_make(&c->config, s->shape, &memory, &plan);
    if (status == HY3_ENOMEM || (status == HY3_OK && !hy3_plan_fit(&c->config, &memory, &plan)))
        return HY3_OK;
    HY3_TRY(status);
    hy3_offload_settle(plan.offload_ratio, &settled);
    HY3_TRY(hy3_plan_make(&settled, s->shape, s->options, &plan));
    c->seconds = hy3_plan_seconds(&plan);
    c->device = plan.device;
    c->node = hy3_plan_fit_node(&c->config, s->options, &plan);
    *fits = hy3_plan_fit(&c->config, s->options, &plan);
    return HY3_OK;
}

static bool is_same(const struct hy3_config *a, const struct hy3_config *b)
{
    bool same_all = true;

    for (int i = 0; i < SETTINGS; i++)
        same_all = same_all && is_set(a, b, (enum setting)i);
    return same_all;
}

/* Into a list with the fastest first; the slowest leaves a list of `most`. */
static void insert(struct candidate *list, int *count, int most, const struct candidate *c)
{
    int at;

    for (at = *count; at > 0 && c->seconds < list[at - 1].seconds; at--)
        if (at < most)
            list[at] = list[at - 1];
    if (at < most)
        list[at] = *c;
    *count += *count < most;
}

/* Keeps what fits, if it is among the fastest. */
static hy3_status try(struct search *s, const struct hy3_config *config, bool *fits)
{
    struct candidate c = {.config = *config};

    *fits = true;
    for (int i = 0; i < s->count; i++)
        if (is_same(&s->best[i].config, config))
            return HY3_OK;
    HY3_TRY(weigh(s, &c, fits));
    if (*fits)
        insert(s->best, &s->count, KEPT, &c);
    return HY3_OK;
}

/* Expert groups, what is sharded, and what lies in host memory. */
static hy3_status try_layouts(struct search *s, struct hy3_config c)
{
    bool fits;

    for (int P = 1; P <= s->options->ranks; P++) {
        if (!hy3_expert_group_divides(P, s->options->ranks, s->shape->experts))
            continue;
        c.expert_parallel_size = P;
        c.offload_ratio = 1;
        for (c.zero_stage = 0; c.zero_stage <= 3; c.zero_stage++) {
            c.offload = HY3_OFFLOAD_none;
            HY3_TRY(try(s, &c, &fits));
            c.offload = HY3_OFFLOAD_auto;
            if (!fits && s->options->device_memory > 0)
                HY3_TRY(try(s, &c, &fits));
        }
    }
    return HY3_OK;
}

/* The same global batch in other micro-batches, up to the first that does not fit, and other
 * prefetches. */
static hy3_status try_batches(struct search *s, struct hy3_config c)
{
    const int64_t prefetches[] = {s->config->stage3_prefetch_bucket_size, 0, 1000000000};
    int64_t samples = samples_of(&c, s->config);
    bool one_fits = true, fits;

    for (int64_t batch = 1; batch <= samples && one_fits; batch++) {
        if (samples % batch != 0)
            continue;
        one_fits = false;
        c.per_device_train_batch_size = batch;
        c.gradient_accumulation_steps = samples / batch;
        for (int i = 0; i < (c.zero_stage == 3 ? 3 : 1); i++) {
            c.stage3_prefetch_bucket_size = prefetches[i];
            HY3_TRY(try(s, &c, &fits));
            one_fits = one_fits || fits;
        }
    }
    return HY3_OK;
}

/* Less to recompute, with what is kept on the device or in host memory. */
static hy3_status try_recompute(struct search *s, struct hy3_config c)
{
    bool fits;

    if (!c.gradient_checkpointing || c.recompute != HY3_RECOMPUTE_full)
        return HY3_OK;
    c.recompute = HY3_RECOMPUTE_selective;
    HY3_TRY(try(s, &c, &fits));
    if (fits || c.device == HY3_DEVICE_cpu)
        return HY3_OK;
    c.offload_activations = true;
    return try(s, &c, &fits);
}

static hy3_status search(struct search *s)
{
    struct hy3_config c = *s->config;
    struct candidate first[LAYOUTS];
    int count;

    c.per_device_train_batch_size = 1; /* what fits at all fits so */
    for (; c.sequence_parallel_size <= s->options->ranks_per_node && s->count == 0;
         c.sequence_parallel_size++) {
        if (!hy3_sequence_group_divides((int)c.sequence_parallel_size, s->options->ranks,
                                        s->options->ranks_per_node))
            continue;
        keep_batch(&c, s->config);
        HY3_TRY(try_layouts(s, c));
    }
    count = s->count < LAYOUTS ? s->count : LAYOUTS;
    memcpy(first, s->best, sizeof first);
    for (int i = 0; i < count; i++)
        HY3_TRY(try_batches(s, first[i].config));
    count = s->count < LAYOUTS ? s->count : LAYOUTS;
    memcpy(first, s->best, sizeof first);
    for (int i = 0; i < count; i++)
        HY3_TRY(try_recompute(s, first[i].config));
    return HY3_OK;
}

/* Takes back every change that gains nothing: all of them together lose no more than `same`. */
static hy3_status simplify(const struct search *s, struct candidate *c)
{
    const double most = same * c->seconds;

    for (int i = 0; i < SETTINGS; i++) {
        struct candidate without = *c;
        bool fits;

        if (is_set(&c->config, s->config, (enum setting)i))
            continue;
        set(&without.config, s->config, (enum setting)i);
        HY3_TRY(weigh(s, &without, &fits));
        if (fits && without.seconds <= most)
            *c = without;
    }
    return HY3_OK;
}

/* " key=value" for each change. */
static void print_changes(const struct search *s, const struct hy3_config *c)
{
    if (!is_set(c, s->config, EXPERTS))
        printf(" expert_parallel_size=%lld", (long long)c->expert_parallel_size);
    if (!is_set(c, s->config, SEQUENCE))
        printf(" sequence_parallel_size=%lld", (long long)c->sequence_parallel_size);
    if (!is_set(c, s->config, BATCH) ||
        c->gradient_accumulation_steps != s->config->gradient_accumulation_steps)
        printf(" per_device_train_batch_size=%lld gradient_accumulation_steps=%lld",
               (long long)c->per_device_train_batch_size,
               (long long)c->gradient_accumulation_steps);
    if (!is_set(c, s->config, STAGE))
        printf(" zero_stage=%lld", (long long)c->zero_stage);
    if (!is_set(c, s->config, OFFLOAD))
        printf(" offload=%s%s", hy3_config_word(c, "offload"),
               s->config->offload_ratio < 1 ? " offload_ratio=1" : "");
    if (!is_set(c, s->config, RECOMPUTE))
        printf(" recompute=%s offload_activations=%s", hy3_config_word(c, "recompute"),
               c->offload_activations ? "true" : "false");
    if (!is_set(c, s->config, PREFETCH))
        printf(" stage3_prefetch_bucket_size=%lld", (long long)c->stage3_prefetch_bucket_size);
}

static void print_line(const struct search *s, const struct candidate *c)
{
    char size[2][HY3_SIZE_TEXT];
    double tokens =
        (double)(c->config.gradient_accumulation_steps * c->config.per_device_train_batch_size *
                 hy3_module_options_item_tokens(&c->config)) /
        (double)c->config.sequence_parallel_size;

    printf("  %.3g s per token, %.0f tokens/s per rank, device %s, node %s:",
           c->seconds / tokens / s->options->ranks, tokens / c->seconds,
           hy3_size_text(c->device, size[0]), hy3_size_text(c->node, size[1]));
    print_changes(s, &c->config);
    putchar('\n');
}

/* The fastest below the limit that differ when they are simple. */
static hy3_status choose(const struct search *s, double limit, struct candidate chosen[PRINTED],
                         int *count)
{
    for (int i = 0; i < s->count && *count < PRINTED; i++) {
        struct candidate c = s->best[i];
        bool is_new;

        if (c.seconds < limit)
            HY3_TRY(simplify(s, &c));
        is_new = c.seconds < limit;
        for (int j = 0; j < *count; j++)
            is_new = is_new && !is_same(&chosen[j].config, &c.config);
        if (is_new)
            insert(chosen, count, PRINTED, &c);
    }
    return HY3_OK;
}

hy3_status hy3_suggest_print(const struct hy3_config *config, const struct hy3_shape *shape,
                             const struct hy3_plan_options *options, const struct hy3_plan *plan)
{
    struct hy3_plan_options o = *options;
    struct search s = {.config = config, .shape = shape, .options = &o};
    bool fits = hy3_plan_fit(config, options, plan);
    double limit = fits ? hy3_plan_seconds(plan) / same : INFINITY;
    struct candidate chosen[PRINTED];
    int count = 0;

    o.trace = NULL;
    HY3_TRY(search(&s));
    printf("settings that fit%s\n", fits ? " and are faster" : "");
    HY3_TRY(choose(&s, limit, chosen, &count));
    for (int i = 0; i < count; i++)
        print_line(&s, &chosen[i]);
    if (count == 0)
        printf("  none of those that were tried\n");
    return HY3_OK;
}
