/* SPDX-License-Identifier: Apache-2.0 */
/* rehearsal.c - opens what a run opens, with numbers in the place of data. */
#include "app/rehearsal.h"

#include "app/module_options.h"
#include "base/memory.h"
#include "data/cut.h"

/* Samples of the longest micro-batch: of packed rows, no sample is longer than max_seq_length. */
static int64_t planned_samples(const struct hy3_config *c)
{
    int64_t row = hy3_module_options_item_tokens(c), each = c->max_seq_length;

    return c->per_device_train_batch_size * (row / each + (row % each != 0));
}

/* The longest micro-batch, every token a label. */
static hy3_status make_batch(struct hy3_rehearsal *r)
{
    struct hy3_batch *b = &r->batch;
    int64_t samples = planned_samples(r->config), length = r->config->max_seq_length;
    int64_t row = hy3_module_options_item_tokens(r->config);
    int64_t each = row / length + (row % length != 0);
    int P = r->model.layout.sequence.size;

    b->T = r->config->per_device_train_batch_size * row;
    b->S = samples;
    b->longest = length;
    HY3_TRY(hy3_alloc(&b->ids, (size_t)b->T, sizeof *b->ids));
    HY3_TRY(hy3_alloc(&b->positions, (size_t)b->T, sizeof *b->positions));
    HY3_TRY(hy3_alloc(&b->targets, (size_t)b->T, sizeof *b->targets));
    HY3_TRY(hy3_alloc(&b->starts, (size_t)samples + 2, sizeof *b->starts));
    HY3_TRY(hy3_alloc(&b->samples, (size_t)samples + 1, sizeof *b->samples));
    if (P > 1)
        HY3_TRY(hy3_cut_open(P, samples, &b->cut));
    for (int64_t s = 0; s < samples; s++)
        b->starts[s + 1] = s / each * row + ((s + 1) % each == 0 ? row : (s % each + 1) * length);
    if (P > 1)
        hy3_cut_batch(b, 0);
    return HY3_OK;
}

static hy3_status open_parts(struct hy3_rehearsal *r)
{
    const struct hy3_config *c = r->config;
    struct hy3_loaded_model *m = &r->model;
    struct hy3_loaded_model_options model;
    struct hy3_optimizer_options optimizer;
    struct hy3_offloading state;
    struct hy3_pass_options pass = hy3_module_options_pass(c);
    int64_t held;

    HY3_TRY(hy3_module_options_model(c, &model));
    held = m->shape.experts / m->layout.experts.size;
    HY3_TRY(hy3_params_create(&m->shape, 0, held, &m->params));
    if (model.lora.rank > 0)
        HY3_TRY(hy3_params_add_adapter(m->params, &model.lora));
    hy3_params_train(m->params, model.training, &model.selection);
    model.store.with_grads = true;
    model.store.offload.directory = NULL; /* counted as host memory */
    HY3_TRY(hy3_store_open(m->backend, &m->layout, m->params, &model.store, &m->store));
    optimizer = hy3_module_options_optimizer(c);
    state = hy3_module_options_offload(c, HY3_OFFLOAD_optimizer);
    state.directory = NULL;
    HY3_TRY(hy3_sharded_optimizer_open(m->backend, m->store, &optimizer, &state, &r->optimizer));
    pass.max_tokens = c->per_device_train_batch_size * hy3_module_options_item_tokens(c);
    pass.max_samples = planned_samples(c);
    HY3_TRY(hy3_pass_open(m->backend, m->store, &pass, &r->pass));
    return make_batch(r);
}

hy3_status hy3_rehearsal_open(const struct hy3_config *config, const struct hy3_shape *shape,
                              const struct hy3_layout *layout, const struct hy3_backend *backend,
                              struct hy3_rehearsal *out)
{
    *out = (struct hy3_rehearsal){
        .config = config, .model = {.backend = backend, .layout = *layout, .shape = *shape}};
    return open_parts(out);
}

void hy3_rehearsal_close(struct hy3_rehearsal *r)
{
    hy3_pass_close(r->pass);
    hy3_sharded_optimizer_close(&r->optimizer);
    hy3_store_close(r->model.store);
    hy3_params_free(r->model.params);
    hy3_free(r->batch.ids);
    hy3_free(r->batch.positions);
    hy3_free(r->batch.targets);
    hy3_free(r->batch.starts);
    hy3_free(r->batch.samples);
    hy3_cut_free(&r->batch.cut);
}
