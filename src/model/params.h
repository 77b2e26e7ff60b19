/* SPDX-License-Identifier: Apache-2.0 */
/* params.h - the one table of all tensors of a model, made from the entries of kinds.h.
 *
 * Everything that walks over tensors (loading, ZeRO, optimizer, LoRA targets, checkpoints, export,
 * planning) walks over this table; no second list of names exists. Names are the outer ones
 * (Hugging Face). An adapter's tensors (LoRA) stand behind those of the model, under PEFT's names,
 * in units of their own.
 *
 * A unit is what is gathered and freed together: the embedding; per layer its dense part, its
 * router, and its experts; final norm and head. Inside a unit a tensor starts at a multiple of
 * HY3_PARAM_ALIGN elements. A router's unit is fp32 in both modes, because a rounded score may
 * choose another expert. Buffers (the router's bias) are fp32, have no gradient and lie outside the
 * units. */
#pragma once

#include "base/span.h"
#include "model/kinds.h"

#include <math.h>

enum { HY3_PARAM_ALIGN = 64, HY3_PARAM_NAME = 112 };

/* A tensor of the model, or a factor of the low-rank product that an adapter adds to it:
 * W + scale B A (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021). */
enum hy3_param_part { HY3_BASE, HY3_LORA_A, HY3_LORA_B, HY3_PARAM_PARTS };

/* A LoRA adapter: the matrices it adds to, and its hyperparameters. */
struct hy3_lora {
    int64_t rank; /* 0: no adapter */
    double alpha, dropout;
    bool rslora; /* the scale is alpha / sqrt(rank) (Kalajdzievski 2023), else alpha / rank */
    bool targets[HY3_PARAM_KIND_COUNT];
    /* the model's own tensors that are trained whole and kept in the adapter's file instead of
     * factors (PEFT's modules_to_save): embedding and head */
    bool saved[HY3_PARAM_KIND_COUNT];
    /* [layers, HY3_PARAM_KIND_COUNT] the matrices of the targets that it adds to; NULL: those of
     * all layers. Borrowed, for hy3_params_add_adapter only. */
    const bool *matrices;
};

/* The factor of B A. Source: PEFT, tuners/lora/layer.py, scaling. */
static inline float hy3_lora_scale(const struct hy3_lora *lora)
{
    double rank = (double)lora->rank;

    return (float)(lora->alpha / (lora->rslora ? sqrt(rank) : rank));
}

/* Weights to train. */
enum hy3_training {
    HY3_TRAIN_NOTHING,
    HY3_TRAIN_FULL,
    HY3_TRAIN_ATTENTION,
    HY3_TRAIN_LAYERS, /* a selection of modules in some layers (freeze.h) */
    HY3_TRAIN_ADAPTER
};

/* What of the model's own tensors is trained, besides the choice above. */
struct hy3_selection {
    bool freeze_router; /* whatever else is trained */
    /* of HY3_TRAIN_LAYERS */
    int64_t layers;                       /* the last N, or the first -N if it is below 0 */
    bool in_layers[HY3_PARAM_KIND_COUNT]; /* kinds that are trained in these layers */
    bool anywhere[HY3_PARAM_KIND_COUNT];  /* and in all, and outside of them */
};

