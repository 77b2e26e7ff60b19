/* SPDX-License-Identifier: Apache-2.0 */
/* reject.c - the ranks send their rejected lines to rank 0 in order, a packet at a time. */
#include "data/reject.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/wait.h"
#include "text/utf8.h"

#include <jansson.h>

#include <errno.h>
#include <unistd.h>

enum { PACKET = 1024 }; /* records */

static const char phase[] = "writing the rejected lines";

struct writer { /* rank 0 */
    FILE *file;
    struct hy3_output output;
    struct hy3_bad_list *list;
    size_t used; /* of list->text */
    bool is_full;
};

static void list_bad(struct writer *w, const struct hy3_source *source, int64_t line,
                     const char *reason)
{
    size_t left = sizeof w->list->text - w->used;
    char place[HY3_PATH_MAX + 32];
    int size;

    if (w->is_full || w->list->count == HY3_BAD_LISTED)
        return;
    hy3_source_place(source, line, place, sizeof place);
    size = snprintf(w->list->text + w->used, left, "\n  %s: %s", place, reason);
    if (size < 0 || (size_t)size >= left) {
        w->list->text[w->used] = '\0';
        w->is_full = true;
        return;
    }
    w->used += (size_t)size;
    w->list->count++;
}

/* A JSON string; what is not UTF-8 (a file's name, a piece of a broken line) is repaired. */
static hy3_status text(const char *bytes, json_t **out)
{
    hy3_status status = HY3_OK;
    char *good = NULL;
    size_t size;

    HY3_TRY_DONE(hy3_utf8_repair(bytes, strlen(bytes), &good, &size));
    if (!(*out = json_stringn(good, size)))
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
done:
    hy3_free(good);
    return status;
}

static hy3_status put(struct writer *w, const struct hy3_source *source, int64_t line,
                      const struct hy3_reject *reject)
{
    hy3_status status = HY3_OK;
    json_t *object = NULL, *name = NULL, *reason = NULL;

    HY3_TRY_DONE(text(source->path, &name));
    HY3_TRY_DONE(text(reject->reason, &reason));
    object = json_pack("{s:O, s:I, s:O}", "file", name, "line", (json_int_t)line, "reason", reason);
    if (!object)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
    if (json_dumpf(object, w->file, JSON_COMPACT) != 0 || fputc('\n', w->file) == EOF)
        HY3_FAIL_DONE(HY3_EIO, "cannot write '%s': %s", w->output.part, strerror(errno));
    if (reject->is_bad)
        list_bad(w, source, line, reject->reason);
done:
    json_decref(object);
    json_decref(reason);
    json_decref(name);
    return status;
}

static void move(MPI_Comm comm, struct hy3_reject *packet, int64_t count, int owner)
{
    int bytes = (int)(count * (int64_t)sizeof *packet);
    MPI_Request request;

    if (owner == 0)
        return;
    if (hy3_rank(comm) == 0)
        MPI_Irecv(packet, bytes, MPI_BYTE, owner, 0, comm, &request);
    else
        MPI_Isend(packet, bytes, MPI_BYTE, 0, 0, comm, &request);
    hy3_wait(&request, phase);
}

/* The rejected lines of portion p. A rank that has failed keeps sending and receiving, so that no
 * other rank hangs. */
static hy3_status write_portion(MPI_Comm comm, const struct hy3_tokenized *t, int64_t p,
                                struct hy3_reject *packet, struct writer *w)
{
    hy3_status status = HY3_OK;
    const struct hy3_portion_counts *counts = hy3_tokenized_counts(t, p);
    int64_t rejects = counts->dropped + counts->bad;
    bool is_mine = hy3_tokenized_is_mine(t, p);

    for (int64_t at = 0; at < rejects; at += PACKET) {
        int64_t count = rejects - at < PACKET ? rejects - at : PACKET;

        if (is_mine && status == HY3_OK)
            status = hy3_tokenized_rejects(t, p, (struct hy3_span){at, count}, packet);
        if (is_mine || w)
            move(comm, packet, count, hy3_tokenized_owner(t, p));
        for (int64_t i = 0; i < count && w && status == HY3_OK; i++)
            status = put(w, hy3_tokenized_source(t, p), counts->first_line + packet[i].line + 1,
                         &packet[i]);
    }
    return status;
}

static hy3_status open_writer(struct writer *w, const char *path, bool is_private,
                              struct hy3_bad_list *list)
{
    char unique[32];

    memset(list, 0, sizeof *list);
    w->list = list;
    snprintf(unique, sizeof unique, "%ld", (long)getpid());
    HY3_TRY(hy3_output_name(path, unique, &w->output));
    w->output.is_private = is_private;
    HY3_TRY(hy3_output_create(&w->output));
    if (!(w->file = fdopen(w->output.fd, "w")))
        HY3_FAIL(HY3_EIO, "cannot create '%s': %s", w->output.part, strerror(errno));
    w->output.fd = -1; /* the file's now */
    return HY3_OK;
}

/* Always closes; a file that is complete is flushed and waits for its name. */
static hy3_status close_writer(struct writer *w, hy3_status so_far)
{
    hy3_status status = so_far;

    if (!w->file)
        return status;
    if (fclose(w->file) != 0 && status == HY3_OK)
        status = hy3_fail(HY3_EIO, __FILE__, __LINE__, "cannot write '%s': %s", w->output.part,
                          strerror(errno));
    w->file = NULL;
    if (status == HY3_OK)
        status = hy3_output_open(&w->output);
    if (status == HY3_OK)
        status = hy3_output_flush(&w->output);
    if (status != HY3_OK)
        hy3_output_discard(&w->output);
    return status;
}

hy3_status hy3_reject_write(MPI_Comm comm, const struct hy3_tokenized *tokenized, const char *path,
                            struct hy3_bad_list *list, struct hy3_output *output)
{
    hy3_status status = HY3_OK, local;
    bool is_writer = hy3_rank(comm) == 0;
    struct hy3_reject *packet = NULL;
    struct writer writer = {0};

    status = hy3_alloc(&packet, PACKET, sizeof *packet);
    if (status == HY3_OK && is_writer)
        status = open_writer(&writer, path, output->is_private, list);
    HY3_AGREE_DONE(comm, status, phase);
    for (int64_t p = 0; p < hy3_tokenized_portions(tokenized); p++) {
        local = write_portion(comm, tokenized, p, packet, is_writer ? &writer : NULL);
        if (status == HY3_OK)
            status = local;
    }
    if (is_writer)
        status = close_writer(&writer, status);
    status = hy3_agree(comm, status, phase);
done:
    if (is_writer && writer.file)
        close_writer(&writer, status);
    if (status == HY3_OK)
        *output = writer.output;
    else
        hy3_output_discard(&writer.output);
    hy3_free(packet);
    return status;
}
