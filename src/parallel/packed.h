/* SPDX-License-Identifier: Apache-2.0 */
/* packed.h - a unit of frozen weights in 8 bits.
 *
 * Its image is what is kept, sliced, gathered and offloaded: the tensors one after the other, each
 * at a multiple of HY3_PARAM_ALIGN bytes, matrices as E4M3 codes, vectors in the dtype of the
 * computation. The scales lie beside it, whole on each rank, in device memory: 4 bytes for 128 x
 * 128 codes, or for a row; each matrix has room for the more numerous of both. A gathered unit is
 * expanded to what kernels read. */
#pragma once

#include "backend/backend.h"
#include "base/span.h"
#include "model/params.h"

struct hy3_packed; /* opaque */

/* Scales of some matrices of a parameter. An expert's tensor is a matrix, or two: gate and up; they
 * are counted over all experts (hy3_name_piece). */
struct hy3_matrix_scales {
    struct hy3_span matrices;
    int64_t rows, columns; /* of a block with one scale: 128 x 128, a row, or all of the matrix */
    int64_t stride;        /* scales of a matrix */
    const float *values;   /* [matrices.count,stride] host; NULL: zero until they are found */
};

/* The matrices of a whole parameter with more than one dimension. */
struct hy3_matrices {
    int64_t count, rows, columns;
};

/* Local. Experts have two each where their tensor has an inner name for both halves. */
struct hy3_matrices hy3_packed_matrices(const struct hy3_param *param);

/* Where a tensor lies in the image. */
struct hy3_packed_place {
    int64_t offset, width; /* bytes: of its first held element, of each */
};

/* Whether a unit is packed where weights are in 8 bits: the dense part of a layer or its experts,
 * if nothing of it is trained. */
bool hy3_packed_is_for(const struct hy3_params *params, int unit);

/* Local. dtype: of the computation. All weights are zero. `backend` and `params` are kept. Errors:
 * HY3_ENOMEM. */
hy3_status hy3_packed_open(const struct hy3_backend *backend, const struct hy3_params *params,
                           int unit, hy3_dtype dtype, struct hy3_packed **out);
void hy3_packed_close(struct hy3_packed *packed); /* NULL is fine */

int64_t hy3_packed_bytes(const struct hy3_packed *packed);      /* of the image */
size_t hy3_packed_scale_bytes(const struct hy3_packed *packed); /* beside it */
struct hy3_packed_place hy3_packed_place(const struct hy3_packed *packed,
                                         const struct hy3_param *param);

/* Local. whole: the unit as kernels read it, from its image. */
hy3_status hy3_packed_expand(const struct hy3_packed *packed, struct hy3_stream *stream,
                             const char *image, char *whole);

/* Local. Sets the scales of the matrices that this rank holds. Synchronises. */
hy3_status hy3_packed_put_scales(struct hy3_packed *packed, const struct hy3_param *param,
                                 const struct hy3_matrix_scales *scales);

/* Local. Converts held elements between codes and fp32 by the scales as they are: out and in
 * [span.count] host. What is read is rounded to the dtype of the computation. Synchronises. */
hy3_status hy3_packed_decode(const struct hy3_packed *packed, const struct hy3_param *param,
                             struct hy3_span span, const hy3_fp8 *codes, float *out);
hy3_status hy3_packed_encode(const struct hy3_packed *packed, const struct hy3_param *param,
                             struct hy3_span span, const float *in, hy3_fp8 *codes);

/* Local. Quantizes rows of a held matrix whose blocks are 128 x 128: from a multiple of 128 on, up
 * to another or the last. Their scales are set. x: [rows.count,columns] device; codes: as many =,
 * device. */
hy3_status hy3_packed_quantize(struct hy3_packed *packed, const struct hy3_param *param,
                               int64_t matrix, struct hy3_span rows, const void *x, hy3_dtype dtype,
                               hy3_fp8 *codes);

/* Collective on `group`, whose ranks have quantized different rows of the same unit: all get all
 * scales. */
hy3_status hy3_packed_share_scales(struct hy3_packed *packed, const struct hy3_group *group);
