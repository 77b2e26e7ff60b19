/* SPDX-License-Identifier: Apache-2.0 */
/* special.c - values that mean something else there, or several keys here. */
#include "base/memory.h"
#include "config/foreign/schedule.h"
#include "config/foreign/strategy.h"
#include "config/foreign/translation.h"
#include "config/foreign/yaml.h"

#include <stdlib.h>

static const char linear[] = HY3_FOREIGN_LINEAR;
static const char attention[] = "q_proj,k_proj,v_proj,o_proj";

/* The number of a setting of theirs; false where it is none. */
static bool get_number(const struct hy3_translation *t, const char *key, double *out)
{
    const struct hy3_setting *s = hy3_theirs(t, key);
    struct hy3_scalar_number number;
    const char *text = s ? hy3_setting_text(s) : NULL;

    if (!text || !hy3_scalar_number(text, t->path != NULL, &number))
        return false;
    *out = number.real;
    return true;
}

static bool is_true(const struct hy3_setting *s)
{
    bool truth = false;

    return s && hy3_setting_text(s) && hy3_scalar_truth(hy3_setting_text(s), &truth) && truth;
}

/* Whether a list has more in it than texts; the problem is then told. */
bool hy3_refuse_mixed(struct hy3_translation *t, const struct hy3_setting *s)
{
    if (s->type != HY3_VALUE_MIXED)
        return false;
    hy3_problem(t->problems, s->where,
                "%s: a list of texts is needed, without lists, maps or null in it", s->key);
    return true;
}

hy3_status hy3_put_words(struct hy3_translation *t, const struct hy3_setting *s, const char *key,
                         const char *words)
{
    hy3_status status = HY3_OK;
    struct hy3_setting list = {
        .type = HY3_VALUE_WORD,
        .texts = {.items = (char *[]){(char *)(uintptr_t)words}, .count = 1}};
    struct hy3_list texts;

    HY3_TRY_DONE(hy3_split_texts(&list, &texts));
    status = hy3_put_list(t, s, key, &texts);
done:
    hy3_list_free(&texts);
    return status;
}

/* One path, or a list of one. */
static hy3_status put_path(struct hy3_translation *t, const struct hy3_setting *s, const char *key,
                           const char *inside)
{
    hy3_status status = HY3_OK;
    const struct hy3_option *o = hy3_option_find(hy3_options, key);
    char found[HY3_PATH_MAX];
    struct hy3_list texts = {0}, paths = {0};

    if (hy3_refuse_mixed(t, s))
        return HY3_OK;
    if (o->type != HY3_LIST && s->type == HY3_VALUE_WORD && !strstr(key, "adapter"))
        HY3_TRY_DONE(hy3_list_add(&texts, hy3_setting_text(s), strlen(hy3_setting_text(s))));
    else
        HY3_TRY_DONE(hy3_split_texts(s, &texts));
    for (int i = 0; i < texts.count; i++) {
        HY3_TRY_DONE(hy3_find_input(t, t->path, texts.items[i], inside, found));
        HY3_TRY_DONE(hy3_list_add(&paths, found, strlen(found)));
    }
    if (o->type == HY3_LIST)
        status = hy3_put_list(t, s, key, &paths);
    else if (paths.count == 1)
        status = hy3_put_text(t, s, key, paths.items[0]);
    else if (paths.count > 1)
        hy3_problem(t->problems, s->where, "%s names %d; give one%s", s->key, paths.count,
                    strstr(key, "adapter") ? ", and merge the others first (hy3_merge)" : "");
done:
    hy3_list_free(&texts);
    hy3_list_free(&paths);
    return status;
}

static hy3_status put_dataset_dir(struct hy3_translation *t, const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);

    if (text && (strcmp(text, "ONLINE") == 0 || strncmp(text, "REMOTE:", 7) == 0)) {
        hy3_problem(t->problems, s->where,
                    "dataset_dir = %.64s is not available: hy3 does not download; give a directory "
                    "with a dataset_info.json",
                    text);
        return HY3_OK;
    }
    return put_path(t, s, "dataset_dir", "dataset_info.json");
}

