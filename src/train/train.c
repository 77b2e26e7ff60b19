/* SPDX-License-Identifier: Apache-2.0 */
/* train.c - the training loop and what stands around it. */
#include "train/train.h"

#include "app/loaded_model.h"
#include "app/plan.h"
#include "app/settings.h"
#include "backend/profile.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "ckpt/hf/writer.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/heartbeat.h"
#include "comm/stop.h"
#include "comm/wait.h"
#include "data/batches.h"
#include "data/sources.h"
#include "engine/pass.h"
#include "optim/schedule.h"
#include "optim/sharded_optimizer.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"
#include "train/output_dir.h"
#include "train/report.h"

#include <math.h>

struct hy3_run {
    const struct hy3_config *config;
    MPI_Comm comm; /* of the network's layout */
    struct hy3_loaded_model network;
    struct hy3_dataset *train_data,
        *eval_data;                 /* eval_data may be a part of train_data: then NULL */
    struct hy3_batches train, eval; /* eval.dataset NULL: no evaluation */
    struct hy3_batch *batch, *eval_batch;
    struct hy3_pass *pass;
    struct hy3_sharded_optimizer learner;
    struct hy3_checkpoints *checkpoints;
    double started;                     /* hy3_seconds() */
    size_t resident;                    /* bytes at the start */
    size_t device_free, device_planned; /* bytes of a GPU: at the start; what this run takes */
    struct hy3_schedule schedule;
    struct hy3_report *report;
    int64_t first_step; /* done by an earlier part of the run */
    int64_t steps, steps_per_epoch;
};

static const char *tokenizer_directory(const struct hy3_config *config)
{
    return config->tokenizer_name_or_path ? config->tokenizer_name_or_path
                                          : config->model_name_or_path;
}

/* Rank 0 only: what the tokenizer and the model must agree on. */
static hy3_status check_tokenizer(const struct hy3_run *run)
{
    hy3_status status = HY3_OK;
    struct hy3_tokenizer *tokenizer = NULL;
    const char *directory = tokenizer_directory(run->config);

    if (run->config->use_dummy_data)
        return HY3_OK;
    HY3_TRY_DONE(hy3_tokenizer_open(directory, &tokenizer));
    if (hy3_tokenizer_size(tokenizer) > run->network.shape.vocab)
        HY3_FAIL_DONE(
            HY3_EUSAGE,
            "the tokenizer in '%s' has %lld ids, the model's vocabulary only %lld rows; they "
            "do not belong together",
            directory, (long long)hy3_tokenizer_size(tokenizer),
            (long long)run->network.shape.vocab);
done:
    hy3_tokenizer_close(tokenizer);
    return status;
}

static hy3_status check(const struct hy3_run *run)
{
    hy3_status status = HY3_OK;
    const struct hy3_config *c = run->config;

    if (c->max_seq_length > run->network.shape.max_positions)
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "max_seq_length %lld is above the model's max_position_embeddings %lld; set "
                      "max_seq_length = %lld or less",
                      (long long)c->max_seq_length, (long long)run->network.shape.max_positions,
                      (long long)run->network.shape.max_positions);
    if (hy3_rank(run->comm) == 0)
        HY3_TRY_DONE(check_tokenizer(run));
done:
    return hy3_agree(run->comm, status, "checking the configuration");
}

/* The token file of `files`, or of the named data sets of dataset_dir; made if there is none that
 * fits. */
