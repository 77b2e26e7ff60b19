/* SPDX-License-Identifier: Apache-2.0 */
/* params.c - the table is built from two lists of kinds, one for a dense layer and one for a layer
 * with experts. Layers of a sort have the same number of parameters, so a layer's place in the
 * table is computed, not searched. */
#include "model/params.h"

#include "base/memory.h"

enum { DENSE_KINDS = 11, MOE_KINDS = 15, SHARED_KINDS = 3 };

/* clang-format off */
static const enum hy3_param_kind dense_kinds[DENSE_KINDS] = {
    HY3_P_INPUT_NORM, HY3_P_Q, HY3_P_K, HY3_P_V, HY3_P_O, HY3_P_Q_NORM, HY3_P_K_NORM, HY3_P_POST_NORM,
    HY3_P_GATE, HY3_P_UP, HY3_P_DOWN,
};

/* The buffer stands between the dense part and the experts, so that a unit's parameters are consecutive. */
static const enum hy3_param_kind moe_kinds[MOE_KINDS] = {
    HY3_P_INPUT_NORM, HY3_P_Q, HY3_P_K, HY3_P_V, HY3_P_O, HY3_P_Q_NORM, HY3_P_K_NORM, HY3_P_POST_NORM,
    HY3_P_ROUTER, HY3_P_SHARED_GATE, HY3_P_SHARED_UP, HY3_P_SHARED_DOWN,
    HY3_P_ROUTER_BIAS,
    HY3_P_GATE_UP, HY3_P_EXPERT_DOWN,
};

static const char *const kind_names[] = {
#define X(kind, name) name,
    HY3_PARAM_KINDS(X)
#undef X
};

/* clang-format on */

static void format_name(enum hy3_param_kind kind, int layer, char name[HY3_PARAM_NAME])
{
    const char *format = kind_names[kind], *number = strstr(format, "%d");

    if (number)
        snprintf(name, HY3_PARAM_NAME, "%.*s%d%s", (int)(number - format), format, layer,
                 number + 2);
    else
        snprintf(name, HY3_PARAM_NAME, "%s", format);
}

static bool is_shared(enum hy3_param_kind kind)
{
    return kind == HY3_P_SHARED_GATE || kind == HY3_P_SHARED_UP || kind == HY3_P_SHARED_DOWN;
}

static bool is_norm(enum hy3_param_kind kind)
{
    return kind == HY3_P_INPUT_NORM || kind == HY3_P_POST_NORM || kind == HY3_P_Q_NORM ||
           kind == HY3_P_K_NORM || kind == HY3_P_FINAL_NORM;
}

static void set_shape(struct hy3_param *p, int64_t a, int64_t b, int64_t c)
{
    p->shape[0] = a;
    p->shape[1] = b;
    p->shape[2] = c;
    p->dims = c > 0 ? 3 : b > 0 ? 2 : 1;
    p->count = a * (b > 0 ? b : 1) * (c > 0 ? c : 1);
}

static void choose_shape(struct hy3_param *p, const struct hy3_shape *s)
{
    int64_t H = s->hidden, I = s->intermediate, E = s->experts, IE = s->expert_intermediate;
    int64_t QD = s->heads * s->head_dim, KD = s->kv_heads * s->head_dim;
    int64_t IS = s->shared_experts * IE;

    switch (p->kind) {
    case HY3_P_EMBED:
    case HY3_P_HEAD:
        set_shape(p, s->vocab, H, 0);
        break;
    case HY3_P_INPUT_NORM:
    case HY3_P_POST_NORM:
    case HY3_P_FINAL_NORM:
        set_shape(p, H, 0, 0);
        break;
    case HY3_P_Q_NORM:
    case HY3_P_K_NORM:
        set_shape(p, s->head_dim, 0, 0);
        break;
    case HY3_P_Q:
        set_shape(p, QD, H, 0);
        break;
    case HY3_P_K:
    case HY3_P_V:
        set_shape(p, KD, H, 0);
        break;
    case HY3_P_O:
        set_shape(p, H, QD, 0);
        break;
    case HY3_P_GATE:
    case HY3_P_UP:
        set_shape(p, I, H, 0);
        break;
    case HY3_P_DOWN:
        set_shape(p, H, I, 0);
        break;
    case HY3_P_ROUTER:
        set_shape(p, E, H, 0);
        break;
    case HY3_P_ROUTER_BIAS:
        set_shape(p, E, 0, 0);
        break;
    case HY3_P_SHARED_GATE:
    case HY3_P_SHARED_UP:
        set_shape(p, IS, H, 0);
        break;
    case HY3_P_SHARED_DOWN:
        set_shape(p, H, IS, 0);
        break;
    case HY3_P_GATE_UP:
        set_shape(p, E, 2 * IE, H);
        break;
    case HY3_P_EXPERT_DOWN:
        set_shape(p, E, H, IE);
        break;
    case HY3_PARAM_KIND_COUNT:
        HY3_BUG("a parameter without a kind");
    }
}

