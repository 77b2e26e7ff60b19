/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c - a training step without data, weights or other ranks. */
#include "app/plan.h"

#include "app/module_options.h"
#include "app/offload.h"
#include "app/rehearsal.h"
#include "app/save.h"
#include "backend/dry/dry.h"
#include "base/file.h"
#include "base/zigzag.h"
#include "ckpt/state/state.h"
#include "optim/moment_copy.h"

#include <math.h>

static struct hy3_group planned_group(int size, int apart)
{
    return (struct hy3_group){MPI_COMM_NULL, 0, size, apart};
}

/* Ranks of an expert group that a layout would have. */
static int group_size(const struct hy3_config *config, int64_t experts,
                      const struct hy3_plan_options *options)
{
    int ranks = options->ranks, per_node = options->ranks_per_node;

    if (config->expert_parallel_size > 0)
        return (int)config->expert_parallel_size;
    return hy3_expert_group_size(experts, ranks, per_node < ranks ? per_node : ranks);
}

static hy3_status lay_out(const struct hy3_config *config, int P, int64_t experts,
                          const struct hy3_plan_options *options, struct hy3_layout *layout)
{
    int ranks = options->ranks;
    int Z = config->zero_stage == 0 ? ranks : (int)config->zero_group_size, R;
    int per_node = options->ranks_per_node < ranks ? options->ranks_per_node : ranks;

    HY3_TRY(hy3_expert_group_check(P, ranks, experts));
    HY3_ASSERT(P > 0); /* for the analyzer */
    HY3_TRY(hy3_zero_group_size(Z, ranks, per_node, &Z));
    HY3_TRY(hy3_sequence_group_check((int)config->sequence_parallel_size, ranks, per_node));
    R = hy3_replica_group_size(Z, ranks / P);
    layout->world = planned_group(ranks, 1);
    layout->node = planned_group(per_node, 1);
    layout->zero = planned_group(Z, 1);
    layout->peers = planned_group(ranks / Z, Z);
    layout->experts = planned_group(P, 1);
    layout->replicas = planned_group(R, P);
    layout->replica_peers = planned_group(ranks / P / R, P * R);
    layout->sequence = planned_group((int)config->sequence_parallel_size, 1);
    if (!hy3_layout_is_over_nodes(P, options->ranks_per_node))
        return HY3_OK;
    layout->near = planned_group(options->ranks_per_node, 1);
    layout->across = planned_group(P / options->ranks_per_node, options->ranks_per_node);
    return HY3_OK;
}

static void add_lap(bool profile, struct hy3_plan *plan, struct hy3_timing *timing, double times)
{
    struct hy3_dry_counts counts = hy3_dry_counts();
    struct hy3_timing lap = hy3_timeline_lap();
    double kinds[HY3_PROFILE_KINDS] = {0};

    if (profile) {
        hy3_profile_seconds(kinds);
        hy3_profile_reset();
    }
    for (int i = 0; i < HY3_PROFILE_KINDS; i++)
        plan->kinds[i] += times * kinds[i];
    hy3_timing_add(timing, &lap, times);
    plan->reduced += times * counts.reduced;
    plan->gathered_sent += times * counts.gathered;
    plan->scattered += times * counts.scattered;
    plan->exchanged += times * counts.exchanged;
    plan->copied += times * counts.copied;
    hy3_dry_forget_traffic();
}

/* Two steps: the second one gathers what the first has updated. All micro-batches but the last send
 * the same. */
static hy3_status rehearse(struct hy3_rehearsal *r, const struct hy3_plan_options *options,
                           struct hy3_plan *plan)
{
    int64_t micros = r->config->gradient_accumulation_steps;
    struct hy3_pass_result result;
    double norm;

