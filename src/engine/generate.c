/* SPDX-License-Identifier: Apache-2.0 */
/* generate.c - decoding with a key-value cache. */
#include "engine/generate.h"

#include "base/memory.h"
#include "base/random.h"
#include "engine/bind.h"
#include "engine/chain.h"
#include "model/lora.h"

#include <math.h>

enum { PIECE = 256 }; /* tokens of a prompt that run together */

struct hy3_generator {
    const struct hy3_backend *backend;
    struct hy3_store *store;
    const struct hy3_params *params;
    const struct hy3_shape *shape;
    struct hy3_stream *stream;
    hy3_dtype dtype;
    struct hy3_arena arena;
    struct hy3_experts experts;  /* all on this rank */
    struct hy3_kv_cache *caches; /* [layers] */
    int64_t *host_starts;        /* [E+1] */
    float *logits;               /* HOST [V] */
    int64_t count, max_tokens;   /* tokens of the text so far */
};

static const struct hy3_group alone = {.size = 1};

/* Device buffers of one piece of T tokens. */
struct piece {
    int32_t *ids, *positions, *chosen;
    void *x, *out, *n;
    float *r, *logits;
    struct hy3_lora_buffers lora;
};

static struct piece take_piece(const struct hy3_generator *g, struct hy3_arena *arena, int64_t T)
{
    size_t size = hy3_dtype_size(g->dtype);
    int64_t H = g->shape->hidden;

    const struct hy3_layer_size of = {.T = T, .dtype = g->dtype};
    struct piece p = {.ids = hy3_arena_take(arena, T, sizeof(int32_t)),
                      .positions = hy3_arena_take(arena, T, sizeof(int32_t)),
                      .chosen = hy3_arena_take(arena, T * g->shape->top_k, sizeof(int32_t)),
                      .x = hy3_arena_take(arena, T * H, size),
                      .out = hy3_arena_take(arena, T * H, size),
                      .n = hy3_arena_take(arena, H, size),
                      .r = hy3_arena_take(arena, 1, sizeof(float)),
                      .logits = hy3_arena_take(arena, g->shape->vocab, sizeof(float))};

    if (hy3_bind_lora(g->store))
        hy3_lora_buffers_take(g->shape, hy3_bind_lora(g->store), &of, false, arena, &p.lora);
    return p;
}

static hy3_status allocate(struct hy3_generator *g)
{
    const struct hy3_shape *s = g->shape;
    const struct hy3_device *device = &g->backend->device;
    size_t cache_bytes =
        (size_t)(g->max_tokens * s->kv_heads * s->head_dim) * hy3_dtype_size(g->dtype);
    const struct hy3_layer_size of = {.T = PIECE, .dtype = g->dtype};
    struct hy3_arena count = {0};
    struct hy3_layer_acts acts = {0};
    void *memory = NULL;
    size_t mark;

    HY3_TRY(hy3_alloc(&g->caches, (size_t)s->layers, sizeof *g->caches));
    HY3_TRY(
        hy3_device_host_array(device, (size_t)s->experts + 1, sizeof(int64_t), &g->host_starts));
    HY3_TRY(hy3_device_host_array(device, (size_t)s->vocab, sizeof(float), &g->logits));
    for (int i = 0; i < s->layers; i++) {
        HY3_TRY(device->alloc(cache_bytes, &g->caches[i].k));
        HY3_TRY(device->alloc(cache_bytes, &g->caches[i].v));
    }
    take_piece(g, &count, PIECE);
    mark = hy3_arena_mark(&count);
    for (int i = 0; i < s->layers; i++) {
        hy3_acts_take(s, i, &of, &count, &acts);
        hy3_rows_out_take(s, i, &of, &count, &acts);
        hy3_arena_reset(&count, mark);
    }
    g->arena.size = count.peak;
    HY3_TRY(device->alloc(g->arena.size, &memory));
    g->arena.base = memory;
    return HY3_OK;
}

hy3_status hy3_generator_open(const struct hy3_backend *backend, struct hy3_store *store,
                              int64_t max_tokens, struct hy3_generator **out)
{
    hy3_status status = HY3_OK;
    struct hy3_generator *g = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&g, 1, sizeof *g));
    g->backend = backend;
    g->store = store;
    g->params = hy3_store_params(store);
    g->shape = &g->params->shape;
    g->dtype = hy3_store_dtype(store);
    g->max_tokens = max_tokens;
    g->experts.exchange.group = &alone;
    HY3_TRY_DONE(backend->device.stream_create(&g->stream));
    for (int i = 0; i < g->params->units; i++) /* whole for the generator's life */
        HY3_TRY_DONE(hy3_store_gather(store, g->stream, i));
    HY3_TRY_DONE(allocate(g));
    *out = HY3_TAKE(g);
done:
    hy3_generator_close(g);
    return status;
}

void hy3_generator_close(struct hy3_generator *g)
{
    if (!g)
        return;
    for (int i = 0; g->caches && i < g->shape->layers; i++) {
        g->backend->device.free(g->caches[i].k);
        g->backend->device.free(g->caches[i].v);
    }
    g->backend->device.free(g->arena.base);
    g->backend->device.stream_free(g->stream);
    hy3_free(g->caches);
    g->backend->device.free_host(g->host_starts);
    g->backend->device.free_host(g->logits);
    hy3_free(g);
}

