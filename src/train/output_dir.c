/* SPDX-License-Identifier: Apache-2.0 */
/* output_dir.c - may this run write here, and what becomes of what is there? */
#include "train/output_dir.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/planted.h"
#include "base/plural.h"
#include "ckpt/state/list.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "train/differences.h"
#include "train/previous.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

enum { CONFIG_LIMIT = 1 << 20, NAMES_MAX = 1024 };

/* Whether config.cfg is one of ours: all that versions before the mark left. */
static bool has_our_configuration(const char *directory)
{
    static const char head[] = "# hy3 ";
    char path[HY3_PATH_MAX], *text = NULL;
    size_t size;
    bool ours = hy3_path_format(path, sizeof path, "%s/config.cfg", directory) == HY3_OK &&
                hy3_path_exists(path) &&
                hy3_file_read(path, CONFIG_LIMIT, &text, &size) == HY3_OK &&
                strncmp(text, head, sizeof head - 1) == 0;

    hy3_free(text);
    return ours;
}

/* Names that say nothing about who made the directory: token files are made before any run. */
static bool is_neutral(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "cache") == 0 ||
           strcmp(name, "lost+found") == 0 || strncmp(name, ".hy3", 4) == 0 ||
           hy3_ends_with(name, ".rejected.jsonl") || strcmp(name, "train.h5") == 0 ||
           strcmp(name, "eval.h5") == 0;
}

/* A directory without a mark: empty, or somebody else's. */
static hy3_status check_foreign(const struct hy3_config *config, bool *empty)
{
    hy3_status status = HY3_OK;
    const char *directory = config->output_dir;
    DIR *open = opendir(directory);
    const struct dirent *entry;

    *empty = true;
    if (!open)
        HY3_FAIL(HY3_EIO, "cannot open the directory '%s': %s", directory, strerror(errno));
    while ((entry = readdir(open))) {
        if (is_neutral(entry->d_name))
            continue;
        *empty = false;
        if (!config->overwrite_output_dir)
            HY3_FAIL_DONE(HY3_EUSAGE,
                          "output_dir '%s' is not empty and no run of hy3_sft made it; name "
                          "another directory, or set overwrite_output_dir = true",
                          directory);
        if (hy3_previous_is_result(entry->d_name))
            HY3_FAIL_DONE(HY3_EUSAGE,
                          "output_dir '%s' holds '%s', which no run of hy3_sft made and this one "
                          "would replace; name another directory",
                          directory, entry->d_name);
    }
done:
    closedir(open);
    return status;
}

/* Whether `path` is the directory or lies in it. */
static bool is_within(const char *path, const char *directory)
{
    char inner[PATH_MAX], outer[PATH_MAX];
    size_t length;

    if (!path || !realpath(path, inner) || !realpath(directory, outer))
        return false;
    length = strlen(outer);
    return strncmp(inner, outer, length) == 0 && (inner[length] == '/' || inner[length] == '\0');
}

/* What the run still reads when it sets aside what lies in its directory. */
static hy3_status check_sources(const struct hy3_config *config)
{
    const struct {
        const char *key, *path;
    } sources[] = {{"model_name_or_path", config->model_name_or_path},
                   {"tokenizer_name_or_path", config->tokenizer_name_or_path},
                   {"adapter_name_or_path", config->adapter_name_or_path}};

    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        if (is_within(sources[i].path, config->output_dir))
            HY3_FAIL(HY3_EUSAGE,
                     "%s '%s' lies in output_dir '%s', whose files the run may replace; name "
                     "another output_dir",
                     sources[i].key, sources[i].path, config->output_dir);
    return HY3_OK;
}

static bool is_named(const struct hy3_config *config)
{
    return strcmp(config->resume_from_checkpoint, "auto") != 0 &&
           strcmp(config->resume_from_checkpoint, "none") != 0;
}

