/* SPDX-License-Identifier: Apache-2.0 */
/* pass.c - the order of a forward and backward pass over the units. */
#include "engine/pass.h"

#include "base/memory.h"
#include "base/random.h"
#include "comm/heartbeat.h"
#include "engine/bind.h"
#include "engine/experts.h"

#include <math.h>

struct hy3_pass {
    const struct hy3_backend *backend;
    struct hy3_store *store;
    const struct hy3_params *params;
    const struct hy3_shape *shape;
    struct hy3_stream *stream;
    struct hy3_pass_options options;
    hy3_dtype dtype;
    struct hy3_arena arena;
    struct hy3_stream_buffers buffers;
    struct hy3_layer_acts *acts; /* [layers]; with checkpointing they share their memory */
    struct hy3_layer_scratch scratch;
    struct hy3_loss_buffers loss;
    struct hy3_experts experts;
    int *order; /* units in the order a pass gathers them; see plan_order */
    int order_count, forward_count;
    int64_t *host_starts; /* [layers (E+1)] rows of each expert */
    int64_t *host_counts; /* [layers,P,E] rows of each rank for each expert; NULL: P is 1 */
    int32_t *label_token, *label_position, *targets; /* HOST, as in buffers */
    uint64_t *dropout_keys;                          /* HOST, as in buffers; NULL: no dropout */
    float *host_loss;                                /* [max_tokens] */
    int64_t labels;                                  /* of the current micro-batch */
    const struct hy3_probe *probe;
};

static struct hy3_workspace_shape workspace_shape(const struct hy3_pass *p, int64_t T)
{
    return (struct hy3_workspace_shape){.model = p->shape,
                                        .lora = hy3_bind_lora(p->store),
                                        .size = {T, p->experts.exchange.capacity, p->dtype},
                                        .backward = p->options.backward,
                                        .checkpointing = p->options.checkpointing};
}

static hy3_status allocate(struct hy3_pass *p)
{
    const struct hy3_shape *s = p->shape;
    struct hy3_workspace_shape shape = workspace_shape(p, p->options.max_tokens);
    size_t layers = (size_t)s->layers, T = (size_t)p->options.max_tokens;
    size_t ranks = (size_t)p->experts.exchange.group->size;
    void *memory = NULL;

    HY3_TRY(hy3_alloc(&p->acts, layers, sizeof *p->acts));
    HY3_TRY(hy3_alloc(&p->buffers.x, layers + 1, sizeof *p->buffers.x));
    HY3_TRY(hy3_alloc(&p->buffers.chosen, layers, sizeof *p->buffers.chosen));
    HY3_TRY(hy3_alloc(&p->host_starts, layers * ((size_t)s->experts + 1), sizeof(int64_t)));
    if (ranks > 1) {
        HY3_TRY(hy3_alloc(&p->host_counts, layers * ranks * (size_t)s->experts, sizeof(int64_t)));
        HY3_TRY(hy3_exchange_open(&p->experts.exchange));
    }
    HY3_TRY(hy3_alloc(&p->label_token, T, sizeof(int32_t)));
    HY3_TRY(hy3_alloc(&p->label_position, T, sizeof(int32_t)));
    HY3_TRY(hy3_alloc(&p->targets, T, sizeof(int32_t)));
    HY3_TRY(hy3_alloc(&p->host_loss, T, sizeof(float)));
    if (p->options.backward && shape.lora && shape.lora->dropout > 0)
        HY3_TRY(hy3_alloc(&p->dropout_keys, T, sizeof *p->dropout_keys));
    HY3_TRY(hy3_workspace_measure(&shape, &p->arena.size));
    HY3_TRY(p->backend->device.alloc(p->arena.size, &memory));
    p->arena.base = memory;
    return HY3_OK;
}

/* Rows that the experts of a rank work on at a time. Not above what all ranks of the group can
 * send. */
static void choose_exchange(struct hy3_pass *p)
{
    const struct hy3_group *group = &hy3_store_layout(p->store)->experts;
    double even = (double)(p->options.max_tokens * p->shape->top_k);
    double wanted =
        ceil((p->options.expert_capacity > 0 ? p->options.expert_capacity : 1.25) * even);

    p->experts.exchange = (struct hy3_exchange){.backend = p->backend,
                                                .group = group,
                                                .experts = p->shape->experts,
                                                .hidden = p->shape->hidden,
                                                .dtype = p->dtype};
    if (group->size > 1)
        p->experts.exchange.capacity = (int64_t)fmax(1, fmin(wanted, even * group->size));
}

