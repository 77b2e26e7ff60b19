/* store.h - parameters and gradients, unit by unit, over the ranks.
 *
 * Invariants
 *  1. Between hy3_store_gather and hy3_store_release of a unit its weights are whole on this rank.
 *  2. Gradients add up over the micro-batches of a step; hy3_store_reduce makes a unit's gradient the sum
 *     over all ranks. A step reads a gradient only after that.
 *  3. A rank updates its slice only: [first, first + count) of the flat unit. At stage 0 that is all of it.
 *  4. Weights are in compute precision, gradients and buffers in fp32; all in device memory.
 * The optimizer state of a slice is optim/optimizer.h; files are ckpt/. */
#ifndef HY3_PARALLEL_STORE_H
#define HY3_PARALLEL_STORE_H

#include "backend/backend.h"
#include "model/params.h"
#include "parallel/layout.h"

struct hy3_store; /* opaque */

struct hy3_slice {
    int64_t first, count; /* elements of the flat unit */
    void *weight;         /* [count] compute precision */
    float *
        grad; /* gradient of the unit's elements from grad_first on [grad_count]; NULL: none is trained */
};

/* Collective on layout->world. `params`, `layout` and `backend` are kept until hy3_store_close. with_grads: false for
 * inference. All weights are zero. Errors: HY3_ENOMEM with the size that was wanted. */
hy3_status hy3_store_open(const struct hy3_backend *backend, const struct hy3_layout *layout,
                          const struct hy3_params *params, hy3_dtype dtype, bool with_grads,
                          struct hy3_store **out);
void hy3_store_close(struct hy3_store *store);

const struct hy3_params *hy3_store_params(const struct hy3_store *store);
hy3_dtype hy3_store_dtype(const struct hy3_store *store);

/* Collective. Makes the unit whole on this rank; release says it is not needed for a while. */
hy3_status hy3_store_gather(struct hy3_store *store, struct hy3_stream *stream, int unit);
void hy3_store_release(struct hy3_store *store, int unit);

/* Local. Device address of the held part of a parameter; the unit must be gathered (buffers always are). */
const void *hy3_store_weight(const struct hy3_store *store, const struct hy3_param *param);

/* Local. Device address of its fp32 gradient, NULL if it is frozen or the store has no gradients. */
float *hy3_store_grad(const struct hy3_store *store, const struct hy3_param *param);

/* Local. Sets all gradients to zero, at the start of a step. */
hy3_status hy3_store_zero_grads(struct hy3_store *store, struct hy3_stream *stream);

/* Collective. The unit's backward of this step's last micro-batch has ended: sums its gradient over ranks. */
hy3_status hy3_store_reduce(struct hy3_store *store, struct hy3_stream *stream, int unit);

/* Local. This rank's slice of a unit. */
struct hy3_slice hy3_store_slice(const struct hy3_store *store, int unit);

/* Local. Copies elements [first, first + count) of the whole flattened tensor between the store and host
 * memory, as far as this rank holds them (others are ignored by put, left untouched by get). put converts from `dtype`;
 * get gives fp32 from the compute weights. For files, not for the step loop. Synchronises. */
hy3_status hy3_store_put(struct hy3_store *store, const struct hy3_param *param, int64_t first,
                         int64_t count, const void *data, hy3_dtype dtype);
hy3_status hy3_store_get(const struct hy3_store *store, const struct hy3_param *param,
                         int64_t first, int64_t count, float *data);

/* The largest range [*first, *first + *count) of the flattened tensor whose writing to a file falls to this rank: the ranges
 * of all ranks cover each tensor exactly once. */
void hy3_store_share(const struct hy3_store *store, const struct hy3_param *param, int64_t *first,
                     int64_t *count);

#endif
