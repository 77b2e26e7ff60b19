/* SPDX-License-Identifier: Apache-2.0 */
/* inquiry.c - a question to the first rank of each other node, and its answer. */
#include "comm/inquiry.h"

#include "base/log.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/wait.h"
#include "comm/watchdog.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ASK = 1, ANSWER = 2, HOST = 64, TEXT = 480, SHOWN = 4, PATIENCE = 2 /* s */ };

struct question {
    int64_t waits;
    int node;
};

struct answer {
    int reporter; /* the node that reports */
    char behind[TEXT];
};

struct node {
    int first; /* its first rank */
    char host[HOST];
};

static struct {
    MPI_Comm comm; /* MPI_COMM_NULL: not open, or one node */
    struct node *nodes;
    int count, own;
    struct hy3_inquiry_node self;
    pthread_mutex_t lock; /* of `serve` */
} inquiry = {.comm = MPI_COMM_NULL, .lock = PTHREAD_MUTEX_INITIALIZER};

/* Answers the questions that have arrived. The answers are too small to wait for their receiver. */
static void serve(void)
{
    struct question q;
    struct answer a;
    MPI_Status from;
    int arrived = 1;

    pthread_mutex_lock(&inquiry.lock);
    while (inquiry.comm != MPI_COMM_NULL &&
           MPI_Iprobe(MPI_ANY_SOURCE, ASK, inquiry.comm, &arrived, &from) == MPI_SUCCESS &&
           arrived) {
        MPI_Recv(&q, sizeof q, MPI_BYTE, from.MPI_SOURCE, ASK, inquiry.comm, MPI_STATUS_IGNORE);
        memset(&a, 0, sizeof a);
        a.reporter = inquiry.self.claim(q.node);
        inquiry.self.behind(q.waits, a.behind, sizeof a.behind);
        MPI_Send(&a, sizeof a, MPI_BYTE, from.MPI_SOURCE, ANSWER, inquiry.comm);
    }
    pthread_mutex_unlock(&inquiry.lock);
}

/* The nodes from the list of ranks, in place. */
static int keep_first(struct node *ranks, int size)
{
    int count = 0;

    for (int r = 0; r < size; r++)
        if (ranks[r].first == r)
            ranks[count++] = ranks[r];
    return count;
}

hy3_status hy3_inquiry_open(MPI_Comm comm, MPI_Comm node, struct hy3_inquiry_node self)
{
    struct node mine = {.first = hy3_rank(comm)};
    char host[MPI_MAX_PROCESSOR_NAME] = "?";
    MPI_Request request;
    int provided, length;

    HY3_AGREE(comm, hy3_alloc(&inquiry.nodes, (size_t)hy3_size(comm), sizeof mine), "starting");
    hy3_broadcast(node, 0, &mine.first, sizeof mine.first, "starting");
    MPI_Get_processor_name(host, &length);
    snprintf(mine.host, sizeof mine.host, "%.*s", HOST - 1, host);
    MPI_Iallgather(&mine, sizeof mine, MPI_BYTE, inquiry.nodes, sizeof mine, MPI_BYTE, comm,
                   &request);
    hy3_wait(&request, "starting");
    inquiry.self = self;
    inquiry.count = keep_first(inquiry.nodes, hy3_size(comm));
    for (int i = 0; i < inquiry.count; i++)
        if (inquiry.nodes[i].first == mine.first)
            inquiry.own = i;
    MPI_Query_thread(&provided);
    if (provided < MPI_THREAD_MULTIPLE)
        inquiry.count = 0;
    if (inquiry.count <= 1)
        return HY3_OK;
    MPI_Comm_dup(comm, &inquiry.comm);
    if (hy3_rank(node) == 0)
        hy3_watchdog_chore(serve);
    return HY3_OK;
}

void hy3_inquiry_close(void)
{
    hy3_watchdog_chore(NULL);
    if (inquiry.comm != MPI_COMM_NULL)
        MPI_Comm_free(&inquiry.comm);
    hy3_free(inquiry.nodes);
    inquiry.nodes = NULL;
    inquiry.count = 0;
}

int hy3_inquiry_own(void)
{
    return inquiry.own;
}

/* Appends what one node has answered, or that it did not. */
static size_t tell(const struct node *node, const char *text, int shown, char *out, size_t size)
{
    int used = snprintf(out, size, "%s %s", shown == 0 ? "; on other nodes:" : ",", text);

    if (used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used, " (%s)", node->host);
    return used < 0 || (size_t)used >= size ? size - 1 : (size_t)used;
}

/* Sends the question to every other node, and waits for the answers. MPI_REQUEST_NULL in answers
 * [nodes]: it has arrived. */
static void collect(const struct question *q, struct answer *answers, MPI_Request *requests)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    double end = hy3_seconds() + PATIENCE;
    int done = 0;

    for (int i = 0; i < inquiry.count; i++) {
        MPI_Request sent;

        requests[i] = MPI_REQUEST_NULL;
        if (i == inquiry.own)
            continue;
        MPI_Irecv(&answers[i], sizeof *answers, MPI_BYTE, inquiry.nodes[i].first, ANSWER,
                  inquiry.comm, &requests[i]);
        MPI_Isend(q, sizeof *q, MPI_BYTE, inquiry.nodes[i].first, ASK, inquiry.comm, &sent);
        MPI_Request_free(&sent); /* small: it has left; the process ends soon */
    }
    while (!done && hy3_seconds() < end) {
        MPI_Testall(inquiry.count, requests, &done, MPI_STATUSES_IGNORE);
        nanosleep(&moment, NULL);
    }
}

bool hy3_inquiry_ask(int64_t waits, char *out, size_t size)
{
    static struct question q; /* sent until the process ends */
    struct answer *answers = NULL;
    MPI_Request *requests = NULL;
    bool reports = true;
    size_t used = 0;
    int shown = 0;

    out[0] = '\0';
    if (inquiry.count <= 1 ||
        hy3_alloc(&answers, (size_t)inquiry.count, sizeof *answers) != HY3_OK ||
        hy3_alloc(&requests, (size_t)inquiry.count, sizeof(MPI_Request)) != HY3_OK)
        return true;
    q = (struct question){.waits = waits, .node = inquiry.own};
    collect(&q, answers, requests);
    for (int i = 0; i < inquiry.count; i++) {
        bool is_silent = requests[i] != MPI_REQUEST_NULL;
        char text[TEXT + 32];

        if (i == inquiry.own)
            continue;
        if (is_silent)
            snprintf(text, sizeof text, "no answer from rank %d", inquiry.nodes[i].first);
        else
            snprintf(text, sizeof text, "%s", answers[i].behind);
        reports = reports && (is_silent || answers[i].reporter >= inquiry.own);
        if (text[0] != '\0' && shown < SHOWN)
            used += tell(&inquiry.nodes[i], text, shown++, out + used, size - used);
    }
    return reports; /* answers and requests stay: some may still arrive */
}
