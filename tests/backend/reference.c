/* SPDX-License-Identifier: Apache-2.0 */
/* reference.c - the kernels from their formulas, one element after the other. */
#include "backend/reference.h"

#include "backend/formats.h"
#include "backend/labels.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>

#define FUNCTION(name, args) \
    static hy3_status name(struct hy3_stream *s, const struct hy3_##args *a)
#define UNUSED (void)s

static double get(const void *p, hy3_dtype dtype, int64_t i)
{
    return dtype == HY3_FP32 ? ((const float *)p)[i]
                             : hy3_float_from_bf16(((const hy3_bf16 *)p)[i]);
}

static void put(void *p, hy3_dtype dtype, int64_t i, double x)
{
    if (dtype == HY3_FP32)
        ((float *)p)[i] = (float)x;
    else
        ((hy3_bf16 *)p)[i] = hy3_bf16_from_float((float)x);
}

static void *at(const void *p, hy3_dtype dtype, int64_t i)
{
    return (char *)(uintptr_t)p + (size_t)i * hy3_dtype_size(dtype);
}

FUNCTION(gemm, gemm)
{
    UNUSED;
    for (int64_t m = 0; m < a->M; m++) {
        for (int64_t n = 0; n < a->N; n++) {
            double x = 0, old = a->accumulate ? get(a->C, a->c_dtype, m * a->N + n) : 0;

            for (int64_t k = 0; k < a->K; k++)
                x += get(a->A, a->dtype, a->form == HY3_TN ? k * a->M + m : m * a->K + k) *
                     get(a->B, a->dtype, a->form == HY3_NT ? n * a->K + k : k * a->N + n);
            put(a->C, a->c_dtype, m * a->N + n, a->alpha * x + old);
        }
    }
    return HY3_OK;
}

FUNCTION(grouped_gemm, grouped_gemm)
{
    for (int64_t g = 0; g < a->groups; g++) {
        int64_t r = a->starts[g], n = a->starts[g + 1] - r;
        struct hy3_gemm x = {.form = a->form,
                             .M = n,
                             .N = a->N,
                             .K = a->K,
                             .dtype = a->dtype,
                             .c_dtype = a->c_dtype,
                             .alpha = a->alpha,
                             .accumulate = a->accumulate};

        if (a->form == HY3_TN) {
            x.M = a->M;
            x.K = n;
            x.A = at(a->A, a->dtype, r * a->M);
            x.B = at(a->B, a->dtype, r * a->N);
            x.C = at(a->C, a->c_dtype, g * a->M * a->N);
        } else {
            x.A = at(a->A, a->dtype, r * a->K);
            x.B = at(a->B, a->dtype, g * a->N * a->K);
            x.C = at(a->C, a->c_dtype, r * a->N);
        }
        gemm(s, &x);
    }
    return HY3_OK;
}

FUNCTION(embedding_forward, embedding)
{
    UNUSED;
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t h = 0; h < a->H; h++)
            put(a->y, a->dtype, t * a->H + h, get(a->W, a->dtype, a->ids[t] * a->H + h));
    return HY3_OK;
}

FUNCTION(embedding_backward, embedding)
{
    UNUSED;
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t h = 0; h < a->H; h++)
            a->dW[a->ids[t] * a->H + h] += (float)get(a->dy, a->dtype, t * a->H + h);
    return HY3_OK;
}

FUNCTION(rmsnorm_forward, rmsnorm)
{
    UNUSED;
    for (int64_t t = 0; t < a->T; t++) {
        double sum = 0;

        for (int64_t h = 0; h < a->H; h++)
            sum += pow(get(a->x, a->dtype, t * a->H + h), 2);
        a->r[t] = (float)(1 / sqrt(sum / (double)a->H + a->eps));
        for (int64_t h = 0; h < a->H; h++)
            put(a->y, a->dtype, t * a->H + h,
                get(a->w, a->dtype, h) * get(a->x, a->dtype, t * a->H + h) * a->r[t]);
    }
    return HY3_OK;
}

FUNCTION(rmsnorm_backward, rmsnorm)
{
    UNUSED;
    for (int64_t t = 0; t < a->T; t++) {
        double mean = 0, r = a->r[t];

        for (int64_t h = 0; h < a->H; h++)
            mean += get(a->dy, a->dtype, t * a->H + h) * get(a->w, a->dtype, h) *
                    get(a->x, a->dtype, t * a->H + h) / (double)a->H;
        for (int64_t h = 0; h < a->H; h++) {
            int64_t i = t * a->H + h;
            double x = get(a->x, a->dtype, i), dy = get(a->dy, a->dtype, i);

            if (a->dw)
                a->dw[h] += (float)(dy * x * r);
            put(a->dx, a->dtype, i,
                get(a->dx, a->dtype, i) + r * (dy * get(a->w, a->dtype, h) - x * r * r * mean));
        }
    }
    return HY3_OK;
}

