/* SPDX-License-Identifier: Apache-2.0 */
/* machine.c - the same steps on the CPU and on clocks, until both take as long. */
#include "app/machine.h"

#include "app/dummy_weights.h"
#include "app/module_options.h"
#include "app/plan.h"
#include "app/rates.h"
#include "app/rehearsal.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/random.h"
#include "comm/agree.h"
#include "comm/launch.h"

enum { REPEATS = 5, TURNS = 30, CALLS = 2000, VOCABULARY = 1 << 15 };

static const double flops_per_thread = 1e11, expert_elements = 1 << 28, repeat_s = 10;

static double step_flops(const struct hy3_config *c, const struct hy3_shape *s)
{
    double row = (double)hy3_module_options_item_tokens(c), longest = (double)c->max_seq_length;
    double attention = longest / (double)hy3_shape_attention_length(s);

    return 8 * (double)hy3_shape_token_cost(s) * row * (double)c->per_device_train_batch_size *
           (1 + attention);
}

static double expert_size(const struct hy3_shape *s)
{
    return 3.0 * (double)(s->experts * s->hidden * s->expert_intermediate) *
           (double)(s->layers - s->dense_layers);
}

/* Fewer layers, then fewer tokens, until a step takes seconds; fewer experts and words where they
 * would not fit in memory. */
static void reduce(struct hy3_config *c, struct hy3_shape *s)
{
    double most = flops_per_thread * hy3_threads();

    c->expert_parallel_size = c->sequence_parallel_size = c->gradient_accumulation_steps = 1;
    c->offload = HY3_OFFLOAD_none;
    s->vocab = s->vocab < VOCABULARY ? s->vocab : VOCABULARY;
    while (step_flops(c, s) > most && s->layers > s->dense_layers + 1)
        s->layers--;
    while (step_flops(c, s) > most && s->dense_layers > 1) {
        s->dense_layers--;
        s->layers--;
    }
    while (step_flops(c, s) > most && c->per_device_train_batch_size > 1)
        c->per_device_train_batch_size--;
    while (step_flops(c, s) > most && c->max_seq_length > 64) {
        c->max_seq_length /= 2;
        c->packing_length /= 2;
    }
    while (expert_size(s) > expert_elements && s->experts / 2 >= s->top_k)
        s->experts /= 2;
}

/* Tokens at random, each word as often. */
static void draw_tokens(struct hy3_rehearsal *r)
{
    struct hy3_batch *b = &r->batch;
    int64_t vocab = r->model.shape.vocab;

    for (int64_t t = 0; t < b->T; t++)
        b->ids[t] = b->targets[t] = (int32_t)hy3_random_permute(
            0, HY3_RANDOM_DUMMY, (uint64_t)(t / vocab), (uint64_t)vocab, (uint64_t)(t % vocab));
}

static hy3_status step(struct hy3_rehearsal *r, int64_t number)
{
    struct hy3_stream *stream = hy3_pass_stream(r->pass);
    struct hy3_pass_result result;
    double norm;

    HY3_TRY(hy3_store_zero_grads(r->model.store, stream));
    HY3_TRY(hy3_pass_train(r->pass, &r->batch, true, &result));
    return hy3_sharded_optimizer_step(&r->optimizer, stream, number, (double)r->batch.T, 1, 1e-5,
                                      &norm);
}

/* Collective. Mean seconds of a step by kind, over repetitions and ranks; the first step is not
 * counted. */
static hy3_status time_steps(MPI_Comm comm, const struct hy3_config *config,
                             const struct hy3_shape *shape, const struct hy3_backend *backend,
                             double seconds[HY3_PROFILE_KINDS])
{
    hy3_status status = HY3_OK;
    const struct hy3_group alone = {MPI_COMM_NULL, 0, 1, 1};
    const struct hy3_layout layout = {alone, alone, alone, alone, alone,
                                      alone, alone, alone, alone, alone};
    struct hy3_rehearsal r = {.config = config};
    double kinds[HY3_PROFILE_KINDS], begin, spent = 0;
    int n;

    memset(seconds, 0, sizeof kinds);
    status =
        hy3_rehearsal_open(config, shape, &layout, hy3_profile_begin(backend, hy3_seconds), &r);
    if (status == HY3_OK) { /* so that tokens go to all experts */
        draw_tokens(&r);
        status = hy3_dummy_weights(backend, r.model.store, 1);
    }
    if (status == HY3_OK)
        status = step(&r, 1);
    HY3_AGREE_DONE(comm, status, "measuring the machine");
    begin = hy3_seconds();
    for (n = 0; n < REPEATS && spent < repeat_s; n++) {
        hy3_profile_reset();
        HY3_AGREE_DONE(comm, step(&r, n + 2), "measuring the machine");
        hy3_profile_seconds(kinds);
        for (int i = 0; i < HY3_PROFILE_KINDS; i++)
            seconds[i] += kinds[i];
        spent = hy3_seconds() - begin;
        hy3_allreduce_real(comm, &spent, 1, MPI_MAX, "measuring the machine");
    }
    hy3_allreduce_real(comm, seconds, HY3_PROFILE_KINDS, MPI_SUM, "measuring the machine");
    for (int i = 0; i < HY3_PROFILE_KINDS; i++)
        seconds[i] /= n * hy3_size(comm);
done:
    hy3_rehearsal_close(&r);
    hy3_profile_end();
    return status;
}

