/* SPDX-License-Identifier: Apache-2.0 */
/* params.c - from the entries of kinds.h and a shape to a table of tensors.
 *
 * The tensors of a layer are consecutive: its dense part, its router, its buffers, its experts; so
 * those of a unit are. Inside each they are in the order of the entries. */
#include "model/params.h"

#include "base/memory.h"

/* Whether layer `layer` of a model has a kind; -1: the model has it outside its layers. */
static bool has_kind(const struct hy3_shape *shape, int layer, enum hy3_param_kind kind)
{
    enum hy3_layers layers = hy3_kinds[kind].layers;
    int64_t extents[3];

    if (hy3_kind_extents(shape, kind, extents) == 0)
        return false;
    if (layer < 0)
        return layers == HY3_IN_OUTSIDE;
    return layers == HY3_IN_ANY ||
           layers == (hy3_shape_is_moe(shape, layer) ? HY3_IN_MOE : HY3_IN_DENSE);
}

static void format_name(enum hy3_param_kind kind, int layer, char name[HY3_PARAM_NAME])
{
    if (layer < 0)
        snprintf(name, HY3_PARAM_NAME, "%s", hy3_kinds[kind].name);
    else
        snprintf(name, HY3_PARAM_NAME, HY3_LAYER_PREFIX "%d.%s", layer, hy3_kinds[kind].name);
}

static void set_shape(struct hy3_param *p, int dims, const int64_t extents[3])
{
    p->dims = dims;
    p->count = 1;
    for (int i = 0; i < dims; i++)
        p->count *= p->shape[i] = extents[i];
}

