/* SPDX-License-Identifier: Apache-2.0 */
/* heartbeat.c - an MPI window of records, written by their owners, read when a wait fails. */
#include "comm/heartbeat.h"

#include "base/log.h"
#include "comm/comm.h"
#include "comm/inquiry.h"
#include "comm/wait.h"
#include "comm/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>

enum { TEXT = 40, CALL = 64, SHOWN = 4, SILENT = 1 /* seconds */ };

struct beat {
    int rank;
    _Atomic int64_t step, waits;
    _Atomic int layer;
    _Atomic double time;          /* hy3_seconds() of the last change: one clock for the node */
    char work[TEXT], phase[TEXT]; /* may be torn when read; always end in a NUL */
    char call[CALL];              /* of a driver: the owner is stuck in it, as its watchdog says */
    atomic_bool is_in_call;
    _Atomic int reporter; /* of the first record: 1 + the node that reports; 0: none */
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
    if (b->is_in_call && used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used, ", in %s", b->call);
    return used < 0 || (size_t)used >= size ? size - 1 : (size_t)used;
}

/* Whether a rank is behind `waits` waits or silent; is_stuck: of these, those inside a call of a
 * driver, which mostly wait for one of the others. */
static bool is_behind(const struct beat *b, int64_t waits, double now, bool is_stuck)
{
    return (b->waits < waits || now - b->time >= SILENT) && b->is_in_call == is_stuck;
}

/* Ranks of this node but for `self` that are behind or silent, with commas between; how many. */
static int describe_behind(int64_t waits, const struct beat *self, char *out, size_t size)
{
    double now = hy3_seconds();
    size_t used = 0;
    int shown = 0;

    out[0] = '\0';
    for (int i = 0; i < 2 * hearts.size && used + 1 < size && shown < SHOWN; i++) {
        const struct beat *b = &hearts.all[i % hearts.size];

        if (b == self || !is_behind(b, waits, now, i >= hearts.size))
            continue;
        used += (size_t)snprintf(out + used, size - used, "%srank %d: ", shown++ == 0 ? "" : ", ",
                                 b->rank);
        used += used < size ? describe_one(b, out + used, size - used) : 0;
        if (used < size)
            used += (size_t)snprintf(out + used, size - used, ", silent for %.0f s", now - b->time);
    }
    return shown;
}

static void behind(int64_t waits, char *out, size_t size)
{
    describe_behind(waits, NULL, out, size);
}

static void describe_node(char *out, size_t size)
{
    char text[1024];
    int shown = describe_behind(hearts.own->waits, hearts.own, text, sizeof text);
    size_t used = describe_one(hearts.own, out, size);

    snprintf(out + used, size - used, "%s%s",
             shown ? "; behind or silent on this node: "
                   : "; no other rank of this node is behind or silent",
             text);
}

/* Node `node` reports, unless another one does; which one does. */
static int claim_for(int node)
{
    int reporter = 0;

    return atomic_compare_exchange_strong(&hearts.all[0].reporter, &reporter, node + 1)
               ? node
               : reporter - 1;
}

static bool claim(void)
{
    int nobody = 0;

    return atomic_compare_exchange_strong(&hearts.all[0].reporter, &nobody, hy3_inquiry_own() + 1);
}

static bool ask(char *out, size_t size)
{
    return hy3_inquiry_ask(hearts.own->waits, out, size);
}

/* The owner's watchdog: its owner has been in this call for a while; NULL: it is back. */
static void note_call(const char *call)
{
    struct beat *b = hearts.own;

    if (!b || !call) {
        if (b)
            b->is_in_call = false;
        return;
    }
    if (!b->is_in_call)
        snprintf(b->call, CALL, "%s", call);
    b->is_in_call = true;
}

hy3_status hy3_heartbeat_open(MPI_Comm comm)
{
    struct beat *mine;
    MPI_Aint bytes;
    int unit;

    if (hearts.own)
        return HY3_OK;
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
    hy3_wait_observe((struct hy3_wait_observer){.begins = begin_wait,
                                                .goes_on = go_on,
                                                .claim = claim,
                                                .describe = describe_node,
                                                .ask = ask});
    hy3_watchdog_tell(note_call);
    return hy3_inquiry_open(comm, hearts.node,
                            (struct hy3_inquiry_node){.claim = claim_for, .behind = behind});
}

void hy3_heartbeat_close(void)
{
    if (!hearts.own)
        return;
    hy3_inquiry_close();
    hy3_watchdog_tell(NULL);
    hy3_wait_observe((struct hy3_wait_observer){0});
    hearts.own = NULL;
    MPI_Win_free(&hearts.window);
    MPI_Comm_free(&hearts.node);
}
