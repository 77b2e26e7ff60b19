/* SPDX-License-Identifier: Apache-2.0 */
/* gemm.cu - matrix products by cuBLAS: fp32 accumulation, no TF32, a workspace of fixed size, so
 * that results are the same bits in every run. Row-major C = A B is cuBLAS's column-major
 * C^T = B^T A^T.
 *
 * cuBLAS takes 0.1 to 0.3 ms of host time to choose an algorithm for sizes it has not seen, and a
 * micro-batch or an expert has another number of rows every time: when cuBLAS chose, expert
 * products ran at a tenth of what an H200 can do. So algorithms are chosen for rounded-up numbers
 * of rows (`rounded`) and cached. */
#include "cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static const size_t WORKSPACE = (size_t)32 << 20; /* of a stream: NVIDIA's advice for sm_90 */

/* Streams that the products of a call are spread over. */
enum { STREAMS = 4 };

/* Groups of fewer rows than this go to one grouped call, larger ones to STREAMS streams. On an
 * H200, 24 experts [3072,4096]: 16 rows each 180 us and 279 us, 64 rows 212 and 339, 256 rows 522
 * and 329, 1024 rows 1950 and 918 (`make gpu-check`). */
int64_t hy3_cuda_grouped_rows = 128;

static cudaDataType_t type_of(hy3_dtype dtype)
{
    return dtype == HY3_FP32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* What an algorithm depends on. Without padding: compared as bytes. */
struct key {
    int64_t M, N, K;
    int32_t form, dtype, c_dtype, alignment; /* bytes, of all three matrices */
};

/* A hash table. */
struct algorithms {
    enum { PLACES = 1024, MOST = 700 };

    struct {
        struct key key; /* N 0: free */
        cublasLtMatmulAlgo_t algorithm;
    } places[PLACES];

    int count;
};

struct hy3_blas {
    cublasLtHandle_t lt;
    cublasHandle_t grouped; /* of grouped calls */
    struct algorithms algorithms;
    cudaStream_t streams[STREAMS]; /* 0: the caller's */
    cudaEvent_t begun, ended[STREAMS];
    char *workspace; /* [STREAMS][WORKSPACE], as far as they have been needed */
};

/* Opens the handle, `count` streams and their workspaces. */
static hy3_status open_streams(struct hy3_stream *s, int count, struct hy3_blas **out)
{
    struct hy3_blas *b = s->blas;

    if (!b) {
        HY3_TRY(hy3_cuda_calloc(sizeof *b, &b));
        s->blas = b;
        b->streams[0] = s->stream;
    }
    if (!b->lt)
        HY3_CUBLAS_TRY(cublasLtCreate(&b->lt));
    if (!b->begun)
        HY3_CUDA_TRY(cudaEventCreateWithFlags(&b->begun, cudaEventDisableTiming));
    for (int i = 1; i < count; i++) {
        if (!b->streams[i])
            HY3_CUDA_TRY(cudaStreamCreateWithFlags(&b->streams[i], cudaStreamNonBlocking));
        if (!b->ended[i])
            HY3_CUDA_TRY(cudaEventCreateWithFlags(&b->ended[i], cudaEventDisableTiming));
    }
    *out = b;
    return hy3_cuda_scratch(s, HY3_SLOT_BLAS, (size_t)count * WORKSPACE, &b->workspace);
}

/* Opens the handle of grouped calls. Its workspace may have moved. */
static hy3_status open_grouped(struct hy3_stream *s, struct hy3_blas **out)
{
    HY3_TRY(open_streams(s, 1, out));
    if (!(*out)->grouped) {
        HY3_CUBLAS_TRY(cublasCreate(&(*out)->grouped));
        HY3_CUBLAS_TRY(cublasSetStream((*out)->grouped, s->stream));
    }
    HY3_CUBLAS_TRY(cublasSetWorkspace((*out)->grouped, (*out)->workspace, WORKSPACE));
    return HY3_OK;
}

void hy3_blas_free(struct hy3_blas *b)
{
    if (!b)
        return;
    for (int i = 1; i < STREAMS; i++) {
        if (b->ended[i])
            (void)cudaEventDestroy(b->ended[i]);
        if (b->streams[i])
            (void)cudaStreamDestroy(b->streams[i]);
    }
    if (b->grouped)
        (void)cublasDestroy(b->grouped);
    if (b->lt)
        (void)cublasLtDestroy(b->lt);
    if (b->begun)
        (void)cudaEventDestroy(b->begun);
    free(b);
}

/* The product as cuBLAS sees it. */
struct shape {
    cublasOperation_t first, second; /* of B, of A */
    int m, n, k, ldb, lda, ldc;
};

static struct shape shape_of(enum hy3_gemm_form form, int64_t M, int64_t N, int64_t K)
{
    struct shape s = {CUBLAS_OP_N, CUBLAS_OP_N, (int)N, (int)M, (int)K, (int)N, (int)K, (int)N};

    if (form == HY3_NT) {
        s.first = CUBLAS_OP_T;
        s.ldb = (int)K;
    }
    if (form == HY3_TN) {
        s.second = CUBLAS_OP_T;
        s.lda = (int)M;
    }
    return s;
}

/* The descriptors of a product. */
struct product {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t first, second, result; /* B, A, C */
};

static hy3_status describe(const struct hy3_gemm *g, struct product *p)
{
    const struct shape s = shape_of(g->form, g->M, g->N, g->K);
    bool first = s.first == CUBLAS_OP_T, second = s.second == CUBLAS_OP_T;
    cudaDataType_t type = type_of(g->dtype);

    HY3_CUBLAS_TRY(cublasLtMatmulDescInit(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    HY3_CUBLAS_TRY(cublasLtMatmulDescSetAttribute(&p->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                  &s.first, sizeof s.first));
    HY3_CUBLAS_TRY(cublasLtMatmulDescSetAttribute(&p->operation, CUBLASLT_MATMUL_DESC_TRANSB,
                                                  &s.second, sizeof s.second));
    HY3_CUBLAS_TRY(cublasLtMatrixLayoutInit(&p->first, type, (uint64_t)(first ? s.k : s.m),
                                            (uint64_t)(first ? s.m : s.k), s.ldb));
    HY3_CUBLAS_TRY(cublasLtMatrixLayoutInit(&p->second, type, (uint64_t)(second ? s.n : s.k),
                                            (uint64_t)(second ? s.k : s.n), s.lda));
    HY3_CUBLAS_TRY(cublasLtMatrixLayoutInit(&p->result, type_of(g->c_dtype), (uint64_t)s.m,
                                            (uint64_t)s.n, s.ldc));
    return HY3_OK;
}

/* cuBLAS's first choice for a product whose matrices stand at addresses that `alignment`
 * divides. */
static hy3_status choose(struct hy3_blas *b, const struct hy3_gemm *g, uint32_t alignment,
                         cublasLtMatmulAlgo_t *algorithm)
{
    static const cublasLtMatmulPreferenceAttributes_t of_pointers[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t found;
    struct product p;
    int count = 0;

    HY3_TRY(describe(g, &p));
    HY3_CUBLAS_TRY(cublasLtMatmulPreferenceInit(&preference));
    HY3_CUBLAS_TRY(cublasLtMatmulPreferenceSetAttribute(
        &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE));
    for (cublasLtMatmulPreferenceAttributes_t pointer : of_pointers)
        HY3_CUBLAS_TRY(cublasLtMatmulPreferenceSetAttribute(&preference, pointer, &alignment,
                                                            sizeof alignment));
    HY3_CUBLAS_TRY(cublasLtMatmulAlgoGetHeuristic(b->lt, &p.operation, &p.first, &p.second,
                                                  &p.result, &p.result, &preference, 1, &found,
                                                  &count));
    HY3_CUBLAS_TRY(count > 0 ? found.state : CUBLAS_STATUS_NOT_SUPPORTED);
    *algorithm = found.algo;
    return HY3_OK;
}

/* The next number of rows that algorithms are chosen for: at most an eighth more, from 128 on. */
static int64_t rounded(int64_t rows)
{
    int64_t step = 16;

    while (step * 16 <= rows)
        step *= 2;
    return (rows + step - 1) / step * step;
}

/* The product with its number of rows rounded up. */
static struct hy3_gemm as_chosen(const struct hy3_gemm *g)
{
    struct hy3_gemm out = *g;

    *(g->form == HY3_TN ? &out.K : &out.M) = rounded(g->form == HY3_TN ? g->K : g->M);
    return out;
}

static uint32_t alignment_of(const struct hy3_gemm *g)
{
    uintptr_t bits = (uintptr_t)g->A | (uintptr_t)g->B | (uintptr_t)g->C | 256;

    return (uint32_t)(bits & -bits);
}

static uint64_t hash_of(const struct key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */

    for (size_t i = 0; i < sizeof *key; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

/* The algorithm for a product, chosen at its first use. A full table is cleared; the same
 * algorithms are then chosen again. */
static hy3_status find_algorithm(struct hy3_blas *b, const struct hy3_gemm *g,
                                 cublasLtMatmulAlgo_t **out)
{
    struct algorithms *known = &b->algorithms;
    const struct hy3_gemm like = as_chosen(g);
    uint32_t alignment = alignment_of(g);
    const struct key key = {
        .M = like.M,
        .N = like.N,
        .K = like.K,
        .form = (int32_t)g->form,
        .dtype = (int32_t)g->dtype,
        .c_dtype = (int32_t)g->c_dtype,
        .alignment = (int32_t)alignment,
    };
    size_t at = hash_of(&key) % known->PLACES;

    if (known->count == known->MOST)
        memset(known, 0, sizeof *known);
    while (known->places[at].key.N != 0 && memcmp(&known->places[at].key, &key, sizeof key) != 0)
        at = (at + 1) % known->PLACES;
    *out = &known->places[at].algorithm;
    if (known->places[at].key.N != 0)
        return HY3_OK;
    HY3_TRY(choose(b, &like, alignment, *out));
    known->places[at].key = key;
    known->count++;
    return HY3_OK;
}

static cublasStatus_t run(struct hy3_blas *b, int stream, const struct hy3_gemm *g,
                          const struct product *p, const cublasLtMatmulAlgo_t *algorithm)
{
    float beta = g->accumulate ? 1 : 0;

    return HY3_CUDA_WATCHED(
        "cublasLtMatmul",
        cublasLtMatmul(b->lt, (cublasLtMatmulDesc_t)&p->operation, &g->alpha, g->B,
                       (cublasLtMatrixLayout_t)&p->first, g->A, (cublasLtMatrixLayout_t)&p->second,
                       &beta, g->C, (cublasLtMatrixLayout_t)&p->result, g->C,
                       (cublasLtMatrixLayout_t)&p->result, algorithm,
                       b->workspace + (size_t)stream * WORKSPACE, WORKSPACE, b->streams[stream]));
}

/* On one of the streams. */
static hy3_status multiply(struct hy3_blas *b, int stream, const struct hy3_gemm *g)
{
    cublasLtMatmulAlgo_t *algorithm, own;
    struct product p;
    cublasStatus_t result;

    if (g->M == 0 || g->N == 0)
        return HY3_OK;
    if (g->K == 0) {
        if (!g->accumulate)
            HY3_CUDA_TRY(cudaMemsetAsync(
                g->C, 0, (size_t)(g->M * g->N) * hy3_dtype_size(g->c_dtype), b->streams[stream]));
        return HY3_OK;
    }
    HY3_TRY(find_algorithm(b, g, &algorithm));
    HY3_TRY(describe(g, &p));
    result = run(b, stream, g, &p, algorithm);
    if (result == CUBLAS_STATUS_NOT_SUPPORTED || result == CUBLAS_STATUS_INVALID_VALUE) {
        /* not with so few rows: one for exactly these */
        HY3_TRY(choose(b, g, alignment_of(g), &own));
        result = run(b, stream, g, &p, &own);
    }
    if (result != CUBLAS_STATUS_SUCCESS)
        return hy3_cuda_failed("cublasLtMatmul", cublasGetStatusString(result),
                               result == CUBLAS_STATUS_ALLOC_FAILED, __FILE__, __LINE__);
    return HY3_OK;
}

hy3_status hy3_cuda_gemm(struct hy3_stream *stream, const struct hy3_gemm *g)
{
    struct hy3_blas *b = NULL;

    HY3_TRY(open_streams(hy3_cuda_stream(stream), 1, &b));
    return multiply(b, 0, g);
}

static const void *shift(const void *matrix, hy3_dtype dtype, int64_t elements)
{
    return (const char *)matrix + elements * (int64_t)hy3_dtype_size(dtype);
}

static struct hy3_gemm group_of(const struct hy3_grouped_gemm *a, int64_t i)
{
    int64_t first = a->starts[i], rows = a->starts[i + 1] - first;
    struct hy3_gemm g = {};

    g.form = a->form;
    g.M = a->form == HY3_TN ? a->M : rows;
    g.N = a->N;
    g.K = a->form == HY3_TN ? rows : a->K;
    g.dtype = a->dtype;
    g.c_dtype = a->c_dtype;
    g.accumulate = a->accumulate;
    g.alpha = a->alpha;
    if (a->form == HY3_TN) {
        g.A = shift(a->A, a->dtype, first * a->M);
        g.B = shift(a->B, a->dtype, first * a->N);
        g.C = (void *)shift(a->C, a->c_dtype, i * a->M * a->N);
    } else {
        g.A = shift(a->A, a->dtype, first * a->K);
        g.B = shift(a->B, a->dtype, i * a->N * a->K);
        g.C = (void *)shift(a->C, a->c_dtype, first * a->N);
    }
    return g;
}

/* Deals the groups out to the streams; the caller's stream then waits for all of them. */
static hy3_status in_streams(struct hy3_stream *s, const struct hy3_grouped_gemm *a)
{
    struct hy3_blas *b = NULL;

    HY3_TRY(open_streams(s, STREAMS, &b));
    HY3_CUDA_TRY(cudaEventRecord(b->begun, s->stream));
    for (int i = 1; i < STREAMS; i++)
        HY3_CUDA_TRY(cudaStreamWaitEvent(b->streams[i], b->begun, 0));
    for (int64_t i = 0; i < a->groups; i++) {
        struct hy3_gemm g = group_of(a, i);

        HY3_TRY(multiply(b, (int)(i % STREAMS), &g));
    }
    for (int i = 1; i < STREAMS; i++) {
        HY3_CUDA_TRY(cudaEventRecord(b->ended[i], b->streams[i]));
        HY3_CUDA_TRY(cudaStreamWaitEvent(s->stream, b->ended[i], 0));
    }
    return HY3_OK;
}

/* Host arrays of one grouped call, in which each group has one product. */
struct grouped {
    cublasOperation_t *first, *second;
    int *m, *n, *k, *ldb, *lda, *ldc, *size;
    float *alpha, *beta;
    const void **pointers; /* B, A, C, each [groups] */
    int count;
};

static void *carve(char **at, size_t bytes)
{
    void *piece = *at;

    *at += (bytes + 15) / 16 * 16;
    return piece;
}

static void collect(const struct hy3_grouped_gemm *a, char *memory, struct grouped *out)
{
    size_t n = (size_t)a->groups, words = n * sizeof(int);

    out->first = (cublasOperation_t *)carve(&memory, n * sizeof *out->first);
    out->second = (cublasOperation_t *)carve(&memory, n * sizeof *out->second);
    int **const fields[] = {&out->m, &out->n, &out->k, &out->ldb, &out->lda, &out->ldc, &out->size};
    for (int **field : fields)
        *field = (int *)carve(&memory, words);
    out->alpha = (float *)carve(&memory, words);
    out->beta = (float *)carve(&memory, words);
    out->pointers = (const void **)carve(&memory, 3 * n * sizeof *out->pointers);
    for (int64_t i = 0; i < a->groups; i++) {
        struct hy3_gemm g = group_of(a, i);
        struct shape s = shape_of(g.form, g.M, g.N, g.K);
        int at = out->count;

        if (g.M == 0 || g.K == 0) /* a group without rows adds nothing; see clear_empty */
            continue;
        out->first[at] = s.first;
        out->second[at] = s.second;
        out->m[at] = s.m;
        out->n[at] = s.n;
        out->k[at] = s.k;
        out->ldb[at] = s.ldb;
        out->lda[at] = s.lda;
        out->ldc[at] = s.ldc;
        out->size[at] = 1;
        out->alpha[at] = g.alpha;
        out->beta[at] = g.accumulate ? 1 : 0;
        out->pointers[at] = g.B;
        out->pointers[n + (size_t)at] = g.A;
        out->pointers[2 * n + (size_t)at] = g.C;
        out->count++;
    }
}

/* Zeroes the weight gradients of groups without rows, unless they accumulate. */
static hy3_status clear_empty(struct hy3_blas *b, const struct hy3_grouped_gemm *a)
{
    for (int64_t i = 0; i < a->groups && a->form == HY3_TN && !a->accumulate; i++) {
        struct hy3_gemm g = group_of(a, i);

        if (g.K == 0)
            HY3_TRY(multiply(b, 0, &g));
    }
    return HY3_OK;
}

static hy3_status in_one_call(struct hy3_stream *s, const struct hy3_grouped_gemm *a)
{
    size_t n = (size_t)a->groups;
    struct grouped g = {};
    struct hy3_blas *b = NULL;
    const void **device;
    hy3_status status;
    cublasStatus_t error;
    char *memory;

    HY3_TRY(open_grouped(s, &b));
    HY3_TRY(clear_empty(b, a));
    HY3_TRY(hy3_cuda_calloc(n * (2 * sizeof(cublasOperation_t) + 9 * 4 + 3 * sizeof(void *)) + 256,
                            &memory));
    collect(a, memory, &g);
    status = hy3_cuda_upload(s, HY3_SLOT_POINTERS, g.pointers, 3 * n * sizeof *device, &device);
    if (status != HY3_OK || g.count == 0) {
        free(memory);
        return status;
    }
    error = HY3_CUDA_WATCHED(
        "cublasGemmGroupedBatchedEx",
        cublasGemmGroupedBatchedEx(b->grouped, g.first, g.second, g.m, g.n, g.k, g.alpha, device,
                                   type_of(a->dtype), g.ldb, device + n, type_of(a->dtype), g.lda,
                                   g.beta, (void *const *)(device + 2 * n), type_of(a->c_dtype),
                                   g.ldc, g.count, g.size, CUBLAS_COMPUTE_32F));
    free(memory);
    HY3_CUBLAS_TRY(error);
    return HY3_OK;
}

hy3_status hy3_cuda_grouped_gemm(struct hy3_stream *stream, const struct hy3_grouped_gemm *a)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);

    if (a->groups == 0)
        return HY3_OK;
    /* a grouped call rejects bf16 inputs with fp32 results, which weight gradients are */
    if (a->c_dtype != a->dtype || a->starts[a->groups] / a->groups >= hy3_cuda_grouped_rows)
        return in_streams(s, a);
    return in_one_call(s, a);
}
