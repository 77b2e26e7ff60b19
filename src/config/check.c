/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - values that this version does not support, contradicting keys, missing keys. */
#include "config/check.h"

#include "base/log.h"
#include "base/memory.h"
#include "config/assign.h"
#include "config/version.h"

#include <math.h>

struct check {
    const struct hy3_config *config;
    const struct hy3_setting *const *given;
    struct hy3_problems *problems;
};

static const struct hy3_setting *given(const struct check *c, const char *key)
{
    return c->given[hy3_option_index(hy3_option_find(hy3_options, key))];
}

/* Where the key was given, "" where it was not. */
static const char *where(const struct check *c, const char *key)
{
    return given(c, key) ? given(c, key)->where : "";
}

/* "a" or "b"; empty words: leave it at VALUE, or leave it out. */
static void advise(const struct hy3_option *o, const char *initial, char *out, size_t size)
{
    const char *list = o->only, *word, *quote = o->type == HY3_COUNT ? "" : "\"";
    size_t length, used = 0;

    if (*list == '\0') {
        snprintf(out, size, *initial ? "leave it at %s" : "leave it out%s", initial);
        return;
    }
    while ((word = hy3_option_word(&list, &length)) && used < size)
        used += (size_t)snprintf(out + used, size - used, "%s%s%.*s%s", used ? " or " : "use ",
                                 quote, (int)length, word, quote);
}

static bool is_available(const struct hy3_option *o, const char *value, const char *initial)
{
    char word[64];
    size_t quoted = *value == '"';

    if (strcmp(value, initial) == 0)
        return true;
    snprintf(word, sizeof word, "%.*s", (int)(strnlen(value, 60) - 2 * quoted), value + quoted);
    return hy3_option_has_word(o->only, word);
}

static hy3_status check_available(const struct check *c, const struct hy3_option *o,
                                  const struct hy3_config *defaults)
{
    hy3_status status = HY3_OK;
    char *value = NULL, *initial = NULL, advice[128];

    if (!o->only)
        goto done;
    HY3_TRY_DONE(hy3_option_format(o, c->config, &value));
    HY3_TRY_DONE(hy3_option_format(o, defaults, &initial));
    if (is_available(o, value, initial))
        goto done;
    advise(o, initial, advice, sizeof advice);
    hy3_problem(c->problems, where(c, o->key),
                "%s = %.200s is not available in this version (%s); %s", o->key, value, HY3_VERSION,
                advice);
done:
    hy3_free(value);
    hy3_free(initial);
    return status;
}

static hy3_status check_all_available(const struct check *c)
{
    hy3_status status = HY3_OK;
    struct hy3_config defaults = {0};

    HY3_TRY_DONE(hy3_config_defaults(&defaults));
    for (const struct hy3_option *o = hy3_options; o->key; o++)
        HY3_TRY_DONE(check_available(c, o, &defaults));
done:
    hy3_config_free(&defaults);
    return status;
}

static void check_numbers(const struct check *c)
{
    const struct hy3_config *config = c->config;

    static const char *const intervals[] = {"save_steps", "eval_steps", "logging_steps"};

    for (size_t i = 0; i < sizeof intervals / sizeof *intervals; i++) {
        const struct hy3_option *o = hy3_option_find(hy3_options, intervals[i]);
        double value = *(const double *)hy3_option_value(o, config);

        if (value >= 1 && value != floor(value))
            hy3_problem(c->problems, where(c, o->key),
                        "%s = %g is neither a share below 1 nor a whole number of steps", o->key,
                        value);
    }
    if (config->max_steps == 0)
        hy3_problem(c->problems, where(c, "max_steps"),
                    "max_steps = 0 is no training; -1: num_train_epochs counts");
    if (config->min_lr >= 0 && config->min_lr_rate >= 0)
        hy3_problem(c->problems, where(c, "min_lr_rate"),
                    "min_lr and min_lr_rate are both given; keep one");
    if (config->min_lr > config->learning_rate)
        hy3_problem(c->problems, where(c, "min_lr"), "min_lr = %g is above learning_rate = %g",
                    config->min_lr, config->learning_rate);
    if (config->val_size > 1 && config->val_size != floor(config->val_size))
        hy3_problem(c->problems, where(c, "val_size"),
                    "val_size = %g is neither a fraction below 1 nor a whole number of samples",
                    config->val_size);
}

