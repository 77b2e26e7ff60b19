/* SPDX-License-Identifier: Apache-2.0 */
/* module_options.c - options of the modules from the configuration. */
#include "app/module_options.h"

#include "base/log.h"
#include "base/plural.h"
#include "model/freeze.h"
#include "model/lora.h"

#include <math.h>

const char *hy3_module_options_tokenizer(const struct hy3_config *config)
{
    return config->tokenizer_name_or_path ? config->tokenizer_name_or_path
                                          : config->model_name_or_path;
}

enum hy3_training hy3_module_options_training(const struct hy3_config *config)
{
    static const enum hy3_training types[] = {[HY3_FINETUNING_full] = HY3_TRAIN_FULL,
                                              [HY3_FINETUNING_lora] = HY3_TRAIN_ADAPTER,
                                              [HY3_FINETUNING_attention] = HY3_TRAIN_ATTENTION,
                                              [HY3_FINETUNING_freeze] = HY3_TRAIN_LAYERS};

    return types[config->finetuning_type];
}

/* The adapter that the configuration describes. */
static hy3_status read_lora(const struct hy3_config *config, struct hy3_lora *lora)
{
    *lora = (struct hy3_lora){.rank = config->lora_rank,
                              .alpha = config->lora_alpha,
                              .dropout = config->lora_dropout,
                              .rslora = config->use_rslora};
    for (int i = 0; i < config->lora_target.count; i++)
        HY3_TRY(hy3_lora_target(config->lora_target.items[i], lora));
    for (int i = 0; i < config->additional_target.count; i++)
        HY3_TRY(hy3_lora_save(config->additional_target.items[i], lora));
    return HY3_OK;
}

/* What of the model's own tensors the configuration selects. */
static hy3_status read_selection(const struct hy3_config *config, struct hy3_selection *out)
{
    *out = (struct hy3_selection){.freeze_router = config->freeze_router,
                                  .layers = config->freeze_trainable_layers};
    for (int i = 0; i < config->freeze_trainable_modules.count; i++)
        HY3_TRY(hy3_freeze_module(config->freeze_trainable_modules.items[i], out));
    for (int i = 0; i < config->freeze_extra_modules.count; i++)
        HY3_TRY(hy3_freeze_extra(config->freeze_extra_modules.items[i], out));
    return HY3_OK;
}

/* Of `full` the first half of the ratio is optimizer state and the second weights: state in host
 * memory costs a copy of a gradient and a weight in each step, weights two copies in each
 * micro-batch. */
static double offload_ratio(const struct hy3_config *config, enum hy3_offload what)
{
    double ratio = config->offload_ratio;

    if (config->offload == what)
        return ratio;
    if (config->offload != HY3_OFFLOAD_full)
        return 0;
    return what == HY3_OFFLOAD_optimizer ? fmin(1, 2 * ratio) : fmax(0, 2 * ratio - 1);
}

struct hy3_offloading hy3_module_options_offload(const struct hy3_config *config,
                                                 enum hy3_offload what)
{
    return (struct hy3_offloading){.ratio = offload_ratio(config, what),
                                   .directory = config->offload_dir};
}

hy3_status hy3_module_options_model(const struct hy3_config *config,
                                    struct hy3_loaded_model_options *out)
{
    *out = (struct hy3_loaded_model_options){
        .directory = config->model_name_or_path,
        .device = hy3_config_word(config, "device"),
        .dummy = config->load_format == HY3_LOAD_FORMAT_dummy,
        .seed = (uint64_t)config->seed,
        .expert_parallel_size = (int)config->expert_parallel_size,
        .zero_group_size = (int)config->zero_group_size,
        .sequence_parallel_size = (int)config->sequence_parallel_size,
        .training = hy3_module_options_training(config),
        .adapter = config->adapter_name_or_path};
    out->store = (struct hy3_store_options){
        .dtype = config->bf16 ? HY3_BF16 : HY3_FP32,
        .grad_dtype = config->grad_dtype == HY3_GRAD_bf16 ? HY3_BF16 : HY3_FP32,
        .packs = config->base_dtype == HY3_BASE_fp8,
        .zero_stage = (int)config->zero_stage,
        .whole_experts = config->make_moe_param_leaf_module,
        .offload = hy3_module_options_offload(config, HY3_OFFLOAD_param),
        .persistence = config->stage3_param_persistence_threshold,
        .prefetch = config->stage3_prefetch_bucket_size,
        .reuse = config->stage3_max_reuse_distance};
    HY3_TRY(read_selection(config, &out->selection));
    if (out->training == HY3_TRAIN_ADAPTER)
        HY3_TRY(read_lora(config, &out->lora));
    return HY3_OK;
}

struct hy3_optimizer_options hy3_module_options_optimizer(const struct hy3_config *c)
{
    static const enum hy3_moment_format moments[] = {[HY3_OPTIM_adamw] = HY3_MOMENTS_FP32,
                                                     [HY3_OPTIM_adamw_8bit] = HY3_MOMENTS_8BIT,
                                                     [HY3_OPTIM_adamw_bf16] = HY3_MOMENTS_BF16};

    return (struct hy3_optimizer_options){.beta1 = c->adam_beta1,
                                          .beta2 = c->adam_beta2,
                                          .eps = c->adam_epsilon,
                                          .weight_decay = c->weight_decay,
                                          .b_rate = c->loraplus_lr_ratio,
                                          .moments = moments[c->optim],
                                          .seed = (uint64_t)c->seed};
}