static hy3_status open_dataset(const struct hy3_run *run, const struct hy3_list *files,
                               const char *name, struct hy3_dataset **out)
{
    hy3_status status = HY3_OK;
    const struct hy3_config *c = run->config;
    char **resolved = NULL, cache[HY3_PATH_MAX];
    int count = 0;
    struct hy3_dataset_options options = {.files = (const char *const *)files->items,
                                          .file_count = files->count,
                                          .tokenizer_directory = tokenizer_directory(c),
                                          .cache_directory = cache,
                                          .name = name,
                                          .max_seq_length = c->max_seq_length,
                                          .max_samples = c->max_samples,
                                          .max_bad_samples = c->max_bad_samples,
                                          .keep_unlabelled = c->disable_shuffling,
                                          .overwrite = c->overwrite_cache};

    if (files->count == 0) {
        HY3_AGREE_DONE(run->comm,
                       hy3_sources_resolve(c->dataset_dir, c->dataset.items, c->dataset.count,
                                           &resolved, &count),
                       "looking for the data");
        options.files = (const char *const *)resolved;
        options.file_count = count;
    }
    HY3_AGREE_DONE(
        run->comm,
        hy3_cache_directory(c->cache_dir, c->output_dir, options.files[0], cache, sizeof cache),
        "looking for the data");
    HY3_TRY_DONE(hy3_dataset_open(run->comm, &options, out, NULL));
done:
    hy3_sources_free_files(resolved, count);
    return status;
}

static int64_t split_count(const struct hy3_config *c, int64_t samples)
{
    double wanted = c->val_size < 1 ? c->val_size * (double)samples : c->val_size;

    return (int64_t)(wanted + 0.5);
}

/* Which samples are for training and which for evaluation: drawn, since files are often sorted; the
 * last ones where the order of the file is asked for. */
static hy3_status plan_batches(struct hy3_run *run)
{
    hy3_status status = HY3_OK;
    const struct hy3_config *c = run->config;
    int64_t samples = hy3_dataset_count(run->train_data), held_out = split_count(c, samples);

    run->train = (struct hy3_batches){.dataset = run->train_data,
                                      .count = samples - held_out,
                                      .split_drawn = held_out > 0 && !c->disable_shuffling,
                                      .batch = c->per_device_train_batch_size,
                                      .accumulation = c->gradient_accumulation_steps,
                                      .rank = run->network.layout.world.rank,
                                      .ranks = run->network.layout.world.size,
                                      .shuffle = !c->disable_shuffling,
                                      .seed = (uint64_t)c->seed};
    run->eval = run->train;
    run->eval.accumulation = 1;
    run->eval.shuffle = false;
    run->eval.dataset = run->eval_data ? run->eval_data : held_out > 0 ? run->train_data : NULL;
    run->eval.first = run->eval_data ? 0 : samples - held_out;
    run->eval.split_drawn = run->train.split_drawn && !run->eval_data;
    run->eval.count = run->eval_data ? hy3_dataset_count(run->eval_data) : held_out;
    if (run->train.count < 1)
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "val_size holds out all %lld samples; nothing is left to train on",
                      (long long)samples);
    HY3_TRY_DONE(hy3_batch_create(&run->train, &run->batch));
    if (run->eval.dataset)
        HY3_TRY_DONE(hy3_batch_create(&run->eval, &run->eval_batch));
done:
    return hy3_agree(run->comm, status, "planning the batches");
}

static void plan_steps(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;

    run->steps_per_epoch = hy3_batches_steps_per_epoch(&run->train);
    run->steps = c->max_steps > 0
                     ? c->max_steps
                     : (int64_t)ceil(c->num_train_epochs * (double)run->steps_per_epoch);
    run->schedule = hy3_options_schedule(c, run->steps);
}

static hy3_status open_learner(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    const struct hy3_loaded_model *n = &run->network;
    struct hy3_optimizer_options options = hy3_options_optimizer(c, hy3_store_dtype(n->store));

    return hy3_sharded_optimizer_open(n->backend, n->store, &options, &run->learner);
}

static hy3_status put_master(void *context, const struct hy3_param *param, int64_t first,
                             int64_t count, const float *data)
{
    struct hy3_run *run = context;

    return hy3_sharded_optimizer_put(&run->learner, HY3_MASTER, param,
                                     (struct hy3_span){first, count}, data);
}

