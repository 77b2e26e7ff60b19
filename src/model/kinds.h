/* SPDX-License-Identifier: Apache-2.0 */
/* kinds.h - the one table of the kinds of tensors of a model: a new kind is one entry.
 *
 * Everything else is derived from the entries: the tensors of a model and their units (params.h),
 * which of them are trained and have weight decay, the matrices of a LoRA target, and the names in
 * both layouts of a checkpoint (ckpt/hf/names.h). */
#pragma once

#include "model/shape.h"

#define HY3_LAYER_PREFIX "model.layers."

/* A test builds the library with one more entry (tests/model/new_kind.h). */
#ifndef HY3_EXTRA_KINDS
#    define HY3_EXTRA_KINDS(X)
#endif

/* clang-format off */

/* Sizes of tensors: letter, value for a shape s. A tensor with an extent of 0 does not exist. */
#define HY3_SIZES(X)                                          \
    X(_,   1) /* no such dimension */                         \
    X(H,   s->hidden)                                         \
    X(2H,  2 * s->hidden)                                     \
    X(I,   s->intermediate)                                   \
    X(Q,   s->heads)                                          \
    X(K,   s->kv_heads)                                       \
    X(D,   s->head_dim)                                       \
    X(QD,  s->heads * s->head_dim)                            \
    X(KD,  s->kv_heads * s->head_dim)                         \
    X(V,   s->vocab)                                          \
    X(E,   s->experts)                                        \
    X(IE,  s->expert_intermediate) /* of one expert */        \
    X(2IE, 2 * s->expert_intermediate)                        \
    X(IS,  s->shared_experts * s->expert_intermediate)

/* Entries are in the order of the tensors in a unit. A new one goes to the end: the random numbers
 * of the others depend on their positions (hy3_kind_place).
 *   name     outer name, in a layer behind "model.layers.N."
 *   inner    the inner name if it differs, and an older one that is read as well; of experts, where
 *            # is the expert's number, the names of the parts of the fused tensor
 *   layers   DENSE, MOE, or ANY of the two; MTP: only in MTP layers; OUTSIDE the layers
 *   unit     see params.h; ROUTER: fp32 in both modes; BUFFER: too, outside the units, not trained
 *   extents  experts, rows, columns; matrices have weight decay, vectors have not
 *   role     the part of the model it belongs to
 *   target   its name in lora_target; NULL: no adapter */
#define HY3_PARAM_KINDS(X)                                                                          \
  X(HY3_P_EMBED,       "model.embed_tokens.weight", NULL, NULL,                                     \
    OUTSIDE, EMBEDDING, _, V,   H,  EMBEDDING, NULL)                                                \
  X(HY3_P_INPUT_NORM,  "input_layernorm.weight", NULL, NULL,                                        \
    ANY,     DENSE,     _, H,   _,  NORM,      NULL)                                                \
  X(HY3_P_Q,           "self_attn.q_proj.weight", NULL, NULL,                                       \
    ANY,     DENSE,     _, QD,  H,  ATTENTION, "q_proj")                                            \
  X(HY3_P_K,           "self_attn.k_proj.weight", NULL, NULL,                                       \
    ANY,     DENSE,     _, KD,  H,  ATTENTION, "k_proj")                                            \
  X(HY3_P_V,           "self_attn.v_proj.weight", NULL, NULL,                                       \
    ANY,     DENSE,     _, KD,  H,  ATTENTION, "v_proj")                                            \
  X(HY3_P_O,           "self_attn.o_proj.weight", NULL, NULL,                                       \
    ANY,     DENSE,     _, H,   QD, ATTENTION, "o_proj")                                            \
  X(HY3_P_Q_NORM,      "self_attn.q_norm.weight", NULL, NULL,                                       \
    ANY,     DENSE,     _, D,   _,  ATTENTION, NULL)                                                \
  X(HY3_P_K_NORM,      "self_attn.k_norm.weight", NULL, NULL,                                       \
    ANY,     DENSE,     _, D,   _,  ATTENTION, NULL)                                                \
  X(HY3_P_POST_NORM,   "post_attention_layernorm.weight", NULL, NULL,                               \
    ANY,     DENSE,     _, H,   _,  NORM,      NULL)                                                \
  X(HY3_P_GATE,        "mlp.gate_proj.weight", NULL, NULL,                                          \
    DENSE,   DENSE,     _, I,   H,  MLP,       "gate_proj")                                         \
  X(HY3_P_UP,          "mlp.up_proj.weight", NULL, NULL,                                            \
    DENSE,   DENSE,     _, I,   H,  MLP,       "up_proj")                                           \
  X(HY3_P_DOWN,        "mlp.down_proj.weight", NULL, NULL,                                          \
    DENSE,   DENSE,     _, H,   I,  MLP,       "down_proj")                                         \
  X(HY3_P_ROUTER,      "mlp.gate.weight",                                                           \
    "mlp.router.gate.weight", "mlp.gate.wg.weight",                                                 \
    MOE,     ROUTER,    _, E,   H,  ROUTER,    NULL)                                                \
  X(HY3_P_ROUTER_BIAS, "mlp.e_score_correction_bias",                                               \
    "mlp.expert_bias", NULL,                                                                        \
    MOE,     BUFFER,    _, E,   _,  ROUTER,    NULL)                                                \
  X(HY3_P_SHARED_GATE, "mlp.shared_experts.gate_proj.weight",                                       \
    "mlp.shared_mlp.gate_proj.weight", NULL,                                                        \
    MOE,     DENSE,     _, IS,  H,  SHARED,    "gate_proj")                                         \
  X(HY3_P_SHARED_UP,   "mlp.shared_experts.up_proj.weight",                                         \
    "mlp.shared_mlp.up_proj.weight", NULL,                                                          \
    MOE,     DENSE,     _, IS,  H,  SHARED,    "up_proj")                                           \
  X(HY3_P_SHARED_DOWN, "mlp.shared_experts.down_proj.weight",                                       \
    "mlp.shared_mlp.down_proj.weight", NULL,                                                        \
    MOE,     DENSE,     _, H,   IS, SHARED,    "down_proj")                                         \
  X(HY3_P_GATE_UP,     "mlp.experts.gate_up_proj",                                                  \
    "mlp.experts.#.gate_proj.weight", "mlp.experts.#.up_proj.weight",                               \
    MOE,     EXPERTS,   E, 2IE, H,  EXPERT,    "experts")                                           \
  X(HY3_P_EXPERT_DOWN, "mlp.experts.down_proj",                                                     \
    "mlp.experts.#.down_proj.weight", NULL,                                                         \
    MOE,     EXPERTS,   E, H,   IE, EXPERT,    "experts")                                           \
  X(HY3_P_FINAL_NORM,  "model.norm.weight", NULL, NULL,                                             \
    OUTSIDE, HEAD,      _, H,   _,  NORM,      NULL)                                                \
  X(HY3_P_HEAD,        "lm_head.weight", NULL, NULL,                                                \
    OUTSIDE, HEAD,      _, V,   H,  HEAD,      NULL)                                                \
  X(HY3_P_MTP_PROJ,    "eh_proj.weight", NULL, NULL,                                                \
    MTP,     DENSE,     _, H,   2H, MLP,       NULL)                                                \
  X(HY3_P_MTP_EMBED_NORM,  "enorm.weight", NULL, NULL,                                              \
    MTP,     DENSE,     _, H,   _,  NORM,      NULL)                                                \
  X(HY3_P_MTP_HIDDEN_NORM, "hnorm.weight", NULL, NULL,                                              \
    MTP,     DENSE,     _, H,   _,  NORM,      NULL)                                                \
  X(HY3_P_MTP_FINAL_NORM,  "final_layernorm.weight", NULL, NULL,                                    \
    MTP,     DENSE,     _, H,   _,  NORM,      NULL)                                                \
  HY3_EXTRA_KINDS(X)

