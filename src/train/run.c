/* SPDX-License-Identifier: Apache-2.0 */
/* run.c - opens and closes a run: every check before long work, then data, weights, optimizer,
 * workspace, checkpoint. Nothing here changes output_dir but its mark and caches: train.c does,
 * when all of this has succeeded. */
#include "train/run.h"

#include "app/expert_group.h"
#include "app/identity.h"
#include "app/links.h"
#include "app/module_options.h"
#include "app/offload.h"
#include "backend/profile.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "ckpt/hf/companions.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/environment.h"
#include "comm/heartbeat.h"
#include "comm/launch.h"
#include "comm/wait.h"
#include "text/tokenizer.h"
#include "train/limit.h"
#include "train/run_disk.h"
#include "train/run_parts.h"
#include "train/run_state.h"

/* Rank 0. The ids of the tokenizer must be in the vocabulary of the model. */
static hy3_status check_tokenizer(const struct hy3_run *run)
{
    hy3_status status = HY3_OK;
    struct hy3_tokenizer *tokenizer = NULL;
    const char *directory = hy3_module_options_tokenizer(run->config);

    if (run->config->use_dummy_data)
        return HY3_OK;
    HY3_TRY_DONE(hy3_hf_check_companions(directory, false)); /* the result has them */
    HY3_TRY_DONE(hy3_tokenizer_open(directory, &tokenizer));
    if (hy3_tokenizer_size(tokenizer) > run->model.shape.vocab)
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "the tokenizer in '%s' has %lld ids, the model's vocabulary only %lld; they "
                      "do not match",
                      directory, (long long)hy3_tokenizer_size(tokenizer),
                      (long long)run->model.shape.vocab);
done:
    hy3_tokenizer_close(tokenizer);
    return status;
}

static hy3_status check(struct hy3_run *run)
{
    hy3_status status = HY3_OK;

    HY3_TRY_DONE(hy3_module_options_check(run->config, &run->model.shape));
    if (hy3_rank(run->comm) == 0) {
        HY3_TRY_DONE(check_tokenizer(run));
        HY3_TRY_DONE(hy3_run_time_open(run->config, &run->model, &run->time));
    }
done:
    return hy3_agree(run->comm, status, "checking the configuration");
}

static hy3_status open_optimizer(struct hy3_run *run)
{
    const struct hy3_loaded_model *model = &run->model;
    struct hy3_optimizer_options options = hy3_module_options_optimizer(run->config);
    struct hy3_offloading offload =
        hy3_module_options_offload(&run->settled, HY3_OFFLOAD_optimizer);

    return hy3_sharded_optimizer_open(model->backend, model->store, &options, &offload,
                                      &run->optimizer);
}

static hy3_status open_pass(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_pass_options options = hy3_module_options_pass(c);

    options.max_tokens = run->data.longest * c->per_device_train_batch_size;
    options.max_samples = run->data.most_samples;
    HY3_AGREE(run->comm, hy3_pass_open(run->model.backend, run->model.store, &options, &run->pass),
              "allocating the workspace");
    return hy3_agree(run->comm, hy3_environment_check(hy3_threads()), "allocating the workspace");
}

/* "every 20 steps and at the end" */
static const char *interval_text(int64_t every, int64_t steps, char out[64])
{
    if (every < steps)
        snprintf(out, 64, "every %lld step%s and at the end", (long long)every, hy3_s(every));
    else
        snprintf(out, 64, "at the end");
    return out;
}

static void announce_intervals(const struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    char saves[64], evaluates[64];

    if (c->save_strategy == HY3_SAVE_STRATEGY_best)
        snprintf(saves, sizeof saves, "after each best evaluation and at the end");
    else
        interval_text(run->saves_every, run->data.steps, saves);
    hy3_log(HY3_LOG_INFO, "checkpoints: %s; evaluation: %s%s", saves,
            run->data.eval.dataset ? interval_text(run->evaluates_every, run->data.steps, evaluates)
                                   : "none",
            c->load_best_model_at_end ? "; the result is the best checkpoint" : "");
    if (run->data.steps < run->data.schedule_steps)
        hy3_log(HY3_LOG_INFO,
                "max_epochs ends the run after step %lld of the %lld that its learning rates are "
                "planned for",
                (long long)run->data.steps, (long long)run->data.schedule_steps);
}

