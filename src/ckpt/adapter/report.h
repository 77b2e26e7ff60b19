/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - what a merge did to each tensor: a line of four columns with tabs between them.
 *
 *     tensor   its name in the result
 *     change   updated: an element differs from the base's; unchanged
 *     adapter  yes: the adapter has factors for it; no
 *     error    the largest |W' - W - s B A|: what rounding to the dtype of the result took away
 *
 * An adapter's tensor that is unchanged has lost its update by rounding, or it was zero. */
#pragma once

#include "ckpt/hf/plan.h"

#include <stdio.h>

#define HY3_MERGE_REPORT "merge_report.tsv"

struct hy3_merge_change {
    double largest; /* |W' - W - s B A| */
    bool has_adapter, updated;
};

/* Local. The lines of a shard; before those of the first one a line of headings. changes:
 * [plan->count]. The caller owns *text (hy3_free). */
hy3_status hy3_merge_report_format(const struct hy3_hf_plan *plan, const struct hy3_hf_file *file,
                                   const struct hy3_merge_change *changes, char **text);

/* Local, on one rank. Sums the report in `directory` up in the log, and copies it to `out` unless
 * that is NULL. */
hy3_status hy3_merge_report_tell(const char *directory, FILE *out);