/* The part of it that this rank holds gets its place at the end of the unit. */
static void place_param(const struct hy3_params *params, struct hy3_unit *unit, struct hy3_param *p)
{
    p->held = p->count;
    if (hy3_is_expert_kind(p->kind)) {
        p->first = p->count / params->shape.experts * params->first_expert;
        p->held = p->count / params->shape.experts * params->held_experts;
    }
    p->decay = !is_norm(p->kind);
    p->offset = unit->count;
    unit->count += (p->held + HY3_PARAM_ALIGN - 1) / HY3_PARAM_ALIGN * HY3_PARAM_ALIGN;
    unit->end = params->count;
}

/* Appends a parameter to the table, to the unit that is open or to the buffers. */
static void add_param(struct hy3_params *params, enum hy3_param_kind kind, int layer)
{
    struct hy3_param *p = &params->params[params->count++];
    struct hy3_unit *unit = &params->unit[params->units - 1];

    *p = (struct hy3_param){.kind = kind, .layer = layer, .unit = params->units - 1};
    format_name(kind, layer, p->name);
    choose_shape(p, &params->shape);
    if (kind == HY3_P_ROUTER_BIAS) {
        p->unit = -1;
        p->offset = params->buffer_count;
        p->held = p->count;
        params->buffer_count += p->count;
        return;
    }
    place_param(params, unit, p);
    params->total += p->count;
}

/* name: of the unit, or what is added to that of a layer's. */
static void open_unit(struct hy3_params *params, int layer, bool expert, const char *name)
{
    struct hy3_unit *unit = &params->unit[params->units++];

    *unit = (struct hy3_unit){.layer = layer, .expert = expert, .first = params->count};
    if (layer < 0)
        snprintf(unit->name, sizeof unit->name, "%s", name);
    else
        snprintf(unit->name, sizeof unit->name, "layer %d%s%s", layer, expert ? " experts" : "",
                 name);
}

static void add_layer(struct hy3_params *params, int layer)
{
    bool moe = hy3_shape_is_moe(&params->shape, layer);
    const enum hy3_param_kind *kinds = moe ? moe_kinds : dense_kinds;

    open_unit(params, layer, false, "");
    for (int i = 0; i < (moe ? MOE_KINDS : DENSE_KINDS); i++) {
        if (is_shared(kinds[i]) && params->shape.shared_experts == 0)
            continue;
        if (kinds[i] == HY3_P_GATE_UP)
            open_unit(params, layer, true, "");
        add_param(params, kinds[i], layer);
    }
}

/* Layers with a dense MLP; all of them in a model without experts. */
static int dense_layers(const struct hy3_shape *shape)
{
    return (int)(shape->experts > 0 ? shape->dense_layers : shape->layers);
}

static int moe_count(const struct hy3_shape *shape)
{
    return MOE_KINDS - (shape->shared_experts > 0 ? 0 : SHARED_KINDS);
}

hy3_status hy3_params_create(const struct hy3_shape *shape, int64_t first_expert,
                             int64_t held_experts, struct hy3_params **out)
{
    hy3_status status = HY3_OK;
    struct hy3_params *params = NULL;
    int dense = dense_layers(shape), moe = (int)shape->layers - dense;

    *out = NULL;
    HY3_ASSERT(first_expert >= 0 && first_expert + held_experts <= shape->experts);
    HY3_TRY_DONE(hy3_alloc(&params, 1, sizeof *params));
    params->shape = *shape;
    params->first_expert = first_expert;
    params->held_experts = held_experts;
    HY3_TRY_DONE(hy3_alloc(&params->params,
                           (size_t)(dense * DENSE_KINDS + moe * moe_count(shape) + 3),
                           sizeof *params->params));
    HY3_TRY_DONE(hy3_alloc(&params->unit, (size_t)(dense + 2 * moe + 2), sizeof *params->unit));
    open_unit(params, -1, false, "embedding");
    add_param(params, HY3_P_EMBED, -1);
    for (int i = 0; i < shape->layers; i++)
        add_layer(params, i);
    open_unit(params, -1, false, "head");
    add_param(params, HY3_P_FINAL_NORM, -1);
    add_param(params, HY3_P_HEAD, -1);
    params->base_count = params->count;
    params->base_units = params->units;
    hy3_params_train(params, HY3_TRAIN_FULL);
    *out = params;
    params = NULL;
done:
    hy3_params_free(params);
    return status;
}

