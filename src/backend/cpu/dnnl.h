/* SPDX-License-Identifier: Apache-2.0 */
/* dnnl.h - where oneDNN 2 and 3 differ. */
#pragma once

#include <dnnl.h>

#include <stdbool.h>
#include <stddef.h>

struct hy3_dnnl_matrix {
    dnnl_memory_desc_t desc; /* of oneDNN 3 a pointer */
};

#if DNNL_VERSION_MAJOR >= 3

static inline dnnl_status_t hy3_dnnl_describe(struct hy3_dnnl_matrix *out, const dnnl_dims_t dims,
                                              dnnl_data_type_t type, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(&out->desc, 2, dims, type, strides);
}

static inline void hy3_dnnl_forget(struct hy3_dnnl_matrix *matrix)
{
    dnnl_memory_desc_destroy(matrix->desc);
}

static inline dnnl_status_t hy3_dnnl_memory(dnnl_memory_t *out,
                                            const struct hy3_dnnl_matrix *matrix,
                                            dnnl_engine_t engine)
{
    return dnnl_memory_create(out, matrix->desc, engine, DNNL_MEMORY_NONE);
}

/* c = alpha a b, or c += with `accumulate`. post: empty, kept until attr is destroyed. */
static inline dnnl_status_t hy3_dnnl_result(dnnl_primitive_attr_t attr, dnnl_post_ops_t post,
                                            float alpha, bool accumulate)
{
    dnnl_status_t code = dnnl_success;

    if (alpha != 1.0f)
        code = dnnl_post_ops_append_eltwise(post, dnnl_eltwise_linear, alpha, 0.0f);
    if (code == dnnl_success && accumulate)
        code = dnnl_post_ops_append_sum(post, 1.0f, 0, dnnl_data_type_undef);
    return code == dnnl_success ? dnnl_primitive_attr_set_post_ops(attr, post) : code;
}

static inline dnnl_status_t hy3_dnnl_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                            const struct hy3_dnnl_matrix m[3],
                                            dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, engine, m[0].desc, m[1].desc, NULL, m[2].desc,
                                             attr);
}

#else

static inline dnnl_status_t hy3_dnnl_describe(struct hy3_dnnl_matrix *out, const dnnl_dims_t dims,
                                              dnnl_data_type_t type, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(&out->desc, 2, dims, type, strides);
}

static inline void hy3_dnnl_forget(struct hy3_dnnl_matrix *matrix)
{
}

static inline dnnl_status_t hy3_dnnl_memory(dnnl_memory_t *out,
                                            const struct hy3_dnnl_matrix *matrix,
                                            dnnl_engine_t engine)
{
    return dnnl_memory_create(out, &matrix->desc, engine, DNNL_MEMORY_NONE);
}

static inline dnnl_status_t hy3_dnnl_result(dnnl_primitive_attr_t attr, dnnl_post_ops_t post,
                                            float alpha, bool accumulate)
{
    dnnl_status_t code = dnnl_success;

    if (alpha != 1.0f)
        code = dnnl_primitive_attr_set_output_scales(attr, 1, 0, &alpha);
    if (code == dnnl_success && accumulate)
        code = dnnl_post_ops_append_sum(post, 1.0f);
    return code == dnnl_success ? dnnl_primitive_attr_set_post_ops(attr, post) : code;
}

static inline dnnl_status_t hy3_dnnl_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                            const struct hy3_dnnl_matrix m[3],
                                            dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t desc;
    dnnl_status_t code = dnnl_matmul_desc_init(&desc, &m[0].desc, &m[1].desc, NULL, &m[2].desc);

    return code == dnnl_success ? dnnl_primitive_desc_create(out, &desc, attr, engine, NULL) : code;
}

#endif
