/* SPDX-License-Identifier: Apache-2.0 */
/* export.h - a training checkpoint as a Hugging Face directory. */
#pragma once

#include "base/error.h"

#include <mpi.h>

struct hy3_export {
    const char *checkpoint; /* checkpoint-N of a run */
    const char *output;     /* new or empty directory */
    const char *base;       /* the model that was trained; NULL: the run's model_name_or_path */
    int names;              /* enum hy3_names; -1: as the base */
    int dtype;              /* hy3_dtype; -1: the run's compute precision */
    int64_t max_shard_bytes;
};

/* Collective on `comm`. All ranks write. Trained tensors come from the checkpoint's fp32 masters,
 * frozen ones, router biases and MTP layers from the base; a checkpoint of an adapter gives an
 * adapter directory. All of state.h5 is checked first. Needs about 100 MiB for any size of
 * model. Errors: HY3_EUSAGE, HY3_EFORMAT, HY3_EIO. */
hy3_status hy3_export(MPI_Comm comm, const struct hy3_export *options);