static double angle(const struct hy3_rope *a, int64_t t, int64_t i)
{
    float frequency = 1.0f / powf((float)a->theta, (float)(2 * i) / (float)a->D);

    return (double)((float)a->positions[t] * frequency);
}

FUNCTION(rope_forward, rope)
{
    int64_t half = a->D / 2;

    UNUSED;
    for (int64_t row = 0; row < a->T * a->heads; row++) {
        double sum = 0, r;

        for (int64_t d = 0; d < a->D; d++)
            sum += pow(get(a->x, a->dtype, row * a->D + d), 2);
        r = 1 / sqrt(sum / (double)a->D + a->eps);
        a->r[row] = (float)r;
        for (int64_t i = 0; i < half; i++) {
            double c = cos(angle(a, row / a->heads, i)), sine = sin(angle(a, row / a->heads, i));
            double x = get(a->x, a->dtype, row * a->D + i) * r * get(a->w, a->dtype, i);
            double y =
                get(a->x, a->dtype, row * a->D + i + half) * r * get(a->w, a->dtype, i + half);

            put(a->y, a->dtype, row * a->D + i, x * c - y * sine);
            put(a->y, a->dtype, row * a->D + i + half, y * c + x * sine);
        }
    }
    return HY3_OK;
}

FUNCTION(rope_backward, rope)
{
    int64_t half = a->D / 2;

    UNUSED;
    for (int64_t row = 0; row < a->T * a->heads; row++) {
        double dn[a->D], mean = 0, r = a->r[row];

        for (int64_t i = 0; i < half; i++) {
            double c = cos(angle(a, row / a->heads, i)), sine = sin(angle(a, row / a->heads, i));
            double x = get(a->dy, a->dtype, row * a->D + i);
            double y = get(a->dy, a->dtype, row * a->D + i + half);

            dn[i] = x * c + y * sine;
            dn[i + half] = y * c - x * sine;
        }
        for (int64_t d = 0; d < a->D; d++)
            mean +=
                dn[d] * get(a->w, a->dtype, d) * get(a->x, a->dtype, row * a->D + d) / (double)a->D;
        for (int64_t d = 0; d < a->D; d++) {
            double x = get(a->x, a->dtype, row * a->D + d);

            if (a->dw)
                a->dw[d] += (float)(dn[d] * x * r);
            put(a->dx, a->dtype, row * a->D + d,
                r * (dn[d] * get(a->w, a->dtype, d) - x * r * r * mean));
        }
    }
    return HY3_OK;
}

/* Scaled score of query row q and key row k of one head. */
static double score(const struct hy3_attention *a, int64_t q, int64_t k, int64_t head)
{
    double x = 0;

    for (int64_t d = 0; d < a->D; d++)
        x += get(a->q, a->dtype, (q * a->Q + head) * a->D + d) *
             get(a->k, a->dtype, (k * a->K + head / (a->Q / a->K)) * a->D + d);
    return x * a->scale;
}

FUNCTION(attention_forward, attention)
{
    UNUSED;
    for (int64_t z = 0; z < a->S; z++) {
        int64_t nq = a->q_starts[z + 1] - a->q_starts[z], nk = a->kv_end[z] - a->kv_first[z];

        for (int64_t i = 0; i < nq * a->Q; i++) {
            int64_t q = a->q_starts[z] + i / a->Q, head = i % a->Q, group = head / (a->Q / a->K);
            int64_t seen = nk - nq + i / a->Q + 1;
            double largest = -INFINITY, sum = 0, o[a->D];

            memset(o, 0, sizeof o);
            for (int64_t j = 0; j < seen; j++)
                largest = fmax(largest, score(a, q, a->kv_first[z] + j, head));
            for (int64_t j = 0; j < seen; j++) {
                double p = exp(score(a, q, a->kv_first[z] + j, head) - largest);

                sum += p;
                for (int64_t d = 0; d < a->D; d++)
                    o[d] +=
                        p * get(a->v, a->dtype, ((a->kv_first[z] + j) * a->K + group) * a->D + d);
            }
            for (int64_t d = 0; d < a->D; d++)
                put(a->o, a->dtype, (q * a->Q + head) * a->D + d, o[d] / sum);
            if (a->lse)
                a->lse[q * a->Q + head] = (float)(largest + log(sum));
        }
    }
    return HY3_OK;
}

