/* SPDX-License-Identifier: Apache-2.0 */
/* quantize.h - tensors of float dtypes into a store that keeps them in 8 bits: a scale for each
 * block of 128 x 128. */
#pragma once

#include "ckpt/hf/directory.h"
#include "parallel/store.h"

/* Of one rank; zero but for the store. */
struct hy3_quantizer {
    struct hy3_store *store;
    char *raw;          /* host: rows as the file has them */
    size_t capacity;    /* bytes of it */
    void *x, *codes;    /* device: these rows, and in 8 bits */
    size_t on_device;   /* elements that both have room for */
    float *seen, *kept; /* host: values of the file and of the store */
    size_t seen_capacity, kept_capacity;
    /* sums of squares of the values and of what they changed by, each element once */
    double sums[HY3_PARAM_KIND_COUNT][2];
    bool used;
};

/* Local. Puts what the store keeps of a tensor. A rank reads whole blocks, of which it may keep a
 * part. Errors: HY3_EFORMAT naming a tensor with NaN or infinity. */
hy3_status hy3_quantize_tensor(struct hy3_quantizer *quantizer, const struct hy3_shard *shard,
                               const struct hy3_shard_tensor *tensor,
                               const struct hy3_place *place);

/* Collective on `comm`, after the last tensor. Shares the scales and tells the relative error per
 * kind of tensor. */
hy3_status hy3_quantize_end(MPI_Comm comm, struct hy3_quantizer *quantizer);
void hy3_quantizer_close(struct hy3_quantizer *quantizer);
