/* SPDX-License-Identifier: Apache-2.0 */
/* convert.h - a model directory in the other layout: inner names (as published) or outer names (as
 * transformers has them). */
#pragma once

#include "ckpt/hf/plan.h"

#include <mpi.h>

struct hy3_hf_conversion {
    const char *input, *output; /* directories; the first is only read */
    struct hy3_hf_rewrite_layout layout;
    int workers; /* threads of this rank */
};

/* Collective on `comm`. Tensors keep their values and dtypes. Progress, restart and errors as in
 * hf/rewrite.h; HY3_EUSAGE if the input has these names already. */
hy3_status hy3_hf_convert(MPI_Comm comm, const struct hy3_hf_conversion *conversion);
