/* SPDX-License-Identifier: Apache-2.0 */
/* writer.c - hy3_state_write: this thread collects values and their checksums, while another one
 * has HDF5 write those of the batch before. */
#include "base/memory.h"
#include "ckpt/state/layout.h"
#include "ckpt/state/output.h"
#include "ckpt/state/state.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/worker.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { SLAB = 2 << 20 }; /* elements, of a slab at most and of a batch */

static const char phase[] = "writing a checkpoint";

struct batch {
    struct hy3_span slabs; /* of this rank's */
    float *values;         /* [SLAB] */
};

struct writer {
    MPI_Comm comm;
    const char *path;
    bool is_private;
    const struct hy3_params *params;
    struct hy3_values values;
    struct hy3_state_index index;
    const struct hy3_param **trained; /* [index.tensor_count] */
    struct hy3_span rows;             /* this rank's, of the table of checksums */
    struct hy3_state_slab *slabs;     /* [rows.count] */
    struct batch batches[2];          /* one is filled while the other is written */
    struct batch *given;              /* what the worker writes */
    struct hy3_worker *worker;        /* the only thread that calls HDF5 */
    struct hy3_state_layout *layout;  /* on rank 0 */
    struct hy3_state_output *output;
};

static hy3_status list_tensors(struct writer *w)
{
    HY3_TRY(hy3_alloc(&w->index.tensors, (size_t)w->params->count, sizeof *w->index.tensors));
    HY3_TRY(hy3_alloc(&w->trained, (size_t)w->params->count, sizeof(void *)));
    for (int i = 0; i < w->params->count; i++) {
        const struct hy3_param *p = &w->params->params[i];
        struct hy3_state_tensor *t = &w->index.tensors[w->index.tensor_count];

        if (!p->trainable)
            continue;
        w->trained[w->index.tensor_count++] = p;
        snprintf(t->name, sizeof t->name, "%s", p->name);
        t->dims = p->dims;
        memcpy(t->shape, p->shape, sizeof t->shape);
        t->count = p->count;
        w->rows.count += HY3_FIELDS * ((w->values.share(w->values.of, p).count + SLAB - 1) / SLAB);
    }
    return HY3_OK;
}

static hy3_status list_slabs(struct writer *w)
{
    struct hy3_state_slab *slab;

    HY3_TRY(hy3_alloc(&w->slabs, (size_t)w->rows.count, sizeof *w->slabs));
    slab = w->slabs;
    for (int field = 0; field < HY3_FIELDS; field++)
        for (int64_t tensor = 0; tensor < w->index.tensor_count; tensor++) {
            struct hy3_span own = w->values.share(w->values.of, w->trained[tensor]);

            for (int64_t at = 0; at < own.count; at += SLAB) {
                struct hy3_span piece = hy3_span_piece(own, at, SLAB);

                *slab++ = (struct hy3_state_slab){.field = (uint64_t)field,
                                                  .tensor = (uint64_t)tensor,
                                                  .first = (uint64_t)piece.first,
                                                  .count = (uint64_t)piece.count};
            }
        }
    return HY3_OK;
}

static hy3_status prepare(struct writer *w, const char *configuration)
{
    HY3_TRY(list_tensors(w));
    HY3_TRY(list_slabs(w));
    for (int i = 0; i < 2; i++)
        HY3_TRY(hy3_alloc(&w->batches[i].values, SLAB, sizeof(float)));
    HY3_TRY(hy3_strdup(configuration, &w->index.configuration));
    return hy3_worker_create(&w->worker);
}

/* Collective. Counts all slabs and finds this rank's rows among them. */
static hy3_status number_slabs(struct writer *w)
{
    hy3_status status = HY3_OK;
    int64_t *counts = NULL;

    HY3_AGREE_DONE(w->comm, hy3_alloc(&counts, (size_t)hy3_size(w->comm), sizeof *counts), phase);
    hy3_allgather_int(w->comm, w->rows.count, counts, phase);
    for (int r = 0; r < hy3_size(w->comm); r++) {
        w->rows.first += r < hy3_rank(w->comm) ? counts[r] : 0;
        w->index.slab_count += counts[r];
    }
done:
    hy3_free(counts);
    return status;
}

/* Runs `work` on the worker and waits for it. */
static hy3_status call(struct writer *w, hy3_work work)
{
    hy3_worker_begin(w->worker, work, w);
    return hy3_worker_end(w->worker, phase);
}

static hy3_status create_file(void *writer)
{
    struct writer *w = writer;

    return hy3_state_layout_create(w->path, w->is_private, &w->index, &w->layout);
}