enum { LAYER_UNITS = 4 };

/* The units of a layer in the order of its backward pass, -1 where it has none. */
static void layer_units(const struct hy3_pass *p, int i, int units[LAYER_UNITS])
{
    units[0] = hy3_params_unit(p->params, i, true);
    units[1] = hy3_params_adapter_unit(p->params, i, true);
    units[2] = hy3_params_unit(p->params, i, false);
    units[3] = hy3_params_adapter_unit(p->params, i, false);
}

static void plan_layer(struct hy3_pass *p, int i)
{
    int units[LAYER_UNITS];

    layer_units(p, i, units);
    for (int u = LAYER_UNITS - 1; u >= 0; u--)
        if (units[u] >= 0)
            p->order[p->order_count++] = units[u];
}

/* Embedding, layers, head; then, in training, the layers backwards. */
static hy3_status plan_order(struct hy3_pass *p)
{
    int layers = (int)p->shape->layers;

    HY3_TRY(hy3_alloc(&p->order, (size_t)(2 * p->params->units), sizeof *p->order));
    p->order[p->order_count++] = hy3_params_embedding_unit();
    for (int i = 0; i < layers; i++)
        plan_layer(p, i);
    p->order[p->order_count++] = hy3_params_head_unit(p->params);
    p->forward_count = p->order_count;
    for (int i = layers - 1; i >= 0 && p->options.backward; i--)
        plan_layer(p, i);
    return HY3_OK;
}

hy3_status hy3_pass_open(const struct hy3_backend *backend, struct hy3_store *store,
                         const struct hy3_pass_options *options, struct hy3_pass **out)
{
    hy3_status status = HY3_OK;
    struct hy3_pass *p = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&p, 1, sizeof *p));
    p->backend = backend;
    p->store = store;
    p->params = hy3_store_params(store);
    p->shape = &p->params->shape;
    p->dtype = hy3_store_dtype(store);
    p->options = *options;
    choose_exchange(p);
    HY3_TRY_DONE(plan_order(p));
    HY3_TRY_DONE(backend->device.stream_create(&p->stream));
    HY3_TRY_DONE(allocate(p));
    *out = p;
    p = NULL;
done:
    hy3_pass_close(p);
    return status;
}

void hy3_pass_close(struct hy3_pass *p)
{
    if (!p)
        return;
    p->backend->device.free(p->arena.base);
    p->backend->device.stream_free(p->stream);
    hy3_free(p->acts);
    hy3_free(p->buffers.x);
    hy3_free(p->buffers.chosen);
    hy3_free(p->order);
    hy3_free(p->host_starts);
    hy3_free(p->host_counts);
    hy3_exchange_close(&p->experts.exchange);
    hy3_free(p->label_token);
    hy3_free(p->label_position);
    hy3_free(p->targets);
    hy3_free(p->host_loss);
    hy3_free(p->dropout_keys);
    hy3_free(p);
}

size_t hy3_pass_bytes(const struct hy3_pass *p)
{
    return p->arena.size;
}

struct hy3_stream *hy3_pass_stream(const struct hy3_pass *p)
{
    return p->stream;
}

void hy3_pass_probe(struct hy3_pass *p, const struct hy3_probe *probe)
{
    p->probe = probe;
}

/* Copies n elements to a probe's host array as fp32; nothing if the probe does not want them. */
static hy3_status look(const struct hy3_pass *p, const void *data, hy3_dtype dtype, int64_t n,
                       float *to)
{
    hy3_status status = HY3_OK;
    char *raw = NULL;

    if (!to)
        return HY3_OK;
    HY3_TRY_DONE(hy3_alloc(&raw, (size_t)n, hy3_dtype_size(dtype)));
    HY3_TRY_DONE(p->backend->device.copy(p->stream, raw, data, (size_t)n * hy3_dtype_size(dtype)));
    HY3_TRY_DONE(p->backend->device.synchronize(p->stream));
    hy3_convert(raw, dtype, to, HY3_FP32, (size_t)n);
done:
    hy3_free(raw);
    return status;
}

