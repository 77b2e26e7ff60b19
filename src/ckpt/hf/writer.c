/* SPDX-License-Identifier: Apache-2.0 */
/* writer.c - the phases of a write: plan, create, write and flush, judge the values, check,
 * publish. Each ends in an agreement; the plan needs no message, being the same on all ranks. */
#include "ckpt/hf/writer.h"

#include "base/log.h"
#include "base/memory.h"
#include "ckpt/hf/companions.h"
#include "ckpt/hf/plan.h"
#include "ckpt/hf/publish.h"
#include "ckpt/hf/scan.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"

enum {
    CHUNK = 4 << 20,       /* elements converted at a time */
    COPY_BYTES = 16 << 20, /* bytes of the base copied at a time */
    NAMES_SHOWN = 5,
};

struct writer {
    MPI_Comm comm;
    const struct hy3_hf_writer_options *options;
    const struct hy3_params *params;
    struct hy3_hf_plan *plan;
    struct hy3_values values;
    float *wide;         /* [CHUNK] */
    char *converted;     /* [COPY_BYTES] */
    int64_t *contents;   /* [plan->count] enum hy3_content, the worst of all ranks */
    int64_t done, total; /* bytes of this rank */
    double start;
};

/* The part of the tensor that this rank writes: elements of a parameter. */
static struct hy3_span own_span(const struct writer *w, const struct hy3_hf_entry *entry)
{
    return hy3_span_intersect(w->values.share(w->values.of, entry->param), entry->span);
}

/* Tensors of the base are dealt out to the ranks in turn. */
static bool is_own_copy(const struct writer *w, const struct hy3_hf_entry *entry)
{
    return !entry->param && entry->order % hy3_size(w->comm) == hy3_rank(w->comm);
}

static int64_t own_bytes(const struct writer *w, const struct hy3_hf_entry *entry)
{
    if (!entry->param)
        return is_own_copy(w, entry) ? entry->bytes : 0;
    return own_span(w, entry).count * entry->width;
}

static hy3_status check_stop(const struct writer *w)
{
    return w->options->keeps_on ? HY3_OK : hy3_stop_check("writing the weights");
}

static void show_progress(struct writer *w, int64_t bytes)
{
    w->done += bytes;
    hy3_log_progress_bytes("saving", w->done, w->total, w->start);
}

static hy3_status write_param(struct writer *w, int fd, const char *path, int index)
{
    const struct hy3_hf_entry *entry = &w->plan->entries[index];
    struct hy3_span own = own_span(w, entry);

    for (int64_t i = 0; i < own.count; i += CHUNK) {
        struct hy3_span piece = hy3_span_piece(own, i, CHUNK);
        int64_t at = entry->begin + (piece.first - entry->span.first) * entry->width, found;
        const void *data = w->wide;

        HY3_TRY(check_stop(w));
        HY3_TRY(w->values.get(w->values.of, HY3_MASTER, entry->param, piece, w->wide));
        if (entry->dtype != HY3_FP32) {
            hy3_convert(w->wide, HY3_FP32, w->converted, entry->dtype, (size_t)piece.count);
            data = w->converted;
        }
        found = hy3_scan(data, entry->dtype, piece.count); /* of the file: fp16 may overflow */
        w->contents[index] = found > w->contents[index] ? found : w->contents[index];
        HY3_TRY(hy3_file_write_at(fd, data, (size_t)(piece.count * entry->width), at, path));
        show_progress(w, piece.count * entry->width);
    }
    return HY3_OK;
}

static hy3_status write_copy(struct writer *w, int fd, const char *path,
                             const struct hy3_hf_entry *entry)
{
    for (size_t p = entry->piece; p < entry->piece + entry->pieces; p++) {
        const struct hy3_hf_piece *piece = &w->plan->pieces[p];

        for (int64_t at = 0; at < piece->bytes; at += COPY_BYTES) {
            int64_t n = COPY_BYTES < piece->bytes - at ? COPY_BYTES : piece->bytes - at;

            HY3_TRY(check_stop(w));
            HY3_TRY(hy3_shard_read_raw(w->plan->base[piece->shard], piece->tensor, piece->from + at,
                                       n, w->converted));
            HY3_TRY(hy3_file_write_at(fd, w->converted, (size_t)n, entry->begin + piece->to + at,
                                      path));
            show_progress(w, n);
        }
    }
    return HY3_OK;
}

/* Writes and flushes this rank's part of one shard. */
static hy3_status write_file(struct writer *w, const struct hy3_hf_file *file)
{
    hy3_status status = HY3_OK;
    struct hy3_output shard;
    int64_t bytes = 0;

    for (int i = file->first; i < file->end; i++)
        bytes += own_bytes(w, &w->plan->entries[i]);
    if (bytes == 0)
        return HY3_OK;
    HY3_TRY_DONE(hy3_hf_name_shard(w->options->output, file, &shard));
    HY3_TRY_DONE(hy3_output_open(&shard));
    for (int i = file->first; i < file->end; i++)
        if (w->plan->entries[i].param)
            HY3_TRY_DONE(write_param(w, shard.fd, shard.part, i));
        else if (is_own_copy(w, &w->plan->entries[i]))
            HY3_TRY_DONE(write_copy(w, shard.fd, shard.part, &w->plan->entries[i]));
    HY3_TRY_DONE(hy3_output_flush(&shard));
done:
    hy3_output_close(&shard);
    return status;
}

