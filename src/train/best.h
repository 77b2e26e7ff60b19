/* SPDX-License-Identifier: Apache-2.0 */
/* best.h - what the evaluations of a run have shown: the best metric, how many in a row were no
 * better, and which checkpoint is the best. Kept in state.h5 (struct hy3_state_best).
 *
 * As transformers has it: the best metric is that of all evaluations (Trainer,
 * _determine_best_metric), a run ends after `patience` evaluations that do not exceed it by more
 * than a threshold (EarlyStoppingCallback). The best checkpoint is chosen among those that were
 * evaluated at their step. */
#pragma once

#include "ckpt/state/file.h"

struct hy3_best_rules {
    bool greater;     /* the highest metric is the best */
    int64_t patience; /* evaluations without an improvement that end the run; 0: never */
    double threshold; /* an improvement must be larger */
};

/* Notes the metric of an evaluation after `step`. Returns whether it is the best so far; one that
 * is not finite never is. */
bool hy3_best_note(struct hy3_state_best *best, const struct hy3_best_rules *rules, int64_t step,
                   double metric);

/* Notes that the checkpoint of `step`, whose metric this is, is there. */
void hy3_best_note_checkpoint(struct hy3_state_best *best, const struct hy3_best_rules *rules,
                              int64_t step, double metric);

/* Whether the evaluations so far end the run. */
bool hy3_best_ends_run(const struct hy3_state_best *best, const struct hy3_best_rules *rules);
