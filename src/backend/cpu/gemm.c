/* SPDX-License-Identifier: Apache-2.0 */
/* gemm.c - matrix products by oneDNN.
 *
 * A primitive serves one shape and costs up to milliseconds to make, so primitives are kept in a
 * table. The number of rows changes with every micro-batch; to keep the table small, rows are cut
 * into pieces of few sizes (next_piece): products that keep the rows apart (NT, NN) run piece by
 * piece; one that sums over them (TN) runs on copies filled up with zero rows. Where oneDNN has no
 * bf16 product (machines without AVX-512), operands are widened to fp32 first. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/dnnl.h"

struct key {
    int32_t form, dtype, c_dtype, accumulate;
    int64_t M, N, K;
    float alpha;
    int32_t zero; /* no padding bytes: keys are compared as memory */
};

struct product {
    struct key key;
    dnnl_primitive_t primitive; /* NULL: a free place */
    dnnl_memory_t a, b, c;
};

enum { TABLE = 4096 }; /* places; emptied when three quarters are taken */

static struct {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct product *places;
    int taken;
} library;

static hy3_status failed(const char *what, dnnl_status_t code)
{
    HY3_FAIL(HY3_ENOMEM, "oneDNN cannot %s (status %d)", what, (int)code);
}

static hy3_status start_library(void)
{
    static struct product places[TABLE];
    dnnl_status_t code;

    if (library.places)
        return HY3_OK;
    if ((code = dnnl_engine_create(&library.engine, dnnl_cpu, 0)) != dnnl_success)
        return failed("start", code);
    if ((code = dnnl_stream_create(&library.stream, library.engine, dnnl_stream_default_flags)) !=
        dnnl_success)
        return failed("start", code);
    library.places = places;
    return HY3_OK;
}

static dnnl_data_type_t type_of(hy3_dtype dtype)
{
    return dtype == HY3_FP32 ? dnnl_f32 : dnnl_bf16;
}

/* A matrix of `rows` by `columns`, stored by rows, or (transposed) by columns. */
static dnnl_status_t describe(struct hy3_dnnl_matrix *out, int64_t rows, int64_t columns, int dtype,
                              bool transposed)
{
    dnnl_dims_t dims = {rows, columns}, strides = {columns, 1};

    if (transposed) {
        strides[0] = 1;
        strides[1] = rows;
    }
    return hy3_dnnl_describe(out, dims, type_of((hy3_dtype)dtype), strides);
}

/* The primitive of a product, and memories for its operands. */
static dnnl_status_t make_product(const struct hy3_dnnl_matrix m[3], dnnl_primitive_attr_t attr,
                                  struct product *out)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t code = hy3_dnnl_matmul(&desc, library.engine, m, attr);

    if (code == dnnl_success)
        code = dnnl_primitive_create(&out->primitive, desc);
    if (code == dnnl_success)
        code = hy3_dnnl_memory(&out->a, &m[0], library.engine);
    if (code == dnnl_success)
        code = hy3_dnnl_memory(&out->b, &m[1], library.engine);
    if (code == dnnl_success)
        code = hy3_dnnl_memory(&out->c, &m[2], library.engine);
    dnnl_primitive_desc_destroy(desc);
    return code;
}

static hy3_status create_product(const struct key *key, struct product *out)
{
    struct hy3_dnnl_matrix m[3] = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_status_t code;

    *out = (struct product){.key = *key};
    dnnl_primitive_attr_create(&attr);
    dnnl_post_ops_create(&post);
    code = hy3_dnnl_result(attr, post, key->alpha, key->accumulate);
    if (code == dnnl_success)
        code = describe(&m[0], key->M, key->K, key->dtype, key->form == HY3_TN);
    if (code == dnnl_success)
        code = describe(&m[1], key->K, key->N, key->dtype, key->form == HY3_NT);
    if (code == dnnl_success)
        code = describe(&m[2], key->M, key->N, key->c_dtype, false);
    if (code == dnnl_success)
        code = make_product(m, attr, out);
    for (int i = 0; i < 3; i++)
        hy3_dnnl_forget(&m[i]);
    dnnl_post_ops_destroy(post);
    dnnl_primitive_attr_destroy(attr);
    return code == dnnl_success ? HY3_OK : failed("make a matrix product", code);
}