void hy3_params_free(struct hy3_params *params)
{
    if (!params)
        return;
    hy3_free(params->params);
    hy3_free(params->unit);
    hy3_free(params->adapter_first);
    hy3_free(params);
}

/* The place of a layer's first parameter and their number. */
static int layer_first(const struct hy3_params *params, int layer, int *count)
{
    int dense = dense_layers(&params->shape), moe = moe_count(&params->shape);

    *count = layer < dense ? DENSE_KINDS : moe;
    return 1 + (layer < dense ? layer * DENSE_KINDS : dense * DENSE_KINDS + (layer - dense) * moe);
}

const struct hy3_param *hy3_params_find(const struct hy3_params *params, enum hy3_param_kind kind,
                                        int layer)
{
    int first, count;

    if (layer < 0) {
        if (kind == HY3_P_EMBED)
            return &params->params[0];
        if (kind == HY3_P_FINAL_NORM || kind == HY3_P_HEAD)
            return &params->params[params->base_count - (kind == HY3_P_HEAD ? 1 : 2)];
        return NULL;
    }
    if (layer >= params->shape.layers)
        return NULL;
    first = layer_first(params, layer, &count);
    for (int i = first; i < first + count; i++)
        if (params->params[i].kind == kind)
            return &params->params[i];
    return NULL;
}

const struct hy3_param *hy3_params_named(const struct hy3_params *params, const char *name)
{
    static const char prefix[] = "model.layers.";
    int first, count;
    long layer;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0) {
        for (int i = 0; i < 3; i++) {
            const struct hy3_param *p = &params->params[i == 0 ? 0 : params->base_count - i];

            if (strcmp(p->name, name) == 0)
                return p;
        }
        return NULL;
    }
    layer = strtol(name + sizeof prefix - 1, NULL, 10);
    if (layer < 0 || layer >= params->shape.layers)
        return NULL;
    first = layer_first(params, (int)layer, &count);
    for (int i = first; i < first + count; i++)
        if (strcmp(params->params[i].name, name) == 0)
            return &params->params[i];
    return NULL;
}

int hy3_params_unit(const struct hy3_params *params, int layer, bool expert)
{
    int dense = dense_layers(&params->shape);

    if (layer < 0 || layer >= params->shape.layers || (expert && layer < dense))
        return -1;
    return layer < dense ? 1 + layer : 1 + dense + 2 * (layer - dense) + expert;
}

bool hy3_params_matrix(const struct hy3_shape *shape, enum hy3_param_kind kind, int64_t *out,
                       int64_t *in)
{
    struct hy3_param p = {.kind = kind};

    choose_shape(&p, shape);
    if (p.dims < 2 || kind == HY3_P_EMBED || kind == HY3_P_HEAD)
        return false;
    *out = p.shape[p.dims - 2];
    *in = p.shape[p.dims - 1];
    return true;
}

static bool is_trained(const struct hy3_param *p, enum hy3_training training)
{
    if (training == HY3_TRAIN_FULL)
        return p->unit >= 0 && p->part == HY3_BASE;
    if (training == HY3_TRAIN_ADAPTER)
        return p->part != HY3_BASE;
    return training == HY3_TRAIN_ATTENTION && p->part == HY3_BASE &&
           (p->kind == HY3_P_Q || p->kind == HY3_P_K || p->kind == HY3_P_V || p->kind == HY3_P_O ||
            p->kind == HY3_P_Q_NORM || p->kind == HY3_P_K_NORM);
}

void hy3_params_train(struct hy3_params *params, enum hy3_training training)
{
    for (int u = 0; u < params->units; u++) {
        struct hy3_unit *unit = &params->unit[u];

        unit->grad_first = unit->grad_count = 0;
        for (int i = unit->first; i < unit->end; i++) {
            struct hy3_param *p = &params->params[i];
            int64_t end = i + 1 < unit->end ? p[1].offset : unit->count;

            p->trainable = is_trained(p, training);
            if (p->trainable && unit->grad_count == 0)
                unit->grad_first = p->offset;
            if (p->trainable)
                unit->grad_count = end - unit->grad_first;
        }
    }
}

