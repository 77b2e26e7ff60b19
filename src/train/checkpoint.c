/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.c - checkpoints: copy, write, rename, load. */
#include "train/checkpoint.h"

#include "app/identity.h"
#include "app/module_options.h"
#include "app/save.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "comm/abort.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "optim/moment_copy.h"
#include "train/differences.h"
#include "train/previous.h"

#include <pthread.h>

/* A copy of this rank's share of a trained tensor. */
struct copy {
    struct hy3_span span; /* empty: the tensor is frozen */
    float *masters;       /* [span.count] */
    struct hy3_moment_copy moments[2];
};

struct hy3_checkpoints {
    const struct hy3_config *config;
    const struct hy3_loaded_model *model;
    struct hy3_sharded_optimizer *optimizer;
    struct hy3_output_dir *dir;
    char *configuration;   /* the resolved one */
    MPI_Comm comm, saving; /* of the training thread; of the saving one */
    bool async;
    struct copy *copies; /* [params->count], with save_async */
    float *piece;        /* [HY3_MOMENT_COPY_PIECE], where moments are not fp32 */
    pthread_t thread;
    bool is_running; /* the thread */
    bool has_state;  /* of the checkpoint being saved: it can be continued */
    int64_t newest;  /* step of the last one that is complete and can be continued, 0: none */
    struct hy3_state_best best; /* its record of the best checkpoint */
    struct hy3_state_info info;
    hy3_status result; /* of the thread, and its error text */
    char text[HY3_ERROR_MAX];
    double stall, seconds;
};

static hy3_status path_of(const struct hy3_checkpoints *c, int64_t step, const char *end, char *out)
{
    return hy3_path_format(out, HY3_PATH_MAX, "%s/checkpoint-%lld%s", c->config->output_dir,
                           (long long)step, end);
}

static hy3_status copy_tensors(struct hy3_checkpoints *c)
{
    const struct hy3_params *params = c->model->params;
    enum hy3_moment_format chosen = hy3_module_options_optimizer(c->config).moments;

    HY3_TRY(hy3_alloc(&c->copies, (size_t)params->count, sizeof *c->copies));
    if (chosen != HY3_MOMENTS_FP32)
        HY3_TRY(hy3_alloc(&c->piece, HY3_MOMENT_COPY_PIECE, sizeof *c->piece));
    for (int i = 0; i < params->count; i++) {
        struct copy *copy = &c->copies[i];

        if (!params->params[i].trainable)
            continue;
        copy->span = hy3_store_share(c->model->store, &params->params[i]);
        HY3_TRY(hy3_alloc(&copy->masters, (size_t)copy->span.count, sizeof *copy->masters));
        for (int m = 0; m < 2; m++)
            HY3_TRY(hy3_moment_copy_open(hy3_moment_format(chosen, params->params[i].count), m == 0,
                                         copy->span, &copy->moments[m]));
    }
    return HY3_OK;
}

static hy3_status open_local(struct hy3_checkpoints *c)
{
    int provided;

    MPI_Query_thread(&provided);
    HY3_TRY(hy3_config_format(c->config, &c->configuration));
    c->async = c->config->save_async && !c->config->save_only_model;
    if (c->async && provided != MPI_THREAD_MULTIPLE) {
        hy3_log(HY3_LOG_WARN, "save_async has no effect: this MPI has no MPI_THREAD_MULTIPLE");
        c->async = false;
    }
    if (c->async)
        HY3_TRY(copy_tensors(c));
    return HY3_OK;
}

hy3_status hy3_checkpoints_open(const struct hy3_config *config,
                                const struct hy3_loaded_model *model,
                                struct hy3_sharded_optimizer *optimizer, struct hy3_output_dir *dir,
                                struct hy3_checkpoints **out)
{
    hy3_status status = HY3_OK;
    struct hy3_checkpoints *c = NULL;
    MPI_Comm comm = model->layout.world.comm;

    *out = NULL;
    HY3_AGREE_DONE(comm, hy3_alloc(&c, 1, sizeof *c), "preparing checkpoints");
    c->config = config;
    c->model = model;
    c->optimizer = optimizer;
    c->dir = dir;
    c->comm = comm;
    MPI_Comm_dup(comm, &c->saving);
    *out = c;
    HY3_AGREE_DONE(comm, open_local(c), "preparing checkpoints");
done:
    if (status != HY3_OK && c) {
        hy3_checkpoints_close(c);
        *out = NULL;
    }
    return status;
}