static void attention_pair(const struct hy3_attention *a, int64_t q, int64_t k, int64_t head,
                           double *dq, double *dk, double *dv)
{
    int64_t group = head / (a->Q / a->K), row = (q * a->Q + head) * a->D,
            key = (k * a->K + group) * a->D;
    double p = exp(score(a, q, k, head) - a->lse[q * a->Q + head]), dp = 0, delta = 0;

    for (int64_t d = 0; d < a->D; d++) {
        dp += get(a->dout, a->dtype, row + d) * get(a->v, a->dtype, key + d);
        delta += get(a->dout, a->dtype, row + d) * get(a->o, a->dtype, row + d);
    }
    for (int64_t d = 0; d < a->D; d++) {
        dv[key + d] += p * get(a->dout, a->dtype, row + d);
        dq[row + d] += p * (dp - delta) * a->scale * get(a->k, a->dtype, key + d);
        dk[key + d] += p * (dp - delta) * a->scale * get(a->q, a->dtype, row + d);
    }
}

/* Adds to what is there, or replaces it. */
static void put_key(const struct hy3_attention *a, void *to, int64_t i, double x)
{
    if (a->accumulate)
        ((float *)to)[i] = (float)(((float *)to)[i] + x);
    else
        put(to, a->dtype, i, x);
}

