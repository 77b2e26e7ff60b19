/* SPDX-License-Identifier: Apache-2.0 */
/* profile.c - one timing wrapper per operation, made from the list of operations. */
#include "backend/profile.h"

#include "base/log.h"

#include <stdlib.h>

/* clang-format off */
enum {
#define X(op) AT_##op,
    HY3_OPS(X)
#undef X
#define X(op) AT_##op##_forward, AT_##op##_backward,
    HY3_PAIRS(X)
#undef X
    AT_COPY, AT_ZERO, AT_FINISH, AT_ALL_TO_ALL, OPERATIONS
};

static const char *const names[OPERATIONS] = {
#define X(op) [AT_##op] = #op,
    HY3_OPS(X)
#undef X
#define X(op) [AT_##op##_forward] = #op " forward", [AT_##op##_backward] = #op " backward",
    HY3_PAIRS(X)
#undef X
    [AT_COPY] = "copy",
    [AT_ZERO] = "zero",
    [AT_FINISH] = "gather, reduce-scatter: waiting",
    [AT_ALL_TO_ALL] = "all-to-all",
};

/* clang-format on */

/* One around a run's backend, and one around that of a plan that is made meanwhile. */
static struct level {
    const struct hy3_backend *inner;
    struct hy3_backend outer;
    double (*clock)(void);
    double since, grouped_weights;

    struct total {
        int number;
        int64_t calls;
        double seconds, flops, bytes;
    } totals[OPERATIONS];
} levels[2], *profile; /* NULL: none */

static double begin(struct hy3_stream *stream)
{
    (void)profile->inner->device.synchronize(stream); /* the call itself reports the error */
    return profile->clock();
}

static hy3_status end(struct hy3_stream *stream, int number, double began, hy3_status status)
{
    struct total *total = &profile->totals[number];

    if (status == HY3_OK)
        status = profile->inner->device.synchronize(stream);
    total->calls++;
    total->seconds += profile->clock() - began;
    return status;
}