void hy3_checkpoints_close(struct hy3_checkpoints *c)
{
    if (!c)
        return;
    if (c->is_running)
        pthread_join(c->thread, NULL);
    for (int i = 0; c->copies && i < c->model->params->count; i++) {
        hy3_free(c->copies[i].masters);
        for (int m = 0; m < 2; m++)
            hy3_moment_copy_close(&c->copies[i].moments[m]);
    }
    hy3_free(c->copies);
    hy3_free(c->piece);
    hy3_free(c->configuration);
    MPI_Comm_free(&c->saving);
    hy3_free(c);
}

static hy3_status get_copy(void *of, enum hy3_field field, const struct hy3_param *param,
                           struct hy3_span span, float *out)
{
    const struct hy3_checkpoints *c = of;
    const struct copy *copy = &c->copies[param - c->model->params->params];

    if (field == HY3_MASTER)
        memcpy(out, copy->masters + span.first - copy->span.first,
               (size_t)span.count * sizeof *out);
    else
        hy3_moment_copy_get(&copy->moments[field == HY3_ADAM_V], span, out);
    return HY3_OK;
}

static struct hy3_span share_copy(void *of, const struct hy3_param *param)
{
    const struct hy3_checkpoints *c = of;

    return c->copies[param - c->model->params->params].span;
}

static hy3_status write_configuration(const struct hy3_checkpoints *c, const char *directory)
{
    char path[HY3_PATH_MAX];

    if (hy3_rank(c->comm) != 0)
        return HY3_OK;
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.cfg", directory));
    return hy3_output_replace(path, c->configuration, strlen(c->configuration));
}

/* What a checkpoint has besides state.h5: configuration, tokenizer, and weights of an adapter or
 * with save_only_model. */
static hy3_status write_beside(struct hy3_checkpoints *c, const char *directory)
{
    hy3_status status = HY3_OK;
    struct hy3_save save;

    HY3_AGREE(c->comm, write_configuration(c, directory), "writing a checkpoint");
    HY3_AGREE(c->comm, hy3_save_options(c->config, c->model, directory, &save), "saving");
    save.keeps_on = true;
    save.names = hy3_hf_dir_names(c->model->base); /* save_format is for the result only */
    if (c->model->params->lora.rank > 0 || c->config->save_only_model)
        return hy3_save_trained(&save, c->optimizer);
    if (hy3_rank(c->comm) == 0)
        status = hy3_save_small_files(&save);
    HY3_AGREE(c->comm, status, "writing a checkpoint");
    return status;
}

/* The checkpoint that stays as the best, 0: none. */
static int64_t best_kept(const struct hy3_checkpoints *c)
{
    bool keeps =
        c->config->load_best_model_at_end || c->config->save_strategy == HY3_SAVE_STRATEGY_best;

    return keeps ? c->info.best.checkpoint : 0;
}

/* Removes the oldest checkpoints, never the best one and the one that was just written: others may
 * have higher steps, where a run went back. */
static hy3_status remove_oldest(const struct hy3_checkpoints *c)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    int64_t *steps = NULL, best = best_kept(c);
    size_t count = 0, most = (size_t)c->config->save_total_limit;
    size_t kept = best > 0 && best != c->info.step ? 2 : 1;

    if (most == 0)
        return HY3_OK;
    HY3_TRY_DONE(hy3_checkpoints_list(c->config->output_dir, &steps, &count));
    for (size_t i = 0; i < count; i++) {
        if (steps[i] == c->info.step || steps[i] == best || kept++ < most)
            continue;
        HY3_TRY_DONE(path_of(c, steps[i], "", path));
        HY3_TRY_DONE(hy3_directory_remove(path));
    }
done:
    hy3_free(steps);
    return status;
}

/* Rank 0. Gives the new checkpoint its name; only then anything older goes. */
static hy3_status publish(const struct hy3_checkpoints *c)
{
    char part[80], name[64];

    snprintf(name, sizeof name, "checkpoint-%lld", (long long)c->info.step);
    snprintf(part, sizeof part, "%s.part", name);
    HY3_TRY(hy3_previous_replace(c->config->output_dir, part, name));
    if (hy3_output_dir_saved(c->dir, c->info.step) != HY3_OK || remove_oldest(c) != HY3_OK)
        hy3_log(HY3_LOG_WARN,
                "checkpoint-%lld is complete, but what it replaces is still there: %s",
                (long long)c->info.step, hy3_error_text());
    return HY3_OK;
}

