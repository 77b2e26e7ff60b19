/* SPDX-License-Identifier: Apache-2.0 */
/* datasets.c - from the keys of the configuration to an open dataset. */
#include "app/datasets.h"

#include "app/module_options.h"
#include "base/file.h"
#include "base/plural.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "data/dataset_info.h"
#include "data/sources.h"

/* Where the token file goes; local. */
static hy3_status complete(const struct hy3_config *c, struct hy3_dataset_options *options,
                           char cache[HY3_PATH_MAX])
{
    if (!options->tokenizer_directory)
        HY3_FAIL(HY3_EUSAGE,
                 "no tokenizer is named; set model_name_or_path or tokenizer_name_or_path");
    options->cache_directory = cache;
    return hy3_cache_directory(c->cache_dir, c->output_dir, options->files[0], cache, HY3_PATH_MAX);
}

static enum hy3_content_tokens content_tokens(const struct hy3_config *c)
{
    switch (c->special_tokens_in_content) {
    case HY3_SPECIAL_TOKENS_text:
        return HY3_CONTENT_TEXT;
    case HY3_SPECIAL_TOKENS_token:
        return HY3_CONTENT_TOKEN;
    case HY3_SPECIAL_TOKENS_reject:
        break;
    }
    return HY3_CONTENT_REJECT;
}

static enum hy3_truncation truncation(const struct hy3_config *c)
{
    switch (c->truncation_strategy) {
    case HY3_TRUNCATION_left:
        return HY3_TRUNCATE_LEFT;
    case HY3_TRUNCATION_delete:
        return HY3_TRUNCATE_DELETE;
    case HY3_TRUNCATION_right:
        break;
    }
    return HY3_TRUNCATE_RIGHT;
}

static struct hy3_reading reading(const struct hy3_config *c)
{
    static const enum hy3_effort efforts[] = {[HY3_REASONING_default] = HY3_EFFORT_BY_FORM,
                                              [HY3_REASONING_auto] = HY3_EFFORT_AUTO,
                                              [HY3_REASONING_no_think] = HY3_EFFORT_NO_THINK,
                                              [HY3_REASONING_low] = HY3_EFFORT_LOW,
                                              [HY3_REASONING_high] = HY3_EFFORT_HIGH};

    return (struct hy3_reading){
        .effort = efforts[c->reasoning_effort],
        .without_reasoning = !c->enable_thinking,
        .masks_history = c->mask_history,
        .forgets_reasoning = !c->preserve_thinking,
        .ends_in_round = c->last_turn == HY3_LAST_TURN_round,
        .masks_empty_think = c->mask_empty_think,
        .system = c->default_system && *c->default_system ? c->default_system : NULL};
}

/* Rank 0. The files that the configuration names. */
static hy3_status locate(const struct hy3_config *c, bool is_eval, struct hy3_named_data *out)
{
    const struct hy3_list *files = is_eval ? &c->eval_data_file : &c->train_data_file;
    const struct hy3_list *sets = is_eval ? &c->eval_dataset : &c->dataset;
    const struct hy3_form form = {.splits_think = c->split_think, .guesses = c->guess_form};

    if (files->count == 0)
        return hy3_dataset_info_resolve(c->dataset_dir, sets->items, sets->count, out);
    return hy3_named_data_list(files->items, files->count, &form, out);
}

static hy3_status open_dataset(MPI_Comm comm, const struct hy3_config *config, const char *name,
                               bool is_tentative, bool only_looks, struct hy3_dataset **out,
                               struct hy3_dataset_summary *summary)
{
    hy3_status status = HY3_OK;
    const struct hy3_config *c = config;
    bool is_eval = strcmp(name, "eval") == 0;
    const struct hy3_list *files = is_eval ? &c->eval_data_file : &c->train_data_file;
    struct hy3_named_data named = {0};
    char cache[HY3_PATH_MAX];
    struct hy3_dataset_options options = {.tokenizer_directory = hy3_module_options_tokenizer(c),
                                          .name = name,
                                          .max_seq_length = c->max_seq_length,
                                          .truncation = truncation(c),
                                          .max_samples = c->max_samples,
                                          .max_bad_samples = c->max_bad_samples,
                                          .keep_unlabelled = c->disable_shuffling,
                                          .content_tokens = content_tokens(c),
                                          .reading = reading(c),
                                          .is_tentative = is_tentative,
                                          .is_private = c->private_files,
                                          .only_looks = only_looks,
                                          .overwrite = c->overwrite_cache};