#define WRAP(op, type)                                                                     \
    static hy3_status timed_##op(struct hy3_stream *stream, const struct hy3_##type *args) \
    {                                                                                      \
        double began = begin(stream);                                                      \
                                                                                           \
        return end(stream, AT_##op, began, profile->inner->kernels.op(stream, args));      \
    }
#define X(op) WRAP(op, op)
HY3_OPS(X)
#undef X
#define X(op)              \
    WRAP(op##_forward, op) \
    WRAP(op##_backward, op)
HY3_PAIRS(X)
#undef X

static hy3_status counted_gemm(struct hy3_stream *stream, const struct hy3_gemm *a)
{
    profile->totals[AT_gemm].flops += 2.0 * (double)a->M * (double)a->N * (double)a->K;
    return timed_gemm(stream, a);
}

static hy3_status counted_grouped_gemm(struct hy3_stream *stream, const struct hy3_grouped_gemm *a)
{
    struct total *total = &profile->totals[AT_grouped_gemm];
    double before = total->seconds;
    hy3_status status;

    total->flops += 2.0 * (double)a->starts[a->groups] * (double)a->N *
                    (double)(a->form == HY3_TN ? a->M : a->K);
    status = timed_grouped_gemm(stream, a);
    if (a->form == HY3_TN)
        profile->grouped_weights += total->seconds - before;
    return status;
}

/* Of one product of [queries, D] with the keys each of them sees. */
static double attention_flops(const struct hy3_attention *a)
{
    double pairs = 0;

    for (int64_t s = 0; s < a->S; s++) {
        double queries = (double)(a->q_starts[s + 1] - a->q_starts[s]);
        double keys = (double)(a->kv_end[s] - a->kv_first[s]);

        pairs += queries * (keys - (queries - 1) / 2);
    }
    return 2 * pairs * (double)a->Q * (double)a->D;
}

static hy3_status counted_attention_forward(struct hy3_stream *stream,
                                            const struct hy3_attention *a)
{
    profile->totals[AT_attention_forward].flops += 2 * attention_flops(a);
    return timed_attention_forward(stream, a);
}

static hy3_status counted_attention_backward(struct hy3_stream *stream,
                                             const struct hy3_attention *a)
{
    profile->totals[AT_attention_backward].flops += 5 * attention_flops(a);
    return timed_attention_backward(stream, a);
}

static hy3_status timed_copy(struct hy3_stream *stream, void *to, const void *from, size_t bytes)
{
    double began = begin(stream);

    profile->totals[AT_COPY].bytes += (double)bytes;
    return end(stream, AT_COPY, began, profile->inner->device.copy(stream, to, from, bytes));
}

static hy3_status timed_zero(struct hy3_stream *stream, void *memory, size_t bytes)
{
    double began = begin(stream);

    profile->totals[AT_ZERO].bytes += (double)bytes;
    return end(stream, AT_ZERO, began, profile->inner->device.zero(stream, memory, bytes));
}

static hy3_status timed_finish(struct hy3_stream *stream, struct hy3_transfer *transfer,
                               const char *phase)
{
    double began = begin(stream);

    return end(stream, AT_FINISH, began,
               profile->inner->collectives.finish(stream, transfer, phase));
}

static hy3_status timed_all_to_all(struct hy3_stream *stream, const struct hy3_group *group,
                                   const struct hy3_all_to_all *rows, const char *phase)
{
    double began = begin(stream);

    return end(stream, AT_ALL_TO_ALL, began,
               profile->inner->collectives.all_to_all(stream, group, rows, phase));
}

const struct hy3_backend *hy3_profile_begin(const struct hy3_backend *backend,
                                            double (*clock)(void))
{
    struct hy3_backend *outer;

    profile = profile ? profile + 1 : levels;
    if (profile == levels + sizeof levels / sizeof *levels)
        HY3_BUG("a profile within that of a plan");
    outer = &profile->outer;
    profile->inner = backend;
    profile->clock = clock;
    *outer = *backend;
#define X(op) outer->kernels.op = timed_##op;
    HY3_OPS(X)
#undef X
#define X(op)                                           \
    outer->kernels.op##_forward = timed_##op##_forward; \
    outer->kernels.op##_backward = timed_##op##_backward;
    HY3_PAIRS(X)
#undef X
    outer->kernels.gemm = counted_gemm;
    outer->kernels.grouped_gemm = counted_grouped_gemm;
    outer->kernels.attention_forward = counted_attention_forward;
    outer->kernels.attention_backward = counted_attention_backward;
    outer->device.copy = timed_copy;
    outer->device.zero = timed_zero;
    outer->collectives.finish = timed_finish;
    outer->collectives.all_to_all = timed_all_to_all;
    hy3_profile_reset();
    return outer;
}

void hy3_profile_end(void)
{
    profile = profile == levels ? NULL : profile - 1;
}

void hy3_profile_reset(void)
{
    if (!profile)
        return;
    profile->since = profile->clock();
    profile->grouped_weights = 0;
    for (int i = 0; i < OPERATIONS; i++)
        profile->totals[i] = (struct total){.number = i};
}

static enum hy3_profile_kind kind_of(int number)
{
    switch (number) {
    case AT_gemm:
        return HY3_PROFILE_PRODUCTS;
    case AT_grouped_gemm:
        return HY3_PROFILE_GROUPED;
    case AT_attention_forward:
        return HY3_PROFILE_ATTENTION_FORWARD;
    case AT_attention_backward:
        return HY3_PROFILE_ATTENTION_BACKWARD;
    case AT_adamw:
        return HY3_PROFILE_ADAMW;
    case AT_COPY:
        return HY3_PROFILE_COPIES;
    case AT_FINISH:
        return HY3_PROFILE_SUMS;
    case AT_ALL_TO_ALL:
        return HY3_PROFILE_EXCHANGE;
    default:
        return HY3_PROFILE_ELEMENTWISE;
    }
}

void hy3_profile_seconds(double kinds[HY3_PROFILE_KINDS])
{
    memset(kinds, 0, HY3_PROFILE_KINDS * sizeof *kinds);
    for (int i = 0; i < OPERATIONS; i++)
        kinds[kind_of(i)] += profile->totals[i].seconds;
    kinds[HY3_PROFILE_GROUPED] -= profile->grouped_weights;
    kinds[HY3_PROFILE_GROUPED_WEIGHTS] = profile->grouped_weights;
}

static int longest_first(const void *a, const void *b)
{
    const struct total *x = a, *y = b;

    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

void hy3_profile_log(void)
{
    double all, rest;

    if (!profile)
        return;
    all = rest = profile->clock() - profile->since;
    qsort(profile->totals, OPERATIONS, sizeof *profile->totals, longest_first);
    for (int i = 0; i < OPERATIONS && profile->totals[i].calls > 0; i++) {
        const struct total *t = &profile->totals[i];
        char rate[64] = "";

        rest -= t->seconds;
        if (t->flops > 0)
            snprintf(rate, sizeof rate, "%9.2f TFLOP/s", 1e-12 * t->flops / t->seconds);
        else if (t->bytes > 0)
            snprintf(rate, sizeof rate, "%9.2f GB/s", 1e-9 * t->bytes / t->seconds);
        hy3_log(HY3_LOG_INFO, "profile: %-32s %9lld calls %10.4f s %5.1f %%%s", names[t->number],
                (long long)t->calls, t->seconds, 100 * t->seconds / all, rate);
    }
    hy3_log(HY3_LOG_INFO, "profile: %-32s %9s       %10.4f s %5.1f %%", "everything else", "", rest,
            100 * rest / all);
    hy3_profile_reset();
}