/* Whether this run has started from the named checkpoint before. */
static bool has_started_there(const struct hy3_output_dir *dir)
{
    return dir->has_mark && is_named(dir->config) &&
           strcmp(dir->mark.from, dir->config->resume_from_checkpoint) == 0;
}

/* Whether resume_from_checkpoint is a checkpoint with a state. may_be_gone: this run's own
 * checkpoints may have taken its place under save_total_limit. */
static hy3_status check_named(const struct hy3_output_dir *dir, bool may_be_gone)
{
    const struct hy3_config *config = dir->config;
    const char *named = config->resume_from_checkpoint;
    char here[NAMES_MAX], there[NAMES_MAX], why[HY3_PATH_WHY];

    if (!is_named(config) || hy3_path_exists_in(named, "state.h5"))
        return HY3_OK;
    if (may_be_gone && has_started_there(dir) && !hy3_path_exists(named))
        return HY3_OK;
    hy3_checkpoints_describe(config->output_dir, here, sizeof here);
    if (hy3_path_fault(named, HY3_PATH_INPUT, why, sizeof why))
        HY3_FAIL(HY3_EUSAGE, "resume_from_checkpoint: '%s' %s; output_dir '%s' holds %s", named,
                 why, config->output_dir, here);
    hy3_checkpoints_describe(named, there, sizeof there);
    if (strcmp(there, "no checkpoint") != 0)
        HY3_FAIL(HY3_EUSAGE,
                 "resume_from_checkpoint: '%s' is no checkpoint, but holds %s; name one", named,
                 there);
    HY3_FAIL(HY3_EUSAGE,
             "resume_from_checkpoint: '%s' has no state.h5, so no run can be continued from it "
             "(save_only_model leaves such checkpoints); output_dir '%s' holds %s",
             named, config->output_dir, here);
}

/* Whether a run reads, replaces or removes what bears this name in output_dir. */
static bool is_used(const char *name)
{
    return strncmp(name, ".hy3", 4) == 0 || strncmp(name, "previous", 8) == 0 ||
           strcmp(name, "cache") == 0 || hy3_previous_is_result(name);
}

/* Rank 0. What is there may be used. */
static hy3_status check_directory(const char *directory)
{
    if (hy3_path_exists(directory) && !hy3_path_is_directory(directory))
        HY3_FAIL(HY3_EUSAGE, "output_dir '%s' is not a directory", directory);
    return hy3_planted_check(directory, is_used);
}

/* Rank 0. */
static hy3_status create_directory(MPI_Comm comm, const char *directory)
{
    if (hy3_rank(comm) != 0)
        return HY3_OK;
    HY3_TRY(check_directory(directory));
    return hy3_directory_create(directory);
}

hy3_status hy3_output_dir_lock(MPI_Comm comm, const struct hy3_config *config,
                               struct hy3_lock **out)
{
    char path[HY3_PATH_MAX];

    HY3_AGREE(comm, create_directory(comm, config->output_dir), "opening the output directory");
    HY3_AGREE(comm, hy3_path_format(path, sizeof path, "%s/.hy3_lock", config->output_dir),
              "opening the output directory");
    return hy3_lock_wait(comm, path, false, out);
}

/* Rank 0. */
static hy3_status look(struct hy3_output_dir *dir)
{
    const char *directory = dir->config->output_dir;
    bool restored = false, empty = false;

    if (dir->changes_nothing) /* else hy3_output_dir_lock has looked */
        HY3_TRY(check_directory(directory));
    HY3_TRY(check_sources(dir->config));
    if (!hy3_path_exists(directory) && dir->changes_nothing)
        return check_named(dir, true);
    HY3_TRY(hy3_directory_create(directory));
    if (!dir->changes_nothing)
        HY3_TRY(hy3_previous_restore(directory, &restored));
    if (restored)
        hy3_log(HY3_LOG_INFO, "output_dir '%s': what an interrupted start had moved is back",
                directory);
    HY3_TRY(hy3_mark_read(directory, &dir->mark, &dir->has_mark));
    HY3_TRY(check_named(dir, true));
    if (dir->has_mark || hy3_path_exists_in(directory, HY3_MARK_NAME) ||
        has_our_configuration(directory))
        return HY3_OK;
    HY3_TRY(check_foreign(dir->config, &empty));
    if (empty && !dir->changes_nothing)
        return hy3_mark_write(directory, &dir->mark);
    return HY3_OK;
}