static hy3_status get_master(void *context, const struct hy3_param *param, int64_t first,
                             int64_t count, float *data)
{
    struct hy3_run *run = context;

    return hy3_sharded_optimizer_get(&run->learner, HY3_MASTER, param,
                                     (struct hy3_span){first, count}, data);
}

static void share(void *context, const struct hy3_param *param, int64_t *first, int64_t *count)
{
    struct hy3_run *run = context;

    struct hy3_span span = hy3_store_share(run->network.store, param);

    *first = span.first;
    *count = span.count;
}

static hy3_status open_pass(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    int64_t longest = hy3_dataset_longest(run->train_data);
    struct hy3_pass_options options = hy3_options_pass(c);

    if (run->eval_data && hy3_dataset_longest(run->eval_data) > longest)
        longest = hy3_dataset_longest(run->eval_data);
    options.max_tokens = longest * c->per_device_train_batch_size;
    return hy3_agree(run->comm,
                     hy3_pass_open(run->network.backend, run->network.store, &options, &run->pass),
                     "allocating the workspace");
}

/* Whether the device holds what this run will take, by hy3_plan's own count, before anything is
 * loaded. */
static hy3_status check_device(struct hy3_run *run)
{
    const struct hy3_device *device = &run->network.backend->device;
    const struct hy3_layout *layout = &run->network.layout;
    struct hy3_plan_options options = {.ranks = layout->world.size,
                                       .ranks_per_node = layout->node.size};
    struct hy3_config config = *run->config;
    struct hy3_plan plan;

    if (!device->available)
        return HY3_OK;
    config.expert_parallel_size = layout->experts.size;
    config.max_seq_length = hy3_dataset_longest(run->train_data);
    if (run->eval_data && hy3_dataset_longest(run->eval_data) > config.max_seq_length)
        config.max_seq_length = hy3_dataset_longest(run->eval_data);
    HY3_TRY(hy3_plan_make(&config, &run->network.shape, &options, &plan));
    HY3_TRY(device->available(&run->device_free));
    run->device_planned = (size_t)plan.device;
    if (run->device_planned > run->device_free)
        HY3_FAIL(HY3_ENOMEM,
                 "this run needs %.3f GB of each GPU, of which %.3f GB are free; more ranks, a "
                 "higher zero_stage, offload or a smaller max_seq_length need less (hy3_plan says "
                 "what fits)",
                 1e-9 * plan.device, 1e-9 * (double)run->device_free);
    return HY3_OK;
}

static void announce(const struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    const struct hy3_shape *s = &run->network.shape;
    int64_t batch = c->per_device_train_batch_size * c->gradient_accumulation_steps *
                    run->network.layout.world.size;

    hy3_log(HY3_LOG_INFO, "model: %lld layers, %.4g M parameters, %lld experts (top %lld), %s",
            (long long)s->layers, 1e-6 * (double)run->network.params->total, (long long)s->experts,
            (long long)s->top_k, c->bf16 ? "bf16 with fp32 master weights" : "fp32");
    hy3_log(HY3_LOG_INFO,
            "run: %d ranks x %d threads on %s; global batch %lld samples = %lld x %lld x %d; "
            "%lld steps of %lld an epoch; workspace %.1f MB a rank",
            run->network.layout.world.size, hy3_threads(), run->network.backend->name,
            (long long)batch, (long long)c->per_device_train_batch_size,
            (long long)c->gradient_accumulation_steps, run->network.layout.world.size,
            (long long)run->steps, (long long)run->steps_per_epoch,
            1e-6 * (double)hy3_pass_bytes(run->pass));
    if (hy3_options_training(c) != HY3_TRAIN_FULL)
        hy3_log(HY3_LOG_INFO, "finetuning_type %s: %.4g M parameters learn, %.3g%% of the model",
                c->finetuning_type, 1e-6 * (double)hy3_params_trained(run->network.params),
                100.0 * (double)hy3_params_trained(run->network.params) /
                    (double)run->network.params->total);
}

