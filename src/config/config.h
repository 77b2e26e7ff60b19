/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - the configuration of a run: one struct, filled from the option table (options.h).
 *
 * The name of a field is the key in files, on the command line, in --help, in the manual and in
 * messages. Only app/, train/ and the programs see this struct; every module below takes its own
 * small one. */
#pragma once

#include "base/error.h"

#include <mpi.h>

/* The choices of the configuration: their words in the file, of which enum constants and entries
 * of the option table are made. The first word is the default. */
/* clang-format off */
#define HY3_FINETUNING_TYPES(X, P)   X(P, full) X(P, lora) X(P, attention) X(P, freeze)
#define HY3_LOAD_FORMATS(X, P)       X(P, auto) X(P, dummy)
#define HY3_TEMPLATES(X, P)          X(P, hy_v3)
#define HY3_TRUNCATIONS(X, P)        X(P, right) X(P, left) X(P, delete)
#define HY3_SPECIAL_TOKENS(X, P)     X(P, reject) X(P, text) X(P, token)
#define HY3_REASONING_EFFORTS(X, P)  X(P, default) X(P, auto) X(P, no_think) X(P, low) X(P, high)
#define HY3_LR_SCHEDULER_TYPES(X, P) X(P, cosine_with_min_lr) X(P, cosine) X(P, linear) \
                                     X(P, constant) X(P, constant_with_warmup) X(P, cosine_with_restarts) \
                                     X(P, polynomial) X(P, inverse_sqrt) X(P, warmup_stable_decay) \
                                     X(P, cosine_warmup_with_min_lr)
#define HY3_LR_WARMUP_TYPES(X, P)    X(P, linear) X(P, cosine) X(P, one_minus_sqrt)
#define HY3_LR_DECAY_TYPES(X, P)     X(P, cosine) X(P, linear) X(P, one_minus_sqrt)
#define HY3_LAST_TURNS(X, P)         X(P, answer) X(P, round)
#define HY3_EVAL_STRATEGIES(X, P)    X(P, steps) X(P, epoch) X(P, no)
#define HY3_SAVE_STRATEGIES(X, P)    X(P, steps) X(P, epoch) X(P, no) X(P, best)
#define HY3_METRICS(X, P)            X(P, eval_loss) X(P, loss)
#define HY3_OPTIMS(X, P)             X(P, adamw) X(P, adamw_8bit) X(P, adamw_bf16)
#define HY3_FLASH_ATTNS(X, P)        X(P, auto) X(P, fa2) X(P, fa3) X(P, sdpa) X(P, disabled)
#define HY3_SAVE_FAILURES(X, P)      X(P, stop) X(P, continue)
#define HY3_SAVE_FORMATS(X, P)       X(P, input) X(P, inner) X(P, outer)
#define HY3_REPORT_TOS(X, P)         X(P, none) X(P, tensorboard) X(P, mlflow) X(P, wandb) X(P, swanlab)
#define HY3_BASE_DTYPES(X, P)        X(P, bf16) X(P, fp8)
#define HY3_GRAD_DTYPES(X, P)        X(P, fp32) X(P, bf16)
#define HY3_OFFLOADS(X, P)           X(P, none) X(P, optimizer) X(P, param) X(P, full) X(P, auto)
#define HY3_RECOMPUTES(X, P)         X(P, full) X(P, selective) X(P, none)
#define HY3_DEVICES(X, P)            X(P, auto) X(P, cpu) X(P, cuda)

#define HY3_CHOICE_ENUM(prefix, word) prefix##word,
#define HY3_CHOICE_WORD(prefix, word) #word,

