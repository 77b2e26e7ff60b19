/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.h - the operations of a backend: one list, and one struct of named arguments for each.
 *
 * Letters: T tokens, H hidden, Q query heads, K key-value heads, D head_dim, I intermediate, E
 * experts held by this rank, k experts per token, V vocabulary, R = T k routed rows, S samples, N
 * rows, C columns. All tensors are contiguous and row-major, in memory of the backend's device
 * unless a field says host.
 * "=" overwrites, "+=" adds. Accumulation is in fp32 whatever the dtype; a sum's order depends on
 * shapes and thread count only, never on timing. Zero rows are legal everywhere. Gradients of
 * weights are fp32; a NULL gradient pointer means frozen: it is not computed. Kernels do not
 * allocate in the step loop beyond what their first use of a shape caches, do not synchronise and
 * know no ranks; backend.c has checked the shapes. */
#pragma once

#include "backend/device.h"
#include "base/dtype.h"
#include "base/error.h"

/* clang-format off */
#define HY3_PAIRS(X) X(embedding) X(rmsnorm) X(rope) X(attention) X(router) X(permute) X(unpermute) \
                     X(swiglu) X(loss)
#define HY3_OPS(X)   X(gemm) X(grouped_gemm) X(route_index) X(label) X(relabel) X(unlabel) X(row_dot) X(cast) X(add) X(dropout) X(noise) \
                     X(square_sum) X(adamw) X(expand) X(quantize)

/* clang-format on */

/* How the rows and columns of a product lie in memory. W is a weight [N,K] as a linear layer stores
 * it. */
enum hy3_gemm_form {
    HY3_NT, /* C[M,N] = A[M,K] B[N,K]^T   forward:  y  = x W^T   */
    HY3_NN, /* C[M,N] = A[M,K] B[K,N]     backward: dx = dy W    */
    HY3_TN, /* C[M,N] = A[K,M]^T B[K,N]   backward: dW = dy^T x  */
};

/* C = or += alpha * product. */
struct hy3_gemm {
    enum hy3_gemm_form form;
    int64_t M, N, K;
    hy3_dtype dtype;   /* of A and B */
    hy3_dtype c_dtype; /* of C: dtype, or fp32 */
    bool accumulate;   /* C += */
    float alpha;       /* 1 in a plain product */
    const void *A, *B;
    void *C;
};

/* One product a group (expert). Group g owns the rows starts[g] .. starts[g+1] of the row
 * dimension:
 *   NT: C[rows,N] = A[rows,K] B[g][N,K]^T     NN: C[rows,N] = A[rows,K] B[g][K,N]
 *   TN: C[g][M,N] = A[rows,M]^T B[rows,N], the row dimension is summed; a group without rows adds
 *   0 */
struct hy3_grouped_gemm {
    enum hy3_gemm_form form;
    int64_t groups;
    const int64_t *starts; /* HOST [groups+1], ascending from 0 */
    int64_t M, N, K;       /* NT, NN: N, K; TN: M, N; the other is the row dimension and ignored */
    hy3_dtype dtype, c_dtype;
    bool accumulate; /* C += */
    float alpha;     /* 1 in a plain product */
    const void *A, *B;
    void *C;
};

/* y[t] = W[ids[t]];  dW[ids[t]] += dy[t], t ascending within a row of W. ids are below V (checked
 * where they were read). */
struct hy3_embedding {
    int64_t T, H, V;
    hy3_dtype dtype;    /* of W, y, dy */
    const int32_t *ids; /* [T] */
    const void *W;      /* [V,H] */
    void *y;            /* [T,H] forward: = */
    const void *dy;     /* [T,H] */
    float *dW;          /* [V,H] backward: += */
};

/* RMSNorm: y[t,h] = w[h] x[t,h] r[t],  r[t] = 1 / sqrt(mean_h x[t,h]^2 + eps).
 * Source: Zhang and Sennrich 2019, eq. 4. Statistics in fp32. Bound by memory: 2 T H elements. */
