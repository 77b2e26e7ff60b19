/* SPDX-License-Identifier: Apache-2.0 */
/* linear.c - one product forward, two backward. */
#include "model/linear.h"

#include "model/lora.h"
#include "model/product.h"

hy3_status hy3_linear_forward(const struct hy3_layer *l, enum hy3_param_kind kind, const void *x,
                              bool accumulate, void *y)
{
    struct hy3_product p = {.form = HY3_NT, .alpha = 1, .c_dtype = l->dtype};

    hy3_kind_matrix(l->shape, kind, &p.N, &p.K);
    p.accumulate = accumulate;
    p.A = x;
    p.B = l->params.weight[kind];
    p.C = y;
    HY3_TRY(hy3_product_run(l, kind, &p));
    return hy3_lora_forward(l, kind, x, y);
}

hy3_status hy3_linear_backward(const struct hy3_layer *l, enum hy3_param_kind kind, const void *x,
                               const void *dy, bool accumulate, void *dx)
{
    struct hy3_product p = {.alpha = 1, .A = dy};
    int64_t out = 0, in = 0;

    hy3_kind_matrix(l->shape, kind, &out, &in);
    p.N = in;
    if (l->params.grad[kind]) {
        p.form = HY3_TN;
        p.M = out;
        p.c_dtype = HY3_FP32;
        p.accumulate = true;
        p.B = x;
        p.C = l->params.grad[kind];
        HY3_TRY(hy3_product_run(l, kind, &p));
    }
    p.form = HY3_NN;
    p.K = out;
    p.c_dtype = l->dtype;
    p.accumulate = accumulate;
    p.B = l->params.weight[kind];
    p.C = dx;
    HY3_TRY(hy3_product_run(l, kind, &p));
    return hy3_lora_backward(l, kind, x, dy, dx);
}
