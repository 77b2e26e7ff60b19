/* SPDX-License-Identifier: Apache-2.0 */
/* plan.c - lists the tensors in model order, cuts the list into shards, formats the headers. */
#include "ckpt/hf/plan.h"

#include "base/memory.h"

#include <jansson.h>

#include <limits.h>

static hy3_status add_entry(struct hy3_hf_plan *plan, struct hy3_hf_entry **out)
{
    HY3_TRY(hy3_grow(&plan->entries, &plan->entry_capacity, (size_t)plan->count + 1,
                     sizeof *plan->entries));
    *out = &plan->entries[plan->count];
    **out = (struct hy3_hf_entry){.order = plan->count, .home = INT_MAX};
    plan->count++;
    return HY3_OK;
}

static hy3_status add_piece(struct hy3_hf_plan *plan, struct hy3_hf_piece piece)
{
    HY3_TRY(hy3_grow(&plan->pieces, &plan->piece_capacity, plan->piece_count + 1,
                     sizeof *plan->pieces));
    plan->pieces[plan->piece_count++] = piece;
    if (piece.shard < plan->entries[plan->count - 1].home)
        plan->entries[plan->count - 1].home = piece.shard;
    return HY3_OK;
}

/* Appends one tensor of a parameter. */
static hy3_status add_param_piece(struct hy3_hf_plan *plan,
                                  const struct hy3_hf_writer_options *options,
                                  const struct hy3_params *params, const struct hy3_param *param,
                                  int64_t piece)
{
    struct hy3_hf_entry *entry;

    HY3_TRY(add_entry(plan, &entry));
    entry->param = param;
    entry->dtype = param->unit < 0 || (plan->wide && plan->wide[param - params->params])
                       ? HY3_FP32
                       : options->dtype;
    entry->dtype_name = hy3_shard_dtype_name(entry->dtype);
    entry->width = (int)hy3_dtype_size(entry->dtype);
    entry->span = hy3_name_piece(param, &params->shape, options->names, piece, entry->name,
                                 &entry->dims, entry->shape);
    if (options->adapter)
        hy3_name_in_adapter(param, entry->name, &entry->dims, entry->shape);
    entry->bytes = entry->span.count * entry->width;
    return HY3_OK;
}

/* The experts of a unit one after the other, gate, up and down of each together. */
static hy3_status add_experts(struct hy3_hf_plan *plan, const struct hy3_hf_writer_options *options,
                              const struct hy3_params *params, const struct hy3_unit *unit)
{
    int64_t experts = params->shape.experts;

    for (int64_t e = 0; e < experts; e++)
        for (int i = unit->first; i < unit->end; i++) {
            const struct hy3_param *param = &params->params[i];
            int64_t pieces = hy3_name_pieces(param, &params->shape, HY3_INNER);

            for (int64_t at = pieces * e / experts; at < pieces * (e + 1) / experts; at++)
                HY3_TRY(add_param_piece(plan, options, params, param, at));
        }
    return HY3_OK;
}

static hy3_status open_base_tensor(struct hy3_hf_plan *plan, const struct hy3_hf_dir *base,
                                   const char *name, int shard,
                                   const struct hy3_shard_tensor **tensor)
{
    if (!plan->base[shard])
        HY3_TRY(hy3_hf_dir_open_shard(base, shard, &plan->base[shard]));
    *tensor = hy3_shard_find(plan->base[shard], name);
    if (!*tensor)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is missing", hy3_shard_path(plan->base[shard]),
                 name);
    return HY3_OK;
}

static int dtype_width(const struct hy3_shard_tensor *tensor)
{
    return tensor->count > 0 ? (int)(tensor->bytes / tensor->count) : 1;
}

/* Appends a tensor that is one piece of a tensor of the base. */
static hy3_status add_copy(struct hy3_hf_plan *plan, const char *name, int shard,
                           const struct hy3_shard_tensor *tensor, int64_t from, int64_t bytes)
{
    struct hy3_hf_entry *entry;

    HY3_TRY(add_entry(plan, &entry));
    snprintf(entry->name, sizeof entry->name, "%s", name);
    entry->dtype_name = tensor->dtype_name;
    entry->width = dtype_width(tensor);
    entry->dims = tensor->dims;
    memcpy(entry->shape, tensor->shape, sizeof entry->shape);
    entry->bytes = bytes;
    entry->piece = plan->piece_count;
    entry->pieces = 1;
    return add_piece(plan, (struct hy3_hf_piece){
                               .shard = shard, .tensor = tensor, .from = from, .bytes = bytes});
}