hy3_status hy3_output_dir_look(MPI_Comm comm, const struct hy3_config *config, bool changes_nothing,
                               struct hy3_output_dir *dir)
{
    hy3_status status = HY3_OK;

    *dir = (struct hy3_output_dir){.config = config,
                                   .comm = comm,
                                   .changes_nothing = changes_nothing,
                                   .newest = -1,
                                   .named = -1};
    if (hy3_rank(comm) == 0)
        status = look(dir);
    HY3_AGREE(comm, status, "looking at the output directory");
    return HY3_OK;
}

static bool has_model(const char *directory)
{
    return hy3_path_exists_in(directory, "model.safetensors") ||
           hy3_path_exists_in(directory, "model.safetensors.index.json") ||
           hy3_path_exists_in(directory, "adapter_model.safetensors");
}

/* The newest checkpoint, and whether any of them has a state. */
static hy3_status survey(const struct hy3_output_dir *dir, struct hy3_situation *s)
{
    hy3_status status = HY3_OK;
    const char *directory = dir->config->output_dir;
    int64_t *steps = NULL;
    size_t count;
    bool has_state = false;
    char name[64];

    HY3_TRY_DONE(hy3_checkpoints_list(directory, &steps, &count));
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "checkpoint-%lld/state.h5", (long long)steps[i]);
        has_state = has_state || hy3_path_exists_in(directory, name);
    }
    s->has_results = count > 0 || has_model(directory);
    s->newest = has_state ? steps[0] : -1;
    s->saves_models = dir->config->save_only_model;
    s->is_finished = dir->mark.is_finished && has_model(directory);
    s->ends_early = dir->mark.ends_early;
    s->done = dir->mark.step;
    s->planned = dir->mark.total_steps;
done:
    hy3_free(steps);
    return status;
}

/* Whether the same named checkpoint has been continued here before. */
static bool is_own_branch(const struct hy3_output_dir *dir, const struct hy3_situation *s,
                          int64_t named)
{
    return has_started_there(dir) && (s->is_finished || s->newest > named);
}

/* Whether this job was requeued by Slurm after it had begun here. */
static bool is_requeued(const struct hy3_output_dir *dir)
{
    const char *restarts = getenv("SLURM_RESTART_COUNT"), *job = getenv("SLURM_JOB_ID");

    return restarts && strtol(restarts, NULL, 10) > 0 && job && *job &&
           strcmp(dir->mark.job, job) == 0 && strcmp(dir->mark.from, "none") == 0;
}

/* The step of the named checkpoint if it is, or was, one in output_dir; -1: it is elsewhere. */
static int64_t step_here(const struct hy3_output_dir *dir)
{
    char path[PATH_MAX], *name;

    if (!realpath(dir->config->resume_from_checkpoint, path))
        snprintf(path, sizeof path, "%s", dir->config->resume_from_checkpoint);
    while (path[1] != '\0' && hy3_ends_with(path, "/"))
        path[strlen(path) - 1] = '\0';
    name = strrchr(path, '/');
    if (!name)
        return hy3_path_is_same(".", dir->config->output_dir) ? hy3_checkpoint_step(path) : -1;
    *name++ = '\0';
    return hy3_path_is_same(path, dir->config->output_dir) ? hy3_checkpoint_step(name) : -1;
}

/* What resume_from_checkpoint means here. */
static void find_origin(struct hy3_output_dir *dir, struct hy3_situation *s)
{
    s->from = HY3_FROM_NEWEST;
    if (strcmp(dir->config->resume_from_checkpoint, "none") == 0 && !is_requeued(dir))
        s->from = HY3_FROM_START;
    if (!is_named(dir->config))
        return;
    s->named = step_here(dir);
    if (!is_own_branch(dir, s, s->named))
        s->from = s->named >= 0 ? HY3_FROM_HERE : HY3_FROM_THERE;
}

