/* SPDX-License-Identifier: Apache-2.0 */
/* heartbeat.c - an MPI window of records, written by their owners, read when a wait fails. */
#include "comm/heartbeat.h"

#include "base/log.h"
#include "comm/comm.h"
#include "comm/wait.h"

#include <pthread.h>
#include <stdatomic.h>

enum { TEXT = 40, SHOWN = 4, SILENT = 1 /* seconds */ };

struct beat {
    int rank;
    _Atomic int64_t step, waits;
    _Atomic int layer;
    _Atomic double time;          /* hy3_seconds() of the last change: one clock for the node */
    char work[TEXT], phase[TEXT]; /* may be torn when read; always end in a NUL */
    atomic_flag claimed;          /* of the first record */
};

static struct {
    MPI_Comm node;
    MPI_Win window;
    struct beat *all, *own; /* NULL: not open */
    int size;
    pthread_t owner;
} hearts;

static struct beat *own(void)
{
    return hearts.own && pthread_equal(hearts.owner, pthread_self()) ? hearts.own : NULL;
}

void hy3_heartbeat(const char *work, int64_t step, int layer)
{
    struct beat *b = own();

    if (!b)
        return;
    snprintf(b->work, TEXT, "%s", work);
    if (step > 0)
        b->step = step;
    b->layer = layer;
    b->time = hy3_seconds();
}

static void begin_wait(const char *phase)
{
    struct beat *b = own();

    if (!b)
        return;
    snprintf(b->phase, TEXT, "%s", phase);
    b->waits++;
    b->time = hy3_seconds();
}

static void go_on(void)
{
    struct beat *b = own();

    if (b)
        b->time = hy3_seconds();
}

static size_t describe_one(const struct beat *b, char *out, size_t size)
{
    int used = snprintf(out, size, "step %lld, %s", (long long)b->step, b->work);

    if (b->layer >= 0 && used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used, " of layer %d", b->layer);
    if (used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used, ", collective %lld (%s)",
                         (long long)b->waits, b->phase);
    return used < 0 || (size_t)used >= size ? size - 1 : (size_t)used;
}

static void describe_all(char *out, size_t size)
{
    double now = hy3_seconds();
    size_t used = describe_one(hearts.own, out, size);
    int shown = 0;

    for (int i = 0; i < hearts.size && used + 1 < size; i++) {
        const struct beat *b = &hearts.all[i];

        if ((b->waits >= hearts.own->waits && now - b->time < SILENT) || shown == SHOWN)
            continue;
        used += (size_t)snprintf(out + used, size - used, "%s rank %d: ",
                                 shown++ == 0 ? "; behind or silent on this node:" : ",", b->rank);
        used += used < size ? describe_one(b, out + used, size - used) : 0;
        if (used < size)
            used += (size_t)snprintf(out + used, size - used, ", silent for %.0f s", now - b->time);
    }
    if (shown == 0 && used < size)
        snprintf(out + used, size - used, "; all ranks of this node are waiting");
}

static bool claim(void)
{
    return !atomic_flag_test_and_set(&hearts.all[0].claimed);
}

void hy3_heartbeat_open(MPI_Comm comm)
{
    struct beat *mine;
    MPI_Aint bytes;
    int unit;

    if (hearts.own)
        return;
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, hy3_rank(comm), MPI_INFO_NULL, &hearts.node);
    hearts.size = hy3_size(hearts.node);
    MPI_Win_allocate_shared(hy3_rank(hearts.node) == 0 ? hearts.size * (int)sizeof *mine : 0, 1,
                            MPI_INFO_NULL, hearts.node, &mine, &hearts.window);
    MPI_Win_shared_query(hearts.window, 0, &bytes, &unit, &hearts.all);
    hearts.owner = pthread_self();
    mine = &hearts.all[hy3_rank(hearts.node)];
    memset(mine, 0, sizeof *mine);
    mine->rank = hy3_rank(comm);
    mine->layer = -1;
    mine->time = hy3_seconds();
    hy3_barrier(hearts.node, "starting");
    hearts.own = mine;
    hy3_wait_observe((struct hy3_wait_observer){
        .begins = begin_wait, .goes_on = go_on, .claim = claim, .describe = describe_all});
}

void hy3_heartbeat_close(void)
{
    if (!hearts.own)
        return;
    hy3_wait_observe((struct hy3_wait_observer){0});
    hearts.own = NULL;
    MPI_Win_free(&hearts.window);
    MPI_Comm_free(&hearts.node);
}
