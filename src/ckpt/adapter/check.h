/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - is an adapter directory complete and sound? */
#pragma once

#include "base/error.h"

#include <stdio.h>

struct hy3_adapter_check_summary {
    int64_t tensors, findings;
    int64_t rank, matrices, layers; /* layers: that have a factor */
    double alpha;
    bool rslora;
    bool has_base;  /* its base was there, and the shapes were compared */
    char base[256]; /* what adapter_config.json says */
    int64_t zeros;  /* matrices whose B is zero */
    int64_t listed; /* files in checksums.json, 0: there is none */
};

/* Local, on one rank. Checks the configuration, every tensor's name, shape and values, and that
 * both factors of a matrix are there; shapes against the base if base_model_name_or_path is a
 * directory here; every file of checksums.json, and of the user's list (hf/checksums.h, NULL:
 * none). One line per finding to `out`. Findings are not errors. Errors: HY3_ENOMEM; those of the
 * list. */
hy3_status hy3_adapter_check(const char *directory, const char *list, FILE *out,
                             struct hy3_adapter_check_summary *summary);
