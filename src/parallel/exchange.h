/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.h - sends rows of tokens to the ranks that hold their experts, and back.
 *
 * Rank d of an expert group holds the experts [d E/P, (d+1) E/P). A token travels to a rank once,
 * as a parcel: its row, with a label (struct hy3_row_label) for each of its experts there. The
 * receiver copies it to the rows of these experts; what comes back is one row a parcel, the sum of
 * what the experts made of it. The numbers of rows are exact: nothing is padded, no token is
 * dropped. A rank whose experts would get more rows than its workspace holds works in rounds; their
 * number follows from counts that all ranks of the group know, without another message. In rounds
 * each row of an expert is a parcel of its own.
 *
 * Over nodes a token may cross the network once for each node (near, across): it goes to the rank
 * with the sender's place in that node, which passes it on to the ranks of the node as above, and
 * sums what they return. A layer whose rows would not fit a rank that passes them on, or need
 * rounds, goes straight.
 *
 * The rows of a destination's experts have one order, by expert, then by source rank, then by
 * token; round q takes the q-th `capacity` of them. What a source sends in a round is then
 * consecutive in its own rows. */
#pragma once

#include "backend/backend.h"
#include "base/arena.h"

/* Of a layer of T tokens. Device, of the caller; see hy3_exchange_take. */
struct hy3_exchange_memory {
    void *arrival; /* [capacity,H] */
    /* of the sender: parcels, -1 where a token's expert is in the one before; their tokens; how
     * many go to each rank or node; labels, with a product each; the label of each row */
    int32_t *parcel, *token;      /* [T,k], [parcels] */
    int64_t *starts;              /* [P+1] */
    struct hy3_row_label *labels; /* [parcels,width] */
    float *products;              /* [parcels,width] of a backward */
    int32_t *slot;                /* [T,k] */
    /* of the receiver, of parcels that came: labels, with a product each; the parcel and the label
     * of each row of an expert; struct hy3_unlabel */
    struct hy3_row_label *came;    /* [N,width] */
    float *came_products;          /* [N,width] of a backward */
    int32_t *row_token, *row_slot; /* [capacity] */
    int32_t *position;             /* [N,width] */
    float *weights;                /* [N,width] */
    int64_t *first;                /* [E] of each block */

    /* of the rank that passes parcels on inside its node: what came, with its parcels for the ranks
     * of the node, and what is sent to these, as above */
    struct hy3_relay {
        struct hy3_row_label *came, *labels; /* [N,k], [parcels,width] */
        int32_t *parcel, *token, *slot;      /* [N,k], [parcels], [N,k] */
        int64_t *starts;                     /* [ranks of the node + 1] */
        float *came_products, *products;     /* [N,k], [parcels,width] of a backward */
    } relay;
};

struct hy3_exchange {
    const struct hy3_backend *backend;
    const struct hy3_group *group; /* expert group */
    /* where tokens cross the network once for each node: its ranks in the own node, and those with
     * the same place in the other nodes; NULL: every token goes straight to its ranks */
    const struct hy3_group *near, *across;
    int64_t experts, top_k; /* of the model */
    int64_t capacity;       /* rows of the held experts in a round */
    int64_t hidden;
    hy3_dtype dtype;
    struct hy3_exchange_memory memory;
    void *spare;   /* [capacity,H] device, of the caller, where `near` is: free while rows travel */
    int slots;     /* rounds that are kept, one for each layer */
    int64_t *host; /* HOST, pinned, see exchange_plan.c */
    int64_t *own;  /* HOST, in it: where own parcels for each rank begin [P+1], for each node */
    /* the slot whose labels `memory` holds, here and where the parcels go; -1: of none. The caller
     * sets it */
    int loaded;
    int64_t owner; /* experts of an owner for which `memory` holds parcels; 0: none */
};

/* The routed rows of a layer, as struct hy3_route_index and the router leave them. Device. */
struct hy3_exchange_source {
    int64_t T;
    const int32_t *ids, *position, *token; /* [T,k], [T,k], [T k] */
    const int64_t *starts;                 /* [E+1] */
    const float *weights;                  /* [T,k] */
};

/* How the rows of a layer travel: the same on every rank of the group, but for its own numbers. */
struct hy3_exchange_way {
    int64_t rounds;         /* at least one */
    bool relayed;           /* by a rank of each node */
    int64_t most;           /* rows that the fullest rank's experts get */
    int64_t parcels, width; /* that this rank sends, in all rounds; labels of each */
};

/* Who sends how much. HOST [ranks of the leg's group] */
struct hy3_exchange_leg {
    const struct hy3_group *group;
    const int64_t *send_first, *send_count;       /* of the own parcels */
    const int64_t *receive_first, *receive_count; /* in order of arrival */
};

