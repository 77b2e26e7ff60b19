/* SPDX-License-Identifier: Apache-2.0 */
/* product.c - the choice of the kernel, and the dimension of the rows. */
#include "model/product.h"

hy3_status hy3_product_run(const struct hy3_layer *l, enum hy3_param_kind kind,
                           const struct hy3_product *p)
{
    if (hy3_kind_is_expert(kind))
        return l->backend->kernels.grouped_gemm(
            l->stream, &(struct hy3_grouped_gemm){.form = p->form,
                                                  .groups = l->experts->groups,
                                                  .starts = l->experts->starts,
                                                  .M = p->M,
                                                  .N = p->N,
                                                  .K = p->K,
                                                  .dtype = l->dtype,
                                                  .c_dtype = p->c_dtype,
                                                  .accumulate = p->accumulate,
                                                  .alpha = p->alpha,
                                                  .A = p->A,
                                                  .B = p->B,
                                                  .C = p->C});
    return l->backend->kernels.gemm(l->stream,
                                    &(struct hy3_gemm){.form = p->form,
                                                       .M = p->form == HY3_TN ? p->M : l->tokens.T,
                                                       .N = p->N,
                                                       .K = p->form == HY3_TN ? l->tokens.T : p->K,
                                                       .dtype = l->dtype,
                                                       .c_dtype = p->c_dtype,
                                                       .accumulate = p->accumulate,
                                                       .alpha = p->alpha,
                                                       .A = p->A,
                                                       .B = p->B,
                                                       .C = p->C});
}
