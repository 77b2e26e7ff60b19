/* SPDX-License-Identifier: Apache-2.0 */
/* large.c - MPI 4's functions, or calls with int counts. */
#include "comm/large.h"

#include "comm/group.h"
#include "comm/wait.h"

static int64_t limit; /* 0: none */

void hy3_large_limit(int64_t most)
{
    limit = most;
}

/* Elements of a call: of floats 4 GB. */
static int64_t most_of(void)
{
    return limit > 0 ? limit : 1 << 30;
}

static int piece_of(int64_t rest)
{
    return (int)(rest < most_of() ? rest : most_of());
}

void hy3_large_allreduce(MPI_Comm comm, float *data, int64_t count, MPI_Request *request,
                         const char *phase)
{
#if MPI_VERSION >= 4
    if (limit == 0) {
        MPI_Iallreduce_c(MPI_IN_PLACE, data, count, MPI_FLOAT, MPI_SUM, comm, request);
        return;
    }
#endif
    *request = MPI_REQUEST_NULL;
    for (int64_t i = 0; i < count; i += most_of()) {
        hy3_wait(request, phase);
        MPI_Iallreduce(MPI_IN_PLACE, data + i, piece_of(count - i), MPI_FLOAT, MPI_SUM, comm,
                       request);
    }
}

/* A type of that many bytes. */
static MPI_Datatype type_of(int64_t bytes)
{
    int64_t whole = bytes / most_of(), rest = bytes % most_of();
    MPI_Datatype block, blocks, type, types[2] = {MPI_DATATYPE_NULL, MPI_BYTE};
    const MPI_Aint places[2] = {0, (MPI_Aint)(bytes - rest)};
    const int lengths[2] = {1, (int)rest};

    MPI_Type_contiguous((int)most_of(), MPI_BYTE, &block);
    MPI_Type_contiguous((int)whole, block, &blocks);
    types[0] = blocks;
    MPI_Type_create_struct(2, lengths, places, types, &type);
    MPI_Type_commit(&type);
    MPI_Type_free(&block);
    MPI_Type_free(&blocks);
    return type;
}

void hy3_large_allgather(MPI_Comm comm, void *data, int64_t bytes, MPI_Request *request)
{
    MPI_Datatype type;

#if MPI_VERSION >= 4
    if (limit == 0) {
        MPI_Iallgather_c(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, bytes, MPI_BYTE, comm, request);
        return;
    }
#endif
    if (bytes <= most_of()) {
        MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, (int)bytes, MPI_BYTE, comm,
                       request);
        return;
    }
    type = type_of(bytes);
    MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, 1, type, comm, request);
    MPI_Type_free(&type); /* once the request is complete */
}

/* b += a, of MPI_UINT16_T that are bf16. */
static void add_bf16(void *a, void *b, int *count, MPI_Datatype *type)
{
    const hy3_bf16 *x = a;
    hy3_bf16 *y = b;

    (void)type;
#pragma omp simd
    for (int i = 0; i < *count; i++)
        y[i] = hy3_bf16_from_float(hy3_float_from_bf16(x[i]) + hy3_float_from_bf16(y[i]));
}

/* The sum of bf16 numbers; made once and kept to the end of the program. */
static MPI_Op bf16_sum(void)
{
    static MPI_Op op = MPI_OP_NULL;

    if (op == MPI_OP_NULL)
        MPI_Op_create(add_bf16, 1, &op);
    return op;
}

void hy3_large_reduce_scatter(MPI_Comm comm, const void *data, void *own, int64_t count,
                              hy3_dtype dtype, MPI_Request *request, const char *phase)
{
    const MPI_Datatype type = dtype == HY3_BF16 ? MPI_UINT16_T : MPI_FLOAT;
    const MPI_Op op = dtype == HY3_BF16 ? bf16_sum() : MPI_SUM;
    const size_t size = hy3_dtype_size(dtype);

#if MPI_VERSION >= 4
    if (limit == 0) {
        MPI_Ireduce_scatter_block_c(data, own, count, type, op, comm, request);
        return;
    }
#endif
    if (count <= most_of()) {
        MPI_Ireduce_scatter_block(data, own, (int)count, type, op, comm, request);
        return;
    }
    for (int r = 0; r < hy3_size(comm); r++)
        for (int64_t i = 0; i < count; i += most_of()) {
            MPI_Ireduce((const char *)data + (size_t)(r * count + i) * size,
                        (char *)own + (size_t)i * size, piece_of(count - i), type, op, r, comm,
                        request);
            hy3_wait(request, phase);
        }
}

/* Messages between this rank and one other, in pieces, both directions in turn. */
static void exchange_with(MPI_Comm comm, const struct hy3_large_exchange *x, int to, int from,
                          const char *phase)
{
    const int ranks = hy3_size(comm);
    const char *send = (const char *)x->send + x->places[to] * x->size;
    char *receive = (char *)x->receive + x->places[ranks + from] * x->size;
    int64_t sends = x->counts[to] * x->size, receives = x->counts[ranks + from] * x->size;

    for (int64_t i = 0; i < sends || i < receives; i += most_of()) {
        MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};

        if (i < receives)
            MPI_Irecv(receive + i, piece_of(receives - i), MPI_BYTE, from, 0, comm, &requests[0]);
        if (i < sends)
            MPI_Isend(send + i, piece_of(sends - i), MPI_BYTE, to, 0, comm, &requests[1]);
        hy3_wait_all(2, requests, phase);
    }
}

void hy3_large_alltoall(MPI_Comm comm, const struct hy3_large_exchange *x, const char *phase)
{
    const int ranks = hy3_size(comm), rank = hy3_rank(comm);

#if MPI_VERSION >= 4
    if (limit == 0) {
        MPI_Datatype type;
        MPI_Request request;

        MPI_Type_contiguous((int)x->size, MPI_BYTE, &type);
        MPI_Type_commit(&type);
        MPI_Ialltoallv_c(x->send, x->counts, x->places, type, x->receive, x->counts + ranks,
                         x->places + ranks, type, comm, &request);
        hy3_wait(&request, phase);
        MPI_Type_free(&type);
        return;
    }
#endif
    for (int k = 0; k < ranks; k++)
        exchange_with(comm, x, (rank + k) % ranks, (rank + ranks - k) % ranks, phase);
}
