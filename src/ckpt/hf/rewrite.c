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
#include "ckpt/hf/checksums.h"
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

enum { PIECE = 8 << 20, RECORD_LIMIT = 16 << 20, INDEX_LIMIT = 256 << 20 };

static const char record_name[] = ".hy3_rewrite.json";
static const char index_name[] = "model.safetensors.index.json";

struct work {
    const struct hy3_hf_rewrite *rewrite;
    const struct hy3_hf_plan *plan;
    MPI_Comm comm;
    int *owner;          /* [file_count] rank that writes the shard, -1: it is there already */
    json_t *before;      /* on rank 0: the files of the output's checksums.json; NULL: none */
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

/* What is known of a complete shard, until all are there: "tsv", its text of the report; "json",
 * its entry of checksums.json. */
static hy3_status note_path(const struct work *w, const struct hy3_hf_file *file, const char *kind,
                            char *path)
{
    return hy3_path_format(path, HY3_PATH_MAX, "%s/.hy3_rewrite.%s.%s", w->rewrite->output,
                           file->name, kind);
}

static bool has_note(const struct work *w, const struct hy3_hf_file *file, const char *kind)
{
    char path[HY3_PATH_MAX];

    return note_path(w, file, kind, path) == HY3_OK && hy3_path_exists(path);
}

/* Whether nothing of the shard has to be written: it is complete, and all is known of it. */
static bool is_done(const struct work *w, const struct hy3_hf_file *file)
{
    return is_kept(w, file) && (!w->rewrite->report || has_note(w, file, "tsv")) &&
           (has_note(w, file, "json") || json_object_get(w->before, file->name));
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
static hy3_status deal(struct work *w, bool *complete)
{
    hy3_status status = HY3_OK;
    const struct hy3_hf_plan *plan = w->plan;
    int ranks = hy3_size(w->comm), kept = 0;
    int64_t *load = NULL, needed = 0;

    HY3_TRY_DONE(claim_output(w, complete));
    if (hy3_checksums_read(w->rewrite->output, &w->before) != HY3_OK)
        w->before = NULL; /* damaged: its shards are written again */
    HY3_TRY_DONE(hy3_alloc(&load, (size_t)ranks, sizeof *load));
    for (int i = 0; i < plan->file_count; i++) {
        bool keep = *complete || is_done(w, &plan->files[i]);

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

static void count_bytes(struct work *w, int64_t bytes)
{
#pragma omp critical(hy3_hf_rewrite_progress)
    {
        w->done += bytes;
        hy3_log_progress_bytes(w->rewrite->verb, w->done, w->total, w->start);
    }
}

/* A part of a shard that a worker reads, changes if need be, and writes. */
struct part {
    int entry;
    const struct hy3_hf_piece *piece;
    struct hy3_span span; /* bytes of the piece; of entries that convert, elements of the tensor */
};

/* Cuts a shard into parts, in the order of the file. */
static hy3_status cut(const struct hy3_hf_plan *plan, const struct hy3_hf_file *file,
                      struct part **parts, int64_t *count)
{
    size_t capacity = 0;

    for (int i = file->first; i < file->end; i++)
        for (size_t p = 0; p < plan->entries[i].pieces; p++) {
            const struct hy3_hf_piece *piece = &plan->pieces[plan->entries[i].piece + p];
            int64_t width = (int64_t)hy3_dtype_size(piece->tensor->dtype);
            bool converts = plan->entries[i].converts;
            struct hy3_span whole = converts
                                        ? (struct hy3_span){piece->to / width, piece->bytes / width}
                                        : (struct hy3_span){0, piece->bytes};
            int64_t most = converts ? PIECE / 4 : PIECE;

            for (int64_t at = 0; at < whole.count; at += most) {
                HY3_TRY(hy3_grow(parts, &capacity, (size_t)*count + 1, sizeof **parts));
                (*parts)[(*count)++] = (struct part){i, piece, hy3_span_piece(whole, at, most)};
            }
        }
    return HY3_OK;
}

/* What is written of the part: *data in the buffer [2,PIECE], *bytes of it, *at in the file. */
static hy3_status read_part(const struct work *w, const struct part *part, char *buffer,
                            const char **data, int64_t *bytes, int64_t *at)
{
    const struct hy3_hf_entry *entry = &w->plan->entries[part->entry];
    const struct hy3_hf_piece *piece = part->piece;
    const struct hy3_shard *base = w->plan->base[piece->shard];
    int64_t width = (int64_t)hy3_dtype_size(piece->tensor->dtype);

    HY3_TRY(hy3_stop_check("writing the weights"));
    if (!entry->converts) {
        *data = buffer;
        *bytes = part->span.count;
        *at = entry->begin + piece->to + part->span.first;
        return hy3_shard_read_raw(base, piece->tensor, piece->from + part->span.first, *bytes,
                                  buffer);
    }
    *data = buffer + PIECE;
    *bytes = part->span.count * entry->width;
    *at = entry->begin + part->span.first * entry->width;
    HY3_TRY(hy3_shard_read_raw(base, piece->tensor,
                               piece->from + part->span.first * width - piece->to,
                               part->span.count * width, buffer));
    return w->rewrite->change(w->rewrite->context, part->entry, part->span, buffer, buffer + PIECE);
}

/* Writes the parts of a shard by the workers, who take them in their order; its checksums are taken
 * in this order too. Returns the first failure. */
static hy3_status write_parts(struct work *w, const struct part *parts, int64_t count, int fd,
                              const char *path, struct hy3_digest *digest)
{
    hy3_status status = HY3_OK;
    char reason[HY3_ERROR_MAX] = "";

#pragma omp parallel num_threads(w->rewrite->workers)
    {
        const char *data = NULL;
        char *buffer = NULL;
        int64_t bytes = 0, at = 0;
        hy3_status mine = hy3_alloc(&buffer, 2, PIECE);

#pragma omp for schedule(dynamic) ordered
        for (int64_t i = 0; i < count; i++) {
            bool failed;

#pragma omp atomic read
            failed = status;
            if (mine == HY3_OK && !failed)
                mine = read_part(w, &parts[i], buffer, &data, &bytes, &at);
#pragma omp ordered
            if (mine == HY3_OK && !failed)
                hy3_digest_add(digest, data, (size_t)bytes);
            if (mine == HY3_OK && !failed)
                mine = hy3_file_write_at(fd, data, (size_t)bytes, at, path);
            if (mine == HY3_OK && !failed)
                count_bytes(w, bytes);
#pragma omp critical(hy3_hf_rewrite_failure)
            if (mine != HY3_OK && status == HY3_OK) {
                snprintf(reason, sizeof reason, "%s", hy3_error_text());
#pragma omp atomic write
                status = mine;
            }
        }
        hy3_free(buffer);
    }
    if (status != HY3_OK)
        hy3_error_set(reason);
    return status;
}

/* Keeps the checksums of a shard that is complete. */
static hy3_status note_checksums(const struct work *w, const struct hy3_hf_file *file,
                                 struct hy3_digest *digest)
{
    hy3_status status = HY3_OK;
    json_t *entry = NULL;
    char path[HY3_PATH_MAX];

    hy3_digest_end(digest);
    HY3_TRY_DONE(hy3_checksums_shard(w->plan, file, digest->xxh3, digest->sha256, &entry));
    HY3_TRY_DONE(note_path(w, file, "json", path));
    HY3_TRY_DONE(hy3_json_write(path, entry));
done:
    json_decref(entry);
    return status;
}

/* All tensors of a shard, of which the header is written, and its checksums. */
static hy3_status write_entries(struct work *w, const struct hy3_hf_file *file, int fd,
                                const char *path)
{
    hy3_status status = HY3_OK;
    struct hy3_digest *digest = NULL;
    struct part *parts = NULL;
    int64_t count = 0;

    HY3_TRY_DONE(cut(w->plan, file, &parts, &count));
    HY3_TRY_DONE(hy3_checksums_begin(w->plan, file, &digest));
    hy3_digest_add(digest, file->header, file->header_bytes);
    HY3_TRY_DONE(write_parts(w, parts, count, fd, path, digest));
    HY3_TRY_DONE(note_checksums(w, file, digest));
done:
    hy3_digest_free(digest);
    hy3_free(parts);
    return status;
}

static hy3_status write_note(const struct work *w, const struct hy3_hf_file *file)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], *text = NULL;

    HY3_TRY_DONE(w->rewrite->describe(w->rewrite->context, file, &text));
    HY3_TRY_DONE(note_path(w, file, "tsv", path));
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
 * its notes under a record. */
static hy3_status remove_traces(const struct work *w)
{
    static const char *const kinds[] = {"tsv", "json"};
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_hf_remove_file(w->rewrite->output, record_name));
    for (int i = 0; i < 2 * w->plan->file_count; i++) {
        HY3_TRY(note_path(w, &w->plan->files[i / 2], kinds[i % 2], path));
        HY3_TRY(hy3_hf_remove_file(w->rewrite->output, hy3_path_name(path)));
    }
    return HY3_OK;
}

/* The texts of all shards as one file. */
static hy3_status write_report(const struct work *w, json_t *files)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], *all = NULL, *text = NULL;
    size_t length = 0, capacity = 0, size;