static hy3_status look_at_layer(const struct hy3_pass *p, int i, int64_t T)
{
    const struct hy3_probe *probe = p->probe;
    const struct hy3_layer_acts *a = &p->acts[i];
    int64_t H = p->shape->hidden, k = p->shape->top_k;

    if (!probe)
        return HY3_OK;
    HY3_TRY(look(p, a->mid, p->dtype, T * H, probe->mid ? probe->mid[i] : NULL));
    HY3_TRY(look(p, a->out, p->dtype, T * H, probe->out ? probe->out[i] : NULL));
    if (!hy3_shape_is_moe(p->shape, i))
        return HY3_OK;
    HY3_TRY(look(p, a->logits, HY3_FP32, T * p->shape->experts,
                 probe->router_logits ? probe->router_logits[i] : NULL));
    HY3_TRY(look(p, a->weights, HY3_FP32, T * k, probe->weights ? probe->weights[i] : NULL));
    if (probe->chosen)
        HY3_TRY(p->backend->device.copy(p->stream, probe->chosen[i], a->ids,
                                        (size_t)(T * k) * sizeof(int32_t)));
    return p->backend->device.synchronize(p->stream);
}

/* Copies the batch to the device, and which tokens have a label. */
static hy3_status upload(struct hy3_pass *p, const struct hy3_batch *batch)
{
    const struct hy3_device *device = &p->backend->device;
    size_t bytes = (size_t)batch->T * sizeof(int32_t);

    HY3_ASSERT(batch->T <= p->options.max_tokens && batch->S <= p->options.max_samples);
    p->labels = 0;
    for (int64_t t = 0; t < batch->T; t++) {
        p->label_position[t] = batch->targets[t] < 0 ? -1 : (int32_t)p->labels;
        if (batch->targets[t] < 0)
            continue;
        p->targets[p->labels] = batch->targets[t];
        p->label_token[p->labels++] = (int32_t)t;
    }
    HY3_TRY(device->copy(p->stream, p->buffers.ids, batch->ids, bytes));
    HY3_TRY(device->copy(p->stream, p->buffers.positions, batch->positions, bytes));
    HY3_TRY(device->copy(p->stream, p->buffers.label_position, p->label_position, bytes));
    bytes = (size_t)p->labels * sizeof(int32_t);
    HY3_TRY(device->copy(p->stream, p->buffers.label_token, p->label_token, bytes));
    return device->copy(p->stream, p->buffers.targets, p->targets, bytes);
}

/* A key for every token that depends on the step, its sample and its place in it: so a mask does
 * not depend on the ranks. */
static hy3_status upload_dropout_keys(struct hy3_pass *p, const struct hy3_batch *batch)
{
    for (int64_t s = 0; s < batch->S; s++) {
        uint32_t word[4];
        uint64_t key;

        hy3_random(p->options.seed, HY3_RANDOM_DROPOUT, (uint64_t)batch->step,
                   (uint64_t)batch->samples[s], word);
        key = (uint64_t)word[0] << 32 | word[1];
        for (int64_t t = batch->starts[s]; t < batch->starts[s + 1]; t++)
            p->dropout_keys[t] = key + (uint64_t)batch->positions[t];
    }
    return p->backend->device.copy(p->stream, p->buffers.dropout_keys, p->dropout_keys,
                                   (size_t)batch->T * sizeof *p->dropout_keys);
}

static struct hy3_embedding embedding(const struct hy3_pass *p, const struct hy3_batch *batch)
{
    return (struct hy3_embedding){.T = batch->T,
                                  .H = p->shape->hidden,
                                  .V = p->shape->vocab,
                                  .dtype = p->dtype,
                                  .ids = p->buffers.ids,
                                  .y = p->buffers.x[0],
                                  .dy = p->buffers.d};
}

/* Layer `i` with its weights; the units must be gathered. */
static struct hy3_layer layer_at(struct hy3_pass *p, const struct hy3_batch *batch, int i,
                                 bool training, bool replay)
{
    struct hy3_layer_acts *a = &p->acts[i];
    struct hy3_layer layer = {.backend = p->backend,
                              .stream = p->stream,
                              .shape = p->shape,
                              .dtype = p->dtype,
                              .index = i,
                              .tokens = {.T = batch->T,
                                         .S = batch->S,
                                         .starts = batch->starts,
                                         .positions = p->buffers.positions},
                              .acts = a,
                              .scratch = &p->scratch,
                              .lora = hy3_bind_lora(p->store),
                              .lora_buffers = &p->buffers.lora,
                              .seed = p->options.seed,
                              .replay = replay};

    a->x = p->buffers.x[i];
    a->out = p->buffers.x[i + 1];
    a->ids = p->buffers.chosen[i];
    a->host_starts = p->host_starts + i * (p->shape->experts + 1);
    if (training && p->dropout_keys)
        layer.dropout_keys = p->buffers.dropout_keys;
    hy3_bind_layer(p->store, i, &layer.params);
    return layer;
}

