/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - six checks of a checkpoint directory, cheap ones first. */
#include "ckpt/hf/check.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/printable.h"
#include "ckpt/hf/directory.h"
#include "ckpt/hf/examine.h"
#include "ckpt/hf/plan.h"
#include "ckpt/hf/scales.h"
#include "ckpt/hf/seen.h"
#include "ckpt/hf/verify.h"
#include "comm/agree.h"
#include "comm/comm.h"

#include <dirent.h>
#include <errno.h>

struct check {
    const struct hy3_check *options;
    MPI_Comm comm;
    FILE *out; /* NULL: another rank writes */
    struct hy3_check_summary *summary;
    struct hy3_shape shape;
    const char *dtype; /* what config.json says, as safetensors names it; NULL: nothing */
    struct hy3_hf_dir *dir;
    struct hy3_params *params; /* with MTP layers */
    struct hy3_seen seen;
    struct hy3_shard **shards; /* NULL: unreadable */
    struct hy3_verify verify;
    bool all;            /* every value is read */
    int64_t *found;      /* [tensors of all shards], then [shards], by hf/examine.h */
    int64_t done, total; /* bytes of values that this rank reads */
    double begin;
};

static void finding(const struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void finding(const struct check *c, const char *format, ...)
{
    char text[HY3_ERROR_MAX];
    va_list args;

    c->summary->findings++;
    if (!c->out)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hy3_make_printable(text, false);
    fprintf(c->out, "%s\n", text);
}

static void tell(void *context, const char *text)
{
    finding(context, "%s", text);
}

/* Turns an error into a finding, unless it has another cause than the checkpoint. */
static hy3_status as_finding(const struct check *c, hy3_status status)
{
    if (status == HY3_OK || status == HY3_ENOMEM)
        return status;
    finding(c, "%s", hy3_error_text());
    return HY3_OK;
}

static hy3_status check_config(struct check *c, bool *sound)
{
    static const char *const names[][2] = {
        {"bfloat16", "BF16"}, {"float16", "F16"}, {"float32", "F32"}};
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    json_t *config = NULL;
    const json_t *dtype;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/config.json", c->options->directory));
    status = hy3_shape_open(path, &c->shape);
    *sound = status == HY3_OK;
    HY3_TRY_DONE(as_finding(c, status));
    if (!*sound)
        goto done;
    HY3_TRY_DONE(hy3_json_read(path, 1 << 24, &config));
    dtype = json_object_get(config, "dtype");
    dtype = dtype ? dtype : json_object_get(config, "torch_dtype");
    for (size_t i = 0; json_is_string(dtype) && i < sizeof names / sizeof *names; i++)
        if (strcmp(json_string_value(dtype), names[i][0]) == 0)
            c->dtype = names[i][1];
done:
    json_decref(config);
    return status;
}

static hy3_status open_shards(struct check *c)
{
    c->summary->shards = hy3_hf_dir_shards(c->dir);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    HY3_TRY(hy3_alloc(&c->shards, (size_t)c->summary->shards, sizeof *c->shards));
    for (int i = 0; i < c->summary->shards; i++)
        HY3_TRY(as_finding(c, hy3_hf_dir_open_shard(c->dir, i, &c->shards[i])));
    return HY3_OK;
}

static void check_header(const struct check *c, const char *file, const struct hy3_place *place,
                         const struct hy3_shard_tensor *t)
{
    char is[128], must[128];
    bool is_buffer = place->param->unit < 0;
    bool is_mtp = place->param->layer >= c->shape.layers;

    if (t->dims != place->dims ||
        memcmp(t->shape, place->shape, (size_t)t->dims * sizeof *t->shape) != 0) {
        hy3_shard_shape_text(t->shape, t->dims, is, sizeof is);
        hy3_shard_shape_text(place->shape, place->dims, must, sizeof must);
        finding(c, "%s: %s: the shape is %s, it must be %s", file, t->name, is, must);
    }
    if (t->is_fp8 && place->dims > 1) {
        if (hy3_scale_find(c->dir, t->name) < 0)
            finding(c, "%s: %s: F8_E4M3 without scales (%s_scale_inv or %s_scale)", file, t->name,
                    t->name, t->name);
    } else if (!t->is_float)
        finding(c, "%s: %s: the dtype is %s, but weights of hy_v3 are floating point", file,
                t->name, t->dtype_name);
    else if (is_buffer && t->dtype != HY3_FP32)
        finding(c, "%s: %s: the dtype is %s, but router biases must be F32", file, t->name,
                t->dtype_name);
    else if (!hy3_hf_stays_wide(place->param, t) && !is_mtp && c->dtype &&
             strcmp(t->dtype_name, c->dtype) != 0)
        finding(c, "%s: %s: the dtype is %s, config.json says %s", file, t->name, t->dtype_name,
                c->dtype);
}

/* Whether it is a scale of a tensor of the model, or one of activations. */
static bool check_scale(const struct check *c, const char *file, const struct hy3_shard_tensor *t)
{
    char weight[HY3_PARAM_NAME], is[96];
    enum hy3_scale_kind kind = hy3_scale_parse(t->name, weight);
    struct hy3_scales scales;
    struct hy3_place place;

    if (kind == HY3_NO_SCALE)
        return false;
    hy3_name_locate(c->params, weight, &place);
    if (!place.param || kind == HY3_IGNORED_SCALE)
        return place.param;
    hy3_shard_shape_text(t->shape, t->dims, is, sizeof is);
    if (!t->is_float || !hy3_scales_shape(&place, &c->shape, t, &scales))
        finding(c, "%s: %s: %s %s cannot be the scales of %s", file, t->name, t->dtype_name, is,
                weight);
    return true;
}

/* Whether the index lists the tensor for this shard; if not, that is a finding. */
static bool is_listed(const struct check *c, int shard, const char *file, const char *name)
{
    int listed = hy3_hf_dir_find(c->dir, name), at = -1;

    if (listed >= 0)
        hy3_hf_dir_tensor(c->dir, listed, &at);
    if (listed < 0)
        finding(c, "%s: %s: not listed by the index", file, name);
    else if (at != shard)
        finding(c, "%s: %s: listed by the index for %s", file, name,
                hy3_hf_dir_shard_name(c->dir, at));
    return at == shard;
}

/* Checks all headers against the index and the parameter table. */
static void check_tensors(struct check *c)
{
    for (int s = 0; s < c->summary->shards; s++) {
        const char *file = hy3_hf_dir_shard_name(c->dir, s);

        for (int i = 0; c->shards[s] && i < hy3_shard_count(c->shards[s]); i++) {
            const struct hy3_shard_tensor *t = hy3_shard_tensor(c->shards[s], i);
            struct hy3_place place;

            c->summary->tensors++;
            c->summary->bytes += t->bytes;
            if (!is_listed(c, s, file, t->name))
                continue;
            hy3_name_locate(c->params, t->name, &place);
            if (!place.param && check_scale(c, file, t))
                continue;
            if (!place.param) {
                finding(c, "%s: %s: not a tensor of this model", file, t->name);
                continue;
            }
            if (hy3_seen_mark(&c->seen, &place))
                finding(c, "%s: %s: present twice, under another name too", file, t->name);
            check_header(c, file, &place, t);
        }
    }
    for (int i = 0; i < hy3_hf_dir_tensors(c->dir); i++) {
        int s;
        const char *name = hy3_hf_dir_tensor(c->dir, i, &s);

        if (c->shards[s] && !hy3_shard_find(c->shards[s], name))
            finding(c, "%s: %s: listed by the index, missing in the shard",
                    hy3_hf_dir_shard_name(c->dir, s), name);
    }
}

static void find_missing(void *context, const char *name)
{
    const struct check *c = context;

    finding(c, "%s: %s: missing", c->options->directory, name);
}

/* The public converter leaves a shard without tensors where all of them moved to other shards. */
static bool is_residue(const struct check *c, const char *name)
{
    char path[HY3_PATH_MAX];
    struct hy3_shard *shard = NULL;
    bool empty =
        hy3_path_format(path, sizeof path, "%s/%s", c->options->directory, name) == HY3_OK &&
        hy3_shard_open(path, &shard) == HY3_OK && hy3_shard_count(shard) == 0;

    hy3_shard_close(shard);
    return empty;
}

static hy3_status check_orphans(const struct check *c)
{
    hy3_status status = HY3_OK;
    DIR *directory = opendir(c->options->directory);
    const struct dirent *entry;

    if (!directory)
        HY3_FAIL_DONE(HY3_EIO, "cannot open the directory '%s': %s", c->options->directory,
                      strerror(errno));
    while ((entry = readdir(directory))) {
        bool is_shard = hy3_ends_with(entry->d_name, ".safetensors");
        bool is_part = hy3_ends_with(entry->d_name, ".safetensors.part");
        bool listed = false;

        for (int i = 0; is_shard && i < hy3_hf_dir_shards(c->dir); i++)
            listed |= strcmp(hy3_hf_dir_shard_name(c->dir, i), entry->d_name) == 0;
        if (is_part)
            finding(c, "%s: left by an interrupted write", entry->d_name);
        else if (is_shard && !listed && !is_residue(c, entry->d_name))
            finding(c, "%s: the index lists no tensor of this shard", entry->d_name);
    }
done:
    if (directory)
        closedir(directory);
    return status;
}

/* Whether the values of tensor `i` of all are read; those tensors are spread evenly. */
static bool is_chosen(const struct check *c, int64_t i)
{
    int64_t wanted = c->options->spot_check, all = c->summary->tensors;

    if (c->all || wanted >= all)
        return true;
    return wanted > 0 && (i + 1) * wanted / all != i * wanted / all;
}

static void show_progress(void *context, int64_t bytes)
{
    struct check *c = context;

    c->done += bytes;
    hy3_log_progress_bytes("reading", c->done, c->total, c->begin);
}

/* Whether shards are read as a whole, each by one rank: for their SHA-256. */
static bool reads_files(const struct check *c)
{
    return c->all && (c->verify.sums || c->verify.list);
}

static struct hy3_examine examine(struct check *c, int shard)
{
    const char *name = hy3_hf_dir_shard_name(c->dir, shard);

    return (struct hy3_examine){.shard = c->shards[shard],
                                .entry = json_object_get(c->verify.sums, name),
                                .listed = json_object_get(c->verify.list, name),
                                .progress = show_progress,
                                .context = c};
}

static bool values_are_read(const struct hy3_shard_tensor *t)
{
    return t->is_float || t->is_fp8;
}

/* Whether this rank reads tensor `i` of the shard, number `at` of all; *turn: of those that are
 * dealt out. */
static bool is_mine(const struct check *c, int shard, int i, int64_t at, int64_t *turn)
{
    int ranks = hy3_size(c->comm), rank = hy3_rank(c->comm);

    if (reads_files(c))
        return shard % ranks == rank;
    return is_chosen(c, at) && values_are_read(hy3_shard_tensor(c->shards[shard], i)) &&
           (*turn)++ % ranks == rank;
}

static void count_values(struct check *c)
{
    int64_t at = 0, turn = 0;

    for (int s = 0; s < c->summary->shards; s++)
        for (int i = 0; c->shards[s] && i < hy3_shard_count(c->shards[s]); i++, at++)
            if (is_mine(c, s, i, at, &turn))
                c->total += hy3_shard_tensor(c->shards[s], i)->bytes;
}

/* Reads this rank's part of the values. */
static hy3_status read_values(struct check *c)
{
    int64_t at = 0, turn = 0, *files = c->found + c->summary->tensors;

    count_values(c);
    c->begin = hy3_seconds();
    for (int s = 0; s < c->summary->shards; s++) {
        struct hy3_examine e = examine(c, s);

        if (!e.shard)
            continue;
        if (reads_files(c) && s % hy3_size(c->comm) == hy3_rank(c->comm))
            HY3_TRY(hy3_examine_shard(&e, c->found + at, &files[s]));
        for (int i = 0; !reads_files(c) && i < hy3_shard_count(e.shard); i++)
            if (is_mine(c, s, i, at + i, &turn))
                HY3_TRY(hy3_examine_tensor(&e, hy3_shard_tensor(e.shard, i), &c->found[at + i]));
        at += hy3_shard_count(e.shard);
    }
    return HY3_OK;
}

/* Collective. */
static hy3_status check_values(struct check *c)
{
    int64_t at = 0, count = c->summary->tensors + c->summary->shards;

    HY3_AGREE(c->comm, hy3_alloc(&c->found, (size_t)count, sizeof *c->found),
              "checking the values");
    HY3_AGREE(c->comm, read_values(c), "checking the values");
    hy3_allreduce_int(c->comm, c->found, (int)count, MPI_MAX, "checking the values");
    for (int s = 0; s < c->summary->shards; s++) {
        if (!c->shards[s])
            continue;
        for (int i = 0; i < hy3_shard_count(c->shards[s]); i++)
            c->summary->read += is_chosen(c, at + i);
        hy3_verify_tell(&c->verify, hy3_hf_dir_shard_name(c->dir, s), c->shards[s], c->found + at,
                        c->found[c->summary->tensors + s]);
        at += hy3_shard_count(c->shards[s]);
    }
    return HY3_OK;
}

/* Collective. What the checksums say of the other files, by rank 0. read: the values were. */
static hy3_status check_files(struct check *c, bool read)
{
    hy3_status status = HY3_OK;
    json_t *shards = json_object();

    for (int s = 0; read && reads_files(c) && s < c->summary->shards; s++)
        if (c->shards[s])
            json_object_set_new(shards, hy3_hf_dir_shard_name(c->dir, s), json_true());
    if (hy3_rank(c->comm) == 0)
        status = hy3_verify_files(&c->verify, c->all, shards);
    json_decref(shards);
    HY3_AGREE(c->comm, status, "comparing the checksums");
    hy3_broadcast(c->comm, 0, &c->summary->findings, sizeof c->summary->findings,
                  "comparing the checksums");
    return HY3_OK;
}

/* Everything but the values, by every rank alike. */
static hy3_status check_structure(struct check *c, bool *sound)
{
    char why[HY3_PATH_WHY];

    *sound = false;
    if (hy3_path_fault(c->options->directory, HY3_PATH_INPUT, why, sizeof why))
        HY3_FAIL(HY3_EIO, "the directory '%s' %s", c->options->directory, why);
    HY3_TRY(hy3_verify_open(&c->verify));
    c->summary->listed = (int64_t)json_object_size(c->verify.sums);
    HY3_TRY(check_config(c, sound));
    HY3_TRY(as_finding(c, hy3_hf_dir_open(c->options->directory, &c->dir)));
    if (!c->dir) {
        *sound = false;
        return HY3_OK;
    }
    HY3_TRY(check_orphans(c));
    HY3_TRY(open_shards(c));
    if (!*sound)
        return HY3_OK;
    HY3_TRY(hy3_params_create_mtp(&c->shape, &c->params));
    HY3_TRY(hy3_seen_create(c->params, c->params->count, &c->seen));
    check_tensors(c);
    for (int s = 0; s < c->summary->shards; s++)
        if (c->shards[s])
            hy3_verify_names(&c->verify, hy3_hf_dir_shard_name(c->dir, s), c->shards[s]);
    hy3_seen_missing(&c->seen, hy3_hf_dir_names(c->dir), find_missing, c);
    if (hy3_hf_dir_total_bytes(c->dir) >= 0 && hy3_hf_dir_total_bytes(c->dir) != c->summary->bytes)
        finding(c, "%s: the index says %lld bytes of weights, the shards hold %lld",
                c->options->directory, (long long)hy3_hf_dir_total_bytes(c->dir),
                (long long)c->summary->bytes);
    return HY3_OK;
}

hy3_status hy3_check(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                     struct hy3_check_summary *summary)
{
    hy3_status status = HY3_OK;
    struct check c = {.options = options,
                      .comm = comm,
                      .summary = summary,
                      .verify = {.directory = options->directory, .path = options->list},
                      .all = options->spot_check < 0 || options->list};
    bool sound = false;

    *summary = (struct hy3_check_summary){0};
    c.out = hy3_rank(comm) == 0 ? out : NULL;
    c.verify.tell = tell;
    c.verify.context = &c;
    HY3_AGREE_DONE(comm, check_structure(&c, &sound), "checking the directory");
    if (sound)
        HY3_TRY_DONE(check_values(&c));
    HY3_TRY_DONE(check_files(&c, sound));
done:
    hy3_seen_free(&c.seen);
    for (int i = 0; c.shards && i < summary->shards; i++)
        hy3_shard_close(c.shards[i]);
    hy3_free(c.shards);
    hy3_verify_close(&c.verify);
    hy3_free(c.found);
    hy3_params_free(c.params);
    hy3_hf_dir_close(c.dir);
    return status;
}
