/* SPDX-License-Identifier: Apache-2.0 */
/* parts.c - records behind each other: a header, which is sealed, and what was kept. */
#include "data/parts.h"

#include "base/expand.h"
#include "base/file.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"

#include <time.h>
#include <unistd.h>
#include <xxhash.h>

static const char phase[] = "looking for what was tokenized before";
static const char magic[8] = "hy3part";

struct header {
    char magic[8];
    uint64_t identity;
    int64_t piece, size; /* bytes of the record that follow */
    uint64_t checksum;   /* of them */
    uint64_t seal;       /* of the fields above */
};

struct place {    /* of a piece's record */
    int64_t file; /* from 1; 0: none */
    int64_t at, size;
    uint64_t checksum;
};

struct hy3_parts {
    uint64_t identity;
    struct place *places; /* [pieces] */
    int64_t pieces;
    struct hy3_paths files; /* of earlier runs */
    int64_t open;           /* the file of `from`, as in places */
    int from, to;           /* descriptors */
    int64_t written;
    char path[HY3_PATH_MAX]; /* of this rank's own, created with its first record */
    bool is_private;
    char *record, *loaded;
    size_t record_size, record_capacity, loaded_capacity;
};

void hy3_parts_close(struct hy3_parts *parts)
{
    if (!parts)
        return;
    if (parts->from >= 0)
        close(parts->from);
    if (parts->to >= 0)
        close(parts->to);
    hy3_paths_free(&parts->files);
    hy3_free(parts->places);
    hy3_free(parts->record);
    hy3_free(parts->loaded);
    hy3_free(parts);
}

static uint64_t seal(const struct header *h)
{
    return XXH3_64bits(h, offsetof(struct header, seal));
}

/* Rank 0. The places of all whole records of a file; *any: it has one. */
static hy3_status scan(struct hy3_parts *p, int64_t file, bool *any)
{
    hy3_status status = HY3_OK;
    const char *path = p->files.items[file];
    struct header h;
    int64_t bytes, at = 0;
    int fd = -1;

    *any = false;
    HY3_TRY_DONE(hy3_file_open(path, &fd));
    HY3_TRY_DONE(hy3_file_size(path, &bytes));
    while (bytes - at > (int64_t)sizeof h) {
        HY3_TRY_DONE(hy3_file_read_at(fd, &h, sizeof h, at, path));
        at += (int64_t)sizeof h;
        if (memcmp(h.magic, magic, sizeof magic) != 0 || h.seal != seal(&h) ||
            h.identity != p->identity || h.piece < 0 || h.piece >= p->pieces || h.size < 1 ||
            h.size > bytes - at)
            break;
        p->places[h.piece] = (struct place){file + 1, at, h.size, h.checksum};
        at += h.size;
        *any = true;
    }
done:
    if (fd >= 0)
        close(fd);
    return status;
}

/* The parts of the name; none where the directory cannot be listed. */
static void find(const char *directory, const char *name, struct hy3_paths *out)
{
    char prefix[HY3_PATH_MAX];
    int kept = 0;

    snprintf(prefix, sizeof prefix, "%s.parts.", name);
    if (hy3_path_expand(directory, NULL, out) != HY3_OK)
        return;
    for (int f = 0; f < out->count; f++) {
        if (strncmp(hy3_path_name(out->items[f]), prefix, strlen(prefix)) == 0)
            out->items[kept++] = out->items[f];
        else
            hy3_free(out->items[f]);
    }
    out->count = kept;
}

/* Rank 0. */
static void scan_all(struct hy3_parts *p, const char *directory, const char *name)
{
    bool any;

    find(directory, name, &p->files);
    for (int64_t f = 0; f < p->files.count; f++) {
        if (scan(p, f, &any) != HY3_OK) /* another user's, or what is no file */
            continue;
        if (!any)
            (void)hy3_file_remove(p->files.items[f]);
    }
}

/* Collective. The names that rank 0 has found. */
static hy3_status share_names(MPI_Comm comm, struct hy3_parts *p)
{
    hy3_status status = HY3_OK;
    int count = p->files.count;
    bool is_root = hy3_rank(comm) == 0;
    char name[HY3_PATH_MAX];

    hy3_broadcast(comm, 0, &count, sizeof count, phase);
    if (!is_root && count > 0)
        status = hy3_alloc(&p->files.items, (size_t)count, sizeof *p->files.items);
    for (int f = 0; f < count; f++) {
        if (is_root)
            snprintf(name, sizeof name, "%s", p->files.items[f]);
        hy3_broadcast(comm, 0, name, sizeof name, phase);
        if (is_root || status != HY3_OK)
            continue;
        status = hy3_strdup(name, &p->files.items[f]);
        p->files.count = f + 1;
    }
    return hy3_agree(comm, status, phase);
}

