/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.c - every operation of the CPU's table, on each instruction set, and of the GPU's, for
 * both dtypes, against reference.c.
 *
 * A case draws its inputs from a seed, runs forward and backward on one table, and records its
 * outputs. It is run on both tables, and on the tested one twice: the outputs must agree within
 * rounding, and with themselves bit by bit. */
#include "backend/arrays.h"
#include "backend/backend.h"
#include "backend/dims.h"
#include "backend/gpu.h"
#include "backend/mirror.h"
#include "backend/moments.h"
#include "backend/parcels.h"
#include "backend/reference.h"
#include "backend/weights.h"
#include "support/test.h"

#include <math.h>

static void gemm_case(const struct hy3_kernels *k, const struct dims *d)
{
    for (int form = HY3_NT; form <= HY3_TN; form++) {
        for (int accumulate = 0; accumulate < 3; accumulate++) {
            hy3_dtype c = accumulate == 1 ? HY3_FP32 : d->dtype;
            struct hy3_gemm a = {.form = (enum hy3_gemm_form)form,
                                 .M = d->T,
                                 .N = d->I,
                                 .K = d->H,
                                 .dtype = d->dtype,
                                 .c_dtype = c,
                                 .accumulate = accumulate > 0,
                                 .alpha = accumulate ? 0.5f : 1};

            if (form == HY3_TN) { /* the rows are summed */
                a.M = d->H;
                a.K = d->T;
            }
            a.A = in(a.M * a.K, d->dtype);
            a.B = in(a.N * a.K, d->dtype);
            a.C = out(a.M * a.N, c);
            assert_ok(k->gemm(NULL, &a));
        }
    }
}

/* Rows of E groups, some of them empty. */
static int64_t *group_starts(const struct dims *d)
{
    int64_t *starts = host_buffer((size_t)(d->E + 1) * sizeof *starts);

    for (int64_t e = 0; e < d->E; e++)
        starts[e + 1] = e % 3 == 1 ? starts[e] : d->T * (e + 1) / d->E;
    starts[d->E] = d->T;
    return starts;
}

static void grouped_gemm_case(const struct hy3_kernels *k, const struct dims *d)
{
    for (int i = 0; i < 6; i++) {
        enum hy3_gemm_form form = (enum hy3_gemm_form)(HY3_NT + i / 2);
        bool summed = form == HY3_TN;
        hy3_dtype c = summed ? HY3_FP32 : d->dtype;
        struct hy3_grouped_gemm a = {.form = form,
                                     .groups = d->E,
                                     .starts = group_starts(d),
                                     .M = d->H,
                                     .N = d->I,
                                     .K = d->H,
                                     .dtype = d->dtype,
                                     .c_dtype = c,
                                     .accumulate = summed || i % 2,
                                     .alpha = i % 2 ? 0.25f : 1};

        a.A = in(d->T * d->H, d->dtype);
        a.B = in(summed ? d->T * d->I : d->E * d->H * d->I, d->dtype);
        a.C = out(summed ? d->E * d->H * d->I : d->T * d->I, c);
        assert_ok(k->grouped_gemm(NULL, &a));
    }
}

static void embedding_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_embedding a = {.T = d->T, .H = d->H, .V = d->V, .dtype = d->dtype};

    a.ids = integers(d->T, d->V / 2 + 1); /* some rows more than once */
    a.W = in(d->V * d->H, d->dtype);
    a.y = out(d->T * d->H, d->dtype);
    a.dy = in(d->T * d->H, d->dtype);
    a.dW = out(d->V * d->H, HY3_FP32);
    assert_ok(k->embedding_forward(NULL, &a));
    assert_ok(k->embedding_backward(NULL, &a));
}

static void rmsnorm_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_rmsnorm a = {.T = d->T, .H = d->H, .eps = 1e-5f, .dtype = d->dtype};

    a.x = in(d->T * d->H, d->dtype);
    a.w = in(d->H, d->dtype);
    a.y = out(d->T * d->H, d->dtype);
    a.r = out(d->T, HY3_FP32);
    a.dy = in(d->T * d->H, d->dtype);
    a.dx = out(d->T * d->H, d->dtype);
    assert_ok(k->rmsnorm_forward(NULL, &a));
    assert_ok(k->rmsnorm_backward(NULL, &a)); /* frozen */
    a.dw = out(d->H, HY3_FP32);
    assert_ok(k->rmsnorm_backward(NULL, &a));
}

