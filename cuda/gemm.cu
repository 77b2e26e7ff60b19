/* SPDX-License-Identifier: Apache-2.0 */
/* gemm.cu - matrix products by cuBLAS: fp32 accumulation, no TF32, a workspace of fixed size, so
 * that bytes do not change from run to run. Row-major C = A B is cuBLAS's column-major C^T = B^T
 * A^T.
 *
 * cuBLAS takes 0.1 to 0.3 ms of the host to choose an algorithm for sizes it has not met, and the
 * rows of a micro-batch or an expert are other ones every time: with that choice left to it,
 * experts' products ran at a tenth of what an H200 can do. So algorithms are chosen for rows
 * rounded up (`rounded`) and kept. */
#include "cuda/cuda.h"

#include <cublasLt.h>

#include <stdlib.h>
#include <string.h>

static const size_t WORKSPACE = (size_t)32 << 20; /* a lane's: what NVIDIA recommends for sm_90 */

/* Groups of fewer rows than this go to one grouped call, larger ones to HY3_CUDA_LANES streams. On
 * an H200, 24 experts [3072,4096]: 16 rows each 180 us and 279 us, 64 rows 212 and 339, 256 rows
 * 522 and 329, 1024 rows 1950 and 918 (`make gpu-check`). */
int64_t hy3_cuda_grouped_rows = 128;

