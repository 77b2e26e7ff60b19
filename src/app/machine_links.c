/* SPDX-License-Identifier: Apache-2.0 */
/* machine_links.c - transfers of a large and of a small tensor. */
#include "app/machine.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "parallel/layout.h"

enum { LARGE = 1 << 22, SMALL = 1 << 8, TIMES = 10 }; /* elements of all parts, and of a part */

static const char phase[] = "measuring the links";

struct transfer {
    const struct hy3_backend *backend;
    const struct hy3_group *group;
    int64_t part; /* elements */
    float *whole, *other;
    int64_t *first, *count; /* [size] of an exchange */
};

typedef hy3_status transfer_kind(const struct transfer *);

static hy3_status gather(const struct transfer *t)
{
    struct hy3_transfer transfer = {0};

    HY3_TRY(
        t->backend->collectives.all_gather(NULL, t->group, t->whole, t->part, HY3_FP32, &transfer));
    return t->backend->collectives.finish(NULL, &transfer, phase);
}

static hy3_status sum(const struct transfer *t)
{
    struct hy3_transfer transfer = {0};

    HY3_TRY(t->backend->collectives.reduce_scatter(NULL, t->group, t->whole, t->other, t->part,
                                                   HY3_FP32, &transfer));
    return t->backend->collectives.finish(NULL, &transfer, phase);
}

static hy3_status exchange(const struct transfer *t)
{
    const struct hy3_all_to_all rows = {.parts = {{sizeof *t->whole, t->whole, t->other}},
                                        .send_first = t->first,
                                        .send_count = t->count,
                                        .receive_first = t->first,
                                        .receive_count = t->count};

    return t->backend->collectives.all_to_all(NULL, t->group, &rows, phase);
}

/* Collective on the group. Mean seconds in which parts of so many elements go to all others. */
static hy3_status time_parts(struct transfer *t, int64_t part, double *seconds)
{
    static transfer_kind *const kinds[] = {gather, sum, exchange};
    const int all = sizeof kinds / sizeof *kinds;
    double begin = 0;

    t->part = part;
    for (int r = 0; r < t->group->size; r++) {
        t->first[r] = r * part;
        t->count[r] = part;
    }
    for (int i = -1; i < TIMES; i++) { /* the first maps memory and connects */
        if (i == 0)
            begin = hy3_seconds();
        for (int k = 0; k < all; k++)
            HY3_TRY(kinds[k](t));
    }
    *seconds = (hy3_seconds() - begin) / (all * TIMES);
    return hy3_agree(t->group->comm, HY3_OK, phase);
}

/* Collective on the group, of more than one rank. Bytes that leave a rank in a second while all
 * send, and seconds of a transfer of next to nothing. */
static hy3_status measure(const struct hy3_backend *backend, const struct hy3_group *group,
                          double *rate, double *latency)
{
    hy3_status status = HY3_OK;
    struct transfer t = {.backend = backend, .group = group};
    const int64_t n = group->size, part = LARGE / n > SMALL ? LARGE / n : SMALL;
    double large;

    status = hy3_alloc(&t.whole, (size_t)(n * part), sizeof *t.whole);
    if (status == HY3_OK)
        status = hy3_alloc(&t.other, (size_t)(n * part), sizeof *t.other);
    if (status == HY3_OK)
        status = hy3_alloc(&t.first, (size_t)n, sizeof *t.first);
    if (status == HY3_OK)
        status = hy3_alloc(&t.count, (size_t)n, sizeof *t.count);
    HY3_AGREE_DONE(group->comm, status, phase);
    HY3_TRY_DONE(time_parts(&t, SMALL, latency));
    HY3_TRY_DONE(time_parts(&t, part, &large));
    *rate = (double)((n - 1) * part) * sizeof *t.whole /
            (large > 1.1 * *latency ? large - *latency : large);
done:
    hy3_free(t.whole);
    hy3_free(t.other);
    hy3_free(t.first);
    hy3_free(t.count);
    return status;
}

hy3_status hy3_machine_links(MPI_Comm comm, const struct hy3_backend *backend,
                             struct hy3_rates *rates)
{
    hy3_status status = HY3_OK;
    struct hy3_layout layout;

    HY3_TRY_DONE(hy3_layout_open(comm, 1, 0, 1, 1, &layout));
    rates->node_link = rates->host_copy;
    rates->node_latency = rates->kernel;
    if (layout.node.size > 1)
        HY3_TRY_DONE(measure(backend, &layout.node, &rates->node_link, &rates->node_latency));
    rates->network = rates->node_link;
    rates->network_latency = rates->node_latency;
    if (layout.world.size > layout.node.size) {
        HY3_TRY_DONE(measure(backend, &layout.world, &rates->network, &rates->network_latency));
        rates->network /= layout.node.size;
        rates->network_latency /= layout.world.size;
    }
done:
    hy3_layout_close(&layout);
    return status;
}