static void rope_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_rope a = {.T = d->T, .heads = d->heads, .D = d->D, .eps = 1e-5f, .dtype = d->dtype};
    int64_t n = d->T * d->heads * d->D;

    a.theta = 11158840;
    a.positions = integers(d->T, 3000);
    a.x = in(n, d->dtype);
    a.w = in(d->D, d->dtype);
    a.y = out(n, d->dtype);
    a.r = out(d->T * d->heads, HY3_FP32);
    a.dy = in(n, d->dtype);
    a.dx = out(n, d->dtype);
    a.dw = out(d->D, HY3_FP32);
    assert_ok(k->rope_forward(NULL, &a));
    assert_ok(k->rope_backward(NULL, &a));
}

static void attention_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_attention a = {.S = d->S, .Q = d->heads, .K = d->kv_heads, .D = d->D};
    int64_t nq = d->T * d->heads * d->D, nk = d->T * d->kv_heads * d->D;

    a.dtype = d->dtype;
    a.scale = 1 / sqrtf((float)d->D);
    a.q_starts = a.kv_first = d->starts;
    a.kv_end = d->starts + 1;
    a.q = in(nq, d->dtype);
    a.k = in(nk, d->dtype);
    a.v = in(nk, d->dtype);
    a.o = out(nq, d->dtype);
    a.lse = out(d->T * d->heads, HY3_FP32);
    a.dout = in(nq, d->dtype);
    a.dq = out(nq, d->dtype);
    a.dk = out(nk, d->dtype);
    a.dv = out(nk, d->dtype);
    assert_ok(k->attention_forward(NULL, &a));
    assert_ok(k->attention_backward(NULL, &a));
}

/* The last rows of each sample alone, with the keys of all. */
static void cached_attention_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_attention a = {.S = d->S, .Q = d->heads, .K = d->kv_heads, .D = d->D};
    int64_t *q_starts = host_buffer((size_t)(d->S + 1) * sizeof *q_starts);

    for (int64_t s = 0; s < d->S; s++) {
        int64_t rows = d->starts[s + 1] - d->starts[s];

        q_starts[s + 1] = q_starts[s] + (rows + 2) / 3;
    }
    a.dtype = d->dtype;
    a.scale = 1 / sqrtf((float)d->D);
    a.q_starts = q_starts;
    a.kv_first = d->starts;
    a.kv_end = d->starts + 1;
    a.q = in(q_starts[d->S] * d->heads * d->D, d->dtype);
    a.k = in(d->T * d->kv_heads * d->D, d->dtype);
    a.v = in(d->T * d->kv_heads * d->D, d->dtype);
    a.o = out(q_starts[d->S] * d->heads * d->D, d->dtype);
    assert_ok(k->attention_forward(NULL, &a));
}

/* What a rank of a group that splits samples has of each: two parts of it, or of some the second
 * alone. */
static void split_attention_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_attention a = {.Q = d->heads, .K = d->kv_heads, .D = d->D, .dtype = d->dtype};
    int64_t *starts = host_buffer((size_t)(2 * d->S + 1) * sizeof *starts);
    int64_t *first = host_buffer((size_t)(2 * d->S) * sizeof *first);
    int64_t *end = host_buffer((size_t)(2 * d->S) * sizeof *end);
    int64_t nk = d->T * d->kv_heads * d->D, nq;

    for (int64_t s = 0; s < d->S; s++) {
        int64_t rows = d->starts[s + 1] - d->starts[s];

        for (int64_t part = s % 3 == 1; part < 2; part++, a.S++) {
            first[a.S] = d->starts[s];
            end[a.S] = d->starts[s] + (part == 0 ? rows / 3 : rows - rows / 4);
            starts[a.S + 1] = starts[a.S] + (rows + 3) / 4;
            if (starts[a.S + 1] - starts[a.S] > end[a.S] - first[a.S])
                starts[a.S + 1] = starts[a.S];
        }
    }
    nq = starts[a.S] * d->heads * d->D;
    a.scale = 1 / sqrtf((float)d->D);
    a.q_starts = starts;
    a.kv_first = first;
    a.kv_end = end;
    a.accumulate = true;
    a.q = in(nq, d->dtype);
    a.k = in(nk, d->dtype);
    a.v = in(nk, d->dtype);
    a.o = out(nq, d->dtype);
    a.lse = out(starts[a.S] * d->heads, HY3_FP32);
    a.dout = in(nq, d->dtype);
    a.dq = out(nq, d->dtype);
    a.dk = out(nk, HY3_FP32);
    a.dv = out(nk, HY3_FP32);
    assert_ok(k->attention_forward(NULL, &a));
    assert_ok(k->attention_backward(NULL, &a));
}

