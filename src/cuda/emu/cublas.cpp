// cublas.cpp - stands in for cuBLAS: plain loops, stream-ordered, with the checks that a wrong call would need.
#include "cuda/emu/emu.h"

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
    float alpha, beta;
    const void *A, *B;
    void *C;
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

API cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                 int k, const void *alpha, const void *A, cudaDataType a_type, int lda,
                 const void *B, cudaDataType b_type, int ldb, const void *beta, void *C,
                 cudaDataType c_type, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t)
{
    product p = {ta != CUBLAS_OP_N,
                 tb != CUBLAS_OP_N,
                 m,
                 n,
                 k,
                 *(const float *)alpha,
                 *(const float *)beta,
                 A,
                 B,
                 C,
                 a_type,
                 c_type,
                 lda,
                 ldb,
                 ldc};
    cublasStatus_t status = a_type == b_type ? judge(p, compute) : CUBLAS_STATUS_NOT_SUPPORTED;

    MAY_FAIL;
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    hy3_emu_check_pointer("cublasGemmEx", 7, A);
    hy3_emu_check_pointer("cublasGemmEx", 10, B);
    hy3_emu_check_pointer("cublasGemmEx", 14, C);
    hy3_emu_enqueue(handle->stream, [=] { multiply(p); });
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
    /* the arrays of pointers live on the device */
    hy3_emu_check_pointer("cublasGemmGroupedBatchedEx", 7, A);
    hy3_emu_check_pointer("cublasGemmGroupedBatchedEx", 10, B);
    hy3_emu_check_pointer("cublasGemmGroupedBatchedEx", 14, C);
    for (int i = 0; i < groups; i++) {
        product p = {ta[i] != CUBLAS_OP_N,
                     tb[i] != CUBLAS_OP_N,
                     m[i],
                     n[i],
                     k[i],
                     ((const float *)alpha)[i],
                     ((const float *)beta)[i],
                     nullptr,
                     nullptr,
                     nullptr,
                     a_type,
                     c_type,
                     lda[i],
                     ldb[i],
                     ldc[i]};
        cublasStatus_t status = a_type == b_type ? judge(p, compute) : CUBLAS_STATUS_NOT_SUPPORTED;

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
