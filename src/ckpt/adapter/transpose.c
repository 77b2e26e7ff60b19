/* SPDX-License-Identifier: Apache-2.0 */
/* transpose.c - one all-to-all a tensor; both sides know from the shares what comes in which
 * order. */
#include "ckpt/adapter/transpose.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/wait.h"

void hy3_transpose_share(const struct hy3_param *param, int rank, int ranks, int64_t *first,
                         int64_t *count)
{
    int64_t rows = param->shape[1] * param->shape[2];

    *first = rows * rank / ranks;
    *count = rows * (rank + 1) / ranks - *first;
}

struct transpose {
    const struct hy3_param *param;
    int ranks;
    int64_t *shares;   /* [ranks,2] first and count in our order */
    MPI_Count *counts; /* [2,ranks] sent to, received from */
    MPI_Aint *places;  /* [2,ranks] */
    float *send, *receive;
};

/* What `from` holds of expert e of the rows of `to`: a range of our order. */
static int64_t segment(const struct transpose *t, int from, int to, int64_t e, int64_t *first)
{
    int64_t rows = t->param->shape[1] * t->param->shape[2], row, count, end;
    int64_t own = t->shares[2 * (size_t)from], own_end = own + t->shares[2 * (size_t)from + 1];

    hy3_transpose_share(t->param, to, t->ranks, &row, &count);
    end = e * rows + row + count;
    *first = e * rows + row > own ? e * rows + row : own;
    end = end < own_end ? end : own_end;
    return end > *first ? end - *first : 0;
}

static void count_all(struct transpose *t, int rank)
{
    int64_t first;
    MPI_Aint sent = 0, received = 0;

    for (int r = 0; r < t->ranks; r++) {
        t->places[r] = sent;
        t->places[t->ranks + r] = received;
        for (int64_t e = 0; e < t->param->shape[0]; e++) {
            t->counts[r] += segment(t, rank, r, e, &first);
            t->counts[t->ranks + r] += segment(t, r, rank, e, &first);
        }
        sent += t->counts[r];
        received += t->counts[t->ranks + r];
    }
}

static hy3_status pack(struct transpose *t, int rank, hy3_hf_source source, void *context)
{
    float *to = t->send;

    for (int r = 0; r < t->ranks; r++) {
        for (int64_t e = 0; e < t->param->shape[0]; e++) {
            int64_t first, count = segment(t, rank, r, e, &first);

            if (count > 0)
                HY3_TRY(source(context, t->param, first, count, to));
            to += count;
        }
    }
    return HY3_OK;
}

static void unpack(const struct transpose *t, int rank, float *rows)
{
    int64_t experts = t->param->shape[0], width = t->param->shape[1] * t->param->shape[2];
    int64_t first, count, row, from;
    const float *data = t->receive;

    hy3_transpose_share(t->param, rank, t->ranks, &row, &count);
    for (int r = 0; r < t->ranks; r++) {
        for (int64_t e = 0; e < experts; e++) {
            count = segment(t, r, rank, e, &first);
            from = first - e * width - row;
            for (int64_t i = 0; i < count; i++)
                rows[(from + i) * experts + e] = *data++;
        }
    }
}

static hy3_status allocate(struct transpose *t, int rank, hy3_hf_share share, void *context,
                           float **rows)
{
    size_t ranks = (size_t)t->ranks, own;
    int64_t first, count;

    HY3_TRY(hy3_alloc(&t->shares, 2 * ranks, sizeof *t->shares));
    HY3_TRY(hy3_alloc(&t->counts, 2 * ranks, sizeof *t->counts));
    HY3_TRY(hy3_alloc(&t->places, 2 * ranks, sizeof *t->places));
    share(context, t->param, &first, &count);
    HY3_TRY(hy3_alloc(&t->send, (size_t)count, sizeof *t->send));
    hy3_transpose_share(t->param, rank, t->ranks, &first, &count);
    own = (size_t)(count * t->param->shape[0]);
    HY3_TRY(hy3_alloc(&t->receive, own, sizeof *t->receive));
    return hy3_alloc(rows, own, sizeof **rows);
}

hy3_status hy3_transpose(MPI_Comm comm, const struct hy3_param *param, hy3_hf_source source,
                         hy3_hf_share share, void *context, float **rows)
{
    hy3_status status = HY3_OK;
    struct transpose t = {.param = param, .ranks = hy3_size(comm)};
    int rank = hy3_rank(comm);
    int64_t own[2];
    MPI_Request request;

    *rows = NULL;
    HY3_AGREE_DONE(comm, allocate(&t, rank, share, context, rows), "preparing the adapter");
    share(context, param, &own[0], &own[1]);
    hy3_allgather_ints(comm, own, 2, t.shares, "preparing the adapter");
    count_all(&t, rank);
    HY3_AGREE_DONE(comm, pack(&t, rank, source, context), "preparing the adapter");
    MPI_Ialltoallv_c(t.send, t.counts, t.places, MPI_FLOAT, t.receive, t.counts + t.ranks,
                     t.places + t.ranks, MPI_FLOAT, comm, &request);
    hy3_wait(&request, "exchanging the adapter");
    unpack(&t, rank, *rows);
done:
    hy3_free(t.shares);
    hy3_free(t.counts);
    hy3_free(t.places);
    hy3_free(t.send);
    hy3_free(t.receive);
    return status;
}
