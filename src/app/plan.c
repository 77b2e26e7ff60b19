/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c - a training step without data, weights or other ranks. */
#include "app/plan.h"

#include "app/module_options.h"
#include "app/save.h"
#include "backend/dry/dry.h"
#include "base/memory.h"
#include "base/plural.h"
#include "ckpt/state/state.h"
#include "data/batches.h"
#include "engine/pass.h"
#include "optim/sharded_optimizer.h"

static struct hy3_group planned_group(int rank, int size)
{
    return (struct hy3_group){MPI_COMM_NULL, rank, size};
}

/* All objects of a rank. */
struct rehearsal {
    const struct hy3_config *config;
    struct hy3_loaded_model model; /* without base and adapter files */
    struct hy3_sharded_optimizer optimizer;
    struct hy3_pass *pass;
    struct hy3_batch batch;
};

static hy3_status lay_out(struct rehearsal *r, const struct hy3_plan_options *options, int *group)
{
    struct hy3_layout *layout = &r->model.layout;
    int64_t experts = r->model.shape.experts;
    int P = (int)r->config->expert_parallel_size, ranks = options->ranks;
    int per_node = options->ranks_per_node < ranks ? options->ranks_per_node : ranks;

    if (P == 0)
        P = hy3_expert_group_size(experts, ranks, per_node);
    if (ranks % P != 0)
        HY3_FAIL(HY3_EUSAGE, "expert_parallel_size = %d does not divide the %d rank%s", P, ranks,
                 hy3_s(ranks));
    if (P > 1 && (experts == 0 || experts % P != 0))
        HY3_FAIL(HY3_EUSAGE, "expert_parallel_size = %d does not divide the %lld experts", P,
                 (long long)experts);
    layout->world = planned_group(0, ranks);
    layout->node = planned_group(0, per_node);
    layout->experts = planned_group(0, P);
    layout->replicas = planned_group(0, ranks / P);
    *group = P;
    return HY3_OK;
}

/* Samples of the longest micro-batch: of packed rows, no sample is longer than max_seq_length. */
static int64_t planned_samples(const struct hy3_config *c)
{
    int64_t row = hy3_module_options_item_tokens(c), each = c->max_seq_length;

    return c->per_device_train_batch_size * (row / each + (row % each != 0));
}

/* The longest micro-batch, every token a label. */
static hy3_status make_batch(struct rehearsal *r)
{
    struct hy3_batch *b = &r->batch;
    int64_t samples = planned_samples(r->config), length = r->config->max_seq_length;
    int64_t row = hy3_module_options_item_tokens(r->config),
            each = row / length + (row % length != 0);

    b->T = r->config->per_device_train_batch_size * row;
    b->S = samples;
    b->longest = length;
    HY3_TRY(hy3_alloc(&b->ids, (size_t)b->T, sizeof *b->ids));
    HY3_TRY(hy3_alloc(&b->positions, (size_t)b->T, sizeof *b->positions));
    HY3_TRY(hy3_alloc(&b->targets, (size_t)b->T, sizeof *b->targets));
    HY3_TRY(hy3_alloc(&b->starts, (size_t)samples + 1, sizeof *b->starts));
    HY3_TRY(hy3_alloc(&b->samples, (size_t)samples, sizeof *b->samples));
    for (int64_t s = 0; s < samples; s++)
        b->starts[s + 1] = s / each * row + ((s + 1) % each == 0 ? row : (s % each + 1) * length);
    return HY3_OK;
}

static hy3_status open_rehearsal(struct rehearsal *r, int group)
{
    const struct hy3_config *c = r->config;
    struct hy3_loaded_model *m = &r->model;
    struct hy3_loaded_model_options model;
    struct hy3_optimizer_options optimizer;
    struct hy3_pass_options pass = hy3_module_options_pass(c);
    int64_t held;

    HY3_TRY(hy3_module_options_model(c, &model));
    held = m->shape.experts / group;
    HY3_TRY(hy3_params_create(&m->shape, 0, held, &m->params));
    if (model.lora.rank > 0)
        HY3_TRY(hy3_params_add_adapter(m->params, &model.lora));
    hy3_params_train(m->params, model.training, &model.selection);
    model.store.with_grads = true;
    model.store.placement.directory = NULL; /* counted as host memory */
    HY3_TRY(hy3_store_open(m->backend, &m->layout, m->params, &model.store, &m->store));
    optimizer = hy3_module_options_optimizer(c);
    optimizer.placement.directory = NULL;
    HY3_TRY(hy3_sharded_optimizer_open(m->backend, m->store, &optimizer, &r->optimizer));
    pass.max_tokens = c->per_device_train_batch_size * hy3_module_options_item_tokens(c);
    pass.max_samples = planned_samples(c);
    HY3_TRY(hy3_pass_open(m->backend, m->store, &pass, &r->pass));
    return make_batch(r);
}