/* What transformers refuses too: get_*_schedule* of its optimization.py. */
static void check_schedule(const struct check *c)
{
    const struct hy3_config *config = c->config;

    if (config->lr_scheduler_type == HY3_LR_polynomial && config->lr_end >= config->learning_rate)
        hy3_problem(c->problems, where(c, "lr_end"),
                    "lr_end = %g of lr_scheduler_type = \"polynomial\" must be below "
                    "learning_rate = %g",
                    config->lr_end, config->learning_rate);
    if (config->lr_scheduler_type == HY3_LR_warmup_stable_decay && config->lr_num_decay_steps < 1)
        hy3_problem(c->problems, where(c, "lr_scheduler_type"),
                    "lr_scheduler_type = \"warmup_stable_decay\" needs lr_num_decay_steps (of "
                    "lr_scheduler_kwargs: num_decay_steps)");
}

/* load_best_model_at_end needs an evaluation of each checkpoint; shares of steps are compared when
 * the steps are known (train/run.c). */
static void check_best(const struct check *c)
{
    const struct hy3_config *config = c->config;
    bool by_steps = config->save_strategy == HY3_SAVE_STRATEGY_steps;
    bool evaluates_between =
        config->eval_strategy == HY3_EVAL_STRATEGY_epoch ||
        (config->eval_strategy == HY3_EVAL_STRATEGY_steps && config->eval_steps > 0);
    const char *key = config->load_best_model_at_end        ? "load_best_model_at_end"
                      : config->early_stopping_patience > 0 ? "early_stopping_patience"
                                                            : "save_strategy";

    if (!hy3_config_chooses(config))
        return;
    if (!hy3_config_evaluates(config) || !evaluates_between)
        hy3_problem(c->problems, where(c, key), "%s%s needs evaluations: set %s", key,
                    strcmp(key, "save_strategy") == 0 ? " = \"best\"" : "",
                    evaluates_between ? "eval_data_file, eval_dataset or val_size"
                                      : "eval_strategy, and eval_steps for \"steps\"");
    if (!config->load_best_model_at_end)
        return;
    if (config->save_only_model)
        hy3_problem(c->problems, where(c, "save_only_model"),
                    "load_best_model_at_end needs checkpoints with their state: leave out "
                    "save_only_model");
    if (config->save_strategy == HY3_SAVE_STRATEGY_no || (by_steps && config->save_steps <= 0))
        hy3_problem(c->problems, where(c, by_steps ? "save_steps" : "save_strategy"),
                    "load_best_model_at_end chooses among checkpoints: set save_strategy, and "
                    "save_steps for \"steps\"");
    else if (config->save_strategy != HY3_SAVE_STRATEGY_best && evaluates_between &&
             (by_steps ? config->eval_strategy != HY3_EVAL_STRATEGY_steps
                       : config->eval_strategy != HY3_EVAL_STRATEGY_epoch))
        hy3_problem(c->problems, where(c, "save_strategy"),
                    "load_best_model_at_end needs an evaluation of each checkpoint: set "
                    "save_strategy and eval_strategy to the same");
    else if (by_steps && config->save_steps >= 1 && config->eval_steps >= 1 &&
             fmod(config->save_steps, config->eval_steps) != 0)
        hy3_problem(c->problems, where(c, "save_steps"),
                    "load_best_model_at_end needs an evaluation of each checkpoint: save_steps = "
                    "%g is no multiple of eval_steps = %g",
                    config->save_steps, config->eval_steps);
}

