/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c - a step of a run without data, weights or other ranks. */
#include "app/plan.h"

#include "app/module_options.h"
#include "backend/dry/dry.h"
#include "base/file.h"
#include "base/memory.h"
#include "data/batches.h"
#include "engine/pass.h"
#include "optim/sharded_optimizer.h"

static struct hy3_group planned_group(int rank, int size)
{
    return (struct hy3_group){MPI_COMM_NULL, rank, size};
}

/* Everything that a rank of the run has. */
struct rehearsal {
    const struct hy3_config *config;
    struct hy3_loaded_model network; /* without base and adapter files */
    struct hy3_sharded_optimizer learner;
    struct hy3_pass *pass;
    struct hy3_batch batch;
};

static hy3_status lay_out(struct rehearsal *r, const struct hy3_plan_options *options, int *group)
{
    struct hy3_layout *layout = &r->network.layout;
    int64_t experts = r->network.shape.experts;
    int P = (int)r->config->expert_parallel_size, ranks = options->ranks;
    int per_node = options->ranks_per_node < ranks ? options->ranks_per_node : ranks;

    if (P == 0)
        P = hy3_expert_group_size(experts, ranks, per_node);
    if (ranks % P != 0 || (P > 1 && (experts == 0 || experts % P != 0)))
        HY3_FAIL(HY3_EUSAGE,
                 "expert_parallel_size = %d does not divide the %d ranks and the %lld experts", P,
                 ranks, (long long)experts);
    layout->world = planned_group(0, ranks);
    layout->node = planned_group(0, per_node);
    layout->experts = planned_group(0, P);
    layout->replicas = planned_group(0, ranks / P);
    *group = P;
    return HY3_OK;
}

/* The longest micro-batch, every token a label. */
static hy3_status make_batch(struct rehearsal *r)
{
    struct hy3_batch *b = &r->batch;
    int64_t samples = r->config->per_device_train_batch_size, length = r->config->max_seq_length;

    b->T = samples * length;
    b->S = samples;
    b->longest = length;
    HY3_TRY(hy3_alloc(&b->ids, (size_t)b->T, sizeof *b->ids));
    HY3_TRY(hy3_alloc(&b->positions, (size_t)b->T, sizeof *b->positions));
    HY3_TRY(hy3_alloc(&b->targets, (size_t)b->T, sizeof *b->targets));
    HY3_TRY(hy3_alloc(&b->starts, (size_t)samples + 1, sizeof *b->starts));
    HY3_TRY(hy3_alloc(&b->samples, (size_t)samples, sizeof *b->samples));
    for (int64_t s = 0; s < samples; s++)
        b->starts[s + 1] = (s + 1) * length;
    return HY3_OK;
}

static hy3_status open_rehearsal(struct rehearsal *r, const struct hy3_plan_options *options,
                                 int *group)
{
    const struct hy3_config *c = r->config;
    struct hy3_loaded_model *n = &r->network;
    struct hy3_loaded_model_options network;
    struct hy3_optimizer_options optimizer;
    struct hy3_pass_options pass = hy3_module_options_pass(c);
    int64_t held;

    HY3_TRY(lay_out(r, options, group));
    HY3_TRY(hy3_module_options_model(c, &network));
    held = n->shape.experts / *group;
    HY3_TRY(hy3_params_create(&n->shape, 0, held, &n->params));
    if (network.lora.rank > 0)
        HY3_TRY(hy3_params_add_adapter(n->params, &network.lora));
    hy3_params_train(n->params, network.training);
    network.store.with_grads = true;
    network.store.placement.directory = NULL; /* counted as host memory */
    HY3_TRY(hy3_store_open(n->backend, &n->layout, n->params, &network.store, &n->store));
    optimizer = hy3_module_options_optimizer(c, network.store.dtype);
    optimizer.placement.directory = NULL;
    HY3_TRY(hy3_sharded_optimizer_open(n->backend, n->store, &optimizer, &r->learner));
    pass.max_tokens = c->per_device_train_batch_size * c->max_seq_length;
    HY3_TRY(hy3_pass_open(n->backend, n->store, &pass, &r->pass));
    return make_batch(r);
}