    for (int step = 0; step < 2; step++) {
        struct hy3_plan *into = step == 1 ? plan : &(struct hy3_plan){0};

        hy3_dry_forget_traffic();
        hy3_timeline_lap();
        if (options->profile)
            hy3_profile_reset();
        hy3_timeline_trace(step == 1 ? options->trace : NULL);
        HY3_TRY(hy3_store_zero_grads(r->model.store, hy3_pass_stream(r->pass)));
        if (micros > 1) {
            HY3_TRY(hy3_pass_train(r->pass, &r->batch, false, &result));
            add_lap(options->profile, into, &into->micros, 1);
        }
        if (micros > 2) { /* nothing stale is gathered any more */
            HY3_TRY(hy3_pass_train(r->pass, &r->batch, false, &result));
            add_lap(options->profile, into, &into->micros, (double)(micros - 2));
        }
        HY3_TRY(hy3_pass_train(r->pass, &r->batch, true, &result));
        add_lap(options->profile, into, &into->micros, 1);
        HY3_TRY(hy3_sharded_optimizer_step(&r->optimizer, hy3_pass_stream(r->pass), 1, 1, 1, 1e-5,
                                           &norm));
        add_lap(options->profile, into, &into->update, 1);
    }
    hy3_timeline_trace(NULL);
    return HY3_OK;
}

/* Of the state of a tensor, with save_async: masters in fp32, moments as they are. */
static double copied_bytes(const struct hy3_rehearsal *r, const struct hy3_param *p)
{
    enum hy3_moment_format chosen = hy3_module_options_optimizer(r->config).moments;
    struct hy3_span share;

    if (!p->trainable)
        return 0;
    share = hy3_store_share(r->model.store, p);
    return (double)((size_t)share.count * sizeof(float) +
                    2 * hy3_moment_copy_bytes(hy3_moment_format(chosen, p->count), share));
}

static void measure_disk(const struct hy3_rehearsal *r, struct hy3_plan *plan)
{
    const struct hy3_params *params = r->model.params;

    plan->parameters = (double)params->total;
    plan->trained = (double)hy3_params_trained(params);
    plan->checkpoint = hy3_state_bytes(params);
    plan->model = hy3_save_bytes(params, r->config->bf16 ? HY3_BF16 : HY3_FP32);
    for (int i = 0; r->config->save_async && i < params->count; i++)
        plan->saving += copied_bytes(r, &params->params[i]);
}

/* Device memory that a GPU's kernels allocate, in slots that grow (cuda/cuda.h): 4.25 workspaces of
 * cuBLAS, partial sums of columns and ranges, and a number per query head and token. A test on the
 * emulated GPU checks that it is enough. */
static double kernel_bytes(const struct hy3_config *config, const struct hy3_shape *shape)
{
    const double fixed = 224 << 20;
    double tokens = (double)hy3_zigzag_most(config->per_device_train_batch_size *
                                                hy3_module_options_item_tokens(config),
                                            (int)config->sequence_parallel_size);

    return config->device == HY3_DEVICE_cpu ? 0 : fixed + 8 * tokens * (double)shape->heads;
}

hy3_status hy3_plan_shape(const struct hy3_config *config, const char *file,
                          struct hy3_shape *shape)
{
    char path[HY3_PATH_MAX];

    if (file)
        return hy3_shape_open(file, shape);
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", config->model_name_or_path));
    if (!hy3_path_exists(path))
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' does not exist; for a model that is elsewhere give its config.json with "
                 "--shape (etc/hy3_295b.json is the published one)",
                 path);
    return hy3_shape_open(path, shape);
}

/* Device memory of NCCL, from the defaults of its version 2.28: a ring of 16 channels for each of
 * the groups that sum and gather, connected to two neighbours by buffers of its three protocols;
 * two channels to and from each rank for the group that exchanges rows. Not measured; a run says at
 * its start what NCCL takes. */
static double nccl_bytes(const struct hy3_config *config, const struct hy3_layout *layout)
{
    const struct hy3_group *const rings[] = {&layout->zero, &layout->peers, &layout->replicas,
                                             &layout->replica_peers, &layout->sequence};
    const double mib = 1 << 20, protocols = 9.2 * mib, simple = 4 * mib;
    double bytes = 0;

    if (config->device == HY3_DEVICE_cpu)
        return 0;
    for (size_t i = 0; i < sizeof rings / sizeof(void *); i++)
        if (rings[i]->size > 1)
            bytes += 16 * 2 * protocols;
    bytes += 2 * 2 * simple * (layout->experts.size - 1);
    if (config->hierarchical_exchange && layout->across.size > 1)
        bytes += 2 * 2 * simple * (layout->near.size + layout->across.size - 2);
    return bytes;
}

