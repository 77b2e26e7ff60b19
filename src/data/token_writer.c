/* SPDX-License-Identifier: Apache-2.0 */
/* token_writer.c - rank 0 lays the file out with all that is small; then all ranks open it and
 * write the columns of tokens and samples, in few, large calls; then close, flush, mark. */
#include "data/token_writer.h"

#include "base/hdf5_image.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"

#include <time.h>
#include <unistd.h>

enum { BUFFER = 16 << 20, SAMPLES = 4096 }; /* bytes per rank and call; samples read back at once */

/* Bytes from which a dataset is written by collective calls, which join the ranks' parts into large
 * writes. Below that each rank writes by itself: collective calls of MPI-IO block and spin, 20 ms
 * each where ranks outnumber cores. */
static int64_t collective_bytes = 64 << 20;

static const char phase[] = "writing the token file";

void hy3_token_file_collective(int64_t bytes)
{
    collective_bytes = bytes;
}

struct writer {
    MPI_Comm comm;
    struct hy3_hdf5_image *image; /* on rank 0 */
    hid_t file;                   /* the image, then the file that all ranks have open */
    int nowhere;                  /* where the file is closed */
    struct hy3_output output;
    struct hy3_span places[HY3_TOKEN_COLUMNS]; /* in the file, of what all ranks write; bytes */
    int64_t place_count;
    const struct hy3_token_header *header;
    const struct hy3_source *sources;
    int file_count;
    const struct hy3_tokenized *tokenized;
    int64_t last; /* the portion with the last sample, which also writes the end of the offsets */
    char *buffer;
    struct hy3_sample *samples;
};

struct cursor { /* progress of a rank in a column */
    int64_t portion, element;
    uint64_t start; /* token at which the next sample begins */
};

static hy3_status put_attributes(const struct writer *w, enum hy3_dialect dialect)
{
    for (const struct hy3_token_attribute *a = hy3_token_attributes; a->name; a++)
        HY3_TRY(hy3_hdf5_put_number(w->file, a->name, hy3_token_attribute_type(a),
                                    (const char *)w->header + a->offset, w->output.part));
    HY3_TRY(hy3_hdf5_put_text(w->file, "unread_keys", w->header->summary.unread, w->output.part));
    HY3_TRY(hy3_hdf5_put_text(w->file, "template", "hy_v3", w->output.part));
    return hy3_hdf5_put_text(w->file, "dialect", dialect == HY3_DIALECT_FINAL ? "final" : "preview",
                             w->output.part);
}

static int64_t elements(const struct writer *w, const struct hy3_token_column *column, int64_t p)
{
    const struct hy3_portion_counts *counts = hy3_tokenized_counts(w->tokenized, p);

    if (column->kind == HY3_TOKENS)
        return counts->tokens;
    return counts->samples + (column->kind == HY3_SAMPLE_STARTS && p == w->last);
}

static int64_t first_element(const struct writer *w, const struct hy3_token_column *column,
                             int64_t p)
{
    const struct hy3_portion_counts *counts = hy3_tokenized_counts(w->tokenized, p);

    return column->kind == HY3_TOKENS ? counts->first_token : counts->first_sample;
}

/* `count` elements of a column of samples; the samples are in w->samples. */
static void convert(const struct writer *w, const struct hy3_token_column *column,
                    struct cursor *at, int64_t count, char *out)
{
    const struct hy3_portion_counts *counts = hy3_tokenized_counts(w->tokenized, at->portion);
    uint32_t file = (uint32_t)hy3_tokenized_file(w->tokenized, at->portion);

    for (int64_t i = 0; i < count; i++, out += column->size) {
        const struct hy3_sample *s = &w->samples[i];
        uint64_t line = (uint64_t)(counts->first_line + s->line) + 1;

        if (column->kind == HY3_SAMPLE_STARTS) {
            memcpy(out, &at->start, sizeof at->start);
            at->start += (uint64_t)s->length;
        } else if (column->offset == offsetof(struct hy3_token_header, line_at)) {
            memcpy(out, &line, sizeof line);
        } else if (column->offset == offsetof(struct hy3_token_header, file_at)) {
            memcpy(out, &file, sizeof file);
        } else {
            uint64_t none = HY3_NO_WEIGHTS;
            const uint64_t *weights = s->weight_checksum > 0 ? &s->weight_checksum : &none;

            memcpy(out, column->of_weights ? weights : &s->checksum, sizeof s->checksum);
        }
    }
}