static void close_rehearsal(struct rehearsal *r)
{
    hy3_pass_close(r->pass);
    hy3_sharded_optimizer_close(&r->learner);
    hy3_store_close(r->network.store);
    hy3_params_free(r->network.params);
    hy3_free(r->batch.ids);
    hy3_free(r->batch.positions);
    hy3_free(r->batch.targets);
    hy3_free(r->batch.starts);
    hy3_free(r->batch.samples);
}

static void add_traffic(struct hy3_plan *plan, double times)
{
    struct hy3_dry_counts counts = hy3_dry_counts();

    plan->reduced += times * counts.reduced;
    plan->gathered_sent += times * counts.gathered;
    plan->scattered += times * counts.scattered;
    plan->exchanged += times * counts.exchanged;
    hy3_dry_forget_traffic();
}

/* Two steps: in the second what the first has updated is gathered. Micro-batches but the last are
 * alike. */
static hy3_status rehearse(struct rehearsal *r, struct hy3_plan *plan)
{
    int64_t micros = r->config->gradient_accumulation_steps;
    struct hy3_pass_result result;
    double norm;

    for (int step = 0; step < 2; step++) {
        struct hy3_plan *into = step == 1 ? plan : &(struct hy3_plan){0};

        hy3_dry_forget_traffic();
        if (micros > 1) {
            HY3_TRY(hy3_pass_train(r->pass, &r->batch, false, &result));
            add_traffic(into, 1);
        }
        if (micros > 2) { /* what the update made stale is whole again */
            HY3_TRY(hy3_pass_train(r->pass, &r->batch, false, &result));
            add_traffic(into, (double)(micros - 2));
        }
        HY3_TRY(hy3_pass_train(r->pass, &r->batch, true, &result));
        HY3_TRY(hy3_sharded_optimizer_step(&r->learner, hy3_pass_stream(r->pass), 1, 1, 1, 1e-5,
                                           &norm));
        add_traffic(into, 1);
    }
    return HY3_OK;
}

static void measure_disk(const struct rehearsal *r, struct hy3_plan *plan)
{
    const struct hy3_params *params = r->network.params;
    double size = r->config->bf16 ? 2 : 4;

    plan->parameters = (double)params->total;
    plan->trained = (double)hy3_params_trained(params);
    plan->checkpoint = plan->trained * 12;
    plan->model = params->lora.rank > 0 ? plan->trained * 4 : plan->parameters * size;
    for (int i = 0; r->config->save_async && i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];

        if (p->trainable)
            plan->saving += 12.0 * (double)hy3_store_share(r->network.store, p).count;
    }
}

/* Device memory that a GPU's kernels take themselves, in slots that grow (cuda/cuda.h): four
 * workspaces of cuBLAS and a quarter, partial sums of columns and ranges, and a number for each
 * query head of each token. Tested to be enough on the emulated GPU. */
static double kernel_bytes(const struct hy3_config *config, const struct hy3_shape *shape)
{
    const double fixed = 224 << 20;
    double tokens = (double)(config->per_device_train_batch_size * config->max_seq_length);

    return strcmp(config->device, "cpu") == 0 ? 0 : fixed + 8 * tokens * (double)shape->heads;
}

hy3_status hy3_plan_make(const struct hy3_config *config, const struct hy3_shape *shape,
                         const struct hy3_plan_options *options, struct hy3_plan *plan)
{
    hy3_status status = HY3_OK;
    struct rehearsal r = {.config = config, .network = {.shape = *shape}};
    struct hy3_store_memory memory;
    struct hy3_dry_counts counts;

    *plan = (struct hy3_plan){0};
    r.network.backend = hy3_dry_backend();
    HY3_TRY_DONE(open_rehearsal(&r, options, &plan->group));
    HY3_TRY_DONE(rehearse(&r, plan));
    measure_disk(&r, plan);
    memory = hy3_store_memory(r.network.store);
    counts = hy3_dry_counts();
    plan->weights = (double)memory.weights;
    plan->grads = (double)memory.grads;
    plan->gathered = (double)memory.gathered;
    plan->optimizer = (double)hy3_optimizer_bytes(r.learner.optimizer);
    plan->workspace = (double)hy3_pass_bytes(r.pass);
    plan->mpi = strcmp(config->device, "cpu") == 0 ? counts.largest_sum : 0;
    plan->kernels = kernel_bytes(config, shape);
    plan->device = (double)counts.device_peak + plan->kernels;
    plan->host = (double)counts.host_peak + plan->saving + plan->mpi;
done:
    close_rehearsal(&r);
    return status;
}