/* The run in output_dir/previous continues in its place if it is the one that is wanted and what
 * stands there has nothing to lose: no checkpoint, no result. */
static hy3_status look_back(struct hy3_output_dir *dir, const struct hy3_run_facts *facts,
                            struct hy3_situation *now)
{
    struct hy3_config config = *dir->config;
    struct hy3_output_dir old = {.config = &config};
    struct hy3_situation s = {.overwrite = true, .steps = facts->steps, .named = -1};
    char previous[HY3_PATH_MAX], differences[HY3_ERROR_MAX - 1024];

    HY3_TRY(hy3_path_format(previous, sizeof previous, "%s/previous", config.output_dir));
    HY3_TRY(hy3_mark_read(previous, &old.mark, &old.has_mark));
    if (now->has_results || !old.has_mark)
        return HY3_OK;
    config.output_dir = previous;
    HY3_TRY(survey(&old, &s));
    find_origin(&old, &s);
    HY3_TRY(hy3_differences_find(&config, &old.mark, facts, &s, differences, sizeof differences));
    old.decision = hy3_decide(&s);
    if (s.from == HY3_FROM_NEWEST &&
        (old.decision == HY3_CONTINUE || old.decision == HY3_FINISHED)) {
        hy3_log(HY3_LOG_INFO,
                "'%s' holds the run of this command, and what stands in its place has no "
                "checkpoint: it is brought back and goes on",
                previous);
        dir->brings_back = true;
        dir->mark = old.mark;
        *now = s;
    } else if (s.has_results)
        hy3_log(HY3_LOG_INFO,
                "'%s' holds an earlier run, which goes when this one's first checkpoint is "
                "complete; move it elsewhere to keep it",
                previous);
    return HY3_OK;
}

static hy3_status refuse(const struct hy3_output_dir *dir, const struct hy3_situation *s,
                         const char *differences)
{
    const char *directory = dir->config->output_dir;

    switch (dir->decision) {
    case HY3_REFUSE_OTHER:
        HY3_FAIL(HY3_EUSAGE,
                 "output_dir '%s' holds the results of another run%s%s\nname another directory, "
                 "or set overwrite_output_dir = true, which sets them aside",
                 directory, *differences ? "; it differs in:" : "", differences);
    case HY3_REFUSE_NONE:
        HY3_FAIL(HY3_EUSAGE,
                 "output_dir '%s' holds checkpoints of an unfinished run, the newest of step "
                 "%lld; continue it with resume_from_checkpoint = auto, name another directory, or "
                 "set overwrite_output_dir = true, which sets them aside",
                 directory, (long long)s->newest);
    case HY3_REFUSE_CHANGED:
        HY3_FAIL(HY3_EUSAGE,
                 "the run in output_dir '%s' is finished after %lld steps; no step is left for "
                 "what has changed:%s\nmore steps continue it (max_steps, num_train_epochs); "
                 "overwrite_output_dir = true sets it aside and starts over",
                 directory, (long long)s->done, differences);
    case HY3_REFUSE_STATE:
        HY3_FAIL(HY3_EUSAGE,
                 "the run in output_dir '%s' saved models only (save_only_model), or its "
                 "checkpoints have lost their state.h5, so it cannot be continued; train on from "
                 "its model in another directory (model_name_or_path, for an adapter "
                 "adapter_name_or_path), or set overwrite_output_dir = true, which sets it aside "
                 "and starts over%s%s",
                 directory, *differences ? "; changed:" : "", differences);
    default:
        return HY3_OK;
    }
}