static hy3_status open_data(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;

    if (c->use_dummy_data) {
        int64_t count = c->max_samples > 0 ? c->max_samples : 1000;

        HY3_AGREE(run->comm,
                  hy3_dataset_dummy(count, c->max_seq_length, run->network.shape.vocab,
                                    (uint64_t)c->seed, &run->train_data),
                  "making dummy data");
        return HY3_OK;
    }
    HY3_TRY(open_dataset(run, &c->train_data_file, "train", &run->train_data));
    if (c->eval_data_file.count > 0)
        HY3_TRY(open_dataset(run, &c->eval_data_file, "eval", &run->eval_data));
    return HY3_OK;
}

/* The lines of the resolved configuration that set something. */
static hy3_status show_configuration(const struct hy3_config *config)
{
    hy3_status status = HY3_OK;
    char *text = NULL, *line, *rest;

    HY3_TRY_DONE(hy3_config_format(config, &text));
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *comment = strstr(line, "; ");

        if (line[0] == '#')
            continue;
        if (comment && comment[1 + strspn(comment + 1, " ")] == '#')
            comment[1] = '\0';
        hy3_log(HY3_LOG_INFO, "  %s", line);
    }
done:
    hy3_free(text);
    return status;
}

/* What a checkpoint says of this run after `step` steps. */
static struct hy3_state_info state_info(const struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_report_state r = {0};

    if (run->report)
        r = hy3_report_state(run->report);
    return (struct hy3_state_info){.step = r.step,
                                   .global_batch = run->train.batch * run->train.accumulation *
                                                   run->train.ranks,
                                   .seed = c->seed,
                                   .total_steps = run->steps,
                                   .tokens = r.tokens,
                                   .data_samples = run->train.count,
                                   .data_fingerprint = hy3_dataset_fingerprint(run->train_data),
                                   .log_loss = r.loss_sum,
                                   .log_steps = r.loss_steps,
                                   .log_tokens = r.tokens_since,
                                   .elapsed = r.elapsed};
}

/* Continues where a checkpoint stands, or begins. */
static hy3_status resume(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_state_info expected = state_info(run), info = {0};
    struct hy3_report_state from = {0};
    bool found;

    HY3_TRY(hy3_checkpoints_open(c, &run->network, &run->learner, tokenizer_directory(c),
                                 &run->checkpoints));
    HY3_TRY(hy3_checkpoints_resume(run->checkpoints, &expected, &info, &found));
    if (found)
        from = (struct hy3_report_state){.step = info.step,
                                         .tokens = info.tokens,
                                         .elapsed = info.elapsed,
                                         .loss_sum = info.log_loss,
                                         .loss_steps = info.log_steps,
                                         .tokens_since = info.log_tokens};
    run->first_step = from.step;
    return hy3_agree(run->comm,
                     hy3_report_open(c->output_dir, run->steps, c->logging_steps,
                                     run->network.layout.world.rank == 0, &from, &run->report),
                     "opening the log");
}

hy3_status hy3_run_open(MPI_Comm comm, const struct hy3_config *config, struct hy3_run **out)
{
    hy3_status status = HY3_OK;
    struct hy3_run *run = NULL;
    struct hy3_loaded_model_options network;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&run, 1, sizeof *run));
    run->config = config;
    run->started = hy3_seconds();
    run->resident = hy3_memory_resident();
    hy3_heartbeat_open(comm);
    hy3_heartbeat("opening the run", 0, -1);
    hy3_wait_deadline((double)config->ddp_timeout);
    HY3_AGREE_DONE(comm, hy3_options_network(config, &network), "reading the configuration");
    HY3_TRY_DONE(hy3_loaded_model_open(comm, &network, &run->network));
    run->comm = run->network.layout.world.comm;
    if (config->profile)
        run->network.backend = hy3_profile_begin(run->network.backend);
    HY3_TRY_DONE(check(run));
    HY3_TRY_DONE(hy3_output_dir_open(run->comm, config));
    HY3_AGREE_DONE(run->comm, show_configuration(config), "printing the configuration");
    HY3_TRY_DONE(open_data(run));
    HY3_TRY_DONE(plan_batches(run));
    plan_steps(run);
    HY3_AGREE_DONE(comm, check_device(run), "counting the device's memory");
    HY3_TRY_DONE(hy3_loaded_model_load(&run->network, &network));
    HY3_TRY_DONE(open_learner(run));
    if (hy3_options_training(config) == HY3_TRAIN_ADAPTER)
        HY3_TRY_DONE(
            hy3_loaded_model_load_adapter(&run->network, (uint64_t)config->seed, put_master, run));
    HY3_TRY_DONE(open_pass(run));
    HY3_TRY_DONE(resume(run));
    announce(run);
    *out = run;
    run = NULL;