/* Parts of one expert in the fused tensor of this outer name: 2, 1, or 0 if it is another
 * tensor. */
static int expert_parts(const char *outer)
{
    char name[HY3_PARAM_NAME];

    if (!hy3_name_format(outer, 0, 0, HY3_INNER, name))
        return 0;
    return hy3_name_format(outer, 0, 1, HY3_INNER, name) ? 2 : 1;
}

/* A fused expert tensor of the base becomes one tensor an expert and part. */
static hy3_status split_fused(struct hy3_hf_plan *plan, const char *outer, int shard,
                              const struct hy3_shard_tensor *tensor, int64_t experts)
{
    int64_t parts = expert_parts(outer), bytes;
    char name[HY3_PARAM_NAME];

    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): a fused tensor has one part or two */
    if (tensor->dims != 3 || tensor->shape[0] != experts || tensor->shape[1] % parts != 0)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' does not hold %lld experts",
                 hy3_shard_path(plan->base[shard]), outer, (long long)experts);
    bytes = tensor->bytes / (experts * parts);
    for (int64_t i = 0; i < experts * parts; i++) {
        struct hy3_hf_entry *entry;

        hy3_name_format(outer, i / parts, (int)(i % parts), HY3_INNER, name);
        HY3_TRY(add_copy(plan, name, shard, tensor, i * bytes, bytes));
        entry = &plan->entries[plan->count - 1];
        entry->dims = 2;
        entry->shape[0] = tensor->shape[1] / parts;
        entry->shape[1] = tensor->shape[2];
    }
    return HY3_OK;
}

/* One expert's tensors of the base become a fused one: all are found by name. */
static hy3_status fuse_experts(struct hy3_hf_plan *plan, const struct hy3_hf_dir *base,
                               const char *outer, int64_t experts)
{
    int64_t parts = expert_parts(outer), bytes = 0;
    const struct hy3_shard_tensor *tensor, *model = NULL;
    char name[HY3_PARAM_NAME];
    int shard = 0;

    for (int64_t i = 0; i < experts * parts; i++) {
        int listed;

        hy3_name_format(outer, i / parts, (int)(i % parts), HY3_INNER, name);
        if ((listed = hy3_hf_dir_find(base, name)) < 0)
            HY3_FAIL(HY3_EFORMAT, "'%s' has no tensor '%s', which is a part of '%s'",
                     hy3_hf_dir_path(base), name, outer);
        hy3_hf_dir_tensor(base, listed, &shard);
        HY3_TRY(open_base_tensor(plan, base, name, shard, &tensor));
        model = model ? model : tensor;
        bytes = model->bytes;
        if (tensor->dims != 2 || tensor->shape[0] != model->shape[0] ||
            tensor->shape[1] != model->shape[1] || tensor->dtype_name != model->dtype_name)
            HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' differs in shape or dtype from '%s'",
                     hy3_shard_path(plan->base[shard]), name, model->name);
        if (i == 0) {
            struct hy3_hf_entry *fused;

            HY3_TRY(add_copy(plan, outer, shard, tensor, 0, bytes));
            fused = &plan->entries[plan->count - 1];
            fused->dims = 3;
            fused->shape[0] = experts;
            fused->shape[1] = parts * model->shape[0];
            fused->shape[2] = model->shape[1];
            fused->bytes = experts * parts * bytes;
            fused->pieces = (size_t)(experts * parts);
        } else {
            HY3_TRY(add_piece(
                plan, (struct hy3_hf_piece){
                          .shard = shard, .tensor = tensor, .to = i * bytes, .bytes = bytes}));
        }
    }
    return HY3_OK;
}

static bool has_entry(const struct hy3_hf_plan *plan, const char *name)
{
    for (int i = plan->count - 1; i >= 0; i--)
        if (strcmp(plan->entries[i].name, name) == 0)
            return true;
    return false;
}