/* Collective on `saving`, in the thread that saves. */
static hy3_status write_state(struct hy3_checkpoints *c)
{
    hy3_status status = HY3_OK;
    struct hy3_values values = hy3_sharded_optimizer_values(c->optimizer);
    char path[HY3_PATH_MAX];

    if (c->async)
        values = (struct hy3_values){.of = c, .get = get_copy, .share = share_copy};
    HY3_TRY(path_of(c, c->info.step, ".part/state.h5", path));
    if (c->has_state)
        HY3_TRY(hy3_state_write(c->saving, path, c->config->private_files, c->model->params,
                                &c->info, c->configuration, values));
    if (hy3_rank(c->saving) == 0)
        status = publish(c);
    HY3_AGREE(c->saving, status, "completing a checkpoint");
    return status;
}

static void *run_thread(void *context)
{
    struct hy3_checkpoints *c = context;
    double begin = hy3_seconds();

    c->result = write_state(c);
    snprintf(c->text, sizeof c->text, "%s", hy3_error_text());
    c->seconds = hy3_seconds() - begin;
    return NULL;
}

static hy3_status create_directory(const struct hy3_checkpoints *c, const char *part)
{
    if (hy3_rank(c->comm) != 0)
        return HY3_OK;
    HY3_TRY(hy3_directory_remove(part));
    return hy3_directory_create_new(part, c->config->private_files);
}

static hy3_status copy_moment(struct hy3_checkpoints *c, const struct hy3_param *param,
                              enum hy3_field field, struct hy3_moment_copy *copy)
{
    struct hy3_values from = hy3_sharded_optimizer_values(c->optimizer);
    struct hy3_span piece;

    if (copy->format == HY3_MOMENTS_FP32)
        return from.get(from.of, field, param, copy->span, copy->numbers);
    for (int64_t at = copy->span.first; at < hy3_span_end(copy->span); at = hy3_span_end(piece)) {
        piece = hy3_moment_copy_piece(copy, at);
        HY3_TRY(from.get(from.of, field, param, piece, c->piece));
        hy3_moment_copy_put(copy, piece, c->piece);
    }
    return HY3_OK;
}

static hy3_status copy_all(struct hy3_checkpoints *c)
{
    struct hy3_values from = hy3_sharded_optimizer_values(c->optimizer);

    for (int i = 0; i < c->model->params->count; i++) {
        const struct hy3_param *param = &c->model->params->params[i];
        struct copy *copy = &c->copies[i];

        HY3_TRY(from.get(from.of, HY3_MASTER, param, copy->span, copy->masters));
        HY3_TRY(copy_moment(c, param, HY3_ADAM_M, &copy->moments[0]));
        HY3_TRY(copy_moment(c, param, HY3_ADAM_V, &copy->moments[1]));
    }
    return HY3_OK;
}

static hy3_status begin(struct hy3_checkpoints *c)
{
    hy3_status status = HY3_OK;
    char part[HY3_PATH_MAX];

    HY3_TRY(path_of(c, c->info.step, ".part", part));
    HY3_AGREE(c->comm, create_directory(c, part), "creating a checkpoint");
    HY3_TRY(write_beside(c, part));
    if (!c->async)
        return write_state(c);
    HY3_AGREE(c->comm, copy_all(c), "copying the state");
    if (pthread_create(&c->thread, NULL, run_thread, c) != 0)
        status = hy3_fail(HY3_ENOMEM, __FILE__, __LINE__, "cannot start the saving thread");
    else
        c->is_running = true;
    if (status != HY3_OK) /* the other ranks are writing already */
        hy3_abort(status, "saving");
    return status;
}

/* What becomes of a failed save: the incomplete directory is removed, the checkpoint before it
 * stays. */
static hy3_status judge(const struct hy3_checkpoints *c, hy3_status status)
{
    char part[HY3_PATH_MAX], why[HY3_ERROR_MAX];

    if (status == HY3_OK)
        return HY3_OK;
    snprintf(why, sizeof why, "%s", hy3_error_text());
    if (hy3_rank(c->comm) == 0 && path_of(c, c->info.step, ".part", part) == HY3_OK)
        (void)hy3_directory_remove(part);
    if (c->config->save_failure == HY3_SAVE_FAILURE_continue) {
        hy3_log(HY3_LOG_WARN,
                "checkpoint-%lld was not saved: %s; training goes on (save_failure), the previous "
                "one is untouched",
                (long long)c->info.step, why);
        return HY3_OK;
    }
    HY3_FAIL(status,
             "checkpoint-%lld was not saved: %s; the previous one is untouched, and the "
             "same command continues from there (save_failure = continue trains on)",
             (long long)c->info.step, why);
}