static hy3_status gather_layer(struct hy3_pass *p, int i)
{
    int units[LAYER_UNITS];

    layer_units(p, i, units);
    for (int u = LAYER_UNITS - 1; u >= 0; u--)
        if (units[u] >= 0)
            HY3_TRY(hy3_store_gather(p->store, p->stream, units[u]));
    return HY3_OK;
}

static void release_layer(struct hy3_pass *p, int i)
{
    int units[LAYER_UNITS];

    layer_units(p, i, units);
    for (int u = 0; u < LAYER_UNITS; u++)
        if (units[u] >= 0)
            hy3_store_release(p->store, units[u]);
}

static hy3_status open_layer_grads(struct hy3_pass *p, int i)
{
    int units[LAYER_UNITS];

    layer_units(p, i, units);
    for (int u = 0; u < LAYER_UNITS; u++)
        if (units[u] >= 0)
            HY3_TRY(hy3_store_open_grads(p->store, p->stream, units[u]));
    return HY3_OK;
}

static hy3_status reduce_layer(struct hy3_pass *p, int i, bool last)
{
    int units[LAYER_UNITS];

    layer_units(p, i, units);
    for (int u = 0; u < LAYER_UNITS; u++)
        if (units[u] >= 0)
            HY3_TRY(hy3_store_reduce(p->store, p->stream, units[u], last));
    return HY3_OK;
}

static int64_t *counts_at(const struct hy3_pass *p, int layer)
{
    return p->host_counts
               ? p->host_counts + layer * p->shape->experts * p->experts.exchange.group->size
               : NULL;
}

static hy3_status layer_forward(struct hy3_pass *p, const struct hy3_layer *layer)
{
    HY3_TRY(hy3_attention_part_forward(layer, NULL));
    if (!hy3_shape_is_moe(layer->shape, layer->index))
        return hy3_dense_part_forward(layer);
    HY3_TRY(hy3_route_part_forward(layer));
    HY3_TRY(hy3_experts_forward(&p->experts, layer, counts_at(p, layer->index)));
    if (!layer->replay)
        HY3_TRY(hy3_combine_part_forward(layer));
    return HY3_OK;
}

static hy3_status layer_backward(struct hy3_pass *p, const struct hy3_layer *layer, void *d)
{
    if (hy3_shape_is_moe(layer->shape, layer->index)) {
        HY3_TRY(hy3_combine_part_backward(layer, d));
        HY3_TRY(hy3_experts_backward(&p->experts, layer, counts_at(p, layer->index)));
        HY3_TRY(hy3_route_part_backward(layer, d));
    } else {
        HY3_TRY(hy3_dense_part_backward(layer, d));
    }
    return hy3_attention_part_backward(layer, d);
}

/* Whether the activations of every layer stay until its backward. */
static bool keeps_activations(const struct hy3_pass *p, bool training)
{
    return training && !p->options.checkpointing;
}

static void take_acts(struct hy3_pass *p, int i, int64_t T)
{
    const struct hy3_layer_size size = {T, p->experts.exchange.capacity, p->dtype};

    hy3_layer_acts_take(p->shape, i, &size, &p->arena, &p->acts[i]);
}

static hy3_status forward_layers(struct hy3_pass *p, const struct hy3_batch *batch, bool training)
{
    struct hy3_embedding e;

    HY3_TRY(hy3_store_gather(p->store, p->stream, hy3_params_embedding_unit()));
    e = embedding(p, batch);
    e.W = hy3_store_weight(p->store, hy3_params_find(p->params, HY3_P_EMBED, -1));
    HY3_TRY(p->backend->kernels.embedding_forward(p->stream, &e));
    hy3_store_release(p->store, hy3_params_embedding_unit());
    HY3_TRY(look(p, e.y, p->dtype, batch->T * e.H, p->probe ? p->probe->embed : NULL));
    for (int i = 0; i < p->shape->layers; i++) {
        size_t mark = hy3_arena_mark(&p->arena);
        struct hy3_layer layer;

        hy3_heartbeat("forward", 0, i);
        take_acts(p, i, batch->T);
        HY3_TRY(gather_layer(p, i));
        layer = layer_at(p, batch, i, training, false);
        HY3_TRY(layer_forward(p, &layer));
        release_layer(p, i);
        HY3_TRY(look_at_layer(p, i, batch->T));
        if (!keeps_activations(p, training))
            hy3_arena_reset(&p->arena, mark);
    }
    return HY3_OK;
}