/* Adds one tensor of the base that is not a parameter, in the layout of the output. */
static hy3_status add_base_tensor(struct hy3_hf_plan *plan,
                                  const struct hy3_hf_writer_options *options, int64_t experts,
                                  const char *name, int shard)
{
    const struct hy3_shard_tensor *tensor;
    struct hy3_name parsed;
    char target[HY3_PARAM_NAME];
    bool keep;

    hy3_name_parse(name, &parsed);
    if (parsed.expert >= experts)
        HY3_FAIL(HY3_EFORMAT, "'%s': tensor '%s' belongs to an expert that the model does not have",
                 hy3_hf_dir_path(options->base), name);
    HY3_TRY(open_base_tensor(plan, options->base, name, shard, &tensor));
    if (tensor->is_fp8)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: tensor '%s' is F8_E4M3; models in 8 bits can be trained on and checked, but "
                 "not yet converted or merged: use the bf16 publication for that",
                 hy3_shard_path(plan->base[shard]), name);
    keep = options->names == HY3_INNER ? !parsed.is_outer : !parsed.is_inner;
    if (keep)
        HY3_TRY(add_copy(plan, name, shard, tensor, 0, tensor->bytes));
    else if (options->names == HY3_INNER && expert_parts(parsed.outer) > 0)
        HY3_TRY(split_fused(plan, parsed.outer, shard, tensor, experts));
    else if (parsed.expert >= 0 && !has_entry(plan, parsed.outer))
        HY3_TRY(fuse_experts(plan, options->base, parsed.outer, experts));
    else if (parsed.expert < 0) {
        hy3_name_format(parsed.outer, -1, 0, options->names, target);
        HY3_TRY(add_copy(plan, target, shard, tensor, 0, tensor->bytes));
    }
    return HY3_OK;
}

static hy3_status add_base_tensors(struct hy3_hf_plan *plan,
                                   const struct hy3_hf_writer_options *options,
                                   const struct hy3_params *params)
{
    int shard;

    if (!options->base)
        return HY3_OK;
    for (int i = 0; i < hy3_hf_dir_tensors(options->base); i++) {
        const char *name = hy3_hf_dir_tensor(options->base, i, &shard);
        struct hy3_place place;

        hy3_name_locate(params, name, &place);
        if (!place.param && place.is_mtp)
            HY3_TRY(add_base_tensor(plan, options, params->shape.experts, name, shard));
    }
    return HY3_OK;
}

bool hy3_hf_stays_wide(const struct hy3_param *param, const struct hy3_shard_tensor *tensor)
{
    return param->unit < 0 || (param->kind == HY3_P_ROUTER && tensor->dtype == HY3_FP32);
}

static hy3_status open_base(struct hy3_hf_plan *plan, const struct hy3_hf_dir *base)
{
    plan->base_count = hy3_hf_dir_shards(base);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    return hy3_alloc(&plan->base, (size_t)plan->base_count, sizeof *plan->base);
}

/* Finds the tensors that stay fp32. */
static hy3_status find_wide(struct hy3_hf_plan *plan, const struct hy3_hf_dir *base,
                            const struct hy3_params *params)
{
    HY3_TRY(hy3_alloc(&plan->wide, (size_t)params->count, sizeof *plan->wide));
    for (int i = 0; i < hy3_hf_dir_tensors(base); i++) {
        int shard;
        const char *name = hy3_hf_dir_tensor(base, i, &shard);
        const struct hy3_shard_tensor *tensor;
        struct hy3_place place;

        hy3_name_locate(params, name, &place);
        if (!place.param || place.param->kind != HY3_P_ROUTER)
            continue;
        HY3_TRY(open_base_tensor(plan, base, name, shard, &tensor));
        plan->wide[place.param - params->params] = hy3_hf_stays_wide(place.param, tensor);
    }
    return HY3_OK;
}

/* All tensors in model order; those of the base stand between the last layer and the final norm. */
static hy3_status list_entries(struct hy3_hf_plan *plan,
                               const struct hy3_hf_writer_options *options,
                               const struct hy3_params *params)
{
    for (int i = 0; i < params->count; i++) {
        const struct hy3_param *param = &params->params[i];

        if (options->adapter ? !hy3_param_is_adapters(params, param) : param->part != HY3_BASE)
            continue;
        if (param->kind == HY3_P_FINAL_NORM)
            HY3_TRY(add_base_tensors(plan, options, params));
        if (options->names == HY3_OUTER || !hy3_kind_is_expert(param->kind))
            HY3_TRY(add_param_piece(plan, options, params, param, 0));
        else if (i == params->unit[param->unit].first)
            HY3_TRY(add_experts(plan, options, params, &params->unit[param->unit]));
    }
    return HY3_OK;
}