static void log_decision(const struct hy3_output_dir *dir, const struct hy3_situation *s,
                         const char *differences)
{
    const char *directory = dir->config->output_dir;

    if (*differences && s->has_results)
        hy3_log(HY3_LOG_INFO, "settings that differ from the run in '%s':%s", directory,
                differences);
    if (dir->decision == HY3_FINISHED)
        hy3_log(HY3_LOG_INFO,
                "the run in '%s' is finished (%lld step%s%s) and nothing that matters has changed: "
                "nothing to do; resume_from_checkpoint = none starts over",
                directory, (long long)s->done, hy3_s(s->done),
                s->ends_early ? ", then early stopping" : "");
    if (dir->decision == HY3_BEHIND)
        hy3_log(HY3_LOG_WARN,
                "the run in '%s' has done %lld steps, more than the %lld that max_steps or "
                "num_train_epochs ask for: nothing is done, and the model there stays as it is. "
                "To go back, name an older checkpoint (resume_from_checkpoint) or start over in "
                "another directory",
                directory,
                (long long)(s->from == HY3_FROM_HERE                ? s->named
                            : s->is_finished && s->done > s->newest ? s->done
                                                                    : s->newest),
                (long long)s->steps);
}

/* Rank 0. */
static hy3_status decide(struct hy3_output_dir *dir, const struct hy3_run_facts *facts)
{
    struct hy3_situation s = {
        .overwrite = dir->config->overwrite_output_dir, .steps = facts->steps, .named = -1};
    char differences[HY3_ERROR_MAX - 1024];

    HY3_TRY(survey(dir, &s));
    find_origin(dir, &s);
    HY3_TRY(
        hy3_differences_find(dir->config, &dir->mark, facts, &s, differences, sizeof differences));
    HY3_TRY(look_back(dir, facts, &s));
    dir->decision = hy3_decide(&s);
    HY3_TRY(refuse(dir, &s, differences));
    log_decision(dir, &s, differences);
    dir->newest = s.newest;
    dir->named = s.named;
    dir->loads_newest = dir->decision == HY3_CONTINUE;
    dir->loads_named = dir->decision == HY3_BRANCH ||
                       (s.from == HY3_FROM_THERE &&
                        (dir->decision == HY3_START || dir->decision == HY3_SET_ASIDE));
    if (dir->brings_back && dir->decision == HY3_FINISHED && !dir->changes_nothing)
        return hy3_previous_bring_back(dir->config->output_dir); /* nothing else is to be checked */
    return dir->loads_named ? check_named(dir, false) : HY3_OK;
}

hy3_status hy3_output_dir_decide(struct hy3_output_dir *dir, const struct hy3_run_facts *facts)
{
    hy3_status status = HY3_OK;
    int64_t shared[6];

    if (hy3_rank(dir->comm) == 0)
        status = decide(dir, facts);
    HY3_AGREE(dir->comm, status, "looking at the output directory");
    shared[0] = dir->decision;
    shared[1] = dir->loads_newest;
    shared[2] = dir->loads_named;
    shared[3] = dir->newest;
    shared[4] = dir->named;
    shared[5] = dir->brings_back;
    hy3_broadcast(dir->comm, 0, shared, sizeof shared, "looking at the output directory");
    dir->decision = (enum hy3_decision)shared[0];
    dir->loads_newest = shared[1] != 0;
    dir->loads_named = shared[2] != 0;
    dir->newest = shared[3];
    dir->named = shared[4];
    dir->brings_back = shared[5] != 0;
    return HY3_OK;
}

/* What an earlier run left unfinished under a temporary name. */
static hy3_status remove_parts(const char *directory)
{
    hy3_status status = HY3_OK;
    DIR *open = opendir(directory);
    const struct dirent *entry;
    char path[HY3_PATH_MAX], name[256];

    while (open && (entry = readdir(open))) {
        snprintf(name, sizeof name, "%s", entry->d_name);
        if (!hy3_ends_with(name, ".part"))
            continue;
        name[strlen(name) - strlen(".part")] = '\0';
        if (hy3_checkpoint_step(name) < 0)
            continue;
        HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", directory, entry->d_name));
        HY3_TRY_DONE(hy3_directory_remove(path));
    }
done:
    if (open)
        closedir(open);
    return status;
}

