/* SPDX-License-Identifier: Apache-2.0 */
/* rewrite.c - the phases: check the output, find complete shards, write the others, small files,
 * index. */
#include "ckpt/hf/rewrite.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/planted.h"
#include "base/plural.h"
#include "base/size.h"
#include "ckpt/hf/companions.h"
#include "ckpt/hf/publish.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"

#include <errno.h>
#include <libgen.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PIECE = 8 << 20, COPIED = 32 << 20, RECORD_LIMIT = 16 << 20, INDEX_LIMIT = 256 << 20 };

static const char record_name[] = ".hy3_rewrite.json";
static const char index_name[] = "model.safetensors.index.json";

struct work {
    const struct hy3_hf_rewrite *rewrite;
    const struct hy3_hf_plan *plan;
    MPI_Comm comm;
    int *owner;          /* [file_count] rank that writes the shard, -1: it is there already */
    int64_t done, total; /* bytes of this rank */
    double start;
};

/* The longest existing part of the path, without symbolic links. */
static hy3_status resolve(const char *path, char out[HY3_PATH_MAX])
{
    hy3_status status = HY3_OK;
    char rest[HY3_PATH_MAX], *real;

    HY3_TRY(hy3_path_format(rest, sizeof rest, "%s", path));
    while (!(real = realpath(rest, NULL)) && errno == ENOENT && strcmp(rest, ".") != 0) {
        const char *parent = dirname(rest); /* in `rest`, or "." */

        memmove(rest, parent, strlen(parent) + 1);
    }
    if (!real)
        HY3_FAIL(HY3_EIO, "cannot look at '%s': %s", rest, strerror(errno));
    status = hy3_path_format(out, HY3_PATH_MAX, "%s", real);
    free(real);
    return status;
}

static hy3_status refuse_source(const struct work *w)
{
    char from[HY3_PATH_MAX], to[HY3_PATH_MAX];
    size_t length;

    HY3_TRY(resolve(hy3_hf_dir_path(w->rewrite->base), from));
    HY3_TRY(resolve(w->rewrite->output, to));
    length = strlen(from);
    if (strncmp(from, to, length) == 0 && (to[length] == '\0' || to[length] == '/'))
        HY3_FAIL(HY3_EUSAGE,
                 "the output '%s' lies in the source directory, which is only read; name another",
                 w->rewrite->output);
    return HY3_OK;
}

/* All that the output depends on. Owned by the caller (json_decref). */
static hy3_status make_record(const struct work *w, json_t **out)
{
    hy3_status status = HY3_OK;
    const struct hy3_hf_dir *base = w->rewrite->base;
    json_t *shards = json_array();
    char path[HY3_PATH_MAX];
    struct stat info;

    *out = NULL;
    for (int i = 0; i < hy3_hf_dir_shards(base); i++) {
        const char *name = hy3_hf_dir_shard_name(base, i);

        HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", hy3_hf_dir_path(base), name));
        if (stat(path, &info) != 0)
            HY3_FAIL_DONE(HY3_EIO, "cannot look at '%s': %s", path, strerror(errno));
        json_array_append_new(shards, json_pack("[s, I, I, I]", name, (json_int_t)info.st_size,
                                                (json_int_t)info.st_mtim.tv_sec,
                                                (json_int_t)info.st_mtim.tv_nsec));
    }
    *out = json_pack("{s:s, s:O}", "settings", w->rewrite->settings, "sources", shards);
    if (!*out)
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for '%s'", record_name);
done:
    json_decref(shards);
    return status;
}

/* Whether the shard is complete: it has its name, its size and the header of the plan. */
static bool is_kept(const struct work *w, const struct hy3_hf_file *file)
{
    char path[HY3_PATH_MAX], *header = NULL;
    int64_t size;
    int fd = -1;
    bool kept = false;

    if (hy3_path_format(path, sizeof path, "%s/%s", w->rewrite->output, file->name) != HY3_OK ||
        !hy3_path_exists(path) || hy3_file_size(path, &size) != HY3_OK || size != file->bytes)
        return false;
    if (hy3_alloc(&header, file->header_bytes, 1) == HY3_OK && hy3_file_open(path, &fd) == HY3_OK)
        kept = hy3_file_read_at(fd, header, file->header_bytes, 0, path) == HY3_OK &&
               memcmp(header, file->header, file->header_bytes) == 0;
    if (fd >= 0)
        close(fd);
    hy3_free(header);
    return kept;
}

