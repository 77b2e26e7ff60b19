/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - the option table, and what follows from an entry alone. */
#include "config/options.h"

#include "config/nearest.h"

#include <float.h>
#include <inttypes.h>
#include <strings.h>

/* Bounds of open intervals, and none. */
#define ABOVE_0 DBL_MIN
#define BELOW_1 0x1.fffffffffffffp-1
#define MANY    0

#define ALL     NULL /* every value is available in this version */
#define DEFAULT ""   /* none but the default is */

/* clang-format off */
#define FIELD(field, type_, only_, aliases_, resume_, help_) \
    .key = #field, .type = type_, .offset = offsetof(struct hy3_config, field), .only = only_, .aliases = aliases_, \
    .resume = HY3_RESUME_##resume_, .help = help_
#define GROUP(title) {.key = title, .type = HY3_GROUP}
#define TEXT(field, initial, ...) {FIELD(field, HY3_TEXT, __VA_ARGS__), .text = initial}
#define LIST(field, initial, ...) {FIELD(field, HY3_LIST, __VA_ARGS__), .text = initial}
#define SIZE(field, initial, ...) {FIELD(field, HY3_SIZE, __VA_ARGS__), .text = initial}
#define BOOL(field, initial, ...) {FIELD(field, HY3_BOOL, __VA_ARGS__), .truth = initial}
#define CHOICE(field, list, ...) \
    {FIELD(field, HY3_CHOICE, __VA_ARGS__), .words = (const char *const[]){list(HY3_CHOICE_WORD, ) NULL}}
#define SET(field, list, ...) \
    {FIELD(field, HY3_SET, __VA_ARGS__), .words = (const char *const[]){list(HY3_CHOICE_WORD, ) NULL}}
#define COUNT(field, initial, low, high, ...) \
    {FIELD(field, HY3_COUNT, __VA_ARGS__), .count = {initial, low, high, false}}
#define AUTO_COUNT(field, high, ...) {FIELD(field, HY3_COUNT, __VA_ARGS__), .count = {0, 1, high, true}}
#define REAL(field, initial, low, high, ...) {FIELD(field, HY3_REAL, __VA_ARGS__), .real = {initial, low, high}}

