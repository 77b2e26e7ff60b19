/* SPDX-License-Identifier: Apache-2.0 */
/* collectives.c - sums and exchanges over ranks by MPI. Counts may pass 2^31: the functions with an
 * MPI_Count take them. */
#include "backend/cpu/cpu.h"
#include "base/memory.h"
#include "comm/wait.h"

static hy3_status all_reduce(struct hy3_stream *stream, const struct hy3_group *group, float *data,
                             int64_t count, const char *phase)
{
    MPI_Request request;

    MPI_Iallreduce_c(MPI_IN_PLACE, data, count, MPI_FLOAT, MPI_SUM, group->comm, &request);
    hy3_wait(&request, phase);
    return HY3_OK;
}

static hy3_status all_gather(struct hy3_stream *stream, const struct hy3_group *group, void *data,
                             int64_t count, hy3_dtype dtype, struct hy3_transfer *transfer)
{
    MPI_Count bytes = count * (int64_t)hy3_dtype_size(dtype);

    MPI_Iallgather_c(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, bytes, MPI_BYTE, group->comm,
                     &transfer->request);
    return HY3_OK;
}

static hy3_status reduce_scatter(struct hy3_stream *stream, const struct hy3_group *group,
                                 const float *data, float *own, int64_t count,
                                 struct hy3_transfer *transfer)
{
    MPI_Ireduce_scatter_block_c(data, own, count, MPI_FLOAT, MPI_SUM, group->comm,
                                &transfer->request);
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
        MPI_Datatype row;
        MPI_Request request;

        if (!p->send)
            continue;
        MPI_Type_contiguous((int)p->row_bytes, MPI_BYTE, &row);
        MPI_Type_commit(&row);
        MPI_Ialltoallv_c(p->send, counts, places, row, p->receive, counts + n, places + n, row,
                         group->comm, &request);
        hy3_wait(&request, phase);
        MPI_Type_free(&row);
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
