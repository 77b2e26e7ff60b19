/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - parameters and gradients, unit by unit, over the ranks (ZeRO, Rajbhandari et al. 2020).
 *
 * A unit is divided over its group, the ZeRO group or (experts) the expert replicas, into equal
 * slices, rank r having the r-th:
 *     stage 0   nothing is divided: gradients are all-reduced, every rank updates everything
 *     stage 1   a rank updates its slice; gradients are reduce-scattered at the end of a step
 *     stage 2   and keeps gradients of its slice only: they are reduce-scattered after each
 *               backward of the unit
 *     stage 3   and keeps weights of its slice only: the unit is gathered before use
 * Where there are several ZeRO groups, a slice is summed over its peers at the end of a step, and
 * each of them makes the same update.
 *
 * Invariants
 *  1. Between hy3_store_gather and hy3_store_release of a unit its weights are whole on this rank.
 *  2. Gradients are summed over the micro-batches of a step and all ranks, each element once; the
 *     part that this rank updates (hy3_store_owned) is complete after hy3_store_finish.
 *  3. After an update hy3_store_updated tells the store; a divided unit is made whole again by its
 *     next gather.
 *  4. Weights are in compute precision, those of wide units (params.h), gradients and buffers in
 *     fp32. With options.packs, matrices of layers without trained tensors are kept in 8 bits.
 *     Gradients travel to their slices in grad_dtype: a bf16 copy is sent, and what comes is added
 *     to the fp32 slice.
 *  5. Every rank gathers and reduces the same units in the same order, whatever its tokens.
 * The optimizer state is optim/optimizer.h; files are ckpt/. */
#pragma once

#include "backend/placement.h"
#include "model/values.h"
#include "parallel/layout.h"
#include "parallel/packed.h"

struct hy3_store; /* opaque */

struct hy3_store_options {
    hy3_dtype dtype;      /* of the weights, but for wide units */
    hy3_dtype grad_dtype; /* in which reduce-scatters carry gradients, but for wide units */
    bool with_grads;      /* training */
    int zero_stage;
    bool whole_experts; /* stage 3 leaves experts whole (make_moe_param_leaf_module) */
    bool packs; /* frozen layers are kept in 8 bits (packed.h), and expanded when gathered */
    struct hy3_offloading offload; /* of the slices of weights at stage 3 */
    int64_t persistence;           /* stage 3 leaves units with at most this many elements whole */
    /* elements to gather before they are used, at least the next layer's; 0: none */
    int64_t prefetch;
    int64_t reuse; /* a gathered unit is kept if it is needed again within this many elements */
};

/* Bytes that the store has allocated on this rank. */
struct hy3_store_memory {
    size_t weights, grads; /* kept between steps; weights with the scales of those in 8 bits */
    size_t host;           /* the part of `weights` in host memory */
    size_t gathered;       /* buffers of gathered units; grows during the first step */
};

/* The elements of a parameter that this rank updates, their weights and gradients. */
struct hy3_owned {
    struct hy3_span span; /* count may be 0 */
    void *weight;         /* [span.count] */
    hy3_dtype dtype;      /* of the weight */
    float *grad;          /* [span.count] device; NULL: frozen */
    bool on_host;         /* the weight is in host memory, else on the device */
};

/* Collective on layout->world. `params`, `layout`, `backend` and options->offload.directory are
 * kept until hy3_store_close. All weights are zero. At stage 0 the ZeRO group must be the world.
 * Errors: HY3_ENOMEM with the requested size. */
hy3_status hy3_store_open(const struct hy3_backend *backend, const struct hy3_layout *layout,
                          const struct hy3_params *params, const struct hy3_store_options *options,
                          struct hy3_store **out);
void hy3_store_close(struct hy3_store *store);

const struct hy3_backend *hy3_store_backend(const struct hy3_store *store);
const struct hy3_params *hy3_store_params(const struct hy3_store *store);
const struct hy3_layout *hy3_store_layout(const struct hy3_store *store);