done:
    hy3_run_close(run);
    return status;
}

void hy3_run_close(struct hy3_run *run)
{
    if (!run)
        return;
    hy3_report_close(run->report);
    hy3_pass_close(run->pass);
    hy3_checkpoints_close(run->checkpoints);
    hy3_sharded_optimizer_close(&run->learner);
    hy3_batch_free(run->batch);
    hy3_batch_free(run->eval_batch);
    hy3_dataset_close(run->train_data);
    hy3_dataset_close(run->eval_data);
    hy3_loaded_model_close(&run->network);
    hy3_heartbeat_close();
    hy3_free(run);
}

/* Sums over micro-batches and ranks; doubles, since counts stay far below 2^53. */
struct totals {
    double loss, labels, tokens;
};

/* This rank's status of a finished micro-batch: a loss that is not finite is told with its
 * sample. */
static hy3_status check_loss(const struct hy3_run *run, const struct hy3_pass_result *result,
                             int64_t step)
{
    char where[HY3_PATH_MAX], layer[64];

    if (result->bad_sample < 0)
        return HY3_OK;
    hy3_dataset_where(run->train_data, result->bad_sample, where, sizeof where);
    if (result->bad_layer < 0)
        snprintf(layer, sizeof layer, "the embedding");
    else if (result->bad_layer >= run->network.shape.layers)
        snprintf(layer, sizeof layer, "the head");
    else
        snprintf(layer, sizeof layer, "layer %d", result->bad_layer);
    HY3_FAIL(HY3_EDIVERGED,
             "step %lld: the loss is not finite; first in the output of %s, sample %s; "
             "no weight was changed by this step. Lower learning_rate or max_grad_norm, or "
             "look at the sample",
             (long long)step, layer, where);
}

/* Forward and backward of this rank's micro-batches; totals over all ranks. */
static hy3_status accumulate(struct hy3_run *run, int64_t step, struct totals *totals)
{
    hy3_status status = HY3_OK, local = HY3_OK;
    struct hy3_stream *stream = hy3_pass_stream(run->pass);
    int64_t micros = run->config->gradient_accumulation_steps;
    double sums[3] = {0};

    local = hy3_store_zero_grads(run->network.store, stream);
    for (int64_t micro = 0; micro < micros && local == HY3_OK; micro++) {
        struct hy3_pass_result result = {0};

        local = hy3_batches_load(&run->train, step, micro, run->batch);
        if (local == HY3_OK)
            local = hy3_pass_train(run->pass, run->batch, micro == micros - 1, &result);
        if (local != HY3_OK) /* the others are in collective work: they cannot be told */
            hy3_abort(local, "training");
        sums[0] += result.loss_sum;
        sums[1] += (double)result.labels;
        sums[2] += (double)run->batch->T;
        if (status == HY3_OK)
            status = check_loss(run, &result, step + 1);
    }
    HY3_AGREE(run->comm, status, "training");
    hy3_allreduce_real(run->comm, sums, 3, MPI_SUM, "summing the loss");
    *totals = (struct totals){.loss = sums[0], .labels = sums[1], .tokens = sums[2]};
    if (totals->labels == 0)
        HY3_FAIL(HY3_EFORMAT,
                 "step %lld has no token with a label; check the data and "
                 "max_seq_length",
                 (long long)step + 1);
    return status;
}

