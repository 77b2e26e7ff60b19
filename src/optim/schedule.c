/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.c - the five schedules of transformers. */
#include "optim/schedule.h"

#include <math.h>

static double cosine(double progress, double min_rate)
{
    double factor = 0.5 * (1.0 + cos(3.14159265358979323846 * progress));

    factor = factor * (1 - min_rate) + min_rate;
    return factor > 0 ? factor : 0;
}

double hy3_schedule_rate(const struct hy3_schedule *s, int64_t step)
{
    int64_t after = s->total_steps - s->warmup;
    double rest = (double)(after > 1 ? after : 1), done = (double)(step - s->warmup) / rest;

    if (s->type == HY3_CONSTANT)
        return s->peak;
    if (step < s->warmup)
        return s->peak * ((double)step / (double)s->warmup);
    switch (s->type) {
    case HY3_COSINE_WITH_MIN_LR:
        return s->peak * cosine(done, s->min_rate);
    case HY3_COSINE:
        return s->peak * cosine(done, 0);
    case HY3_LINEAR:
        done = (double)(s->total_steps - step) / rest;
        return s->peak * (done > 0 ? done : 0);
    case HY3_CONSTANT:
    case HY3_CONSTANT_WITH_WARMUP:
        break;
    }
    return s->peak;
}

int64_t hy3_schedule_warmup(double ratio, int64_t total_steps)
{
    return (int64_t)ceil((double)total_steps * ratio);
}
