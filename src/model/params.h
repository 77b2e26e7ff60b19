/* params.h - the one table of all tensors of a model.
 *
 * Everything that walks over tensors (loading, ZeRO, optimizer, LoRA targets, checkpoints, export, planning)
 * walks over this table; no second list of names exists. Names are the outer ones (Hugging Face).
 *
 * A unit is what is gathered and freed together: the embedding; per layer its dense part; per layer its
 * experts; final norm and head. Inside a unit a tensor starts at a multiple of HY3_PARAM_ALIGN elements. Buffers (the
 * router's bias) are fp32, have no gradient and lie outside the units. */
#ifndef HY3_MODEL_PARAMS_H
#define HY3_MODEL_PARAMS_H

#include "model/shape.h"

enum { HY3_PARAM_ALIGN = 64, HY3_PARAM_NAME = 96 };

/* clang-format off */
#define HY3_PARAM_KINDS(X) /* kind, outer name; %d is the layer */                  \
    X(HY3_P_EMBED,       "model.embed_tokens.weight")                               \
    X(HY3_P_INPUT_NORM,  "model.layers.%d.input_layernorm.weight")                  \
    X(HY3_P_Q,           "model.layers.%d.self_attn.q_proj.weight")                 \
    X(HY3_P_K,           "model.layers.%d.self_attn.k_proj.weight")                 \
    X(HY3_P_V,           "model.layers.%d.self_attn.v_proj.weight")                 \
    X(HY3_P_O,           "model.layers.%d.self_attn.o_proj.weight")                 \
    X(HY3_P_Q_NORM,      "model.layers.%d.self_attn.q_norm.weight")                 \
    X(HY3_P_K_NORM,      "model.layers.%d.self_attn.k_norm.weight")                 \
    X(HY3_P_POST_NORM,   "model.layers.%d.post_attention_layernorm.weight")         \
    X(HY3_P_GATE,        "model.layers.%d.mlp.gate_proj.weight")                    \
    X(HY3_P_UP,          "model.layers.%d.mlp.up_proj.weight")                      \
    X(HY3_P_DOWN,        "model.layers.%d.mlp.down_proj.weight")                    \
    X(HY3_P_ROUTER,      "model.layers.%d.mlp.gate.weight")                         \
    X(HY3_P_ROUTER_BIAS, "model.layers.%d.mlp.e_score_correction_bias")             \
    X(HY3_P_SHARED_GATE, "model.layers.%d.mlp.shared_experts.gate_proj.weight")     \
    X(HY3_P_SHARED_UP,   "model.layers.%d.mlp.shared_experts.up_proj.weight")       \
    X(HY3_P_SHARED_DOWN, "model.layers.%d.mlp.shared_experts.down_proj.weight")     \
    X(HY3_P_GATE_UP,     "model.layers.%d.mlp.experts.gate_up_proj")                \
    X(HY3_P_EXPERT_DOWN, "model.layers.%d.mlp.experts.down_proj")                   \
    X(HY3_P_FINAL_NORM,  "model.norm.weight")                                       \
    X(HY3_P_HEAD,        "lm_head.weight")

enum hy3_param_kind {
#define X(kind, name) kind,
    HY3_PARAM_KINDS(X)
#undef X
    HY3_PARAM_KIND_COUNT
};

/* clang-format on */

struct hy3_param {
    char name[HY3_PARAM_NAME]; /* outer name */
    enum hy3_param_kind kind;
    int layer; /* -1 outside the layers */
    int unit;  /* index into units; -1: a buffer */
    int dims;  /* 1 to 3 */
    int64_t shape[3];
    int64_t count;  /* product of shape: the whole tensor, over all ranks */
    int64_t offset; /* of the held part in its unit, or among the buffers; elements */
    int64_t first;  /* flat index of the held part's first element: 0, or the rank's first expert */
    int64_t held;   /* elements held: count, or those of this rank's experts */
    bool decay;     /* weight decay applies: matrices, not norms */
    bool trainable; /* has a gradient */
};

struct hy3_unit {
    char name[HY3_PARAM_NAME]; /* "embedding", "layer 3", "layer 3 experts", "head" */
    int layer;                 /* -1 outside the layers */
    bool expert;
    int first, end; /* its parameters: params[first .. end) */
    int64_t count;  /* elements, a multiple of HY3_PARAM_ALIGN; gaps are zero */
};

struct hy3_params {
    struct hy3_shape shape;
    int count, units;
    struct hy3_param *params;
    struct hy3_unit *unit;
    int64_t buffer_count; /* elements of all buffers */
    int64_t total;        /* elements of all parameters over all ranks, buffers not counted */
    int64_t first_expert, held_experts; /* this rank's range of experts */
};

/* Local. The table for a rank that holds `held_experts` experts from `first_expert` on. All parameters
 * are trainable. The caller owns *out (hy3_params_free). */
hy3_status hy3_params_create(const struct hy3_shape *shape, int64_t first_expert,
                             int64_t held_experts, struct hy3_params **out);
void hy3_params_free(struct hy3_params *params);

/* The parameter of a kind in a layer (-1 outside the layers), NULL if the layer has none. O(1). */
const struct hy3_param *hy3_params_find(const struct hy3_params *params, enum hy3_param_kind kind,
                                        int layer);

/* The parameter of an outer name, NULL if there is none. */
const struct hy3_param *hy3_params_named(const struct hy3_params *params, const char *name);

/* The unit of a layer's dense part or experts; of the embedding and of norm + head. -1: none. */
int hy3_params_unit(const struct hy3_params *params, int layer, bool expert);

static inline int hy3_params_embedding_unit(void)
{
    return 0;
}

static inline int hy3_params_head_unit(const struct hy3_params *params)
{
    return params->units - 1;
}

/* Whether layer `layer` has experts instead of a dense MLP. */
static inline bool hy3_shape_is_moe(const struct hy3_shape *shape, int layer)
{
    return shape->experts > 0 && layer >= shape->dense_layers;
}

#endif
