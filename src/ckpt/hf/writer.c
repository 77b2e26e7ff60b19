/* SPDX-License-Identifier: Apache-2.0 */
/* writer.c - the phases of a write: plan, create, write and flush, judge the values, check,
 * publish. Each ends in an agreement; the plan needs no message, being the same on all ranks.
 *
 * While a thread examines, sums up and writes a piece of this rank's shard, the next one is brought
 * together (hf/assemble.h). */
#include "ckpt/hf/writer.h"

#include "base/log.h"
#include "base/memory.h"
#include "ckpt/hf/assemble.h"
#include "ckpt/hf/checksums.h"
#include "ckpt/hf/companions.h"
#include "ckpt/hf/plan.h"
#include "ckpt/hf/publish.h"
#include "ckpt/hf/scan.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"
#include "comm/worker.h"

enum { PIECE = 8 << 20, NAMES_SHOWN = 5, SHA256_WORDS = HY3_SHA256 / 8 };

struct writer {
    MPI_Comm comm;
    const struct hy3_hf_writer_options *options;
    const struct hy3_params *params;
    struct hy3_hf_plan *plan;
    struct hy3_values values;
    struct hy3_worker *worker;
    struct hy3_assembled piece; /* of the thread */
    struct hy3_output shard;    /* the one under way, of the thread */
    struct hy3_digest *digest;  /* of it */
    /* what is known of all that was written; of this rank's shards, then of all */
    int64_t *contents, *xxh3; /* [plan->count] enum hy3_content; checksums */
    int64_t *sha256;          /* [plan->file_count,SHA256_WORDS] */
    int64_t *known;           /* the three in one; known_count in all */
    int known_count;
    int64_t done, total; /* bytes of this rank */
    double start;
};

static bool is_own(const struct writer *w, int file)
{
    return hy3_assembly_owner(w->plan, file, hy3_size(w->comm)) == hy3_rank(w->comm);
}

/* Notes what the values of the piece are, as the file has them: fp16 may overflow. */
static void scan_piece(struct writer *w)
{
    const struct hy3_assembled *piece = &w->piece;
    struct hy3_span bytes = {piece->at, piece->bytes};

    for (int i = piece->file->first; i < piece->file->end; i++) {
        const struct hy3_hf_entry *entry = &w->plan->entries[i];
        struct hy3_span part =
            hy3_span_intersect((struct hy3_span){entry->begin, entry->bytes}, bytes);
        int64_t found;

        if (!entry->param || part.count == 0)
            continue;
        found = hy3_scan(piece->data + (part.first - piece->at), entry->dtype,
                         part.count / entry->width);
        w->contents[i] = found > w->contents[i] ? found : w->contents[i];
    }
}

static hy3_status begin_shard(struct writer *w)
{
    HY3_TRY(hy3_hf_name_shard(w->options->output, w->piece.file, &w->shard));
    HY3_TRY(hy3_output_open(&w->shard));
    return hy3_checksums_begin(w->plan, w->piece.file, &w->digest);
}

static hy3_status end_shard(struct writer *w)
{
    const struct hy3_hf_file *file = w->piece.file;

    hy3_digest_end(w->digest);
    for (int i = file->first; i < file->end; i++)
        w->xxh3[i] = (int64_t)w->digest->xxh3[i - file->first];
    memcpy(w->sha256 + (file - w->plan->files) * SHA256_WORDS, w->digest->sha256, HY3_SHA256);
    hy3_digest_free(HY3_TAKE(w->digest));
    return hy3_output_flush(&w->shard);
}

/* In the thread: all that is done with a piece that is complete. */
static hy3_status write_piece(void *context)
{
    struct writer *w = context;
    const struct hy3_assembled *piece = &w->piece;

    if (piece->at == 0)
        HY3_TRY(begin_shard(w));
    scan_piece(w);
    hy3_digest_add(w->digest, piece->data, (size_t)piece->bytes);
    HY3_TRY(hy3_file_write_at(w->shard.fd, piece->data, (size_t)piece->bytes, piece->at,
                              w->shard.part));
    return piece->at + piece->bytes == piece->file->bytes ? end_shard(w) : HY3_OK;
}

static hy3_status check_stop(const struct writer *w)
{
    return w->options->keeps_on ? HY3_OK : hy3_stop_check("writing the weights");
}

