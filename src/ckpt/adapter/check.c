/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - with its base by the table of its factors, without it by the names in the file. */
#include "ckpt/adapter/check.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/printable.h"
#include "ckpt/adapter/adapter.h"
#include "ckpt/adapter/config.h"
#include "ckpt/hf/examine.h"
#include "ckpt/hf/fingerprint.h"
#include "ckpt/hf/scan.h"
#include "ckpt/hf/verify.h"

#define WEIGHTS "adapter_model.safetensors"

struct check {
    const char *directory;
    FILE *out;
    struct hy3_adapter_check_summary *summary;
    struct hy3_params *params; /* of the base; NULL: it is not here */
    struct hy3_adapter *adapter;
    struct hy3_shard *shard;
    struct hy3_verify verify;
    bool saved[HY3_PARAM_KIND_COUNT]; /* modules_to_save */
    int64_t *found;                   /* [tensors] by hf/examine.h */
};

static void finding(const struct check *c, const char *text)
{
    char line[HY3_ERROR_MAX];

    c->summary->findings++;
    snprintf(line, sizeof line, "%s", text);
    hy3_make_printable(line, false);
    fprintf(c->out, "%s\n", line);
}

static void tell(void *context, const char *text)
{
    finding(context, text);
}

/* Turns an error into a finding, unless it has another cause than the adapter. */
static hy3_status as_finding(const struct check *c, hy3_status status)
{
    if (status == HY3_OK || status == HY3_ENOMEM)
        return status;
    finding(c, hy3_error_text());
    return HY3_OK;
}

static hy3_status read_config(struct check *c, bool *sound)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    struct hy3_adapter_config config = {0};
    const char *base;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/adapter_config.json", c->directory));
    status = hy3_adapter_config_read(path, &config);
    *sound = status == HY3_OK;
    HY3_TRY_DONE(as_finding(c, status));
    if (!*sound)
        goto done;
    c->summary->rank = config.lora.rank;
    c->summary->alpha = config.lora.alpha;
    c->summary->rslora = config.lora.rslora;
    memcpy(c->saved, config.lora.saved, sizeof c->saved);
    base = json_string_value(json_object_get(config.document, "base_model_name_or_path"));
    snprintf(c->summary->base, sizeof c->summary->base, "%s", base ? base : "");
    hy3_make_printable(c->summary->base, false);
done:
    json_decref(config.document);
    return status;
}

/* The table of the base, if the base is here. */
static hy3_status open_base(struct check *c)
{
    char path[HY3_PATH_MAX];
    struct hy3_shape shape;

    if (c->summary->base[0] == '\0' ||
        hy3_path_format(path, sizeof path, "%s/config.json", c->summary->base) != HY3_OK ||
        !hy3_path_exists(path))
        return HY3_OK;
    HY3_TRY(hy3_shape_open(path, &shape));
    HY3_TRY(hy3_params_create(&shape, 0, shape.experts, &c->params));
    c->summary->has_base = true;
    return HY3_OK;
}

/* Warns of a base that has other values than the one the adapter was trained on. */
static hy3_status compare_base(const struct check *c)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_dir *base = NULL;
    char text[HY3_SHARD_BASE];
    uint64_t fingerprint;

    HY3_TRY_DONE(hy3_hf_dir_open(c->summary->base, &base));
    HY3_TRY_DONE(hy3_hf_fingerprint(MPI_COMM_SELF, base, &c->params->shape, &fingerprint));
    snprintf(text, sizeof text, "%016llx", (unsigned long long)fingerprint);
    hy3_adapter_tell_base(c->adapter, c->summary->base, text);
done:
    hy3_hf_dir_close(base);
    return status;
}

/* Counts the matrices of the table, and each factor or whole tensor that the file lacks or has in
 * another shape. */
static hy3_status check_factors(struct check *c)
{
    struct hy3_params *params = c->params;
    int last = -1;

    HY3_TRY(hy3_params_add_adapter(params, hy3_adapter_lora(c->adapter)));
    for (int i = 0; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];

        if (!hy3_param_is_adapters(params, p))
            continue;
        HY3_TRY(as_finding(c, hy3_adapter_account_for(c->adapter, p)));
        if (p->part == HY3_BASE)
            continue;
        c->summary->matrices += p->part == HY3_LORA_B;
        c->summary->layers += p->layer != last;
        last = p->layer;
    }
    return HY3_OK;
}

/* Whether the name is that of a tensor of modules_to_save. */
static bool is_saved(const struct check *c, const char *name)
{
    static const char prefix[] = "base_model.model.";
    size_t skip = sizeof prefix - 1;

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (c->saved[kind] && strncmp(name, prefix, skip) == 0 &&
            strcmp(name + skip, hy3_kinds[kind].name) == 0)
            return true;
    return false;
}