    if (!w->rewrite->report)
        return HY3_OK;
    for (int i = 0; i < w->plan->file_count; i++) {
        HY3_TRY_DONE(note_path(w, &w->plan->files[i], "tsv", path));
        HY3_TRY_DONE(hy3_file_read(path, INDEX_LIMIT, &text, &size));
        HY3_TRY_DONE(hy3_grow(&all, &capacity, length + size + 1, 1));
        memcpy(all + length, text, size);
        length += size;
        hy3_free(HY3_TAKE(text));
    }
    HY3_TRY_DONE(hy3_checksums_replace(files, w->rewrite->output, w->rewrite->report, all, length));
done:
    hy3_free(all);
    hy3_free(text);
    return status;
}

/* The entries of all shards: from their notes, or from the output's checksums.json. */
static hy3_status list_shards(const struct work *w, json_t *files)
{
    char path[HY3_PATH_MAX];
    json_t *entry;

    for (int i = 0; i < w->plan->file_count; i++) {
        const struct hy3_hf_file *file = &w->plan->files[i];

        HY3_TRY(note_path(w, file, "json", path));
        if (hy3_path_exists(path))
            HY3_TRY(hy3_json_read(path, INDEX_LIMIT, &entry));
        else
            entry = json_incref(json_object_get(w->before, file->name));
        if (json_object_set_new(files, file->name, entry) != 0)
            HY3_FAIL(HY3_ENOMEM, "no memory for the checksums of '%s'", file->name);
    }
    return HY3_OK;
}

/* Rank 0: small files, the report, checksums and the index. */
static hy3_status complete(const struct work *w)
{
    hy3_status status = HY3_OK;
    const char *output = w->rewrite->output;
    json_t *files = json_object();
    char path[HY3_PATH_MAX];

    HY3_TRY_DONE(list_shards(w, files));
    HY3_TRY_DONE(hy3_hf_remove_file(output, HY3_CHECKSUMS)); /* before what it lists changes */
    HY3_TRY_DONE(hy3_hf_copy_companions(hy3_hf_dir_path(w->rewrite->base), output, files));
    if (w->rewrite->config)
        HY3_TRY_DONE(hy3_hf_write_config(w->rewrite->config, files));
    HY3_TRY_DONE(write_report(w, files));
    HY3_TRY_DONE(hy3_hf_complete(output, w->plan, !hy3_hf_plan_is_single(w->plan), files));
    HY3_TRY_DONE(remove_traces(w));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", output, index_name));
    HY3_TRY_DONE(hy3_directory_sync(path));
done:
    json_decref(files);
    return status;
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
    json_decref(w.before);
    hy3_free(w.owner);
    return status;
}
