/* SPDX-License-Identifier: Apache-2.0 */
/* pass.c - the order of a forward and backward pass over the units. */
#include "engine/pass.h"

#include "base/memory.h"
#include "base/zigzag.h"
#include "comm/heartbeat.h"
#include "engine/bind.h"
#include "engine/chain.h"
#include "engine/spill.h"
#include "engine/units.h"

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
    struct hy3_spill inputs_spill, attention_spill;
    struct hy3_experts experts;
    struct hy3_sequence sequence; /* of ranks that share micro-batches; else group NULL */
    int64_t most_tokens, whole;   /* of this rank, and of all of them, at most */
    struct hy3_unit_order order;
    int64_t *host_starts; /* [layers (E+1)] rows of each expert, pinned */
    int64_t *host_counts; /* [layers,P,counts] see hy3_exchange_count; NULL: P is 1 */
    struct hy3_inputs inputs;
    float *host_loss; /* [max_tokens], pinned */
    const struct hy3_probe *probe;
};

static struct hy3_layer_size layer_size(const struct hy3_pass *p, int64_t T)
{
    return (struct hy3_layer_size){T, p->experts.exchange.capacity, p->dtype,
                                   p->options.keep_attention};
}

/* NULL: no ranks share the micro-batch. */
static struct hy3_sequence *sequence_of(struct hy3_pass *p)
{
    return p->sequence.group ? &p->sequence : NULL;
}

/* whole: tokens of all ranks that share the micro-batch. */
static struct hy3_workspace_shape workspace_shape(struct hy3_pass *p, int64_t T, int64_t whole)
{
    return (struct hy3_workspace_shape){.model = p->shape,
                                        .lora = hy3_bind_lora(p->store),
                                        .size = layer_size(p, T),
                                        .sequence = sequence_of(p),
                                        .whole = whole,
                                        .exchange = &p->experts.exchange,
                                        .backward = p->options.backward,
                                        .checkpointing = p->options.checkpointing,
                                        .spill = p->options.spill,
                                        .noise = p->options.noise_alpha > 0};
}

static size_t input_bytes(const struct hy3_pass *p, int64_t T)
{
    return (size_t)(T * p->shape->hidden) * hy3_dtype_size(p->dtype);
}

static size_t attention_bytes(const struct hy3_pass *p, int64_t T)
{
    return (size_t)(T * p->shape->heads * p->shape->head_dim) * hy3_dtype_size(p->dtype);
}

static hy3_status open_spills(struct hy3_pass *p)
{
    const struct hy3_device *device = &p->backend->device;
    int layers = (int)p->shape->layers, first = hy3_params_first_trained(p->params);
    int64_t T = p->most_tokens;

    if (!p->options.spill)
        return HY3_OK;
    HY3_TRY(hy3_spill_open(device, first, layers, input_bytes(p, T), &p->inputs_spill));
    if (!p->options.keep_attention)
        return HY3_OK;
    return hy3_spill_open(device, first, layers, attention_bytes(p, T), &p->attention_spill);
}

static hy3_status allocate(struct hy3_pass *p)
{
    const struct hy3_shape *s = p->shape;
    struct hy3_workspace_shape shape = workspace_shape(p, p->most_tokens, p->whole);
    size_t layers = (size_t)s->layers, T = (size_t)p->most_tokens;
    size_t ranks = (size_t)p->experts.exchange.group->size;
    void *memory = NULL;

    HY3_TRY(hy3_alloc(&p->acts, layers, sizeof *p->acts));
    HY3_TRY(hy3_stream_buffers_open(s->layers, &p->buffers));
    HY3_TRY(open_spills(p));
    HY3_TRY(hy3_device_host_array(&p->backend->device, layers * ((size_t)s->experts + 1),
                                  sizeof(int64_t), &p->host_starts));
    if (ranks > 1) {
        HY3_TRY(hy3_alloc(&p->host_counts,
                          layers * ranks * (size_t)hy3_exchange_counts(&p->experts.exchange),
                          sizeof(int64_t)));
        HY3_TRY(hy3_exchange_open(&p->experts.exchange));
    }
    if (p->sequence.group)
        HY3_TRY(hy3_sequence_open(&p->sequence, p->whole));
    HY3_TRY(hy3_inputs_open(&p->backend->device, p->most_tokens,
                            p->options.backward && shape.lora && shape.lora->dropout > 0,
                            p->options.backward && shape.noise, &p->inputs));
    HY3_TRY(hy3_device_host_array(&p->backend->device, T, sizeof(float), &p->host_loss));
    HY3_TRY(hy3_workspace_measure(&shape, &p->arena.size));
    HY3_TRY(p->backend->device.alloc(p->arena.size, &memory));
    p->arena.base = memory;
    return HY3_OK;
}