/* One round, and how the rows of the held experts lie. HOST memory of the exchange, valid until
 * another is planned in its slot. */
struct hy3_exchange_round {
    int slot;
    struct hy3_exchange_way way;
    struct hy3_exchange_leg to_node; /* where relayed */
    struct hy3_exchange_leg to_rank; /* of the whole group, or, where relayed, of the node */
    const int64_t *starts;           /* [E/P+1] rows of each held expert */
    const int64_t *first;            /* [E] struct hy3_unlabel */
};

/* Experts of each rank. */
static inline int64_t hy3_exchange_held(const struct hy3_exchange *exchange)
{
    return exchange->experts / exchange->group->size;
}

/* Labels that a token's parcel for the owner of so many experts has at most. */
static inline int64_t hy3_exchange_width(const struct hy3_exchange *exchange, int64_t owner)
{
    return owner < exchange->top_k ? owner : exchange->top_k;
}

/* Experts of each node; of a rank where tokens go straight. */
static inline int64_t hy3_exchange_of_node(const struct hy3_exchange *exchange)
{
    return hy3_exchange_held(exchange) * (exchange->near ? exchange->near->size : 1);
}

/* Rows that come, or go, in a leg of `ranks` ranks. */
static inline int64_t hy3_exchange_sum(const int64_t *first, const int64_t *count, int ranks)
{
    return first[ranks - 1] + count[ranks - 1];
}

/* Local. Lays out the memory for T tokens: of an exchange that has its group, counts and dtype. */
void hy3_exchange_take(const struct hy3_exchange *exchange, int64_t T, bool backward,
                       struct hy3_arena *arena, struct hy3_exchange_memory *memory);

/* Local. Fields above `host` have been set. The caller owns the exchange (hy3_exchange_close).
 * Errors: HY3_ENOMEM. */
hy3_status hy3_exchange_open(struct hy3_exchange *exchange);
void hy3_exchange_close(struct hy3_exchange *exchange);

/* Local. Begins a layer, of which `memory` then holds nothing. count: brings the numbers of its
 * parcels for each rank, and for each node, to the host, where they are once the stream has been
 * waited for. */
hy3_status hy3_exchange_index(struct hy3_exchange *exchange, struct hy3_stream *stream,
                              const struct hy3_exchange_source *source, bool count);

/* Numbers that a rank tells the others: its rows for each expert, its parcels for each rank and for
 * each node. */
static inline int64_t hy3_exchange_counts(const struct hy3_exchange *exchange)
{
    return exchange->experts + exchange->group->size +
           (exchange->across ? exchange->across->size : 0);
}

/* Collective on the group, after hy3_exchange_index. starts [E+1] HOST: own rows of each expert.
 * all [P,counts]: the numbers of every rank. */
void hy3_exchange_count(const struct hy3_exchange *exchange, const int64_t *starts, int64_t *all);

/* Local. */
struct hy3_exchange_way hy3_exchange_way(const struct hy3_exchange *exchange, const int64_t *all);

/* Local. Plans round `round` of a layer in slot `slot`, whose earlier one no stream may be reading
 * any more. */
void hy3_exchange_plan(struct hy3_exchange *exchange, const int64_t *all, int slot, int64_t round,
                       struct hy3_exchange_round *out);

/* Local. The round that was planned last in this slot, of a layer with these counts. */
struct hy3_exchange_round hy3_exchange_planned(const struct hy3_exchange *exchange,
                                               const int64_t *all, int slot);

/* Labels that come in a round. */
int64_t hy3_exchange_places(const struct hy3_exchange *exchange,
                            const struct hy3_exchange_round *round);

/* Local. Finds the parcels, unless they are known; tokens [T,H] -> rows [parcels,H], those of all
 * rounds. */
hy3_status hy3_exchange_pack(struct hy3_exchange *exchange, struct hy3_stream *stream,
                             const struct hy3_exchange_source *source,
                             const struct hy3_exchange_way *way, const void *tokens, void *rows);

/* Collective on the group. rows [parcels,H] -> received [starts[E/P],H] sorted by held expert;
 * weighted: each times the weight of its label. Where the slot is not loaded, it is. */
hy3_status hy3_exchange_dispatch(struct hy3_exchange *exchange, struct hy3_stream *stream,
                                 const struct hy3_exchange_source *source,
                                 const struct hy3_exchange_round *round, const void *rows,
                                 bool weighted, void *received);

/* Collective on the group. received [starts[E/P],H] sorted by held expert -> rows [parcels,H]: of
 * each parcel the sum, in the order of experts; weighted: each times the weight of its label. Else
 * also memory.came_products -> memory.products. */
hy3_status hy3_exchange_return(const struct hy3_exchange *exchange, struct hy3_stream *stream,
                               const struct hy3_exchange_round *round, const void *received,
                               bool weighted, void *rows);
