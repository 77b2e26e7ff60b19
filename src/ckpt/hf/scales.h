/* SPDX-License-Identifier: Apache-2.0 */
/* scales.h - the scales of 8-bit tensors (F8_E4M3), whose weights are values times scales.
 *
 * The scales of a tensor NAME are NAME_scale_inv or NAME_scale; both multiply. Their shape tells
 * what has one: the tensor, each expert or half of it (gate, up), each row, or each block of 128 x
 * 128. NAME's input_scale and activation_scale, of activations in 8 bits, are ignored. */
#pragma once

#include "ckpt/hf/directory.h"

enum { HY3_SCALE_BLOCK = 128 };

/* The scales of M matrices [N,K], as struct hy3_expand (backend/kernels.h) has them. A fused tensor
 * of experts is a matrix for each expert and half. */
struct hy3_scales {
    int64_t M, N, K;
    int64_t rows, columns; /* of a block with one scale */
    int64_t stride;        /* scales of a matrix */
    float *values;         /* [M,stride] */
};

/* Reads the scales of a directory's tensors. */
struct hy3_scale_reader {
    const struct hy3_hf_dir *dir;
    struct hy3_shard *other; /* the last one opened beside the tensor's own; NULL: none */
    int number;
};

void hy3_scale_reader_close(struct hy3_scale_reader *reader);

/* What a name is beside those of weights. */
enum hy3_scale_kind { HY3_NO_SCALE, HY3_SCALE, HY3_IGNORED_SCALE };

/* Local. weight: the name of the tensor it belongs to. */
enum hy3_scale_kind hy3_scale_parse(const char *name, char weight[HY3_PARAM_NAME]);

/* Local. The number in the directory of the scales of a tensor, -1: it has none. */
int hy3_scale_find(const struct hy3_hf_dir *dir, const char *weight);

/* Local. Sets the matrices that a tensor at `place` is; false: it is a vector, or empty. */
bool hy3_scales_matrices(const struct hy3_place *place, const struct hy3_shape *shape,
                         struct hy3_scales *out);

/* The numbers of these matrices among those of the parameter (parallel/packed.h). */
static inline struct hy3_span hy3_place_matrices(const struct hy3_place *place, int64_t M)
{
    return (struct hy3_span){place->piece, M};
}

/* Local. Whether a tensor of this shape can hold the scales of one at `place`, and which: sets all
 * but the values. */
bool hy3_scales_shape(const struct hy3_place *place, const struct hy3_shape *shape,
                      const struct hy3_shard_tensor *tensor, struct hy3_scales *out);

/* Local. Reads the scales of an F8_E4M3 tensor of `shard`, whose header was checked. The caller
 * owns *out (hy3_scales_free). Errors: HY3_EFORMAT naming the tensor: scales missing, of another
 * shape, not finite, or not above 0. */
hy3_status hy3_scales_read(struct hy3_scale_reader *reader, const struct hy3_shard *shard,
                           const struct hy3_shard_tensor *tensor, const struct hy3_place *place,
                           const struct hy3_shape *shape, struct hy3_scales *out);
void hy3_scales_free(struct hy3_scales *scales);

/* Local. out [span.count] = codes [span.count] times their scales, in fp32; span: of the tensor. */
void hy3_scales_expand(const struct hy3_scales *scales, struct hy3_span span, const hy3_fp8 *codes,
                       float *out);

/* Local. hy3_shard_read to fp32 of a tensor of any float dtype or F8_E4M3. */
hy3_status hy3_scales_read_values(struct hy3_scale_reader *reader, const struct hy3_shard *shard,
                                  const struct hy3_shard_tensor *tensor,
                                  const struct hy3_place *place, const struct hy3_shape *shape,
                                  struct hy3_span span, float *out);