static hy3_status put_tokenized(struct hy3_translation *t, const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);

    if (text && (hy3_path_exists_in(text, "dataset_info.json") ||
                 hy3_path_exists_in(text, "dataset_dict.json"))) {
        hy3_problem(t->problems, s->where,
                    "tokenized_path: '%.200s' holds an Arrow data set, which hy3 does not read; "
                    "leave it out: hy3 tokenizes again, in minutes",
                    text);
        return HY3_OK;
    }
    return hy3_put_plain(t, s, "cache_dir", NULL);
}

/* "all" and "all-linear" are the Linear modules there, which the routed experts are not. */
static hy3_status put_targets(struct hy3_translation *t, const struct hy3_setting *s)
{
    hy3_status status = HY3_OK;
    const struct hy3_setting *parameters = hy3_theirs(t, "target_parameters");
    struct hy3_list texts = {0}, targets = {0};

    if (hy3_refuse_mixed(t, s))
        return HY3_OK;
    HY3_TRY_DONE(hy3_split_texts(s, &texts));
    for (int i = 0; i < texts.count; i++) {
        const char *text = texts.items[i];
        bool is_all = strcmp(text, "all") == 0 || strcmp(text, "all-linear") == 0;

        for (const char *p = is_all ? linear : text; *p; p += strcspn(p, ",")) {
            p += *p == ',';
            HY3_TRY_DONE(hy3_list_add(&targets, p, is_all ? strcspn(p, ",") : strlen(p)));
            if (!is_all)
                break;
        }
    }
    if (parameters && !hy3_is_off(parameters))
        HY3_TRY_DONE(hy3_list_add(&targets, "experts", strlen("experts")));
    status = hy3_put_list(t, s, "lora_target", &targets);
done:
    hy3_list_free(&texts);
    hy3_list_free(&targets);
    return status;
}

/* A warmup below 1 is a share of all steps (transformers, training_args.py). */
static hy3_status put_warmup(struct hy3_translation *t, const struct hy3_setting *s)
{
    double value;

    if (get_number(t, s->key, &value) && value > 0 && value < 1)
        return hy3_put_number(t, s, "warmup_ratio", value);
    return hy3_put_plain(t, s, "warmup_steps", NULL);
}

static hy3_status put_timeout(struct hy3_translation *t, const struct hy3_setting *s)
{
    double value;

    if (get_number(t, s->key, &value) && value > 86400)
        return hy3_note_unused(t, s->key);
    return hy3_put_plain(t, s, s->key, NULL);
}

static hy3_status put_resume(struct hy3_translation *t, const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);
    bool truth;

    if (text && hy3_path_is_directory(text) && !hy3_path_exists_in(text, "state.h5")) {
        hy3_problem(t->problems, s->where,
                    "resume_from_checkpoint: '%.200s' is no checkpoint of hy3; to start from its "
                    "weights give them as model_name_or_path, or as adapter_name_or_path",
                    text);
        return HY3_OK;
    }
    if (text && hy3_scalar_truth(text, &truth))
        return hy3_put_text(t, s, s->key, truth ? "auto" : "none");
    return hy3_put_plain(t, s, s->key, NULL);
}

/* Backends that are not ours read TensorBoard's files. */
static hy3_status add_report(struct hy3_translation *t, struct hy3_list *ours, const char *text)
{
    const struct hy3_option *o = hy3_option_find(hy3_options, "report_to");
    const char *mlflow = getenv("MLFLOW_TRACKING_URI");
    bool is_all = strcmp(text, "all") == 0;

    if (strcmp(text, "none") == 0)
        return HY3_OK;
    if (!is_all && hy3_option_choice(o, text) >= 0)
        return hy3_list_add(ours, text, strlen(text));
    HY3_TRY(hy3_list_add(ours, "tensorboard", strlen("tensorboard")));
    if (!is_all)
        return hy3_note(t, "report_to: '%.64s' becomes tensorboard, whose files it can read", text);
    return mlflow && *mlflow ? hy3_list_add(ours, "mlflow", strlen("mlflow")) : HY3_OK;
}