/* The text of a shard, until all shards are there. */
static hy3_status note_path(const struct work *w, const struct hy3_hf_file *file, char *path)
{
    return hy3_path_format(path, HY3_PATH_MAX, "%s/.hy3_rewrite.%s.tsv", w->rewrite->output,
                           file->name);
}

static bool has_note(const struct work *w, const struct hy3_hf_file *file)
{
    char path[HY3_PATH_MAX];

    return !w->rewrite->report || (note_path(w, file, path) == HY3_OK && hy3_path_exists(path));
}

/* Whether the output's index has the mark of this result. */
static bool has_marked_index(const struct work *w)
{
    char path[HY3_PATH_MAX];
    json_t *index = NULL;
    const char *source;
    bool marked = false;

    if (hy3_path_format(path, sizeof path, "%s/%s", w->rewrite->output, index_name) == HY3_OK &&
        hy3_path_exists(path) && hy3_json_read(path, INDEX_LIMIT, &index) == HY3_OK) {
        source =
            json_string_value(json_object_get(json_object_get(index, "metadata"), "hy3_source"));
        marked = source && strcmp(source, w->plan->source) == 0;
    }
    json_decref(index);
    return marked;
}

/* What an output without a record is. own: a result of the same sources, maybe damaged since. */
static void examine(const struct work *w, bool *own, bool *complete)
{
    bool single = hy3_hf_plan_is_single(w->plan), marked = !single && has_marked_index(w);
    int kept = 0;

    for (int i = 0; i < w->plan->file_count; i++)
        kept += is_kept(w, &w->plan->files[i]);
    *own = kept > 0 && (marked || !w->plan->bare);
    *complete = *own && kept == w->plan->file_count && (single || marked) &&
                hy3_path_exists_in(w->rewrite->output, "config.json") &&
                (!w->rewrite->report || hy3_path_exists_in(w->rewrite->output, w->rewrite->report));
}

/* An empty directory gets the record; one that has the same record, or is a result of the same
 * sources, is continued. */
static hy3_status claim_output(const struct work *w, bool *complete)
{
    hy3_status status = HY3_OK;
    const char *output = w->rewrite->output;
    json_t *record = NULL, *old = NULL;
    char path[HY3_PATH_MAX];
    bool empty = true, own = false;

    HY3_TRY_DONE(refuse_source(w));
    HY3_TRY_DONE(hy3_hf_check_companions(hy3_hf_dir_path(w->rewrite->base), true));
    HY3_TRY_DONE(hy3_planted_check(output, NULL));
    HY3_TRY_DONE(make_record(w, &record));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", output, record_name));
    if (hy3_path_exists(output)) {
        HY3_TRY_DONE(hy3_hf_remove_file(output, ".hy3_rewrite.json.part")); /* killed at once */
        HY3_TRY_DONE(hy3_directory_is_empty(output, &empty));
    }
    if (!empty && hy3_path_exists(path))
        own = hy3_json_read(path, RECORD_LIMIT, &old) == HY3_OK && json_equal(old, record);
    else if (!empty)
        examine(w, &own, complete);
    if (!empty && !own)
        HY3_FAIL_DONE(
            HY3_EUSAGE,
            "the output '%s' is not empty and was not started from the same source with the "
            "same settings; name another directory, or remove it",
            output);
    if (*complete)
        goto done;
    HY3_TRY_DONE(hy3_directory_create(output));
    HY3_TRY_DONE(hy3_json_write(path, record));
done:
    json_decref(old);
    json_decref(record);
    return status;
}