/* The other factor of the matrix must be there. */
static void check_pair(const struct check *c, const char *name)
{
    char other[HY3_PARAM_NAME], text[2 * HY3_PARAM_NAME + 64];
    const char *end = strstr(name, ".lora_A.weight");
    const char *letter = end ? "B" : "A";

    end = end ? end : strstr(name, ".lora_B.weight");
    if (!end && is_saved(c, name))
        return;
    if (!end) {
        snprintf(text, sizeof text, "%.*s: is no factor of an adapter", HY3_PARAM_NAME, name);
        finding(c, text);
        return;
    }
    if (snprintf(other, sizeof other, "%.*s.lora_%s.weight", (int)(end - name), name, letter) >=
            (int)sizeof other ||
        !hy3_shard_find(c->shard, other)) {
        snprintf(text, sizeof text, "%.*s: lora_%s of the same matrix is missing", HY3_PARAM_NAME,
                 name, letter);
        finding(c, text);
    }
}

/* Without the base's table: every tensor of modules_to_save must be there. */
static void check_saved(const struct check *c)
{
    char name[HY3_PARAM_NAME], text[HY3_PARAM_NAME + 64];

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        if (!c->saved[kind])
            continue;
        snprintf(name, sizeof name, "base_model.model.%.80s", hy3_kinds[kind].name);
        if (hy3_shard_find(c->shard, name))
            continue;
        snprintf(text, sizeof text, "%s: is missing, modules_to_save names it", name);
        finding(c, text);
    }
}

/* Names and values, with their checksums, in one pass over the file. */
static hy3_status check_tensors(struct check *c)
{
    const struct hy3_examine e = {.shard = c->shard,
                                  .entry = json_object_get(c->verify.sums, WEIGHTS),
                                  .listed = json_object_get(c->verify.list, WEIGHTS)};
    int count = hy3_shard_count(c->shard);
    int64_t file;

    HY3_TRY(hy3_alloc(&c->found, (size_t)count, sizeof *c->found));
    HY3_TRY(hy3_examine_shard(&e, c->found, &file));
    for (int i = 0; i < count; i++) {
        const char *name = hy3_shard_tensor(c->shard, i)->name;

        if (!c->adapter)
            check_pair(c, name);
        c->summary->zeros += hy3_shard_tensor(c->shard, i)->is_float &&
                             (c->found[i] & HY3_CONTENT) == HY3_ALL_ZERO &&
                             hy3_ends_with(name, ".lora_B.weight");
    }
    if (!c->adapter)
        check_saved(c);
    c->summary->tensors = count;
    hy3_verify_names(&c->verify, WEIGHTS, c->shard);
    hy3_verify_tell(&c->verify, WEIGHTS, c->shard, c->found, file);
    return HY3_OK;
}

static hy3_status check_weights(struct check *c)
{
    bool sound;

    HY3_TRY(read_config(c, &sound));
    if (sound)
        HY3_TRY(as_finding(c, open_base(c)));
    if (c->params) {
        HY3_TRY(as_finding(c, hy3_adapter_open(c->directory, c->params, &c->adapter)));
        if (!c->adapter)
            return HY3_OK;
        HY3_TRY(check_factors(c));
        HY3_TRY(as_finding(c, compare_base(c)));
    }
    HY3_TRY(as_finding(c, hy3_adapter_open_weights(c->directory, &c->shard)));
    return c->shard ? check_tensors(c) : HY3_OK;
}

/* The weights, then what the checksums say of the other files. */
static hy3_status check_all(struct check *c)
{
    hy3_status status = HY3_OK;
    json_t *read = json_object();

    HY3_TRY_DONE(hy3_verify_open(&c->verify));
    c->summary->listed = (int64_t)json_object_size(c->verify.sums);
    HY3_TRY_DONE(check_weights(c));
    if (c->found)
        json_object_set_new(read, WEIGHTS, json_true());
    HY3_TRY_DONE(hy3_verify_files(&c->verify, true, read));
done:
    json_decref(read);
    return status;
}

hy3_status hy3_adapter_check(const char *directory, const char *list, FILE *out,
                             struct hy3_adapter_check_summary *summary)
{
    hy3_status status = HY3_OK;
    struct check c = {.directory = directory,
                      .out = out,
                      .summary = summary,
                      .verify = {.directory = directory, .path = list, .tell = tell}};

    *summary = (struct hy3_adapter_check_summary){0};
    c.verify.context = &c;
    status = check_all(&c);
    hy3_verify_close(&c.verify);
    hy3_free(c.found);
    hy3_shard_close(c.shard);
    hy3_adapter_close(c.adapter);
    hy3_params_free(c.params);
    return status;
}
