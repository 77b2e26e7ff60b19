/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - the option table, and what follows from an entry alone. */
#include "config/options.h"

#include "config/nearest.h"

#include <float.h>
#include <inttypes.h>

/* Bounds of open intervals, and none. */
#define ABOVE_0 DBL_MIN
#define BELOW_1 0x1.fffffffffffffp-1
#define ANY     DBL_MAX
#define MANY    INT64_MAX

#define ALL     NULL /* every value is available in this version */
#define DEFAULT ""   /* none but the default is */

/* clang-format off */
#define TAIL(only_, aliases_, help_) .only = only_, .aliases = aliases_, .help = help_
#define GROUP(title) {.key = title, .type = HY3_GROUP}
#define TEXT(field, initial, only, aliases, help) \
    {.key = #field, .type = HY3_TEXT, .offset = offsetof(struct hy3_config, field), .text = initial, TAIL(only, aliases, help)}
#define LIST(field, initial, only, aliases, help) \
    {.key = #field, .type = HY3_LIST, .offset = offsetof(struct hy3_config, field), .text = initial, TAIL(only, aliases, help)}
#define SIZE(field, initial, only, aliases, help) \
    {.key = #field, .type = HY3_SIZE, .offset = offsetof(struct hy3_config, field), .text = initial, TAIL(only, aliases, help)}
#define CHOICE(field, words, only, aliases, help) \
    {.key = #field, .type = HY3_CHOICE, .offset = offsetof(struct hy3_config, field), .text = words, TAIL(only, aliases, help)}
#define BOOL(field, initial, only, aliases, help) \
    {.key = #field, .type = HY3_BOOL, .offset = offsetof(struct hy3_config, field), .truth = initial, TAIL(only, aliases, help)}
#define COUNT(field, initial, low, high, only, aliases, help) \
    {.key = #field, .type = HY3_COUNT, .offset = offsetof(struct hy3_config, field), .count = {initial, low, high, false}, \
     TAIL(only, aliases, help)}
#define AUTO_COUNT(field, high, only, aliases, help) \
    {.key = #field, .type = HY3_COUNT, .offset = offsetof(struct hy3_config, field), .count = {0, 0, high, true}, \
     TAIL(only, aliases, help)}
#define REAL(field, initial, low, high, only, aliases, help) \
    {.key = #field, .type = HY3_REAL, .offset = offsetof(struct hy3_config, field), .real = {initial, low, high}, \
     TAIL(only, aliases, help)}

const struct hy3_option hy3_options[] = {
    /*     key, default (choice: first), range, available values, aliases,
           help */
    GROUP("model"),
    TEXT(model_name_or_path, NULL, ALL, NULL,
         "directory of the base model in Hugging Face layout, inner or outer names"),
    TEXT(tokenizer_name_or_path, NULL, ALL, "tokenizer_name",
         "directory of the tokenizer; not set: the model's"),
    CHOICE(finetuning_type, "full lora attention", ALL, NULL,
         "what learns: all weights, an adapter, or the attention projections"),
    COUNT(lora_rank, 64, 1, 65536, ALL, NULL,
         "rank of the adapter"),
    REAL(lora_alpha, 128, ABOVE_0, ANY, ALL, NULL,
         "the adapter is scaled by lora_alpha / lora_rank"),
    REAL(lora_dropout, 0.05, 0, BELOW_1, ALL, NULL,
         "share of the adapter's inputs dropped while training"),
    LIST(lora_target, "q_proj k_proj v_proj o_proj", ALL, "target_modules",
         "modules with an adapter: q_proj k_proj v_proj o_proj, gate_proj up_proj down_proj, experts, all"),
    TEXT(adapter_name_or_path, NULL, ALL, NULL,
         "directory of a PEFT adapter to continue; its rank, alpha and targets hold"),

    GROUP("data"),
    LIST(train_data_file, NULL, ALL, "train_file",
         "JSONL file or files of conversations to learn from"),
    TEXT(dataset_dir, NULL, ALL, NULL,
         "directory of dataset_info.json, for dataset"),
    LIST(dataset, NULL, ALL, NULL,
         "names in dataset_info.json, in place of train_data_file"),
    COUNT(max_seq_length, 4096, 1, MANY, ALL, "cutoff_len max_length",
         "longer samples are cut there; tokens"),
    COUNT(max_samples, 0, 0, MANY, ALL, "max_train_samples",
         "use the first so many samples; 0: all"),
    COUNT(max_bad_samples, 0, 0, MANY, ALL, NULL,
         "bad lines of the data that are left out before the run stops"),
    BOOL(packing, false, DEFAULT, NULL,
         "fill sequences of max_seq_length with several samples"),
    TEXT(cache_dir, NULL, ALL, NULL,
         "directory of the token files; not set: output_dir"),
    BOOL(overwrite_cache, false, ALL, NULL,
         "tokenize again even if the token file fits"),
    BOOL(disable_shuffling, false, ALL, NULL,
         "take the samples in the order of the files"),
    CHOICE(template, "hy_v3", ALL, NULL,
         "chat template; its dialect follows the tokenizer"),
    LIST(eval_data_file, NULL, ALL, "validation_file",
         "JSONL file or files to evaluate on"),
    REAL(val_size, 0, 0, ANY, ALL, NULL,
         "samples taken from the training data to evaluate on: below 1 a share, else a number"),
    COUNT(eval_steps, 0, 0, MANY, ALL, NULL,
         "evaluate every so many steps, and at the end; 0: at the end"),
    BOOL(use_dummy_data, false, ALL, NULL,
         "learn random tokens, to measure speed and memory without data"),

    GROUP("training"),
    TEXT(output_dir, NULL, ALL, NULL,
         "directory of everything the run writes"),
    BOOL(overwrite_output_dir, false, ALL, NULL,
         "write into an output_dir that holds another run"),
    COUNT(per_device_train_batch_size, 1, 1, 1 << 20, ALL, NULL,
         "samples of a micro-batch on each rank"),
    COUNT(gradient_accumulation_steps, 1, 1, 1 << 20, ALL, NULL,
         "micro-batches of a step on each rank"),
    REAL(num_train_epochs, 3, ABOVE_0, ANY, ALL, NULL,
         "passes over the data"),
    COUNT(max_steps, -1, -1, MANY, ALL, NULL,
         "steps, in place of num_train_epochs; -1: by the epochs"),
    REAL(learning_rate, 1e-5, 0, 1, ALL, NULL,
         "peak learning rate, reached after warmup"),
    REAL(min_lr, -1, 0, 1, ALL, NULL,
         "learning rate at the end of cosine_with_min_lr"),
    REAL(min_lr_rate, -1, 0, 1, ALL, NULL,
         "the same as a share of learning_rate"),
    CHOICE(lr_scheduler_type, "cosine_with_min_lr cosine linear constant constant_with_warmup", ALL, NULL,
         "how the learning rate falls"),
    REAL(warmup_ratio, 0, 0, 1, ALL, NULL,
         "share of all steps in which the learning rate rises from 0"),
    COUNT(warmup_steps, 0, 0, MANY, ALL, NULL,
         "the same as a number of steps; above 0 it overrides warmup_ratio"),
    REAL(weight_decay, 0, 0, ANY, ALL, NULL,
         "AdamW's decay of the matrices; norms have none"),
    REAL(adam_beta1, 0.9, 0, BELOW_1, ALL, NULL,
         "AdamW's decay of the mean gradient"),
    REAL(adam_beta2, 0.999, 0, BELOW_1, ALL, NULL,
         "AdamW's decay of the mean squared gradient"),
    REAL(adam_epsilon, 1e-8, ABOVE_0, ANY, ALL, NULL,
         "AdamW's guard against division by zero"),
    REAL(max_grad_norm, 1, 0, ANY, ALL, NULL,
         "larger gradients are scaled down to this norm; 0: never"),
    COUNT(seed, 42, 0, MANY, ALL, NULL,
         "of the sample order and everything else that is drawn"),
    BOOL(bf16, true, ALL, NULL,
         "weights and activations in bf16, master weights in fp32; false: all in fp32"),
    BOOL(gradient_checkpointing, true, ALL, NULL,
         "keep the input of each layer only and compute the rest again: less memory, same result"),
    CHOICE(flash_attn, "auto fa2 sdpa disabled", ALL, NULL,
         "accepted for other tools' files; there is one attention, which needs no T x T matrix"),

    GROUP("saving and logging"),
    COUNT(save_steps, 500, 1, MANY, ALL, NULL,
         "a checkpoint every so many steps"),
    BOOL(save_async, false, ALL, NULL,
         "training goes on while a checkpoint is written, from a copy in host memory"),
    CHOICE(save_failure, "stop continue", ALL, NULL,
         "what a checkpoint that cannot be saved means; the one before it stays either way"),
    REAL(max_hours, 0, 0, ANY, ALL, NULL,
         "stop with a checkpoint before so many hours have passed; 0: no limit"),
    COUNT(save_total_limit, 0, 0, MANY, ALL, NULL,
         "keep the newest so many checkpoints; 0: all"),
    BOOL(save_only_model, false, ALL, NULL,
         "checkpoints without the optimizer, which cannot be resumed"),
    CHOICE(save_format, "input inner outer", ALL, NULL,
         "names and layout of the written model; input: the base model's"),
    SIZE(max_shard_size, "5GB", ALL, NULL,
         "a weight file is closed before it grows beyond this"),
    TEXT(resume_from_checkpoint, "auto", ALL, NULL,
         "checkpoint to continue from: auto (the newest in output_dir), none, or a directory"),
    COUNT(logging_steps, 1, 1, MANY, ALL, NULL,
         "a line of train_log.jsonl every so many steps"),
    CHOICE(report_to, "none tensorboard mlflow", "none", NULL,
         "where else the log goes"),
    BOOL(plot_loss, true, ALL, NULL,
         "draw loss.png at the end"),
    BOOL(profile, false, ALL, NULL,
         "log the seconds of each kind of operation at the end; the run is slower, since nothing overlaps"),

    GROUP("parallel"),
    AUTO_COUNT(expert_parallel_size, 65536, ALL, NULL,
         "ranks that share the experts of a layer; auto: the most that divide experts and the ranks of a node"),
    REAL(expert_capacity, 1.25, ABOVE_0, ANY, ALL, NULL,
         "rows the experts of a rank work on at a time, in shares of an even load; more take several rounds"),
    COUNT(zero_stage, 3, 0, 3, ALL, NULL,
         "what is divided over the ranks: 1 the optimizer, 2 also gradients, 3 also weights"),
    CHOICE(offload, "none optimizer param full", ALL, NULL,
         "what stays in host memory: optimizer states, weights (zero_stage 3), or both"),
    TEXT(offload_dir, NULL, ALL, NULL,
         "directory on a disk of the node: what is offloaded lies in files there instead of memory"),
    BOOL(make_moe_param_leaf_module, false, ALL, NULL,
         "do not divide the experts at zero_stage 3"),
    COUNT(stage3_param_persistence_threshold, 100000, 0, MANY, ALL, NULL,
         "units (a layer's dense part, its experts, …) of up to so many elements are not divided"),
    COUNT(stage3_prefetch_bucket_size, 50000000, 0, MANY, ALL, NULL,
         "elements that are gathered ahead of their use, but at least a unit; 0: none"),
    COUNT(stage3_max_reuse_distance, 1000000000, 0, MANY, ALL, NULL,
         "a gathered unit is kept if it is used again before so many elements"),
    COUNT(ddp_timeout, 1800, 0, MANY, ALL, NULL,
         "the run ends when a rank has not answered for so long; seconds, 0: never"),
    CHOICE(device, "auto cpu cuda", ALL, NULL,
         "what computes"),
    {.key = NULL},
};

/* clang-format on */

int hy3_option_count(void)
{
    return (int)(sizeof hy3_options / sizeof *hy3_options) - 1;
}

int hy3_option_index(const struct hy3_option *option)
{
    return (int)(option - hy3_options);
}

const char *hy3_option_word(const char **list, size_t *length)
{
    const char *word = *list + strspn(*list, " ");

    *length = strcspn(word, " ");
    *list = word + *length;
    return *length > 0 ? word : NULL;
}

bool hy3_option_has_word(const char *list, const char *word)
{
    const char *item;
    size_t length;

    while ((item = hy3_option_word(&list, &length)))
        if (strlen(word) == length && memcmp(item, word, length) == 0)
            return true;
    return false;
}

const struct hy3_option *hy3_option_find(const char *key)
{
    for (const struct hy3_option *o = hy3_options; o->key; o++)
        if (o->type != HY3_GROUP &&
            (strcmp(o->key, key) == 0 || (o->aliases && hy3_option_has_word(o->aliases, key))))
            return o;
    return NULL;
}

const char *hy3_option_nearest(const char *key)
{
    static _Thread_local char best[64];
    int nearest = hy3_edit_limit(key) + 1;

    for (const struct hy3_option *o = hy3_options; o->key; o++) {
        char names[256];
        const char *list = names, *word;
        size_t length;

        if (o->type == HY3_GROUP)
            continue;
        snprintf(names, sizeof names, "%s %s", o->key, o->aliases ? o->aliases : "");
        while ((word = hy3_option_word(&list, &length))) {
            char name[64];
            int distance;

            snprintf(name, sizeof name, "%.*s", (int)length, word);
            distance = hy3_edit_distance(key, name);
            if (distance < nearest) {
                nearest = distance;
                memcpy(best, name, sizeof best);
            }
        }
    }
    return nearest <= hy3_edit_limit(key) ? best : NULL;
}

static void describe_count(const struct hy3_option *o, char *out, size_t size)
{
    if (o->count.automatic)
        snprintf(out, size, "a whole number, 1 to %" PRId64 ", or auto", o->count.high);
    else if (o->count.high == MANY)
        snprintf(out, size, "a whole number, %" PRId64 " or more", o->count.low);
    else
        snprintf(out, size, "a whole number, %" PRId64 " to %" PRId64, o->count.low, o->count.high);
}

static void describe_real(const struct hy3_option *o, char *out, size_t size)
{
    double low = o->real.low, high = o->real.high;

    if (low == ABOVE_0)
        snprintf(out, size, "a number above 0");
    else if (high == BELOW_1)
        snprintf(out, size, "a number from %g to below 1", low);
    else if (high == ANY)
        snprintf(out, size, "a number, %g or more", low);
    else
        snprintf(out, size, "a number, %g to %g", low, high);
}

void hy3_option_describe(const struct hy3_option *option, char *out, size_t size)
{
    const char *list = option->text, *word, *before = "one of ";
    size_t length, used = 0;

    switch (option->type) {
    case HY3_COUNT:
        describe_count(option, out, size);
        return;
    case HY3_REAL:
        describe_real(option, out, size);
        return;
    case HY3_BOOL:
        snprintf(out, size, "true or false");
        return;
    case HY3_CHOICE:
        for (; (word = hy3_option_word(&list, &length)) && used < size; before = ", ")
            used += (size_t)snprintf(out + used, size - used, "%s%.*s", before, (int)length, word);
        return;
    case HY3_SIZE:
        snprintf(out, size, "a size such as \"5GB\" or \"512MiB\"");
        return;
    case HY3_LIST:
        snprintf(out, size, "text or a list of texts");
        return;
    default:
        snprintf(out, size, "text");
    }
}

void hy3_option_note(const struct hy3_option *option, char *out, size_t size)
{
    char parts[3][256] = {"", "", ""};
    size_t used = 0;

    if (option->type != HY3_TEXT && option->type != HY3_BOOL)
        hy3_option_describe(option, parts[0], sizeof parts[0]);
    if (option->aliases)
        snprintf(parts[1], sizeof parts[1], "also %s", option->aliases);
    if (option->only)
        snprintf(parts[2], sizeof parts[2], "in this version: %s",
                 *option->only ? option->only : "only the default");
    *out = '\0';
    for (int i = 0; i < 3; i++)
        if (parts[i][0] != '\0' && used < size)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "; " : "(", parts[i]);
    if (used > 0 && used < size)
        snprintf(out + used, size - used, ")");
}

bool hy3_option_is_set(const struct hy3_option *option, const struct hy3_config *config)
{
    const void *value = hy3_option_value(option, config);

    switch (option->type) {
    case HY3_TEXT:
    case HY3_SIZE:
    case HY3_CHOICE:
        return *(char *const *)value != NULL;
    case HY3_LIST:
        return ((const struct hy3_list *)value)->count > 0;
    case HY3_REAL:
        return *(const double *)value >= option->real.low;
    default:
        return true;
    }
}