static void check_data(const struct check *c)
{
    const struct hy3_config *config = c->config;
    bool files = config->train_data_file.count > 0, sets = config->dataset.count > 0;

    if (files && sets)
        hy3_problem(c->problems, where(c, "dataset"),
                    "train_data_file and dataset are both given; keep one");
    if (sets && !config->dataset_dir)
        hy3_problem(c->problems, where(c, "dataset"),
                    "dataset needs dataset_dir, the directory of dataset_info.json");
    if (!files && !sets && !config->use_dummy_data)
        hy3_problem(c->problems, "", "train_data_file is missing: the JSONL training files");
    if (config->packing && config->packing_length > 0 &&
        config->packing_length < config->max_seq_length)
        hy3_problem(c->problems, where(c, "packing_length"),
                    "packing_length = %lld holds no sample of max_seq_length = %lld tokens; raise "
                    "it, or leave it at 0",
                    (long long)config->packing_length, (long long)config->max_seq_length);
    if (config->eval_data_file.count > 0 && config->val_size > 0)
        hy3_problem(c->problems, where(c, "val_size"),
                    "eval_data_file and val_size are both given; keep one");
    if (config->eval_dataset.count > 0 && config->val_size > 0)
        hy3_problem(c->problems, where(c, "val_size"),
                    "eval_dataset and val_size are both given; keep one");
    if (config->eval_dataset.count > 0 && config->eval_data_file.count > 0)
        hy3_problem(c->problems, where(c, "eval_dataset"),
                    "eval_data_file and eval_dataset are both given; keep one");
    if (config->eval_dataset.count > 0 && !config->dataset_dir)
        hy3_problem(c->problems, where(c, "eval_dataset"),
                    "eval_dataset needs dataset_dir, the directory of dataset_info.json");
}

static void check_reasoning(const struct check *c)
{
    const struct hy3_config *config = c->config;

    if (!config->enable_thinking && config->reasoning_effort >= HY3_REASONING_low)
        hy3_problem(c->problems, where(c, "reasoning_effort"),
                    "reasoning_effort = \"%s\" contradicts enable_thinking = false, which removes "
                    "all reasoning",
                    hy3_config_word(config, "reasoning_effort"));
}

static void check_sft(const struct check *c)
{
    if (!c->config->model_name_or_path)
        hy3_problem(c->problems, "", "model_name_or_path is missing: the directory of the model");
    if (!c->config->output_dir)
        hy3_problem(c->problems, "", "output_dir is missing: the directory for all output");
}

static void check_tokenize(const struct check *c)
{
    if (!c->config->model_name_or_path && !c->config->tokenizer_name_or_path)
        hy3_problem(c->problems, "",
                    "tokenizer_name_or_path is missing: the directory of the tokenizer");
    if (!c->config->output_dir && !c->config->cache_dir)
        hy3_problem(c->problems, "", "cache_dir is missing: the directory of tokenized data");
    if (c->config->use_dummy_data)
        hy3_problem(c->problems, where(c, "use_dummy_data"),
                    "with use_dummy_data there is nothing to tokenize");
}

static void check_adapter(const struct check *c)
{
    const struct hy3_config *config = c->config;

    if (config->finetuning_type != HY3_FINETUNING_lora && config->adapter_name_or_path)
        hy3_problem(c->problems, where(c, "adapter_name_or_path"),
                    "adapter_name_or_path needs finetuning_type = \"lora\", not \"%s\"; merge the "
                    "adapter into the model first, or leave it out",
                    hy3_config_word(config, "finetuning_type"));
    if (config->finetuning_type == HY3_FINETUNING_lora && config->lora_target.count == 0)
        hy3_problem(c->problems, where(c, "lora_target"), "lora_target is empty");
}

static void check_base(const struct check *c)
{
    if (c->config->base_dtype == HY3_BASE_fp8 && c->config->finetuning_type == HY3_FINETUNING_full)
        hy3_problem(c->problems, where(c, "base_dtype"),
                    "base_dtype = \"fp8\" is for weights that are not trained; finetuning_type = "
                    "\"full\" trains all: use base_dtype = \"bf16\", or lora, attention or "
                    "freeze");
}

static void check_layers(const struct check *c)
{
    const struct hy3_config *config = c->config;

    if (config->finetuning_type != HY3_FINETUNING_freeze)
        return;
    if (config->freeze_trainable_layers == 0)
        hy3_problem(c->problems, where(c, "freeze_trainable_layers"),
                    "freeze_trainable_layers = 0 is no layer; N: the last N, -N: the first N");
    if (config->freeze_trainable_modules.count == 0 && config->freeze_extra_modules.count == 0)
        hy3_problem(c->problems, where(c, "freeze_trainable_modules"),
                    "freeze_trainable_modules and freeze_extra_modules are both empty: nothing "
                    "would be trained");
}

