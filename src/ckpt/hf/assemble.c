/* SPDX-License-Identifier: Apache-2.0 */
/* assemble.c - a message to an owner is runs of bytes, each with its place in the owner's piece. */
#include "ckpt/hf/assemble.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/large.h"
#include "comm/wait.h"

enum { CHUNK = 4 << 20 }; /* elements converted at a time */

/* The shards of an owner, one after the other. */
struct queue {
    int owner;     /* rank */
    int file, end; /* the shard under way, behind the last one */
    int64_t at;    /* byte of the shard */
    int entry;     /* the first tensor with bytes from there on */
};

/* Begins each run of a message; the data follow, filled up to a multiple of ALIGNMENT. */
struct run {
    int64_t at, bytes; /* place in the piece */
};

enum { ALIGNMENT = 8 };

struct hy3_assembly {
    MPI_Comm comm;
    int rank, ranks;
    const struct hy3_hf_plan *plan;
    struct hy3_values values;
    struct queue *queues; /* [queue_count] by rank */
    int queue_count;
    int64_t rounds, round;      /* the next one */
    char *pieces;               /* [2,most] */
    int64_t most;               /* bytes of a piece */
    struct hy3_assembled piece; /* of this rank, in this round */
    int64_t filled;             /* bytes of it that are in place */
    float *wide;                /* [CHUNK] */
    char *send, *receive;       /* messages, by rank */
    size_t sent, send_capacity; /* bytes */
    size_t receive_capacity;    /* bytes */
    MPI_Count *counts;          /* [2,ranks] bytes sent to, received from */
    MPI_Aint *places;           /* [2,ranks] */
};

int hy3_assembly_owner(const struct hy3_hf_plan *plan, int file, int ranks)
{
    return (int)((int64_t)file * ranks / plan->file_count);
}

/* One queue an owner, and the rounds that they take. */
static void make_queues(struct hy3_assembly *a)
{
    int64_t pieces = 0;

    for (int i = 0; i < a->plan->file_count; i++) {
        const struct hy3_hf_file *file = &a->plan->files[i];
        int owner = hy3_assembly_owner(a->plan, i, a->ranks);

        if (a->queue_count == 0 || a->queues[a->queue_count - 1].owner != owner) {
            a->queues[a->queue_count++] =
                (struct queue){.owner = owner, .file = i, .entry = file->first};
            pieces = a->queue_count - 1; /* begins so many rounds later */
        }
        a->queues[a->queue_count - 1].end = i + 1;
        pieces += (file->bytes + a->most - 1) / a->most;
        a->rounds = pieces > a->rounds ? pieces : a->rounds;
    }
}

hy3_status hy3_assembly_create(MPI_Comm comm, const struct hy3_hf_plan *plan,
                               struct hy3_values values, int64_t piece, struct hy3_assembly **out)
{
    hy3_status status = HY3_OK;
    struct hy3_assembly *a = NULL;
    size_t ranks = (size_t)hy3_size(comm);

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&a, 1, sizeof *a));
    a->comm = comm;
    a->rank = hy3_rank(comm);
    a->ranks = (int)ranks;
    a->plan = plan;
    a->values = values;
    a->most = piece;
    HY3_TRY_DONE(hy3_alloc(&a->queues, ranks, sizeof *a->queues));
    HY3_TRY_DONE(hy3_alloc(&a->wide, CHUNK, sizeof *a->wide));
    HY3_TRY_DONE(hy3_alloc(&a->pieces, 2, (size_t)piece));
    HY3_TRY_DONE(hy3_alloc(&a->counts, 2 * ranks, sizeof *a->counts));
    HY3_TRY_DONE(hy3_alloc(&a->places, 2 * ranks, sizeof *a->places));
    make_queues(a);
    *out = HY3_TAKE(a);
done:
    hy3_assembly_free(a);
    return status;
}

void hy3_assembly_free(struct hy3_assembly *a)
{
    if (!a)
        return;
    hy3_free(a->queues);
    hy3_free(a->wide);
    hy3_free(a->pieces);
    hy3_free(a->send);
    hy3_free(a->receive);
    hy3_free(a->counts);
    hy3_free(a->places);
    hy3_free(a);
}