const struct hy3_option hy3_options[] = {
    /*     key, default (choice: its words, the first), range, available values, aliases,
           what a change means to a run that is continued, help */
    GROUP("model"),
    TEXT(model_name_or_path, NULL, ALL, NULL, FREE,
         "directory of the base model in Hugging Face format, inner or outer names"),
    TEXT(tokenizer_name_or_path, NULL, ALL, "tokenizer_name", FREE,
         "directory of the tokenizer (default: the model's)"),
    CHOICE(load_format, HY3_LOAD_FORMATS, ALL, NULL, FREE,
         "dummy: only config.json is read, weights are random: for measuring time and memory"),
    CHOICE(base_dtype, HY3_BASE_DTYPES, ALL, NULL, FIXED,
         "frozen layers: in bf16, or in 8 bits with scales, at half the memory; not with finetuning_type full"),
    CHOICE(finetuning_type, HY3_FINETUNING_TYPES, ALL, NULL, FIXED,
         "weights to train: all, a LoRA adapter, attention only, or some layers (freeze_trainable_layers)"),
    COUNT(lora_rank, 64, 1, 65536, ALL, NULL, FIXED,
         "rank of the LoRA adapter"),
    REAL(lora_alpha, 128, ABOVE_0, MANY, ALL, NULL, FIXED,
         "scale of the adapter: lora_alpha / lora_rank (see use_rslora)"),
    REAL(lora_dropout, 0.05, 0, BELOW_1, ALL, NULL, FIXED,
         "dropout probability of the adapter's inputs"),
    BOOL(use_rslora, false, ALL, NULL, FIXED,
         "rank-stabilized LoRA: the scale is lora_alpha / sqrt(lora_rank)"),
    REAL(loraplus_lr_ratio, 1, ABOVE_0, MANY, ALL, NULL, MAY_CHANGE,
         "learning rate of the factors B as a multiple of that of A (LoRA+)"),
    LIST(lora_target, "q_proj k_proj v_proj o_proj", ALL, "target_modules", FIXED,
         "modules with an adapter: q_proj k_proj v_proj o_proj, gate_proj up_proj down_proj, experts, all"),
    LIST(additional_target, NULL, ALL, "modules_to_save", FIXED,
         "modules trained whole beside the adapter and kept in its file: embed_tokens, lm_head"),
    TEXT(adapter_name_or_path, NULL, ALL, NULL, FIXED,
         "PEFT adapter to continue training; its rank, scale, targets and whole modules apply"),
    BOOL(freeze_router, false, ALL, NULL, FIXED,
         "keep the routers as they are; their biases always are (finetuning_type full or freeze)"),
    COUNT(freeze_trainable_layers, 2, -65536, 65536, ALL, NULL, FIXED,
         "layers to train with finetuning_type freeze: the last N, or the first -N if below 0"),
    LIST(freeze_trainable_modules, "all", ALL, NULL, FIXED,
         "what of these layers: self_attn mlp input_layernorm post_attention_layernorm, or all"),
    LIST(freeze_extra_modules, NULL, ALL, NULL, FIXED,
         "what else: embed_tokens, lm_head, norm (all norms, as LLaMA-Factory has it)"),

    GROUP("data"),
    LIST(train_data_file, NULL, ALL, "train_file", FREE,
         "files, directories or patterns (a/*.jsonl) of JSON Lines or JSON arrays; FILE#N: its first N samples"),
    TEXT(dataset_dir, NULL, ALL, NULL, FREE,
         "directory of dataset_info.json"),
    LIST(dataset, NULL, ALL, NULL, FREE,
         "data sets named in dataset_info.json, instead of train_data_file"),
    COUNT(max_seq_length, 4096, 1, MANY, ALL, "cutoff_len max_length", FIXED,
         "maximum length of a sample in tokens; truncation_strategy says what becomes of longer ones"),
    CHOICE(truncation_strategy, HY3_TRUNCATIONS, ALL, NULL, FIXED,
         "of a sample that is longer: cut its end, cut its beginning, or leave it out"),
    COUNT(max_samples, 0, 0, MANY, ALL, "max_train_samples", FIXED,
         "use only the first N samples of each file or data set; 0: all"),
    COUNT(max_bad_samples, 0, 0, MANY, ALL, NULL, FREE,
         "malformed input lines to skip before aborting"),
    BOOL(packing, false, ALL, NULL, FIXED,
         "fill rows of packing_length with whole samples, which do not see each other; a row counts as a sample"),
    COUNT(packing_length, 0, 0, 1 << 30, ALL, NULL, FIXED,
         "tokens of a row of packing, max_seq_length or more; 0: max_seq_length"),
    TEXT(cache_dir, NULL, ALL, NULL, FREE,
         "directory of tokenized data (default: output_dir/cache)"),
    BOOL(overwrite_cache, false, ALL, NULL, FREE,
         "tokenize again even if the token file is up to date"),
    BOOL(disable_shuffling, false, ALL, NULL, FIXED,
         "keep the samples in file order"),
    CHOICE(template, HY3_TEMPLATES, ALL, NULL, FIXED,
         "chat template; the tokenizer selects its dialect"),
    CHOICE(special_tokens_in_content, HY3_SPECIAL_TOKENS, ALL, NULL, FIXED,
         "a control token inside a text of a line: a bad line, plain characters, or the token"),
    BOOL(guess_form, false, ALL, NULL, FIXED,
         "of train_data_file: question and answer under other keys than messages, as ms-swift finds them"),
    BOOL(split_think, false, ALL, NULL, FIXED,
         "a think block in front of an answer is its reasoning; data sets of dataset_info.json always"),
    CHOICE(reasoning_effort, HY3_REASONING_EFFORTS, ALL, NULL, FIXED,
         "of lines that have none; auto: high where an answer has reasoning; default: auto as split_think"),
    BOOL(enable_thinking, true, ALL, NULL, FIXED,
         "false: the reasoning of every answer is removed, and every line is no_think"),
    TEXT(default_system, NULL, ALL, NULL, FIXED,
         "system message of a line without one"),
    BOOL(mask_history, false, ALL, NULL, FIXED,
         "only the last turn of a line is learned"),
    BOOL(preserve_thinking, true, ALL, NULL, FIXED,
         "false: the reasoning of answers before the last turn is removed"),
    CHOICE(last_turn, HY3_LAST_TURNS, ALL, NULL, FIXED,
         "for these two: the last answer, or all answers (and calls) behind the last user's message"),
    BOOL(mask_empty_think, false, ALL, NULL, FIXED,
         "a think block with nothing in it is not learned"),
    LIST(eval_data_file, NULL, ALL, "validation_file", FREE,
         "evaluation files, as train_data_file"),
    LIST(eval_dataset, NULL, ALL, NULL, FREE,
         "evaluation data sets named in dataset_info.json, together one eval_loss; instead of eval_data_file"),
    REAL(val_size, 0, 0, MANY, ALL, NULL, FIXED,
         "training samples held out for evaluation: a fraction below 1 (at least one), or a number"),
    CHOICE(eval_strategy, HY3_EVAL_STRATEGIES, ALL, "evaluation_strategy", FREE,
         "evaluate every eval_steps, after each epoch, or only at the end (no)"),
    REAL(eval_steps, 0, 0, MANY, ALL, NULL, FREE,
         "evaluate every N steps and at the end; below 1: a share of all steps; 0: only at the end"),
    BOOL(use_dummy_data, false, ALL, NULL, FIXED,
         "train on random tokens, to measure speed and memory without data"),

    GROUP("training"),
    TEXT(output_dir, NULL, ALL, NULL, FREE,
         "directory for all output"),
    BOOL(overwrite_output_dir, false, ALL, NULL, FREE,
         "set another run in output_dir aside (output_dir/previous) instead of refusing to start"),
    BOOL(private_files, true, ALL, NULL, FREE,
         "caches, rejected lines and checkpoints are their owner's alone; false: umask decides"),
    COUNT(per_device_train_batch_size, 1, 1, 1 << 20, ALL, NULL, MAY_CHANGE,
         "samples, or rows of packing, per micro-batch and rank"),
    COUNT(gradient_accumulation_steps, 1, 1, 1 << 20, ALL, NULL, MAY_CHANGE,
         "micro-batches per step and rank"),
    REAL(num_train_epochs, 3, ABOVE_0, MANY, ALL, NULL, MAY_CHANGE,
         "number of epochs"),
    REAL(max_epochs, 0, 0, MANY, ALL, NULL, MAY_CHANGE,
         "end the run after N epochs, with the learning rates of the whole one; 0: not before its end"),
    COUNT(max_steps, -1, -1, MANY, ALL, NULL, MAY_CHANGE,
         "number of steps, overrides num_train_epochs; -1: not set"),
    REAL(learning_rate, 1e-5, 0, 1, ALL, NULL, MAY_CHANGE,
         "peak learning rate, after warmup"),
    REAL(min_lr, -1, 0, 1, ALL, NULL, MAY_CHANGE,
         "final learning rate of cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay"),
    REAL(min_lr_rate, -1, 0, 1, ALL, "min_lr_ratio", MAY_CHANGE,
         "final learning rate as a fraction of learning_rate"),
    CHOICE(lr_scheduler_type, HY3_LR_SCHEDULER_TYPES, ALL, NULL, MAY_CHANGE,
         "learning rate schedule; what others call lr_scheduler_kwargs are keys here: lr_…, min_lr…, warmup_lr_rate"),
    REAL(lr_num_cycles, -1, 0, MANY, ALL, NULL, MAY_CHANGE,
         "periods of the cosine schedules (default: 0.5, down once), starts of cosine_with_restarts (1)"),
    REAL(lr_power, 1, ABOVE_0, MANY, ALL, NULL, MAY_CHANGE,
         "exponent of polynomial"),
    REAL(lr_end, 1e-7, 0, 1, ALL, NULL, MAY_CHANGE,
         "final learning rate of polynomial"),
    COUNT(lr_timescale, 0, 0, MANY, ALL, NULL, MAY_CHANGE,
         "steps in which inverse_sqrt falls to 0.71; 0: the warmup steps, without any 10000"),
    COUNT(lr_num_decay_steps, 0, 0, MANY, ALL, NULL, MAY_CHANGE,
         "decay steps of warmup_stable_decay, which needs them"),
    COUNT(lr_num_stable_steps, -1, -1, MANY, ALL, NULL, MAY_CHANGE,
         "steps of warmup_stable_decay between warmup and decay; -1: what the others leave"),
    CHOICE(lr_warmup_type, HY3_LR_WARMUP_TYPES, ALL, NULL, MAY_CHANGE,
         "warmup of warmup_stable_decay, from min_lr_rate"),
    CHOICE(lr_decay_type, HY3_LR_DECAY_TYPES, ALL, NULL, MAY_CHANGE,
         "decay of warmup_stable_decay"),
    REAL(warmup_lr_rate, -1, 0, 1, ALL, NULL, MAY_CHANGE,
         "first learning rate of cosine_warmup_with_min_lr, of learning_rate (default: 1 / warmup steps)"),
    REAL(warmup_ratio, 0, 0, 1, ALL, NULL, MAY_CHANGE,
         "fraction of all steps used for linear warmup"),
    COUNT(warmup_steps, 0, 0, MANY, ALL, NULL, MAY_CHANGE,
         "warmup steps; above 0 they override warmup_ratio"),
    CHOICE(optim, HY3_OPTIMS, ALL, NULL, MAY_CHANGE,
         "AdamW's moments: fp32 (10 bytes of state a bf16 weight), blocks of 8-bit codes (4), or bf16 (6)"),
    REAL(weight_decay, 0, 0, MANY, ALL, NULL, MAY_CHANGE,
         "AdamW weight decay; norms have none"),
    REAL(adam_beta1, 0.9, 0, BELOW_1, ALL, NULL, FIXED,
         "AdamW beta1, decay of the first moment"),
    REAL(adam_beta2, 0.999, 0, BELOW_1, ALL, NULL, FIXED,
         "AdamW beta2, decay of the second moment"),
    REAL(adam_epsilon, 1e-8, ABOVE_0, MANY, ALL, NULL, FIXED,
         "AdamW epsilon"),
    REAL(max_grad_norm, 1, 0, MANY, ALL, NULL, MAY_CHANGE,
         "clip the global gradient norm to this; 0: no clipping"),
    REAL(label_smoothing_factor, 0, 0, BELOW_1, ALL, NULL, MAY_CHANGE,
         "share of each label that is spread evenly over the vocabulary; 0: none"),
    REAL(neftune_noise_alpha, 0, 0, MANY, ALL, NULL, MAY_CHANGE,
         "NEFTune: uniform noise of alpha / sqrt(length * hidden_size) on the embeddings; 0: none"),
    COUNT(seed, 42, 0, MANY, ALL, NULL, FIXED,
         "random seed (sample order, initialization, dropout, noise)"),
    BOOL(bf16, true, ALL, NULL, FIXED,
         "bf16 weights and activations with fp32 master weights; false: all fp32"),
    BOOL(gradient_checkpointing, true, ALL, NULL, FREE,
         "recompute activations in the backward pass: less memory, same result"),
    CHOICE(recompute, HY3_RECOMPUTES, ALL, NULL, FREE,
         "of gradient_checkpointing: whole layers; all but attention, which is kept; or nothing, as without it"),
    BOOL(offload_activations, false, ALL, NULL, FREE,
         "what gradient_checkpointing keeps waits in host memory and comes back a layer ahead"),
    CHOICE(flash_attn, HY3_FLASH_ATTNS, ALL, NULL, FREE,
         "accepted for compatibility, no effect: attention never forms the T x T matrix"),

    GROUP("saving and logging"),
    CHOICE(save_strategy, HY3_SAVE_STRATEGIES, ALL, NULL, FREE,
         "save a checkpoint every save_steps, after each epoch, only at the end (no), or after a best evaluation"),
    REAL(save_steps, 500, 0, MANY, ALL, NULL, FREE,
         "save a checkpoint every N steps and at the end; below 1: a share of all steps; 0: only at the end"),
    BOOL(save_async, false, ALL, NULL, FREE,
         "write checkpoints in the background from a copy in host memory"),
    CHOICE(save_failure, HY3_SAVE_FAILURES, ALL, NULL, FREE,
         "stop or continue when a checkpoint cannot be saved; the previous one is kept"),
    REAL(max_hours, 0, 0, MANY, ALL, NULL, FREE,
         "save a checkpoint and stop before N hours have passed; 0: no limit"),
    COUNT(save_total_limit, 0, 0, MANY, ALL, NULL, FREE,
         "keep the N newest checkpoints, the last one written and the best among them; 0: all"),
    BOOL(load_best_model_at_end, false, ALL, NULL, MAY_CHANGE,
         "the result is the checkpoint with the best evaluation, not the last one"),
    CHOICE(metric_for_best_model, HY3_METRICS, ALL, NULL, MAY_CHANGE,
         "what is compared for load_best_model_at_end, save_strategy = best, early stopping; loss: the same"),
    BOOL(greater_is_better, false, ALL, NULL, MAY_CHANGE,
         "the highest metric is the best, not the lowest"),
    COUNT(early_stopping_patience, 0, 0, MANY, ALL, "early_stopping_steps", MAY_CHANGE,
         "end the run after N evaluations in a row without an improvement; 0: never"),
    REAL(early_stopping_threshold, 0, 0, MANY, ALL, NULL, MAY_CHANGE,
         "an improvement of the best metric by no more than this counts as none"),
    BOOL(save_only_model, false, ALL, NULL, FREE,
         "save checkpoints without optimizer state; only that of a stopped run can be resumed"),
    CHOICE(save_format, HY3_SAVE_FORMATS, ALL, NULL, MAY_CHANGE,
         "tensor names of the saved model; input: as in the base model"),
    SIZE(max_shard_size, "5GB", ALL, NULL, MAY_CHANGE,
         "maximum size of a weight file"),
    TEXT(resume_from_checkpoint, "auto", ALL, NULL, FREE,
         "checkpoint to resume: auto or true (the newest in output_dir), none or false, or a directory"),
    REAL(logging_steps, 1, ABOVE_0, MANY, ALL, NULL, FREE,
         "log to train_log.jsonl every N steps; below 1: a share of all steps"),
    SET(report_to, HY3_REPORT_TOS, ALL, NULL, FREE,
         "additional logging backends; kept for later: this version writes none of them"),
    BOOL(plot_loss, true, ALL, NULL, FREE,
         "plot loss.png at the end"),
    BOOL(profile, false, ALL, NULL, FREE,
         "log the time of each operation at the end; slows the run: no overlap"),
    TEXT(rates, NULL, ALL, NULL, FREE,
         "h100, h200 (or by a GPU's name), or a file of hy3_plan --probe: log predicted seconds, choose groups"),

    GROUP("parallel"),
    AUTO_COUNT(expert_parallel_size, 65536, ALL, NULL, FREE,
         "ranks per expert group; auto: the fastest by known rates, else the most that divide a node's ranks"),
    REAL(expert_capacity, 1.25, ABOVE_0, MANY, ALL, NULL, FREE,
         "rows per rank and round of expert work, relative to a balanced load"),
    BOOL(hierarchical_exchange, false, ALL, NULL, FREE,
         "expert groups over nodes: a token crosses the network once per node, then spreads inside it"),
    COUNT(sequence_parallel_size, 1, 1, 65536, ALL, NULL, FREE,
         "consecutive ranks of a node that share samples; per_device_train_batch_size is of such a group"),
    COUNT(zero_stage, 3, 0, 3, ALL, NULL, FREE,
         "sharded over the ranks: 1 optimizer state, 2 also gradients, 3 also weights"),
    AUTO_COUNT(zero_group_size, 65536, ALL, NULL, FREE,
         "ranks that zero_stage shards over; auto: all up to 64, of more the largest divisor from 32 to 64"),
    CHOICE(grad_dtype, HY3_GRAD_DTYPES, ALL, NULL, MAY_CHANGE,
         "precision in which gradients travel to the ranks that update (zero_stage 1 to 3); summed up in fp32 there"),
    CHOICE(offload, HY3_OFFLOADS, ALL, NULL, FREE,
         "what to keep in host memory: optimizer state, weights (zero_stage 3), both, or what does not fit the GPUs"),
    REAL(offload_ratio, 1, 0, 1, ALL, NULL, FREE,
         "the share of it, spread over the layers; of full the first half is optimizer state, then weights follow"),
    TEXT(offload_dir, NULL, ALL, NULL, FREE,
         "offload to memory-mapped files in this directory, on a local disk"),
    BOOL(make_moe_param_leaf_module, false, ALL, NULL, FREE,
         "do not shard the experts at zero_stage 3"),
    COUNT(stage3_param_persistence_threshold, 100000, 0, MANY, ALL, NULL, FREE,
         "do not shard units (a layer's dense part, its experts, …) of up to N elements"),
    COUNT(stage3_prefetch_bucket_size, 50000000, 0, MANY, ALL, NULL, FREE,
         "gather the next layer ahead, and up to N elements; 0: no prefetch"),
    COUNT(stage3_max_reuse_distance, 1000000000, 0, MANY, ALL, NULL, FREE,
         "keep a gathered unit that is used again within N elements"),
    COUNT(ddp_timeout, 1800, 0, MANY, ALL, NULL, FREE,
         "abort after N seconds without an answer from a rank; 0: never"),
    CHOICE(device, HY3_DEVICES, ALL, NULL, FREE,
         "device to run on"),
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

const struct hy3_option *hy3_option_find(const struct hy3_option *table, const char *key)
{
    for (const struct hy3_option *o = table; o->key; o++)
        if (o->type != HY3_GROUP &&
            (strcmp(o->key, key) == 0 || (o->aliases && hy3_option_has_word(o->aliases, key))))
            return o;
    return NULL;
}

const char *hy3_option_nearest(const struct hy3_option *table, const char *key)
{
    static _Thread_local char best[64];
    int nearest = hy3_edit_limit(key) + 1;

    for (const struct hy3_option *o = table; o->key; o++) {
        char names[256];
        const char *list = names, *word;
        size_t length;

        if (o->type == HY3_GROUP || o->type == HY3_WORD)
            continue;
        snprintf(names, sizeof names, "%s %s", o->key, o->aliases ? o->aliases : "");
        while ((word = hy3_option_word(&list, &length))) {
            char name[64];
            int distance;

            snprintf(name, sizeof name, "%.*s", (int)length, word);
            distance = strcasecmp(key, name) == 0 ? 0 : hy3_edit_distance(key, name);
            if (distance < nearest) {
                nearest = distance;
                memcpy(best, name, sizeof best);
            }
        }
    }
    return nearest <= hy3_edit_limit(key) ? best : NULL;
}

int hy3_option_choice(const struct hy3_option *option, const char *word)
{
    for (int i = 0; option->words[i]; i++)
        if (strcmp(option->words[i], word) == 0)
            return i;
    return -1;
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
    else if (high == MANY)
        snprintf(out, size, "a number, %g or more", low);
    else
        snprintf(out, size, "a number, %g to %g", low, high);
}

void hy3_option_describe(const struct hy3_option *option, char *out, size_t size)
{
    size_t used = 0;

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
    case HY3_SET:
        for (int i = 0; option->words[i] && used < size; i++)
            used += (size_t)snprintf(out + used, size - used, "%s%s",
                                     i > 0                        ? ", "
                                     : option->type == HY3_CHOICE ? "one of "
                                                                  : "one or more of ",
                                     option->words[i]);
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
        return *(char *const *)value != NULL;
    case HY3_LIST:
        return ((const struct hy3_list *)value)->count > 0;
    case HY3_REAL:
        return *(const double *)value >= option->real.low;
    default:
        return true;
    }
}