/* n-1 … 0 */
static int32_t *backwards(int64_t n)
{
    int32_t *numbers = buffer((size_t)n * sizeof *numbers);

    for (int64_t i = 0; i < n; i++)
        numbers[i] = (int32_t)(n - 1 - i);
    return numbers;
}

static void router_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_router a = {.T = d->T, .E = d->E, .k = d->k, .scaling = 2.5f};
    float *logits = in(d->T * d->E, HY3_FP32), *bias = in(d->E, HY3_FP32);

    for (int64_t t = 0; t < d->T; t += 3) /* ties */
        for (int64_t e = 0; e < d->E; e++)
            logits[t * d->E + e] = (float)(e % 2);
    for (int64_t e = 0; e < d->E; e++)
        bias[e] = e % 2 ? 0.25f : -0.125f;
    a.logits = logits;
    a.bias = bias;
    a.ids = out_exact(d->T * d->k, sizeof *a.ids);
    a.weights = out(d->T * d->k, HY3_FP32);
    a.R = d->T * d->k;
    a.products = in(a.R, HY3_FP32);
    a.place = backwards(a.R);
    a.dlogits = out(d->T * d->E, HY3_FP32);
    assert_ok(k->router_forward(NULL, &a));
    a.replay = true;
    assert_ok(k->router_forward(NULL, &a));
    assert_ok(k->router_backward(NULL, &a));
}

/* k different experts a token, leaving the last ones without any; as a router leaves them. */
static int32_t *chosen(const struct dims *d)
{
    int32_t *ids = buffer((size_t)(d->T * d->k) * sizeof *ids);

    for (int64_t i = 0; i < d->T * d->k; i++)
        ids[i] = (int32_t)((i / d->k * 7 % 3 + i % d->k) % d->E);
    return ids;
}

static void dispatch_case(const struct hy3_kernels *k, const struct dims *d)
{
    int64_t R = d->T * d->k;
    struct hy3_route_index index = {
        .T = d->T, .G = d->E, .k = d->k, .width = 1, .stride = 1, .ids = chosen(d)};
    struct hy3_permute p = {.T = d->T, .R = R, .H = d->H, .k = d->k, .dtype = d->dtype};
    struct hy3_unpermute u = {.T = d->T, .R = R, .H = d->H, .k = d->k, .dtype = d->dtype};

    index.position = out_exact(R, sizeof(int32_t));
    index.token = out_exact(R, sizeof(int32_t));
    index.starts = out_exact(d->E + 1, sizeof(int64_t));
    assert_ok(k->route_index(NULL, &index));
    p.token = index.token;
    p.position = index.position;
    p.x = in(d->T * d->H, d->dtype);
    p.y = out(R * d->H, d->dtype);
    p.dy = in(R * d->H, d->dtype);
    p.dx = out(d->T * d->H, d->dtype);
    assert_ok(k->permute_forward(NULL, &p));
    assert_ok(k->permute_backward(NULL, &p));
    p.accumulate = true;
    assert_ok(k->permute_backward(NULL, &p));
    u.position = index.position;
    u.weights = in(R, HY3_FP32);
    u.y = in(R * d->H, d->dtype);
    u.out = out(d->T * d->H, d->dtype);
    u.dout = in(d->T * d->H, d->dtype);
    u.dy = out(R * d->H, d->dtype);
    u.accumulate = true;
    assert_ok(k->unpermute_forward(NULL, &u));
    u.shared = in(d->T * d->H, d->dtype);
    assert_ok(k->unpermute_forward(NULL, &u));
    assert_ok(k->unpermute_backward(NULL, &u));
}

static void row_dot_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_row_dot a = {.N = d->T, .C = d->H, .dtype = d->dtype};

    a.a = in(d->T * d->H, d->dtype);
    a.b = in(d->T * d->H, d->dtype);
    a.y = out(d->T, HY3_FP32);
    assert_ok(k->row_dot(NULL, &a));
    a.to = backwards(d->T);
    a.places = d->T;
    a.y = out(d->T, HY3_FP32);
    assert_ok(k->row_dot(NULL, &a));
}