struct hy3_rmsnorm {
    int64_t T, H;
    float eps;
    hy3_dtype dtype;   /* of x, w, y, dy, dx */
    const void *x, *w; /* [T,H], [H] */
    void *y;           /* [T,H] forward: = */
    float *r;          /* [T]   forward: =, read by backward */
    const void *dy;    /* [T,H] */
    void *dx;          /* [T,H] backward: += (residual) */
    float *dw;         /* [H]   backward: +=; NULL if w is frozen */
};

/* RMSNorm of each head, then rotary embedding, half-split: with n = w x r and angle a = position *
 * theta^(-2i/D), i < D/2:  y[i] = n[i] cos a - n[i+D/2] sin a,  y[i+D/2] = n[i+D/2] cos a + n[i]
 * sin a.
 * Source: Su et al. 2021, in the half-split form of transformers' apply_rotary_pos_emb. Angles in
 * fp64 on the CPU; sin and cos rounded to fp32. Called once for the queries, once for the keys. */
struct hy3_rope {
    int64_t T, heads, D;
    float eps;
    double theta;
    hy3_dtype dtype;
    const int32_t *positions; /* [T] place in the sample */
    const void *x, *w;        /* [T,heads,D], [D] */
    void *y;                  /* [T,heads,D] forward: = */
    float *r;                 /* [T,heads]   forward: =, read by backward */
    const void *dy;           /* [T,heads,D] */
    void *dx;                 /* [T,heads,D] backward: = */
    float *dw;                /* [D]         backward: +=; NULL if frozen */
};

/* Causal attention inside each sample: o = softmax(scale q k^T) v. Segment s, consecutive tokens of
 * a sample, has the query rows q_starts[s] .. q_starts[s+1] and sees the key rows kv_first[s] ..
 * kv_end[s], those of the sample up to its last query, which sees the last key: so a whole sample
 * has as many keys as queries, and what continues a cached prefix, or is a part of a sample, has
 * more. Segments of one sample, at most two, have the same kv_first, ascending kv_end, and are
 * adjacent; keys of other samples come behind. Query head h uses key-value head h / (Q/K). Never
 * holds a [T,T] matrix. The backward writes dk and dv of the keys that any segment sees, no others.
 * Source: Dao 2023 (FlashAttention-2), algorithms 1 and 2, delta[t] = dot(do[t], o[t]). */
struct hy3_attention {
    int64_t S, Q, K, D;
    const int64_t *q_starts;          /* HOST [S+1] */
    const int64_t *kv_first, *kv_end; /* HOST [S]; of whole samples q_starts and q_starts + 1 */
    float scale;
    hy3_dtype dtype;
    const void *q, *k, *v; /* [Tq,Q,D], [Tk,K,D], [Tk,K,D] */
    void *o;               /* [Tq,Q,D] forward: =, read by backward */
    float *lse;            /* [Tq,Q]   forward: = log sum exp, read by backward; NULL: not wanted */
    const void *dout;      /* [Tq,Q,D] */
    void *dq, *dk, *dv;    /* as q, k, v; backward: = */
    bool accumulate;       /* dk and dv are fp32, and backward: += */
};

/* Sigmoid top-k router: s = sigmoid(logits); the k experts with the largest s + bias are chosen,
 * equal sums by smaller expert; weights = s_chosen / (sum s_chosen + 1e-20) * scaling. ids ascend
 * within a token, so that later sums have one order. Source: DeepSeek-V3 report, section 2.1.2;
 * transformers' HYV3 router.
 * backward: dlogits through the chosen scores, from the gradient of each weight times the weight:
 * with p = s_chosen / sum and g = weights dweights, dlogits[t,ids[t,j]] = (g_j - p_j sum_i g_i)
 * (1 - s_j). The choice itself has no gradient. */
struct hy3_router {
    int64_t T, E, k; /* here E is all experts of the layer, k <= E */
    float scaling;
    bool replay;           /* ids are given (recomputation): only weights are computed */
    const float *logits;   /* [T,E] */
    const float *bias;     /* [E] */
    int32_t *ids;          /* [T,k] forward: =, or read with replay */
    float *weights;        /* [T,k] forward: = */
    int64_t R;             /* backward: numbers in products */
    const int32_t *place;  /* [T,k] backward: places of (t,j) in products */
    const float *products; /* [R] backward: of each row, its weight times the weight's gradient */
    float *dlogits;        /* [T,E] backward: = */
};

