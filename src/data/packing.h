/* SPDX-License-Identifier: Apache-2.0 */
/* packing.h - samples packed whole into rows of a fixed length.
 *
 * A window is HY3_PACKING_WINDOW consecutive samples of the order; each is packed for itself, so
 * the windows are packed in parallel and the result depends on the lengths alone. Within a window
 * the samples go, longest first, each into the row with the least space that still holds it: best
 * fit decreasing, at most 11/9 of the fewest rows, and 4 (Johnson, Demers, Ullman, Garey, Graham,
 * "Worst-case performance bounds for simple one-dimensional packing algorithms", SIAM J. Comput. 3,
 * 1974). The rows of a window are in the order of their first samples, and so are a row's samples,
 * so that without shuffling no sample leaves its window.
 *
 * Cost for n samples: O(n log window) time; 2 bytes a sample and 8 a row stay, 26 bytes a sample of
 * a window and thread are needed meanwhile. Measured: 0.67 us of one core for a sample, with its
 * place in the shuffled order, so 10^8 samples take 67 s of a core, spread over the threads, and
 * 0.4 GB with four samples to a row. */
#pragma once

#include "base/error.h"

enum { HY3_PACKING_WINDOW = 4096 };

struct hy3_packing {
    int64_t samples, rows;
    int64_t length;        /* that a row can hold, in tokens */
    int64_t tokens;        /* in all rows */
    int64_t fullest, most; /* tokens of the fullest row, samples of the row that has most */
    /* [samples] of each window, row by row: the place in the window; the top bit marks the last
     * sample of a row */
    uint16_t *order;
    int64_t *starts; /* [rows + 1] of order */
};

/* Tokens of the sample at a place of the order; called by several threads at once. */
typedef int64_t hy3_packing_length(const void *of, int64_t place);

/* Local. Packs the samples at the places [0, samples); none is longer than `length`. The caller
 * owns *out (hy3_packing_free). Errors: HY3_ENOMEM. */
hy3_status hy3_packing_create(int64_t samples, int64_t length, hy3_packing_length *length_of,
                              const void *of, struct hy3_packing **out);
void hy3_packing_free(struct hy3_packing *packing);

/* The place of the sample that stands at `i` (packing->starts) of the rows. */
int64_t hy3_packing_place(const struct hy3_packing *packing, int64_t i);

/* The share of the rows that samples fill. */
double hy3_packing_fill(const struct hy3_packing *packing);