    HY3_AGREE_DONE(comm, hy3_rank(comm) == 0 ? locate(c, is_eval, &named) : HY3_OK,
                   "locating the data");
    HY3_TRY_DONE(hy3_named_data_share(comm, &named));
    options.files = (const char *const *)named.files;
    options.forms = files->count > 0 && !c->split_think && !c->guess_form ? NULL : named.forms;
    options.sets = named.sets;
    options.limits = named.limits;
    options.file_count = named.count;
    HY3_AGREE_DONE(comm, complete(c, &options, cache), "locating the data");
    HY3_TRY_DONE(hy3_dataset_open(comm, &options, out, summary));
done:
    hy3_named_data_free(&named);
    return status;
}

hy3_status hy3_datasets_open(MPI_Comm comm, const struct hy3_config *config, const char *name,
                             bool is_tentative, struct hy3_dataset **out,
                             struct hy3_dataset_summary *summary)
{
    return open_dataset(comm, config, name, is_tentative, false, out, summary);
}

hy3_status hy3_datasets_look(const struct hy3_config *config, struct hy3_dataset **out)
{
    return open_dataset(MPI_COMM_SELF, config, "train", false, true, out, NULL);
}

/* Samples that val_size, a fraction or a number, holds out for evaluation: at least one where it is
 * asked for. */
static int64_t held_out(const struct hy3_config *c, int64_t samples)
{
    double wanted = c->val_size < 1 ? c->val_size * (double)samples : c->val_size;

    if (c->val_size > 0 && wanted < 1)
        return 1;
    return (int64_t)(wanted + 0.5);
}

hy3_status hy3_datasets_split(const struct hy3_config *config, const struct hy3_group *world,
                              const struct hy3_shape *shape, const struct hy3_dataset *train_set,
                              const struct hy3_dataset *eval_set, struct hy3_batches *train,
                              struct hy3_batches *eval)
{
    const struct hy3_config *c = config;
    int64_t samples = hy3_dataset_count(train_set), held = held_out(c, samples);
    int parts = (int)c->sequence_parallel_size;

    *train = (struct hy3_batches){.dataset = train_set,
                                  .count = samples - held,
                                  .split_drawn = held > 0 && !c->disable_shuffling,
                                  .batch = c->per_device_train_batch_size,
                                  .accumulation = c->gradient_accumulation_steps,
                                  .rank = world->rank / parts,
                                  .ranks = world->size / parts,
                                  .part = world->rank % parts,
                                  .parts = parts,
                                  .shuffle = !c->disable_shuffling,
                                  .seed = (uint64_t)c->seed,
                                  .attention_length = hy3_shape_attention_length(shape)};
    *eval = *train;
    eval->accumulation = 1;
    eval->shuffle = false;
    eval->dataset = eval_set ? eval_set : held > 0 ? train_set : NULL;
    eval->first = eval_set ? 0 : samples - held;
    eval->split_drawn = train->split_drawn && !eval_set;
    eval->count = eval_set ? hy3_dataset_count(eval_set) : held;
    if (train->count < 1)
        HY3_FAIL(HY3_EUSAGE, "val_size holds out all %lld sample%s; nothing is left to train on",
                 (long long)samples, hy3_s(samples));
    return HY3_OK;
}

hy3_status hy3_datasets_dummy(const struct hy3_config *config, const struct hy3_shape *shape,
                              struct hy3_dataset **out)
{
    return hy3_dataset_dummy(config->max_samples > 0 ? config->max_samples : 1000,
                             config->max_seq_length, shape->vocab, (uint64_t)config->seed, out);
}