FUNCTION(attention_backward, attention)
{
    int64_t T = a->S > 0 ? a->kv_end[a->S - 1] : 0, width = a->K * a->D;
    int64_t nq = a->q_starts[a->S] * a->Q * a->D, nk = T * width;
    double *sums = NULL;

    UNUSED;
    if (hy3_alloc(&sums, (size_t)(nq + 2 * nk), sizeof *sums) != HY3_OK)
        return HY3_ENOMEM;
    for (int64_t z = 0; z < a->S; z++) {
        int64_t before = a->kv_end[z] - a->q_starts[z + 1]; /* key row less query row */

        for (int64_t q = a->q_starts[z]; q < a->q_starts[z + 1]; q++)
            for (int64_t k = a->kv_first[z]; k <= before + q; k++)
                for (int64_t head = 0; head < a->Q; head++)
                    attention_pair(a, q, k, head, sums, sums + nq, sums + nq + nk);
    }
    for (int64_t i = 0; i < nq; i++)
        put(a->dq, a->dtype, i, sums[i]);
    for (int64_t z = 0; z < a->S; z++) {
        bool is_last = z + 1 == a->S || a->kv_first[z + 1] != a->kv_first[z]; /* of its sample */

        for (int64_t i = a->kv_first[z] * width; is_last && i < a->kv_end[z] * width; i++) {
            put_key(a, a->dk, i, sums[nq + i]);
            put_key(a, a->dv, i, sums[nq + nk + i]);
        }
    }
    hy3_free(sums);
    return HY3_OK;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Whether expert e stands before f in the choice. */
static bool beats(const struct hy3_router *a, int64_t t, int64_t e, int64_t f)
{
    float x = (float)sigmoid(a->logits[t * a->E + e]) + a->bias[e];
    float y = (float)sigmoid(a->logits[t * a->E + f]) + a->bias[f];

    return x > y || (x == y && e < f);
}

FUNCTION(router_forward, router)
{
    UNUSED;
    for (int64_t t = 0; t < a->T; t++) {
        double sum = 1e-20;

        for (int64_t e = 0, j = 0; e < a->E && !a->replay; e++) {
            int64_t better = 0;

            for (int64_t f = 0; f < a->E; f++)
                better += beats(a, t, f, e);
            if (better < a->k)
                a->ids[t * a->k + j++] = (int32_t)e;
        }
        for (int64_t j = 0; j < a->k; j++)
            sum += sigmoid(a->logits[t * a->E + a->ids[t * a->k + j]]);
        for (int64_t j = 0; j < a->k; j++)
            a->weights[t * a->k + j] =
                (float)(sigmoid(a->logits[t * a->E + a->ids[t * a->k + j]]) / sum * a->scaling);
    }
    return HY3_OK;
}

/* By central differences of the forward pass in fp64. */
FUNCTION(router_backward, router)
{
    UNUSED;
    for (int64_t t = 0; t < a->T; t++) {
        for (int64_t e = 0; e < a->E; e++)
            a->dlogits[t * a->E + e] = 0;
        for (int64_t i = 0; i < a->k; i++) {
            double value[2];

            for (int side = 0; side < 2; side++) {
                double scores[a->k], sum = 1e-20;

                for (int64_t j = 0; j < a->k; j++) {
                    double x = a->logits[t * a->E + a->ids[t * a->k + j]];

                    scores[j] = sigmoid(x + (j == i ? (side ? 1e-5 : -1e-5) : 0));
                    sum += scores[j];
                }
                value[side] = 0;
                for (int64_t j = 0; j < a->k; j++)
                    value[side] += (double)a->products[a->place[t * a->k + j]] /
                                   a->weights[t * a->k + j] * scores[j] / sum * a->scaling;
            }
            a->dlogits[t * a->E + a->ids[t * a->k + i]] = (float)((value[1] - value[0]) / 2e-5);
        }
    }
    return HY3_OK;
}

FUNCTION(permute_forward, permute)
{
    UNUSED;
    for (int64_t i = 0; i < a->R * a->H; i++)
        put(a->y, a->dtype, i, get(a->x, a->dtype, a->token[i / a->H] * a->H + i % a->H));
    return HY3_OK;
}

FUNCTION(permute_backward, permute)
{
    UNUSED;
    for (int64_t i = 0; i < a->T * a->H; i++) {
        double x = a->accumulate ? get(a->dx, a->dtype, i) : 0;

        for (int64_t j = 0; j < a->k; j++)
            if (a->position[i / a->H * a->k + j] >= 0)
                x += get(a->dy, a->dtype, a->position[i / a->H * a->k + j] * a->H + i % a->H);
        put(a->dx, a->dtype, i, x);
    }
    return HY3_OK;
}

FUNCTION(unpermute_forward, unpermute)
{
    UNUSED;
    for (int64_t i = 0; i < a->T * a->H; i++) {
        double x = a->accumulate ? get(a->out, a->dtype, i) : 0;

        x += a->shared ? get(a->shared, a->dtype, i) : 0;
        for (int64_t j = i / a->H * a->k; j < (i / a->H + 1) * a->k; j++)
            if (a->position[j] >= 0)
                x += (a->weights ? a->weights[j] : 1) *
                     get(a->y, a->dtype, a->position[j] * a->H + i % a->H);
        put(a->out, a->dtype, i, x);
    }
    return HY3_OK;
}

FUNCTION(unpermute_backward, unpermute)
{
    UNUSED;
    for (int64_t i = 0; i < a->T * a->k; i++)
        for (int64_t h = 0; h < a->H && a->position[i] >= 0; h++)
            put(a->dy, a->dtype, a->position[i] * a->H + h,
                (a->weights ? a->weights[i] : 1) * get(a->dout, a->dtype, i / a->k * a->H + h));
    return HY3_OK;
}

FUNCTION(row_dot, row_dot)
{
    UNUSED;
    for (int64_t n = 0; n < a->N; n++) {
        double dot = 0;

        for (int64_t c = 0; c < a->C; c++)
            dot += get(a->a, a->dtype, n * a->C + c) * get(a->b, a->dtype, n * a->C + c);
        a->y[a->to ? a->to[n] : n] = (float)dot;
    }
    return HY3_OK;
}

FUNCTION(swiglu_forward, swiglu)
{
    UNUSED;
    for (int64_t i = 0; i < a->N * a->I; i++) {
        double g = get(a->gate, a->dtype, i / a->I * a->ld + i % a->I);

        put(a->y, a->dtype, i, g * sigmoid(g) * get(a->up, a->dtype, i / a->I * a->ld + i % a->I));
    }
    return HY3_OK;
}

FUNCTION(swiglu_backward, swiglu)
{
    UNUSED;
    for (int64_t i = 0; i < a->N * a->I; i++) {
        int64_t from = i / a->I * a->ld + i % a->I;
        double g = get(a->gate, a->dtype, from), u = get(a->up, a->dtype, from);
        double d = get(a->dy, a->dtype, i), p = sigmoid(g);

        put(a->dgate, a->dtype, from, d * u * p * (1 + g * (1 - p)));
        put(a->dup, a->dtype, from, d * g * p);
    }
    return HY3_OK;
}

FUNCTION(loss_forward, loss)
{
    UNUSED;
    for (int64_t n = 0; n < a->N; n++) {
        double largest = -INFINITY, sum = 0, e = (double)a->smoothing, loss = 0;

        for (int64_t v = 0; v < a->V; v++)
            largest = fmax(largest, a->logits[n * a->V + v]);
        for (int64_t v = 0; v < a->V; v++)
            sum += exp(a->logits[n * a->V + v] - largest);
        a->lse[n] = (float)(largest + log(sum));
        for (int64_t v = 0; v < a->V && a->targets[n] >= 0; v++)
            loss += (e / (double)a->V + (v == a->targets[n] ? 1 - e : 0)) *
                    (largest + log(sum) - a->logits[n * a->V + v]);
        a->loss[n] = (float)loss;
    }
    return HY3_OK;
}

FUNCTION(loss_backward, loss)
{
    UNUSED;
    for (int64_t i = 0; i < a->N * a->V; i++) {
        int64_t target = a->targets[i / a->V];
        double e = (double)a->smoothing;
        double d = exp((double)a->logits[i] - a->lse[i / a->V]) - e / (double)a->V -
                   (i % a->V == target ? 1 - e : 0);

        d *= a->weights ? a->weights[i / a->V] : 1;
        put(a->dlogits, a->dtype, i, target < 0 ? 0 : a->scale * d);
    }
    return HY3_OK;
}

FUNCTION(cast, cast)
{
    UNUSED;
    for (int64_t i = 0; i < a->n; i++)
        put(a->y, a->y_dtype, i, get(a->x, a->x_dtype, i));
    return HY3_OK;
}

FUNCTION(add, add)
{
    UNUSED;
    for (int64_t i = 0; i < a->n; i++)
        put(a->y, a->y_dtype, i, get(a->y, a->y_dtype, i) + get(a->x, a->x_dtype, i));
    return HY3_OK;
}

FUNCTION(dropout, dropout)
{
    UNUSED;
    for (int64_t i = 0; i < a->N * a->C; i++) {
        uint64_t c = (uint64_t)(i % a->C);
        uint32_t word[4];

        hy3_random(a->seed, HY3_RANDOM_DROPOUT, a->keys[i / a->C],
                   (uint64_t)a->stream_id << 32 | c / 4, word);
        put(a->y, a->dtype, i,
            word[c % 4] >= a->p * 0x1p32 ? get(a->x, a->dtype, i) / (1 - (double)a->p) : 0);
    }
    return HY3_OK;
}

FUNCTION(noise, noise)
{
    UNUSED;
    for (int64_t i = 0; i < a->N * a->C; i++) {
        uint64_t c = (uint64_t)(i % a->C);
        uint32_t word[4];

        hy3_random(a->seed, HY3_RANDOM_NOISE, a->keys[i / a->C], c / 4, word);
        put(a->y, a->dtype, i,
            get(a->y, a->dtype, i) +
                (double)a->scale[i / a->C] * (2 * (double)(word[c % 4] >> 8) / 0x1p24 - 1));
    }
    return HY3_OK;
}

FUNCTION(square_sum, square_sum)
{
    double sum = a->accumulate ? *a->sum : 0;

    UNUSED;
    for (int64_t i = 0; i < a->n; i++)
        sum += pow(get(a->x, a->dtype, i), 2);
    *a->sum = sum;
    return HY3_OK;
}

#include "backend/scaled.h"

FUNCTION(adamw, adamw)
{
    float *ms, *vs;

    UNUSED;
    HY3_TRY(hy3_alloc(&ms, (size_t)a->n, sizeof *ms));
    HY3_TRY(hy3_alloc(&vs, (size_t)a->n, sizeof *vs));
    for (int64_t i = 0; i < a->n; i++) {
        float w =
            a->low ? hy3_join(((hy3_bf16 *)a->weight)[i], a->low[i]) : ((float *)a->weight)[i];
        double g = a->grad[i] * a->grad_scale;
        double m = a->beta1 * get_moment(a, true, i) + (1 - a->beta1) * g;
        double v = a->beta2 * get_moment(a, false, i) + (1 - a->beta2) * g * g;
        double m_hat = m / (1 - pow(a->beta1, (double)a->step));
        double v_hat = v / (1 - pow(a->beta2, (double)a->step));

        ms[i] = (float)m;
        vs[i] = (float)v;
        w = (float)(w * (1 - a->lr * a->decay) - a->lr * m_hat / (sqrt(v_hat) + a->eps));
        if (a->low)
            ((hy3_bf16 *)a->weight)[i] = hy3_split(w, &a->low[i]);
        else
            ((float *)a->weight)[i] = w;
    }
    put_moments(a, true, ms);
    put_moments(a, false, vs);
    hy3_free(ms);
    hy3_free(vs);
    return HY3_OK;
}

const struct hy3_kernels hy3_reference_kernels = {
#define X(op) .op = op,
    HY3_OPS(X)
#undef X
#define X(op) .op##_forward = op##_forward, .op##_backward = op##_backward,
        HY3_PAIRS(X)
#undef X
};