static hy3_status read_shape(const struct hy3_config *config, const struct hy3_plan_options *o,
                             struct hy3_shape *shape)
{
    char path[HY3_PATH_MAX];

    if (o->shape)
        return hy3_shape_open(o->shape, shape);
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", config->model_name_or_path));
    if (!hy3_path_exists(path))
        HY3_FAIL(HY3_EIO,
                 "'%s' does not exist; for a model that is elsewhere give its config.json with "
                 "--shape (etc/hy3_295b.json is the published one)",
                 path);
    return hy3_shape_open(path, shape);
}

/* Host memory of a node: what its ranks keep there, and on a CPU everything. */
static double node_bytes(const struct hy3_config *config, const struct hy3_plan_options *o,
                         const struct hy3_plan *plan)
{
    int ranks = o->ranks_per_node < o->ranks ? o->ranks_per_node : o->ranks;

    return ranks * (plan->host + (strcmp(config->device, "cpu") == 0 ? plan->device : 0));
}

static bool fits(const struct hy3_config *config, const struct hy3_plan_options *o,
                 const struct hy3_plan *plan)
{
    bool cpu = strcmp(config->device, "cpu") == 0;

    return (cpu || o->device_memory <= 0 || plan->device <= o->device_memory) &&
           (o->host_memory <= 0 || node_bytes(config, o, plan) <= o->host_memory);
}

static void print_size(const char *what, double bytes, const char *more)
{
    printf("  %-42s %10.3f GB%s%s\n", what, 1e-9 * bytes, *more ? "   " : "", more);
}

static void print_table(const struct hy3_config *c, const struct hy3_plan_options *o,
                        const struct hy3_plan *p)
{
    char text[128];

    printf(
        "%d ranks, %d a node; expert groups of %d; zero_stage %lld, offload %s; %s; "
        "%.4g of %.4g G parameters learn\n",
        o->ranks, o->ranks_per_node, p->group, (long long)c->zero_stage, c->offload,
        c->bf16 ? "bf16" : "fp32", 1e-9 * p->trained, 1e-9 * p->parameters);
    printf("memory of a rank\n");
    print_size("weights", p->weights, "");
    print_size("gradients", p->grads, "");
    print_size("optimizer", p->optimizer, "");
    print_size("units at work (gathered, being reduced)", p->gathered, "");
    snprintf(text, sizeof text, "%lld x %lld tokens", (long long)c->per_device_train_batch_size,
             (long long)c->max_seq_length);
    print_size("activations and workspace", p->workspace, text);
    print_size("kernels' own", p->kernels, "");
    print_size("copy for asynchronous saving", p->saving, "");
    print_size("MPI's copy of what it sums", p->mpi, "");
    print_size("device, peak", p->device, "");
    print_size("host, peak", p->host, "");
    print_size("host memory of a node", node_bytes(c, o, p), "");
    printf("sent by a rank in a step\n");
    print_size("all-reduce of gradients", p->reduced, "");
    print_size("all-gather of weights", p->gathered_sent, "");
    print_size("reduce-scatter of gradients", p->scattered, "");
    print_size("tokens to their experts and back", p->exchanged, "");
    printf("on disk\n");
    print_size("a checkpoint", p->checkpoint, "");
    print_size("the result", p->model, "");
}

