/* gemm.cu - matrix products by cuBLAS: fp32 accumulation, no TF32, a workspace of fixed size, so that bytes do not change from run
 * to run. Row-major C = A B is cuBLAS's column-major C^T = B^T A^T. */
#include "cuda/cuda.h"

#include <stdlib.h>

static const size_t WORKSPACE = (size_t)32 << 20; /* a lane's: what NVIDIA recommends for sm_90 */

/* Groups of fewer rows than this go to one grouped call, larger ones to cublasGemmEx on HY3_CUDA_LANES streams. Published figures for
 * H100 (doc/gpu.md) put the crossing between 64 and 512 rows; `make gpu-check` measures it. */
int64_t hy3_cuda_grouped_rows = 64;

static cudaDataType_t type_of(hy3_dtype dtype)
{
    return dtype == HY3_FP32 ? CUDA_R_32F : CUDA_R_16BF;
}

static hy3_status open_lane(struct hy3_stream *s, int lane)
{
    if (s->blas[lane])
        return HY3_OK;
    if (lane > 0)
        HY3_CUDA_TRY(cudaStreamCreateWithFlags(&s->lanes[lane], cudaStreamNonBlocking));
    HY3_CUDA_TRY(cudaEventCreateWithFlags(&s->ended[lane], cudaEventDisableTiming));
    HY3_CUBLAS_TRY(cublasCreate(&s->blas[lane]));
    HY3_CUBLAS_TRY(cublasSetStream(s->blas[lane], lane > 0 ? s->lanes[lane] : s->stream));
    return HY3_OK;
}

/* Handles and workspace for `lanes` streams. */
static hy3_status open_blas(struct hy3_stream *s, int lanes)
{
    void *before = s->scratch[HY3_SLOT_BLAS].memory, *workspace;

    if (!s->begun)
        HY3_CUDA_TRY(cudaEventCreateWithFlags(&s->begun, cudaEventDisableTiming));
    for (int lane = 0; lane < lanes; lane++)
        HY3_STATUS_TRY(open_lane(s, lane));
    HY3_STATUS_TRY(hy3_cuda_scratch(s, HY3_SLOT_BLAS, (size_t)lanes * WORKSPACE, &workspace));
    for (int lane = 0; lane < HY3_CUDA_LANES && workspace != before; lane++)
        if (s->blas[lane])
            HY3_CUBLAS_TRY(cublasSetWorkspace(
                s->blas[lane], (char *)workspace + (size_t)lane * WORKSPACE, WORKSPACE));
    return HY3_OK;
}

void hy3_cuda_close_blas(struct hy3_stream *s)
{
    for (int lane = 0; lane < HY3_CUDA_LANES; lane++) {
        if (s->blas[lane])
            (void)cublasDestroy(s->blas[lane]);
        if (s->ended[lane])
            (void)cudaEventDestroy(s->ended[lane]);
        if (s->lanes[lane])
            (void)cudaStreamDestroy(s->lanes[lane]);
    }
    if (s->begun)
        (void)cudaEventDestroy(s->begun);
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

static hy3_status multiply(cublasHandle_t blas, cudaStream_t stream, const struct hy3_gemm *g)
{
    struct shape s = shape_of(g->form, g->M, g->N, g->K);
    float beta = g->accumulate ? 1 : 0;

    if (g->M == 0 || g->N == 0)
        return HY3_OK;
    if (g->K == 0) {
        if (!g->accumulate)
            HY3_CUDA_TRY(cudaMemsetAsync(
                g->C, 0, (size_t)(g->M * g->N) * hy3_dtype_size(g->c_dtype), stream));
        return HY3_OK;
    }
    HY3_CUBLAS_TRY(cublasGemmEx(blas, s.first, s.second, s.m, s.n, s.k, &g->alpha, g->B,
                                type_of(g->dtype), s.ldb, g->A, type_of(g->dtype), s.lda, &beta,
                                g->C, type_of(g->c_dtype), s.ldc, CUBLAS_COMPUTE_32F,
                                CUBLAS_GEMM_DEFAULT));
    return HY3_OK;
}

hy3_status hy3_cuda_gemm(struct hy3_stream *stream, const struct hy3_gemm *g)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);

    HY3_STATUS_TRY(open_blas(s, 1));
    return multiply(s->blas[0], s->stream, g);
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
    HY3_STATUS_TRY(open_blas(s, HY3_CUDA_LANES));
    HY3_CUDA_TRY(cudaEventRecord(s->begun, s->stream));
    for (int lane = 1; lane < HY3_CUDA_LANES; lane++)
        HY3_CUDA_TRY(cudaStreamWaitEvent(s->lanes[lane], s->begun, 0));
    for (int64_t i = 0; i < a->groups; i++) {
        struct hy3_gemm g = group_of(a, i);
        int lane = (int)(i % HY3_CUDA_LANES);

        HY3_STATUS_TRY(multiply(s->blas[lane], lane > 0 ? s->lanes[lane] : s->stream, &g));
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
            HY3_STATUS_TRY(multiply(s->blas[0], s->stream, &g));
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
        s->blas[0], g.first, g.second, g.m, g.n, g.k, g.alpha, device, type_of(a->dtype), g.ldb,
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
    if (a->starts[a->groups] / a->groups >= hy3_cuda_grouped_rows)
        return in_lanes(s, a);
    HY3_STATUS_TRY(open_blas(s, 1));
    HY3_STATUS_TRY(clear_empty(s, a));
    return in_one_call(s, a);
}
