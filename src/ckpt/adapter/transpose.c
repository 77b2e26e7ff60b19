/* SPDX-License-Identifier: Apache-2.0 */
/* transpose.c - one all-to-all per tensor; both sides derive the order from the shares. */
#include "ckpt/adapter/transpose.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/large.h"

struct hy3_span hy3_transpose_share(const struct hy3_param *param, int rank, int ranks)
{
    return hy3_span_share(param->shape[1] * param->shape[2], rank, ranks);
}

struct transpose {
    const struct hy3_param *param;
    int ranks;
    struct hy3_span *shares; /* [ranks] in our order */
    MPI_Count *counts;       /* [2,ranks] sent to, received from */
    MPI_Aint *places;        /* [2,ranks] */
    float *send, *receive;
};

/* What `from` holds of expert e of the rows of `to`, in our order. */
static struct hy3_span segment(const struct transpose *t, int from, int to, int64_t e)
{
    struct hy3_span rows = hy3_transpose_share(t->param, to, t->ranks);

    rows.first += e * t->param->shape[1] * t->param->shape[2];
    return hy3_span_intersect(t->shares[from], rows);
}

static void count_all(struct transpose *t, int rank)
{
    MPI_Aint sent = 0, received = 0;

    for (int r = 0; r < t->ranks; r++) {
        t->places[r] = sent;
        t->places[t->ranks + r] = received;
        for (int64_t e = 0; e < t->param->shape[0]; e++) {
            t->counts[r] += segment(t, rank, r, e).count;
            t->counts[t->ranks + r] += segment(t, r, rank, e).count;
        }
        sent += t->counts[r];
        received += t->counts[t->ranks + r];
    }
}

static hy3_status pack(struct transpose *t, int rank, struct hy3_values values)
{
    float *to = t->send;

    for (int r = 0; r < t->ranks; r++) {
        for (int64_t e = 0; e < t->param->shape[0]; e++) {
            struct hy3_span span = segment(t, rank, r, e);

            if (span.count > 0)
                HY3_TRY(values.get(values.of, HY3_MASTER, t->param, span, to));
            to += span.count;
        }
    }
    return HY3_OK;
}

static void unpack(const struct transpose *t, int rank, float *rows)
{
    int64_t experts = t->param->shape[0], width = t->param->shape[1] * t->param->shape[2];
    int64_t row = hy3_transpose_share(t->param, rank, t->ranks).first;
    const float *data = t->receive;

    for (int r = 0; r < t->ranks; r++) {
        for (int64_t e = 0; e < experts; e++) {
            struct hy3_span span = segment(t, r, rank, e);
            int64_t to = span.first - e * width - row;

            for (int64_t i = 0; i < span.count; i++)
                rows[(to + i) * experts + e] = *data++;
        }
    }
}

static hy3_status allocate(struct transpose *t, int rank, int64_t held, float **rows)
{
    size_t ranks = (size_t)t->ranks, own;

    HY3_TRY(hy3_alloc(&t->shares, ranks, sizeof *t->shares));
    HY3_TRY(hy3_alloc(&t->counts, 2 * ranks, sizeof *t->counts));
    HY3_TRY(hy3_alloc(&t->places, 2 * ranks, sizeof *t->places));
    HY3_TRY(hy3_alloc(&t->send, (size_t)held, sizeof *t->send));
    own = (size_t)(hy3_transpose_share(t->param, rank, t->ranks).count * t->param->shape[0]);
    HY3_TRY(hy3_alloc(&t->receive, own, sizeof *t->receive));
    return hy3_alloc(rows, own, sizeof **rows);
}

hy3_status hy3_transpose(MPI_Comm comm, const struct hy3_param *param, struct hy3_values values,
                         float **rows)
{
    hy3_status status = HY3_OK;
    struct transpose t = {.param = param, .ranks = hy3_size(comm)};
    int rank = hy3_rank(comm);
    struct hy3_span own = values.share(values.of, param);
    struct hy3_large_exchange exchange;

    *rows = NULL;
    HY3_AGREE_DONE(comm, allocate(&t, rank, own.count, rows), "preparing the adapter");
    hy3_allgather_ints(comm, &own.first, 2, &t.shares->first, "preparing the adapter");
    count_all(&t, rank);
    HY3_AGREE_DONE(comm, pack(&t, rank, values), "preparing the adapter");
    exchange = (struct hy3_large_exchange){.size = sizeof *t.send,
                                           .send = t.send,
                                           .receive = t.receive,
                                           .counts = t.counts,
                                           .places = t.places};
    hy3_large_alltoall(comm, &exchange, "exchanging the adapter");
    unpack(&t, rank, *rows);
done:
    hy3_free(t.shares);
    hy3_free(t.counts);
    hy3_free(t.places);
    hy3_free(t.send);
    hy3_free(t.receive);
    return status;
}