int64_t hy3_assembly_rounds(const struct hy3_assembly *a)
{
    return a->rounds;
}

/* Elements of a parameter as the file has them. */
static hy3_status get_elements(const struct hy3_assembly *a, const struct hy3_hf_entry *entry,
                               struct hy3_span span, char *to)
{
    for (int64_t i = 0; i < span.count; i += CHUNK) {
        struct hy3_span part = hy3_span_piece(span, i, CHUNK);
        float *values = entry->dtype == HY3_FP32 ? (float *)(void *)to + i : a->wide;

        HY3_TRY(a->values.get(a->values.of, HY3_MASTER, entry->param, part, values));
        if (entry->dtype != HY3_FP32)
            hy3_convert(a->wide, HY3_FP32, to + i * entry->width, entry->dtype, (size_t)part.count);
    }
    return HY3_OK;
}

/* Appends a run to the message under way. */
static hy3_status add_run(struct hy3_assembly *a, int64_t at, int64_t bytes, char **data)
{
    size_t padded = ((size_t)bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

    HY3_TRY(hy3_grow(&a->send, &a->send_capacity, a->sent + sizeof(struct run) + padded, 1));
    memcpy(a->send + a->sent, &(struct run){at, bytes}, sizeof(struct run));
    *data = a->send + a->sent + sizeof(struct run);
    a->sent += sizeof(struct run) + padded;
    return HY3_OK;
}

/* What this rank has of a parameter in the bytes of the piece. */
static hy3_status add_param(struct hy3_assembly *a, const struct hy3_hf_entry *entry,
                            struct hy3_span bytes, bool is_own)
{
    struct hy3_span part = hy3_span_intersect((struct hy3_span){entry->begin, entry->bytes}, bytes);
    struct hy3_span elements = {entry->span.first + (part.first - entry->begin) / entry->width,
                                part.count / entry->width};
    int64_t at, size;
    char *to;

    elements = hy3_span_intersect(elements, a->values.share(a->values.of, entry->param));
    if (elements.count == 0)
        return HY3_OK;
    at = entry->begin + (elements.first - entry->span.first) * entry->width - bytes.first;
    size = elements.count * entry->width;
    if (is_own) {
        to = a->piece.data + at;
        a->filled += size;
    } else {
        HY3_TRY(add_run(a, at, size, &to));
    }
    return get_elements(a, entry, elements, to);
}

/* The owner reads what is copied from the base. */
static hy3_status add_copy(struct hy3_assembly *a, const struct hy3_hf_entry *entry)
{
    const struct hy3_assembled *piece = &a->piece;

    for (size_t p = entry->piece; p < entry->piece + entry->pieces; p++) {
        const struct hy3_hf_piece *from = &a->plan->pieces[p];
        struct hy3_span whole = {entry->begin + from->to, from->bytes};
        struct hy3_span part =
            hy3_span_intersect(whole, (struct hy3_span){piece->at, piece->bytes});

        if (part.count > 0)
            HY3_TRY(hy3_shard_read_raw(a->plan->base[from->shard], from->tensor,
                                       from->from + part.first - whole.first, part.count,
                                       piece->data + (part.first - piece->at)));
        a->filled += part.count;
    }
    return HY3_OK;
}

static void add_header(struct hy3_assembly *a)
{
    const struct hy3_assembled *piece = &a->piece;
    int64_t rest = (int64_t)piece->file->header_bytes - piece->at;
    int64_t bytes = rest < piece->bytes ? rest : piece->bytes;

    if (bytes <= 0)
        return;
    memcpy(piece->data, piece->file->header + piece->at, (size_t)bytes);
    a->filled += bytes;
}

/* Adds to the next piece of the queue what this rank has of it. */
static hy3_status add_to_piece(struct hy3_assembly *a, const struct queue *q)
{
    const struct hy3_hf_file *file = &a->plan->files[q->file];
    struct hy3_span bytes = hy3_span_piece((struct hy3_span){0, file->bytes}, q->at, a->most);
    bool is_own = q->owner == a->rank;

    if (is_own) {
        a->piece = (struct hy3_assembled){.file = file,
                                          .at = bytes.first,
                                          .bytes = bytes.count,
                                          .data = a->pieces + a->round % 2 * a->most};
        add_header(a);
    }
    for (int i = q->entry; i < file->end && a->plan->entries[i].begin < hy3_span_end(bytes); i++)
        if (a->plan->entries[i].param)
            HY3_TRY(add_param(a, &a->plan->entries[i], bytes, is_own));
        else if (is_own)
            HY3_TRY(add_copy(a, &a->plan->entries[i]));
    return HY3_OK;
}

/* Goes on to the next piece. */
static void advance(const struct hy3_assembly *a, struct queue *q)
{
    const struct hy3_hf_plan *plan = a->plan;
    const struct hy3_hf_file *file = &plan->files[q->file];

    q->at += a->most;
    while (q->entry < file->end &&
           plan->entries[q->entry].begin + plan->entries[q->entry].bytes <= q->at)
        q->entry++;
    if (q->at < file->bytes)
        return;
    q->file++;
    q->at = 0;
    if (q->file < q->end)
        q->entry = plan->files[q->file].first;
}

/* Prepares the messages to all owners, by rank. */
static hy3_status pack(struct hy3_assembly *a)
{
    for (int i = 0; i < a->queue_count && i <= a->round; i++) {
        struct queue *q = &a->queues[i];
        size_t before = a->sent;

        if (q->file >= q->end)
            continue;
        HY3_TRY(add_to_piece(a, q));
        a->places[q->owner] = (MPI_Aint)before;
        a->counts[q->owner] = (MPI_Count)(a->sent - before);
        advance(a, q);
    }
    return HY3_OK;
}

/* Collective. Tells the owners what they will receive. */
static hy3_status exchange_counts(struct hy3_assembly *a)
{
    MPI_Aint received = 0;
    MPI_Request request;

    MPI_Ialltoall(a->counts, 1, MPI_COUNT, a->counts + a->ranks, 1, MPI_COUNT, a->comm, &request);
    hy3_wait(&request, "writing the weights");
    for (int r = 0; r < a->ranks; r++) {
        a->places[a->ranks + r] = received;
        received += a->counts[a->ranks + r];
    }
    return hy3_grow(&a->receive, &a->receive_capacity, (size_t)received, 1);
}

static void unpack(struct hy3_assembly *a)
{
    const char *data = a->receive;

    for (int r = 0; r < a->ranks; r++) {
        const char *end = data + a->counts[a->ranks + r];
        struct run run;

        while (data < end) {
            memcpy(&run, data, sizeof run);
            HY3_ASSERT(a->piece.data && run.at >= 0 && run.bytes > 0 &&
                       run.bytes <= a->piece.bytes - run.at);
            memcpy(a->piece.data + run.at, data + sizeof run, (size_t)run.bytes);
            a->filled += run.bytes;
            data += sizeof run + ((size_t)run.bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
    }
    HY3_ASSERT(a->filled == a->piece.bytes); /* the shares cover each tensor exactly once */
}

hy3_status hy3_assembly_round(struct hy3_assembly *a, hy3_status mine, struct hy3_assembled *out)
{
    hy3_status status = mine, grown;

    a->piece = (struct hy3_assembled){.bytes = 0};
    a->filled = 0;
    a->sent = 0;
    memset(a->counts, 0, (size_t)a->ranks * sizeof *a->counts);
    if (status == HY3_OK)
        status = pack(a);
    if (a->ranks > 1) {
        grown = exchange_counts(a);
        status = status == HY3_OK ? grown : status;
    }
    HY3_AGREE(a->comm, status, "writing the weights");
    if (a->ranks > 1) {
        const struct hy3_large_exchange exchange = {.size = 1,
                                                    .send = a->send,
                                                    .receive = a->receive,
                                                    .counts = a->counts,
                                                    .places = a->places};

        hy3_large_alltoall(a->comm, &exchange, "writing the weights");
    }
    unpack(a);
    a->round++;
    *out = a->piece;
    return HY3_OK;
}