struct hy3_param {
    char name[HY3_PARAM_NAME]; /* outer name */
    enum hy3_param_kind kind;
    enum hy3_param_part part;
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

/* The held part. */
static inline struct hy3_span hy3_param_held(const struct hy3_param *param)
{
    return (struct hy3_span){param->first, param->held};
}

struct hy3_unit {
    char name[HY3_PARAM_NAME]; /* "embedding", "layer 3", "layer 3 experts", "head" */
    int layer;                 /* -1 outside the layers */
    bool expert;
    bool wide;                      /* fp32 whatever the compute precision */
    int first, end;                 /* its parameters: params[first .. end) */
    int64_t count;                  /* elements, a multiple of HY3_PARAM_ALIGN; gaps are zero */
    int64_t grad_first, grad_count; /* the elements between the first and last that are trained */
};

struct hy3_params {
    struct hy3_shape shape;
    struct hy3_lora lora;
    int count, units;           /* with the adapter's */
    int base_count, base_units; /* the model's own: they stand first */
    struct hy3_param *params;
    struct hy3_unit *unit;
    int64_t buffer_count; /* elements of all buffers */
    int64_t total; /* elements of the model's parameters over all ranks, buffers not counted */
    int64_t first_expert, held_experts; /* this rank's range of experts */
    int *first;                         /* [layers+1] place of a layer's first tensor */
    int *adapter_first; /* [layers+1] place of a layer's first adapter tensor; NULL: no adapter */
};

/* Local. The table for a rank that holds `held_experts` experts from `first_expert` on. All
 * parameters are trainable. The caller owns *out (hy3_params_free). */
hy3_status hy3_params_create(const struct hy3_shape *shape, int64_t first_expert,
                             int64_t held_experts, struct hy3_params **out);

/* Local. The table of all tensors of a checkpoint: multi-token-prediction layers, which no program
 * runs and every file keeps, are ordinary layers here; the tensors that only they have are last. */
hy3_status hy3_params_create_mtp(const struct hy3_shape *shape, struct hy3_params **out);
void hy3_params_free(struct hy3_params *params);

/* Local. Adds the tensors of an adapter and freezes the model. To be called before anyone keeps an
 * address of the table. A is [rank, in] and B [out, rank]; of fused experts [E, rank, in] and [E,
 * out, rank]. Errors: HY3_ENOMEM. */
hy3_status hy3_params_add_adapter(struct hy3_params *params, const struct hy3_lora *lora);

/* Local. Sets which tensors are trained: they have a gradient. selection: NULL is all zero. */
void hy3_params_train(struct hy3_params *params, enum hy3_training training,
                      const struct hy3_selection *selection);

/* The first layer whose backward pass has a gradient to calculate: no layer before it, nor the
 * embedding, is trained; the number of layers if none is. */
int hy3_params_first_trained(const struct hy3_params *params);

/* Elements that are trained, over all ranks. */
int64_t hy3_params_trained(const struct hy3_params *params);

/* The parameter of a kind in a layer (-1 outside the layers), NULL if there is none. O(1). */
const struct hy3_param *hy3_params_find(const struct hy3_params *params, enum hy3_param_kind kind,
                                        int layer);

/* A factor of the adapter for a kind in a layer, NULL if there is none. O(1). */
const struct hy3_param *hy3_params_factor(const struct hy3_params *params, enum hy3_param_part part,
                                          enum hy3_param_kind kind, int layer);

/* The parameter of an outer name, NULL if there is none; no adapter's. */
const struct hy3_param *hy3_params_named(const struct hy3_params *params, const char *name);

/* Whether the tensor is kept in the adapter's file: a factor, or one that is saved whole. */
static inline bool hy3_param_is_adapters(const struct hy3_params *params,
                                         const struct hy3_param *param)
{
    return param->part != HY3_BASE || params->lora.saved[param->kind];
}

/* The unit of a layer's dense part or experts; of the embedding and of norm + head. -1: none. */
int hy3_params_unit(const struct hy3_params *params, int layer, bool expert);

/* The unit of a layer's router. -1: none. */
int hy3_params_router_unit(const struct hy3_params *params, int layer);

/* The unit of the adapter of a layer's dense part or experts. -1: none. */
int hy3_params_adapter_unit(const struct hy3_params *params, int layer, bool expert);

static inline int hy3_params_embedding_unit(void)
{
    return 0;
}

static inline int hy3_params_head_unit(const struct hy3_params *params)
{
    return params->base_units - 1;
}

/* Whether layer `layer` has experts instead of a dense MLP. */
static inline bool hy3_shape_is_moe(const struct hy3_shape *shape, int layer)
{
    return shape->experts > 0 && layer >= shape->dense_layers;
}