/* Every second row is picked; the others have no position. */
static void compaction_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_permute p = {.T = d->T, .R = d->T / 2, .H = d->H, .k = 1, .dtype = d->dtype};
    int32_t *token = buffer((size_t)d->T * sizeof *token);
    int32_t *position = buffer((size_t)d->T * sizeof *position);

    for (int64_t t = 0; t < d->T; t++) {
        position[t] = t % 2 ? (int32_t)(t / 2) : -1;
        if (t % 2)
            token[t / 2] = (int32_t)t;
    }
    p.token = token;
    p.position = position;
    p.x = in(d->T * d->H, d->dtype);
    p.y = out(p.R * d->H, d->dtype);
    p.dy = in(p.R * d->H, d->dtype);
    p.dx = out(d->T * d->H, d->dtype);
    assert_ok(k->permute_forward(NULL, &p));
    assert_ok(k->permute_backward(NULL, &p));
}

static void swiglu_case(const struct hy3_kernels *k, const struct dims *d)
{
    for (int64_t halves = 1; halves <= 2; halves++) {
        struct hy3_swiglu a = {.N = d->T, .I = d->I, .ld = halves * d->I, .dtype = d->dtype};
        int64_t n = d->T * a.ld;
        char *gate = out(n, d->dtype);
        size_t half = (size_t)d->I * hy3_dtype_size(d->dtype);

        a.gate = gate;
        a.up = halves == 2 ? gate + half : (char *)out(n, d->dtype);
        a.y = out(d->T * d->I, d->dtype);
        a.dy = in(d->T * d->I, d->dtype);
        a.dgate = gate; /* in place */
        a.dup = (void *)(uintptr_t)a.up;
        assert_ok(k->swiglu_forward(NULL, &a));
        assert_ok(k->swiglu_backward(NULL, &a));
    }
}

static void loss_case(const struct hy3_kernels *k, const struct dims *d)
{
    struct hy3_loss a = {.N = d->T, .V = d->V, .scale = 0.25f, .dtype = d->dtype};
    int32_t *targets = integers(d->T, d->V);

    for (int64_t t = 0; t < d->T; t += 5)
        targets[t] = -1;
    a.logits = in(d->T * d->V, HY3_FP32);
    a.targets = targets;
    for (int way = 0; way < 4; way++) {
        a.smoothing = way & 1 ? 0.3f : 0;
        a.weights = way & 2 ? in(d->T, HY3_FP32) : NULL;
        a.loss = out(d->T, HY3_FP32);
        a.lse = out(d->T, HY3_FP32);
        a.dlogits = out(d->T * d->V, d->dtype);
        assert_ok(k->loss_forward(NULL, &a));
        assert_ok(k->loss_backward(NULL, &a));
    }
}

static void elementwise_case(const struct hy3_kernels *k, const struct dims *d)
{
    int64_t n = d->T * d->H;
    struct hy3_cast cast = {.n = n, .x_dtype = d->dtype, .y_dtype = HY3_FP32};
    struct hy3_add add = {.n = n, .x_dtype = HY3_FP32, .y_dtype = d->dtype};
    struct hy3_dropout dropout = {.N = d->T, .C = d->H, .p = 0.3f, .seed = 5, .dtype = d->dtype};
    struct hy3_noise noise = {.N = d->T, .C = d->H, .seed = 5, .dtype = d->dtype};
    uint64_t *keys = buffer((size_t)d->T * sizeof *keys);

    for (int64_t t = 0; t < d->T; t++)
        keys[t] = (uint64_t)t * 1000;
    cast.x = in(n, d->dtype);
    cast.y = out(n, HY3_FP32);
    assert_ok(k->cast(NULL, &cast));
    cast = (struct hy3_cast){.n = n, .x_dtype = HY3_FP32, .y_dtype = d->dtype};
    cast.x = in(n, HY3_FP32);
    cast.y = out(n, d->dtype);
    assert_ok(k->cast(NULL, &cast));
    add.x = in(n, HY3_FP32);
    add.y = out(n, d->dtype);
    assert_ok(k->add(NULL, &add));
    dropout.stream_id = 3;
    dropout.keys = keys;
    dropout.x = in(n, d->dtype);
    dropout.y = out(n, d->dtype);
    assert_ok(k->dropout(NULL, &dropout));
    noise.keys = keys;
    noise.scale = in(d->T, HY3_FP32);
    noise.y = out(n, d->dtype);
    assert_ok(k->noise(NULL, &noise));
}