static hy3_status write_all(struct writer *w)
{
    for (int i = 0; i < w->plan->count; i++)
        w->total += own_bytes(w, &w->plan->entries[i]);
    HY3_TRY(hy3_alloc(&w->wide, CHUNK, sizeof *w->wide));
    HY3_TRY(hy3_alloc(&w->converted, COPY_BYTES, 1));
    w->start = hy3_seconds();
    for (int i = 0; i < w->plan->file_count; i++)
        HY3_TRY(write_file(w, &w->plan->files[i]));
    return HY3_OK;
}

/* Creates a shard in its full size with its header. */
static hy3_status create_file(const char *output, const struct hy3_hf_file *file)
{
    hy3_status status = HY3_OK;
    struct hy3_output shard;

    HY3_TRY_DONE(hy3_hf_name_shard(output, file, &shard));
    HY3_TRY_DONE(hy3_output_create(&shard));
    HY3_TRY_DONE(hy3_output_claim(&shard, file->bytes));
    HY3_TRY_DONE(hy3_file_write_at(shard.fd, file->header, file->header_bytes, 0, shard.part));
    HY3_TRY_DONE(hy3_output_flush(&shard));
done:
    hy3_output_close(&shard);
    return status;
}

static hy3_status create_all(const struct writer *w)
{
    if (hy3_rank(w->comm) != 0)
        return HY3_OK;
    if (w->options->tokenizer_directory)
        HY3_TRY(hy3_hf_check_companions(w->options->tokenizer_directory, false));
    HY3_TRY(hy3_directory_create(w->options->output));
    for (int i = 0; i < w->plan->file_count; i++)
        HY3_TRY(create_file(w->options->output, &w->plan->files[i]));
    return HY3_OK;
}

/* Logically collective. Whether the values may be published. */
static hy3_status judge(const struct writer *w)
{
    char names[NAMES_SHOWN * (HY3_PARAM_NAME + 2) + 1] = "";
    size_t used = 0;
    int zeros = 0;

    for (int i = 0; i < w->plan->count; i++) {
        const struct hy3_hf_entry *entry = &w->plan->entries[i];

        if (entry->param && w->contents[i] == HY3_NOT_FINITE)
            HY3_FAIL(HY3_EDIVERGED, "tensor '%s' contains NaN or infinity as %s; nothing was saved",
                     entry->name, hy3_dtype_name(entry->dtype));
        if (!entry->param || entry->param->unit < 0 || w->contents[i] != HY3_ALL_ZERO)
            continue;
        if (zeros++ < NAMES_SHOWN) {
            snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "", entry->name);
            used = strlen(names);
        }
    }
    if (zeros > 0)
        hy3_log(HY3_LOG_WARN, "%d saved tensors are all zero: %s%s", zeros, names,
                zeros > NAMES_SHOWN ? ", …" : "");
    return HY3_OK;
}

/* Collective. */
static hy3_status judge_all(struct writer *w)
{
    const int step = 1 << 16;

    for (int i = 0; i < w->plan->count; i += step)
        hy3_allreduce_int(w->comm, w->contents + i,
                          step < w->plan->count - i ? step : w->plan->count - i, MPI_MAX,
                          "examining the saved weights");
    return judge(w);
}

/* Reads the headers back, the shards dealt out to the ranks. */
static hy3_status check_files(const struct writer *w)
{
    hy3_status status = HY3_OK;
    struct hy3_output output;
    struct hy3_shard *shard = NULL;

    for (int i = hy3_rank(w->comm); i < w->plan->file_count; i += hy3_size(w->comm)) {
        const struct hy3_hf_file *file = &w->plan->files[i];

        HY3_TRY_DONE(hy3_hf_name_shard(w->options->output, file, &output));
        HY3_TRY_DONE(hy3_shard_open(output.part, &shard));
        if (hy3_shard_count(shard) != file->end - file->first)
            HY3_FAIL_DONE(HY3_EIO, "'%s' reads back with %d tensors instead of %d", output.part,
                          hy3_shard_count(shard), file->end - file->first);
        hy3_shard_close(shard);
        shard = NULL;
    }
done:
    hy3_shard_close(shard);
    return status;
}

static hy3_status plan_all(struct writer *w)
{
    HY3_TRY(hy3_hf_plan_create(w->options, w->params, &w->plan));
    return hy3_alloc(&w->contents, (size_t)w->plan->count, sizeof *w->contents);
}

/* Collective, from the first file to the last rename. */
static hy3_status write_planned(struct writer *w)
{
    hy3_status status = HY3_OK;

    HY3_AGREE_DONE(w->comm, create_all(w), "creating the weight files");
    HY3_AGREE_DONE(w->comm, write_all(w), "writing the weights");
    HY3_TRY_DONE(judge_all(w));
    HY3_AGREE_DONE(w->comm, check_files(w), "reading the weights back");
    HY3_AGREE_DONE(w->comm, hy3_rank(w->comm) == 0 ? hy3_hf_publish(w->options, w->plan) : HY3_OK,
                   "completing the model directory");
done:
    if (status != HY3_OK && hy3_rank(w->comm) == 0)
        hy3_hf_discard(w->options, w->plan);
    return status;
}

hy3_status hy3_hf_write(MPI_Comm comm, const struct hy3_hf_writer_options *options,
                        const struct hy3_params *params, struct hy3_values values)
{
    hy3_status status = HY3_OK;
    struct writer w = {.comm = comm, .options = options, .params = params, .values = values};

    HY3_AGREE_DONE(comm, plan_all(&w), "planning the weight files");
    HY3_TRY_DONE(write_planned(&w));
done:
    hy3_hf_plan_free(w.plan);
    hy3_free(w.contents);
    hy3_free(w.wide);
    hy3_free(w.converted);
    return status;
}