static hy3_status check_space(const struct work *w, int64_t needed)
{
    struct statvfs disk;
    char sizes[2][HY3_SIZE_TEXT];

    if (statvfs(w->rewrite->output, &disk) != 0)
        HY3_FAIL(HY3_EIO, "cannot look at the disk of '%s': %s", w->rewrite->output,
                 strerror(errno));
    if ((double)needed > (double)disk.f_bavail * (double)disk.f_frsize)
        HY3_FAIL(HY3_EIO, "'%s' needs %s, its disk has %s left; nothing was written",
                 w->rewrite->output, hy3_size_text((double)needed, sizes[0]),
                 hy3_size_text((double)disk.f_bavail * (double)disk.f_frsize, sizes[1]));
    return HY3_OK;
}

/* Rank 0: claims the output, finds what is left to do and deals it out, the largest shard to the
 * rank with the least. */
static hy3_status deal(const struct work *w, bool *complete)
{
    hy3_status status = HY3_OK;
    const struct hy3_hf_plan *plan = w->plan;
    int ranks = hy3_size(w->comm), kept = 0;
    int64_t *load = NULL, needed = 0;

    HY3_TRY_DONE(claim_output(w, complete));
    HY3_TRY_DONE(hy3_alloc(&load, (size_t)ranks, sizeof *load));
    for (int i = 0; i < plan->file_count; i++) {
        bool keep = *complete || (is_kept(w, &plan->files[i]) && has_note(w, &plan->files[i]));

        w->owner[i] = keep ? -1 : ranks;
        kept += w->owner[i] < 0;
        needed += w->owner[i] < 0 ? 0 : plan->files[i].bytes;
    }
    if (kept > 0)
        hy3_log(HY3_LOG_INFO, "%d of %d shard%s in '%s' %s complete and kept%s", kept,
                plan->file_count, hy3_s(plan->file_count), w->rewrite->output,
                kept == 1 ? "is" : "are", *complete ? ": all is done already" : "");
    HY3_TRY_DONE(check_space(w, needed));
    for (;;) {
        int largest = -1, least = 0;

        for (int i = 0; i < plan->file_count; i++)
            if (w->owner[i] == ranks &&
                (largest < 0 || plan->files[i].bytes > plan->files[largest].bytes))
                largest = i;
        if (largest < 0)
            break;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[least])
                least = r;
        w->owner[largest] = least;
        load[least] += plan->files[largest].bytes;
    }
done:
    hy3_free(load);
    return status;
}

/* Copies bytes, by the kernel where the file systems support it. */
static hy3_status copy_range(const struct hy3_shard *from, int64_t at, int fd, int64_t to,
                             int64_t bytes, char *buffer, const char *path)
{
    loff_t in = at, out = to;
    int64_t left = bytes;

    while (left > 0) {
        ssize_t n = copy_file_range(hy3_shard_fd(from), &in, fd, &out, (size_t)left, 0);

        if (n <= 0)
            break;
        left -= n;
    }
    while (left > 0) {
        size_t n = left < PIECE ? (size_t)left : PIECE;

        HY3_TRY(hy3_file_read_at(hy3_shard_fd(from), buffer, n, at + bytes - left,
                                 hy3_shard_path(from)));
        HY3_TRY(hy3_file_write_at(fd, buffer, n, to + bytes - left, path));
        left -= (int64_t)n;
    }
    return HY3_OK;
}

static void count_bytes(struct work *w, int64_t bytes)
{
#pragma omp critical(hy3_hf_rewrite_progress)
    {
        w->done += bytes;
        hy3_log_progress_bytes(w->rewrite->verb, w->done, w->total, w->start);
    }
}