/* The sum is fp64; it is compared as fp32. */
static void square_sum_case(const struct hy3_kernels *k, const struct dims *d)
{
    double *sum = buffer(sizeof *sum);
    float *recorded = out(2, HY3_FP32);
    struct hy3_square_sum a = {.n = d->T * d->H, .dtype = d->dtype, .sum = sum};

    a.x = in(a.n, d->dtype);
    assert_ok(k->square_sum(NULL, &a));
    recorded[0] = (float)*sum;
    a.accumulate = true;
    assert_ok(k->square_sum(NULL, &a));
    recorded[1] = (float)*sum;
}

static void adamw_case(const struct hy3_kernels *k, const struct dims *d)
{
    int64_t n = d->T * d->H;
    struct hy3_adamw a = {.n = n, .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    float *v = out(n, HY3_FP32), *master;

    for (int64_t i = 0; i < n; i++)
        v[i] = v[i] * v[i];
    a.decay = 0.1;
    a.grad_scale = 0.3;
    a.dtype = d->dtype;
    a.weight = out(n, d->dtype);
    a.low = d->dtype == HY3_FP32 ? NULL : (int16_t *)(uintptr_t)in(n, HY3_BF16);
    a.m = out(n, HY3_FP32);
    a.v = v;
    a.grad = in(n, HY3_FP32);
    master = out(n, HY3_FP32);
    for (a.step = 1; a.step <= 3; a.step++)
        assert_ok(k->adamw(NULL, &a));
    for (int64_t i = 0; i < n; i++)
        master[i] = a.low ? hy3_join(((hy3_bf16 *)a.weight)[i], a.low[i]) : ((float *)a.weight)[i];
}

/* One step without memory of the ones before, where every program has the same moments: then codes
 * and random roundings are the same, too. Elements of a tensor from `first` on. */
static void moment_case(const struct hy3_kernels *k, const struct dims *d,
                        enum hy3_moment_format format, int64_t first)
{
    int64_t n = d->T * d->H, blocks = hy3_moment_blocks(first, n);
    struct hy3_adamw a = {.n = n, .step = 1, .lr = 1e-2, .eps = 1e-8, .grad_scale = 0.5};
    float *grad = in(n, HY3_FP32);

    for (int64_t i = 0; i < n; i++) /* of all sizes; a block with zeros alone */
        grad[i] = (first + i) / HY3_MOMENT_BLOCK == 1 ? 0 : ldexpf(grad[i], (int)(i % 37) - 30);
    a.moments = format;
    a.first = first;
    a.tensor = 5;
    a.seed = 1ull << 40 | 3;
    a.dtype = d->dtype;
    a.weight = out(n, d->dtype);
    a.low = d->dtype == HY3_FP32 ? NULL : (int16_t *)(uintptr_t)in(n, HY3_BF16);
    a.m = out_exact(n, hy3_moment_size(format));
    a.v = out_exact(n, hy3_moment_size(format));
    a.m_scale = format == HY3_MOMENTS_8BIT ? out_exact(blocks, sizeof(float)) : NULL;
    a.v_scale = format == HY3_MOMENTS_8BIT ? out_exact(blocks, sizeof(float)) : NULL;
    a.grad = grad;
    assert_ok(k->adamw(NULL, &a));
}

static void adamw_8bit_case(const struct hy3_kernels *k, const struct dims *d)
{
    moment_case(k, d, HY3_MOMENTS_8BIT, 0);
    moment_case(k, d, HY3_MOMENTS_8BIT, 7 * HY3_MOMENT_BLOCK + 64);
    moment_case(k, d, HY3_MOMENTS_8BIT, 101);
}

static void adamw_bf16_case(const struct hy3_kernels *k, const struct dims *d)
{
    moment_case(k, d, HY3_MOMENTS_BF16, 0);
    moment_case(k, d, HY3_MOMENTS_BF16, 103);
}

typedef void (*kernel_case)(const struct hy3_kernels *, const struct dims *);

/* Runs a case from the same seed; the outputs are moved to `into`, their memory stays until
 * `forget`. */
static int record(kernel_case body, const struct hy3_kernels *k, const struct dims *d,
                  struct output into[MAX_OUTPUTS])
{
    run.drawn = 0;
    run.output_count = 0;
    body(k, d);
    memcpy(into, run.outputs, sizeof run.outputs);
    return run.output_count;
}

static double value(const struct output *o, int64_t i)
{
    return o->dtype == HY3_FP32 ? ((const float *)o->data)[i]
                                : hy3_float_from_bf16(((const hy3_bf16 *)o->data)[i]);
}

/* Largest difference over the largest value. */
static void compare(const struct output *ours, const struct output *theirs, hy3_dtype dtype,
                    const char *name, int number)
{
    double largest = 1e-3, worst = 0, limit = dtype == HY3_FP32 ? 2e-5 : 2e-2;

    if (ours->exact) {
        assert_memory_equal(ours->data, theirs->data, (size_t)ours->bytes);
        return;
    }
    for (int64_t i = 0; i < ours->n; i++) {
        double difference = fabs(value(ours, i) - value(theirs, i));

        largest = fmax(largest, fabs(value(theirs, i)));
        worst = difference <= worst ? worst : difference;
    }
    if (!(worst <= limit * largest))
        fail_msg("%s, output %d: off by %g of %g", name, number, worst, largest);
}

static void check(kernel_case body, const struct hy3_kernels *tested, const char *name)
{
    size_t count_of_shapes = getenv("HY3_SMALL") ? 3 : sizeof all_dims / sizeof *all_dims;

    for (size_t i = 0; i < count_of_shapes; i++) {
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct output first[MAX_OUTPUTS], again[MAX_OUTPUTS], reference[MAX_OUTPUTS];
            struct dims d = all_dims[i];
            int count;

            d.dtype = bf16 ? HY3_BF16 : HY3_FP32;
            count = record(body, tested, &d, first);
            record(body, tested, &d, again);
            assert_int_equal(record(body, &hy3_reference_kernels, &d, reference), count);
            for (int j = 0; j < count; j++) {
                if (first[j].bytes > 0)
                    assert_memory_equal(first[j].data, again[j].data, (size_t)first[j].bytes);
                compare(&first[j], &reference[j], d.dtype, name, j);
            }
            forget();
        }
    }
}