static bool moves_weights_without_stage(const struct hy3_config *config)
{
    bool moves = config->offload == HY3_OFFLOAD_param ||
                 (config->offload == HY3_OFFLOAD_full && config->offload_ratio > 0.5);

    return moves && config->zero_stage != 3;
}

static bool has_idle_offload_dir(const struct hy3_config *config)
{
    return config->offload_dir && config->offload == HY3_OFFLOAD_none;
}

static bool has_idle_offload_ratio(const struct hy3_config *config)
{
    return config->offload_ratio < 1 &&
           (config->offload == HY3_OFFLOAD_none || config->offload == HY3_OFFLOAD_auto);
}

bool hy3_config_can_offload(const struct hy3_config *config)
{
    return !moves_weights_without_stage(config) && !has_idle_offload_dir(config);
}

static void check_recompute(const struct check *c)
{
    const struct hy3_config *config = c->config;
    bool keeps_all = !config->gradient_checkpointing || config->recompute == HY3_RECOMPUTE_none;

    if (config->recompute == HY3_RECOMPUTE_selective && !config->gradient_checkpointing)
        hy3_problem(c->problems, where(c, "recompute"),
                    "recompute = \"selective\" has no effect without gradient_checkpointing; leave "
                    "one of them out");
    if (config->offload_activations && config->device == HY3_DEVICE_cpu)
        hy3_log(HY3_LOG_WARN,
                "offload_activations saves no memory with device = \"cpu\", whose "
                "memory is the host's");
    if (config->offload_activations && keeps_all)
        hy3_problem(c->problems, where(c, "offload_activations"),
                    "offload_activations moves what gradient_checkpointing keeps, a layer's input; "
                    "with %s all activations stay on the device",
                    config->gradient_checkpointing ? "recompute = \"none\""
                                                   : "gradient_checkpointing = false");
}

static void check_parallel(const struct check *c)
{
    const struct hy3_config *config = c->config;

    if (config->grad_dtype == HY3_GRAD_bf16 && config->zero_stage == 0)
        hy3_problem(
            c->problems, where(c, "grad_dtype"),
            "grad_dtype = \"bf16\" is for gradients that are sharded; set zero_stage = 1, 2 "
            "or 3, or leave it out");
    if (moves_weights_without_stage(config))
        hy3_problem(c->problems, where(c, "offload"),
                    "offload = \"%s\" moves weights, which needs zero_stage = 3, not %lld",
                    hy3_config_word(config, "offload"), (long long)config->zero_stage);
    if (has_idle_offload_dir(config))
        hy3_problem(c->problems, where(c, "offload_dir"),
                    "offload_dir has no effect with offload = \"none\"; set offload, or leave it "
                    "out");
    if (config->offload != HY3_OFFLOAD_none && config->offload_ratio <= 0)
        hy3_problem(c->problems, where(c, "offload_ratio"),
                    "offload_ratio = 0 moves nothing; set offload = \"none\", or a ratio above 0");
    else if (has_idle_offload_ratio(config))
        hy3_problem(c->problems, where(c, "offload_ratio"),
                    "offload_ratio has no effect with offload = \"%s\"%s; leave it out",
                    hy3_config_word(config, "offload"),
                    config->offload == HY3_OFFLOAD_auto ? ", which finds it" : "");
}

/* Whether the key has another value than its default; a run's own config.cfg gives all keys. */
static bool is_changed(const struct check *c, const char *key)
{
    struct hy3_config defaults = {0};
    const struct hy3_option *o = hy3_option_find(hy3_options, key);
    char *value = NULL, *initial = NULL;
    bool changed = hy3_config_defaults(&defaults) == HY3_OK &&
                   hy3_option_format(o, c->config, &value) == HY3_OK &&
                   hy3_option_format(o, &defaults, &initial) == HY3_OK &&
                   strcmp(value, initial) != 0;

    hy3_free(value);
    hy3_free(initial);
    hy3_config_free(&defaults);
    return changed;
}

/* Keys of some finetuning types that are given with another, or beside an adapter that has its
 * own. */