/* Stable counting sort of the routed rows by owner, which has `width` experts (1: each expert by
 * itself); G owners. Rows of owner g stand at starts[g] .. starts[g+1], by token ascending.
 * position[t,j] is the row of (t,j), token[row] its token. A token has one row of an owner: where
 * ids[t,j] and ids[t,j-1] have the same one, position[t,j] is -1; so it is where ids[t,j] is -1. */
struct hy3_route_index {
    int64_t T, G, k, width;
    int64_t stride;     /* from one of the ids to the next */
    const int32_t *ids; /* [T,k] below G width, ascending within a token, then -1 */
    int32_t *position;  /* [T,k] = */
    int32_t *token;     /* [T k] = as many as there are rows */
    int64_t *starts;    /* [G+1] = */
};

/* What a row that travels to its experts says of one of them: the row of the expert is the
 * place-th of the block, and counts with `weight`. */
struct hy3_row_label {
    int32_t block, place; /* block -1: none */
    float weight;
};

/* Labels of the rows with which tokens travel to their experts: parcel[t,j] is that of token t to
 * its j-th one; -1: that of j-1. A parcel's labels, at most `width`, are those of its experts,
 * ascending, then empty ones. The experts are held `held` together, and their rows come from
 * `sources`; this is the one with number `source`. The block of an expert's rows is its number
 * among the held ones times sources + source, the place that of the row among the source's rows of
 * the expert. slot[t,j] is the number of the label of (t,j). */
struct hy3_label {
    int64_t T, k, width, held, sources, source;
    const int32_t *ids, *position; /* [T,k], of struct hy3_route_index with width 1 */
    const int64_t *starts;         /* of each expert, the same */
    const float *weights;          /* [T,k] */
    const int32_t *parcel;         /* [T,k] */
    struct hy3_row_label *labels;  /* [parcels,width] = */
    int32_t *slot;                 /* [T,k] = */
};

/* Labels of rows that a rank passes on: parcel[t,j] is the row with which row t travels to where
 * its j-th label belongs, or -1: that of j-1. There the blocks have their numbers modulo `blocks`.
 * slot[t,j] is the number of the label of (t,j); 0 where it is empty. */
struct hy3_relabel {
    int64_t T, k, width, blocks;
    const struct hy3_row_label *came; /* [T,k] */
    const int32_t *parcel;            /* [T,k] */
    struct hy3_row_label *labels;     /* [parcels,width] = */
    int32_t *slot;                    /* [T,k] = */
};

/* The R rows of experts that N received rows with labels come to: block b begins at row first[b],
 * less the places of it that are not in this round. With row r that of label s: token[r] = s / k,
 * slot[r] = s, position[s] = r, weights[s] = its weight; position -1 and weight 0 where a label is
 * empty. */
struct hy3_unlabel {
    int64_t N, R, k, blocks;
    const struct hy3_row_label *labels; /* [N,k] */
    const int64_t *first;               /* [blocks] */
    int32_t *token, *slot;              /* [R] = */
    int32_t *position;                  /* [N,k] = */
    float *weights;                     /* [N,k] = */
};

/* Rows to the order of an index, and their gradients back:
 * forward: y[r] = x[token[r]];   backward: dx[t] (= or +=) sum_j dy[position[t,j]], j ascending;
 * where position is negative the term is absent. Also compacts rows (k = 1). */
struct hy3_permute {
    int64_t T, R, H, k;
    hy3_dtype dtype;
    const int32_t *token;    /* [R]   forward */
    const int32_t *position; /* [T,k] backward */
    const void *x;           /* [T,H] */
    void *y;                 /* [R,H] forward: = */
    const void *dy;          /* [R,H] */
    void *dx;                /* [T,H] backward: = , or += if accumulate */
    bool accumulate;
};

/* Weighted sum of each token's expert rows, with the shared expert and the residual, rounded once:
 * forward: out[t] (= or +=) shared[t] + sum_j weights[t,j] y[position[t,j]], in fp32, j ascending
 * (then shared).
 * backward: dy[position[t,j]] = weights[t,j] dout[t].
 * Where position is negative the term is absent. */