/* The part of it that this rank holds gets its place at the end of the open unit. */
static void place_param(struct hy3_params *params, struct hy3_param *p)
{
    struct hy3_unit *unit = &params->unit[params->units - 1];

    p->unit = params->units - 1;
    p->held = p->count;
    if (hy3_kind_is_expert(p->kind)) {
        p->first = p->count / params->shape.experts * params->first_expert;
        p->held = p->count / params->shape.experts * params->held_experts;
    }
    p->decay = p->dims > 1;
    p->offset = unit->count;
    unit->count += (p->held + HY3_PARAM_ALIGN - 1) / HY3_PARAM_ALIGN * HY3_PARAM_ALIGN;
    unit->end = params->count;
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

/* Appends a tensor to the table, to the unit that is open or to the buffers. */
static void add_param(struct hy3_params *params, enum hy3_param_kind kind, int layer)
{
    struct hy3_param *p = &params->params[params->count++];
    int64_t extents[3];
    int dims = hy3_kind_extents(&params->shape, kind, extents);

    *p = (struct hy3_param){.kind = kind, .layer = layer, .unit = -1};
    format_name(kind, layer, p->name);
    set_shape(p, dims, extents);
    if (hy3_kinds[kind].unit != HY3_OF_BUFFER) {
        place_param(params, p);
        return;
    }
    p->offset = params->buffer_count;
    p->held = p->count;
    params->buffer_count += p->count;
}

/* The kinds of one part of a layer. */
static void add_part(struct hy3_params *params, int layer, enum hy3_part part)
{
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (hy3_kinds[kind].unit == part && has_kind(&params->shape, layer, kind))
            add_param(params, kind, layer);
}

static void add_layer(struct hy3_params *params, int layer)
{
    params->first[layer] = params->count;
    open_unit(params, layer, false, "");
    add_part(params, layer, HY3_OF_DENSE);
    if (!hy3_shape_is_moe(&params->shape, layer))
        return;
    open_unit(params, layer, false, " router");
    params->unit[params->units - 1].wide = true;
    add_part(params, layer, HY3_OF_ROUTER);
    add_part(params, layer, HY3_OF_BUFFER);
    open_unit(params, layer, true, "");
    add_part(params, layer, HY3_OF_EXPERTS);
}

/* What an MTP layer has besides. */
static void add_mtp(struct hy3_params *params, int layer)
{
    open_unit(params, layer, false, " MTP");
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (hy3_kinds[kind].layers == HY3_IN_MTP)
            add_param(params, kind, layer);
}

/* `layers` of the shape's layers are MTP layers, at their end. */
static hy3_status create(const struct hy3_shape *shape, int64_t first_expert, int64_t held_experts,
                         int64_t mtp_layers, struct hy3_params **out)
{
    hy3_status status = HY3_OK;
    struct hy3_params *p = NULL;
    size_t layers = (size_t)shape->layers;

    *out = NULL;
    HY3_ASSERT(first_expert >= 0 && first_expert + held_experts <= shape->experts);
    HY3_TRY_DONE(hy3_alloc(&p, 1, sizeof *p));
    p->shape = *shape;
    p->first_expert = first_expert;
    p->held_experts = held_experts;
    HY3_TRY_DONE(hy3_alloc(&p->params, (layers + 1) * HY3_PARAM_KIND_COUNT, sizeof *p->params));
    HY3_TRY_DONE(hy3_alloc(&p->unit, 4 * layers + 2, sizeof *p->unit));
    HY3_TRY_DONE(hy3_alloc(&p->first, layers + 1, sizeof *p->first));
    open_unit(p, -1, false, "embedding");
    add_part(p, -1, HY3_OF_EMBEDDING);
    for (int i = 0; i < shape->layers; i++)
        add_layer(p, i);
    p->first[layers] = p->count;
    open_unit(p, -1, false, "head");
    add_part(p, -1, HY3_OF_HEAD);
    p->base_count = p->count;
    p->base_units = p->units;
    for (int i = 0; i < p->count; i++)
        p->total += p->params[i].unit < 0 ? 0 : p->params[i].count;
    hy3_params_train(p, HY3_TRAIN_FULL, NULL);
    for (int64_t i = shape->layers - mtp_layers; i < shape->layers; i++)
        add_mtp(p, (int)i);
    *out = HY3_TAKE(p);
done:
    hy3_params_free(p);
    return status;
}

hy3_status hy3_params_create(const struct hy3_shape *shape, int64_t first_expert,
                             int64_t held_experts, struct hy3_params **out)
{
    return create(shape, first_expert, held_experts, 0, out);
}

hy3_status hy3_params_create_mtp(const struct hy3_shape *shape, struct hy3_params **out)
{
    struct hy3_shape deeper = *shape;

    deeper.layers += shape->mtp_layers;
    return create(&deeper, 0, shape->experts, shape->mtp_layers, out);
}

void hy3_params_free(struct hy3_params *params)
{
    if (!params)
        return;
    hy3_free(params->params);
    hy3_free(params->unit);
    hy3_free(params->first);
    hy3_free(params->adapter_first);
    hy3_free(params);
}

/* Behind the model's last own tensor. */
static int own_end(const struct hy3_params *params)
{
    return params->adapter_first ? params->adapter_first[0] : params->count;
}

static const struct hy3_param *find_in(const struct hy3_params *params, int first, int end,
                                       enum hy3_param_kind kind, int layer)
{
    for (int i = first; i < end; i++)
        if (params->params[i].kind == kind && params->params[i].layer == layer)
            return &params->params[i];
    return NULL;
}

const struct hy3_param *hy3_params_find(const struct hy3_params *params, enum hy3_param_kind kind,
                                        int layer)
{
    int layers = (int)params->shape.layers, first = 0, end = params->first[0];
    const struct hy3_param *p;

    if (layer >= layers)
        return NULL;
    if (layer >= 0) {
        first = params->first[layer];
        end = params->first[layer + 1];
    }
    p = find_in(params, first, end, kind, layer);
    return p ? p : find_in(params, params->first[layers], own_end(params), kind, layer);
}

static const struct hy3_param *named_in(const struct hy3_params *params, int first, int end,
                                        const char *name)
{
    for (int i = first; i < end; i++)
        if (strcmp(params->params[i].name, name) == 0)
            return &params->params[i];
    return NULL;
}

const struct hy3_param *hy3_params_named(const struct hy3_params *params, const char *name)
{
    static const char prefix[] = HY3_LAYER_PREFIX;
    int layers = (int)params->shape.layers, first = 0, end = params->first[0];
    const struct hy3_param *p;

    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        long layer = strtol(name + sizeof prefix - 1, NULL, 10);

        if (layer < 0 || layer >= layers)
            return NULL;
        first = params->first[layer];
        end = params->first[layer + 1];
    }
    p = named_in(params, first, end, name);
    return p ? p : named_in(params, params->first[layers], own_end(params), name);
}

static int unit_in(const struct hy3_params *params, int first, int end, bool expert)
{
    for (int i = first; i < end; i++) {
        int unit = params->params[i].unit;

        if (unit >= 0 && params->unit[unit].expert == expert)
            return unit;
    }
    return -1;
}

int hy3_params_unit(const struct hy3_params *params, int layer, bool expert)
{
    if (layer < 0 || layer >= params->shape.layers)
        return -1;
    return unit_in(params, params->first[layer], params->first[layer + 1], expert);
}

int hy3_params_router_unit(const struct hy3_params *params, int layer)
{
    const struct hy3_param *router = hy3_params_find(params, HY3_P_ROUTER, layer);

    return router ? router->unit : -1;
}

int hy3_params_adapter_unit(const struct hy3_params *params, int layer, bool expert)
{
    if (!params->adapter_first)
        return -1;
    return unit_in(params, params->adapter_first[layer], params->adapter_first[layer + 1], expert);
}

/* Whether a layer is among the last, or the first, that are chosen. */
static bool is_chosen(const struct hy3_params *params, int64_t chosen, int layer)
{
    if (layer < 0)
        return false;
    return chosen > 0 ? layer >= params->shape.layers - chosen : layer < -chosen;
}