static hy3_status put_report(struct hy3_translation *t, const struct hy3_setting *s)
{
    hy3_status status = HY3_OK;
    struct hy3_list texts = {0}, ours = {0};

    if (hy3_refuse_mixed(t, s))
        return HY3_OK;
    HY3_TRY_DONE(hy3_split_texts(s, &texts));
    for (int i = 0; i < texts.count; i++)
        HY3_TRY_DONE(add_report(t, &ours, texts.items[i]));
    if (ours.count > 0)
        status = hy3_put_list(t, s, "report_to", &ours);
done:
    hy3_list_free(&texts);
    hy3_list_free(&ours);
    return status;
}

/* "full_shard auto_wrap offload", as words or a list. */
static hy3_status put_fsdp(struct hy3_translation *t, const struct hy3_setting *s)
{
    static const struct {
        const char *word;
        int stage;
    } stages[] = {{"full_shard", 3}, {"shard_grad_op", 2}, {"no_shard", 0}};

    const char *text = s->texts.count > 0 ? s->texts.items[0] : "";
    bool offloads = false;
    int stage = -1;

    for (int i = 0; i < s->texts.count; i++) {
        for (size_t k = 0; k < sizeof stages / sizeof *stages; k++)
            stage = strstr(s->texts.items[i], stages[k].word) ? stages[k].stage : stage;
        offloads = offloads || strstr(s->texts.items[i], "offload");
    }
    if (stage < 0 && !hy3_is_off(s))
        hy3_problem(t->problems, s->where,
                    "fsdp = %.64s is not available: use full_shard, shard_grad_op or no_shard",
                    text);
    if (stage < 0)
        return HY3_OK;
    HY3_TRY(hy3_put_number(t, s, "zero_stage", stage));
    return offloads ? hy3_put_text(t, s, "offload", stage == 3 ? "full" : "optimizer") : HY3_OK;
}

/* The JSON of a map, as text. */
static hy3_status read_text_map(struct hy3_translation *t, const struct hy3_setting *s)
{
    hy3_status status = HY3_OK;
    const char *text = hy3_setting_text(s);
    struct hy3_settings inner = {0};
    struct hy3_problems found = {0};

    if (hy3_is_off(s))
        return HY3_OK;
    if (!text) {
        hy3_problem(t->problems, s->where, "%s is a list; it must be a map", s->key);
        return HY3_OK;
    }
    HY3_TRY_DONE(hy3_json_settings(text, strlen(text), s->where, s->key, &inner, &found));
    if (found.count > 0)
        hy3_problem(t->problems, s->where, "%s = %.100s: it must be a map, or its JSON as text",
                    s->key, text);
    HY3_TRY_DONE(hy3_settings_place(&inner, s->where));
    for (size_t i = 0; i < inner.count; i++)
        HY3_TRY_DONE(hy3_translate_setting(t, &inner.items[i]));
done:
    hy3_settings_free(&inner);
    return status;
}

static hy3_status put_flag(struct hy3_translation *t, const struct hy3_foreign_key *k,
                           const struct hy3_setting *s)
{
    if (!is_true(s))
        return HY3_OK;
    if (k->how == HY3_HOW_FLASH_FLAG)
        return hy3_put_text(t, s, "flash_attn", "fa2");
    if (k->how == HY3_HOW_ATTENTION)
        return is_true(hy3_theirs(t, "use_lora"))
                   ? HY3_OK
                   : hy3_put_text(t, s, "finetuning_type", "attention");
    HY3_TRY(hy3_put_words(t, s, "lora_target", attention));
    return hy3_put_text(t, s, "finetuning_type", "lora");
}