/* The plan with expert groups of P ranks, as configured. */
static hy3_status make_one(const struct hy3_config *config, const struct hy3_shape *shape,
                           const struct hy3_plan_options *options, int P, struct hy3_plan *plan)
{
    hy3_status status = HY3_OK;
    struct hy3_rehearsal r = {.config = config};
    struct hy3_layout layout = {0};
    const struct hy3_backend *backend;
    struct hy3_timeline_options timeline = {.rates = options->rates,
                                            .ranks_per_node = options->ranks_per_node,
                                            .imbalance = options->imbalance};
    struct hy3_store_memory memory;
    struct hy3_dry_counts counts;

    *plan = (struct hy3_plan){0};
    HY3_TRY_DONE(lay_out(config, P, shape->experts, options, &layout));
    plan->group = layout.experts.size;
    plan->zero_group = layout.zero.size;
    if (plan->group == 1) /* it has the rows of all experts */
        timeline.imbalance = 1;
    backend = hy3_dry_backend(&timeline);
    if (options->profile)
        backend = hy3_profile_begin(backend, hy3_timeline_now);
    HY3_TRY_DONE(hy3_rehearsal_open(config, shape, &layout, backend, &r));
    HY3_TRY_DONE(rehearse(&r, options, plan));
    measure_disk(&r, plan);
    memory = hy3_store_memory(r.model.store);
    counts = hy3_dry_counts();
    plan->weights = (double)memory.weights;
    plan->grads = (double)memory.grads;
    plan->gathered = (double)memory.gathered;
    plan->optimizer = (double)hy3_sharded_optimizer_bytes(&r.optimizer);
    plan->workspace = (double)hy3_pass_bytes(r.pass);
    plan->mpi = config->device == HY3_DEVICE_cpu ? counts.largest_sum : 0;
    plan->kernels = kernel_bytes(config, shape);
    plan->nccl = options->nccl_is_open ? 0 : nccl_bytes(config, &layout);
    plan->device = (double)counts.device_peak + plan->kernels + plan->nccl;
    plan->host = (double)counts.host_peak + plan->saving + plan->mpi;
done:
    hy3_rehearsal_close(&r);
    if (options->profile && r.model.backend)
        hy3_profile_end();
    return status;
}

static bool is_cpu(const struct hy3_config *config)
{
    return config->device == HY3_DEVICE_cpu;
}

static bool fits_device(const struct hy3_config *config, const struct hy3_plan_options *options,
                        const struct hy3_plan *plan)
{
    return is_cpu(config) || options->device_memory <= 0 || plan->device <= options->device_memory;
}

double hy3_plan_fit_node(const struct hy3_config *config, const struct hy3_plan_options *options,
                         const struct hy3_plan *plan)
{
    int ranks = options->ranks_per_node < options->ranks ? options->ranks_per_node : options->ranks;

    return ranks * (plan->host + (is_cpu(config) ? plan->device : 0));
}

bool hy3_plan_fit(const struct hy3_config *config, const struct hy3_plan_options *options,
                  const struct hy3_plan *plan)
{
    double host = options->host_memory;

    return fits_device(config, options, plan) &&
           (host <= 0 || hy3_plan_fit_node(config, options, plan) <= host);
}

static hy3_status make_with_ratio(const struct hy3_config *config, const struct hy3_shape *shape,
                                  const struct hy3_plan_options *options, int P, double ratio,
                                  struct hy3_plan *plan)
{
    struct hy3_config c = *config; /* shares its texts, is not freed */

    hy3_offload_settle(ratio, &c);
    HY3_TRY(make_one(&c, shape, options, P, plan));
    plan->offload_ratio = ratio;
    return HY3_OK;
}

enum { RATIOS = 1024 }; /* that `auto` chooses from */

/* Device memory by what is in host memory. */
struct trial {
    int ratio; /* of RATIOS */
    double device;
};

/* The ratio to try next: none, half, all, then where a line reaches the limit, since device memory
 * falls almost along one within each half. */