static bool is_trained(const struct hy3_params *params, const struct hy3_param *p,
                       enum hy3_training training, const struct hy3_selection *s)
{
    if (training == HY3_TRAIN_ADAPTER)
        return hy3_param_is_adapters(params, p);
    if (p->part != HY3_BASE || p->unit < 0)
        return false;
    if (s->freeze_router && hy3_kinds[p->kind].role == HY3_ROLE_ROUTER)
        return false;
    switch (training) {
    case HY3_TRAIN_FULL:
        return true;
    case HY3_TRAIN_ATTENTION:
        return hy3_kinds[p->kind].role == HY3_ROLE_ATTENTION;
    case HY3_TRAIN_LAYERS:
        return s->anywhere[p->kind] ||
               (s->in_layers[p->kind] && is_chosen(params, s->layers, p->layer));
    default:
        return false;
    }
}

void hy3_params_train(struct hy3_params *params, enum hy3_training training,
                      const struct hy3_selection *selection)
{
    const struct hy3_selection none = {0};

    for (int u = 0; u < params->units; u++) {
        struct hy3_unit *unit = &params->unit[u];

        unit->grad_first = unit->grad_count = 0;
        for (int i = unit->first; i < unit->end; i++) {
            struct hy3_param *p = &params->params[i];
            int64_t end = i + 1 < unit->end ? p[1].offset : unit->count;

            p->trainable = is_trained(params, p, training, selection ? selection : &none);
            if (p->trainable && unit->grad_count == 0)
                unit->grad_first = p->offset;
            if (p->trainable)
                unit->grad_count = end - unit->grad_first;
        }
    }
}

int hy3_params_first_trained(const struct hy3_params *params)
{
    int first = (int)params->shape.layers;

    for (int u = 0; u < params->units; u++) {
        const struct hy3_unit *unit = &params->unit[u];

        if (unit->grad_count == 0 || u == hy3_params_head_unit(params))
            continue;
        if (unit->layer < first)
            first = unit->layer < 0 ? 0 : unit->layer;
    }
    return first;
}

int64_t hy3_params_trained(const struct hy3_params *params)
{
    int64_t total = 0;

    for (int i = 0; i < params->count; i++)
        total += params->params[i].trainable ? params->params[i].count : 0;
    return total;
}

/* Whether the adapter adds to the matrix of a kind in a layer, if the layer has it. */
static bool is_target(const struct hy3_lora *lora, enum hy3_param_kind kind, int layer)
{
    return lora->targets[kind] && hy3_kinds[kind].target &&
           (!lora->matrices || lora->matrices[layer * HY3_PARAM_KIND_COUNT + (int)kind]);
}

/* PEFT's name: of a module the factors stand below it; of fused experts, which are no modules,
 * below the module that holds them, the first of the two in an inner wrapper. */
static void format_factor_name(const struct hy3_params *params, struct hy3_param *p)
{
    const char *letter = p->part == HY3_LORA_A ? "A" : "B", *experts = "";
    char name[HY3_PARAM_NAME];

    format_name(p->kind, p->layer, name);
    *strrchr(name, '.') = '\0'; /* ".weight", or the name of the experts' tensor */
    if (p->kind == HY3_P_GATE_UP && is_target(&params->lora, HY3_P_EXPERT_DOWN, p->layer))
        experts = ".base_layer";
    snprintf(p->name, sizeof p->name, "base_model.model.%.60s%s.lora_%s.weight", name, experts,
             letter);
}

static void add_factor(struct hy3_params *params, enum hy3_param_part part,
                       enum hy3_param_kind kind, int layer)
{
    struct hy3_param *p = &params->params[params->count++];
    int64_t extents[3];
    int dims = hy3_kind_extents(&params->shape, kind, extents);

    *p = (struct hy3_param){.kind = kind, .part = part, .layer = layer};
    format_factor_name(params, p);
    extents[part == HY3_LORA_A ? dims - 2 : dims - 1] = params->lora.rank;
    set_shape(p, dims, extents);
    place_param(params, p);
}

/* The adapter of a layer's dense part or of its experts. */
static void add_factors(struct hy3_params *params, int layer, bool expert)
{
    int first = params->count;

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        if (!is_target(&params->lora, kind, layer) || hy3_kind_is_expert(kind) != expert ||
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
    HY3_TRY(hy3_grow(&params->params, &count, count + layers * 2 * HY3_PARAM_KIND_COUNT,
                     sizeof *params->params));
    HY3_TRY(hy3_grow(&params->unit, &units, units + 2 * layers, sizeof *params->unit));
    HY3_TRY(hy3_alloc(&params->adapter_first, layers + 1, sizeof *params->adapter_first));
    params->lora = *lora;
    for (int i = 0; i < params->shape.layers; i++) {
        params->adapter_first[i] = params->count;
        add_factors(params, i, false);
        add_factors(params, i, true);
    }
    params->adapter_first[layers] = params->count;
    params->lora.matrices = NULL;
    hy3_params_train(params, HY3_TRAIN_ADAPTER, NULL);
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