/* A name that no other process has. */
static hy3_status name_own(struct hy3_parts *p, const char *directory, const char *name, int rank)
{
    char host[64] = "";
    struct timespec now;

    gethostname(host, sizeof host - 1);
    clock_gettime(CLOCK_REALTIME, &now);
    return hy3_path_format(p->path, sizeof p->path, "%s/%s.parts.%s-%ld-%lld%09ld-%d", directory,
                           name, host, (long)getpid(), (long long)now.tv_sec, now.tv_nsec, rank);
}

hy3_status hy3_parts_open(MPI_Comm comm, const char *directory, const char *name, bool is_private,
                          uint64_t identity, int64_t pieces, struct hy3_parts **out)
{
    hy3_status status = HY3_OK;
    struct hy3_parts *p = NULL;

    *out = NULL;
    status = hy3_alloc(&p, 1, sizeof *p);
    if (status == HY3_OK) {
        p->from = p->to = -1;
        p->identity = identity;
        p->pieces = pieces;
        p->is_private = is_private;
        status = name_own(p, directory, name, hy3_rank(comm));
    }
    if (status == HY3_OK)
        status = hy3_alloc(&p->places, (size_t)pieces, sizeof *p->places);
    if (status == HY3_OK && hy3_rank(comm) == 0)
        scan_all(p, directory, name);
    HY3_AGREE_DONE(comm, status, phase);
    HY3_TRY_DONE(share_names(comm, p));
    hy3_broadcast(comm, 0, p->places, (size_t)pieces * sizeof *p->places, phase);
    *out = HY3_TAKE(p);
done:
    hy3_parts_close(p);
    return status;
}

int64_t hy3_parts_size(const struct hy3_parts *parts, int64_t piece)
{
    return parts->places[piece].size;
}

hy3_status hy3_parts_load(struct hy3_parts *parts, int64_t piece, const char **out)
{
    struct hy3_parts *p = parts;
    const struct place *place = &p->places[piece];
    const char *path;

    *out = NULL;
    if (place->file == 0)
        return HY3_OK;
    path = p->files.items[place->file - 1];
    if (p->open != place->file) {
        if (p->from >= 0)
            close(p->from);
        p->open = 0;
        p->from = -1;
        if (hy3_file_open(path, &p->from) != HY3_OK)
            return HY3_OK;
        p->open = place->file;
    }
    HY3_TRY(hy3_grow(&p->loaded, &p->loaded_capacity, (size_t)place->size, 1));
    if (hy3_file_read_at(p->from, p->loaded, (size_t)place->size, place->at, path) == HY3_OK &&
        XXH3_64bits(p->loaded, (size_t)place->size) == place->checksum)
        *out = p->loaded;
    return HY3_OK;
}

hy3_status hy3_parts_add(struct hy3_parts *parts, const void *data, size_t size)
{
    struct hy3_parts *p = parts;

    if (p->record_size == 0) /* room for the header */
        p->record_size = sizeof(struct header);
    HY3_TRY(hy3_grow(&p->record, &p->record_capacity, p->record_size + size, 1));
    if (size > 0)
        memcpy(p->record + p->record_size, data, size);
    p->record_size += size;
    return HY3_OK;
}

hy3_status hy3_parts_keep(struct hy3_parts *parts, int64_t piece)
{
    struct hy3_parts *p = parts;
    struct header h = {
        .identity = p->identity, .piece = piece, .size = (int64_t)(p->record_size - sizeof h)};
    size_t size = p->record_size;

    p->record_size = 0;
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = XXH3_64bits(p->record + sizeof h, (size_t)h.size);
    h.seal = seal(&h);
    memcpy(p->record, &h, sizeof h);
    if (p->to < 0)
        HY3_TRY(p->is_private ? hy3_file_create_private(p->path, &p->to)
                              : hy3_file_create(p->path, &p->to));
    HY3_TRY(hy3_file_write_at(p->to, p->record, size, p->written, p->path));
    p->written += (int64_t)size;
    return HY3_OK;
}

void hy3_parts_remove(const char *directory, const char *name)
{
    struct hy3_paths files;

    find(directory, name, &files);
    for (int f = 0; f < files.count; f++)
        (void)hy3_file_remove(files.items[f]);
    hy3_paths_free(&files);
}