/* Rows that the experts of a rank work on at a time. Not above what all ranks of the group can
 * send. */
static void choose_exchange(struct hy3_pass *p)
{
    const struct hy3_layout *layout = hy3_store_layout(p->store);
    const struct hy3_group *group = &layout->experts;
    double even = (double)(p->most_tokens * p->shape->top_k);
    double wanted =
        ceil((p->options.expert_capacity > 0 ? p->options.expert_capacity : 1.25) * even);

    p->experts.exchange = (struct hy3_exchange){.backend = p->backend,
                                                .group = group,
                                                .experts = p->shape->experts,
                                                .top_k = p->shape->top_k,
                                                .slots = (int)p->shape->layers,
                                                .hidden = p->shape->hidden,
                                                .dtype = p->dtype};
    if (group->size > 1)
        p->experts.exchange.capacity = (int64_t)fmax(1, fmin(wanted, even * group->size));
    if (p->options.hierarchical_exchange && layout->across.size > 1) {
        p->experts.exchange.near = &layout->near;
        p->experts.exchange.across = &layout->across;
    }
}

/* Which ranks share the tokens. */
static void choose_sequence(struct hy3_pass *p)
{
    const struct hy3_group *group = &hy3_store_layout(p->store)->sequence;

    p->whole = p->options.max_tokens;
    p->most_tokens = hy3_zigzag_most(p->whole, group->size);
    if (group->size > 1)
        p->sequence = (struct hy3_sequence){.backend = p->backend,
                                            .group = group,
                                            .width = p->shape->kv_heads * p->shape->head_dim,
                                            .dtype = p->dtype,
                                            .backward = p->options.backward};
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
    choose_sequence(p);
    choose_exchange(p);
    HY3_TRY_DONE(hy3_units_order(p->params, options->backward, &p->order));
    HY3_TRY_DONE(backend->device.stream_create(&p->stream));
    HY3_TRY_DONE(allocate(p));
    *out = HY3_TAKE(p);
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
    hy3_stream_buffers_close(&p->buffers);
    hy3_spill_close(&p->inputs_spill);
    hy3_spill_close(&p->attention_spill);
    hy3_free(p->order.units);
    p->backend->device.free_host(p->host_starts);
    hy3_free(p->host_counts);
    hy3_exchange_close(&p->experts.exchange);
    hy3_sequence_close(&p->sequence);
    hy3_inputs_close(&p->inputs, &p->backend->device);
    p->backend->device.free_host(p->host_loss);
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
                              .replay = replay,
                              .keeps_attention = p->options.keep_attention};

    a->x = p->buffers.x[i];
    a->out = p->buffers.x[i + 1];
    if (p->options.keep_attention) {
        a->o = p->buffers.o[i];
        a->lse = p->buffers.lse[i];
    }
    a->ids = p->buffers.chosen[i];
    a->host_starts = p->host_starts + i * (p->shape->experts + 1);
    if (training && layer.lora && layer.lora->dropout > 0)
        layer.dropout_keys = p->buffers.token_keys;
    if (p->sequence.group)
        layer.tokens.shared = (struct hy3_shared_keys){.first = batch->cut.first,
                                                       .end = batch->cut.end,
                                                       .k = p->sequence.k,
                                                       .v = p->sequence.v,
                                                       .dk = p->sequence.dk,
                                                       .dv = p->sequence.dv};
    hy3_bind_layer(p->store, i, &layer.params);
    return layer;
}

static int64_t *counts_at(const struct hy3_pass *p, int layer)
{
    const struct hy3_exchange *x = &p->experts.exchange;

    return p->host_counts ? p->host_counts + layer * hy3_exchange_counts(x) * x->group->size : NULL;
}

/* Whether the activations of every layer stay until its backward. */
static bool keeps_activations(const struct hy3_pass *p, bool training)
{
    return training && !p->options.checkpointing;
}

static void take_acts(struct hy3_pass *p, int i, int64_t T)
{
    const struct hy3_layer_size size = layer_size(p, T);

    hy3_acts_take(p->shape, i, &size, &p->arena, &p->acts[i]);
}

/* Layer `i` is about to write its output and what attention gives. */
static hy3_status take_kept(struct hy3_pass *p, int i)
{
    HY3_TRY(hy3_spill_take(&p->inputs_spill, p->stream, i + 1));
    return hy3_spill_take(&p->attention_spill, p->stream, i);
}

