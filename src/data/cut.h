/* SPDX-License-Identifier: Apache-2.0 */
/* cut.h - the part of a micro-batch that a rank has of those that share it (base/zigzag.h).
 *
 * The samples are cut as they lie, one behind the other, not each for itself: so every rank has as
 * many tokens, however short the samples are. What a rank has of a sample is one or two segments,
 * in the order of the tokens. */
#pragma once

#include "data/batch.h"

/* Local. Memory for micro-batches of up to `samples` samples. The caller owns *cut (hy3_cut_free),
 * also after an error. Errors: HY3_ENOMEM. */
hy3_status hy3_cut_open(int parts, int64_t samples, struct hy3_cut *cut);
void hy3_cut_free(struct hy3_cut *cut);

/* Local. Of the micro-batch only part `part` stays. Its targets are those that the whole one has;
 * there must be memory for one sample more. */
void hy3_cut_batch(struct hy3_batch *batch, int part);
