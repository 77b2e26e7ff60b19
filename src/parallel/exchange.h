/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.h - sends rows of tokens to the ranks that hold their experts, and back.
 *
 * Every rank of an expert group has rows sorted by expert. Rank d of the group holds the experts [d
 * E/P, (d+1) E/P). The numbers of rows are exact: nothing is padded, no token is dropped. A rank
 * that would receive more rows than its workspace holds works in rounds; their number follows from
 * counts that all ranks of the group know, without another message.
 *
 * The rows that a destination receives have one order, by expert, then by source rank, then by
 * place; round q takes the q-th `capacity` of them. What a source sends in a round is then
 * consecutive in its own rows. */
#pragma once

#include "backend/backend.h"

struct hy3_exchange {
    const struct hy3_backend *backend;
    const struct hy3_group *group; /* expert group */
    int64_t experts, capacity;     /* of the model; rows received in a round */
    int64_t hidden;
    hy3_dtype dtype;
    void *arrival;             /* [capacity,hidden] device, of the caller */
    int32_t *token, *position; /* [capacity] device, of the caller */
    int64_t *blocks;           /* [3,experts] device, of the caller */
    int slots;                 /* rounds that are kept, one for each layer */
    int64_t *host;             /* HOST, pinned, see exchange.c */
    int loaded; /* the slot whose order token and position hold; -1: of none. The caller sets it */
};

/* One round: who sends how much, and how the received rows lie. HOST memory of the exchange, valid
 * until another is planned in its slot. */
struct hy3_exchange_round {
    int slot;
    const int64_t *send_first, *send_count;       /* [P] of the own rows */
    const int64_t *receive_first, *receive_count; /* [P] in order of arrival */
    const int64_t *starts;                        /* [E/P+1] received rows of each held expert */
    const int64_t *blocks; /* [3,E] rows of an expert from a rank: in order of arrival, in order of
                              experts, count; struct hy3_block_order */
};

/* Local. Fields above `host` have been set. The caller owns the exchange (hy3_exchange_close).
 * Errors: HY3_ENOMEM. */
hy3_status hy3_exchange_open(struct hy3_exchange *exchange);
void hy3_exchange_close(struct hy3_exchange *exchange);

/* Collective on the group. starts [E+1]: own rows of each expert. all [P,E] = how many rows each
 * rank has for each expert. */
void hy3_exchange_count(const struct hy3_exchange *exchange, const int64_t *starts, int64_t *all);

/* Local. Rounds that these counts take, at least one: the same on every rank of the group. *most:
 * the rows that the fullest rank receives. */
int64_t hy3_exchange_rounds(const struct hy3_exchange *exchange, const int64_t *all, int64_t *most);

/* Local. Plans round `round` of a layer in slot `slot`, whose earlier one no stream may be reading
 * any more. */
void hy3_exchange_plan(struct hy3_exchange *exchange, const int64_t *all, int slot, int64_t round,
                       struct hy3_exchange_round *out);

/* Local. The round that was planned last in this slot. */
struct hy3_exchange_round hy3_exchange_planned(const struct hy3_exchange *exchange, int slot);

/* Local. Brings the round's order to token and position; nothing to do where it is there. */
hy3_status hy3_exchange_load(struct hy3_exchange *exchange, struct hy3_stream *stream,
                             const struct hy3_exchange_round *round);

/* Collective on the group. rows [*,hidden] sorted by expert -> received [starts[E/P],hidden] sorted
 * by held expert. */
hy3_status hy3_exchange_dispatch(const struct hy3_exchange *exchange, struct hy3_stream *stream,
                                 const struct hy3_exchange_round *round, const void *rows,
                                 void *received);

/* What goes back. */
struct hy3_returned {
    const void *received;           /* [starts[E/P],hidden] sorted by held expert */
    void *rows;                     /* [*,hidden] */
    const float *received_products; /* one of each row, in order of arrival; NULL: none */
    float *products;                /* [*] */
};

/* Collective on the group. */
hy3_status hy3_exchange_return(const struct hy3_exchange *exchange, struct hy3_stream *stream,
                               const struct hy3_exchange_round *round,
                               const struct hy3_returned *returned);