static struct hy3_rmsnorm final_norm(const struct hy3_pass *p, int64_t T)
{
    const struct hy3_param *param = hy3_params_find(p->params, HY3_P_FINAL_NORM, -1);

    return (struct hy3_rmsnorm){.T = T,
                                .H = p->shape->hidden,
                                .eps = (float)p->shape->rms_eps,
                                .dtype = p->dtype,
                                .x = p->buffers.x[p->shape->layers],
                                .w = hy3_store_weight(p->store, param),
                                .y = p->loss.n,
                                .r = p->loss.r,
                                .dy = p->loss.dn,
                                .dx = p->buffers.d,
                                .dw = hy3_store_grad(p->store, param)};
}

static struct hy3_permute label_rows(const struct hy3_pass *p, int64_t T)
{
    return (struct hy3_permute){.T = T,
                                .R = p->labels,
                                .H = p->shape->hidden,
                                .k = 1,
                                .dtype = p->dtype,
                                .token = p->buffers.label_token,
                                .position = p->buffers.label_position,
                                .x = p->loss.n,
                                .y = p->loss.rows,
                                .dy = p->loss.drows,
                                .dx = p->loss.dn};
}

/* Address of row `row` of a [rows,H] buffer. */
static void *row_at(const struct hy3_pass *p, void *buffer, int64_t row)
{
    return (char *)buffer + (size_t)(row * p->shape->hidden) * hy3_dtype_size(p->dtype);
}

/* logits = rows W^T in fp32 */
static hy3_status head_forward(const struct hy3_pass *p, const void *rows, int64_t count)
{
    const struct hy3_param *head = hy3_params_find(p->params, HY3_P_HEAD, -1);

    return p->backend->kernels.gemm(p->stream,
                                    &(struct hy3_gemm){.form = HY3_NT,
                                                       .M = count,
                                                       .N = p->shape->vocab,
                                                       .K = p->shape->hidden,
                                                       .dtype = p->dtype,
                                                       .c_dtype = HY3_FP32,
                                                       .alpha = 1,
                                                       .A = rows,
                                                       .B = hy3_store_weight(p->store, head),
                                                       .C = p->loss.logits});
}

/* From dlogits of `count` rows: drows = dlogits W, dW += dlogits^T rows. */
static hy3_status head_backward(const struct hy3_pass *p, const void *rows, int64_t count,
                                void *drows)
{
    const struct hy3_param *head = hy3_params_find(p->params, HY3_P_HEAD, -1);
    struct hy3_gemm product = {.form = HY3_NN,
                               .M = count,
                               .N = p->shape->hidden,
                               .K = p->shape->vocab,
                               .dtype = p->dtype,
                               .c_dtype = p->dtype,
                               .alpha = 1,
                               .A = p->loss.dlogits,
                               .B = hy3_store_weight(p->store, head),
                               .C = drows};

    HY3_TRY(p->backend->kernels.gemm(p->stream, &product));
    if (!hy3_store_grad(p->store, head))
        return HY3_OK;
    product.form = HY3_TN;
    product.M = p->shape->vocab;
    product.K = count;
    product.c_dtype = HY3_FP32;
    product.accumulate = true;
    product.B = rows;
    product.C = hy3_store_grad(p->store, head);
    return p->backend->kernels.gemm(p->stream, &product);
}