/* Called when a save completes or fails. */
static hy3_status end(struct hy3_checkpoints *c, hy3_status result)
{
    double bytes = hy3_state_bytes(c->model->params);

    if (result == HY3_OK)
        c->best = c->info.best;
    if (result == HY3_OK && c->has_state)
        c->newest = c->info.step;
    if (result == HY3_OK && c->has_state)
        hy3_log(
            HY3_LOG_INFO, "checkpoint-%lld: %.1f MB in %.2f s, %.0f MB/s; training waited %.2f s",
            (long long)c->info.step, 1e-6 * bytes, c->seconds, 1e-6 * bytes / c->seconds, c->stall);
    return judge(c, result);
}

hy3_status hy3_checkpoints_wait(struct hy3_checkpoints *c)
{
    if (!c->is_running)
        return HY3_OK;
    pthread_join(c->thread, NULL);
    c->is_running = false;
    hy3_error_set(c->text);
    return end(c, c->result);
}

hy3_status hy3_checkpoints_save(struct hy3_checkpoints *c, const struct hy3_state_info *info,
                                bool with_state)
{
    hy3_status status = HY3_OK;
    double start = hy3_seconds();

    HY3_TRY(hy3_checkpoints_wait(c));
    c->info = *info;
    c->has_state = with_state || !c->config->save_only_model;
    status = begin(c);
    c->stall = hy3_seconds() - start;
    if (c->is_running)
        return status;
    c->seconds = c->stall;
    status = end(c, status);
    return status;
}

int64_t hy3_checkpoints_newest(const struct hy3_checkpoints *c)
{
    return c->newest;
}

struct hy3_state_best *hy3_checkpoints_best(struct hy3_checkpoints *c)
{
    return &c->best;
}

double hy3_checkpoints_seconds(const struct hy3_checkpoints *c)
{
    return c->seconds;
}

/* Whether the remaining steps would see the same samples. */
static hy3_status check_run(const char *path, const struct hy3_state_info *is,
                            const struct hy3_state_info *expected)
{
    if (is->global_batch != expected->global_batch)
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' has a global batch of %lld samples, this run %lld; "
                 "choose per_device_train_batch_size and gradient_accumulation_steps so "
                 "that their product with the ranks is %lld, or start over in another "
                 "directory",
                 path, (long long)is->global_batch, (long long)expected->global_batch,
                 (long long)is->global_batch);
    if (is->seed != expected->seed)
        HY3_FAIL(HY3_EUSAGE, "'%s' has seed = %lld, this run %lld: the sample order would differ",
                 path, (long long)is->seed, (long long)expected->seed);
    if (is->data_samples != expected->data_samples ||
        is->data_fingerprint != expected->data_fingerprint)
        HY3_FAIL(HY3_EUSAGE,
                 "the training data (%lld samples), or its packing, is not that of '%s' (%lld "
                 "samples); restore it, or start over in another directory",
                 (long long)expected->data_samples, path, (long long)is->data_samples);
    return HY3_OK;
}

/* Collective. tells: in what the settings differ. */
static hy3_status load(struct hy3_checkpoints *c, const char *directory, bool tells,
                       const struct hy3_state_info *expected, struct hy3_state_info *info)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    struct hy3_state *state = NULL;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/state.h5", directory));
    HY3_TRY_DONE(hy3_state_open(c->comm, path, &state));
    HY3_AGREE_DONE(c->comm, check_run(path, hy3_state_info(state), expected), "resuming");
    HY3_AGREE_DONE(
        c->comm,
        hy3_identity_check(c->model, path, &hy3_state_info(state)->identity, &expected->identity),
        "resuming");
    HY3_AGREE_DONE(
        c->comm,
        hy3_state_load(state, c->model->params, hy3_sharded_optimizer_values(c->optimizer)),
        "resuming");
    hy3_store_updated(c->model->store);
    *info = *hy3_state_info(state);
    if (tells && hy3_rank(c->comm) == 0)
        hy3_differences_tell(path, hy3_state_configuration(state), c->config);
done:
    hy3_state_close(state);
    return status;
}

/* Collective. The path of the i-th newest checkpoint of output_dir; false: there is none. */
static hy3_status candidate(const struct hy3_checkpoints *c, size_t i, char *path, bool *exists)
{
    hy3_status status = HY3_OK;
    char directory[HY3_PATH_MAX];
    int64_t *steps = NULL;
    size_t count = 0;

    if (hy3_rank(c->comm) == 0)
        status = hy3_path_format(directory, sizeof directory, "%s%s", c->config->output_dir,
                                 c->dir->brings_back ? "/previous" : "");
    if (hy3_rank(c->comm) == 0 && status == HY3_OK)
        status = hy3_checkpoints_list(directory, &steps, &count);
    *exists = i < count;
    if (status == HY3_OK && *exists)
        status = hy3_path_format(path, HY3_PATH_MAX, "%s/checkpoint-%lld", directory,
                                 (long long)steps[i]);
    HY3_AGREE_DONE(c->comm, status, "looking for checkpoints");
    hy3_broadcast(c->comm, 0, path, HY3_PATH_MAX, "looking for checkpoints");
    hy3_broadcast(c->comm, 0, exists, sizeof *exists, "looking for checkpoints");
done:
    hy3_free(steps);
    return status;
}