/* A value that is no truth is left to the refusal of our option. */
static hy3_status check_truth(struct hy3_translation *t, const struct hy3_setting *s,
                              const char *key)
{
    bool truth;

    return hy3_setting_text(s) && hy3_scalar_truth(hy3_setting_text(s), &truth)
               ? HY3_OK
               : hy3_put_plain(t, s, key, NULL);
}

static hy3_status put_min_lr(struct hy3_translation *t, const struct hy3_setting *s)
{
    const struct hy3_setting *type = hy3_theirs(t, "lr_scheduler_type");

    if (type && hy3_setting_text(type) && strcmp(hy3_setting_text(type), "cosine_with_min_lr") == 0)
        return hy3_put_plain(t, s, s->key, NULL);
    return hy3_note_unused(t, s->key);
}

hy3_status hy3_translate_special(struct hy3_translation *t, const struct hy3_foreign_key *k,
                                 const struct hy3_setting *s)
{
    const char *to = k->to ? k->to : s->key;

    switch (k->how) {
    case HY3_HOW_CHECKPOINTING:
    case HY3_HOW_PACKING:
    case HY3_HOW_PRESERVE:
        return check_truth(t, s, to);
    case HY3_HOW_MIN_LR:
        return put_min_lr(t, s);
    case HY3_HOW_PATH:
    case HY3_HOW_ADAPTER:
        return put_path(t, s, to, NULL);
    case HY3_HOW_DATASET_DIR:
        return put_dataset_dir(t, s);
    case HY3_HOW_TOKENIZED:
        return put_tokenized(t, s);
    case HY3_HOW_TARGETS:
        return put_targets(t, s);
    case HY3_HOW_PARAMETERS:
        return hy3_put_swift_parameters(t, s);
    case HY3_HOW_WARMUP:
        return put_warmup(t, s);
    case HY3_HOW_TIMEOUT:
        return put_timeout(t, s);
    case HY3_HOW_RESUME:
        return put_resume(t, s);
    case HY3_HOW_SCHEDULE:
        return hy3_put_schedule(t, s);
    case HY3_HOW_SAVE:
        return hy3_put_save_strategy(t, s);
    case HY3_HOW_EVAL:
        return hy3_put_eval_strategy(t, s);
    case HY3_HOW_REPORT:
        return put_report(t, s);
    case HY3_HOW_FSDP:
        return put_fsdp(t, s);
    case HY3_HOW_SYSTEM:
        return hy3_put_swift_system(t, s);
    case HY3_HOW_LOSS_SCALE:
        return hy3_put_swift_loss(t, s);
    case HY3_HOW_SWIFT_DATA:
        return hy3_refuse_mixed(t, s) ? HY3_OK : hy3_put_swift_data(t, s, to);
    case HY3_HOW_UNDER_PREFIX:
        return read_text_map(t, s);
    case HY3_HOW_LORA_FLAG:
    case HY3_HOW_ATTENTION:
    case HY3_HOW_FLASH_FLAG:
        return put_flag(t, k, s);
    default:
        return HY3_OK; /* HY3_HOW_ALPHA, HY3_HOW_DEEPSPEED: when all others are there */
    }
}

/* LLaMA-Factory: not given, null or 0 is twice the rank (finetuning_args.py). */
static hy3_status put_alpha(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "lora_alpha");
    double alpha = 0, rank = 8;

    const char *type = hy3_ours_text(t, "finetuning_type");

    if (t->origin != HY3_LLAMA_FACTORY)
        return HY3_OK;
    if (!s && type && strcmp(type, "lora") != 0)
        return HY3_OK;
    if (s && (!get_number(t, "lora_alpha", &alpha) || alpha != 0))
        return hy3_put_plain(t, s, "lora_alpha", NULL);
    get_number(t, "lora_rank", &rank);
    return rank > 0 ? hy3_put_number(t, s, "lora_alpha", 2 * rank) : HY3_OK;
}