/* Cuts the list where a shard would exceed the limit; a larger tensor gets a shard of its own. */
static hy3_status cut_files(struct hy3_hf_plan *plan, const char *stem, int64_t limit)
{
    struct hy3_hf_file *file = plan->files;
    int64_t bytes = 0;

    for (int i = 0; i < plan->count; i++) {
        if (i == 0 || bytes + plan->entries[i].bytes > limit) {
            HY3_TRY(hy3_grow(&plan->files, &plan->file_capacity, (size_t)plan->file_count + 1,
                             sizeof *plan->files));
            file = &plan->files[plan->file_count++];
            *file = (struct hy3_hf_file){.first = i};
            bytes = 0;
        }
        bytes += plan->entries[i].bytes;
        plan->total_bytes += plan->entries[i].bytes;
        file->end = i + 1;
    }
    for (int i = 0; i < plan->file_count; i++)
        if (plan->file_count == 1)
            snprintf(plan->files[i].name, sizeof plan->files[i].name, "%s.safetensors", stem);
        else
            snprintf(plan->files[i].name, sizeof plan->files[i].name, "%s-%05d-of-%05d.safetensors",
                     stem, i + 1, plan->file_count);
    return HY3_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const struct hy3_hf_entry *x = a, *y = b;

    return x->width != y->width ? y->width - x->width : x->order - y->order;
}

/* The header's entry of a tensor whose data begin at `at`. */
static json_t *entry_row(const struct hy3_hf_entry *entry, int64_t at)
{
    json_t *shape = json_array();

    for (int i = 0; i < entry->dims; i++)
        json_array_append_new(shape, json_integer(entry->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", entry->dtype_name, "shape", shape,
                     "data_offsets", (json_int_t)at, (json_int_t)at + (json_int_t)entry->bytes);
}

/* Length, text, and spaces up to a multiple of eight bytes. */
static hy3_status format_header(struct hy3_hf_file *file, const json_t *header)
{
    hy3_status status = HY3_OK;
    char *text = json_dumps(header, JSON_COMPACT);
    size_t length, padded;

    if (!text)
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for the header of '%s'", file->name);
    length = strlen(text);
    padded = (length + 7) / 8 * 8;
    file->header_bytes = 8 + padded;
    HY3_TRY_DONE(hy3_alloc(&file->header, file->header_bytes, 1));
    for (size_t i = 0; i < 8; i++)
        file->header[i] = (char)(padded >> (8 * i) & 255);
    memcpy(file->header + 8, text, length);
    memset(file->header + 8 + length, ' ', padded - length);
done:
    free(text);
    return status;
}

bool hy3_hf_plan_is_single(const struct hy3_hf_plan *plan)
{
    return plan->file_count == 1 && strcmp(plan->files[0].name, "model.safetensors") == 0;
}

void hy3_hf_plan_mark(const struct hy3_hf_plan *plan, json_t *metadata)
{
    if (plan->program)
        json_object_set_new(metadata, "hy3_program", json_string(plan->program));
    if (plan->source[0])
        json_object_set_new(metadata, "hy3_source", json_string(plan->source));
    if (plan->trained_on && plan->trained_on[0])
        json_object_set_new(metadata, "hy3_base", json_string(plan->trained_on));
}

static hy3_status lay_out_file(struct hy3_hf_plan *plan, struct hy3_hf_file *file)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_entry *entries = &plan->entries[file->first];
    int count = file->end - file->first;
    json_t *header = json_object();
    int64_t at = 0;

    if (count > 0 && !plan->bare) {
        json_t *metadata = json_pack("{s:s}", "format", "pt");

        json_object_set_new(header, "__metadata__", metadata);
        hy3_hf_plan_mark(plan, metadata);
    }
    qsort(entries, (size_t)count, sizeof *entries, compare_entries);
    for (int i = 0; i < count; i++) {
        if (json_object_get(header, entries[i].name))
            HY3_FAIL_DONE(HY3_EFORMAT, "two tensors are named '%s'", entries[i].name);
        if (json_object_set_new(header, entries[i].name, entry_row(&entries[i], at)) != 0)
            HY3_FAIL_DONE(HY3_EFORMAT, "the name of tensor '%s' is not valid UTF-8",
                          entries[i].name);
        entries[i].begin = at;
        at += entries[i].bytes;
    }
    HY3_TRY_DONE(format_header(file, header));
    file->bytes = (int64_t)file->header_bytes + at;
    for (int i = 0; i < count; i++)
        entries[i].begin += (int64_t)file->header_bytes;
done:
    json_decref(header);
    return status;
}

hy3_status hy3_hf_plan_lay_out(struct hy3_hf_plan *plan)
{
    for (int i = 0; i < plan->file_count; i++)
        HY3_TRY(lay_out_file(plan, &plan->files[i]));
    return HY3_OK;
}

