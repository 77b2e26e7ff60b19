/* SPDX-License-Identifier: Apache-2.0 */
/* cublas.cpp - replaces cuBLAS: plain loops, stream-ordered, which check their arguments. */
#include "cuda/emulation/emu.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>

#include <string.h>
#include <vector>

struct cublasContext {
    cudaStream_t stream;
};

#define API extern "C" cublasStatus_t CUBLASWINAPI
#define MAY_FAIL                                   \
    do {                                           \
        if (hy3_emu_fails(__func__))               \
            return CUBLAS_STATUS_EXECUTION_FAILED; \
    } while (0)

API cublasCreate_v2(cublasHandle_t *handle)
{
    if (hy3_emu_fails(__func__))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasContext{nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

API cublasDestroy_v2(cublasHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

API cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    MAY_FAIL;
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

API cublasSetWorkspace_v2(cublasHandle_t, void *workspace, size_t)
{
    MAY_FAIL;
    hy3_emu_check_pointer("cublasSetWorkspace", 1, workspace);
    return (uintptr_t)workspace % 256 ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}

extern "C" const char *CUBLASWINAPI cublasGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS           ? "success"
           : status == CUBLAS_STATUS_NOT_INITIALIZED ? "the library was not initialized"
           : status == CUBLAS_STATUS_INVALID_VALUE   ? "an unsupported value was passed"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "the functionality requested is not supported"
                                                   : "the function failed to launch on the GPU";
}

namespace
{

bool is_supported(cudaDataType_t type)
{
    return type == CUDA_R_16BF || type == CUDA_R_32F;
}

float at(const void *matrix, cudaDataType_t type, size_t i)
{
    return type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)matrix)[i])
                               : ((const float *)matrix)[i];
}

struct product {
    bool ta, tb;
    int m, n, k;
    float alpha = 1, beta = 0;
    const void *A = nullptr, *B = nullptr;
    void *C = nullptr;
    cudaDataType_t type, c_type;
    int lda, ldb, ldc;
};

/* rows [count][k] of fp32 of op(X), or of its transpose. */
std::vector<float> widen(const void *X, cudaDataType_t type, int ld, bool along_columns, int count,
                         int k)
{
    std::vector<float> out((size_t)count * (size_t)k);

    for (size_t i = 0; i < (size_t)count; i++)
        for (size_t l = 0; l < (size_t)k; l++)
            out[i * (size_t)k + l] =
                at(X, type, along_columns ? i * (size_t)ld + l : l * (size_t)ld + i);
    return out;
}

void multiply(const product &p)
{
    std::vector<float> a = widen(p.A, p.type, p.lda, p.ta, p.m, p.k);
    std::vector<float> b = widen(p.B, p.type, p.ldb, !p.tb, p.n, p.k);

    for (int j = 0; j < p.n; j++) {
        for (int i = 0; i < p.m; i++) {
            const float *x = &a[(size_t)i * (size_t)p.k], *y = &b[(size_t)j * (size_t)p.k];
            float part[8] = {0}, sum;
            size_t place = (size_t)j * (size_t)p.ldc + (size_t)i;
            int l = 0;

            for (; l + 8 <= p.k; l += 8)
                for (int q = 0; q < 8; q++)
                    part[q] += x[l + q] * y[l + q];
            for (; l < p.k; l++)
                part[0] += x[l] * y[l];
            sum = ((part[0] + part[4]) + (part[2] + part[6])) +
                  ((part[1] + part[5]) + (part[3] + part[7]));
            sum = p.alpha * sum + (p.beta != 0 ? p.beta * at(p.C, p.c_type, place)
                                               : 0); /* beta 0 does not read C */
            if (p.c_type == CUDA_R_16BF)
                ((__nv_bfloat16 *)p.C)[place] = __float2bfloat16(sum);
            else
                ((float *)p.C)[place] = sum;
        }
    }
}