static void announce(const struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    const struct hy3_shape *s = &run->model.shape;
    const struct hy3_batches *b = &run->data.train;
    int world = run->model.layout.world.size;
    double total = (double)run->model.params->total;
    double trained = (double)hy3_params_trained(run->model.params);

    hy3_log(HY3_LOG_INFO, "model: %lld layer%s, %.4g M parameters, %lld expert%s (top %lld), %s",
            (long long)s->layers, hy3_s(s->layers), 1e-6 * total, (long long)s->experts,
            hy3_s(s->experts), (long long)s->top_k,
            c->bf16 ? "bf16 with fp32 master weights" : "fp32");
    hy3_log(HY3_LOG_INFO,
            "run: %d rank%s x %d thread%s on %s; global batch %lld %s%s = %lld x %lld x %d; "
            "%lld step%s, %lld per epoch; workspace %.1f MB per rank",
            world, hy3_s(world), hy3_threads(), hy3_s(hy3_threads()), run->model.backend->name,
            (long long)hy3_batches_global(b), b->packing ? "row" : "sample",
            hy3_s(hy3_batches_global(b)), (long long)b->batch, (long long)b->accumulation, b->ranks,
            (long long)run->data.steps, hy3_s(run->data.steps),
            (long long)run->data.steps_per_epoch, 1e-6 * (double)hy3_pass_bytes(run->pass));
    if (b->parts > 1)
        hy3_log(HY3_LOG_INFO, "sequence groups: each %d consecutive ranks share their samples",
                b->parts);
    hy3_run_data_announce(&run->data);
    announce_intervals(run);
    if (c->base_dtype == HY3_BASE_fp8 && hy3_module_options_training(c) != HY3_TRAIN_ADAPTER)
        hy3_log(HY3_LOG_WARN,
                "base_dtype = fp8: the model that this run writes has its frozen "
                "layers in the precision of 8 bits; hy3_export takes them from the "
                "base instead");
    if (trained != total)
        hy3_log(HY3_LOG_INFO,
                "finetuning_type %s: %.4g M trainable parameters, %.3g%% of the model",
                hy3_config_word(c, "finetuning_type"), 1e-6 * trained, 100 * trained / total);
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

bool hy3_run_has_work(const struct hy3_run *run)
{
    return run->dir.decision != HY3_FINISHED && run->dir.decision != HY3_BEHIND;
}

/* Steps between two checkpoints; of save_strategy = best each evaluation may be one. */
static int64_t most_saves(const struct hy3_run *run)
{
    return run->config->save_strategy == HY3_SAVE_STRATEGY_best ? run->evaluates_every
                                                                : run->saves_every;
}

/* When checkpoints and evaluations are; every checkpoint needs one for load_best_model_at_end. */
static hy3_status plan_intervals(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    const struct hy3_run_data *d = &run->data;

    run->saves_every = hy3_config_save_interval(c, d->schedule_steps, d->steps_per_epoch);
    run->evaluates_every = hy3_config_eval_interval(c, d->schedule_steps, d->steps_per_epoch);
    if (c->load_best_model_at_end && run->saves_every != INT64_MAX &&
        run->saves_every % run->evaluates_every != 0)
        HY3_FAIL(HY3_EUSAGE,
                 "load_best_model_at_end needs an evaluation of each checkpoint: save_steps comes "
                 "to %lld steps, which is no multiple of the %lld of eval_steps",
                 (long long)run->saves_every, (long long)run->evaluates_every);
    return HY3_OK;
}

/* Collective. The data, and what the run is to do with what lies in output_dir. */
static hy3_status open_data(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_run_facts facts;

    HY3_TRY(hy3_run_data_open(c, &run->model.layout.world, &run->model.shape, &run->data));
    HY3_AGREE(run->comm, plan_intervals(run), "planning the steps");
    run->schedule = hy3_module_options_schedule(c, run->data.schedule_steps);
    HY3_TRY(hy3_identity_of(&run->model, c->model_name_or_path, &run->identity));
    facts = hy3_run_state_facts(run);
    HY3_TRY(hy3_output_dir_decide(&run->dir, &facts));
    if (run->dir.loads_newest || run->dir.loads_named)
        return HY3_OK; /* the checkpoint is still to be compared with the data */
    return hy3_run_data_publish(&run->model.layout.world, &run->data);
}

/* Collective. All that takes memory and time: weights, optimizer, workspace, the state. */
static hy3_status open_weights(struct hy3_run *run, struct hy3_loaded_model_options *options)
{
    const struct hy3_config *c = run->config;
    int64_t steps = run->data.steps - (run->dir.newest > 0 ? run->dir.newest : 0);
    struct hy3_values masters;

    HY3_TRY(hy3_run_memory_check(c, &run->model, run->data.longest, &run->memory));
    hy3_offload_settle(run->memory.offload_ratio, &run->settled);
    options->store.offload = hy3_module_options_offload(&run->settled, HY3_OFFLOAD_param);
    HY3_AGREE(run->comm, hy3_run_disk_check(c, &run->model, steps, most_saves(run)),
              "planning disk space");
    hy3_heartbeat("loading the weights", 0, -1); /* planning was a step, too */
    HY3_TRY(hy3_loaded_model_allocate(&run->model, options));
    HY3_TRY(open_optimizer(run));
    masters = hy3_sharded_optimizer_values(&run->optimizer);
    HY3_TRY(hy3_loaded_model_read(&run->model, &masters));
    if (hy3_module_options_training(c) == HY3_TRAIN_ADAPTER)
        HY3_TRY(hy3_loaded_model_load_adapter(&run->model, (uint64_t)c->seed, masters));
    HY3_TRY(open_pass(run));
    HY3_TRY(hy3_run_state_restore(run));
    HY3_TRY(hy3_run_data_publish(&run->model.layout.world, &run->data));
    announce(run);
    return HY3_OK;
}

static hy3_status open_run(MPI_Comm comm, const struct hy3_config *config, bool changes_nothing,
                           struct hy3_run **out)
{
    hy3_status status = HY3_OK;
    struct hy3_run *run = NULL;
    struct hy3_loaded_model_options options;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&run, 1, sizeof *run));
    run->config = config;
    run->settled = *config;
    hy3_limit_begin(&run->limit, config->max_hours);
    run->memory.resident = hy3_memory_resident();
    HY3_TRY_DONE(hy3_heartbeat_open(comm));
    hy3_heartbeat("opening the run", 0, -1);
    hy3_wait_deadline((double)config->ddp_timeout);
    HY3_AGREE_DONE(comm, hy3_module_options_model(config, &options), "reading the configuration");
    options.lay_out = hy3_expert_group_choose;
    options.run = config;
    HY3_TRY_DONE(hy3_loaded_model_open(comm, &options, &run->model));
    run->comm = run->model.layout.world.comm;
    if (config->profile) {
        run->model.backend = hy3_profile_begin(run->model.backend, hy3_seconds);
        run->profiles = true;
    }
    HY3_TRY_DONE(check(run));
    HY3_TRY_DONE(hy3_links_test(&run->model, (int)config->zero_stage));
    if (!changes_nothing)
        HY3_TRY_DONE(hy3_output_dir_lock(run->comm, config, &run->lock));
    HY3_TRY_DONE(hy3_output_dir_look(run->comm, config, changes_nothing, &run->dir));
    HY3_AGREE_DONE(run->comm, show_configuration(config), "printing the configuration");
    HY3_TRY_DONE(open_data(run));
    if (hy3_run_has_work(run))
        HY3_TRY_DONE(open_weights(run, &options));
    *out = HY3_TAKE(run);