/* Mean token loss of the evaluation samples, each counted once. */
static hy3_status evaluate(struct hy3_run *run, double *loss)
{
    hy3_status status = HY3_OK;
    double sums[2] = {0};

    for (int64_t step = 0; step < hy3_batches_steps_per_epoch(&run->eval); step++) {
        struct hy3_pass_result result = {0};

        status = hy3_batches_load(&run->eval, step, 0, run->eval_batch);
        if (status == HY3_OK)
            status = hy3_pass_evaluate(run->pass, run->eval_batch, &result);
        if (status != HY3_OK)
            hy3_abort(status, "evaluating");
        sums[0] += result.loss_sum;
        sums[1] += (double)result.labels;
    }
    hy3_allreduce_real(run->comm, sums, 2, MPI_SUM, "summing the evaluation loss");
    if (sums[1] == 0)
        HY3_FAIL(HY3_EFORMAT, "the evaluation data has no token with a label");
    *loss = sums[0] / sums[1];
    return status;
}

static bool evaluates_at(const struct hy3_run *run, int64_t step)
{
    int64_t every = run->config->eval_steps;

    if (!run->eval.dataset)
        return false;
    return step == run->steps || (every > 0 && step % every == 0);
}

static hy3_status save_adapter(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_adapter_writer options = {.output = c->output_dir,
                                         .base_path = c->model_name_or_path,
                                         .tokenizer_directory = tokenizer_directory(c)};

    return hy3_adapter_write(run->comm, &options, run->network.params, get_master, share, run);
}

static hy3_status save_model(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_hf_writer_options options = {.output = c->output_dir,
                                            .base = run->network.base,
                                            .names = hy3_hf_dir_names(run->network.base),
                                            .dtype = hy3_store_dtype(run->network.store),
                                            .tokenizer_directory = tokenizer_directory(c)};

    if (strcmp(c->save_format, "inner") == 0)
        options.names = HY3_INNER;
    if (strcmp(c->save_format, "outer") == 0)
        options.names = HY3_OUTER;
    HY3_AGREE(run->comm,
              hy3_config_bytes(c->max_shard_size, "max_shard_size", &options.max_shard_bytes),
              "saving");
    return hy3_hf_write_store(run->comm, &options, run->network.store);
}

/* Why the run is to stop before its last step. */
enum stop { GO_ON, TIME_IS_UP, SIGNALLED /* + the signal's number */ };

/* Collective. The gravest reason that any rank has; seconds: what the last step took. */
static int64_t reason_to_stop(const struct hy3_run *run, double seconds)
{
    double limit = 3600 * run->config->max_hours;
    double needed = 1.5 * (seconds + hy3_checkpoints_seconds(run->checkpoints));
    int64_t reason = hy3_stop_noted() ? SIGNALLED + hy3_stop_noted() : GO_ON;

    if (reason == GO_ON && limit > 0 && hy3_seconds() - run->started + needed >= limit)
        reason = TIME_IS_UP;
    hy3_allreduce_int(run->comm, &reason, 1, MPI_MAX, "asking who wants to stop");
    return reason;
}

/* The checkpoint of a run that stops early, and its end. */
static hy3_status stop(struct hy3_run *run, int64_t step, int64_t saved, int64_t reason)
{
    hy3_status status = HY3_OK;
    struct hy3_state_info info = state_info(run);
    const char *why = reason == TIME_IS_UP ? "max_hours" : hy3_stop_name((int)(reason - SIGNALLED));

    if (step > saved)
        HY3_TRY(hy3_checkpoints_save(run->checkpoints, &info));
    HY3_TRY(hy3_checkpoints_wait(run->checkpoints));
    status = hy3_fail(HY3_STOPPED, __FILE__, __LINE__,
                      "stopped by %s after step %lld of %lld; the same command continues from "
                      "there",
                      why, (long long)step, (long long)run->steps);
    return status;
}