/* Loss, and in training its gradient, of the tokens that have a label, chunk by chunk. */
static hy3_status loss_chunks(struct hy3_pass *p, bool training)
{
    for (int64_t at = 0; at < p->labels; at += p->loss.chunk) {
        int64_t count = p->labels - at < p->loss.chunk ? p->labels - at : p->loss.chunk;
        struct hy3_loss loss = {.N = count,
                                .V = p->shape->vocab,
                                .logits = p->loss.logits,
                                .targets = p->buffers.targets + at,
                                .loss = p->loss.loss + at,
                                .lse = p->loss.lse + at,
                                .scale = 1,
                                .dtype = p->dtype,
                                .dlogits = p->loss.dlogits};
        void *rows = row_at(p, p->loss.rows, at);

        HY3_TRY(head_forward(p, rows, count));
        HY3_TRY(p->backend->kernels.loss_forward(p->stream, &loss));
        if (!training)
            continue;
        HY3_TRY(p->backend->kernels.loss_backward(p->stream, &loss));
        HY3_TRY(head_backward(p, rows, count, row_at(p, p->loss.drows, at)));
    }
    return HY3_OK;
}

static hy3_status look_at_logits(struct hy3_pass *p, int64_t T)
{
    if (!p->probe)
        return HY3_OK;
    HY3_TRY(look(p, p->loss.n, p->dtype, T * p->shape->hidden, p->probe->final_norm));
    for (int64_t at = 0; at < T && p->probe->logits; at += p->loss.chunk) {
        int64_t count = T - at < p->loss.chunk ? T - at : p->loss.chunk;

        HY3_TRY(head_forward(p, row_at(p, p->loss.n, at), count));
        HY3_TRY(look(p, p->loss.logits, HY3_FP32, count * p->shape->vocab,
                     p->probe->logits + at * p->shape->vocab));
    }
    return HY3_OK;
}

/* The first layer whose output is not finite. */
static hy3_status find_bad_layer(struct hy3_pass *p, int64_t T, int *layer)
{
    int64_t i;

    for (i = 0; i <= p->shape->layers; i++) {
        double *sum = (double *)(void *)p->loss.logits, value = 0;

        HY3_TRY(p->backend->kernels.square_sum(
            p->stream,
            &(struct hy3_square_sum){
                .n = T * p->shape->hidden, .dtype = p->dtype, .x = p->buffers.x[i], .sum = sum}));
        HY3_TRY(p->backend->device.copy(p->stream, &value, sum, sizeof value));
        HY3_TRY(p->backend->device.synchronize(p->stream));
        if (!isfinite(value))
            break;
    }
    *layer = (int)i - 1;
    return HY3_OK;
}

/* Sums the token losses in their order, and looks for one that is not finite. */
static hy3_status collect_loss(struct hy3_pass *p, const struct hy3_batch *batch,
                               struct hy3_pass_result *result)
{
    int64_t sample = 0;

    *result = (struct hy3_pass_result){.labels = p->labels, .bad_sample = -1};
    HY3_TRY(p->backend->device.copy(p->stream, p->host_loss, p->loss.loss,
                                    (size_t)p->labels * sizeof(float)));
    HY3_TRY(p->backend->device.synchronize(p->stream));
    if (p->probe && p->probe->token_loss)
        memset(p->probe->token_loss, 0, (size_t)batch->T * sizeof(float));
    for (int64_t i = 0; i < p->labels; i++) {
        while (p->label_token[i] >= batch->starts[sample + 1])
            sample++;
        result->loss_sum += p->host_loss[i];
        if (!isfinite(p->host_loss[i]) && result->bad_sample < 0)
            result->bad_sample = batch->samples[sample];
        if (p->probe && p->probe->token_loss)
            p->probe->token_loss[p->label_token[i]] = p->host_loss[i];
    }
    if (result->bad_sample >= 0)
        HY3_TRY(find_bad_layer(p, batch->T, &result->bad_layer));
    return HY3_OK;
}

/* Final norm, head and loss; in training leaves d = gradient of the last layer's output. */
static hy3_status loss_part(struct hy3_pass *p, const struct hy3_batch *batch, bool training,
                            struct hy3_pass_result *result)
{
    const struct hy3_kernels *kernels = &p->backend->kernels;
    struct hy3_workspace_shape shape = workspace_shape(p, batch->T);
    size_t mark = hy3_arena_mark(&p->arena);
    int unit = hy3_params_head_unit(p->params);
    struct hy3_rmsnorm norm;
    struct hy3_permute rows;