static cudaDataType_t type_of(hy3_dtype dtype)
{
    return dtype == HY3_FP32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* What decides on an algorithm. No gaps: compared as bytes. */
struct key {
    int64_t M, N, K;
    int32_t form, dtype, c_dtype, alignment; /* bytes, of all three matrices */
};

struct hy3_cuda_algorithms {
    enum { PLACES = 1024, MOST = 700 };

    struct {
        struct key key; /* N 0: free */
        cublasLtMatmulAlgo_t algorithm;
    } places[PLACES];

    int count;
};

/* Streams, events and workspace of `lanes` lanes. */
static hy3_status open_lanes(struct hy3_stream *s, int lanes)
{
    void *workspace;

    if (!s->lt) {
        HY3_CUBLAS_TRY(cublasLtCreate(&s->lt));
        HY3_CUDA_TRY(cudaEventCreateWithFlags(&s->begun, cudaEventDisableTiming));
        s->algorithms = (struct hy3_cuda_algorithms *)calloc(1, sizeof *s->algorithms);
        if (!s->algorithms)
            return hy3_cuda_failed("calloc", "out of host memory", true, __FILE__, __LINE__);
    }
    for (int lane = 1; lane < lanes; lane++) {
        if (!s->lanes[lane])
            HY3_CUDA_TRY(cudaStreamCreateWithFlags(&s->lanes[lane], cudaStreamNonBlocking));
        if (!s->ended[lane])
            HY3_CUDA_TRY(cudaEventCreateWithFlags(&s->ended[lane], cudaEventDisableTiming));
    }
    HY3_STATUS_TRY(hy3_cuda_scratch(s, HY3_SLOT_BLAS, (size_t)lanes * WORKSPACE, &workspace));
    return HY3_OK;
}

/* The handle of grouped calls. Its workspace is lane 0's, which may have moved. */
static hy3_status open_blas(struct hy3_stream *s)
{
    HY3_STATUS_TRY(open_lanes(s, 1));
    if (!s->blas) {
        HY3_CUBLAS_TRY(cublasCreate(&s->blas));
        HY3_CUBLAS_TRY(cublasSetStream(s->blas, s->stream));
    }
    HY3_CUBLAS_TRY(cublasSetWorkspace(s->blas, s->scratch[HY3_SLOT_BLAS].memory, WORKSPACE));
    return HY3_OK;
}

void hy3_cuda_close_blas(struct hy3_stream *s)
{
    for (int lane = 0; lane < HY3_CUDA_LANES; lane++) {
        if (s->ended[lane])
            (void)cudaEventDestroy(s->ended[lane]);
        if (s->lanes[lane])
            (void)cudaStreamDestroy(s->lanes[lane]);
    }
    if (s->blas)
        (void)cublasDestroy(s->blas);
    if (s->lt)
        (void)cublasLtDestroy(s->lt);
    if (s->begun)
        (void)cudaEventDestroy(s->begun);
    free(s->algorithms);
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
static hy3_status choose(struct hy3_stream *s, const struct hy3_gemm *g, uint32_t alignment,
                         cublasLtMatmulAlgo_t *algorithm)
{
    static const cublasLtMatmulPreferenceAttributes_t of_pointers[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t found;
    struct product p;
    int count = 0;

    HY3_STATUS_TRY(describe(g, &p));
    HY3_CUBLAS_TRY(cublasLtMatmulPreferenceInit(&preference));
    HY3_CUBLAS_TRY(cublasLtMatmulPreferenceSetAttribute(
        &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE));
    for (cublasLtMatmulPreferenceAttributes_t pointer : of_pointers)
        HY3_CUBLAS_TRY(cublasLtMatmulPreferenceSetAttribute(&preference, pointer, &alignment,
                                                            sizeof alignment));
    HY3_CUBLAS_TRY(cublasLtMatmulAlgoGetHeuristic(s->lt, &p.operation, &p.first, &p.second,
                                                  &p.result, &p.result, &preference, 1, &found,
                                                  &count));
    HY3_CUBLAS_TRY(count > 0 ? found.state : CUBLAS_STATUS_NOT_SUPPORTED);
    *algorithm = found.algo;
    return HY3_OK;
}

/* Rows up to the next size that algorithms are chosen for: an eighth more at most, from 128 on. */
static int64_t rounded(int64_t rows)
{
    int64_t step = 16;

    while (step * 16 <= rows)
        step *= 2;
    return (rows + step - 1) / step * step;
}

/* The product with so many rows as its algorithm is chosen for. */
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

/* The algorithm for a product; chosen at its first use. What is forgotten is chosen again, the
 * same. */
static hy3_status find_algorithm(struct hy3_stream *s, const struct hy3_gemm *g,
                                 cublasLtMatmulAlgo_t **out)
{
    struct hy3_cuda_algorithms *known = s->algorithms;
    const struct hy3_gemm like = as_chosen(g);
    uint32_t alignment = alignment_of(g);
    const struct key key = {like.M,
                            like.N,
                            like.K,
                            (int32_t)g->form,
                            (int32_t)g->dtype,
                            (int32_t)g->c_dtype,
                            (int32_t)alignment};
    size_t at = hash_of(&key) % known->PLACES;

    if (known->count == known->MOST)
        memset(known, 0, sizeof *known);
    while (known->places[at].key.N != 0 && memcmp(&known->places[at].key, &key, sizeof key) != 0)
        at = (at + 1) % known->PLACES;
    *out = &known->places[at].algorithm;
    if (known->places[at].key.N != 0)
        return HY3_OK;
    HY3_STATUS_TRY(choose(s, &like, alignment, *out));
    known->places[at].key = key;
    known->count++;
    return HY3_OK;
}

static cublasStatus_t run(struct hy3_stream *s, int lane, const struct hy3_gemm *g,
                          const struct product *p, const cublasLtMatmulAlgo_t *algorithm)
{
    float beta = g->accumulate ? 1 : 0;
    char *workspace = (char *)s->scratch[HY3_SLOT_BLAS].memory + (size_t)lane * WORKSPACE;

    return cublasLtMatmul(
        s->lt, (cublasLtMatmulDesc_t)&p->operation, &g->alpha, g->B,
        (cublasLtMatrixLayout_t)&p->first, g->A, (cublasLtMatrixLayout_t)&p->second, &beta, g->C,
        (cublasLtMatrixLayout_t)&p->result, g->C, (cublasLtMatrixLayout_t)&p->result, algorithm,
        workspace, WORKSPACE, lane > 0 ? s->lanes[lane] : s->stream);
}

/* On a lane, 0 being the stream itself. */
static hy3_status multiply(struct hy3_stream *s, int lane, const struct hy3_gemm *g)
{
    cublasLtMatmulAlgo_t *algorithm, own;
    struct product p;
    cublasStatus_t result;

    if (g->M == 0 || g->N == 0)
        return HY3_OK;
    if (g->K == 0) {
        if (!g->accumulate)
            HY3_CUDA_TRY(cudaMemsetAsync(g->C, 0,
                                         (size_t)(g->M * g->N) * hy3_dtype_size(g->c_dtype),
                                         lane > 0 ? s->lanes[lane] : s->stream));
        return HY3_OK;
    }
    HY3_STATUS_TRY(find_algorithm(s, g, &algorithm));
    HY3_STATUS_TRY(describe(g, &p));
    result = run(s, lane, g, &p, algorithm);
    if (result == CUBLAS_STATUS_NOT_SUPPORTED || result == CUBLAS_STATUS_INVALID_VALUE) {
        /* it does not do so few rows: one for these alone */
        HY3_STATUS_TRY(choose(s, g, alignment_of(g), &own));
        result = run(s, lane, g, &p, &own);
    }
    if (result != CUBLAS_STATUS_SUCCESS)
        return hy3_cuda_failed("cublasLtMatmul", cublasGetStatusString(result),
                               result == CUBLAS_STATUS_ALLOC_FAILED, __FILE__, __LINE__);
    return HY3_OK;
}

hy3_status hy3_cuda_gemm(struct hy3_stream *stream, const struct hy3_gemm *g)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);

    HY3_STATUS_TRY(open_lanes(s, 1));
    return multiply(s, 0, g);
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

/* Each group on the next of the streams; the stream goes on after all of them. */
static hy3_status in_lanes(struct hy3_stream *s, const struct hy3_grouped_gemm *a)
{
    HY3_STATUS_TRY(open_lanes(s, HY3_CUDA_LANES));
    HY3_CUDA_TRY(cudaEventRecord(s->begun, s->stream));
    for (int lane = 1; lane < HY3_CUDA_LANES; lane++)
        HY3_CUDA_TRY(cudaStreamWaitEvent(s->lanes[lane], s->begun, 0));
    for (int64_t i = 0; i < a->groups; i++) {
        struct hy3_gemm g = group_of(a, i);

        HY3_STATUS_TRY(multiply(s, (int)(i % HY3_CUDA_LANES), &g));
    }
    for (int lane = 1; lane < HY3_CUDA_LANES; lane++) {
        HY3_CUDA_TRY(cudaEventRecord(s->ended[lane], s->lanes[lane]));
        HY3_CUDA_TRY(cudaStreamWaitEvent(s->stream, s->ended[lane], 0));
    }
    return HY3_OK;
}

/* Host arrays of one grouped call; each group is a group of one product. */
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

/* The weight gradients of groups without rows, where they are not added to. */
static hy3_status clear_empty(struct hy3_stream *s, const struct hy3_grouped_gemm *a)
{
    for (int64_t i = 0; i < a->groups && a->form == HY3_TN && !a->accumulate; i++) {
        struct hy3_gemm g = group_of(a, i);

        if (g.K == 0)
            HY3_STATUS_TRY(multiply(s, 0, &g));
    }
    return HY3_OK;
}

static hy3_status in_one_call(struct hy3_stream *s, const struct hy3_grouped_gemm *a)
{
    size_t n = (size_t)a->groups;
    char *memory =
        (char *)malloc(n * (2 * sizeof(cublasOperation_t) + 9 * 4 + 3 * sizeof(void *)) + 256);
    struct grouped g = {};
    const void **device;
    hy3_status status;
    cublasStatus_t error;

    if (!memory)
        return hy3_cuda_failed("malloc", "out of host memory", true, __FILE__, __LINE__);
    collect(a, memory, &g);
    status =
        hy3_cuda_upload(s, HY3_SLOT_POINTERS, g.pointers, 3 * n * sizeof *device, (void **)&device);
    if (status != HY3_OK || g.count == 0) {
        free(memory);
        return status;
    }
    error = cublasGemmGroupedBatchedEx(
        s->blas, g.first, g.second, g.m, g.n, g.k, g.alpha, device, type_of(a->dtype), g.ldb,
        device + n, type_of(a->dtype), g.lda, g.beta, (void *const *)(device + 2 * n),
        type_of(a->c_dtype), g.ldc, g.count, g.size, CUBLAS_COMPUTE_32F);
    free(memory);
    HY3_CUBLAS_TRY(error);
    return HY3_OK;
}

hy3_status hy3_cuda_grouped_gemm(struct hy3_stream *stream, const struct hy3_grouped_gemm *a)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);

    if (a->groups == 0)
        return HY3_OK;
    /* a grouped call takes no bf16 with fp32 results: gradients of weights */
    if (a->c_dtype != a->dtype || a->starts[a->groups] / a->groups >= hy3_cuda_grouped_rows)
        return in_lanes(s, a);
    HY3_STATUS_TRY(open_blas(s));
    HY3_STATUS_TRY(clear_empty(s, a));
    return in_one_call(s, a);
}
