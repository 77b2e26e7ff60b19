/* SPDX-License-Identifier: Apache-2.0 */
/* product.h - one product with the matrix of a kind: plain, or grouped over the experts. */
#pragma once

#include "model/layer.h"

/* One of its dimensions is that of the rows, tokens or those of the experts: it is left out. */
struct hy3_product {
    enum hy3_gemm_form form;
    int64_t M, N, K;
    float alpha;
    bool accumulate;
    hy3_dtype c_dtype;
    const void *A, *B;
    void *C;
};

hy3_status hy3_product_run(const struct hy3_layer *layer, enum hy3_param_kind kind,
                           const struct hy3_product *product);