enum hy3_finetuning_type { HY3_FINETUNING_TYPES(HY3_CHOICE_ENUM, HY3_FINETUNING_) };
enum hy3_load_format { HY3_LOAD_FORMATS(HY3_CHOICE_ENUM, HY3_LOAD_FORMAT_) };
enum hy3_template { HY3_TEMPLATES(HY3_CHOICE_ENUM, HY3_TEMPLATE_) };
enum hy3_truncation_strategy { HY3_TRUNCATIONS(HY3_CHOICE_ENUM, HY3_TRUNCATION_) };
enum hy3_special_tokens { HY3_SPECIAL_TOKENS(HY3_CHOICE_ENUM, HY3_SPECIAL_TOKENS_) };
enum hy3_reasoning_effort { HY3_REASONING_EFFORTS(HY3_CHOICE_ENUM, HY3_REASONING_) };
enum hy3_lr_scheduler_type { HY3_LR_SCHEDULER_TYPES(HY3_CHOICE_ENUM, HY3_LR_) };
enum hy3_lr_warmup_type { HY3_LR_WARMUP_TYPES(HY3_CHOICE_ENUM, HY3_LR_WARMUP_) };
enum hy3_lr_decay_type { HY3_LR_DECAY_TYPES(HY3_CHOICE_ENUM, HY3_LR_DECAY_) };
enum hy3_last_turn { HY3_LAST_TURNS(HY3_CHOICE_ENUM, HY3_LAST_TURN_) };
enum hy3_eval_strategy { HY3_EVAL_STRATEGIES(HY3_CHOICE_ENUM, HY3_EVAL_STRATEGY_) };
enum hy3_save_strategy { HY3_SAVE_STRATEGIES(HY3_CHOICE_ENUM, HY3_SAVE_STRATEGY_) };
enum hy3_metric { HY3_METRICS(HY3_CHOICE_ENUM, HY3_METRIC_) };
enum hy3_optim { HY3_OPTIMS(HY3_CHOICE_ENUM, HY3_OPTIM_) };
enum hy3_flash_attn { HY3_FLASH_ATTNS(HY3_CHOICE_ENUM, HY3_FLASH_ATTN_) };
enum hy3_save_failure { HY3_SAVE_FAILURES(HY3_CHOICE_ENUM, HY3_SAVE_FAILURE_) };
enum hy3_save_format { HY3_SAVE_FORMATS(HY3_CHOICE_ENUM, HY3_SAVE_FORMAT_) };
enum hy3_base_dtype { HY3_BASE_DTYPES(HY3_CHOICE_ENUM, HY3_BASE_) };
enum hy3_grad_dtype { HY3_GRAD_DTYPES(HY3_CHOICE_ENUM, HY3_GRAD_) };
enum hy3_offload { HY3_OFFLOADS(HY3_CHOICE_ENUM, HY3_OFFLOAD_) };
enum hy3_recompute { HY3_RECOMPUTES(HY3_CHOICE_ENUM, HY3_RECOMPUTE_) };
enum hy3_device_choice { HY3_DEVICES(HY3_CHOICE_ENUM, HY3_DEVICE_) };

/* clang-format on */

struct hy3_list { /* texts, owned by the configuration */
    char **items;
    int count;
};

struct hy3_config {
    /* model */
    char *model_name_or_path, *tokenizer_name_or_path;
    enum hy3_load_format load_format;
    enum hy3_base_dtype base_dtype;
    enum hy3_finetuning_type finetuning_type;
    int64_t lora_rank;
    double lora_alpha, lora_dropout;
    bool use_rslora;
    double loraplus_lr_ratio;
    struct hy3_list lora_target, additional_target;
    char *adapter_name_or_path;
    bool freeze_router;
    int64_t freeze_trainable_layers; /* below 0: the first ones */
    struct hy3_list freeze_trainable_modules, freeze_extra_modules;
    /* data */
    struct hy3_list train_data_file;
    char *dataset_dir;
    struct hy3_list dataset;
    int64_t max_seq_length;
    enum hy3_truncation_strategy truncation_strategy;
    int64_t max_samples, max_bad_samples;
    bool packing;
    int64_t packing_length;
    char *cache_dir;
    bool overwrite_cache, disable_shuffling;
    enum hy3_template template;
    enum hy3_special_tokens special_tokens_in_content;
    bool guess_form, split_think, enable_thinking, mask_history, preserve_thinking,
        mask_empty_think;
    enum hy3_last_turn last_turn;
    enum hy3_reasoning_effort reasoning_effort;
    char *default_system;
    struct hy3_list eval_data_file, eval_dataset;
    double val_size;
    enum hy3_eval_strategy eval_strategy;
    double eval_steps; /* below 1: a share of all steps, as save_steps and logging_steps */
    bool use_dummy_data;
    /* training */
    char *output_dir;
    bool overwrite_output_dir, private_files;
    int64_t per_device_train_batch_size, gradient_accumulation_steps;
    double num_train_epochs, max_epochs; /* max_epochs: 0 where not given */
    int64_t max_steps;
    double learning_rate, min_lr, min_lr_rate; /* min_*: negative where not given */
    enum hy3_lr_scheduler_type lr_scheduler_type;
    double lr_num_cycles, lr_power, lr_end; /* lr_num_cycles: negative where not given */
    int64_t lr_timescale, lr_num_decay_steps, lr_num_stable_steps;
    enum hy3_lr_warmup_type lr_warmup_type;
    enum hy3_lr_decay_type lr_decay_type;
    double warmup_lr_rate; /* negative where not given */
    double warmup_ratio;
    int64_t warmup_steps;
    enum hy3_optim optim;
    double weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm;
    double label_smoothing_factor, neftune_noise_alpha;
    int64_t seed;
    bool bf16, gradient_checkpointing;
    enum hy3_recompute recompute;
    bool offload_activations;
    enum hy3_flash_attn flash_attn;
    /* saving, logging */
    enum hy3_save_strategy save_strategy;
    double save_steps;
    double max_hours;
    int64_t save_total_limit;
    bool save_only_model, save_async;
    bool load_best_model_at_end;
    enum hy3_metric metric_for_best_model;
    bool greater_is_better;
    int64_t early_stopping_patience;
    double early_stopping_threshold;
    enum hy3_save_failure save_failure;
    enum hy3_save_format save_format;
    char *max_shard_size, *resume_from_checkpoint;
    double logging_steps;
    int64_t report_to; /* a set */
    bool plot_loss, profile;
    char *rates;
    /* parallel */
    int64_t expert_parallel_size; /* 0: auto */
    int64_t sequence_parallel_size;
    double expert_capacity;
    bool hierarchical_exchange;
    int64_t zero_stage, zero_group_size; /* 0: auto */
    enum hy3_grad_dtype grad_dtype;
    enum hy3_offload offload;
    double offload_ratio;
    char *offload_dir;
    bool make_moe_param_leaf_module;
    int64_t stage3_param_persistence_threshold, stage3_prefetch_bucket_size;
    int64_t stage3_max_reuse_distance, ddp_timeout;
    enum hy3_device_choice device;
};

