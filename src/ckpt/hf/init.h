/* SPDX-License-Identifier: Apache-2.0 */
/* init.h - writes a model of random weights as a Hugging Face directory, for the quick start,
 * tests and benchmarks.
 *
 * A weight is a function of seed, tensor and element, so the files do not depend on the number of
 * ranks. */
#pragma once

#include "base/dtype.h"
#include "ckpt/hf/names.h"

#include <mpi.h>

struct hy3_init_options {
    const char *shape;     /* file with keys of config.json; missing keys: as published */
    const char *tokenizer; /* directory whose tokenizer files are copied */
    const char *output;
    bool overwrite; /* the output directory need not be empty */
    uint64_t seed;
    enum hy3_names names;
    hy3_dtype dtype;
    int64_t max_shard_bytes;
    int64_t tokenizer_size; /* the vocabulary must be at least as large */
    int32_t bos, eos, pad;
};

/* Collective on `comm`. Matrices are normal with standard deviation initializer_range, norms one,
 * router biases zero; MTP layers are made too. Errors: HY3_EUSAGE (output not empty), HY3_EFORMAT
 * (shape), HY3_EIO. */
hy3_status hy3_init_write(MPI_Comm comm, const struct hy3_init_options *options);
