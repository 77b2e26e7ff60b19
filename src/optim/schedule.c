/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.c - the schedules of transformers that depend on the step alone. */
#include "optim/schedule.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static double above_0(double factor)
{
    return factor > 0 ? factor : 0;
}

/* From 1 to `min` over progress 0 to 1; factor: the same from 1 to 0. */
static double raise(double factor, double min)
{
    return factor * (1 - min) + min;
}

static double cosine(double progress, double cycles)
{
    return 0.5 * (1.0 + cos(pi * cycles * 2.0 * progress));
}

static double restarts(double progress, double cycles)
{
    return progress >= 1 ? 0 : above_0(0.5 * (1.0 + cos(pi * fmod(cycles * progress, 1.0))));
}

static double polynomial(const struct hy3_schedule *s, int64_t step)
{
    double decay = (double)(s->total_steps - s->warmup);
    double remaining = 1 - (double)(step - s->warmup) / decay;

    if (step >= s->total_steps)
        return s->end / s->peak;
    return ((s->peak - s->end) * pow(remaining, s->power) + s->end) / s->peak;
}

static double inverse_sqrt(const struct hy3_schedule *s, int64_t step)
{
    int64_t scale = s->timescale > 0 ? s->timescale : s->warmup > 0 ? s->warmup : 10000;

    return 1.0 / sqrt((double)(step + scale - s->warmup) / (double)scale);
}

static double over(int64_t done, int64_t steps)
{
    return (double)done / (double)(steps > 1 ? steps : 1);
}

static double wsd_warmup(const struct hy3_schedule *s, int64_t step)
{
    double progress = over(step, s->warmup), factor = progress;

    if (s->warmup_by == HY3_RAMP_COSINE)
        factor = 0.5 * (1.0 - cos(pi * progress));
    else if (s->warmup_by == HY3_RAMP_ONE_MINUS_SQRT)
        factor = 1.0 - sqrt(1.0 - progress);
    return above_0(raise(factor, s->min_rate));
}

static double warmup_stable_decay(const struct hy3_schedule *s, int64_t step)
{
    int64_t stable = s->stable >= 0 ? s->stable : s->total_steps - s->warmup - s->decay;
    int64_t since = step - s->warmup - stable; /* the decay has begun */
    double progress = over(since, s->decay), factor = 1.0 - progress;

    if (step < s->warmup)
        return wsd_warmup(s, step);
    if (since < 0)
        return 1;
    if (since >= s->decay)
        return s->min_rate;
    if (s->decay_by == HY3_RAMP_COSINE)
        factor = cosine(progress, s->cycles);
    else if (s->decay_by == HY3_RAMP_ONE_MINUS_SQRT)
        factor = 1.0 - sqrt(progress);
    return above_0(raise(factor, s->min_rate));
}

static double cosine_warmup(const struct hy3_schedule *s, int64_t step)
{
    if (step >= s->warmup)
        return above_0(
            raise(cosine(over(step - s->warmup + 1, s->total_steps - s->warmup), s->cycles),
                  s->min_rate));
    if (s->warmup_rate < 0)
        return over(step + 1, s->warmup);
    return s->warmup_rate + (1.0 - s->warmup_rate) * over(step, s->warmup - 1);
}

/* Of the peak, after the warmup of those that have a linear one from 0. */
static double factor_after(const struct hy3_schedule *s, int64_t step)
{
    int64_t rest = s->total_steps - s->warmup;
    double done = over(step - s->warmup, rest);

    switch (s->type) {
    case HY3_COSINE_WITH_MIN_LR:
        return above_0(raise(cosine(done, s->cycles), s->min_rate));
    case HY3_COSINE:
        return above_0(cosine(done, s->cycles));
    case HY3_LINEAR:
        return above_0(over(s->total_steps - step, rest));
    case HY3_COSINE_WITH_RESTARTS:
        return restarts(done, s->cycles);
    case HY3_POLYNOMIAL:
        return polynomial(s, step);
    case HY3_INVERSE_SQRT:
        return inverse_sqrt(s, step);
    default:
        return 1;
    }
}

double hy3_schedule_rate(const struct hy3_schedule *s, int64_t step)
{
    if (s->peak <= 0 || s->type == HY3_CONSTANT)
        return s->peak;
    if (s->type == HY3_WARMUP_STABLE_DECAY)
        return s->peak * warmup_stable_decay(s, step);
    if (s->type == HY3_COSINE_WARMUP_WITH_MIN_LR)
        return s->peak * cosine_warmup(s, step);
    if (step < s->warmup)
        return s->peak * ((double)step / (double)s->warmup);
    return s->peak * factor_after(s, step);
}

int64_t hy3_schedule_warmup(double ratio, int64_t total_steps)
{
    return (int64_t)ceil((double)total_steps * ratio);
}