/* Collective on `comm`. Fills *config from the arguments: CONFIG [key=value …]; rank 0 reads the
 * file, all ranks parse the same bytes. All errors of file and arguments are reported together
 * (HY3_EUSAGE). --help and --version print to standard output on rank 0 and set *finished; the
 * caller then leaves with HY3_OK. summary: one line for --help. */
hy3_status hy3_config_parse(struct hy3_config *config, MPI_Comm comm, int argc, char **argv,
                            const char *summary, bool *finished);
void hy3_config_free(struct hy3_config *config);

/* Collective on `comm`. Whether the files and directories that the keys name can be used, as rank 0
 * sees them: each that cannot is reported with its key and the reason (HY3_EUSAGE). program: only
 * the keys it reads are looked at. Output directories need not be there. */
hy3_status hy3_config_find(MPI_Comm comm, const struct hy3_config *config, const char *program);

/* Local. Steps between two of what happens every `setting` steps in a run of `steps`: a share of
 * them, rounded up, where it is below 1; INT64_MAX for 0: never. */
int64_t hy3_config_interval(double setting, int64_t steps);

/* Local. Steps between two checkpoints and two evaluations of a run of `steps`, of which an epoch
 * has `epoch`; INT64_MAX: none before the end, or (save_strategy = best) none at a fixed step. */
int64_t hy3_config_save_interval(const struct hy3_config *config, int64_t steps, int64_t epoch);
int64_t hy3_config_eval_interval(const struct hy3_config *config, int64_t steps, int64_t epoch);

/* Local. Whether there is evaluation data. */
bool hy3_config_evaluates(const struct hy3_config *config);

/* Local. Whether evaluations decide something: which checkpoint is the result or is made, or where
 * the run ends. */
bool hy3_config_chooses(const struct hy3_config *config);

/* Local. Whether the key of a learning-rate schedule (min_lr, lr_power, …) has a meaning to that
 * lr_scheduler_type; true for all other keys. */
bool hy3_config_is_of_schedule(const char *key, const char *type);

/* Local. The resolved configuration as a libconfig file that can be run again; the caller owns
 * *text (hy3_free). */
hy3_status hy3_config_format(const struct hy3_config *config, char **text);

/* Local. The word of a choice, by its key: "lora" of "finetuning_type". */
const char *hy3_config_word(const struct hy3_config *config, const char *key);

/* Local. Bytes of "5GB", "300M" (powers of 1000), "1.5GiB", "4Ki" (of 1024). key: for the
 * message; a number without a unit has one of its own. */
hy3_status hy3_config_bytes(const char *text, const char *key, int64_t *bytes);