int64_t hy3_params_trained(const struct hy3_params *params)
{
    int64_t total = 0;

    for (int i = 0; i < params->count; i++)
        total += params->params[i].trainable ? params->params[i].count : 0;
    return total;
}

/* PEFT's name: of a module the factors stand below it; of fused experts, which are no modules,
 * below the module that holds them, the first of the two in an inner wrapper. */
static void format_factor_name(const struct hy3_params *params, struct hy3_param *p)
{
    const char *letter = p->part == HY3_LORA_A ? "A" : "B", *experts = "";
    char name[HY3_PARAM_NAME];

    format_name(p->kind, p->layer, name);
    *strrchr(name, '.') = '\0'; /* ".weight", or the name of the experts' tensor */
    if (p->kind == HY3_P_GATE_UP && params->lora.targets[HY3_P_EXPERT_DOWN])
        experts = ".base_layer";
    snprintf(p->name, sizeof p->name, "base_model.model.%.60s%s.lora_%s.weight", name, experts,
             letter);
}

static void add_factor(struct hy3_params *params, enum hy3_param_part part,
                       enum hy3_param_kind kind, int layer)
{
    struct hy3_param *p = &params->params[params->count++];
    int64_t r = params->lora.rank, experts = params->shape.experts, out = 0, in = 0;

    *p = (struct hy3_param){.kind = kind, .part = part, .layer = layer, .unit = params->units - 1};
    format_factor_name(params, p);
    hy3_params_matrix(&params->shape, kind, &out, &in);
    if (part == HY3_LORA_A)
        out = r;
    else
        in = r;
    if (hy3_is_expert_kind(kind))
        set_shape(p, experts, out, in);
    else
        set_shape(p, out, in, 0);
    place_param(params, &params->unit[p->unit], p);
}

/* The adapter of a layer's dense part or of its experts. */
static void add_factors(struct hy3_params *params, int layer, bool expert)
{
    int first = params->count;

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        if (!params->lora.targets[kind] || hy3_is_expert_kind(kind) != expert ||
            !hy3_params_find(params, kind, layer))
            continue;
        if (params->count == first)
            open_unit(params, layer, expert, " adapter");
        add_factor(params, HY3_LORA_A, kind, layer);
        add_factor(params, HY3_LORA_B, kind, layer);
    }
}

hy3_status hy3_params_add_adapter(struct hy3_params *params, const struct hy3_lora *lora)
{
    size_t layers = (size_t)params->shape.layers, count = (size_t)params->count;
    size_t units = (size_t)params->units;

    HY3_ASSERT(!params->adapter_first && lora->rank > 0);
    HY3_TRY(
        hy3_grow(&params->params, &count, count + layers * 2 * MOE_KINDS, sizeof *params->params));
    HY3_TRY(hy3_grow(&params->unit, &units, units + 2 * layers, sizeof *params->unit));
    HY3_TRY(hy3_alloc(&params->adapter_first, layers + 1, sizeof *params->adapter_first));
    params->lora = *lora;
    for (int i = 0; i < params->shape.layers; i++) {
        params->adapter_first[i] = params->count;
        add_factors(params, i, false);
        add_factors(params, i, true);
    }
    params->adapter_first[layers] = params->count;
    hy3_params_train(params, HY3_TRAIN_ADAPTER);
    return HY3_OK;
}

const struct hy3_param *hy3_params_factor(const struct hy3_params *params, enum hy3_param_part part,
                                          enum hy3_param_kind kind, int layer)
{
    if (!params->adapter_first)
        return NULL;
    for (int i = params->adapter_first[layer]; i < params->adapter_first[layer + 1]; i++)
        if (params->params[i].kind == kind && params->params[i].part == part)
            return &params->params[i];
    return NULL;
}

int hy3_params_adapter_unit(const struct hy3_params *params, int layer, bool expert)
{
    if (!params->adapter_first)
        return -1;
    for (int i = params->adapter_first[layer]; i < params->adapter_first[layer + 1]; i++)
        if (params->unit[params->params[i].unit].expert == expert)
            return params->params[i].unit;
    return -1;
}