static void close_rehearsal(struct rehearsal *r)
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
}

static void add_lap(struct hy3_plan *plan, struct hy3_timing *timing, double times)
{
    struct hy3_dry_counts counts = hy3_dry_counts();
    struct hy3_timing lap = hy3_timeline_lap();

    hy3_timing_add(timing, &lap, times);
    plan->reduced += times * counts.reduced;
    plan->gathered_sent += times * counts.gathered;
    plan->scattered += times * counts.scattered;
    plan->exchanged += times * counts.exchanged;
    hy3_dry_forget_traffic();
}

/* Two steps: the second one gathers what the first has updated. All micro-batches but the last send
 * the same. */
static hy3_status rehearse(struct rehearsal *r, FILE *trace, struct hy3_plan *plan)
{
    int64_t micros = r->config->gradient_accumulation_steps;
    struct hy3_pass_result result;
    double norm;

    for (int step = 0; step < 2; step++) {
        struct hy3_plan *into = step == 1 ? plan : &(struct hy3_plan){0};

        hy3_dry_forget_traffic();
        hy3_timeline_lap();
        hy3_timeline_trace(step == 1 ? trace : NULL);
        if (micros > 1) {
            HY3_TRY(hy3_pass_train(r->pass, &r->batch, false, &result));
            add_lap(into, &into->micros, 1);
        }
        if (micros > 2) { /* nothing stale is gathered any more */
            HY3_TRY(hy3_pass_train(r->pass, &r->batch, false, &result));
            add_lap(into, &into->micros, (double)(micros - 2));
        }
        HY3_TRY(hy3_pass_train(r->pass, &r->batch, true, &result));
        add_lap(into, &into->micros, 1);
        HY3_TRY(hy3_sharded_optimizer_step(&r->optimizer, hy3_pass_stream(r->pass), 1, 1, 1, 1e-5,
                                           &norm));
        add_lap(into, &into->update, 1);
    }
    hy3_timeline_trace(NULL);
    return HY3_OK;
}

static void measure_disk(const struct rehearsal *r, struct hy3_plan *plan)
{
    const struct hy3_params *params = r->model.params;

    plan->parameters = (double)params->total;
    plan->trained = (double)hy3_params_trained(params);
    plan->checkpoint = hy3_state_bytes(params);
    plan->model = hy3_save_bytes(params, r->config->bf16 ? HY3_BF16 : HY3_FP32);
    for (int i = 0; r->config->save_async && i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];

        if (p->trainable)
            plan->saving += 12.0 * (double)hy3_store_share(r->model.store, p).count;
    }
}

/* Device memory that a GPU's kernels allocate, in slots that grow (cuda/cuda.h): 4.25 workspaces of
 * cuBLAS, partial sums of columns and ranges, and a number per query head and token. A test on the
 * emulated GPU checks that it is enough. */
static double kernel_bytes(const struct hy3_config *config, const struct hy3_shape *shape)
{
    const double fixed = 224 << 20;
    double tokens =
        (double)(config->per_device_train_batch_size * hy3_module_options_item_tokens(config));

    return config->device == HY3_DEVICE_cpu ? 0 : fixed + 8 * tokens * (double)shape->heads;
}

hy3_status hy3_plan_make(const struct hy3_config *config, const struct hy3_shape *shape,
                         const struct hy3_plan_options *options, struct hy3_plan *plan)
{
    hy3_status status = HY3_OK;
    struct rehearsal r = {.config = config, .model = {.shape = *shape}};
    struct hy3_timeline_options timeline = {.rates = options->rates,
                                            .ranks = options->ranks,
                                            .ranks_per_node = options->ranks_per_node,
                                            .imbalance = options->imbalance};
    struct hy3_store_memory memory;
    struct hy3_dry_counts counts;

    *plan = (struct hy3_plan){0};
    HY3_TRY_DONE(lay_out(&r, options, &plan->group));
    timeline.expert_group = plan->group;
    r.model.backend = hy3_dry_backend(&timeline);
    HY3_TRY_DONE(open_rehearsal(&r, plan->group));
    HY3_TRY_DONE(rehearse(&r, options->trace, plan));
    measure_disk(&r, plan);
    memory = hy3_store_memory(r.model.store);
    counts = hy3_dry_counts();
    plan->weights = (double)memory.weights;
    plan->grads = (double)memory.grads;
    plan->gathered = (double)memory.gathered;
    plan->optimizer = (double)hy3_optimizer_bytes(r.optimizer.optimizer);
    plan->workspace = (double)hy3_pass_bytes(r.pass);
    plan->mpi = config->device == HY3_DEVICE_cpu ? counts.largest_sum : 0;
    plan->kernels = kernel_bytes(config, shape);
    plan->device = (double)counts.device_peak + plan->kernels;
    plan->host = (double)counts.host_peak + plan->saving + plan->mpi;
done:
    close_rehearsal(&r);
    return status;
}