static hy3_status train_step(struct hy3_run *run, int64_t step)
{
    struct hy3_report_step s = {.step = step + 1};
    struct totals totals;

    hy3_heartbeat("reading samples", step + 1, -1);
    HY3_TRY(accumulate(run, step, &totals));
    hy3_heartbeat("update", step + 1, -1);
    s.learning_rate = hy3_schedule_rate(&run->schedule, step);
    HY3_TRY(hy3_sharded_optimizer_step(&run->learner, hy3_pass_stream(run->pass), step + 1,
                                       totals.labels, run->config->max_grad_norm, s.learning_rate,
                                       &s.grad_norm));
    s.epoch = (double)(step + 1) / (double)run->steps_per_epoch;
    s.loss = totals.loss / totals.labels;
    s.step_tokens = (int64_t)totals.tokens;
    s.has_eval = evaluates_at(run, step + 1);
    if (s.has_eval)
        HY3_TRY(evaluate(run, &s.eval_loss));
    return hy3_agree(run->comm, hy3_report_step(run->report, &s), "writing the log");
}

/* Step by step, with a checkpoint now and then. */
static hy3_status train_steps(struct hy3_run *run)
{
    int64_t saved = run->first_step, reason = reason_to_stop(run, 0);

    for (int64_t step = run->first_step; step < run->steps; step++) {
        double begin = hy3_seconds();

        if (reason != GO_ON)
            return stop(run, step, saved, reason);
        HY3_TRY(train_step(run, step));
        if (step == run->first_step) /* what is done once is not of interest */
            hy3_profile_reset();
        reason = reason_to_stop(run, hy3_seconds() - begin);
        if ((step + 1) % run->config->save_steps == 0) {
            struct hy3_state_info info = state_info(run);

            hy3_heartbeat("checkpoint", step + 1, -1);
            HY3_TRY(hy3_checkpoints_save(run->checkpoints, &info));
            saved = step + 1;
        }
    }
    return hy3_checkpoints_wait(run->checkpoints);
}

/* Collective. What the fullest rank needed, and of a GPU what hy3_plan had counted. */
static hy3_status tell_memory(const struct hy3_run *run)
{
    const struct hy3_device *device = &run->network.backend->device;
    int64_t grown = (int64_t)hy3_memory_peak() - (int64_t)run->resident, taken = 0;
    size_t available = 0;

    if (device->available) {
        HY3_AGREE(run->comm, device->available(&available), "asking for device memory");
        taken = (int64_t)run->device_free - (int64_t)available;
    }
    hy3_allreduce_int(run->comm, &grown, 1, MPI_MAX, "comparing memory");
    hy3_allreduce_int(run->comm, &taken, 1, MPI_MAX, "comparing memory");
    hy3_log(HY3_LOG_INFO, "host memory: a rank grew by up to %.1f MB", 1e-6 * (double)grown);
    if (device->available)
        hy3_log(HY3_LOG_INFO, "device memory: a rank takes up to %.3f GB, counted were %.3f GB",
                1e-9 * (double)taken, 1e-9 * (double)run->device_planned);
    return HY3_OK;
}

hy3_status hy3_run_train(struct hy3_run *run)
{
    HY3_TRY(train_steps(run));
    hy3_profile_log();
    HY3_TRY(tell_memory(run));
    HY3_TRY(hy3_options_training(run->config) == HY3_TRAIN_ADAPTER ? save_adapter(run)
                                                                   : save_model(run));
    if (run->config->plot_loss)
        hy3_report_plot(run->report);
    hy3_log(HY3_LOG_INFO, "done: %lld steps, %.0f tokens/s; the %s is in '%s'",
            (long long)run->steps, hy3_report_rate(run->report),
            hy3_options_training(run->config) == HY3_TRAIN_ADAPTER ? "adapter" : "model",
            run->config->output_dir);
    return HY3_OK;
}