/* What stands for each kind of operation. */
static void rates_of_kinds(struct hy3_rates *r, bool is_half, double *out[HY3_PROFILE_KINDS])
{
    memset(out, 0, HY3_PROFILE_KINDS * sizeof *out);
    out[HY3_PROFILE_PRODUCTS] = is_half ? &r->product_bf16 : &r->product_fp32;
    out[HY3_PROFILE_GROUPED] = is_half ? &r->grouped_bf16 : &r->grouped_fp32;
    out[HY3_PROFILE_GROUPED_WEIGHTS] =
        is_half ? &r->grouped_weights_bf16 : &r->grouped_weights_fp32;
    out[HY3_PROFILE_ATTENTION_FORWARD] = &r->attention_forward;
    out[HY3_PROFILE_ATTENTION_BACKWARD] = &r->attention_backward;
    out[HY3_PROFILE_ELEMENTWISE] = &r->memory;
    out[HY3_PROFILE_ADAMW] = &r->host_memory;
}

/* Rates at which the plan of a step takes these seconds, kind by kind: each is corrected by what it
 * is off by. */
static hy3_status fit(const struct hy3_config *config, const struct hy3_shape *shape,
                      const double seconds[HY3_PROFILE_KINDS], struct hy3_rates *rates)
{
    const struct hy3_plan_options options = {
        .ranks = 1, .ranks_per_node = 1, .rates = rates, .imbalance = 1, .profile = true};
    double *rate[HY3_PROFILE_KINDS];

    rates_of_kinds(rates, config->bf16, rate);
    for (int turn = 0; turn < TURNS; turn++) {
        struct hy3_plan plan;

        HY3_TRY(hy3_plan_make(config, shape, &options, &plan));
        for (int i = 0; i < HY3_PROFILE_KINDS; i++)
            if (rate[i] && seconds[i] > 0 && plan.kinds[i] > 0 && *rate[i] < 1e18)
                *rate[i] *= plan.kinds[i] / seconds[i];
    }
    for (int i = HY3_PROFILE_GROUPED; i <= HY3_PROFILE_GROUPED_WEIGHTS; i++)
        if (seconds[i] <= 0) /* nothing of this kind in this run */
            *rate[i] = *rate[i - 1];
    rates->attention_forward_long = rates->attention_forward;
    rates->attention_backward_long = rates->attention_backward;
    return HY3_OK;
}

/* Seconds of a kernel that has nothing to do, and bytes that are copied in a second. */
static hy3_status measure_calls(const struct hy3_backend *backend, struct hy3_rates *rates)
{
    hy3_status status = HY3_OK;
    const size_t bytes = 64 << 20;
    float x = 1, y;
    const struct hy3_cast one = {
        .n = 1, .x_dtype = HY3_FP32, .y_dtype = HY3_FP32, .x = &x, .y = &y};
    char *memory = NULL;
    double begin;

    HY3_TRY_DONE(hy3_alloc(&memory, 2 * bytes, 1));
    begin = hy3_seconds();
    for (int i = 0; i < CALLS; i++)
        HY3_TRY_DONE(backend->kernels.cast(NULL, &one));
    rates->kernel = (hy3_seconds() - begin) / CALLS;
    HY3_TRY_DONE(backend->device.copy(NULL, memory, memory + bytes, bytes)); /* maps it */
    begin = hy3_seconds();
    HY3_TRY_DONE(backend->device.copy(NULL, memory, memory + bytes, bytes));
    rates->host_copy = (double)bytes / (hy3_seconds() - begin);
done:
    hy3_free(memory);
    return status;
}

hy3_status hy3_machine_measure(MPI_Comm comm, const struct hy3_config *config,
                               const struct hy3_shape *shape, struct hy3_rates *rates)
{
    struct hy3_config c = *config; /* shares its texts, is not freed */
    struct hy3_shape s = *shape;
    const struct hy3_backend *backend;
    const double none = 1e-9; /* seconds */

    *rates = (struct hy3_rates){.launch = none, .wait = none, .memory = 1e10, .host_memory = 1e10};
    rates->product_bf16 = rates->product_fp32 = rates->grouped_bf16 = rates->grouped_fp32 = 1e10;
    rates->grouped_weights_bf16 = rates->grouped_weights_fp32 = 1e10;
    rates->attention_forward = rates->attention_backward = 1e10;
    rates->attention_forward_long = rates->attention_backward_long = 1e10;
    HY3_TRY(hy3_backend_open(comm, "cpu", &backend));
    HY3_AGREE(comm, measure_calls(backend, rates), "measuring the machine");
    HY3_TRY(hy3_machine_links(comm, backend, rates));
    reduce(&c, &s);
    for (int last = 0; last < 2;
         last++) { /* the run's own dtype is the last to set what has none */
        double seconds[HY3_PROFILE_KINDS];

        c.bf16 = last ? config->bf16 : !config->bf16;
        HY3_TRY(time_steps(comm, &c, &s, backend, seconds));
        HY3_AGREE(comm, fit(&c, &s, seconds, rates), "measuring the machine");
    }
    rates->peak =
        rates->product_bf16 > rates->product_fp32 ? rates->product_bf16 : rates->product_fp32;
    return HY3_OK;
}

hy3_status hy3_machine_probe(MPI_Comm comm, const struct hy3_config *config,
                             const struct hy3_shape *shape, const char *file)
{
    hy3_status status = HY3_OK;
    struct hy3_rates rates;
    char about[160];

    HY3_TRY(hy3_machine_measure(comm, config, shape, &rates));
    snprintf(about, sizeof about, "%d rank%s x %d thread%s, hidden_size %lld", hy3_size(comm),
             hy3_s(hy3_size(comm)), hy3_threads(), hy3_s(hy3_threads()), (long long)shape->hidden);
    if (hy3_rank(comm) == 0)
        status = hy3_rates_write(file, about, &rates);
    HY3_AGREE(comm, status, "writing the rates");
    hy3_log(HY3_LOG_INFO, "'%s' has the rates of this machine at %s", file, about);
    return HY3_OK;
}