cublasStatus_t judge(const product &p, cublasComputeType_t compute)
{
    if (compute != CUBLAS_COMPUTE_32F || !is_supported(p.type) || !is_supported(p.c_type) ||
        (p.type == CUDA_R_32F && p.c_type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.m < 0 || p.n < 0 || p.k < 0 || p.lda < (p.ta ? p.k : p.m) || p.ldb < (p.tb ? p.n : p.k) ||
        p.ldc < p.m)
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

/* ---- cublasLt: the opaque words of a descriptor hold these structs ---- */

namespace
{

struct operation {
    cublasComputeType_t compute;
    int32_t first, second; /* cublasOperation_t */
};

struct layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t ld;
};

struct preference {
    size_t workspace;
    uint32_t alignment[4]; /* of A, B, C, D */
};

/* What an algorithm was chosen for. */
struct algorithm {
    uint32_t n, k, alignment;
};

template <class T> T &in(void *opaque)
{
    return *(T *)opaque;
}

template <class T> const T &in(const void *opaque)
{
    return *(const T *)opaque;
}

} // namespace

API cublasLtCreate(cublasLtHandle_t *handle)
{
    if (hy3_emu_fails(__func__))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = (cublasLtHandle_t) new int;
    return CUBLAS_STATUS_SUCCESS;
}

API cublasLtDestroy(cublasLtHandle_t handle)
{
    delete (int *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

API cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t out, size_t, cublasComputeType_t compute,
                                    cudaDataType_t)
{
    in<operation>(out) = {compute, CUBLAS_OP_N, CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}

API cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t out,
                                   cublasLtMatmulDescAttributes_t attribute, const void *value,
                                   size_t size)
{
    operation &o = in<operation>(out);

    if (size != sizeof(int32_t) ||
        (attribute != CUBLASLT_MATMUL_DESC_TRANSA && attribute != CUBLASLT_MATMUL_DESC_TRANSB))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(attribute == CUBLASLT_MATMUL_DESC_TRANSA ? &o.first : &o.second, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

API cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t out, size_t, cudaDataType type,
                                      uint64_t rows, uint64_t columns, int64_t ld)
{
    in<layout>(out) = {type, rows, columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}

API cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t out, size_t)
{
    in<preference>(out) = {0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

API cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t out,
                                         cublasLtMatmulPreferenceAttributes_t attribute,
                                         const void *value, size_t size)
{
    preference &p = in<preference>(out);
    uint32_t place = (uint32_t)attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;

    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && size == sizeof p.workspace)
        memcpy(&p.workspace, value, size);
    else if (place < 4 && size == sizeof *p.alignment)
        memcpy(&p.alignment[place], value, size);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

namespace
{

/* The product of these descriptors, without its matrices. */
cublasStatus_t describe(const operation &o, const layout &a, const layout &b, const layout &c,
                        product *out)
{
    bool ta = o.first != CUBLAS_OP_N, tb = o.second != CUBLAS_OP_N;
    uint64_t k = ta ? a.rows : a.columns;

    if (a.type != b.type || c.rows != (ta ? a.columns : a.rows) ||
        c.columns != (tb ? b.rows : b.columns) || k != (tb ? b.columns : b.rows))
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = {.ta = ta,
            .tb = tb,
            .m = (int)c.rows,
            .n = (int)c.columns,
            .k = (int)k,
            .type = a.type,
            .c_type = c.type,
            .lda = (int)a.ld,
            .ldb = (int)b.ld,
            .ldc = (int)c.ld};
    return judge(*out, o.compute);
}

} // namespace

API cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                   cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                   cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
                                   cublasLtMatmulPreference_t wanted, int asked,
                                   cublasLtMatmulHeuristicResult_t results[], int *count)
{
    const preference &p = in<preference>(wanted);
    product unused;
    cublasStatus_t status =
        describe(in<operation>(desc), in<layout>(a), in<layout>(b), in<layout>(c), &unused);
    uint32_t alignment = 256;

    MAY_FAIL;
    for (uint32_t of_pointer : p.alignment)
        alignment = of_pointer < alignment ? of_pointer : alignment;
    *count = status == CUBLAS_STATUS_SUCCESS && asked > 0;
    if (*count == 0)
        return status;
    results[0] = {};
    in<algorithm>(&results[0].algo) = {(uint32_t)unused.n, (uint32_t)unused.k, alignment};
    results[0].workspaceSize = p.workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

/* An algorithm rejects matrices that are less aligned or larger than those it was chosen for, and a
 * single row if it was chosen for more, as cuBLAS may. */
API cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *A,
                   cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b,
                   const void *beta, const void *C, cublasLtMatrixLayout_t c, void *D,
                   cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *algo, void *workspace,
                   size_t workspace_size, cudaStream_t stream)
{
    const algorithm &chosen = in<algorithm>(algo);
    product p;
    cublasStatus_t status =
        describe(in<operation>(desc), in<layout>(a), in<layout>(b), in<layout>(c), &p);
    uintptr_t bits = (uintptr_t)A | (uintptr_t)B | (uintptr_t)C | (uintptr_t)workspace;

    MAY_FAIL;
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (C != D || bits % chosen.alignment != 0 || workspace_size == 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((uint32_t)p.n > chosen.n || (uint32_t)p.k > chosen.k || (p.n == 1 && chosen.n > 1) ||
        (p.k == 1 && chosen.k > 1))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    p.alpha = *(const float *)alpha;
    p.beta = *(const float *)beta;
    p.A = A;
    p.B = B;
    p.C = D;
    hy3_emu_check_pointer("cublasLtMatmul", 4, A);
    hy3_emu_check_pointer("cublasLtMatmul", 6, B);
    hy3_emu_check_pointer("cublasLtMatmul", 11, D);
    hy3_emu_check_pointer("cublasLtMatmul", 14, workspace);
    hy3_emu_enqueue(stream, [=] { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}

API cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t ta[],
                               const cublasOperation_t tb[], const int m[], const int n[],
                               const int k[], const void *alpha, const void *const A[],
                               cudaDataType_t a_type, const int lda[], const void *const B[],
                               cudaDataType_t b_type, const int ldb[], const void *beta,
                               void *const C[], cudaDataType_t c_type, const int ldc[], int groups,
                               const int size[], cublasComputeType_t compute)
{
    std::vector<product> products;
    std::vector<int> sizes(size, size + groups);

    MAY_FAIL;
    /* the arrays of pointers are in device memory */
    hy3_emu_check_pointer("cublasGemmGroupedBatchedEx", 7, A);
    hy3_emu_check_pointer("cublasGemmGroupedBatchedEx", 10, B);
    hy3_emu_check_pointer("cublasGemmGroupedBatchedEx", 14, C);
    for (int i = 0; i < groups; i++) {
        product p = {.ta = ta[i] != CUBLAS_OP_N,
                     .tb = tb[i] != CUBLAS_OP_N,
                     .m = m[i],
                     .n = n[i],
                     .k = k[i],
                     .alpha = ((const float *)alpha)[i],
                     .beta = ((const float *)beta)[i],
                     .type = a_type,
                     .c_type = c_type,
                     .lda = lda[i],
                     .ldb = ldb[i],
                     .ldc = ldc[i]};
        /* an H200 rejected bf16 with results in fp32 */
        cublasStatus_t status =
            a_type == b_type && c_type == a_type ? judge(p, compute) : CUBLAS_STATUS_NOT_SUPPORTED;

        if (status != CUBLAS_STATUS_SUCCESS)
            return status;
        products.push_back(p);
    }
    hy3_emu_enqueue(handle->stream, [=] {
        int at = 0;

        for (size_t i = 0; i < products.size(); i++)
            for (int j = 0; j < sizes[i]; j++, at++) {
                product p = products[i];

                p.A = A[at];
                p.B = B[at];
                p.C = C[at];
                hy3_emu_check_pointer("grouped product A[]", at, p.A);
                hy3_emu_check_pointer("grouped product B[]", at, p.B);
                hy3_emu_check_pointer("grouped product C[]", at, p.C);
                multiply(p);
            }
    });
    return CUBLAS_STATUS_SUCCESS;
}