static hy3_status complete_file(void *writer)
{
    const struct writer *w = writer;

    return hy3_state_layout_complete(w->layout);
}

static hy3_status open_output(void *writer)
{
    const struct writer *w = writer;

    return hy3_state_output_open(w->output, w->comm);
}

static hy3_status close_output(void *writer)
{
    const struct writer *w = writer;

    return hy3_state_output_close(w->output);
}

static hy3_status write_batch(void *writer)
{
    const struct writer *w = writer;
    const float *values = w->given->values;

    for (int64_t i = w->given->slabs.first; i < hy3_span_end(w->given->slabs); i++) {
        const struct hy3_state_slab *slab = &w->slabs[i];

        HY3_TRY(hy3_state_output_write(w->output, &w->index.tensors[slab->tensor], slab, values));
        values += slab->count;
    }
    return HY3_OK;
}

static hy3_status write_end(void *writer)
{
    const struct writer *w = writer;

    HY3_TRY(hy3_state_output_checksums(w->output, w->rows, w->slabs));
    return hy3_state_output_flush(w->output);
}

/* Collects as many slabs as fit, from this rank's slab `first` on. */
static hy3_status fill(struct writer *w, struct batch *b, int64_t first)
{
    uint64_t used = 0;

    b->slabs = (struct hy3_span){.first = first};
    for (; hy3_span_end(b->slabs) < w->rows.count; b->slabs.count++) {
        struct hy3_state_slab *slab = &w->slabs[hy3_span_end(b->slabs)];

        if (used + slab->count > SLAB)
            break;
        HY3_TRY(w->values.get(w->values.of, (enum hy3_field)slab->field, w->trained[slab->tensor],
                              (struct hy3_span){(int64_t)slab->first, (int64_t)slab->count},
                              b->values + used));
        slab->checksum = XXH3_64bits(b->values + used, slab->count * sizeof(float));
        used += slab->count;
    }
    return HY3_OK;
}

static hy3_status write_own(struct writer *w)
{
    hy3_status status = HY3_OK, last;
    struct batch *b = &w->batches[0];

    for (int64_t at = 0; at < w->rows.count; at = hy3_span_end(b->slabs)) {
        b = &w->batches[b == &w->batches[0]];
        HY3_TRY_DONE(fill(w, b, at));
        HY3_TRY_DONE(hy3_worker_end(w->worker, phase));
        w->given = b;
        hy3_worker_begin(w->worker, write_batch, w);
    }
    HY3_TRY_DONE(hy3_worker_end(w->worker, phase));
    HY3_TRY_DONE(call(w, write_end));
done:
    last = hy3_worker_end(w->worker, phase);
    return last != HY3_OK ? last : status;
}

/* Collective. */
static hy3_status write_together(struct writer *w)
{
    hy3_status status = HY3_OK, closed;

    HY3_AGREE_DONE(w->comm, hy3_state_output_create(w->path, w->index.file_bytes, &w->output),
                   phase);
    HY3_TRY_DONE(hy3_agree_together(w->comm, call(w, open_output), phase));
    status = hy3_agree(w->comm, write_own(w), phase);
    closed = hy3_agree(w->comm, call(w, close_output), phase);
    if (status == HY3_OK)
        status = closed;
done:
    hy3_state_output_free(w->output);
    return status;
}

hy3_status hy3_state_write(MPI_Comm comm, const char *path, bool is_private,
                           const struct hy3_params *params, const struct hy3_state_info *info,
                           const char *configuration, struct hy3_values values)
{
    hy3_status status = HY3_OK;
    struct writer w = {.comm = comm,
                       .path = path,
                       .is_private = is_private,
                       .params = params,
                       .values = values,
                       .index = {.info = *info}};
    bool first = hy3_rank(comm) == 0;

    HY3_AGREE_DONE(comm, prepare(&w, configuration), phase);
    HY3_TRY_DONE(number_slabs(&w));
    HY3_AGREE_DONE(comm, first ? call(&w, create_file) : HY3_OK, "creating a checkpoint");
    hy3_broadcast(comm, 0, &w.index.file_bytes, sizeof w.index.file_bytes, phase);
    HY3_TRY_DONE(write_together(&w));
    HY3_AGREE_DONE(comm, first ? call(&w, complete_file) : HY3_OK, "completing a checkpoint");
done:
    hy3_worker_free(w.worker);
    hy3_state_layout_free(w.layout);
    hy3_state_index_free(&w.index);
    hy3_free(w.trained);
    hy3_free(w.slabs);
    for (int i = 0; i < 2; i++)
        hy3_free(w.batches[i].values);
    return status;
}