/* Collective. The named checkpoint. */
static hy3_status load_named(struct hy3_checkpoints *c, const struct hy3_state_info *expected,
                             struct hy3_state_info *info, char path[HY3_PATH_MAX])
{
    snprintf(path, HY3_PATH_MAX, "%s", c->config->resume_from_checkpoint);
    return load(c, path, c->dir->named < 0, expected, info);
}

/* Collective. The newest of output_dir that is not damaged. */
static hy3_status load_newest(struct hy3_checkpoints *c, const struct hy3_state_info *expected,
                              struct hy3_state_info *info, char path[HY3_PATH_MAX])
{
    bool exists = true;

    for (size_t i = 0;; i++) {
        hy3_status status;

        HY3_TRY(candidate(c, i, path, &exists));
        if (!exists)
            break;
        status = load(c, path, false, expected, info);
        if (status != HY3_EFORMAT && status != HY3_EIO)
            return status;
        hy3_log(HY3_LOG_WARN, "skipping checkpoint: %s", hy3_error_text());
    }
    HY3_FAIL(HY3_EFORMAT,
             "no checkpoint in '%s' is usable; see the warnings above. To start over, set "
             "resume_from_checkpoint = none and overwrite_output_dir = true",
             c->config->output_dir);
}

bool hy3_checkpoints_is_elsewhere(const struct hy3_checkpoints *c)
{
    return c->dir->loads_named && c->dir->named < 0;
}

/* Collective. Whether the best checkpoint that was recorded is still in output_dir, which after a
 * start from elsewhere it never was. */
static hy3_status find_best(struct hy3_checkpoints *c, const struct hy3_state_info *info)
{
    bool is_there = info->best.checkpoint > 0 && !hy3_checkpoints_is_elsewhere(c);
    char name[64];

    c->best = info->best;
    snprintf(name, sizeof name, "%scheckpoint-%lld%s", c->dir->brings_back ? "previous/" : "",
             (long long)info->best.checkpoint,
             c->config->load_best_model_at_end ? "/state.h5" : "");
    is_there = is_there && hy3_path_exists_in(c->config->output_dir, name);
    hy3_broadcast(c->comm, 0, &is_there, sizeof is_there, "looking for checkpoints");
    if (is_there || info->best.checkpoint == 0)
        return HY3_OK;
    c->best.checkpoint = 0;
    c->best.checkpoint_metric = 0;
    if (c->config->load_best_model_at_end)
        hy3_log(HY3_LOG_WARN,
                "checkpoint-%lld, the best so far, is not in '%s': load_best_model_at_end chooses "
                "among later ones",
                (long long)info->best.checkpoint, c->config->output_dir);
    return HY3_OK;
}

hy3_status hy3_checkpoints_load_best(struct hy3_checkpoints *c,
                                     const struct hy3_state_info *expected)
{
    struct hy3_state_info info = {0};
    char path[HY3_PATH_MAX];

    HY3_TRY(path_of(c, c->best.checkpoint, "", path));
    HY3_TRY(load(c, path, false, expected, &info));
    if (info.step != c->best.checkpoint)
        HY3_FAIL(HY3_EFORMAT, "'%s' holds the state of step %lld", path, (long long)info.step);
    hy3_log(HY3_LOG_INFO, "the result is checkpoint-%lld, the best with eval_loss %.6g",
            (long long)info.step, c->best.checkpoint_metric);
    return HY3_OK;
}

hy3_status hy3_checkpoints_resume(struct hy3_checkpoints *c, const struct hy3_state_info *expected,
                                  struct hy3_state_info *info)
{
    char path[HY3_PATH_MAX] = "";
    double begin = hy3_seconds(), took;

    if (c->dir->loads_named)
        HY3_TRY(load_named(c, expected, info, path));
    else if (c->dir->loads_newest)
        HY3_TRY(load_newest(c, expected, info, path));
    else
        return HY3_OK;
    took = hy3_seconds() - begin;
    hy3_log(HY3_LOG_INFO, "continuing after step %lld from '%s': read in %.2f s, %.0f MB/s",
            (long long)info->step, path, took, 1e-6 * hy3_state_bytes(c->model->params) / took);
    return find_best(c, info);
}