enum hy3_size {
#define X(letter, value) HY3_SIZE_##letter,
    HY3_SIZES(X)
#undef X
};

enum hy3_param_kind {
#define X(kind, ...) kind,
    HY3_PARAM_KINDS(X)
#undef X
    HY3_PARAM_KIND_COUNT
};

/* clang-format on */

enum hy3_layers { HY3_IN_OUTSIDE, HY3_IN_DENSE, HY3_IN_MOE, HY3_IN_ANY, HY3_IN_MTP };

/* In the order in which they stand in a layer. */
enum hy3_part {
    HY3_OF_EMBEDDING,
    HY3_OF_DENSE,
    HY3_OF_ROUTER,
    HY3_OF_BUFFER,
    HY3_OF_EXPERTS,
    HY3_OF_HEAD,
};

enum hy3_role {
    HY3_ROLE_EMBEDDING,
    HY3_ROLE_NORM,
    HY3_ROLE_ATTENTION,
    HY3_ROLE_MLP,
    HY3_ROLE_ROUTER,
    HY3_ROLE_SHARED,
    HY3_ROLE_EXPERT,
    HY3_ROLE_HEAD,
};

/* An entry. */
struct hy3_kind {
    const char *name, *inner[2];
    enum hy3_layers layers;
    enum hy3_part unit;
    enum hy3_size extents[3];
    enum hy3_role role;
    const char *target;
};

extern const struct hy3_kind hy3_kinds[HY3_PARAM_KIND_COUNT];

/* Dimensions (1 to 3) of a kind and their extents; 0 if a model of this shape has none. */
int hy3_kind_extents(const struct hy3_shape *shape, enum hy3_param_kind kind, int64_t extents[3]);

/* Rows and columns of the matrix of a kind (of one expert); false if the kind is no matrix of a
 * layer. */
bool hy3_kind_matrix(const struct hy3_shape *shape, enum hy3_param_kind kind, int64_t *out,
                     int64_t *in);

static inline bool hy3_kind_is_expert(enum hy3_param_kind kind)
{
    return hy3_kinds[kind].unit == HY3_OF_EXPERTS;
}

/* The number of a layer's tensor in random number streams. It must never change, or the same seed
 * would give another run: kinds added later do not shift the first ones. */
static inline uint32_t hy3_kind_place(int layer, enum hy3_param_kind kind)
{
    const uint32_t first_kinds = HY3_P_HEAD + 1;

    return kind < first_kinds ? (uint32_t)layer * first_kinds + kind
                              : (uint32_t)kind << 24 | (uint32_t)layer;
}