static hy3_status set_aside(const struct hy3_output_dir *dir, int64_t first)
{
    const char *directory = dir->config->output_dir;
    bool all = dir->decision == HY3_SET_ASIDE;
    struct hy3_previous_options options = {
        .after = all ? -1 : first, .takes_run = all, .takes_model = dir->decision == HY3_BRANCH};
    char names[NAMES_MAX];

    if (dir->decision == HY3_START)
        return HY3_OK;
    HY3_TRY(hy3_previous_set_aside(directory, &options, names, sizeof names));
    if (*names)
        hy3_log(HY3_LOG_INFO, "output_dir '%s': %s set aside in '%s/previous' (%s) until %s",
                directory, all ? "the earlier run is" : "what came after this checkpoint is",
                directory, names,
                all ? "this one's first checkpoint is complete" : "this run is finished");
    return HY3_OK;
}

/* Rank 0. */
static hy3_status begin(struct hy3_output_dir *dir, const struct hy3_run_facts *facts,
                        int64_t first, const char *text)
{
    const char *directory = dir->config->output_dir, *job = getenv("SLURM_JOB_ID");
    struct hy3_mark mark = {.step = first,
                            .total_steps = facts->steps,
                            .samples = facts->samples,
                            .global_batch = facts->global_batch,
                            .data = facts->data,
                            .base = facts->base,
                            .keeps_previous = dir->decision == HY3_BRANCH};
    char path[HY3_PATH_MAX];

    if (dir->decision == HY3_CONTINUE) {
        memcpy(mark.from, dir->mark.from, sizeof mark.from);
        memcpy(mark.job, dir->mark.job, sizeof mark.job);
        mark.keeps_previous = dir->mark.keeps_previous || dir->newest > first;
    } else {
        snprintf(mark.from, sizeof mark.from, "%s", dir->config->resume_from_checkpoint);
        snprintf(mark.job, sizeof mark.job, "%s", job ? job : "");
    }
    if (dir->brings_back)
        HY3_TRY(hy3_previous_bring_back(directory));
    HY3_TRY(remove_parts(directory));
    HY3_TRY(set_aside(dir, first));
    dir->mark = mark;
    HY3_TRY(hy3_mark_write(directory, &dir->mark));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.cfg", directory));
    return hy3_output_replace(path, text, strlen(text));
}

hy3_status hy3_output_dir_begin(struct hy3_output_dir *dir, const struct hy3_run_facts *facts,
                                int64_t first)
{
    hy3_status status = HY3_OK;
    char *text = NULL;

    HY3_AGREE_DONE(dir->comm, hy3_config_format(dir->config, &text),
                   "formatting the configuration");
    status = hy3_rank(dir->comm) == 0 ? begin(dir, facts, first, text) : HY3_OK;
    HY3_AGREE_DONE(dir->comm, status, "opening the output directory");
done:
    hy3_free(text);
    return status;
}

hy3_status hy3_output_dir_saved(struct hy3_output_dir *dir, int64_t step)
{
    const char *directory = dir->config->output_dir;

    dir->mark.step = step;
    HY3_TRY(hy3_mark_write(directory, &dir->mark));
    return dir->mark.keeps_previous ? HY3_OK : hy3_previous_remove(directory);
}

hy3_status hy3_output_dir_finish(struct hy3_output_dir *dir, int64_t step)
{
    hy3_status status = HY3_OK;

    if (hy3_rank(dir->comm) == 0) {
        dir->mark.step = step;
        dir->mark.is_finished = true;
        dir->mark.ends_early = step < dir->mark.total_steps;
        dir->mark.keeps_previous = false;
        status = hy3_mark_write(dir->config->output_dir, &dir->mark);
        if (status == HY3_OK)
            status = hy3_previous_remove(dir->config->output_dir);
    }
    return hy3_agree(dir->comm, status, "completing the output directory");
}
