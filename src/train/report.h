/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - what a run reports: train_log.jsonl, progress, loss.png. By rank 0 only; on the other
 * ranks the functions do nothing. */
#pragma once

#include "base/error.h"

struct hy3_report; /* opaque */

struct hy3_report_step {
    int64_t step; /* from 1 */
    double epoch; /* epochs done after this step */
    double loss, grad_norm, learning_rate;
    int64_t step_tokens; /* tokens of this step over all ranks */
    bool has_eval;
    double eval_loss;
};

/* The counts that a resumed run starts from; all zero: a new run. */
struct hy3_report_state {
    int64_t step;    /* steps done */
    int64_t tokens;  /* trained */
    double elapsed;  /* seconds of training */
    double loss_sum; /* since the last line of the log */
    int64_t loss_steps, tokens_since;
};

/* Local. Starts a new output_dir/train_log.jsonl, or keeps its lines up to from->step. every:
 * logging_steps. The caller owns *out (hy3_report_close). */
hy3_status hy3_report_open(const char *output_dir, int64_t total_steps, int64_t every, bool writes,
                           const struct hy3_report_state *from, struct hy3_report **out);
void hy3_report_close(struct hy3_report *report);

/* Local. One step is done: moves the progress line; on every `every`-th step, the last, and one
 * with an evaluation writes a line to the log. loss is the mean over the steps since the line
 * before, as in transformers' Trainer. */
hy3_status hy3_report_step(struct hy3_report *report, const struct hy3_report_step *step);

/* Local. An evaluation of the step that the run goes on from, which had been cut short: a line of
 * its own, with step, epoch and eval_loss. */
hy3_status hy3_report_evaluation(struct hy3_report *report, double epoch, double eval_loss);

/* Local. Draws output_dir/loss.png with gnuplot from what was logged. Without gnuplot: one
 * warning. */
void hy3_report_plot(const struct hy3_report *report);

/* The counts that a resumed run starts from. */
struct hy3_report_state hy3_report_state(const struct hy3_report *report);

/* Mean tokens per second of the steps so far. */
double hy3_report_rate(const struct hy3_report *report);
