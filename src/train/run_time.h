/* SPDX-License-Identifier: Apache-2.0 */
/* run_time.h - seconds of the steps of a run, beside those that a plan has for them. */
#pragma once

#include "app/loaded_model.h"
#include "backend/dry/rates.h"
#include "backend/profile.h"
#include "base/path.h"
#include "config/config.h"

/* Of the steps after the first, which does one-time work. */
struct hy3_run_time {
    char device[HY3_PATH_MAX]; /* whose rates these are (rates.h); "": of none; on rank 0 */
    struct hy3_rates rates;
    double micros, update;           /* seconds */
    double kinds[HY3_PROFILE_KINDS]; /* seconds by kind of operation, with `profile` */
    double tokens;                   /* of all ranks */
    int64_t steps;
};

/* Local. Reads the rates of the configuration, or of the model's device. Errors: those of
 * hy3_rates_name and hy3_rates_read. */
hy3_status hy3_run_time_open(const struct hy3_config *config, const struct hy3_loaded_model *model,
                             struct hy3_run_time *time);

/* Local. Forgets the steps. */
void hy3_run_time_restart(struct hy3_run_time *time);

/* Local, on rank 0. Logs predicted and measured seconds of a step, with `profile` by kind of
 * operation too; nothing without rates or steps. Errors: those of hy3_plan_make. */
hy3_status hy3_run_time_log(const struct hy3_config *config, const struct hy3_loaded_model *model,
                            const struct hy3_run_time *time);
