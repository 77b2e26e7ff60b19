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
};

struct hy3_schedule {
    enum hy3_schedule_type type;
    double peak;     /* learning_rate */
    double min_rate; /* of the peak; cosine_with_min_lr */
    int64_t warmup;  /* steps */
    int64_t total_steps;
};

/* The rate that step `step` (from 0) applies. Source: transformers/optimization.py,
 * get_*_schedule_*. */
double hy3_schedule_rate(const struct hy3_schedule *schedule, int64_t step);

/* Warm-up steps of a ratio: ceil(ratio * total). */
int64_t hy3_schedule_warmup(double ratio, int64_t total_steps);
