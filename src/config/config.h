/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - the configuration of a run: one struct, filled from the option table (options.h).
 *
 * The name of a field is the key in files, on the command line, in --help, in the manual and in
 * messages. Only train/ and the programs see this struct; every module below takes its own small
 * one. */
#ifndef HY3_CONFIG_CONFIG_H
#define HY3_CONFIG_CONFIG_H

#include "base/error.h"

#include <mpi.h>

struct hy3_list { /* texts, owned by the configuration */
    char **items;
    int count;
};

struct hy3_config {
    /* model */
    char *model_name_or_path, *tokenizer_name_or_path, *finetuning_type;
    int64_t lora_rank;
    double lora_alpha, lora_dropout;
    struct hy3_list lora_target;
    char *adapter_name_or_path;
    /* data */
    struct hy3_list train_data_file;
    char *dataset_dir;
    struct hy3_list dataset;
    int64_t max_seq_length, max_samples, max_bad_samples;
    bool packing;
    char *cache_dir;
    bool overwrite_cache, disable_shuffling;
    char *template;
    struct hy3_list eval_data_file;
    double val_size;
    int64_t eval_steps;
    bool use_dummy_data;
    /* training */
    char *output_dir;
    bool overwrite_output_dir;
    int64_t per_device_train_batch_size, gradient_accumulation_steps;
    double num_train_epochs;
    int64_t max_steps;
    double learning_rate, min_lr, min_lr_rate; /* min_*: negative where not given */
    char *lr_scheduler_type;
    double warmup_ratio;
    int64_t warmup_steps;
    double weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm;
    int64_t seed;
    bool bf16, gradient_checkpointing;
    char *flash_attn;
    /* saving, logging */
    int64_t save_steps;
    double max_hours;
    int64_t save_total_limit;
    bool save_only_model, save_async;
    char *save_failure;
    char *save_format, *max_shard_size, *resume_from_checkpoint;
    int64_t logging_steps;
    char *report_to;
    bool plot_loss;
    bool profile;
    /* parallel */
    int64_t expert_parallel_size; /* 0: auto */
    double expert_capacity;
    int64_t zero_stage;
    char *offload, *offload_dir;
    bool make_moe_param_leaf_module;
    int64_t stage3_param_persistence_threshold, stage3_prefetch_bucket_size;
    int64_t stage3_max_reuse_distance, ddp_timeout;
    char *device;
};

/* Collective on `comm`. Fills *config from the arguments: CONFIG [key=value …]; rank 0 reads the
 * file, all ranks parse the same bytes. All errors of file and arguments are reported together
 * (HY3_EUSAGE). --help and --version print to standard output on rank 0 and set *finished; the
 * caller then leaves with HY3_OK. summary: one line for --help. */
hy3_status hy3_config_parse(struct hy3_config *config, MPI_Comm comm, int argc, char **argv,
                            const char *summary, bool *finished);
void hy3_config_free(struct hy3_config *config);

/* Local. The resolved configuration as a libconfig file that can be run again; the caller owns
 * *text (hy3_free). */
hy3_status hy3_config_format(const struct hy3_config *config, char **text);

/* Local. Bytes of "5GB", "300MB", "1000" (powers of 1000; GiB, MiB, KiB of 1024). key: for the
 * message. */
hy3_status hy3_config_bytes(const char *text, const char *key, int64_t *bytes);

#endif