/* Layer `i` is done with them until its backward. */
static hy3_status give_kept(struct hy3_pass *p, int i, int64_t T)
{
    HY3_TRY(hy3_spill_give(&p->inputs_spill, p->stream, i, p->buffers.x[i], input_bytes(p, T)));
    return hy3_spill_give(&p->attention_spill, p->stream, i, p->buffers.o[i],
                          attention_bytes(p, T));
}

/* The backward pass comes to layer `i`. */
static hy3_status return_kept(struct hy3_pass *p, int i, int64_t T)
{
    int below = i > 0 ? i - 1 : 0;

    HY3_TRY(
        hy3_spill_return(&p->inputs_spill, p->stream, i, p->buffers.x[below], input_bytes(p, T)));
    return hy3_spill_return(&p->attention_spill, p->stream, i, p->buffers.o[below],
                            attention_bytes(p, T));
}

static hy3_status forward_layers(struct hy3_pass *p, const struct hy3_batch *batch, bool training)
{
    struct hy3_embedding e;

    HY3_TRY(hy3_store_gather(p->store, p->stream, hy3_params_embedding_unit()));
    e = embedding(p, batch);
    e.W = hy3_store_weight(p->store, hy3_params_find(p->params, HY3_P_EMBED, -1));
    HY3_TRY(p->backend->kernels.embedding_forward(p->stream, &e));
    hy3_store_release(p->store, hy3_params_embedding_unit());
    if (training && p->inputs.noise_scale)
        HY3_TRY(p->backend->kernels.noise(p->stream,
                                          &(struct hy3_noise){.N = batch->T,
                                                              .C = p->shape->hidden,
                                                              .seed = p->options.seed,
                                                              .keys = p->buffers.token_keys,
                                                              .scale = p->buffers.noise_scale,
                                                              .dtype = p->dtype,
                                                              .y = p->buffers.x[0]}));
    HY3_TRY(hy3_probe_embedding(p->probe, p->backend, p->stream, &e));
    for (int i = 0; i < p->shape->layers; i++) {
        const struct hy3_layer_size size = layer_size(p, batch->T);
        size_t mark = hy3_arena_mark(&p->arena);
        struct hy3_layer layer;

        hy3_heartbeat("forward", 0, i);
        take_acts(p, i, batch->T);
        if (keeps_activations(p, training))
            mark = hy3_arena_mark(&p->arena);
        hy3_rows_out_take(p->shape, i, &size, &p->arena, &p->acts[i]);
        HY3_TRY(hy3_units_gather(p->store, p->stream, i));
        layer = layer_at(p, batch, i, training, false);
        HY3_TRY(take_kept(p, i));
        HY3_TRY(hy3_chain_forward(&p->experts, sequence_of(p), &layer, NULL, counts_at(p, i)));
        if (training)
            HY3_TRY(give_kept(p, i, batch->T));
        hy3_units_release(p->store, i);
        HY3_TRY(hy3_probe_layer(p->probe, &layer));
        hy3_arena_reset(&p->arena, mark);
    }
    return HY3_OK;
}

/* The first of the layers' inputs that is still on the device after the forward pass. */
static int first_input(const struct hy3_pass *p)
{
    int first = (int)p->shape->layers + 1 - HY3_SPILL_SLOTS;

    return p->options.spill && first > 0 ? first : 0;
}

static hy3_status head_part(struct hy3_pass *p, const struct hy3_batch *batch, bool training,
                            struct hy3_pass_result *result)
{
    const struct hy3_layer_size size = layer_size(p, batch->T);
    size_t mark = hy3_arena_mark(&p->arena);
    struct hy3_head_use use = {.store = p->store,
                               .batch = batch,
                               .inputs = &p->inputs,
                               .stream = &p->buffers,
                               .host_loss = p->host_loss,
                               .first = first_input(p),
                               .probe = p->probe,
                               .head = {.backend = p->backend,
                                        .stream = p->stream,
                                        .smoothing = (float)p->options.label_smoothing}};

    hy3_head_buffers_take(p->shape, &size, p->options.backward, &p->arena, &use.head.buffers);
    HY3_TRY(hy3_head_use_run(&use, training, result));
    hy3_arena_reset(&p->arena, mark);
    return HY3_OK;
}

