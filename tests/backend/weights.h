/* SPDX-License-Identifier: Apache-2.0 */
/* weights.h - the case of kernels.c that is about 8-bit weights. */
#pragma once

#include "backend/arrays.h"
#include "backend/kernels.h"

/* Both directions, for the three forms of scales: exact. Some blocks are all zero, some tiny. */
static void scaled_case(const struct hy3_kernels *k, const struct dims *d)
{
    int64_t N = d->T, K = d->H, n = N * K;
    const int64_t forms[][2] = {{128, 128}, {1, K}, {N > 0 ? N : 1, K}, {7, 32}};

    for (size_t form = 0; N > 0 && form < sizeof forms / sizeof *forms; form++) {
        int64_t rows = forms[form][0], columns = forms[form][1];
        int64_t stride = hy3_blocks(N, rows) * hy3_blocks(K, columns) + 3;
        struct hy3_quantize q = {
            .N = N, .K = K, .rows = rows, .columns = columns, .dtype = d->dtype};
        hy3_fp8 *codes = out_exact(3 * n, 1);
        float *scales = out_exact(3 * stride, sizeof *scales);
        struct hy3_expand e = {3, N, K, rows, columns, stride, codes, scales, d->dtype, NULL};

        for (int64_t m = 0; m < 3; m++) {
            float *x = buffer((size_t)n * sizeof *x);
            struct hy3_cast cast = {.n = n, .y_dtype = d->dtype, .x = x};
            const float *drawn = in(n, HY3_FP32);

            for (int64_t i = 0; i < n; i++)
                x[i] = m == 1 && i < n / 2 ? 0 : m == 2 ? drawn[i] * 0x1p-126f : drawn[i];
            cast.y = buffer((size_t)n * hy3_dtype_size(d->dtype));
            assert_ok(k->cast(NULL, &cast));
            q.x = cast.y;
            q.y = codes + m * n;
            q.scales = scales + m * stride;
            assert_ok(k->quantize(NULL, &q));
        }
        e.y = out_exact(3 * n, hy3_dtype_size(d->dtype));
        assert_ok(k->expand(NULL, &e));
    }
}
