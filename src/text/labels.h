/* SPDX-License-Identifier: Apache-2.0 */
/* labels.h - which tokens of a rendered conversation are learned. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The largest weight of a label's loss; 0: no label. */
enum { HY3_WEIGHT_MAX = 100 };

/* mask[i] = 1 where token i is a label: each assistant token is paired with the eos of the same
 * ordinal; what follows the assistant token up to and including that eos is learned, pad tokens
 * inside as well. Works on the whole sample, before truncation. Returns the number of labels. */
size_t hy3_labels_mark(const int32_t *ids, size_t count, int32_t assistant, int32_t eos,
                       uint8_t *mask);
