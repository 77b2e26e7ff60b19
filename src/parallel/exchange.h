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
     * many go to each rank; labels, with a product each; the label of each row */
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
};

struct hy3_exchange {
    const struct hy3_backend *backend;
    const struct hy3_group *group; /* expert group */
    int64_t experts, top_k;        /* of the model */
    int64_t capacity;              /* rows of the held experts in a round */
    int64_t hidden;
    hy3_dtype dtype;
    struct hy3_exchange_memory memory;
    int slots;     /* rounds that are kept, one for each layer */
    int64_t *host; /* HOST, pinned, see exchange.c */
    /* the slot whose labels `memory` holds, here and where the parcels go; -1: of none. The caller
     * sets it */
    int loaded;
};

/* The routed rows of a layer, as struct hy3_route_index and the router leave them. Device. */
struct hy3_exchange_source {
    int64_t T;
    const int32_t *ids, *position, *token; /* [T,k], [T,k], [T k] */
    const int64_t *starts;                 /* [E+1] */
    const float *weights;                  /* [T,k] */
};

/* How the rows of a layer travel: the same rounds on every rank of the group. */
struct hy3_exchange_way {
    int64_t rounds;         /* at least one */
    int64_t most;           /* rows that the fullest rank's experts get */
    int64_t parcels, width; /* that this rank sends, in all rounds; labels of each */
};

/* One round: who sends how much, and how the rows of the held experts lie. HOST memory of the
 * exchange, valid until another is planned in its slot. */
struct hy3_exchange_round {
    int slot;
    struct hy3_exchange_way way;
    const int64_t *send_first, *send_count;       /* [P] of the own parcels */
    const int64_t *receive_first, *receive_count; /* [P] in order of arrival */
    const int64_t *starts;                        /* [E/P+1] rows of each held expert */
    const int64_t *first;                         /* [E] struct hy3_unlabel */
};

/* Local. Lays out the memory for T tokens: of an exchange that has its group, counts and dtype. */
void hy3_exchange_take(const struct hy3_exchange *exchange, int64_t T, bool backward,
                       struct hy3_arena *arena, struct hy3_exchange_memory *memory);

/* Local. Fields above `host` have been set. The caller owns the exchange (hy3_exchange_close).
 * Errors: HY3_ENOMEM. */
hy3_status hy3_exchange_open(struct hy3_exchange *exchange);
void hy3_exchange_close(struct hy3_exchange *exchange);

/* Local. Finds the parcels of a layer's rows; `loaded` becomes -1. count: also brings their number
 * for each rank to the host, where it is once the stream has been waited for. */
hy3_status hy3_exchange_index(struct hy3_exchange *exchange, struct hy3_stream *stream,
                              const struct hy3_exchange_source *source, bool count);

/* Numbers that a rank tells the others: its rows for each expert, its parcels for each rank. */
static inline int64_t hy3_exchange_counts(const struct hy3_exchange *exchange)
{
    return exchange->experts + exchange->group->size;
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

/* Local. tokens [T,H] -> rows [parcels,H], those of all rounds. */
hy3_status hy3_exchange_pack(const struct hy3_exchange *exchange, struct hy3_stream *stream,
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
