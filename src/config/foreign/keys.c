/* SPDX-License-Identifier: Apache-2.0 */
/* keys.c - the table. Read from the public sources of 2026: LLaMA-Factory (hparams, data),
 * transformers 5.24 (training_args.py), ms-swift (arguments), DeepSpeed (runtime/config.py) and the
 * train.py of Hy3. */
#include "config/foreign/keys.h"

#include "config/nearest.h"
#include "config/options.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* clang-format off */
#define LF    HY3_LLAMA_FACTORY
#define SWIFT HY3_MS_SWIFT
#define PY    HY3_TRAIN_PY
#define DS    HY3_DEEPSPEED
#define YAML  (LF | SWIFT)
#define ALL   (LF | SWIFT | PY)

#define MAP(names_, origins_, how_, to_, values_, note_) \
    {names_, origins_, HY3_FOREIGN_MAPPED, HY3_HOW_##how_, to_, values_, note_}
#define OURS(names_, origins_) \
    {names_, origins_, HY3_FOREIGN_MAPPED, HY3_HOW_PLAIN, NULL, NULL, NULL}
#define CHECK(names_, origins_, values_, note_) \
    {names_, origins_, HY3_FOREIGN_CHECKED, HY3_HOW_PLAIN, NULL, values_, note_}
#define UNUSED(names_, origins_, note_) \
    {names_, origins_, HY3_FOREIGN_UNUSED, HY3_HOW_PLAIN, NULL, NULL, note_}
#define SILENT(names_, origins_) \
    {names_, origins_, HY3_FOREIGN_SILENT, HY3_HOW_PLAIN, NULL, NULL, NULL}
#define REFUSE(names_, origins_, values_, note_) \
    {names_, origins_, HY3_FOREIGN_REFUSED, HY3_HOW_PLAIN, NULL, values_, note_}

#define TEMPLATES "hy_v3=hy_v3 hy3=hy_v3 hy_v3_preview=hy_v3"
#define RAMPS     "linear=linear cosine=cosine 1-sqrt=one_minus_sqrt"
#define ADAMW     "adamw_torch adamw_torch_fused adamw_hf adamw_apex_fused adamw_torch_xla adamw"
#define SHAPE     "hidden_size num_layers num_attention_heads intermediate_size vocab_size type_vocab_size " \
                  "layer_norm_eps moe_topk num_experts num_key_value_heads moe_intermediate_size " \
                  "use_mixed_mlp_moe num_shared_expert use_qk_norm moe_layer_num_skipped " \
                  "tie_word_embeddings model_max_length max_position_embeddings"

const struct hy3_foreign_key hy3_foreign_keys[] = {
    /* model */
    MAP("model_name_or_path", LF | PY, PATH, NULL, NULL, "a directory; hy3 does not download"),
    MAP("model", SWIFT, PATH, "model_name_or_path", NULL, "a directory; hy3 does not download"),
    MAP("tokenizer_name_or_path tokenizer_name", LF | PY, PATH, "tokenizer_name_or_path", NULL, NULL),
    CHECK("model_type", SWIFT, "hy_v3 hy3 hy_v3_preview", "hy3 reads the model's config.json"),
    MAP("template", YAML, PLAIN, NULL, TEMPLATES, "prompts are rendered with Hy3's own chat template"),
    CHECK("agent_template", SWIFT, "hy_v3 hy3 hy_v3_preview", "tools are rendered with Hy3's own chat template"),
    MAP("finetuning_type", LF, PLAIN, NULL, "full=full lora=lora freeze=freeze", NULL),
    OURS("freeze_trainable_layers freeze_trainable_modules freeze_extra_modules", LF),
    MAP("tuner_type train_type", SWIFT, PLAIN, "finetuning_type", "full=full lora=lora", NULL),
    CHECK("tuner_backend", SWIFT, "peft", "adapters are written as PEFT's"),
    MAP("use_lora", PY, LORA_FLAG, "finetuning_type", NULL, "lora with q_proj k_proj v_proj o_proj"),
    MAP("train_attention_params_only", PY, ATTENTION, "finetuning_type", NULL, "attention; use_lora wins"),
    OURS("lora_rank", ALL),
    MAP("lora_alpha", LF, ALPHA, NULL, NULL, "null or 0: twice lora_rank"),
    OURS("lora_alpha", SWIFT | PY),
    OURS("lora_dropout", ALL),
    OURS("use_rslora", YAML),
    OURS("additional_target", LF),
    MAP("modules_to_save", SWIFT, PLAIN, "additional_target", NULL, "embed_tokens, lm_head"),
    OURS("loraplus_lr_ratio", LF),
    MAP("lorap_lr_ratio", SWIFT, PLAIN, "loraplus_lr_ratio", NULL, NULL),
    UNUSED("loraplus_lr_embedding", LF, "no embedding has factors of an adapter"),
    MAP("lora_target", LF, TARGETS, NULL, NULL, "all: the seven projections, without the routed experts"),
    MAP("target_modules", SWIFT, TARGETS, "lora_target", NULL, "all-linear: the seven projections"),
    MAP("target_parameters", SWIFT, PARAMETERS, "lora_target", NULL, "mlp.experts.gate_up_proj and mlp.experts.down_proj, both: experts"),
    MAP("adapter_name_or_path", LF, ADAPTER, NULL, NULL, "one adapter; merge others first (hy3_merge)"),
    MAP("adapters", SWIFT, ADAPTER, "adapter_name_or_path", NULL, "one adapter; merge others first (hy3_merge)"),
    CHECK("stage", LF, "sft", "hy3 does supervised fine-tuning (sft) only"),
    CHECK("do_train", YAML, "true", "there is nothing to do without training"),
    /* data */
    MAP("moe_num_experts moe_topk moe_intermediate_size moe_layer_num_skipped output_router_logits", LF, MODEL, NULL, NULL, "must be as in the model's config.json"),
    MAP("dataset_dir", LF, DATASET_DIR, NULL, NULL, NULL),
    OURS("dataset", LF),
    MAP("eval_dataset", LF, PLAIN, NULL, NULL, "several: one loss over all their tokens"),
    MAP("dataset", SWIFT, SWIFT_DATA, "train_data_file", NULL, "paths; #N: the first N samples of one"),
    MAP("val_dataset", SWIFT, SWIFT_DATA, "eval_data_file", NULL, "paths; #N: the first N samples of one"),
    MAP("split_dataset_ratio", SWIFT, PLAIN, "val_size", NULL, NULL),
    MAP("train_data_file", PY, PATH, NULL, NULL, NULL),
    MAP("cutoff_len", LF, PLAIN, "max_seq_length", NULL, "the end is cut, not question and answer in proportion"),
    MAP("max_length", SWIFT, PLAIN, "max_seq_length", NULL, NULL),
    OURS("max_seq_length", PY),
    OURS("max_samples overwrite_cache val_size disable_shuffling use_dummy_data", LF | PY),
    MAP("packing", YAML, PACKING, NULL, NULL, "samples of a row never see each other"),
    OURS("packing_length", SWIFT),
    MAP("neat_packing", LF, PACKING, "packing", NULL, "samples of a row never see each other"),
    MAP("tokenized_path", LF, TOKENIZED, "cache_dir", NULL, "an Arrow directory cannot be read: tokenize again, hy3 does it in minutes"),
    CHECK("mix_strategy", LF, "concat", "put the data sets one after the other (concat)"),
    MAP("train_sampling_strategy", YAML, SAMPLING, "disable_shuffling", NULL, "sequential; random and group_by_length differ in the order alone"),
    OURS("truncation_strategy", SWIFT),
    MAP("loss_scale", SWIFT, LOSS_SCALE, "mask_history", NULL, "default; last_round: mask_history; ignore_empty_think: mask_empty_think; joined by +"),
    MAP("mask_history", LF, PLAIN, NULL, NULL, "earlier reasoning leaves the text unless preserve_thinking is true, as there; of a sample that is cut the last turn stays with truncation_strategy = left"),
    MAP("preserve_thinking", LF, PRESERVE, NULL, NULL, "false if not given; without mask_history it has no meaning, as there"),
    MAP("preserve_thinking", SWIFT, PRESERVE, NULL, NULL, "not given: false with loss_scale last_round, else true"),
    MAP("default_system", LF, PLAIN, NULL, NULL, NULL),
    MAP("system", SWIFT, SYSTEM, "default_system", NULL, "the text, \\n in it a line end; a file's name is refused"),
    MAP("enable_thinking", YAML, PLAIN, NULL, NULL, "true, null: reasoning_effort auto; false: reasoning is removed"),
    MAP("model_kwargs", SWIFT, UNDER_PREFIX, NULL, NULL, "a map, or its JSON as text"),
    MAP("ENV.REASONING_EFFORT ENV.reasoning_effort model_kwargs.reasoning_effort model_kwargs.REASONING_EFFORT", SWIFT, PLAIN, "reasoning_effort", NULL, "no_think, low, high; of lines that do not say it"),
    CHECK("tool_format", LF, "hy_v3 hy3", "tools are rendered with Hy3's own chat template"),
    CHECK("dataset_shuffle train_dataloader_shuffle", SWIFT, "true", "set disable_shuffling = true for the order of the file"),
    /* training */
    OURS("output_dir overwrite_output_dir save_only_model per_device_train_batch_size "
         "learning_rate max_steps warmup_ratio "
         "weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm seed save_total_limit bf16 "
         "logging_steps save_steps gradient_checkpointing", ALL),
    OURS("gradient_accumulation_steps", LF | PY),
    MAP("gradient_accumulation_steps", SWIFT, PLAIN, NULL, NULL, "1 if not given, where ms-swift itself takes ceil(16 / per_device_train_batch_size / ranks)"),
    OURS("num_train_epochs label_smoothing_factor neftune_noise_alpha", ALL),
    MAP("max_epochs", SWIFT, PLAIN, NULL, NULL, "ends the run; num_train_epochs is the length of the schedule"),
    MAP("lr_scheduler_type", ALL, SCHEDULE, NULL, NULL, "not reduce_lr_on_plateau, greedy: they follow the loss"),
    MAP("lr_scheduler_kwargs", ALL, UNDER_PREFIX, NULL, NULL, "a map, or its JSON as text"),
    MAP("lr_scheduler_kwargs.min_lr_rate", ALL, PLAIN, "min_lr_rate", NULL, NULL),
    MAP("lr_scheduler_kwargs.min_lr", ALL, PLAIN, "min_lr", NULL, NULL),
    MAP("lr_scheduler_kwargs.min_lr_ratio", ALL, PLAIN, "min_lr_rate", NULL, "of warmup_stable_decay"),
    MAP("lr_scheduler_kwargs.warmup_lr_rate", ALL, PLAIN, "warmup_lr_rate", NULL, NULL),
    MAP("lr_scheduler_kwargs.num_cycles", ALL, PLAIN, "lr_num_cycles", NULL, NULL),
    MAP("lr_scheduler_kwargs.power", ALL, PLAIN, "lr_power", NULL, NULL),
    MAP("lr_scheduler_kwargs.lr_end", ALL, PLAIN, "lr_end", NULL, NULL),
    MAP("lr_scheduler_kwargs.timescale", ALL, PLAIN, "lr_timescale", NULL, NULL),
    MAP("lr_scheduler_kwargs.num_decay_steps", ALL, PLAIN, "lr_num_decay_steps", NULL, NULL),
    MAP("lr_scheduler_kwargs.num_stable_steps", ALL, PLAIN, "lr_num_stable_steps", NULL, NULL),
    MAP("lr_scheduler_kwargs.warmup_type", ALL, PLAIN, "lr_warmup_type", RAMPS, "1-sqrt is one_minus_sqrt"),
    MAP("lr_scheduler_kwargs.decay_type", ALL, PLAIN, "lr_decay_type", RAMPS, "1-sqrt is one_minus_sqrt"),
    MAP("accelerator_config", ALL, UNDER_PREFIX, NULL, NULL, "a map, or its JSON as text"),
    MAP("min_lr", PY, MIN_LR, NULL, NULL, "needed by cosine_with_min_lr; no meaning with others"),
    MAP("warmup_steps", ALL, WARMUP, NULL, NULL, "below 1: a share of all steps"),
    MAP("disable_gradient_checkpointing", LF, CHECKPOINTING, "gradient_checkpointing", NULL, "true wins over gradient_checkpointing"),
    MAP("eval_strategy evaluation_strategy", ALL, EVAL, "eval_strategy", NULL, "no: eval_steps = 0, only at the end"),
    OURS("eval_steps", ALL),
    MAP("save_strategy", ALL, SAVE, NULL, NULL, "no: save_steps = 0, only at the end"),
    OURS("load_best_model_at_end greater_is_better", ALL),
    MAP("metric_for_best_model", ALL, PLAIN, NULL, NULL, "eval_loss or loss: hy3 measures no other"),
    MAP("early_stopping_steps", LF, PLAIN, "early_stopping_patience", NULL, "evaluations without an improvement"),
    MAP("early_stop_interval", SWIFT, PLAIN, "early_stopping_patience", NULL, "evaluations without an improvement"),
    MAP("report_to", ALL, REPORT, NULL, NULL, NULL),
    MAP("use_swanlab", LF, SWANLAB, "report_to", NULL, "swanlab, beside those of report_to"),
    OURS("plot_loss", LF),
    MAP("resume_from_checkpoint", ALL, RESUME, NULL, NULL, "null: auto, the newest in output_dir"),
    MAP("flash_attn", LF, PLAIN, NULL, "false=disabled False=disabled no=disabled off=disabled none=disabled", NULL),
    MAP("use_flash_attn", PY, FLASH_FLAG, "flash_attn", NULL, "fa2"),
    OURS("max_shard_size", SWIFT),
    MAP("ddp_timeout", ALL, TIMEOUT, NULL, NULL, "seconds; above 86400 hy3's own 1800 stays"),
    MAP("deepspeed", ALL, DEEPSPEED, "zero_stage", NULL, "a JSON file or a map; ms-swift: also a preset's name"),
    MAP("deepspeed_config", ALL, DEEPSPEED, "zero_stage", NULL, NULL),
    MAP("fsdp", ALL, FSDP, "zero_stage", NULL, "full_shard: 3, shard_grad_op: 2, no_shard: 0; offload: full"),
    OURS("make_moe_param_leaf_module", PY),
    {"optim", ALL, HY3_FOREIGN_CHECKED, HY3_HOW_NAMED, NULL, ADAMW, "hy3 trains with AdamW; for its own 8-bit moments leave it out and give optim = adamw_8bit as an argument"},
    {"torch_dtype", SWIFT, HY3_FOREIGN_CHECKED, HY3_HOW_NAMED, NULL, "bfloat16 bf16 auto", "weights are bf16 with fp32 masters; bf16 = false for fp32"},

    /* no meaning here */
    UNUSED("trust_remote_code preprocessing_num_workers "
           "preprocessing_batch_size data_shared_file_system use_fast_tokenizer low_cpu_mem_usage cache_dir "
           "model_revision hf_hub_token ms_hub_token om_hub_token print_param_status media_dir "
           "freeze_vision_tower freeze_multi_modal_projector freeze_language_model offload_folder "
           "use_kv_cache do_sample temperature top_p top_k max_length max_new_tokens repetition_penalty "
           "length_penalty num_beams skip_special_tokens ignore_data_skip streaming buffer_size "
           "use_unsloth use_unsloth_gc use_v1_kernels use_reentrant_gc enable_liger_kernel use_kt "
           "upcast_layernorm upcast_lmhead_output pure_bf16 moe_aux_loss_coef compute_accuracy fp8 "
           "fp8_backend fp8_enable_fsdp_float8_all_gather profiler video_fps video_maxlen swanlab_project "
           "swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_* adapter_folder "
           "use_ray ray_run_name ray_storage_path ray_num_workers resources_per_worker placement_strategy "
           "master_addr master_port eval_num_beams cpu_infer chunk_size device_map double_quantization "
           "quantization_device_map init_special_tokens use_audio_in_video crop_to_patches", LF, NULL),
    UNUSED("image_* video_* audio_* infer_* vllm_* sglang_* kt_* ray_* profiler_* export_*", LF, NULL),
    UNUSED("pref_beta pref_ftx pref_bco_weight pref_loss dpo_label_smoothing kto_chosen_weight "
           "kto_rejected_weight simpo_gamma ld_alpha ppo_buffer_size ppo_epochs ppo_score_norm ppo_target "
           "ppo_whiten_rewards ref_model ref_model_adapters ref_model_quantization_bit reward_model "
           "reward_model_adapters reward_model_quantization_bit reward_model_type asft_alpha eaft_alpha", LF, "of other stages and losses"),
    UNUSED("dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
           "dataloader_prefetch_factor disable_tqdm log_level log_level_replica logging_first_step "
           "logging_nan_inf_filter save_on_each_node ddp_find_unused_parameters ddp_bucket_cap_mb "
           "ddp_backend ddp_broadcast_buffers remove_unused_columns label_names "
           "include_num_input_tokens_seen include_effective_tokens_per_second "
           "skip_memory_metrics torch_compile torch_compile_backend torch_compile_mode tf32 "
           "torch_empty_cache_steps full_determinism accelerator_config.* use_liger_kernel local_rank "
           "data_seed eval_on_start per_device_eval_batch_size per_gpu_eval_batch_size eval_accumulation_steps "
           "eval_delay bf16_full_eval group_by_length length_column_name "
           "logging_strategy use_cpu do_eval push_to_hub_token hub_token hub_model_id hub_strategy "
           "hub_private_repo run_name project logging_dir trial_name jit_mode_eval past_index "
           "batch_eval_metrics prediction_loss_only eval_do_concat_batches fsdp_config "
           "fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap gradient_checkpointing_kwargs "
           "log_on_each_node restore_callback_states_from_checkpoint no_cuda use_mps_device use_ipex "
           "fp16_opt_level half_precision_backend fp16_backend fp16_full_eval tpu_num_cores "
           "tpu_metrics_debug debug use_legacy_prediction_loop hub_always_push hub_revision "
           "push_to_hub_model_id push_to_hub_organization include_inputs_for_metrics include_for_metrics "
           "mp_parameters torchdynamo ray_scope include_tokens_per_second liger_kernel_config "
           "eval_use_gather_object use_cache sortish_sampler generation_max_length generation_num_beams "
           "generation_config enable_jit_checkpoint trackio_*", ALL, NULL),
    UNUSED(SHAPE " complex_data cache_dir steps do_train", PY, "the model's config.json counts, also where it says otherwise"),
    UNUSED("attn_impl experts_impl lazy_tokenize dataset_num_proc preprocess_num_proc "
           "padding_free load_from_cache_file max_new_tokens temperature top_p top_k custom_register_path "
           "use_hf ignore_data_skip add_version create_checkpoint_symlink ENV ENV.* model_kwargs.* "
           "model_author model_name dataset_seed device_map strict acc_strategy "
           "save_safetensors trust_remote_code streaming shuffle_buffer_size vit_lr aligner_lr freeze_vit "
           "freeze_aligner max_pixels check_model use_logits_to_keep response_prefix model_revision "
           "max_memory max_model_len local_repo_path bnb_4bit_* hqq_axis val_dataset_shuffle download_mode "
           "padding_side norm_bbox template_backend stream stop_words logprobs top_logprobs num_beams "
           "repetition_penalty structured_outputs_regex vit_gradient_checkpointing vit_gradient_checkpointing_kwargs "
           "zero_hpz_partition_size ds3_gather_for_generation enable_channel_loss metric eval_metric "
           "eval_use_evalscope eval_datasets eval_datasets_args eval_dataset_args eval_limit eval_generation_config extra_eval_args "
           "use_flash_ckpt lora_dtype stopping_strategy ignore_args_error packing_num_proc packing_cache "
           "safe_serialization use_ray ray_exp_name device_groups swanlab_*", SWIFT, NULL),
    UNUSED("lisa_step_interval adalora_* llamapro_* reft_* vera_* boft_* fourier_* lora_ga_* adapter_act "
           "adapter_length galore_*", SWIFT, "of other tuners"),

    /* what changes the result */
    REFUSE("per_gpu_train_batch_size", ALL, NULL, "use per_device_train_batch_size"),
    REFUSE("fp16", ALL, "auto", "use bf16 = true"),
    REFUSE("quantization_bit quantization_method quantization_type quant_method quant_bits", YAML, "bnb", "hy3 has base_dtype = fp8 instead; leave it out"),
    REFUSE("use_dora", YAML, NULL, "use a LoRA of higher rank"),
    REFUSE("pissa_init pissa_convert", LF, NULL, "adapters start from random A and zero B; leave it out"),
    CHECK("init_weights init_lora_weights", SWIFT, "true", "adapters start from random A and zero B; leave it out"),
    UNUSED("pissa_iter", LF, NULL),
    REFUSE("create_new_adapter", LF, NULL, "merge the adapter into the model first (hy3_merge)"),
    REFUSE("hyper_parallel_* use_hyper_parallel use_mca", LF, NULL, "zero_stage and expert_parallel_size spread a model over ranks"),
    REFUSE("target_regex lora_bias freeze_parameters freeze_parameters_ratio freeze_parameters_regex "
           "trainable_parameters trainable_parameters_regex freeze_llm", YAML, NULL, "lora_target chooses what is trained"),
    REFUSE("lisa_activated_layers use_swift_lora", SWIFT, NULL, "use full or lora"),
    REFUSE("use_llama_pro", LF, NULL, "use finetuning_type freeze, lora or full"),
    REFUSE("oft_rank oft_block_size oft_target oft_dropout module_dropout", LF, "32 all 0.0", "use lora"),
    REFUSE("use_galore use_apollo use_badam use_adam_mini use_muon", YAML, NULL, "hy3 trains with AdamW"),
    REFUSE("adafactor optim_args optim_target_modules", ALL, NULL, "hy3 trains with AdamW"),
    REFUSE("galore_* apollo_* badam_*", LF, NULL, "hy3 trains with AdamW"),
    REFUSE("use_dft_loss use_asft_loss use_eaft_loss", LF, NULL, "the loss is the cross-entropy of the labels"),
    REFUSE("enable_dft_loss loss_type", SWIFT, "cross_entropy", "the loss is the cross-entropy of the labels"),
    REFUSE("rope_scaling", YAML, NULL, "the model's config.json counts"),
    REFUSE("shift_attn mixture_of_depths", LF, NULL, "the model's config.json counts"),
    REFUSE("init_strategy", SWIFT, NULL, "the model must have all of its weights"),
    REFUSE("num_labels problem_type", SWIFT, NULL, "hy3 learns texts alone; leave it out"),
    CHECK("task_type", SWIFT, "causal_lm", "hy3 learns texts alone"),
    REFUSE("external_plugins callbacks optimizer", SWIFT, "default", "hy3 runs no plugins; use keys of the configuration"),
    REFUSE("load_args load_data_args", SWIFT, NULL, "write the keys of its args.json into the configuration"),
    REFUSE("resume_only_model", SWIFT, NULL, "name the checkpoint's weights as model, or in adapters"),
    REFUSE("cached_dataset cached_val_dataset custom_dataset_info", SWIFT, NULL, "name the files of the data in dataset and val_dataset"),
    REFUSE("split_special_tokens", LF, NULL, "see special_tokens_in_content"),
    CHECK("use_chat_template add_non_thinking_prefix", SWIFT, "true", "prompts are rendered with Hy3's own chat template"),
    REFUSE("resize_vocab add_tokens add_special_tokens new_special_tokens_config new_special_tokens", YAML, NULL, "the tokenizer is used as it is"),
    REFUSE("train_from_scratch", YAML, NULL, "make a model with hy3_init first"),
    REFUSE("predict_with_generate do_predict", ALL, NULL, "use hy3_generate"),
    REFUSE("accelerator_config.split_batches", ALL, NULL, "per_device_train_batch_size counts the samples of a rank"),
    CHECK("accelerator_config.gradient_accumulation_kwargs.num_steps", ALL, "1", "set gradient_accumulation_steps"),
    REFUSE("auto_find_batch_size", ALL, NULL, "hy3_plan says what fits"),
    REFUSE("dataloader_drop_last", ALL, NULL, "every sample of an epoch is used"),
    REFUSE("push_to_hub", ALL, NULL, "upload the result yourself: hf upload"),
    CHECK("average_tokens_across_devices ignore_pad_token_for_loss", ALL, "true", "the loss is summed over the labels of the global batch; leave it out"),
    CHECK("save_safetensors", LF | PY, "true", "weights are written as safetensors"),
    OURS("sequence_parallel_size", SWIFT),
    CHECK("tensor_parallel_size pipeline_parallel_size context_parallel_size tp_size pp_size cp_size", ALL, "0 1", "zero_stage and expert_parallel_size spread a model over ranks"),
    REFUSE("train_on_prompt", LF, NULL, "only what the assistant says is learned"),
    REFUSE("eval_on_each_dataset", LF, NULL, "the sets of eval_dataset give one eval_loss; run one at a time"),
    REFUSE("interleave_probs", LF, NULL, "data sets are put one after the other"),
    REFUSE("interleave_prob", SWIFT, NULL, "data sets are put one after the other"),
    REFUSE("parallelism_config", ALL, NULL, "zero_stage and expert_parallel_size spread a model over ranks"),
    REFUSE("deepspeed_autotp_size", SWIFT, "1", "zero_stage and expert_parallel_size spread a model over ranks"),
    REFUSE("router_aux_loss_coef", YAML, NULL, "Hy3 balances its experts by the bias of the router; leave it out"),
    REFUSE("columns", SWIFT, NULL, "rename the columns of the data"),

    /* the JSON of DeepSpeed */
    MAP("zero_optimization.stage", DS, PLAIN, "zero_stage", NULL, NULL),
    MAP("zero_optimization.offload_optimizer.device", DS, PLAIN, "offload", NULL, "none, cpu, nvme (offload_dir = nvme_path)"),
    MAP("zero_optimization.offload_param.device", DS, PLAIN, "offload", NULL, "with stage 3"),
    MAP("zero_optimization.offload_optimizer.nvme_path", DS, PLAIN, "offload_dir", NULL, NULL),
    MAP("zero_optimization.offload_param.nvme_path", DS, PLAIN, "offload_dir", NULL, NULL),
    MAP("zero_optimization.cpu_offload", DS, PLAIN, "offload", NULL, "the old form"),
    MAP("zero_optimization.cpu_offload_params", DS, PLAIN, "offload", NULL, "the old form"),
    MAP("zero_optimization.stage3_prefetch_bucket_size", DS, PLAIN, "stage3_prefetch_bucket_size", NULL, "auto: hy3's"),
    MAP("zero_optimization.stage3_param_persistence_threshold", DS, PLAIN, "stage3_param_persistence_threshold", NULL, "auto: hy3's"),
    MAP("zero_optimization.stage3_max_reuse_distance", DS, PLAIN, "stage3_max_reuse_distance", NULL, "auto: hy3's"),
    MAP("train_micro_batch_size_per_gpu", DS, PLAIN, "per_device_train_batch_size", NULL, "must agree"),
    MAP("gradient_accumulation_steps", DS, PLAIN, "gradient_accumulation_steps", NULL, "must agree"),
    MAP("gradient_clipping", DS, PLAIN, "max_grad_norm", NULL, "must agree"),
    MAP("bf16.enabled bfloat16.enabled", DS, PLAIN, "bf16", NULL, "must agree"),
    MAP("train_batch_size", DS, PLAIN, NULL, NULL, "batch x accumulation x ranks / sequence_parallel_size: checked where the ranks are known"),
    CHECK("optimizer.type", DS, "Adam AdamW adam adamw", "hy3 trains with AdamW"),
    MAP("optimizer.params.lr", DS, PLAIN, "learning_rate", NULL, "must agree"),
    MAP("optimizer.params.eps", DS, PLAIN, "adam_epsilon", NULL, "must agree"),
    MAP("optimizer.params.weight_decay", DS, PLAIN, "weight_decay", NULL, "must agree"),
    MAP("optimizer.params.betas", DS, PLAIN, "adam_beta1", NULL, "must agree: two numbers"),
    CHECK("optimizer.params.adam_w_mode", DS, "true", "hy3 trains with AdamW"),
    SILENT("optimizer.params.torch_adam", DS),
    REFUSE("scheduler scheduler.type", DS, NULL, "set lr_scheduler_type"),
    REFUSE("fp16.enabled", DS, "auto", "use bf16 = true"),
    REFUSE("progressive_layer_drop progressive_layer_drop.enabled curriculum_learning "
           "curriculum_learning.enabled data_efficiency data_efficiency.enabled quantize_training "
           "quantize_training.enabled sparse_attention sparse_attention.enabled sparse_attention.mode", DS, "dense", "every sample is learned whole and by all layers; remove it"),
    SILENT("progressive_layer_drop.* curriculum_learning.* data_efficiency.* quantize_training.* "
           "sparse_attention.*", DS),
    CHECK("zero_optimization", DS, "false", "write {\"stage\": 1}"),
    CHECK("tensor_parallel.autotp_size pipeline.stages", DS, "0 1", "zero_stage and expert_parallel_size spread a model over ranks"),
    CHECK("sequence_parallel_size", DS, "0 1", "set it in the run's configuration"),
    REFUSE("fp8 fp8.enabled", DS, NULL, "bf16 is used"),
    UNUSED("aio aio.* zero_optimization.stage3_max_live_parameters zero_optimization.zero_hpz_partition_size "
           "zero_optimization.zero_quantized_weights zero_optimization.zero_quantized_gradients "
           "zero_optimization.zero_quantized_nontrainable_weights", DS, NULL),
    SILENT("zero_optimization.offload_optimizer.* zero_optimization.offload_param.* "
           "zero_optimization.sub_group_size zero_optimization.reduce_bucket_size "
           "zero_optimization.allgather_bucket_size zero_optimization.allgather_partitions "
           "zero_optimization.reduce_scatter zero_optimization.overlap_comm "
           "zero_optimization.contiguous_gradients zero_optimization.round_robin_gradients "
           "zero_optimization.stage3_gather_16bit_weights_on_model_save "
           "zero_optimization.stage3_gather_fp16_weights_on_model_save "
           "zero_optimization.ignore_unused_parameters zero_optimization.cpu_offload_use_pin_memory "
           "zero_optimization.elastic_checkpoint zero_optimization.load_from_fp32_weights "
           "zero_optimization.legacy_stage1 activation_checkpointing activation_checkpointing.* "
           "steps_per_print wall_clock_breakdown zero_allow_untested_optimizer "
           "zero_force_ds_cpu_optimizer communication_data_type flops_profiler flops_profiler.* "
           "tensorboard tensorboard.* wandb.* csv_monitor.* comms_logger comms_logger.* elasticity "
           "elasticity.* checkpoint checkpoint.* fp16.* bf16.* bfloat16.* memory_breakdown "
           "prescale_gradients gradient_predivide_factor sparse_gradients dump_state "
           "scheduler.params.* data_types.* optimizer.params.bias_correction optimizer scheduler.params bf16 fp16 "
           "zero_optimization.offload_optimizer zero_optimization.offload_param", DS),
    {.names = NULL},
};

/* The seven Linear classes that LLaMA-Factory's and ms-swift's "all" finds in Hy3; the routed experts
 * and the router are parameters there (transformers, modeling_hy_v3.py). */
#define LINEAR HY3_FOREIGN_LINEAR

const struct hy3_foreign_default hy3_foreign_defaults[] = {
    {LF,         "finetuning_type", "lora"},
    {LF,         "lora_rank", "8"},
    {LF,         "lora_dropout", "0"},
    {LF,         "lora_target", LINEAR},
    {LF,         "dataset_dir", "data"},
    {LF,         "max_seq_length", "2048"},
    {LF,         "plot_loss", "false"},
    {LF | PY,    "output_dir", "trainer_output"},
    {LF | PY,    "logging_steps", "500"},
    {LF | PY,    "per_device_train_batch_size", "8"},
    {LF | PY,    "learning_rate", "5e-05"},
    {LF | PY,    "lr_scheduler_type", "linear"},
    {PY,         "max_seq_length", "2048"},
    {PY,         "lora_alpha", "8"},
    {PY,         "lora_dropout", "0"},
    {SWIFT,      "finetuning_type", "lora"},
    {SWIFT,      "lora_rank", "8"},
    {SWIFT,      "lora_alpha", "32"},
    {SWIFT,      "lora_target", LINEAR},
    {SWIFT,      "output_dir", "output"},
    {SWIFT,      "truncation_strategy", "delete"},
    {SWIFT,      "guess_form", "true"},
    {SWIFT,      "split_think", "true"},
    {SWIFT,      "last_turn", "round"},
    {YAML,       "reasoning_effort", "auto"},
    {SWIFT,      "weight_decay", "0.1"},
    {SWIFT,      "adam_beta2", "0.95"},
    {SWIFT,      "lr_scheduler_type", "cosine"},
    {SWIFT,      "logging_steps", "5"},
    {.key = NULL},
};

/* clang-format on */

const char *hy3_origin_name(enum hy3_origin origin)
{
    switch (origin) {
    case HY3_LLAMA_FACTORY:
        return "LLaMA-Factory";
    case HY3_MS_SWIFT:
        return "ms-swift";
    case HY3_TRAIN_PY:
        return "train.py";
    default:
        return "DeepSpeed";
    }
}

/* Whether the word of a table is the key: "aio.*" stands for all that begin so. */
static bool is_word_of(const char *word, size_t length, const char *key)
{
    if (length > 0 && word[length - 1] == '*')
        return strncmp(word, key, length - 1) == 0;
    return strlen(key) == length && memcmp(word, key, length) == 0;
}

const struct hy3_foreign_key *hy3_foreign_find(enum hy3_origin origin, const char *key)
{
    const struct hy3_foreign_key *wild = NULL; /* a whole name counts before a pattern */

    for (const struct hy3_foreign_key *k = hy3_foreign_keys; k->names; k++) {
        const char *names = k->names, *word;
        size_t length;

        while ((k->origins & origin) && (word = hy3_option_word(&names, &length))) {
            if (!is_word_of(word, length, key))
                continue;
            if (word[length - 1] != '*')
                return k;
            wild = wild ? wild : k;
        }
    }
    return wild;
}

const char *hy3_foreign_nearest(enum hy3_origin origin, const char *key)
{
    static _Thread_local char best[64];
    const char *ours = hy3_option_nearest(hy3_options, key);
    int nearest = ours ? hy3_edit_distance(key, ours) : hy3_edit_limit(key) + 1;
    bool found = false;

    for (const struct hy3_foreign_key *k = hy3_foreign_keys; k->names; k++) {
        const char *names = k->names, *word;
        size_t length;

        while ((k->origins & origin) && (word = hy3_option_word(&names, &length))) {
            char name[64];
            int distance;

            if (abs((int)strlen(key) - (int)length) >= nearest) /* it is at least that far */
                continue;
            snprintf(name, sizeof name, "%.*s", (int)length, word);
            distance = strcasecmp(key, name) == 0 ? 0 : hy3_edit_distance(key, name);
            if (distance < nearest && !strchr(name, '*')) {
                nearest = distance;
                memcpy(best, name, sizeof best);
                found = true;
            }
        }
    }
    return found ? best : ours;
}