/* Either of two keys; what LLaMA-Factory's first alone does there is said once. */
static hy3_status put_packing(struct hy3_translation *t)
{
    const struct hy3_setting *plain = hy3_theirs(t, "packing"),
                             *neat = hy3_theirs(t, "neat_packing");

    if (!is_true(plain) && !is_true(neat))
        return HY3_OK;
    if (t->origin == HY3_LLAMA_FACTORY && !is_true(neat))
        HY3_TRY(hy3_note(t,
                         "packing: samples of a row never see each other here, as with "
                         "LLaMA-Factory's neat_packing; with its packing alone they do"));
    if (hy3_ours(t, "packing"))
        return HY3_OK;
    return hy3_put_truth(t, is_true(plain) ? plain : neat, "packing", true);
}

/* Whether earlier reasoning stays: LLaMA-Factory asks with mask_history only (supervised.py), and
 * takes it out then; so does ms-swift with last_round, and else where it is told to (base.py). */
static hy3_status put_preserve(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "preserve_thinking");
    const struct hy3_setting *mask = hy3_ours(t, "mask_history");
    bool masks = mask && (mask->type == HY3_VALUE_BOOL ? mask->truth : is_true(mask));

    if (t->origin == HY3_LLAMA_FACTORY && s && !masks)
        return hy3_note_unused(t, s->key);
    if (t->origin == HY3_TRAIN_PY || hy3_ours(t, "preserve_thinking") || (s ? is_true(s) : !masks))
        return HY3_OK;
    return hy3_put_truth(t, s, "preserve_thinking", false);
}

/* Of a sequential one disable_shuffling does not matter. */
static hy3_status put_sampling(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "train_sampling_strategy");
    const char *text = s && hy3_setting_text(s) ? hy3_setting_text(s) : "a list";

    if (s && strcmp(text, "sequential") == 0) {
        hy3_drop_ours(t, "disable_shuffling");
        return hy3_put_truth(t, s, "disable_shuffling", true);
    }
    if (s && strcmp(text, "random") != 0 && strcmp(text, "group_by_length") != 0)
        hy3_problem(t->problems, s->where,
                    "%s = %.64s is not available: use random, group_by_length or sequential",
                    s->key, text);
    return HY3_OK;
}

/* One more of report_to. */
static hy3_status put_swanlab(struct hy3_translation *t)
{
    static const char word[] = "swanlab";

    const struct hy3_setting *s = hy3_theirs(t, "use_swanlab");
    struct hy3_setting *ours = (struct hy3_setting *)(uintptr_t)hy3_ours(t, "report_to");
    struct hy3_list one = {.items = (char *[]){(char *)(uintptr_t)word}, .count = 1};
    bool truth;

    if (s && !(hy3_setting_text(s) && hy3_scalar_truth(hy3_setting_text(s), &truth)))
        hy3_problem(t->problems, s->where, "use_swanlab must be true or false");
    if (!is_true(s))
        return HY3_OK;
    for (int i = 0; ours && i < ours->texts.count; i++)
        if (strcmp(ours->texts.items[i], word) == 0)
            return HY3_OK;
    return ours ? hy3_list_copy(&ours->texts, &one) : hy3_put_list(t, s, "report_to", &one);
}

/* Keys of which one wins, or any is enough. */
static hy3_status put_winners(struct hy3_translation *t)
{
    if (is_true(hy3_theirs(t, "disable_gradient_checkpointing"))) {
        hy3_drop_ours(t, "gradient_checkpointing");
        HY3_TRY(hy3_put_truth(t, hy3_theirs(t, "disable_gradient_checkpointing"),
                              "gradient_checkpointing", false));
    }
    HY3_TRY(put_preserve(t));
    HY3_TRY(put_sampling(t));
    HY3_TRY(put_swanlab(t));
    return put_packing(t);
}

hy3_status hy3_translate_rest(struct hy3_translation *t)
{
    HY3_TRY(put_alpha(t));
    HY3_TRY(put_winners(t));
    HY3_TRY(hy3_put_intervals(t));
    hy3_check_schedule(t);
    HY3_TRY(hy3_check_model(t));
    return t->origin == HY3_MS_SWIFT ? hy3_translate_swift(t) : HY3_OK;
}
