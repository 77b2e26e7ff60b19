/* SPDX-License-Identifier: Apache-2.0 */
/* deal.h - which rank and micro-batch takes which sample of a step.
 *
 * The samples of a step are given; ranks wait for each other in every layer, so a micro-batch takes
 * as long as its slowest rank, and the sum over the micro-batches of the largest cost of a rank is
 * what dealing makes small. The samples go by falling cost: as many as a micro-batch holds to the
 * first, the next to the second …, which is best where a rank takes one (longest with longest). In
 * a micro-batch each round gives every rank one more, the costliest to the rank that has least so
 * far (LPT with equal numbers: Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl.
 * Math. 17, 1969). If that is not better than the order as it is, the order stays.
 * A function of the costs alone. */
#pragma once

#include "base/error.h"

struct hy3_deal {
    int64_t batch, ranks;
    int64_t capacity; /* places, at most */
    int64_t *order;   /* [places] micro-batch by micro-batch, rank by rank: the place in the step */
    int64_t *costs;   /* [places] of each, to be filled before hy3_deal_make */
    int64_t places;   /* of the current step */
    double mean, in_order, dealt;  /* sums over the micro-batches: cost of a mean rank, of the
                                     slowest in the order as it is, and as dealt */
    struct hy3_deal_item *items;   /* [capacity] */
    struct hy3_deal_share *shares; /* [ranks] */
};

/* Local. For steps of up to `places`. The caller owns what *deal holds (hy3_deal_free), also after
 * an error. Errors: HY3_ENOMEM. */
hy3_status hy3_deal_create(int64_t places, int64_t batch, int64_t ranks, struct hy3_deal *deal);
void hy3_deal_free(struct hy3_deal *deal);

/* Deals `places` places. keeps_order: as they are. Each rank of a full micro-batch takes `batch`;
 * of the last, which may not be full, all take the same number but for one, the first ranks more.
 */
void hy3_deal_make(struct hy3_deal *deal, int64_t places, bool keeps_order);

/* Where in deal->order the places of a micro-batch of a rank stand: [*first, *end). */
void hy3_deal_find(const struct hy3_deal *deal, int64_t micro, int64_t rank, int64_t *first,
                   int64_t *end);
