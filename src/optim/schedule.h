/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.h - learning rate as a pure function of the step. */
#pragma once

#include <stdint.h>

enum hy3_schedule_type {
    HY3_COSINE_WITH_MIN_LR,
    HY3_COSINE,
    HY3_LINEAR,
    HY3_CONSTANT,
    HY3_CONSTANT_WITH_WARMUP,
    HY3_COSINE_WITH_RESTARTS,
    HY3_POLYNOMIAL,
    HY3_INVERSE_SQRT,
    HY3_WARMUP_STABLE_DECAY,
    HY3_COSINE_WARMUP_WITH_MIN_LR,
};

/* How the warmup and the decay of warmup_stable_decay run. */
enum hy3_ramp { HY3_RAMP_LINEAR, HY3_RAMP_COSINE, HY3_RAMP_ONE_MINUS_SQRT };

struct hy3_schedule {
    enum hy3_schedule_type type;
    double peak;     /* learning_rate */
    double min_rate; /* of the peak; cosine_with_min_lr, cosine_warmup_with_min_lr, and as
                        min_lr_ratio warmup_stable_decay */
    int64_t warmup;  /* steps */
    int64_t total_steps;
    double cycles;                     /* of the cosines: 0.5 is the way down once; of
                                         cosine_with_restarts: the number of ways down */
    double end, power;                 /* polynomial; end: a learning rate */
    int64_t timescale;                 /* steps, of inverse_sqrt; 0: warmup, or 10000 without */
    int64_t stable, decay;             /* steps, of warmup_stable_decay; stable < 0: the rest */
    enum hy3_ramp warmup_by, decay_by; /* of warmup_stable_decay */
    double warmup_rate; /* of the peak, of the first step of cosine_warmup_with_min_lr; negative:
                           1 / warmup */
};

/* The rate that step `step` (from 0) applies. Source: transformers/optimization.py,
 * get_*_schedule*. */
double hy3_schedule_rate(const struct hy3_schedule *schedule, int64_t step);

/* Warm-up steps of a ratio: ceil(ratio * total). */
int64_t hy3_schedule_warmup(double ratio, int64_t total_steps);