/* A setting that may make a run fit, tried in this order, each with those before it. */
static void change(struct hy3_config *c, int i, const char **name)
{
    static char full[] = "full", optimizer[] = "optimizer";

    switch (i) {
    case 0:
        *name = "gradient_checkpointing = true";
        c->gradient_checkpointing = true;
        break;
    case 1:
        *name = "zero_stage = 3";
        c->zero_stage = 3;
        c->make_moe_param_leaf_module = false;
        break;
    case 2:
        *name = "per_device_train_batch_size = 1";
        c->per_device_train_batch_size = 1;
        break;
    case 3:
        *name = "stage3_max_reuse_distance = 0, stage3_prefetch_bucket_size = 0";
        c->stage3_max_reuse_distance = c->stage3_prefetch_bucket_size = 0;
        break;
    case 4:
        *name = "offload = optimizer";
        c->offload = optimizer;
        break;
    case 5:
        *name = "offload = full";
        c->offload = full;
        break;
    default:
        *name = "save_async = false";
        c->save_async = false;
    }
}

enum { CHANGES = 7 };

static hy3_status suggest_settings(const struct hy3_config *config, const struct hy3_shape *shape,
                                   const struct hy3_plan_options *o)
{
    struct hy3_config c = *config; /* shares its texts, is not freed */

    c.gradient_accumulation_steps = 1;
    printf("with these %d ranks\n", o->ranks);
    for (int i = 0; i < CHANGES; i++) {
        struct hy3_plan plan;
        const char *name;

        change(&c, i, &name);
        HY3_TRY(hy3_plan_make(&c, shape, o, &plan));
        printf("  %s%-62s device %9.3f GB, node %9.3f GB%s\n", i > 0 ? "and " : "    ", name,
               1e-9 * plan.device, 1e-9 * node_bytes(&c, o, &plan),
               fits(&c, o, &plan) ? "   fits" : "");
        if (fits(&c, o, &plan))
            return HY3_OK;
    }
    printf("  does not fit\n");
    return HY3_OK;
}

/* The smallest number of full nodes, or of ranks of one, that holds the run as it is. */
static hy3_status suggest_ranks(const struct hy3_config *config, const struct hy3_shape *shape,
                                const struct hy3_plan_options *options)
{
    struct hy3_plan_options o = *options;
    struct hy3_config c = *config; /* shares its texts, is not freed */

    c.gradient_accumulation_steps = 1;
    for (int ranks = 1; ranks <= 4096; ranks *= 2) {
        struct hy3_plan plan;

        o.ranks = ranks;
        if (c.expert_parallel_size > 0 && ranks % c.expert_parallel_size != 0)
            continue;
        HY3_TRY(hy3_plan_make(&c, shape, &o, &plan));
        if (!fits(&c, &o, &plan))
            continue;
        printf("as configured it fits on %d ranks (device %.3f GB, node %.3f GB)\n", ranks,
               1e-9 * plan.device, 1e-9 * node_bytes(&c, &o, &plan));
        return HY3_OK;
    }
    printf("as configured it does not fit on 4096 ranks either\n");
    return HY3_OK;
}

hy3_status hy3_plan_print(const struct hy3_config *config, const struct hy3_plan_options *options)
{
    struct hy3_shape shape;
    struct hy3_plan plan;
    bool limited = options->device_memory > 0 || options->host_memory > 0;

    HY3_TRY(read_shape(config, options, &shape));
    HY3_TRY(hy3_plan_make(config, &shape, options, &plan));
    print_table(config, options, &plan);
    if (!limited)
        return HY3_OK;
    if (fits(config, options, &plan)) {
        printf("fits\n");
        HY3_TRY(suggest_ranks(config, &shape, options));
        return HY3_OK;
    }
    printf("does not fit: a device has %.3f GB, a node %.3f GB (0: not limited)\n",
           1e-9 * options->device_memory, 1e-9 * options->host_memory);
    HY3_TRY(suggest_settings(config, &shape, options));
    HY3_TRY(suggest_ranks(config, &shape, options));
    fflush(stdout);
    HY3_FAIL(HY3_EUSAGE, "the run does not fit into the memory that was given; see the table");
    return HY3_OK;
}