done:
    hy3_run_close(run);
    return status;
}

hy3_status hy3_run_open(MPI_Comm comm, const struct hy3_config *config, struct hy3_run **out)
{
    return open_run(comm, config, false, out);
}

hy3_status hy3_run_rehearse(MPI_Comm comm, const struct hy3_config *config)
{
    static const char *const words[] = {[HY3_START] = "it would start",
                                        [HY3_SET_ASIDE] =
                                            "it would set the earlier run aside in "
                                            "output_dir/previous and start",
                                        [HY3_CONTINUE] = "it would continue",
                                        [HY3_BRANCH] =
                                            "it would go back to the named checkpoint, "
                                            "set newer ones aside and continue",
                                        [HY3_FINISHED] = "it would do nothing",
                                        [HY3_BEHIND] = "it would do nothing"};
    struct hy3_run *run = NULL;

    HY3_TRY(open_run(comm, config, true, &run));
    hy3_log(HY3_LOG_INFO,
            "dry run: all that is needed is there; %s after step %lld of %lld, on %lld samples; "
            "nothing was changed in '%s'",
            words[run->dir.decision],
            (long long)(hy3_run_has_work(run) ? run->restored.step : run->dir.newest),
            (long long)run->data.steps, (long long)run->data.train.count, config->output_dir);
    hy3_run_close(run);
    return HY3_OK;
}

void hy3_run_close(struct hy3_run *run)
{
    if (!run)
        return;
    hy3_report_close(run->report);
    hy3_pass_close(run->pass);
    hy3_checkpoints_close(run->checkpoints);
    hy3_sharded_optimizer_close(&run->optimizer);
    hy3_run_data_close(&run->data);
    hy3_loaded_model_close(&run->model);
    if (run->profiles)
        hy3_profile_end();
    hy3_heartbeat_close();
    hy3_lock_close(run->lock);
    hy3_free(run);
}
