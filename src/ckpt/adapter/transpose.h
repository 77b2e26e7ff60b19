/* SPDX-License-Identifier: Apache-2.0 */
/* transpose.h - fused factors of an adapter from our order to that of the file, over the ranks.
 *
 * The B factor of fused experts is [E,out,rank] for us and [out,rank,E] in PEFT's file: what is
 * consecutive on a rank lies scattered in the file. So the ranks exchange it before writing: each
 * gets its rows of the file, all E values of some (out, rank). */
#pragma once

#include "model/values.h"

#include <mpi.h>

/* Whether the elements of a factor have another order in the file. */
static inline bool hy3_transpose_needed(const struct hy3_param *param)
{
    return param->dims == 3 && param->part == HY3_LORA_B;
}

/* The rows of the out*rank rows that a rank gets. */
struct hy3_span hy3_transpose_share(const struct hy3_param *param, int rank, int ranks);

/* Collective on `comm`. Of `values` what they share; rows [count,E]: this rank's rows of the file.
 * The caller owns *rows. Needs twice the tensor's bytes over the ranks while it works. */
hy3_status hy3_transpose(MPI_Comm comm, const struct hy3_param *param, struct hy3_values values,
                         float **rows);