static hy3_status fill_samples(const struct writer *w, const struct hy3_token_column *column,
                               struct cursor *at, int64_t count, char *out)
{
    const struct hy3_portion_counts *counts = hy3_tokenized_counts(w->tokenized, at->portion);

    if (at->element == 0)
        at->start = (uint64_t)counts->first_token;
    for (int64_t done = 0; done < count;) {
        int64_t part = count - done < SAMPLES ? count - done : SAMPLES;
        int64_t there = counts->samples - at->element;

        if (there == 0) { /* the end of the offsets */
            memcpy(out, &at->start, sizeof at->start);
            at->element++;
            break;
        }
        part = part < there ? part : there;
        HY3_TRY(hy3_tokenized_samples(w->tokenized, at->portion,
                                      (struct hy3_span){at->element, part}, w->samples));
        convert(w, column, at, part, out);
        out += (size_t)part * column->size;
        at->element += part;
        done += part;
    }
    return HY3_OK;
}

static hy3_status fill(const struct writer *w, const struct hy3_token_column *column,
                       struct cursor *at, int64_t count, void *out)
{
    struct hy3_span span = {at->element, count};
    hy3_status status;

    if (column->kind != HY3_TOKENS)
        return fill_samples(w, column, at, count, out);
    if (column->of_weights)
        status = hy3_tokenized_weights(w->tokenized, at->portion, span, out);
    else if (column->size == sizeof(uint32_t))
        status = hy3_tokenized_ids(w->tokenized, at->portion, span, out);
    else
        status = hy3_tokenized_mask(w->tokenized, at->portion, span, out);
    at->element += count;
    return status;
}

/* Adds elements to the selection of a call. */
static void select_span(hid_t space, struct hy3_span span, bool is_first)
{
    hsize_t start = (hsize_t)span.first, size = (hsize_t)span.count;

    H5Sselect_hyperslab(space, is_first ? H5S_SELECT_SET : H5S_SELECT_OR, &start, NULL, &size,
                        NULL);
}

/* Fills the buffer with what is left of this rank's portions and selects their places; neighbours
 * become one span. */
static hy3_status gather(const struct writer *w, const struct hy3_token_column *column,
                         struct cursor *at, hid_t space, int64_t *used)
{
    const int64_t room = BUFFER / (int64_t)column->size;
    struct hy3_span span = {0}; /* not selected yet */
    bool is_first = true;

    HY3_TRY(hy3_stop_check(phase));
    H5Sselect_none(space);
    for (*used = 0; *used < room && at->portion < hy3_tokenized_portions(w->tokenized);) {
        int64_t left = elements(w, column, at->portion) - at->element, place;

        if (left == 0 || !hy3_tokenized_is_mine(w->tokenized, at->portion)) {
            *at = (struct cursor){.portion = at->portion + 1};
            continue;
        }
        left = left < room - *used ? left : room - *used;
        place = first_element(w, column, at->portion) + at->element;
        HY3_TRY(fill(w, column, at, left, w->buffer + (size_t)*used * column->size));
        if (span.count > 0 && place != hy3_span_end(span)) {
            select_span(space, span, is_first);
            is_first = false;
            span.count = 0;
        }
        if (span.count == 0)
            span.first = place;
        span.count += left;
        *used += left;
    }
    if (span.count > 0)
        select_span(space, span, is_first);
    return HY3_OK;
}

/* One collective write of `used` elements, 0 on ranks that have no more. */
static hy3_status write_buffer(const struct writer *w, const struct hy3_token_column *column,
                               hid_t set, hid_t space, int64_t used, hid_t transfer)
{
    hy3_status status = HY3_OK;
    hsize_t size = used > 0 ? (hsize_t)used : 1;
    hid_t memory = H5Screate_simple(1, &size, NULL);

    if (used == 0)
        H5Sselect_none(memory);
    if (H5Dwrite(set, hy3_token_column_type(column), memory, space, transfer, w->buffer) < 0)
        status = hy3_hdf5_fail("write", column->name, w->output.part);
    H5Sclose(memory);
    return status;
}

static int64_t count_rounds(const struct writer *w, const struct hy3_token_column *column)
{
    int64_t mine = 0, room = BUFFER / (int64_t)column->size;

    for (int64_t p = 0; p < hy3_tokenized_portions(w->tokenized); p++)
        if (hy3_tokenized_is_mine(w->tokenized, p))
            mine += elements(w, column, p);
    mine = (mine + room - 1) / room;
    hy3_allreduce_int(w->comm, &mine, 1, MPI_MAX, phase);
    return mine;
}