/* Compute precision; and what a parameter is kept in. */
hy3_dtype hy3_store_dtype(const struct hy3_store *store);
hy3_dtype hy3_store_dtype_of(const struct hy3_store *store, const struct hy3_param *param);
struct hy3_store_memory hy3_store_memory(const struct hy3_store *store);

/* Local. Sets the order in which a pass will gather the units; prefetch and reuse follow it.
 * `order` is kept until the next call; count 0: unknown. */
void hy3_store_schedule(struct hy3_store *store, const int *order, int count);

/* Collective. Makes the unit whole on this rank; release says that it is not needed until its next
 * place in the schedule. */
hy3_status hy3_store_gather(struct hy3_store *store, struct hy3_stream *stream, int unit);
void hy3_store_release(struct hy3_store *store, int unit);

/* Local. Device address of the held part of a parameter; the unit must be gathered (buffers always
 * are). */
const void *hy3_store_weight(const struct hy3_store *store, const struct hy3_param *param);

/* Local. Provides the buffer for the gradient of a unit whose backward begins; zeroed where only
 * slices are kept. */
hy3_status hy3_store_open_grads(struct hy3_store *store, struct hy3_stream *stream, int unit);

/* Local. Device address of the fp32 gradient of the held part, between hy3_store_open_grads and
 * hy3_store_reduce; NULL if it is frozen, the store has no gradients, or there is no buffer. */
float *hy3_store_grad(const struct hy3_store *store, const struct hy3_param *param);

/* Local. Sets all gradients to zero, at the start of a step. */
hy3_status hy3_store_zero_grads(struct hy3_store *store, struct hy3_stream *stream);

/* Collective. Called when the unit's backward of a micro-batch is done; last: of the last
 * micro-batch of the step. Starts the sum over ranks if the stage needs it now. */
hy3_status hy3_store_reduce(struct hy3_store *store, struct hy3_stream *stream, int unit,
                            bool last);

/* Collective. Completes all sums that were started. */
hy3_status hy3_store_finish(struct hy3_store *store, struct hy3_stream *stream);

/* Local. What this rank owns, that is updates, of a parameter of a unit. */
struct hy3_owned hy3_store_owned(const struct hy3_store *store, const struct hy3_param *param);

/* Local. Called after an update of the owned weights of all trained units. */
void hy3_store_updated(struct hy3_store *store);

/* Local. Copies elements of the whole flattened tensor between the store and host memory, as far as
 * this rank keeps them (hy3_store_kept): others are ignored by put, left untouched by get. put
 * converts from `dtype`, and where nothing is to be converted takes device memory, too; get gives
 * fp32 from the compute weights. Weights in 8 bits are put as codes (HY3_FP8), or rounded to codes
 * by the scales that they have. For files, not for the step loop. Synchronises. */
hy3_status hy3_store_put(struct hy3_store *store, const struct hy3_param *param,
                         struct hy3_span span, const void *data, hy3_dtype dtype);
hy3_status hy3_store_get(const struct hy3_store *store, const struct hy3_param *param,
                         struct hy3_span span, float *data);

/* Local. Where this rank keeps element `i` of a parameter: one of hy3_store_kept. */
char *hy3_store_address(const struct hy3_store *store, const struct hy3_param *param, int64_t i);

/* Local. The elements that this rank keeps between steps. */
struct hy3_span hy3_store_kept(const struct hy3_store *store, const struct hy3_param *param);

/* Local. The elements that fall to this rank where each counts once: in a file, in a norm. They lie
 * within what the rank owns; those of all ranks cover each tensor exactly once. */
struct hy3_span hy3_store_share(const struct hy3_store *store, const struct hy3_param *param);

/* Local. Where the parameter is kept in 8 bits, its unit; else NULL. */
struct hy3_packed *hy3_store_packed(const struct hy3_store *store, const struct hy3_param *param);

/* Collective. After ranks have quantized what they keep of units: all get all scales. */
hy3_status hy3_store_share_scales(struct hy3_store *store);

/* The weights by the functions above, as field HY3_MASTER. */
struct hy3_values hy3_store_values(struct hy3_store *store);