struct hy3_unpermute {
    int64_t T, R, H, k;
    hy3_dtype dtype;
    const int32_t *position; /* [T,k] */
    const float *weights;    /* [T,k]; NULL: all 1 */
    const void *y;           /* [R,H] forward */
    const void *shared;      /* [T,H] or NULL */
    void *out;               /* [T,H] forward: =, or += if accumulate */
    bool accumulate;
    const void *dout; /* [T,H] */
    void *dy;         /* [R,H] backward: = */
};

/* Dot products of rows: y[to[n]] = sum_c a[n,c] b[n,c], in fp32. */
struct hy3_row_dot {
    int64_t N, C;
    hy3_dtype dtype;
    const void *a, *b; /* [N,C] */
    const int32_t *to; /* [N] different places; NULL: y[n] */
    int64_t places;    /* of y, where `to` is given */
    float *y;          /* [places], or [N] = */
};

/* y = silu(gate) * up, silu(a) = a sigmoid(a). gate and up are two matrices [N,I], or the halves of
 * one [N,2I] (ld = 2I, up = gate + I). Source: Shazeer 2020. The backward may write over gate and
 * up. */
struct hy3_swiglu {
    int64_t N, I, ld; /* ld: elements from row to row of gate, up, dgate, dup; I or 2I */
    hy3_dtype dtype;
    const void *gate, *up; /* [N,I], row stride ld */
    void *y;               /* [N,I] forward: = */
    const void *dy;        /* [N,I] */
    void *dgate, *dup;     /* [N,I], row stride ld; backward: =; may be gate and up themselves */
};

/* Cross-entropy of a chunk of logits with e = smoothing: loss[n] = lse[n] - (1 - e)
 * logits[n,target[n]] - e mean over v of logits[n,v]; a target of -1 has loss 0 and no gradient.
 * backward: dlogits[n,v] = scale weights[n] (exp(logits[n,v] - lse[n]) - (1 - e) [v == target[n]] -
 * e / V), the gradient of the weighted sum of the losses; the losses are without their weights.
 * Writing the gradient as fp32 over the logits themselves is allowed. Source of the smoothing:
 * transformers/trainer_pt_utils.py, LabelSmoother. */
struct hy3_loss {
    int64_t N, V;
    const float *logits;    /* [N,V] */
    const int32_t *targets; /* [N] */
    float *loss;            /* [N] forward: = */
    float *lse;             /* [N] forward: =, read by backward */
    float scale;            /* 1 / label tokens of the global batch */
    float smoothing;        /* 0 <= e < 1 */
    const float *weights;   /* [N] read by backward; NULL: all 1 */
    hy3_dtype dtype;        /* of dlogits */
    void *dlogits;          /* [N,V] backward: = */
};

/* Element-wise conversion between fp32 and bf16. */
struct hy3_cast {
    int64_t n;
    hy3_dtype x_dtype, y_dtype;
    const void *x;
    void *y; /* = */
};

/* y += x. */
struct hy3_add {
    int64_t n;
    hy3_dtype x_dtype, y_dtype;
    const void *x;
    void *y;
};

/* y = x / (1 - p) where kept, else 0. Element i of row n is kept if the Philox word at (seed,
 * dropout, high = keys[n], low = stream_id * 2^32 + i / 4), word i % 4, is >= p 2^32: a mask
 * depends on (step, sample, position) through keys, on the place in the network through stream_id,
 * never on layout. In place is allowed. Its own backward. */
struct hy3_dropout {
    int64_t N, C;
    float p; /* 0 <= p < 1 */
    uint64_t seed;
    uint32_t stream_id;
    const uint64_t *keys; /* [N] */
    hy3_dtype dtype;
    const void *x; /* [N,C] */
    void *y;       /* [N,C] = */
};

/* y[n,i] += scale[n] (2 u - 1), u the uniform number (hy3_random_uniform) of the Philox word at
 * (seed, noise, high = keys[n], low = i / 4), word i % 4. Its gradient is that of y. */
struct hy3_noise {
    int64_t N, C;
    uint64_t seed;
    const uint64_t *keys; /* [N] */
    const float *scale;   /* [N] */
    hy3_dtype dtype;
    void *y; /* [N,C] */
};