static hy3_status write_column(const struct writer *w, const struct hy3_token_column *column,
                               hid_t set)
{
    hy3_status status = HY3_OK;
    hid_t space = H5Dget_space(set), transfer = H5Pcreate(H5P_DATASET_XFER);
    int64_t rounds = count_rounds(w, column), used = 0;
    struct cursor at = {0};

    if (hy3_token_column_count(column, w->header, w->file_count) * (int64_t)column->size >=
        collective_bytes)
        H5Pset_dxpl_mpio(transfer, H5FD_MPIO_COLLECTIVE);
    for (int64_t round = 0; round < rounds; round++) {
        HY3_AGREE_DONE(w->comm, gather(w, column, &at, space, &used), phase);
        HY3_AGREE_DONE(w->comm, write_buffer(w, column, set, space, used, transfer), phase);
    }
done:
    H5Pclose(transfer);
    H5Sclose(space);
    return status;
}

/* Rank 0. Creates a column; one of files is filled at once, the place of another is added to the
 * places that all ranks write. */
static hy3_status put_column(struct writer *w, const struct hy3_token_column *column)
{
    hy3_status status = HY3_OK;
    int64_t count = hy3_token_column_count(column, w->header, w->file_count), *values = NULL;
    struct hy3_hdf5_place place = {.dims = 1, .shape = {count}};
    hid_t set = -1;

    HY3_TRY_DONE(hy3_hdf5_create_set(w->file, column->name, hy3_token_column_type(column),
                                     w->output.part, &place, &set));
    if (column->kind != HY3_FILES) {
        w->places[w->place_count++] =
            (struct hy3_span){place.offset, count * (int64_t)column->size};
        goto done;
    }
    HY3_TRY_DONE(hy3_alloc(&values, (size_t)count, sizeof *values));
    for (int f = 0; f < w->file_count; f++)
        values[f] = hy3_token_column_value(column, &w->sources[f]);
    if (H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        status = hy3_hdf5_fail("write", column->name, w->output.part);
done:
    if (set >= 0)
        H5Dclose(set);
    hy3_free(values);
    return status;
}

static hid_t text_type(size_t size)
{
    hid_t type = H5Tcopy(H5T_C_S1);

    H5Tset_size(type, size);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

/* Rank 0. */
static hy3_status put_names(const struct writer *w)
{
    hy3_status status = HY3_OK;
    struct hy3_hdf5_place place = {.dims = 1, .shape = {w->file_count}};
    size_t width = 1;
    hid_t type = -1, set = -1;
    char *names = NULL;

    for (int f = 0; f < w->file_count; f++)
        if (strlen(w->sources[f].path) > width)
            width = strlen(w->sources[f].path);
    HY3_TRY_DONE(hy3_alloc(&names, (size_t)w->file_count, width));
    for (int f = 0; f < w->file_count; f++)
        memcpy(names + (size_t)f * width, w->sources[f].path, strlen(w->sources[f].path));
    type = text_type(width);
    HY3_TRY_DONE(hy3_hdf5_create_set(w->file, "source_name", type, w->output.part, &place, &set));
    if (H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, names) < 0)
        status = hy3_hdf5_fail("write", "source_name", w->output.part);
done:
    if (set >= 0)
        H5Dclose(set);
    if (type >= 0)
        H5Tclose(type);
    hy3_free(names);
    return status;
}

/* A name that no other job uses, the same on all ranks. */
static hy3_status name_output(struct writer *w, const char *path)
{
    char host[64] = "", unique[160] = "";
    struct timespec now;

    gethostname(host, sizeof host - 1);
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(unique, sizeof unique, "%s-%ld-%lld%09ld", host, (long)getpid(), (long long)now.tv_sec,
             now.tv_nsec);
    hy3_broadcast(w->comm, 0, unique, sizeof unique, phase);
    return hy3_output_name(path, unique, &w->output);
}

/* Rank 0. The file with its final size, without tokens and samples. */
static hy3_status lay_out(struct writer *w, enum hy3_dialect dialect)
{
    int64_t bytes;

    HY3_TRY(hy3_output_create(&w->output));
    HY3_TRY(hy3_hdf5_image_create(w->output.part, &w->image, &w->file));
    HY3_TRY(put_attributes(w, dialect));
    for (const struct hy3_token_column *c = hy3_token_columns; c->name; c++)
        if (hy3_token_column_exists(c, w->header))
            HY3_TRY(put_column(w, c));
    HY3_TRY(put_names(w));
    return hy3_hdf5_image_store(w->image, w->output.fd, w->places, w->place_count, &bytes);
}

static hy3_status open_here(struct writer *w)
{
    hy3_status status = HY3_OK;
    char name[HY3_PATH_MAX + 8];
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    H5Pset_fapl_mpio(access, w->comm, MPI_INFO_NULL);
    status = hy3_hdf5_shared_name(w->output.part, name, sizeof name);
    if (status == HY3_OK && (w->file = H5Fopen(name, H5F_ACC_RDWR, access)) < 0)
        status = hy3_hdf5_fail("open", NULL, w->output.part);
    H5Pclose(access);
    return status;
}

/* Only values have been written, so nothing is left for HDF5 to write: the close must reach no
 * disk, since a file that stays half closed would crash MPI_Finalize. */
static void close_file(struct writer *w)
{
    hy3_hdf5_cut_off(w->output.part, w->nowhere);
    H5Fclose(w->file);
    w->file = -1;
}

/* Collective. */
static hy3_status write_columns(struct writer *w)
{
    hy3_status status = HY3_OK;

    for (const struct hy3_token_column *c = hy3_token_columns; c->name && status == HY3_OK; c++) {
        hid_t set = -1;

        if (c->kind == HY3_FILES || !hy3_token_column_exists(c, w->header))
            continue;
        if ((set = H5Dopen2(w->file, c->name, H5P_DEFAULT)) < 0)
            status = hy3_hdf5_fail("open", c->name, w->output.part);
        status = hy3_agree(w->comm, status, phase);
        if (status == HY3_OK)
            status = write_column(w, c, set);
        if (set >= 0)
            H5Dclose(set);
    }
    return status;
}

/* Rank 0. All that all ranks wrote is on the disk. */
static hy3_status complete(struct writer *w)
{
    HY3_TRY(hy3_output_open(&w->output));
    HY3_TRY(hy3_hdf5_image_complete(w->image, w->output.fd));
    return hy3_output_flush(&w->output);
}

/* Every rank flushes what it wrote: on network file systems no other rank can. */
static hy3_status flush_output(struct writer *w)
{
    HY3_TRY(hy3_output_open(&w->output));
    return hy3_output_flush(&w->output);
}

hy3_status hy3_token_file_write(MPI_Comm comm, const char *path,
                                const struct hy3_token_header *header, enum hy3_dialect dialect,
                                const struct hy3_source *sources, int file_count,
                                const struct hy3_tokenized *tokenized, struct hy3_output *output)
{
    hy3_status status = HY3_OK;
    struct writer w = {.comm = comm,
                       .file = -1,
                       .nowhere = -1,
                       .header = header,
                       .sources = sources,
                       .file_count = file_count,
                       .tokenized = tokenized};

    hy3_hdf5_quiet();
    for (int64_t p = 0; p < hy3_tokenized_portions(tokenized); p++)
        if (hy3_tokenized_counts(tokenized, p)->samples > 0)
            w.last = p;
    status = name_output(&w, path);
    w.output.is_private = output->is_private;
    if (status == HY3_OK)
        status = hy3_hdf5_nowhere(w.output.part, 0, &w.nowhere);
    if (status == HY3_OK)
        status = hy3_alloc(&w.buffer, BUFFER, 1);
    if (status == HY3_OK)
        status = hy3_alloc(&w.samples, SAMPLES, sizeof *w.samples);
    HY3_AGREE_DONE(comm, status, phase);
    status = hy3_rank(comm) == 0 ? lay_out(&w, dialect) : HY3_OK;
    hy3_output_close(&w.output); /* or it would be cut off with HDF5's own */
    w.file = -1;                 /* the image's is closed */
    HY3_AGREE_DONE(comm, status, phase);
    HY3_TRY_DONE(hy3_agree_together(comm, open_here(&w), phase));
    HY3_TRY_DONE(write_columns(&w));
    close_file(&w);
    HY3_AGREE_DONE(comm, flush_output(&w), phase);
    HY3_AGREE_DONE(comm, hy3_rank(comm) == 0 ? complete(&w) : HY3_OK, phase);
    *output = w.output;
    w.output.part[0] = '\0';
done:
    if (w.file >= 0)
        close_file(&w);
    if (w.nowhere >= 0)
        close(w.nowhere);
    hy3_hdf5_image_free(w.image);
    if (hy3_rank(comm) == 0)
        hy3_output_discard(&w.output);
    hy3_free(w.samples);
    hy3_free(w.buffer);
    return status;
}
