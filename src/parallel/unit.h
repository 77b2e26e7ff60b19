/* SPDX-License-Identifier: Apache-2.0 */
/* unit.h - a unit in memory, for the files of the store: whole or a slice, and where what of it
 * lies. */
#pragma once

#include "backend/placement.h"
#include "parallel/layout.h"
#include "parallel/packed.h"

struct unit {
    const struct hy3_group *group, *peers; /* peers: have the same slice */
    hy3_dtype dtype;                       /* of `kept`: HY3_FP8, bytes, if it is packed */
    struct hy3_packed *packed;             /* in 8 bits; NULL: not */
    int64_t slice; /* elements of each rank's slice, a multiple of HY3_PARAM_ALIGN */
    bool divides_update, divides_grad, divides_weight;
    struct hy3_placement placement; /* of `kept` */
    char *kept;                     /* weights between steps: [slice], or whole [ranks,slice] */
    char *whole;   /* the gathered unit: `kept`, or a buffer of the pool, or NULL */
    char *image;   /* all slices of a packed unit, the same; `whole` is made of it */
    bool stale;    /* whole, but the other ranks' slices have changed */
    bool unsummed; /* over the peers, which hy3_store_finish does */
    bool arriving; /* a gather is in progress, or a copy from host memory if the group is of one */
    struct hy3_transfer gather;
    struct hy3_event *copied; /* from host memory, if the slice is there */
    float *grad;       /* summed over micro-batches: [slice], or from grad_from on; NULL: frozen */
    int64_t grad_from; /* element of the unit that grad begins with, where it is not a slice */
    size_t grad_bytes;
    float *open; /* [ranks,slice] gradient of the current backward, where only slices are kept */
};

static inline size_t weight_size(const struct unit *u)
{
    return hy3_dtype_size(u->dtype);
}

/* What a gather makes complete. */
static inline char **arrived(struct unit *u)
{
    return u->packed ? &u->image : &u->whole;
}

/* Elements of the unit with the padding that makes the slices equal. */
static inline int64_t padded(const struct unit *u)
{
    return u->slice * u->group->size;
}

/* This rank's slice, in elements of the unit. */
static inline struct hy3_span slice_of(const struct unit *u)
{
    return (struct hy3_span){u->slice * u->group->rank, u->slice};
}

/* Where the held part of a parameter begins in `kept`, and what an element takes there, both in
 * elements of the unit's dtype. */
static inline struct hy3_packed_place place_in(const struct unit *u, const struct hy3_param *p)
{
    return u->packed ? hy3_packed_place(u->packed, p) : (struct hy3_packed_place){p->offset, 1};
}

/* The elements of a parameter that lie in a span of its unit: whole ones, as all of it begins at
 * multiples of HY3_PARAM_ALIGN. */
static inline struct hy3_span held_in(const struct unit *u, struct hy3_span span,
                                      const struct hy3_param *p)
{
    struct hy3_packed_place place = place_in(u, p);

    span.first = (span.first - place.offset) / place.width + p->first;
    span.count /= place.width;
    return hy3_span_intersect(hy3_param_held(p), span);
}

/* The part of the slice that counts as this rank's: its peers have the others. */
static inline struct hy3_span share_of(const struct unit *u)
{
    struct hy3_span blocks =
        hy3_span_share(u->slice / HY3_PARAM_ALIGN, u->peers->rank, u->peers->size);

    return (struct hy3_span){slice_of(u).first + blocks.first * HY3_PARAM_ALIGN,
                             blocks.count * HY3_PARAM_ALIGN};
}