/* Collective. All shards, round by round. */
static hy3_status write_all(struct writer *w)
{
    hy3_status status = HY3_OK;
    struct hy3_assembly *assembly = NULL;
    struct hy3_assembled piece;

    status = hy3_assembly_create(w->comm, w->plan, w->values, PIECE, &assembly);
    if (status == HY3_OK)
        status = hy3_worker_create(&w->worker);
    HY3_AGREE_DONE(w->comm, status, "writing the weights");
    w->start = hy3_seconds();
    for (int64_t i = 0; i < hy3_assembly_rounds(assembly); i++) {
        HY3_TRY_DONE(hy3_assembly_round(assembly, status, &piece));
        status = hy3_worker_end(w->worker, "writing the weights");
        if (status == HY3_OK)
            status = check_stop(w);
        if (status != HY3_OK || piece.bytes == 0)
            continue;
        w->piece = piece;
        hy3_worker_begin(w->worker, write_piece, w);
        w->done += piece.bytes;
        hy3_log_progress_bytes("saving", w->done, w->total, w->start);
    }
    if (status == HY3_OK)
        status = hy3_worker_end(w->worker, "writing the weights");
    if (status == HY3_OK)
        status = check_stop(w);
    status = hy3_agree(w->comm, status, "writing the weights");
done:
    hy3_worker_free(w->worker);
    hy3_output_close(&w->shard);
    hy3_digest_free(w->digest);
    hy3_assembly_free(assembly);
    return status;
}

/* Creates a shard in its full size. */
static hy3_status create_file(const char *output, const struct hy3_hf_file *file)
{
    hy3_status status = HY3_OK;
    struct hy3_output shard;

    HY3_TRY_DONE(hy3_hf_name_shard(output, file, &shard));
    HY3_TRY_DONE(hy3_output_create(&shard));
    HY3_TRY_DONE(hy3_output_claim(&shard, file->bytes));
done:
    hy3_output_close(&shard);
    return status;
}

/* Collective. The owners create their shards, so that a full disk is known before anything is
 * written. */
static hy3_status create_all(struct writer *w)
{
    hy3_status status = HY3_OK;

    if (hy3_rank(w->comm) == 0 && w->options->tokenizer_directory)
        status = hy3_hf_check_companions(w->options->tokenizer_directory, false);
    if (hy3_rank(w->comm) == 0 && status == HY3_OK)
        status = hy3_directory_create(w->options->output);
    HY3_AGREE(w->comm, status, "creating the weight files");
    for (int i = 0; status == HY3_OK && i < w->plan->file_count; i++) {
        if (!is_own(w, i))
            continue;
        w->total += w->plan->files[i].bytes;
        status = create_file(w->options->output, &w->plan->files[i]);
    }
    return hy3_agree(w->comm, status, "creating the weight files");
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

/* Collective. Tells all ranks what the owners know: elsewhere there are zeros. */
static hy3_status judge_all(struct writer *w)
{
    const int step = 1 << 16;

    for (int i = 0; i < w->known_count; i += step)
        hy3_allreduce_int(w->comm, w->known + i,
                          step < w->known_count - i ? step : w->known_count - i, MPI_BOR,
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
    w->known_count = 2 * w->plan->count + SHA256_WORDS * w->plan->file_count;
    HY3_TRY(hy3_alloc(&w->known, (size_t)w->known_count, sizeof *w->known));
    w->contents = w->known;
    w->xxh3 = w->contents + w->plan->count;
    w->sha256 = w->xxh3 + w->plan->count;
    return HY3_OK;
}

/* Rank 0: the directory with its checksums. */
static hy3_status publish(const struct writer *w)
{
    hy3_status status = HY3_OK;
    json_t *files = json_object(), *entry;

    for (int i = 0; i < w->plan->file_count; i++) {
        const struct hy3_hf_file *file = &w->plan->files[i];

        HY3_TRY_DONE(hy3_checksums_shard(
            w->plan, file, (const uint64_t *)w->xxh3 + file->first,
            (const unsigned char *)(w->sha256 + (ptrdiff_t)i * SHA256_WORDS), &entry));
        json_object_set_new(files, file->name, entry);
    }
    HY3_TRY_DONE(hy3_hf_publish(w->options, w->plan, files));
done:
    json_decref(files);
    return status;
}

/* Collective, from the first file to the last rename. */
static hy3_status write_planned(struct writer *w)
{
    hy3_status status = HY3_OK;

    HY3_TRY_DONE(create_all(w));
    HY3_TRY_DONE(write_all(w));
    HY3_TRY_DONE(judge_all(w));
    HY3_AGREE_DONE(w->comm, check_files(w), "reading the weights back");
    HY3_AGREE_DONE(w->comm, hy3_rank(w->comm) == 0 ? publish(w) : HY3_OK,
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
    struct writer w = {
        .comm = comm, .options = options, .params = params, .values = values, .shard = {.fd = -1}};

    HY3_AGREE_DONE(comm, plan_all(&w), "planning the weight files");
    HY3_TRY_DONE(write_planned(&w));
done:
    hy3_hf_plan_free(w.plan);
    hy3_free(w.known);
    return status;
}