void hy3_generator_reset(struct hy3_generator *g)
{
    g->count = 0;
}

static hy3_status run_layer(struct hy3_generator *g, const struct piece *p, int i, int64_t T)
{
    hy3_status status = HY3_OK;
    int64_t starts[2] = {0, T};
    const struct hy3_layer_size size = {.T = T, .dtype = g->dtype};
    struct hy3_layer_acts acts = {.x = p->x, .out = p->out, .ids = p->chosen};
    struct hy3_layer layer = {.backend = g->backend,
                              .stream = g->stream,
                              .shape = g->shape,
                              .dtype = g->dtype,
                              .index = i,
                              .tokens = {.T = T, .S = 1, .starts = starts},
                              .lora = hy3_bind_lora(g->store),
                              .lora_buffers = &p->lora,
                              .acts = &acts};
    size_t mark = hy3_arena_mark(&g->arena);

    layer.tokens.positions = p->positions;
    acts.host_starts = g->host_starts;
    hy3_acts_take(g->shape, i, &size, &g->arena, &acts);
    hy3_rows_out_take(g->shape, i, &size, &g->arena, &acts);
    hy3_bind_layer(g->store, i, &layer.params);
    g->caches[i].count = g->count;
    HY3_TRY_DONE(hy3_chain_forward(&g->experts, NULL, &layer, &g->caches[i], NULL));
    HY3_TRY_DONE(g->backend->device.copy(
        g->stream, p->x, p->out, (size_t)(T * g->shape->hidden) * hy3_dtype_size(g->dtype)));
done:
    hy3_arena_reset(&g->arena, mark);
    return status;
}

/* Logits after the last of T tokens. */
static hy3_status head(struct hy3_generator *g, const struct piece *p, int64_t T)
{
    int64_t H = g->shape->hidden, V = g->shape->vocab;
    struct hy3_head h = {.backend = g->backend,
                         .stream = g->stream,
                         .T = 1,
                         .buffers = {.n = p->n, .r = p->r, .logits = p->logits}};

    hy3_bind_head(g->store, &h);
    h.x = (const char *)p->x + (size_t)((T - 1) * H) * hy3_dtype_size(g->dtype);
    HY3_TRY(hy3_head_norm(&h));
    HY3_TRY(hy3_head_logits(&h, p->n, 0, 1));
    HY3_TRY(g->backend->device.copy(g->stream, g->logits, p->logits, (size_t)V * sizeof(float)));
    return g->backend->device.synchronize(g->stream);
}

static hy3_status feed_piece(struct hy3_generator *g, const int32_t *ids, int64_t T, bool last)
{
    const struct hy3_device *device = &g->backend->device;
    const struct hy3_param *table = hy3_params_find(g->params, HY3_P_EMBED, -1);
    int32_t positions[PIECE];
    struct piece p;

    hy3_arena_reset(&g->arena, 0);
    p = take_piece(g, &g->arena, T);
    for (int64_t t = 0; t < T; t++)
        positions[t] = (int32_t)(g->count + t);
    HY3_TRY(device->copy(g->stream, p.ids, ids, (size_t)T * sizeof *ids));
    HY3_TRY(device->copy(g->stream, p.positions, positions, (size_t)T * sizeof *positions));
    HY3_TRY(device->synchronize(g->stream)); /* positions leaves with this function */
    HY3_TRY(g->backend->kernels.embedding_forward(
        g->stream, &(struct hy3_embedding){.T = T,
                                           .H = g->shape->hidden,
                                           .V = g->shape->vocab,
                                           .dtype = g->dtype,
                                           .ids = p.ids,
                                           .W = hy3_store_weight(g->store, table),
                                           .y = p.x}));
    for (int i = 0; i < g->shape->layers; i++)
        HY3_TRY(run_layer(g, &p, i, T));
    if (last)
        HY3_TRY(head(g, &p, T));
    g->count += T;
    return HY3_OK;
}

hy3_status hy3_generator_feed(struct hy3_generator *g, const int32_t *ids, int64_t count,
                              const float **logits)
{
    if (g->count + count > g->max_tokens)
        HY3_FAIL(HY3_EUSAGE, "the text has %lld tokens, the model was given room for %lld",
                 (long long)(g->count + count), (long long)g->max_tokens);
    for (int64_t at = 0; at < count; at += PIECE) {
        int64_t T = count - at < PIECE ? count - at : PIECE;

        HY3_TRY(feed_piece(g, ids + at, T, at + T == count));
    }
    *logits = g->logits;
    return HY3_OK;
}

int32_t hy3_sample_token(const float *logits, int64_t V, double temperature, uint64_t seed,
                         uint64_t place)
{
    int64_t best = 0;
    double total = 0, point;
    uint32_t word[4];

    for (int64_t v = 1; v < V; v++)
        if (logits[v] > logits[best])
            best = v;
    if (temperature <= 0)
        return (int32_t)best;
    for (int64_t v = 0; v < V; v++)
        total += exp((logits[v] - logits[best]) / temperature);
    hy3_random(seed, HY3_RANDOM_SAMPLING, 0, place, word);
    point = ((double)word[0] + 0.5) * 0x1p-32 * total;
    for (int64_t v = 0; v < V; v++) {
        point -= exp((logits[v] - logits[best]) / temperature);
        if (point < 0)
            return (int32_t)v;
    }
    return (int32_t)best;
}