/* *sum = or += sum x[i]^2 in fp64, in blocks of a fixed size. NaN or Inf in x make it NaN or
 * Inf. */
struct hy3_square_sum {
    int64_t n;
    hy3_dtype dtype;
    const void *x;
    bool accumulate;
    double *sum; /* [1] */
};

/* What the moments of AdamW are kept in. */
enum hy3_moment_format {
    HY3_MOMENTS_FP32,
    HY3_MOMENTS_BF16, /* rounded up or down at random, by how near the two are: the average is kept,
                       * where a decay of 0.1 % would be lost by rounding to nearest */
    HY3_MOMENTS_8BIT  /* codes of blocks, with a scale each (moments.h) */
};

/* Bytes of a moment, scales not counted. */
static inline size_t hy3_moment_size(enum hy3_moment_format format)
{
    return format == HY3_MOMENTS_FP32 ? 4 : format == HY3_MOMENTS_BF16 ? 2 : 1;
}

/* AdamW (Loshchilov and Hutter 2019), as torch.optim.AdamW: with g = grad_scale * grad
 *   w -= lr decay w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   w -= lr / (1-b1^step) * m / (sqrt(v) / sqrt(1-b2^step) + eps)
 * with w in fp32. A bf16 weight carries the upper half of its w, `low` the rest (base/dtype.h,
 * hy3_split). All is computed in fp32; then the moments are brought into their format. The random
 * bits of element i of the tensor are those of the Philox word at (seed, moment, high = step * 2^32
 * + tensor, low = i / 4), word i % 4: the upper half for m, the lower one for v. */
struct hy3_adamw {
    int64_t n, step; /* step counts from 1 */
    double lr, beta1, beta2, eps, decay, grad_scale;
    hy3_dtype dtype; /* of weight */
    void *weight;    /* [n] = */
    int16_t *low;    /* [n] =; NULL: weight is fp32, w itself */
    enum hy3_moment_format moments;
    void *m, *v;              /* [n] +=, in the format */
    float *m_scale, *v_scale; /* 8-bit: [hy3_moment_blocks(first, n)] = */
    uint64_t seed;            /* bf16 */
    int64_t tensor;           /* bf16: its number */
    int64_t first;     /* bf16, 8-bit: the element of the tensor that is the first of the n */
    const float *grad; /* [n] */
};

/* Blocks of `size` elements, the last one maybe smaller, that n elements are. */
static inline int64_t hy3_blocks(int64_t n, int64_t size)
{
    return n / size + (n % size != 0);
}

/* Frozen weights in 8 bits: M matrices [N,K] of E4M3 values, each times the scale of its block.
 * y = x scale, in fp32, rounded to the dtype. A matrix has the scales [ceil(N/rows),
 * ceil(K/columns)] of blocks [rows,columns]; a scale a row has columns = K, a scale a matrix rows =
 * N too. */
struct hy3_expand {
    int64_t M, N, K;
    int64_t rows, columns; /* of a block */
    int64_t stride;        /* scales from one matrix to the next */
    const hy3_fp8 *x;      /* [M,N,K] */
    const float *scales;   /* [M,stride] */
    hy3_dtype dtype;       /* of y */
    void *y;               /* [M,N,K] = */
};

/* One matrix to that: the scale of a block is its largest magnitude / 448 (at least 2^-126), or 1
 * if all of it is zero; y = x / scale, rounded to nearest even. */
struct hy3_quantize {
    int64_t N, K;
    int64_t rows, columns; /* of a block */
    hy3_dtype dtype;       /* of x */
    const void *x;         /* [N,K], finite */
    hy3_fp8 *y;            /* [N,K] = */
    float *scales;         /* [ceil(N/rows),ceil(K/columns)] = */
};

struct hy3_kernels {
#define X(op) hy3_status (*op)(struct hy3_stream *, const struct hy3_##op *);
    HY3_OPS(X)
#undef X
#define X(op)                                                                 \
    hy3_status (*op##_forward)(struct hy3_stream *, const struct hy3_##op *); \
    hy3_status (*op##_backward)(struct hy3_stream *, const struct hy3_##op *);
    HY3_PAIRS(X)
#undef X
};