static void destroy_product(struct product *p)
{
    dnnl_primitive_destroy(p->primitive);
    dnnl_memory_destroy(p->a);
    dnnl_memory_destroy(p->b);
    dnnl_memory_destroy(p->c);
    *p = (struct product){0};
}

static uint64_t hash(const struct key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t h = 14695981039346656037u; /* FNV-1a */

    for (size_t i = 0; i < sizeof *key; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h ^ h >> 29;
}

/* The product of a shape, made at its first use. */
static hy3_status find_product(const struct key *key, struct product **out)
{
    hy3_status status = HY3_OK;
    size_t at = hash(key) % TABLE;

    HY3_TRY(start_library());
    if (library.taken > TABLE / 4 * 3) {
        for (size_t i = 0; i < TABLE; i++)
            destroy_product(&library.places[i]);
        library.taken = 0;
    }
    /* alpha is not calculated, so equal means equal bits */
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
    while (library.places[at].primitive && memcmp(&library.places[at].key, key, sizeof *key) != 0)
        at = (at + 1) % TABLE;
    *out = &library.places[at];
    if (!(*out)->primitive) {
        if ((status = create_product(key, *out)) != HY3_OK)
            destroy_product(*out);
        else
            library.taken++;
    }
    return status;
}

static hy3_status execute(const struct hy3_gemm *g)
{
    hy3_status status = HY3_OK;
    struct key key = {.form = g->form,
                      .dtype = g->dtype,
                      .c_dtype = g->c_dtype,
                      .accumulate = g->accumulate,
                      .M = g->M,
                      .N = g->N,
                      .K = g->K,
                      .alpha = g->alpha};
    struct product *p;
    dnnl_exec_arg_t args[3];
    dnnl_status_t code;

    HY3_TRY(find_product(&key, &p));
    dnnl_memory_set_data_handle(p->a, (void *)(uintptr_t)g->A);
    dnnl_memory_set_data_handle(p->b, (void *)(uintptr_t)g->B);
    dnnl_memory_set_data_handle(p->c, g->C);
    args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, p->a};
    args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, p->b};
    args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, p->c};
    if ((code = dnnl_primitive_execute(p->primitive, library.stream, 3, args)) != dnnl_success ||
        (code = dnnl_stream_wait(library.stream)) != dnnl_success)
        status = failed("multiply matrices", code);
    return status;
}

/* Sizes are cut to a multiple of an eighth of their largest power of two, not below 64: eight sizes
 * an octave. */
static int64_t step_of(int64_t rows)
{
    int64_t step = 64;

    while (step * 16 <= rows)
        step *= 2;
    return step;
}

/* The first of the pieces that `rows` rows are cut into; below 64 rows there is one. */
static int64_t next_piece(int64_t rows)
{
    return rows < 64 ? rows : rows / step_of(rows) * step_of(rows);
}

static const void *shift(const void *matrix, hy3_dtype dtype, int64_t elements)
{
    return (const char *)matrix + elements * (int64_t)hy3_dtype_size(dtype);
}

static void *shift_mutable(void *matrix, hy3_dtype dtype, int64_t elements)
{
    return (char *)matrix + elements * (int64_t)hy3_dtype_size(dtype);
}

/* NT and NN: rows of A and C, piece by piece. */
static hy3_status by_rows(struct hy3_gemm g)
{
    int64_t rest = g.M;

    while (rest > 0) {
        g.M = next_piece(rest);
        HY3_TRY(execute(&g));
        g.A = shift(g.A, g.dtype, g.M * g.K);
        g.C = shift_mutable(g.C, g.c_dtype, g.M * g.N);
        rest -= g.M;
    }
    return HY3_OK;
}

/* `rows` rows of `width` elements in scratch, filled up with zero rows to `filled`. */
static hy3_status fill_up(enum hy3_cpu_slot slot, hy3_dtype dtype, int64_t rows, int64_t filled,
                          int64_t width, const void **matrix)
{
    size_t row = (size_t)width * hy3_dtype_size(dtype);
    char *copy;

    HY3_TRY(hy3_cpu_scratch(slot, (size_t)filled * row, &copy));
    memcpy(copy, *matrix, (size_t)rows * row);
    memset(copy + (size_t)rows * row, 0, (size_t)(filled - rows) * row);
    *matrix = copy;
    return HY3_OK;
}

