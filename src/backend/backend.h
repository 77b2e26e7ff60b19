/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - where the arithmetic happens: one table of device, kernels and collectives.
 *
 * The CPU implementation is cpu/ (collectives by MPI); another table is opened at run time by
 * hy3_backend_open. Everything above this folder talks to the table alone: no #ifdef, no device
 * pointer dereferenced outside it. The table handed out checks the arguments of each kernel before
 * it calls it. */
#pragma once

#include "backend/device.h"
#include "backend/kernels.h"
#include "comm/comm.h"

enum { HY3_BACKEND_ABI = 7 };

/* Collective work under way. */
struct hy3_transfer {
    MPI_Request request; /* CPU */
    struct hy3_event *event;
};

/* Rows that are exchanged together. */
struct hy3_all_to_all_part {
    int64_t row_bytes;
    const void *send; /* NULL: there is no such part, on any rank */
    void *receive;
};

enum { HY3_EXCHANGE_PARTS = 2 };

/* An exchange of rows: block i of each part's `send` goes to rank i, and what rank i sends becomes
 * block i of `receive`. */
struct hy3_all_to_all {
    struct hy3_all_to_all_part parts[HY3_EXCHANGE_PARTS];
    const int64_t *send_first, *send_count;       /* HOST [ranks] rows */
    const int64_t *receive_first, *receive_count; /* HOST [ranks] rows */
};

/* Sums and exchanges of device tensors. Collective on `group`; stream-ordered. phase names the
 * wait. What `begins` returns at once; its memory belongs to it until `finish`, and every rank of a
 * group begins in the same order. */
struct hy3_collectives {
    /* Makes what the others need for this group, which may take seconds; NULL: nothing. Not
     * stream-ordered. Where it fails on one rank, the others wait in it. */
    hy3_status (*open)(const struct hy3_group *group);
    /* begins: data[count] becomes the sum over ranks; the same bits on every rank */
    hy3_status (*all_reduce)(struct hy3_stream *stream, const struct hy3_group *group, float *data,
                             int64_t count, struct hy3_transfer *transfer);
    /* begins: data [ranks,count] of `dtype` becomes whole; each rank brings data[rank] */
    hy3_status (*all_gather)(struct hy3_stream *stream, const struct hy3_group *group, void *data,
                             int64_t count, hy3_dtype dtype, struct hy3_transfer *transfer);
    /* begins: own [count] = the sum over ranks of data[rank], data [ranks,count]; both of `dtype`,
     * to which sums on the way are rounded */
    hy3_status (*reduce_scatter)(struct hy3_stream *stream, const struct hy3_group *group,
                                 const void *data, void *own, int64_t count, hy3_dtype dtype,
                                 struct hy3_transfer *transfer);
    /* The stream goes on after what was begun is done. */
    hy3_status (*finish)(struct hy3_stream *stream, struct hy3_transfer *transfer,
                         const char *phase);
    hy3_status (*all_to_all)(struct hy3_stream *stream, const struct hy3_group *group,
                             const struct hy3_all_to_all *rows, const char *phase);
};

struct hy3_backend {
    const char *name;    /* "cpu", "cuda" */
    const char *library; /* of the collectives, with its version: "NCCL 2.28.9" */
    uint32_t abi;        /* HY3_BACKEND_ABI; another number is refused at load */
    struct hy3_device device;
    struct hy3_kernels kernels;
    struct hy3_collectives collectives;
    /* computes in this one's host memory; NULL: it does itself */
    const struct hy3_backend *on_host;
};

/* Collective on `comm`. The table for `device`: "cpu"; "cuda", by the library hy3_cuda.so
 * (backend/module.h); "auto", which is the GPU if every rank has one and else the CPU, with one
 * line that says why. Rank r of a node takes its GPU r modulo their number.
 * Errors: HY3_EDEVICE, HY3_ENOMEM for "cuda". The table is static; nobody frees it. */
hy3_status hy3_backend_open(MPI_Comm comm, const char *device, const struct hy3_backend **out);

/* The CPU's table, without argument checks. isa: "best", "avx512", "avx2" or "portable"; NULL if
 * this machine lacks it. Tests compare the three. */
const struct hy3_backend *hy3_cpu_backend(const char *isa);