static hy3_status change_piece(struct work *w, int index, const struct hy3_hf_piece *piece, int fd,
                               char *buffer, const char *path)
{
    const struct hy3_hf_entry *entry = &w->plan->entries[index];
    int64_t width = (int64_t)hy3_dtype_size(piece->tensor->dtype);
    struct hy3_span whole = {piece->to / width, piece->bytes / width};
    char *changed = buffer + PIECE;

    for (int64_t i = 0; i < whole.count; i += PIECE / 4) {
        struct hy3_span span = hy3_span_piece(whole, i, PIECE / 4);

        HY3_TRY(hy3_stop_check("writing the weights"));
        HY3_TRY(hy3_shard_read_raw(w->plan->base[piece->shard], piece->tensor,
                                   piece->from + i * width, span.count * width, buffer));
        HY3_TRY(w->rewrite->change(w->rewrite->context, index, span, buffer, changed));
        HY3_TRY(hy3_file_write_at(fd, changed, (size_t)(span.count * entry->width),
                                  entry->begin + span.first * entry->width, path));
        count_bytes(w, span.count * entry->width);
    }
    return HY3_OK;
}

static hy3_status write_entry(struct work *w, int index, int fd, char *buffer, const char *path)
{
    const struct hy3_hf_entry *entry = &w->plan->entries[index];

    for (size_t p = entry->piece; p < entry->piece + entry->pieces; p++) {
        const struct hy3_hf_piece *piece = &w->plan->pieces[p];

        if (entry->converts) {
            HY3_TRY(change_piece(w, index, piece, fd, buffer, path));
            continue;
        }
        for (int64_t at = 0; at < piece->bytes; at += COPIED) {
            int64_t n = piece->bytes - at < COPIED ? piece->bytes - at : COPIED;

            HY3_TRY(hy3_stop_check("writing the weights"));
            HY3_TRY(copy_range(w->plan->base[piece->shard], piece->tensor->begin + piece->from + at,
                               fd, entry->begin + piece->to + at, n, buffer, path));
            count_bytes(w, n);
        }
    }
    return HY3_OK;
}

/* Writes all tensors of a shard by the workers; returns the first failure. */
static hy3_status write_entries(struct work *w, const struct hy3_hf_file *file, int fd,
                                const char *path)
{
    hy3_status status = HY3_OK;
    char reason[HY3_ERROR_MAX] = "";

#pragma omp parallel num_threads(w->rewrite->workers)
    {
        char *buffer = NULL;
        hy3_status mine = hy3_alloc(&buffer, 2, PIECE);

#pragma omp for schedule(dynamic)
        for (int i = file->first; i < file->end; i++) {
            bool failed;

#pragma omp atomic read
            failed = status;
            if (mine == HY3_OK && !failed)
                mine = write_entry(w, i, fd, buffer, path);
        }
#pragma omp critical(hy3_hf_rewrite_failure)
        if (mine != HY3_OK && status == HY3_OK) {
            snprintf(reason, sizeof reason, "%s", hy3_error_text());
#pragma omp atomic write
            status = mine;
        }
        hy3_free(buffer);
    }
    if (status != HY3_OK)
        hy3_error_set(reason);
    return status;
}

static hy3_status write_note(const struct work *w, const struct hy3_hf_file *file)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], *text = NULL;

    HY3_TRY_DONE(w->rewrite->describe(w->rewrite->context, file, &text));
    HY3_TRY_DONE(note_path(w, file, path));
    HY3_TRY_DONE(hy3_output_replace(path, text, strlen(text)));
done:
    hy3_free(text);
    return status;
}

static hy3_status write_file(struct work *w, const struct hy3_hf_file *file)
{
    hy3_status status = HY3_OK;
    struct hy3_output shard = {0};

    if (w->rewrite->begin)
        HY3_TRY_DONE(w->rewrite->begin(w->rewrite->context, file));
    HY3_TRY_DONE(hy3_hf_name_shard(w->rewrite->output, file, &shard));
    HY3_TRY_DONE(hy3_output_create(&shard));
    HY3_TRY_DONE(hy3_file_write_at(shard.fd, file->header, file->header_bytes, 0, shard.part));
    if (ftruncate(shard.fd, (off_t)file->bytes) != 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot make '%s' %lld bytes long: %s", shard.part,
                      (long long)file->bytes, strerror(errno));
    HY3_TRY_DONE(write_entries(w, file, shard.fd, shard.part));
    if (w->rewrite->describe)
        HY3_TRY_DONE(write_note(w, file));
    HY3_TRY_DONE(hy3_output_publish(&shard));
done:
    hy3_output_discard(&shard);
    return status;
}

