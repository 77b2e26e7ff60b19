/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - five checks of a checkpoint directory, cheap ones first. */
#include "ckpt/hf/check.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/printable.h"
#include "ckpt/hf/directory.h"
#include "ckpt/hf/scan.h"
#include "ckpt/hf/seen.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"

#include <dirent.h>
#include <errno.h>

enum { PIECE = 4 << 20 }; /* elements read at a time */

/* What reading the values of a tensor finds; the worst of all ranks counts. */
enum { SOUND = 0, NOT_FINITE = 1, UNREADABLE = 2 };

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
    int64_t *values;           /* [tensors of all shards] */
    int64_t values_count;
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
    if (!t->is_float)
        finding(c, "%s: %s: the dtype is %s, but weights of hy_v3 are floating point", file,
                t->name, t->dtype_name);
    else if (is_buffer && t->dtype != HY3_FP32)
        finding(c, "%s: %s: the dtype is %s, but router biases must be F32", file, t->name,
                t->dtype_name);
    else if (!is_buffer && !is_mtp && c->dtype && strcmp(t->dtype_name, c->dtype) != 0)
        finding(c, "%s: %s: the dtype is %s, config.json says %s", file, t->name, t->dtype_name,
                c->dtype);
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

static int64_t scan_tensor(const struct hy3_shard *shard, const struct hy3_shard_tensor *t,
                           float *values)
{
    for (int64_t i = 0; i < t->count; i += PIECE) {
        struct hy3_span piece = hy3_span_piece((struct hy3_span){0, t->count}, i, PIECE);

        if (hy3_stop_noted())
            return SOUND;
        if (hy3_shard_read(shard, t, piece, values, HY3_FP32) != HY3_OK)
            return UNREADABLE;
        if (hy3_scan(values, HY3_FP32, piece.count) == HY3_NOT_FINITE)
            return NOT_FINITE;
    }
    return SOUND;
}

/* Whether the values of tensor `i` of all are read; those tensors are spread evenly. */
static bool is_chosen(const struct check *c, int64_t i)
{
    int64_t wanted = c->options->spot_check, all = c->summary->tensors;

    if (wanted < 0 || wanted >= all)
        return true;
    return wanted > 0 && (i + 1) * wanted / all != i * wanted / all;
}

/* Reads this rank's part of the values. */
static hy3_status read_values(struct check *c)
{
    hy3_status status = HY3_OK;
    int64_t at = 0, turn = 0, done = 0, total = 0;
    double begin = hy3_seconds();
    float *values = NULL;

    HY3_TRY_DONE(hy3_alloc(&values, PIECE, sizeof *values));
    for (int pass = 0; pass < 2; pass++, at = turn = 0) {
        for (int s = 0; s < c->summary->shards; s++) {
            for (int i = 0; c->shards[s] && i < hy3_shard_count(c->shards[s]); i++, at++) {
                const struct hy3_shard_tensor *t = hy3_shard_tensor(c->shards[s], i);

                if (!is_chosen(c, at) || !t->is_float ||
                    turn++ % hy3_size(c->comm) != hy3_rank(c->comm))
                    continue;
                if (pass == 0) {
                    total += t->bytes;
                    continue;
                }
                c->values[at] = scan_tensor(c->shards[s], t, values);
                HY3_TRY_DONE(hy3_stop_check("reading the values"));
                done += t->bytes;
                hy3_log_progress_bytes("reading", done, total, begin);
            }
        }
    }
done:
    hy3_free(values);
    return status;
}

/* Collective. */
static hy3_status check_values(struct check *c)
{
    int64_t at = 0;

    HY3_AGREE(c->comm, hy3_alloc(&c->values, (size_t)c->summary->tensors, sizeof *c->values),
              "checking the values");
    HY3_AGREE(c->comm, read_values(c), "checking the values");
    hy3_allreduce_int(c->comm, c->values, (int)c->summary->tensors, MPI_MAX, "checking the values");
    for (int s = 0; s < c->summary->shards; s++)
        for (int i = 0; c->shards[s] && i < hy3_shard_count(c->shards[s]); i++, at++) {
            const char *name = hy3_shard_tensor(c->shards[s], i)->name;

            c->summary->read += is_chosen(c, at);
            if (c->values[at] != SOUND)
                finding(c, "%s: %s: %s", hy3_hf_dir_shard_name(c->dir, s), name,
                        c->values[at] == NOT_FINITE ? "contains NaN or infinity"
                                                    : "cannot be read");
        }
    return HY3_OK;
}

/* Everything but the values, by every rank alike. */
static hy3_status check_structure(struct check *c, bool *sound)
{
    char why[HY3_PATH_WHY];

    *sound = false;
    if (hy3_path_fault(c->options->directory, HY3_PATH_INPUT, why, sizeof why))
        HY3_FAIL(HY3_EIO, "the directory '%s' %s", c->options->directory, why);
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
    struct check c = {.options = options, .comm = comm, .summary = summary};
    bool sound = false;

    *summary = (struct hy3_check_summary){0};
    c.out = hy3_rank(comm) == 0 ? out : NULL;
    HY3_AGREE_DONE(comm, check_structure(&c, &sound), "checking the directory");
    if (sound)
        HY3_TRY_DONE(check_values(&c));
done:
    hy3_seen_free(&c.seen);
    for (int i = 0; c.shards && i < summary->shards; i++)
        hy3_shard_close(c.shards[i]);
    hy3_free(c.shards);
    hy3_free(c.values);
    hy3_params_free(c.params);
    hy3_hf_dir_close(c.dir);
    return status;
}