hy3_status hy3_hf_plan_create(const struct hy3_hf_writer_options *options,
                              const struct hy3_params *params, struct hy3_hf_plan **out)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_plan *plan = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&plan, 1, sizeof *plan));
    plan->program = options->program ? options->program : "hy3_sft";
    plan->trained_on = options->trained_on;
    if (options->base && !options->adapter) {
        HY3_TRY_DONE(open_base(plan, options->base));
        HY3_TRY_DONE(find_wide(plan, options->base, params));
    }
    HY3_TRY_DONE(list_entries(plan, options, params));
    HY3_TRY_DONE(
        cut_files(plan, options->adapter ? "adapter_model" : "model", options->max_shard_bytes));
    HY3_TRY_DONE(hy3_hf_plan_lay_out(plan));
    *out = HY3_TAKE(plan);
done:
    hy3_hf_plan_free(plan);
    return status;
}

static int compare_homes(const void *a, const void *b)
{
    const struct hy3_hf_entry *x = a, *y = b;

    return x->home != y->home ? (x->home > y->home) - (x->home < y->home)
                              : strcmp(x->name, y->name);
}

/* Every shard of the base keeps the tensors whose home it is. */
static hy3_status keep_files(struct hy3_hf_plan *plan, const struct hy3_hf_dir *base,
                             bool keep_residue)
{
    int at = 0;

    for (int shard = 0; shard < plan->base_count; shard++) {
        int first = at;
        struct hy3_hf_file *file;

        for (; at < plan->count && plan->entries[at].home == shard; at++)
            plan->total_bytes += plan->entries[at].bytes;
        if (at == first && !keep_residue)
            continue;
        HY3_TRY(hy3_grow(&plan->files, &plan->file_capacity, (size_t)plan->file_count + 1,
                         sizeof *plan->files));
        file = &plan->files[plan->file_count++];
        *file = (struct hy3_hf_file){.first = first, .end = at};
        snprintf(file->name, sizeof file->name, "%s", hy3_hf_dir_shard_name(base, shard));
    }
    return HY3_OK;
}

/* The index must list every tensor: another one would be lost. */
static hy3_status check_listed(const struct hy3_hf_plan *plan, const struct hy3_hf_dir *base)
{
    for (int s = 0; s < plan->base_count; s++)
        for (int i = 0; i < hy3_shard_count(plan->base[s]); i++) {
            const char *name = hy3_shard_tensor(plan->base[s], i)->name;
            int shard = -1, listed = hy3_hf_dir_find(base, name);

            if (listed >= 0)
                hy3_hf_dir_tensor(base, listed, &shard);
            if (shard != s)
                HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is not listed there by the index",
                         hy3_shard_path(plan->base[s]), name);
        }
    return HY3_OK;
}

hy3_status hy3_hf_plan_rewrite(const struct hy3_hf_dir *base, int64_t experts,
                               const struct hy3_hf_rewrite_layout *layout, struct hy3_hf_plan **out)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_writer_options options = {.base = base, .names = layout->names};
    struct hy3_hf_plan *plan = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&plan, 1, sizeof *plan));
    plan->bare = layout->names == HY3_OUTER;
    HY3_TRY_DONE(open_base(plan, base));
    for (int i = 0; i < hy3_hf_dir_tensors(base); i++) {
        int shard;
        const char *name = hy3_hf_dir_tensor(base, i, &shard);

        HY3_TRY_DONE(add_base_tensor(plan, &options, experts, name, shard));
    }
    HY3_TRY_DONE(check_listed(plan, base));
    qsort(plan->entries, (size_t)plan->count, sizeof *plan->entries, compare_homes);
    for (int i = 0; i < plan->count; i++)
        plan->entries[i].order = i;
    HY3_TRY_DONE(layout->max_shard_bytes > 0 ? cut_files(plan, "model", layout->max_shard_bytes)
                                             : keep_files(plan, base, layout->keep_residue));
    *out = HY3_TAKE(plan);
done:
    hy3_hf_plan_free(plan);
    return status;
}

void hy3_hf_plan_free(struct hy3_hf_plan *plan)
{
    if (!plan)
        return;
    for (int i = 0; i < plan->file_count; i++)
        hy3_free(plan->files[i].header);
    for (int i = 0; plan->base && i < plan->base_count; i++)
        hy3_shard_close(plan->base[i]);
    hy3_free(plan->base);
    hy3_free(plan->wide);
    hy3_free(plan->entries);
    hy3_free(plan->pieces);
    hy3_free(plan->files);
    hy3_free(plan);
}