static hy3_status backward_layer(struct hy3_pass *p, const struct hy3_batch *batch, int i,
                                 bool last)
{
    size_t mark = hy3_arena_mark(&p->arena);
    struct hy3_layer layer;

    hy3_heartbeat("backward", 0, i);
    HY3_TRY(return_kept(p, i, batch->T));
    HY3_TRY(hy3_units_gather(p->store, p->stream, i));
    if (p->options.checkpointing) {
        take_acts(p, i, batch->T);
        layer = layer_at(p, batch, i, true, true);
        HY3_TRY(hy3_chain_forward(&p->experts, sequence_of(p), &layer, NULL, counts_at(p, i)));
    }
    HY3_TRY(hy3_units_open_grads(p->store, p->stream, i));
    layer = layer_at(p, batch, i, true, true);
    HY3_TRY(hy3_chain_backward(&p->experts, sequence_of(p), &layer, counts_at(p, i), p->buffers.d));
    hy3_units_release(p->store, i);
    hy3_arena_reset(&p->arena, mark);
    return hy3_units_reduce(p->store, p->stream, i, last);
}

static hy3_status backward_layers(struct hy3_pass *p, const struct hy3_batch *batch, bool last)
{
    const struct hy3_layer_size size = layer_size(p, batch->T);
    struct hy3_embedding e;

    hy3_scratch_take(p->shape, &size, &p->arena, &p->scratch);
    for (int i = (int)p->shape->layers - 1; i >= hy3_params_first_trained(p->params); i--)
        HY3_TRY(backward_layer(p, batch, i, last));
    HY3_TRY(hy3_store_open_grads(p->store, p->stream, hy3_params_embedding_unit()));
    e = embedding(p, batch);
    e.dW = hy3_store_grad(p->store, hy3_params_find(p->params, HY3_P_EMBED, -1));
    if (e.dW)
        HY3_TRY(p->backend->kernels.embedding_backward(p->stream, &e));
    return hy3_store_reduce(p->store, p->stream, hy3_params_embedding_unit(), last);
}

static hy3_status begin(struct hy3_pass *p, const struct hy3_batch *batch, bool training)
{
    int64_t whole = p->sequence.group ? batch->cut.T : batch->T;
    int64_t segments = p->options.max_samples + (p->sequence.group != NULL);
    struct hy3_workspace_shape shape = workspace_shape(p, batch->T, whole);

    HY3_ASSERT(batch->T <= p->most_tokens && whole <= p->whole && batch->S <= segments);
    HY3_ASSERT(!p->sequence.group || batch->cut.parts == p->sequence.group->size);
    hy3_arena_reset(&p->arena, 0);
    hy3_stream_buffers_take(&shape, &p->arena, &p->buffers);
    p->experts.exchange.memory = p->buffers.exchange;
    p->experts.exchange.loaded = -1;
    p->experts.exchange.spare = p->buffers.expert_out;
    p->experts.out = p->buffers.expert_out;
    hy3_store_schedule(p->store, p->order.units, training ? p->order.count : p->order.forward);
    if (p->sequence.group)
        HY3_TRY(hy3_sequence_begin(&p->sequence, p->stream));
    HY3_TRY(hy3_inputs_upload(&p->inputs, p->backend, p->stream, batch, &p->buffers));
    if (training && p->inputs.token_keys)
        HY3_TRY(hy3_inputs_upload_keys(&p->inputs, p->backend, p->stream, batch, p->options.seed,
                                       &p->buffers));
    if (training && p->inputs.noise_scale)
        HY3_TRY(hy3_inputs_upload_noise(&p->inputs, p->backend, p->stream, batch,
                                        p->options.noise_alpha, p->shape->hidden, &p->buffers));
    return HY3_OK;
}

hy3_status hy3_pass_evaluate(struct hy3_pass *p, const struct hy3_batch *batch,
                             struct hy3_pass_result *result)
{
    HY3_TRY(begin(p, batch, false));
    HY3_TRY(forward_layers(p, batch, false));
    return head_part(p, batch, false, result);
}

hy3_status hy3_pass_train(struct hy3_pass *p, const struct hy3_batch *batch, bool last,
                          struct hy3_pass_result *result)
{
    HY3_ASSERT(p->options.backward);
    HY3_TRY(begin(p, batch, true));
    HY3_TRY(forward_layers(p, batch, true));
    HY3_TRY(head_part(p, batch, true, result));
    HY3_TRY(hy3_store_reduce(p->store, p->stream, hy3_params_head_unit(p->params), last));
    HY3_TRY(backward_layers(p, batch, last));
    HY3_TRY(hy3_store_finish(p->store, p->stream));
    return p->backend->device.synchronize(p->stream);
}