static int next_ratio(const struct trial *least, const struct trial *most, int last, double limit)
{
    double share;
    int ratio;

    if (least->ratio < 0)
        return 0;
    if (most->ratio > last)
        return least->ratio < RATIOS / 2 ? RATIOS / 2 : last;
    share = (least->device - limit) / (least->device - most->device);
    ratio = least->ratio + (int)ceil(share * (most->ratio - least->ratio));
    return (int)fmax(least->ratio + 1, fmin(ratio, most->ratio - 1));
}

/* The least ratio of `auto` that fits, or if nothing does all. */
static hy3_status find_ratio(const struct hy3_config *config, const struct hy3_shape *shape,
                             const struct hy3_plan_options *options, int P, int *ratio)
{
    const int last = config->zero_stage == 3 ? RATIOS : RATIOS / 2; /* above half: weights */
    struct hy3_plan_options o = *options;
    struct trial least = {.ratio = -1}, most = {.ratio = last + 1};

    o.trace = NULL;
    o.rates = NULL;
    o.profile = false;
    while (most.ratio - least.ratio > 1) {
        struct trial now = {.ratio = next_ratio(&least, &most, last, o.device_memory)};
        struct hy3_plan plan;

        HY3_TRY(make_with_ratio(config, shape, &o, P, (double)now.ratio / RATIOS, &plan));
        now.device = plan.device;
        *(fits_device(config, options, &plan) ? &most : &least) = now;
    }
    *ratio = most.ratio > last ? last : most.ratio;
    return HY3_OK;
}

/* The plan with expert groups of P ranks, and what offload = auto becomes with them. */
static hy3_status make(const struct hy3_config *config, const struct hy3_shape *shape,
                       const struct hy3_plan_options *options, int P, struct hy3_plan *plan)
{
    int ratio;

    if (config->offload != HY3_OFFLOAD_auto)
        return make_one(config, shape, options, P, plan);
    HY3_TRY(find_ratio(config, shape, options, P, &ratio));
    return make_with_ratio(config, shape, options, P, (double)ratio / RATIOS, plan);
}

/* Expert groups fit before they do not, then the faster ones, or where none fits those that need
 * less. */
static bool is_better(const struct hy3_plan *plan, bool fits, const struct hy3_plan *than,
                      bool that_fits)
{
    const double same = 1.01; /* two steps that differ by less take the same time */

    if (fits != that_fits)
        return fits;
    if (!fits)
        return plan->device < than->device;
    return hy3_plan_seconds(plan) * same < hy3_plan_seconds(than);
}

/* The plan with the size of expert groups that makes a step shortest; P, that without rates, stays
 * where it is as good. */
static hy3_status make_best(const struct hy3_config *config, const struct hy3_shape *shape,
                            const struct hy3_plan_options *options, int P, struct hy3_plan *best)
{
    hy3_status status = make(config, shape, options, P, best);
    bool best_fits = status == HY3_OK && hy3_plan_fit(config, options, best);

    if (status != HY3_OK && status != HY3_ENOMEM) /* the latter: too large to be planned */
        return status;
    for (int size = 1; size <= options->ranks; size++) {
        struct hy3_plan plan;
        hy3_status one;
        bool fits;

        if (size == P || !hy3_expert_group_divides(size, options->ranks, shape->experts))
            continue;
        if ((one = make(config, shape, options, size, &plan)) == HY3_ENOMEM)
            continue;
        HY3_TRY(one);
        fits = hy3_plan_fit(config, options, &plan);
        if (status != HY3_OK || is_better(&plan, fits, best, best_fits)) {
            *best = plan;
            best_fits = fits;
            status = HY3_OK;
        }
    }
    return status;
}

hy3_status hy3_plan_make(const struct hy3_config *config, const struct hy3_shape *shape,
                         const struct hy3_plan_options *options, struct hy3_plan *plan)
{
    struct hy3_plan_options o = *options;
    int P = group_size(config, shape->experts, options);

    if (config->expert_parallel_size > 0 || !options->rates)
        return make(config, shape, options, P, plan);
    o.trace = NULL;
    HY3_TRY(make_best(config, shape, &o, P, plan));
    return options->trace ? make(config, shape, options, plan->group, plan) : HY3_OK;
}