static hy3_status write_files(struct work *w)
{
    int rank = hy3_rank(w->comm);

    for (int i = 0; i < w->plan->file_count; i++)
        for (int j = w->plan->files[i].first; w->owner[i] == rank && j < w->plan->files[i].end; j++)
            w->total += w->plan->entries[j].bytes;
    w->start = hy3_seconds();
    for (int i = 0; i < w->plan->file_count; i++)
        if (w->owner[i] == rank)
            HY3_TRY(write_file(w, &w->plan->files[i]));
    return HY3_OK;
}

/* Removes what only an unfinished output needs; the record first, so that no shard is found without
 * its text under a record. */
static hy3_status remove_traces(const struct work *w)
{
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_hf_remove_file(w->rewrite->output, record_name));
    for (int i = 0; w->rewrite->report && i < w->plan->file_count; i++) {
        HY3_TRY(note_path(w, &w->plan->files[i], path));
        HY3_TRY(hy3_hf_remove_file(w->rewrite->output, hy3_path_name(path)));
    }
    return HY3_OK;
}

/* The texts of all shards as one file. */
static hy3_status write_report(const struct work *w)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], *all = NULL, *text = NULL;
    size_t length = 0, capacity = 0, size;

    if (!w->rewrite->report)
        return HY3_OK;
    for (int i = 0; i < w->plan->file_count; i++) {
        HY3_TRY_DONE(note_path(w, &w->plan->files[i], path));
        HY3_TRY_DONE(hy3_file_read(path, INDEX_LIMIT, &text, &size));
        HY3_TRY_DONE(hy3_grow(&all, &capacity, length + size + 1, 1));
        memcpy(all + length, text, size);
        length += size;
        hy3_free(HY3_TAKE(text));
    }
    HY3_TRY_DONE(
        hy3_path_format(path, sizeof path, "%s/%s", w->rewrite->output, w->rewrite->report));
    HY3_TRY_DONE(hy3_output_replace(path, all, length));
done:
    hy3_free(all);
    hy3_free(text);
    return status;
}

/* Rank 0: small files, the report and the index. */
static hy3_status complete(const struct work *w)
{
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_hf_copy_companions(hy3_hf_dir_path(w->rewrite->base), w->rewrite->output));
    if (w->rewrite->config)
        HY3_TRY(hy3_hf_write_config(w->rewrite->config));
    HY3_TRY(write_report(w));
    if (!hy3_hf_plan_is_single(w->plan))
        HY3_TRY(hy3_hf_write_index(w->rewrite->output, w->plan));
    HY3_TRY(remove_traces(w));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", w->rewrite->output, index_name));
    return hy3_directory_sync(path);
}

hy3_status hy3_hf_rewrite(MPI_Comm comm, const struct hy3_hf_rewrite *rewrite,
                          const struct hy3_hf_plan *plan)
{
    hy3_status status = HY3_OK;
    struct work w = {.rewrite = rewrite, .plan = plan, .comm = comm};
    bool finished = false;

    status = hy3_alloc(&w.owner, (size_t)plan->file_count, sizeof *w.owner);
    if (status == HY3_OK && hy3_rank(comm) == 0)
        status = deal(&w, &finished);
    HY3_AGREE_DONE(comm, status, "preparing the output");
    hy3_broadcast(comm, 0, w.owner, (size_t)plan->file_count * sizeof *w.owner,
                  "preparing the output");
    HY3_AGREE_DONE(comm, write_files(&w), "writing the weights");
    if (hy3_rank(comm) == 0)
        status = finished ? remove_traces(&w) : complete(&w);
    HY3_AGREE_DONE(comm, status, "completing the directory");
done:
    hy3_free(w.owner);
    return status;
}