/* TN: the sum over K rows, with K rounded up. */
static hy3_status over_rows(struct hy3_gemm g)
{
    int64_t step = g.K < 64 ? 16 : step_of(g.K), filled = (g.K + step - 1) / step * step;

    if (filled != g.K) {
        HY3_TRY(fill_up(HY3_SLOT_GEMM_A, g.dtype, g.K, filled, g.M, &g.A));
        HY3_TRY(fill_up(HY3_SLOT_GEMM_B, g.dtype, g.K, filled, g.N, &g.B));
        g.K = filled;
    }
    return execute(&g);
}

static hy3_status multiply(const struct hy3_gemm *g)
{
    if (g->M == 0 || g->N == 0)
        return HY3_OK;
    if (g->K == 0) {
        if (!g->accumulate)
            memset(g->C, 0, (size_t)(g->M * g->N) * hy3_dtype_size(g->c_dtype));
        return HY3_OK;
    }
    return g->form == HY3_TN ? over_rows(*g) : by_rows(*g);
}

static hy3_status convert(const void *x, hy3_dtype x_dtype, void *y, hy3_dtype y_dtype, int64_t n)
{
    return hy3_cpu_cast(
        NULL, &(struct hy3_cast){.n = n, .x_dtype = x_dtype, .y_dtype = y_dtype, .x = x, .y = y});
}

/* A bf16 product through fp32 copies of its operands. */
static hy3_status multiply_wide(const struct hy3_gemm *g)
{
    struct hy3_gemm wide = *g;
    float *a, *b, *c = g->C;

    /* over_rows uses the other slots for copies of these copies */
    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_WIDE_A, (size_t)(g->M * g->K) * sizeof *a, &a));
    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_WIDE_B, (size_t)(g->N * g->K) * sizeof *b, &b));
    HY3_TRY(convert(g->A, g->dtype, a, HY3_FP32, g->M * g->K));
    HY3_TRY(convert(g->B, g->dtype, b, HY3_FP32, g->N * g->K));
    if (g->c_dtype != HY3_FP32) {
        HY3_TRY(hy3_cpu_scratch(HY3_SLOT_WIDE_C, (size_t)(g->M * g->N) * sizeof *c, &c));
        if (g->accumulate)
            HY3_TRY(convert(g->C, g->c_dtype, c, HY3_FP32, g->M * g->N));
    }
    wide.A = a;
    wide.B = b;
    wide.C = c;
    wide.dtype = wide.c_dtype = HY3_FP32;
    HY3_TRY(multiply(&wide));
    if (g->c_dtype != HY3_FP32)
        HY3_TRY(convert(c, HY3_FP32, g->C, g->c_dtype, g->M * g->N));
    return HY3_OK;
}

hy3_status hy3_cpu_gemm(struct hy3_stream *s, const struct hy3_gemm *g)
{
    if (g->dtype != HY3_FP32 && !hy3_cpu_bf16_products)
        return multiply_wide(g);
    return multiply(g);
}

hy3_status hy3_cpu_grouped_gemm(struct hy3_stream *s, const struct hy3_grouped_gemm *a)
{
    for (int64_t i = 0; i < a->groups; i++) {
        int64_t first = a->starts[i], rows = a->starts[i + 1] - first;
        struct hy3_gemm g = {.form = a->form,
                             .N = a->N,
                             .dtype = a->dtype,
                             .c_dtype = a->c_dtype,
                             .accumulate = a->accumulate,
                             .alpha = a->alpha};

        if (a->form == HY3_TN) {
            g.M = a->M;
            g.K = rows;
            g.A = shift(a->A, a->dtype, first * a->M);
            g.B = shift(a->B, a->dtype, first * a->N);
            g.C = shift_mutable(a->C, a->c_dtype, i * a->M * a->N);
        } else {
            g.M = rows;
            g.K = a->K;
            g.A = shift(a->A, a->dtype, first * a->K);
            g.B = shift(a->B, a->dtype, i * a->N * a->K);
            g.C = shift_mutable(a->C, a->c_dtype, first * a->N);
        }
        HY3_TRY(hy3_cpu_gemm(s, &g));
    }
    return HY3_OK;
}
