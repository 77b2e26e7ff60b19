/* SPDX-License-Identifier: Apache-2.0 */
/* foreign.c - YAML, JSON and flags of other tools: each rule of doc/migration.md, by what the
 * resolved configuration says or why it is refused. */
#include "config/scenes.h"

/* clang-format off */
static void yaml_scalars_are_read_as_omegaconf_reads_them(void **state)
{
    static const struct scene scenes[] = {
        {LF "learning_rate: 1e-5\n", NULL, "learning_rate = 1e-05;"},
        {LF "learning_rate: 1.e-5\n", NULL, "learning_rate = 1e-05;"},
        {LF "weight_decay: .1\nadam_epsilon: 1E-7\n", NULL, "weight_decay = 0.1;|adam_epsilon = 1e-07;"},
        {LF "max_grad_norm: +0.5\nnum_train_epochs: 1e0\n", NULL, "max_grad_norm = 0.5;|num_train_epochs = 1;"},
        {LF "max_samples: 1_000\ncutoff_len: 0x200\nseed: 017\n", NULL, "max_samples = 1000;|max_seq_length = 512;|seed = 15;"},
        {LF "cutoff_len: 100.0\nseed: \"7\"\n", NULL, "max_seq_length = 100;|seed = 7;"},
        /* of generation there */
        {LF "cutoff_len: 100\nmax_length: 50\n", NULL, "max_seq_length = 100;"},
        {LF "bf16: Yes\nplot_loss: on\noverwrite_cache: 'true'\n", NULL, "bf16 = true;|plot_loss = true;|overwrite_cache = true;"},
        {LF "bf16: off\nplot_loss: NO\n", NULL, "bf16 = false;|plot_loss = false;"},
        {LF "seed: ~\nlora_rank: null\nweight_decay:\n", NULL, "seed = 42;|lora_rank = 8;|weight_decay = 0;"},
        {LF "seed: !!int \"5\"\nlora_dropout: !!float 0\n", NULL, "seed = 5;|lora_dropout = 0;"},
        {LF "logging_steps: &n 3\nsave_steps: *n\n", NULL, "logging_steps = 3;|save_steps = 3;"},
        {"%YAML 1.1\n---\n" LF "seed: 3 # three\n", NULL, "seed = 3;"},
        {"\xef\xbb\xbf" LF "lora_target: >\n  q_proj,\n  v_proj\n", NULL, "lora_target = [\"q_proj\", \"v_proj\"];"},
        {LF "<<: {seed: 8, lora_rank: 4}\nlora_rank: 2\n", NULL, "seed = 8;|lora_rank = 2;"},
        {LF "eval_strategy: \"no\"\nval_size: 2\n", NULL, "eval_steps = 0;|val_size = 2;"},
        {LF "eval_strategy: no\neval_steps: 7\nval_size: 2\n", NULL, "eval_steps = 0;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void defaults_are_those_of_the_tool(void **state)
{
    static const struct scene scenes[] = {
        {LF, NULL, "finetuning_type = \"lora\";|lora_rank = 8;|lora_alpha = 16;|lora_dropout = 0;|max_seq_length = 2048;|"
                   "per_device_train_batch_size = 8;|learning_rate = 5e-05;|lr_scheduler_type = \"linear\";|logging_steps = 500;|"
                   "plot_loss = false;|dataset_dir = \"data\";|bf16 = true;|resume_from_checkpoint = \"auto\";|"
                   "\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"];"},
        {LF "finetuning_type: full\n", NULL, "finetuning_type = \"full\";|lora_rank = 64;"},
        {LF "lora_alpha: 0\nlora_rank: 5\n", NULL, "lora_alpha = 10;"},
        {SWIFT, NULL, "finetuning_type = \"lora\";|lora_rank = 8;|lora_alpha = 32;|lora_dropout = 0.05;|learning_rate = 0.0001;|"
                      "weight_decay = 0.1;|adam_beta2 = 0.95;|lr_scheduler_type = \"cosine\";|logging_steps = 5;|"
                      "truncation_strategy = \"delete\";|per_device_train_batch_size = 1;|train_data_file = [\"t.jsonl\"];"},
        {SWIFT "tuner_type: full\n", NULL, "finetuning_type = \"full\";|learning_rate = 1e-05;"},
        {NULL, FLAGS, "finetuning_type = \"full\";|max_seq_length = 2048;|per_device_train_batch_size = 8;|learning_rate = 5e-05;"},
        {NULL, FLAGS "--use_lora", "finetuning_type = \"lora\";|lora_rank = 64;|lora_alpha = 8;|lora_dropout = 0;|[\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\"]"},
        {NULL, FLAGS "--train_attention_params_only", "finetuning_type = \"attention\";"},
        {NULL, FLAGS "--train_attention_params_only --use_lora True", "finetuning_type = \"lora\";"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void packing_becomes_ours(void **state)
{
    static const struct scene scenes[] = {
        {LF "packing: true\n", NULL, "packing = true;|packing_length = 0;"},
        {LF "neat_packing: true\npacking: false\n", NULL, "packing = true;"},
        {SWIFT "packing: true\npacking_length: 2048\n", NULL, "packing = true;|packing_length = 2048;|max_seq_length = 512;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void keys_become_ours(void **state)
{
    static const struct scene scenes[] = {
        {LF "lora_target: all\n", NULL, "\"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"];"},
        {LF "lora_target: [q_proj, experts]\n", NULL, "lora_target = [\"q_proj\", \"experts\"];"},
        {LF "ddp_timeout: 180000000\n", NULL, "ddp_timeout = 1800;"},
        {LF "ddp_timeout: 86400\n", NULL, "ddp_timeout = 86400;"},
        {LF "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: '{\"min_lr\": 1e-6}'\n", NULL, "min_lr = 1e-06;"},
        {LF "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs:\n  min_lr_rate: 0.1\n", "lr_scheduler_kwargs.min_lr_rate=0.2", "min_lr_rate = 0.2;"},
        {LF "disable_gradient_checkpointing: true\n", NULL, "gradient_checkpointing = false;"},
        {LF "eval_strategy: steps\nval_size: 3\n", "logging_steps=4", "eval_steps = 4;|logging_steps = 4;"},
        {LF "report_to: [tensorboard, wandb]\n", NULL, "report_to = [\"tensorboard\", \"wandb\"];"},
        {LF "report_to: mlflow\n", NULL, "report_to = \"mlflow\";"},
        {LF "report_to: []\n", NULL, "report_to = \"none\";"},
        {LF "fsdp: full_shard auto_wrap offload\n", NULL, "zero_stage = 3;|offload = \"full\";"},
        {LF "fsdp: [shard_grad_op]\n", NULL, "zero_stage = 2;|offload = \"none\";"},
        {LF "deepspeed: {zero_optimization: {stage: 1, cpu_offload: true}}\n", NULL, "zero_stage = 1;|offload = \"optimizer\";"},
        {LF "deepspeed: {zero_optimization: {stage: 3, stage3_max_reuse_distance: 5e8}}\n", NULL, "stage3_max_reuse_distance = 500000000;"},
        {LF "deepspeed: {train_batch_size: auto}\n", NULL, "zero_stage = 0;"},
        {LF "expert_parallel_size: 4\n", NULL, "expert_parallel_size = 4;"},
        {SWIFT "sequence_parallel_size: 2\n", NULL, "sequence_parallel_size = 2;"},
        {LF "sequence_parallel_size: 2\ncutoff_len: 262144\n", NULL, "sequence_parallel_size = 2;|max_seq_length = 262144;"},
        {LF "flash_attn: fa3\n", "seed=null", "flash_attn = \"fa3\";|seed = 42;"},
        {LF "cutoff_len: 64\n", "max_seq_length=128", "max_seq_length = 128;"},
        {LF "neftune_noise_alpha: null\nuse_dora: false\nquantization_bit: 0\nlabel_smoothing_factor: 0.0\n", NULL, "seed = 42;"},
        {SWIFT "deepspeed: zero3_offload\n", NULL, "zero_stage = 3;|offload = \"full\";"},
        {SWIFT "target_modules: all-linear\ntarget_parameters: [mlp.experts.gate_up_proj, mlp.experts.down_proj]\n", NULL, "\"down_proj\", \"experts\"];"},
        {LF "packing: false\ngradient_checkpointing: true\ndisable_gradient_checkpointing: true\n", NULL, "gradient_checkpointing = false;|packing = false;"},
        {LF "disable_gradient_checkpointing: true\ngradient_checkpointing: true\n", NULL, "gradient_checkpointing = false;"},
        {LF "report_to: [trackio, none]\nfsdp: False\nenable_thinking: true\n", NULL, "report_to = \"tensorboard\";"},
        {LF "deepspeed: {zero_optimization: {stage: 2}}\n", "deepspeed=null", "zero_stage = 3;"},
        {LF "deepspeed: {optimizer: {type: AdamW, params: {betas: [0.9, 0.999], lr: auto}}, train_batch_size: 8}\n", NULL, "adam_beta2 = 0.999;"},
        {NULL, FLAGS "--use_lora True --train_attention_params_only False", "finetuning_type = \"lora\";"},
        {NULL, FLAGS "--train_attention_params_only True --use_lora False", "finetuning_type = \"attention\";"},
        {NULL, FLAGS "--do_train False --min_lr 0.5", "learning_rate = 5e-05;|# min_lr is not set"},
        {SWIFT "val_dataset: v.jsonl\nsave_steps: 30\n", NULL, "eval_data_file = [\"v.jsonl\"];|eval_steps = 30;"},
        {NULL, FLAGS "--learning-rate=2e-5 --no_bf16 --gradient_checkpointing False --seed 1 --seed 2", "learning_rate = 2e-05;|bf16 = false;|gradient_checkpointing = false;|seed = 2;"},
        {NULL, FLAGS "--use_flash_attn --max_steps -1 --report_to tensorboard mlflow", "flash_attn = \"fa2\";|max_steps = -1;|[\"tensorboard\", \"mlflow\"]"},
        {NULL, "--model m --dataset a.jsonl b.jsonl --output_dir o --max_length 64 --resume_from_checkpoint None", "train_data_file = [\"a.jsonl\", \"b.jsonl\"];|max_seq_length = 64;"},
        {NULL, "--stage sft --model_name_or_path m --dataset a,b --output_dir o --template hy3", "dataset = [\"a\", \"b\"];|max_seq_length = 2048;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void training_options_become_ours(void **state)
{
    static const struct scene scenes[] = {
        {LF "use_rslora: true\nlabel_smoothing_factor: 0.1\n", NULL, "use_rslora = true;|label_smoothing_factor = 0.1;"},
        {LF "additional_target: embed_tokens,lm_head\nloraplus_lr_ratio: 16.0\nneftune_noise_alpha: 5\nloraplus_lr_embedding: 1e-6\n", NULL,
         "additional_target = [\"embed_tokens\", \"lm_head\"];|loraplus_lr_ratio = 16;|neftune_noise_alpha = 5;"},
        {SWIFT "modules_to_save: [lm_head]\nlorap_lr_ratio: 8\n", NULL, "additional_target = [\"lm_head\"];|loraplus_lr_ratio = 8;"},
        {LF "finetuning_type: freeze\nfreeze_trainable_layers: -3\nfreeze_trainable_modules: mlp,self_attn\nfreeze_extra_modules: lm_head\n", NULL,
         "finetuning_type = \"freeze\";|freeze_trainable_layers = -3;|freeze_trainable_modules = [\"mlp\", \"self_attn\"];|freeze_extra_modules = [\"lm_head\"];"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void what_is_learned_of_a_line_becomes_ours(void **state)
{
    static const struct scene scenes[] = {
        {SWIFT "torch_dtype: bfloat16\n", NULL, "split_think = true;|guess_form = true;|reasoning_effort = \"auto\";"},
        {LF "enable_thinking: null\nmask_history: true\ndefault_system: Be brief.\n", NULL, "enable_thinking = true;|reasoning_effort = \"auto\";|mask_history = true;|default_system = \"Be brief.\";"},
        {LF "train_sampling_strategy: sequential\ndisable_shuffling: false\n", NULL, "disable_shuffling = true;"},
        {LF "train_sampling_strategy: group_by_length\n", NULL, "disable_shuffling = false;"},
        {SWIFT "train_sampling_strategy: sequential\n", NULL, "disable_shuffling = true;"},
        {LF "use_swanlab: true\nswanlab_mode: local\n", NULL, "report_to = \"swanlab\";"},
        {LF "use_swanlab: true\nreport_to: [tensorboard]\n", NULL, "report_to = [\"tensorboard\", \"swanlab\"];"},
        {LF "use_swanlab: false\naccelerator_config: {split_batches: false}\neval_delay: 2\nuse_ray: false\nhyper_parallel_args: null\n", NULL, "report_to = \"none\";"},
        {LF "accelerator_config: '{\"split_batches\": false, \"gradient_accumulation_kwargs\": {\"num_steps\": 1}, \"even_batches\": true}'\n", NULL, "gradient_accumulation_steps = 1;"},
        {LF "eval_delay: 5\nearly_stopping_patience: 0\nval_size: 2\neval_strategy: steps\neval_steps: 4\n", NULL, "early_stopping_patience = 0;"},
        {LF "mask_history: true\n", NULL, "preserve_thinking = false;|last_turn = \"answer\";"},
        {LF "mask_history: true\npreserve_thinking: true\n", NULL, "preserve_thinking = true;"},
        {LF "preserve_thinking: false\n", NULL, "preserve_thinking = true;|mask_history = false;"},
        {SWIFT "loss_scale: last_round\n", NULL, "preserve_thinking = false;|last_turn = \"round\";"},
        {SWIFT "loss_scale: last_round\npreserve_thinking: true\n", NULL, "preserve_thinking = true;|mask_history = true;"},
        {SWIFT "preserve_thinking: null\n", NULL, "preserve_thinking = true;|mask_history = false;"},
        {SWIFT "preserve_thinking: false\n", NULL, "preserve_thinking = false;|mask_history = false;|last_turn = \"round\";"},
        {LF "enable_thinking: false\nmask_history: false\ndefault_system: null\n", NULL, "enable_thinking = false;|mask_history = false;|# default_system is not set"},
        {LF "reasoning_effort: low\nmask_empty_think: true\n", NULL, "reasoning_effort = \"low\";|mask_empty_think = true;"},
        {SWIFT "system: Be brief.\nloss_scale: default\nenable_thinking: null\n", NULL, "default_system = \"Be brief.\";|mask_history = false;|mask_empty_think = false;|enable_thinking = true;"},
        {SWIFT "loss_scale: last_round\nenable_thinking: false\n", NULL, "mask_history = true;|mask_empty_think = false;|enable_thinking = false;"},
        {SWIFT "loss_scale: last_round+ignore_empty_think\n", NULL, "mask_history = true;|mask_empty_think = true;"},
        {SWIFT "loss_scale: ignore_empty_think\n", NULL, "mask_history = false;|mask_empty_think = true;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void what_changes_the_result_is_refused(void **state)
{
    static const struct scene scenes[] = {
        {LF "use_dora: true\nfp16: true\noptim: sgd\n", NULL, "3 problems|run.yaml:5: use_dora|run.yaml:6: fp16|run.yaml:7: optim = sgd"},
        {LF "use_llama_pro: true\npissa_init: true\n", NULL, ":5: use_llama_pro|:6: pissa_init"},
        {LF "train_sampling_strategy: batch\nuse_swanlab: 7\n", NULL, ":5: train_sampling_strategy = batch|:6: use_swanlab"},
        {LF "deepspeed: {zero_optimization: true, progressive_layer_drop: {enabled: true}}\n", NULL, "2 problems|zero_optimization = true|progressive_layer_drop.enabled"},
        {LF "create_new_adapter: true\nhyper_parallel_args: x.yaml\n", NULL, ":5: create_new_adapter is not|hy3_merge|:6: hyper_parallel_args is not"},
        {LF "accelerator_config: {split_batches: true}\n", NULL, ":5: accelerator_config.split_batches"},
        {LF "accelerator_config: '{\"split_batches\": true}'\n", NULL, ":5: accelerator_config.split_batches"},
        {NULL, FLAGS "--accelerator_config {\"split_batches\":true}", "--accelerator_config: accelerator_config.split_batches"},
        {LF "accelerator_config: accel.json\n", NULL, ":5: accelerator_config = accel.json: it must be a map"},
        {LF "accelerator_config: {gradient_accumulation_kwargs: {num_steps: 4}}\n", NULL, "num_steps = 4 is not available: set gradient_accumulation_steps"},
        {LF "deepspeed: {curriculum_learning: {enabled: true, curriculum_type: seqlen}, sparse_attention: {mode: fixed}}\n", NULL, "2 problems|curriculum_learning.enabled|sparse_attention.mode"},
        {LF "eval_delay: 5\nearly_stopping_patience: 2\nval_size: 2\neval_strategy: steps\neval_steps: 4\n", NULL, ":5: eval_delay is not"},
        {LF "eval_delay: 5\nearly_stopping_steps: 2\nval_size: 2\neval_strategy: steps\neval_steps: 4\n", NULL, ":5: eval_delay is not"},
        {LF "eval_delay: 5\nsave_strategy: best\nval_size: 2\neval_strategy: steps\neval_steps: 4\n", NULL, ":5: eval_delay is not"},
        {LF "mask_history: true\npreserve_thinking: maybe\n", NULL, ":6: 'preserve_thinking' is"},
        {LF "train_on_prompt: true\nmask_history: 3\n", NULL, ":5: train_on_prompt|mask_history"},
        {SWIFT "system: prompt.txt\nloss_scale: [last_round]\n", NULL, "system = prompt.txt names a file"},
        {SWIFT "loss_scale: last_round+react\n", NULL, "loss_scale = last_round+react is not available"},
        {LF "enable_thinking: false\nreasoning_effort: low\n", NULL, "contradicts enable_thinking = false"},
        {LF "learning_rat: 1\n", NULL, ":5: unknown key 'learning_rat'; did you mean 'learning_rate'"},
        {LF "finetuning_type: oft\n", NULL, "'finetuning_type' is \"oft\""},
        {LF "finetuning_type: freeze\nfreeze_trainable_layers: 0\n", NULL, ":6|freeze_trainable_layers = 0 is no layer"},
        {LF "adapter_name_or_path: a,b\nfinetuning_type: lora\n", "adapter_name_or_path=[a,b]", "adapter_name_or_path names 2"},
        {LF "dataset_dir: ONLINE\n", NULL, "does not download"},
        {LF "deepspeed: nowhere.json\n", NULL, ":5: deepspeed: 'nowhere.json' does not exist"},
        {LF "deepspeed: {zero_optimization: {stage: 2, offload_param: {device: cpu}}}\n", NULL, "offload_param needs stage 3"},
        {LF "deepspeed: {gradient_accumulation_steps: 4, bf16: {enabled: false}, fp16: {enabled: true}, scheduler: {type: WarmupLR}}\n", NULL,
         "gradient_accumulation_steps = 4 is not|bf16.enabled = false|fp16.enabled|scheduler.type"},
        {LF "deepspeed: {zero_optimization: {stage: 3, offload_optimizer: {device: nvme, nvme_path: /a}, offload_param: {device: nvme, nvme_path: /b}}}\n", NULL, "two nvme_path"},
        {SWIFT "truncation_strategy: middle\nloss_scale: all\nrouter_aux_loss_coef: 0.1\n", NULL, "'truncation_strategy' is \"middle\"|loss_scale = all|router_aux_loss_coef"},
        {NULL, FLAGS "--learnig_rate 1", "unknown key 'learnig_rate'"},
        {NULL, FLAGS "--learning_rate", "'--learning_rate' needs a value"},
        {LF "seed: 1\nseed: 2\n", NULL, ":6: the key 'seed' is given twice"},
        {LF "\tseed: 1\n", NULL, ":5: not valid YAML|tab"},
        {LF "---\nseed: 1\n", NULL, ":6: a second document"},
        {"- a\n", NULL, ":1: the top level must be a map"},
        {LF "seed: !x 1\n", NULL, ":5: unknown tag '!x'"},
        {LF "cutoff_len: 10.5\n", NULL, "10.5; it must be a whole number"},
        {LF "output_dir2: ${oc.env:HY3_NO_SUCH_VARIABLE}\n", NULL, "no variable 'HY3_NO_SUCH_VARIABLE'"},
        {LF "x: ${now:%Y}\n", NULL, "'${now:%Y}' is not available"},
        {LF "cache_dir2: ${cache_dir2}\n", NULL, "leads back to itself"},
        {LF "enable_thinking: maybe\nper_gpu_train_batch_size: 4\n", NULL, "enable_thinking|:6: per_gpu_train_batch_size"},
        {LF "deepspeed: {optimizer: {params: {betas: [0.9, 0.95], adam_w_mode: false}}, train_batch_size: 9}\n", NULL,
         "betas[1] = 0.95 is not the adam_beta2|adam_w_mode = false|train_batch_size = 9 is not the 8 samples"},
        {SWIFT "torch_dtype: float32\n", NULL, "torch_dtype = float32"},
        {"model: m\ndataset: [t.jsonl]\noutput_dir: o\n", NULL, "max_length is missing"},
        {LF "lora_target: [q_proj, [v_proj]]\nreport_to: [{a: 1}]\n", NULL, ":5: lora_target: a list|:6: report_to: a list"},
        {LF "x: ${oc.env:A,${B}}\n", NULL, "a reference stands inside another"},
        {LF "deepspeed: z.json\n", "deepspeed.zero_optimization.stage=2", "deepspeed is a file, and keys"},
        {LF "a: &a {x: 1, y: 2}\nb: &b {p: *a, q: *a, r: *a, s: *a}\nc: &c {p: *b, q: *b, r: *b, s: *b}\n"
            "d: &d {p: *c, q: *c, r: *c, s: *c}\ne: &e {p: *d, q: *d, r: *d, s: *d}\nf: &f {p: *e, q: *e, r: *e, s: *e}\n"
            "g: &g {p: *f, q: *f, r: *f, s: *f}\nh: {p: *g, q: *g, r: *g, s: *g}\n", NULL, "too many values"},
    };

    (void)state;
    assert_refused("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

/* Rules R1 to R7 of the page: dialects, overriding, scalars, references, lists, flags. */
static void rules_of_reading_hold(void **state)
{
    static const struct scene scenes[] = {
        {"model: m\ndataset: t.jsonl\noutput_dir: o\nmax_length: 64\n", NULL, "lora_alpha = 32;"},
        {SWIFT "lora_alpha: None\n", "seed=None", "lora_alpha = 32;|seed = 42;"},
        {"train_type: lora\nmodel: m\ndataset: t\nmax_length: 64\n", NULL, "output_dir = \"output\";"},
        {LF, "lora_target=all lora_rank=3", "lora_rank = 3;|lora_alpha = 6;|\"down_proj\"];"},
        {LF "seed: 1\n", "seed=2 seed=3", "seed = 3;"},
        {LF "learning_rate: 1e-3\n", "learning_rate=null", "learning_rate = 5e-05;"},
        {LF "lr_scheduler_type: cosine_with_min_lr\n", "lr_scheduler_kwargs.min_lr_rate=0.2", "min_lr_rate = 0.2;"},
        {LF "seed: 0b11\n", NULL, "seed = 3;"},
        {LF "max_grad_norm: 1_0.5\n", NULL, "max_grad_norm = 10.5;"},
        {LF "num_train_epochs: 3.\nlearning_rate: 5E-6\nwarmup_ratio: 1e-1\n", NULL, "num_train_epochs = 3;|learning_rate = 5e-06;|warmup_ratio = 0.1;"},
        {LF "weight_decay: '0.1'\nbf16: \"False\"\n", NULL, "weight_decay = 0.1;|bf16 = false;"},
        {LF "bf16: TRUE\nplot_loss: Off\noverwrite_cache: No\n", NULL, "bf16 = true;|plot_loss = false;|overwrite_cache = false;"},
        {LF "bf16: null\nlora_alpha: null\nseed: Null\n", NULL, "bf16 = true;|lora_alpha = 16;|seed = 42;"},
        {LF "tokenizer_name_or_path: a#b\nseed: 5 # five\n", NULL, "tokenizer_name_or_path = \"a#b\";|seed = 5;"},
        {LF "dataset_dir: \"a: b\"\n", NULL, "dataset_dir = \"a: b\";"},
        {LF "dataset_dir: ${oc.env:HY3_NO_SUCH_VARIABLE,'x y'}\n", NULL, "dataset_dir = \"x y\";"},
        {LF "seed: 9\nsave_steps: ${seed}\n", NULL, "save_steps = 9;"},
        {LF "seed: 9\nsave_steps: ${seed}\n", "seed=4", "save_steps = 4;"},
        {LF "seed: ${oc.env:HY3_NO_SUCH_VARIABLE}\n", "seed=4", "seed = 4;"},
        {"model_name_or_path: m\ndataset: a, b ,c\noutput_dir: o\n", NULL, "dataset = [\"a\", \"b\", \"c\"];"},
        {LF "lora_target: q_proj,v_proj\n", NULL, "lora_target = [\"q_proj\", \"v_proj\"];"},
        {LF "report_to: tensorboard, none\n", NULL, "report_to = \"tensorboard\";"},
        {LF "ddp_timeout: 86401\n", NULL, "ddp_timeout = 1800;"},
        {LF "save_total_limit: null\n", NULL, "save_total_limit = 0;"},
        {LF "cutoff_len: 1e3\n", NULL, "max_seq_length = 1000;"},
        {LF "resume_from_checkpoint: null\n", NULL, "resume_from_checkpoint = \"auto\";"},
        {LF "resume_from_checkpoint: false\n", NULL, "resume_from_checkpoint = \"none\";"},
        {LF "optim: adamw_torch_fused\npush_to_hub: false\nfp16: false\n", NULL, "seed = 42;|optim = \"adamw\";"},
        {LF "optim: adamw_torch\n", "optim=adamw_8bit", "optim = \"adamw_8bit\";"},
        {LF "seed: 3\n", "optim=adamw_bf16", "optim = \"adamw_bf16\";"},
        {LF "preprocessing_num_workers: 16\ndataloader_num_workers: 4\ntrust_remote_code: true\nmoe_aux_loss_coef: 0.1\n", NULL, "seed = 42;"},
        {LF "image_max_pixels: 1\nvllm_enforce_eager: true\n", NULL, "seed = 42;"},
        {LF "flash_attn: disabled\n", NULL, "flash_attn = \"disabled\";"},
        {LF "template: hy3\n", NULL, "template = \"hy_v3\";"},
        {LF "tokenized_path: cache_of_tokens\n", NULL, "cache_dir = \"cache_of_tokens\";"},
        {NULL, FLAGS "--gradient-accumulation-steps=4 --weight_decay -0", "gradient_accumulation_steps = 4;"},
        {NULL, FLAGS "--bf16 0 --overwrite_output_dir yes", "bf16 = false;|overwrite_output_dir = true;"},
        {NULL, FLAGS "--hidden_size 64 --num_experts 4 --tie_word_embeddings False", "seed = 42;"},
        {SWIFT "deepspeed: zero2_offload\n", NULL, "zero_stage = 2;|offload = \"optimizer\";"},
        {SWIFT "deepspeed: zero0\n", NULL, "zero_stage = 0;"},
        {NULL, "--model m --dataset a.jsonl --max_length 64 --lora_alpha None --seed 4", "lora_alpha = 32;|seed = 4;"},
        {SWIFT "ENV: {A: 1, B: x}\nadd_version: true\n", NULL, "seed = 42;"},
        {SWIFT "max_epochs: 2\nsplit_dataset_ratio: 0.01\n", NULL, "num_train_epochs = 3;|max_epochs = 2;|val_size = 0.01;"},
        {SWIFT "max_epochs: 5\nnum_train_epochs: 2\n", NULL, "num_train_epochs = 2;|max_epochs = 5;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void what_breaks_a_rule_is_refused_with_its_line(void **state)
{
    static const struct scene scenes[] = {
        {LF "lora_rank: \"\"\n", NULL, "'lora_rank' is empty"},
        {LF "finetuning_type: ''\n", NULL, "'finetuning_type' is empty"},
        {LF "lora_target: \"\"\n", NULL, "'lora_target' is empty"},
        {LF "stage: dpo\n", NULL, "'stage' is given twice"},
        {"model_name_or_path: m\ndataset: d\noutput_dir: o\nstage: dpo\n", NULL, ":4: stage = dpo"},
        {LF "do_train: false\n", NULL, ":5: do_train"},
        {LF "template: llama3\n", NULL, "template"},
        {LF "mix_strategy: interleave_under\n", NULL, ":5: mix_strategy"},
        {LF "optim: paged_adamw_8bit\n", NULL, ":5: optim = paged_adamw_8bit|give optim = adamw_8bit as an argument"},
        {LF "optim: adamw_8bit\n", NULL, ":5: optim = adamw_8bit is not available"}, /* bitsandbytes' */
        {SWIFT "optim: adamw_bnb_8bit\n", NULL, "optim = adamw_bnb_8bit is not available"},
        {LF "seed: 1\n", "optim=lion_8bit", "optim = lion_8bit is not available"},
        {NULL, FLAGS "--optim adamw_8bit", "optim = adamw_8bit is not available"},
        {LF "train_from_scratch: true\nrope_scaling: linear\n", NULL, ":5: train_from_scratch|hy3_init|:6: rope_scaling"},
        {LF "push_to_hub: true\npredict_with_generate: yes\n", NULL, ":5: push_to_hub|:6: predict_with_generate"},
        {LF "average_tokens_across_devices: false\n", NULL, ":5: average_tokens_across_devices"},
        {LF "x: *nowhere\n", NULL, ":5: "},
        {LF "seed: {a: 1}\n", NULL, "seed"},
        {NULL, FLAGS "--seed", "'--seed' needs a value"},
        {SWIFT "context_parallel_size: 2\nagent_template: react\n", NULL, ":5: context_parallel_size|:6: agent_template"},
        {SWIFT "model_type: qwen3\n", NULL, ":5: model_type = qwen3"},
    };

    (void)state;
    assert_refused("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void schedules_strategies_and_the_best_checkpoint_become_ours(void **state)
{
    static const struct scene scenes[] = {
        {LF "warmup_steps: 0.25\n", NULL, "warmup_ratio = 0.25;|warmup_steps = 0;"},
        {LF "warmup_steps: 20\n", NULL, "warmup_steps = 20;|warmup_ratio = 0;"},
        {LF "save_steps: 0.1\nlogging_steps: 0.05\n", NULL, "save_steps = 0.1;|logging_steps = 0.05;"},
        {LF "save_strategy: no\n", NULL, "save_steps = 0;"},
        {LF "save_strategy: epoch\nsave_steps: 7\neval_strategy: epoch\neval_steps: 7\nval_size: 2\n", NULL, "save_strategy = \"epoch\";|eval_strategy = \"epoch\";|save_steps = 500;|eval_steps = 0;"},
        {LF "evaluation_strategy: epoch\nval_size: 2\n", "save_strategy=best", "save_strategy = \"best\";|eval_strategy = \"epoch\";"},
        {SWIFT "val_dataset: v.jsonl\nsave_strategy: epoch\nearly_stop_interval: 3\n", NULL, "save_strategy = \"epoch\";|eval_strategy = \"epoch\";|early_stopping_patience = 3;"},
        {SWIFT "val_dataset: v.jsonl\nsave_steps: 5\nearly_stop_interval: 3\n", NULL, "eval_steps = 5;|early_stopping_patience = 3;"},
        {SWIFT "val_dataset: v.jsonl\nsave_strategy: no\n", NULL, "eval_steps = 0;|save_steps = 0;"},
        {LF "eval_dataset: e,f\n", NULL, "eval_dataset = [\"e\", \"f\"];|dataset_dir = \"data\";"},
        {LF "load_best_model_at_end: true\nmetric_for_best_model: loss\ngreater_is_better: false\nearly_stopping_steps: 3\neval_strategy: steps\neval_steps: 5\nsave_steps: 10\nval_size: 2\n", NULL,
         "load_best_model_at_end = true;|metric_for_best_model = \"loss\";|greater_is_better = false;|early_stopping_patience = 3;"},
        {LF "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 0.1\nsave_steps: 0.3\nval_size: 2\n", NULL, "load_best_model_at_end = true;|save_steps = 0.3;"},
        {LF "lr_scheduler_type: cosine_with_restarts\nlr_scheduler_kwargs: {num_cycles: 3}\n", NULL, "lr_scheduler_type = \"cosine_with_restarts\";|lr_num_cycles = 3;"},
        {LF "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 0.5}\n", NULL, "lr_num_cycles = 0.5;"},
        {LF "lr_scheduler_type: polynomial\nlr_scheduler_kwargs: {lr_end: 1e-8, power: 2.0}\n", NULL, "lr_end = 1e-08;|lr_power = 2;"},
        {LF "lr_scheduler_type: inverse_sqrt\nlr_scheduler_kwargs: '{\"timescale\": 50}'\n", NULL, "lr_timescale = 50;"},
        {LF "lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs:\n  num_decay_steps: 20\n  num_stable_steps: 5\n  warmup_type: cosine\n  decay_type: 1-sqrt\n  min_lr_ratio: 0.1\n  num_cycles: 0.5\n", NULL,
         "lr_num_decay_steps = 20;|lr_num_stable_steps = 5;|lr_warmup_type = \"cosine\";|lr_decay_type = \"one_minus_sqrt\";|min_lr_rate = 0.1;|lr_num_cycles = 0.5;"},
        {LF "lr_scheduler_type: cosine_warmup_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-6, warmup_lr_rate: 0.2}\n", NULL, "min_lr = 1e-06;|warmup_lr_rate = 0.2;"},
        {LF "save_strategy: no\nsave_steps: 5\n", NULL, "save_steps = 0;"},
    };

    (void)state;
    assert_gives("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

static void schedules_and_strategies_that_transformers_refuses_are_refused(void **state)
{
    static const struct scene scenes[] = {
        {LF "lr_scheduler_kwargs: {power: 2, powr: 2}\n", NULL, ":5 (lr_scheduler_kwargs.power): no meaning to lr_scheduler_type = linear|:5: unknown key 'lr_scheduler_kwargs.powr'"},
        {SWIFT "lr_scheduler_kwargs: '{\"timescale\": 5}'\n", NULL, "(lr_scheduler_kwargs.timescale): no meaning to lr_scheduler_type = cosine"},
        {LF "lr_scheduler_type: constant\nlr_scheduler_kwargs: {min_lr: 0, num_cycles: 1}\n", NULL, ":6 (lr_scheduler_kwargs.min_lr): no|:6 (lr_scheduler_kwargs.num_cycles): no"},
        {LF "lr_scheduler_type: cosine_with_min_lr\n", NULL, ":5: lr_scheduler_type = cosine_with_min_lr needs lr_scheduler_kwargs"},
        {LF "lr_scheduler_type: cosine_warmup_with_min_lr\n", NULL, ":5: lr_scheduler_type = cosine_warmup_with_min_lr needs lr_scheduler_kwargs"},
        {LF "lr_scheduler_type: warmup_stable_decay\n", NULL, ":5: lr_scheduler_type = \"warmup_stable_decay\" needs lr_num_decay_steps"},
        {LF "lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 4, decay_type: sine}\n", NULL, "'lr_decay_type' is \"sine\""},
        {LF "lr_scheduler_type: polynomial\nlearning_rate: 1e-8\n", NULL, "lr_end = 1e-07 of lr_scheduler_type = \"polynomial\" must be below"},
        {LF "lr_scheduler_type: reduce_lr_on_plateau\n", NULL, ":5: lr_scheduler_type = reduce_lr_on_plateau is not available: it follows the loss; use warmup_stable_decay"},
        {LF "lr_scheduler_type: greedy\n", NULL, ":5: lr_scheduler_type = greedy is not available"},
        {LF "lr_scheduler_type: cosin\n", NULL, "'lr_scheduler_type' is \"cosin\""},
        {NULL, FLAGS "--lr_scheduler_type cosine_with_min_lr", "cosine_with_min_lr needs --min_lr"},
        {LF "save_strategy: epochs\neval_strategy: best\n", NULL, ":5: save_strategy = epochs is not available: use steps, epoch, best or no|:6: eval_strategy = best is not available: use steps, epoch or no"},
        {LF "eval_dataset: e\nval_size: 0.1\n", NULL, ":6: eval_dataset and val_size are both given"},
        {LF "eval_dataset: [a, b]\neval_on_each_dataset: true\n", NULL, ":6: eval_on_each_dataset is not available"},
        {LF "load_best_model_at_end: true\nval_size: 2\n", NULL, ":5: load_best_model_at_end needs evaluations: set eval_strategy"},
        {LF "load_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: epoch\n", NULL, ":5: load_best_model_at_end needs evaluations: set eval_data_file, eval_dataset or val_size"},
        {LF "load_best_model_at_end: true\neval_strategy: epoch\nval_size: 2\n", NULL, "set save_strategy and eval_strategy to the same"},
        {LF "load_best_model_at_end: true\neval_strategy: steps\nval_size: 2\neval_steps: 4\nsave_steps: 6\n", NULL, ":9: load_best_model_at_end needs an evaluation of each checkpoint: save_steps = 6 is no multiple of eval_steps = 4"},
        {LF "load_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: no\nval_size: 2\n", NULL, ":7 (save_strategy): load_best_model_at_end chooses among checkpoints"},
        {LF "load_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: epoch\nval_size: 2\nsave_only_model: true\n", NULL, ":9: load_best_model_at_end needs checkpoints with their state"},
        {LF "save_strategy: best\nval_size: 2\n", NULL, ":5: save_strategy = \"best\" needs evaluations"},
        {LF "early_stopping_steps: 2\nval_size: 2\n", NULL, "early_stopping_patience needs evaluations"},
        {LF "metric_for_best_model: accuracy\n", NULL, "'metric_for_best_model' is \"accuracy\"; it must be one of eval_loss, loss"},
        {SWIFT "early_stop_interval: 3\nval_dataset: v.jsonl\neval_steps: 5\nsave_steps: 10\n", NULL, "early_stop_interval counts checkpoints there"},
    };

    (void)state;
    assert_refused("run.yaml", scenes, sizeof scenes / sizeof *scenes);
}

/* clang-format on */

static void json_has_lines_and_no_interpolation(void **state)
{
    static const struct scene good = {
        "{\"model_name_or_path\": \"m\", \"dataset\": [\"d\"],\n \"output_dir\": \"${o}\", "
        "\"seed\": 5}",
        NULL, "output_dir = \"${o}\";|seed = 5;"};
    static const struct scene bad[] = {
        {"{\"model_name_or_path\": \"m\",\n \"use_dora\": true,\n}", NULL, ":3: not valid JSON"},
        {"{\"model_name_or_path\": \"m\", \"dataset\": \"d\",\n\n \"use_dora\": true}", NULL,
         "run.json:3: use_dora"},
    };

    (void)state;
    assert_gives("run.json", &good, 1);
    assert_refused("run.json", bad, 2);
}

/* Keys for Hy3 in LLaMA-Factory's files: config.json has them already. */
static void keys_of_the_model_must_be_as_its_config_json(void **state)
{
    static char texts[2][1024], model[512];
    const struct scene right[] = {{texts[0], NULL, "zero_stage = 3;"}};
    const struct scene wrong[] = {
        {texts[1], NULL,
         "3 problems|:5: moe_num_experts = 192 is not the 8 |:6: moe_topk is not|"
         ":7: output_router_logits = true"}};

    (void)state;
    snprintf(model, sizeof model, "model_name_or_path: %s\nstage: sft\ndataset: d\noutput_dir: o\n",
             hy3_golden("a/inner"));
    snprintf(texts[0], sizeof texts[0],
             "%smoe_num_experts: 8\nmoe_topk: 2\nmoe_intermediate_size: 24\n"
             "moe_layer_num_skipped: 1\noutput_router_logits: false\n",
             model);
    snprintf(texts[1], sizeof texts[1],
             "%smoe_num_experts: 192\nmoe_topk: [2]\noutput_router_logits: true\n", model);
    assert_gives("run.yaml", right, 1);
    assert_refused("run.yaml", wrong, 1);
}

static void texts_name_variables_and_keys(void **state)
{
    static const struct scene scene = {
        LF "tokenizer_name_or_path: ${oc.env:HY3_TEST_ROOT}/${output_dir}/${oc.env:HY3_NONE,x}\n",
        NULL, "tokenizer_name_or_path = \"/root/o/x\";"};

    (void)state;
    assert_int_equal(setenv("HY3_TEST_ROOT", "/root", 1), 0);
    assert_gives("run.yaml", &scene, 1);
}

static void an_input_is_looked_for_beside_the_file(void **state)
{
    static const struct scene scene = {SWIFT "deepspeed: z.json\n", NULL, "zero_stage = 1;"};
    char wanted[HY3_PATH_MAX];

    (void)state;
    write_file("z.json", "{\"zero_optimization\": {\"stage\": 1}, \"aio\": {\"block_size\": 5}}");
    write_file("t.jsonl", "");
    assert_gives("run.yaml", &scene, 1);
    snprintf(wanted, sizeof wanted, "%s/t.jsonl", hy3_test_directory());
    assert_string_equal(config.train_data_file.items[0], wanted);
}

static void data_sets_of_ms_swift_have_numbers_and_subsets(void **state)
{
    static const struct scene scenes[] = {
        {SWIFT "val_dataset: [v.jsonl#5, \"w.jsonl:all#7\", 'x.jsonl:default']\n", NULL,
         "v.jsonl#5\"|w.jsonl#7\"|x.jsonl\""},
        {SWIFT "val_dataset: v.jsonl#5\n", NULL, "v.jsonl#5\"];"},
        {SWIFT "val_dataset: no.jsonl:all#7\n", NULL, "[\"no.jsonl:all#7\"];"},
    };
    static const struct scene bad[] = {
        {SWIFT "val_dataset: HF::org/name#5\n", NULL,
         ":5: val_dataset|hf download --repo-type dataset|org/name"},
        {SWIFT "val_dataset: [ms::org/name]\n", NULL, "modelscope download"},
    };

    (void)state;
    for (int i = 0; i < 3; i++)
        write_file(((const char *[]){"v.jsonl", "w.jsonl", "x.jsonl"})[i], "");
    assert_gives("run.yaml", scenes, 3);
    assert_refused("run.yaml", bad, 2);
}

static void references_end_however_many_there_are(void **state)
{
    char *text;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct scene scene = {.wanted = "more than 10000"};

    (void)state;
    assert_non_null(out);
    fputs(LF "empty: \"\"\nmany: \"", out);
    for (int i = 0; i < 100000; i++)
        fputs("${empty}", out);
    fputs("\"\n", out);
    assert_int_equal(fclose(out), 0);
    scene.text = text;
    assert_refused("run.yaml", &scene, 1);
    free(text);
}

static void a_secret_is_never_shown(void **state)
{
    static const struct scene scene = {LF "hf_hub_token: hf_secret\nuse_dora: true\n", NULL,
                                       "use_dora"};

    (void)state;
    assert_refused("run.yaml", &scene, 1);
    assert_null(strstr(hy3_error_text(), "hf_secret"));
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start_as_sft, release)
    const struct CMUnitTest tests[] = {
        TEST(yaml_scalars_are_read_as_omegaconf_reads_them),
        TEST(defaults_are_those_of_the_tool),
        TEST(packing_becomes_ours),
        TEST(keys_become_ours),
        TEST(training_options_become_ours),
        TEST(what_is_learned_of_a_line_becomes_ours),
        TEST(what_changes_the_result_is_refused),
        TEST(schedules_strategies_and_the_best_checkpoint_become_ours),
        TEST(schedules_and_strategies_that_transformers_refuses_are_refused),
        TEST(rules_of_reading_hold),
        TEST(what_breaks_a_rule_is_refused_with_its_line),
        TEST(json_has_lines_and_no_interpolation),
        TEST(keys_of_the_model_must_be_as_its_config_json),
        TEST(texts_name_variables_and_keys),
        TEST(an_input_is_looked_for_beside_the_file),
        TEST(data_sets_of_ms_swift_have_numbers_and_subsets),
        TEST(references_end_however_many_there_are),
        TEST(a_secret_is_never_shown),
    };
#undef TEST

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