static void warn_of_types(const struct check *c)
{
    enum { LORA = 1 << HY3_FINETUNING_lora, FREEZE = 1 << HY3_FINETUNING_freeze };

    static const struct {
        const char *key;
        int types;
        bool is_adapters; /* adapter_name_or_path has a value of its own */
    } keys[] = {{"lora_rank", LORA, true},
                {"lora_alpha", LORA, true},
                {"use_rslora", LORA, true},
                {"lora_dropout", LORA, false},
                {"loraplus_lr_ratio", LORA, false},
                {"lora_target", LORA, true},
                {"additional_target", LORA, true},
                {"freeze_router", 1 << HY3_FINETUNING_full | FREEZE, false},
                {"freeze_trainable_layers", FREEZE, false},
                {"freeze_trainable_modules", FREEZE, false},
                {"freeze_extra_modules", FREEZE, false}};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!is_changed(c, keys[i].key))
            continue;
        if (!(keys[i].types & 1 << c->config->finetuning_type))
            hy3_log(HY3_LOG_WARN, "%s has no effect with finetuning_type = \"%s\"", keys[i].key,
                    hy3_config_word(c->config, "finetuning_type"));
        else if (c->config->adapter_name_or_path && keys[i].is_adapters)
            hy3_log(HY3_LOG_WARN, "%s has no effect: that of adapter_name_or_path applies",
                    keys[i].key);
    }
}

/* Settings that are allowed but have no effect. */
static void warn(const struct check *c)
{
    const struct hy3_config *config = c->config;

    if (config->warmup_steps > 0 && config->warmup_ratio > 0)
        hy3_log(HY3_LOG_WARN, "warmup_steps = %lld overrides warmup_ratio",
                (long long)config->warmup_steps);
    for (const struct hy3_option *o = hy3_options; o->key; o++)
        if (!hy3_config_is_of_schedule(o->key, hy3_config_word(config, "lr_scheduler_type")) &&
            is_changed(c, o->key))
            hy3_log(HY3_LOG_WARN, "%s has no effect with lr_scheduler_type = \"%s\"", o->key,
                    hy3_config_word(config, "lr_scheduler_type"));
    if (config->lr_scheduler_type == HY3_LR_constant &&
        (config->warmup_steps > 0 || config->warmup_ratio > 0))
        hy3_log(HY3_LOG_WARN,
                "%s has no effect with lr_scheduler_type = \"constant\"; constant_with_warmup is "
                "the one with a warmup",
                config->warmup_steps > 0 ? "warmup_steps" : "warmup_ratio");
    if (config->report_to != 0)
        hy3_log(HY3_LOG_WARN,
                "report_to is kept in config.cfg; this version (%s) writes train_log.jsonl and "
                "loss.png only",
                HY3_VERSION);
    if (config->packing_length > 0 && !config->packing)
        hy3_log(HY3_LOG_WARN, "packing_length has no effect without packing");
    if (config->dataset_dir && config->dataset.count == 0 && config->eval_dataset.count == 0)
        hy3_log(HY3_LOG_WARN, "dataset_dir has no effect without dataset");
    if (config->greater_is_better && hy3_config_chooses(config))
        hy3_log(HY3_LOG_WARN, "greater_is_better: the highest eval_loss counts as the best");
    warn_of_types(c);
    if (!hy3_config_evaluates(config) &&
        (config->eval_steps > 0 || config->eval_strategy == HY3_EVAL_STRATEGY_epoch))
        hy3_log(HY3_LOG_WARN, "%s has no effect without eval_data_file, eval_dataset or val_size",
                config->eval_steps > 0 ? "eval_steps" : "eval_strategy");
}

hy3_status hy3_config_check(const struct hy3_config *config,
                            const struct hy3_setting *const *settings, const char *program,
                            struct hy3_problems *problems)
{
    const struct check c = {.config = config, .given = settings, .problems = problems};

    HY3_TRY(check_all_available(&c));
    check_numbers(&c);
    check_schedule(&c);
    check_best(&c);
    check_data(&c);
    check_reasoning(&c);
    check_adapter(&c);
    check_base(&c);
    check_layers(&c);
    check_parallel(&c);
    check_recompute(&c);
    if (strcmp(program, "hy3_tokenize") == 0)
        check_tokenize(&c);
    else
        check_sft(&c);
    if (problems->count == 0)
        warn(&c);
    return HY3_OK;
}