static void check_cpu(kernel_case body, const char *isa, const char *name)
{
    const struct hy3_backend *tested = hy3_cpu_backend(isa);

    if (!tested)
        skip(); /* this machine lacks the instruction set */
    check(body, &tested->kernels, name);
}

static void check_gpu(kernel_case body, const char *name)
{
    const struct hy3_device *device;
    const struct hy3_kernels *kernels;

    if (hy3_test_gpu(&device, &kernels) != HY3_OK) {
        print_message("%s\n", hy3_error_text());
        skip();
    }
    check(body, hy3_mirror(device, kernels), name);
}

/* clang-format off */
#define CASES(X) X(gemm) X(grouped_gemm) X(embedding) X(rmsnorm) X(rope) X(attention) X(cached_attention) X(split_attention) X(router) \
                 X(dispatch) X(parcels) X(passed_on) X(row_dot) X(compaction) X(swiglu) X(loss) X(elementwise) X(square_sum) X(adamw) X(adamw_8bit) X(adamw_bf16) X(scaled)
#define X(op)                                                                                        \
    static void op##_on_avx512(void **state) { (void)state; check_cpu(op##_case, "avx512", #op); }       \
    static void op##_on_avx2(void **state) { (void)state; check_cpu(op##_case, "avx2", #op); }           \
    static void op##_on_any_machine(void **state) { (void)state; check_cpu(op##_case, "portable", #op); } \
    static void op##_on_gpu(void **state) { (void)state; check_gpu(op##_case, #op); }
CASES(X)
#undef X

/* clang-format on */

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define X(op)                                                         \
    cmocka_unit_test(op##_on_avx512), cmocka_unit_test(op##_on_avx2), \
        cmocka_unit_test(op##_on_any_machine), cmocka_unit_test(op##_on_gpu),
        CASES(X)
#undef X
    };

    if (argc > 1) /* "*_on_gpu": only these */
        cmocka_set_test_filter(argv[1]);
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
