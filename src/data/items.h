/* SPDX-License-Identifier: Apache-2.0 */
/* items.h - the items of a JSON array, or of JSON values one after the other, found without parsing
 * them: by strings and brackets alone, so that ranks can begin anywhere in a file. */
#pragma once

#include "data/item_state.h"
#include "data/portions.h"

#include <mpi.h>

/* Collective on `comm`. Sets the state at the beginning of every portion of a file of items, each
 * rank scanning those it will read; files of lines are left alone. Errors: HY3_EIO; HY3_EFORMAT,
 * where brackets or quotes do not match, the same on every rank. */
hy3_status hy3_items_locate(MPI_Comm comm, const struct hy3_source *sources,
                            struct hy3_portion *portions, int64_t count);
