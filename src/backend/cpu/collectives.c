/* SPDX-License-Identifier: Apache-2.0 */
/* collectives.c - sums and exchanges over ranks by MPI. */
#include "backend/cpu/cpu.h"
#include "base/memory.h"
#include "comm/large.h"
#include "comm/wait.h"

static hy3_status all_reduce(struct hy3_stream *stream, const struct hy3_group *group, float *data,
                             int64_t count, struct hy3_transfer *transfer)
{
    hy3_large_allreduce(group->comm, data, count, &transfer->request, "summing gradients");
    return HY3_OK;
}

static hy3_status all_gather(struct hy3_stream *stream, const struct hy3_group *group, void *data,
                             int64_t count, hy3_dtype dtype, struct hy3_transfer *transfer)
{
    hy3_large_allgather(group->comm, data, count * (int64_t)hy3_dtype_size(dtype),
                        &transfer->request);
    return HY3_OK;
}

static hy3_status reduce_scatter(struct hy3_stream *stream, const struct hy3_group *group,
                                 const void *data, void *own, int64_t count, hy3_dtype dtype,
                                 struct hy3_transfer *transfer)
{
    hy3_large_reduce_scatter(group->comm, data, own, count, dtype, &transfer->request,
                             "summing gradients");
    return HY3_OK;
}

static hy3_status finish(struct hy3_stream *stream, struct hy3_transfer *transfer,
                         const char *phase)
{
    hy3_wait(&transfer->request, phase);
    return HY3_OK;
}

static hy3_status all_to_all(struct hy3_stream *stream, const struct hy3_group *group,
                             const struct hy3_all_to_all *rows, const char *phase)
{
    hy3_status status = HY3_OK;
    size_t n = (size_t)group->size;
    MPI_Count *counts = NULL; /* of send, of receive */
    MPI_Aint *places = NULL;

    HY3_TRY_DONE(hy3_alloc(&counts, 2 * n, sizeof *counts));
    HY3_TRY_DONE(hy3_alloc(&places, 2 * n, sizeof *places));
    for (size_t i = 0; i < n; i++) {
        counts[i] = rows->send_count[i];
        counts[n + i] = rows->receive_count[i];
        places[i] = rows->send_first[i];
        places[n + i] = rows->receive_first[i];
    }
    for (const struct hy3_all_to_all_part *p = rows->parts; p < rows->parts + HY3_EXCHANGE_PARTS;
         p++) {
        const struct hy3_large_exchange exchange = {.size = p->row_bytes,
                                                    .send = p->send,
                                                    .receive = p->receive,
                                                    .counts = counts,
                                                    .places = places};

        if (p->send)
            hy3_large_alltoall(group->comm, &exchange, phase);
    }
done:
    hy3_free(counts);
    hy3_free(places);
    return status;
}

const struct hy3_collectives hy3_cpu_collectives = {.all_reduce = all_reduce,
                                                    .all_gather = all_gather,
                                                    .reduce_scatter = reduce_scatter,
                                                    .finish = finish,
                                                    .all_to_all = all_to_all};