    hy3_loss_buffers_take(&shape, &p->arena, &p->loss);
    hy3_heartbeat("head and loss", 0, -1);
    HY3_TRY(hy3_store_gather(p->store, p->stream, unit));
    if (training)
        HY3_TRY(hy3_store_open_grads(p->store, p->stream, unit));
    norm = final_norm(p, batch->T);
    rows = label_rows(p, batch->T);
    HY3_TRY(kernels->rmsnorm_forward(p->stream, &norm));
    HY3_TRY(look_at_logits(p, batch->T));
    HY3_TRY(kernels->permute_forward(p->stream, &rows));
    HY3_TRY(loss_chunks(p, training));
    HY3_TRY(collect_loss(p, batch, result));
    if (training) {
        HY3_TRY(kernels->permute_backward(p->stream, &rows));
        HY3_TRY(p->backend->device.zero(p->stream, p->buffers.d,
                                        (size_t)(batch->T * p->shape->hidden) *
                                            hy3_dtype_size(p->dtype)));
        HY3_TRY(kernels->rmsnorm_backward(p->stream, &norm));
    }
    hy3_store_release(p->store, unit);
    hy3_arena_reset(&p->arena, mark);
    return HY3_OK;
}

static hy3_status backward_layer(struct hy3_pass *p, const struct hy3_batch *batch, int i,
                                 bool last)
{
    size_t mark = hy3_arena_mark(&p->arena);
    struct hy3_layer layer;

    hy3_heartbeat("backward", 0, i);
    HY3_TRY(gather_layer(p, i));
    if (p->options.checkpointing) {
        take_acts(p, i, batch->T);
        layer = layer_at(p, batch, i, true, true);
        HY3_TRY(layer_forward(p, &layer));
    }
    HY3_TRY(open_layer_grads(p, i));
    layer = layer_at(p, batch, i, true, true);
    HY3_TRY(layer_backward(p, &layer, p->buffers.d));
    release_layer(p, i);
    hy3_arena_reset(&p->arena, mark);
    return reduce_layer(p, i, last);
}

static hy3_status backward_layers(struct hy3_pass *p, const struct hy3_batch *batch, bool last)
{
    const struct hy3_layer_size size = {batch->T, p->experts.exchange.capacity, p->dtype};
    struct hy3_embedding e;

    hy3_layer_scratch_take(p->shape, &size, &p->arena, &p->scratch);
    for (int64_t i = p->shape->layers - 1; i >= 0; i--)
        HY3_TRY(backward_layer(p, batch, (int)i, last));
    HY3_TRY(hy3_store_open_grads(p->store, p->stream, hy3_params_embedding_unit()));
    e = embedding(p, batch);
    e.dW = hy3_store_grad(p->store, hy3_params_find(p->params, HY3_P_EMBED, -1));
    if (e.dW)
        HY3_TRY(p->backend->kernels.embedding_backward(p->stream, &e));
    return hy3_store_reduce(p->store, p->stream, hy3_params_embedding_unit(), last);
}

static void begin(struct hy3_pass *p, const struct hy3_batch *batch, bool training)
{
    struct hy3_workspace_shape shape = workspace_shape(p, batch->T);

    hy3_arena_reset(&p->arena, 0);
    hy3_stream_buffers_take(&shape, &p->arena, &p->buffers);
    p->experts.exchange.arrival = p->buffers.arrival;
    p->experts.exchange.token = p->buffers.expert_token;
    p->experts.exchange.position = p->buffers.expert_position;
    p->experts.out = p->buffers.expert_out;
    hy3_store_schedule(p->store, p->order, training ? p->order_count : p->forward_count);
}

hy3_status hy3_pass_evaluate(struct hy3_pass *p, const struct hy3_batch *batch,
                             struct hy3_pass_result *result)
{
    begin(p, batch, false);
    HY3_TRY(upload(p, batch));
    HY3_TRY(forward_layers(p, batch, false));
    return loss_part(p, batch, false, result);
}

hy3_status hy3_pass_train(struct hy3_pass *p, const struct hy3_batch *batch, bool last,
                          struct hy3_pass_result *result)
{
    HY3_ASSERT(p->options.backward);
    begin(p, batch, true);
    HY3_TRY(upload(p, batch));
    if (p->dropout_keys)
        HY3_TRY(upload_dropout_keys(p, batch));
    HY3_TRY(forward_layers(p, batch, true));
    HY3_TRY(loss_part(p, batch, true, result));
    HY3_TRY(hy3_store_reduce(p->store, p->stream, hy3_params_head_unit(p->params), last));
    HY3_TRY(backward_layers(p, batch, last));
    HY3_TRY(hy3_store_finish(p->store, p->stream));
    return p->backend->device.synchronize(p->stream);
}