hy3_status hy3_module_options_check(const struct hy3_config *c, const struct hy3_shape *shape)
{
    if (c->max_seq_length > shape->max_positions)
        HY3_FAIL(HY3_EUSAGE,
                 "max_seq_length %lld is above the model's max_position_embeddings %lld; set "
                 "max_seq_length = %lld or less",
                 (long long)c->max_seq_length, (long long)shape->max_positions,
                 (long long)shape->max_positions);
    return HY3_OK;
}

int64_t hy3_module_options_item_tokens(const struct hy3_config *c)
{
    return c->packing && c->packing_length > 0 ? c->packing_length : c->max_seq_length;
}

struct hy3_pass_options hy3_module_options_pass(const struct hy3_config *c)
{
    bool checkpointing = c->gradient_checkpointing && c->recompute != HY3_RECOMPUTE_none;

    return (struct hy3_pass_options){.max_samples = c->per_device_train_batch_size,
                                     .backward = true,
                                     .seed = (uint64_t)c->seed,
                                     .label_smoothing = c->label_smoothing_factor,
                                     .noise_alpha = c->neftune_noise_alpha,
                                     .expert_capacity = c->expert_capacity,
                                     .hierarchical_exchange = c->hierarchical_exchange,
                                     .checkpointing = checkpointing,
                                     .keep_attention =
                                         checkpointing && c->recompute == HY3_RECOMPUTE_selective,
                                     .spill = checkpointing && c->offload_activations};
}

/* A schedule that the run is too short for is most likely a mistake, but may be meant. */
static void check_warmup(const struct hy3_config *c, const struct hy3_schedule *s)
{
    if (s->type == HY3_CONSTANT || s->warmup < s->total_steps || s->total_steps < 1)
        return;
    hy3_log(HY3_LOG_WARN,
            "the warmup of %lld step%s (%s) does not end within the %lld step%s of the run: the "
            "learning rate reaches %.3g of %.3g",
            (long long)s->warmup, hy3_s(s->warmup),
            c->warmup_steps > 0 ? "warmup_steps" : "warmup_ratio", (long long)s->total_steps,
            hy3_s(s->total_steps), hy3_schedule_rate(s, s->total_steps - 1), s->peak);
}

static void set_shape(const struct hy3_config *c, struct hy3_schedule *s)
{
    static const enum hy3_ramp warmups[] = {[HY3_LR_WARMUP_linear] = HY3_RAMP_LINEAR,
                                            [HY3_LR_WARMUP_cosine] = HY3_RAMP_COSINE,
                                            [HY3_LR_WARMUP_one_minus_sqrt] =
                                                HY3_RAMP_ONE_MINUS_SQRT};

    static const enum hy3_ramp decays[] = {[HY3_LR_DECAY_cosine] = HY3_RAMP_COSINE,
                                           [HY3_LR_DECAY_linear] = HY3_RAMP_LINEAR,
                                           [HY3_LR_DECAY_one_minus_sqrt] = HY3_RAMP_ONE_MINUS_SQRT};

    s->cycles = c->lr_num_cycles >= 0                 ? c->lr_num_cycles
                : s->type == HY3_COSINE_WITH_RESTARTS ? 1
                                                      : 0.5;
    s->power = c->lr_power;
    s->end = c->lr_end;
    s->timescale = c->lr_timescale;
    s->stable = c->lr_num_stable_steps;
    s->decay = c->lr_num_decay_steps;
    s->warmup_by = warmups[c->lr_warmup_type];
    s->decay_by = decays[c->lr_decay_type];
    s->warmup_rate = c->warmup_lr_rate;
}

struct hy3_schedule hy3_module_options_schedule(const struct hy3_config *c, int64_t steps)
{
    static const enum hy3_schedule_type types[] = {
        [HY3_LR_cosine_with_min_lr] = HY3_COSINE_WITH_MIN_LR,
        [HY3_LR_cosine] = HY3_COSINE,
        [HY3_LR_linear] = HY3_LINEAR,
        [HY3_LR_constant] = HY3_CONSTANT,
        [HY3_LR_constant_with_warmup] = HY3_CONSTANT_WITH_WARMUP,
        [HY3_LR_cosine_with_restarts] = HY3_COSINE_WITH_RESTARTS,
        [HY3_LR_polynomial] = HY3_POLYNOMIAL,
        [HY3_LR_inverse_sqrt] = HY3_INVERSE_SQRT,
        [HY3_LR_warmup_stable_decay] = HY3_WARMUP_STABLE_DECAY,
        [HY3_LR_cosine_warmup_with_min_lr] = HY3_COSINE_WARMUP_WITH_MIN_LR};
    struct hy3_schedule schedule = {.type = types[c->lr_scheduler_type],
                                    .peak = c->learning_rate,
                                    .warmup = c->warmup_steps,
                                    .total_steps = steps};

    if (c->min_lr_rate >= 0)
        schedule.min_rate = c->min_lr_rate;
    else if (c->min_lr >= 0 && c->learning_rate > 0)
        schedule.min_rate = c->min_lr / c->learning_rate;
    if (c->warmup_steps <= 0)
        schedule.warmup = hy3_schedule_warmup(c->warmup_ratio, steps);
    set_shape(c, &schedule);
    check_warmup(c, &schedule);
    return schedule;
}

int64_t hy3_module_options_schedule_steps(const struct hy3_config *c, int64_t steps_per_epoch)
{
    return c->max_steps > 0 ? c->max_steps
                            : (int64_t)ceil(c->num_train_epochs * (double)steps_per_epoch);
}

int64_t hy3_module_options_steps(const struct hy3_config *c, int64_t steps_per_epoch)
{
    int64_t steps = hy3_module_options_schedule_steps(c, steps_per_epoch);
    int64_t most = (int64_t)ceil(c->max_epochs * (double)steps_per_epoch);

    return most > 0 && most < steps ? most : steps;
}
