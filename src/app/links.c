/* SPDX-License-Identifier: Apache-2.0 */
/* links.c - a collective of each group for a fifth of a second. */
#include "app/links.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "comm/abort.h"
#include "comm/agree.h"

#include <stdio.h>
#include <string.h>

static const double SECONDS = 0.2, SLOW = 0.1; /* of a test; of what a link reaches */

/* Bytes that a rank has for each other one, as far as they make no more than ALL: enough for the
 * rate of a link. */
enum { EACH = 8 << 20, ALL = 256 << 20, MOST_TURNS = 1000, GROUPS = 8 };

/* What links reach, in bytes/s of a rank: etc/devices/h100.cfg for NVLink 4 and for one adapter of
 * 400 Gb/s a GPU; PCIe 4.0 x16. */
static const double NVLINK = 300e9, PCIE = 25e9, NETWORK = 45e9;

struct test {
    const struct hy3_loaded_model *model;
    const struct hy3_group *group;
    bool is_exchange; /* it exchanges rows; else it gathers weights */
    struct hy3_stream *stream;
    int64_t bytes;        /* for each rank */
    void *send, *receive; /* device, [ranks of the largest or of an expert group][bytes] */
    int64_t *first, *count;
};

/* A group's link. */
struct link {
    double rate;   /* bytes/s that a rank receives, of the slowest rank; 0: a group of one rank */
    bool is_local; /* inside a node */
};

static hy3_status turn(struct test *t)
{
    const struct hy3_collectives *c = &t->model->backend->collectives;
    struct hy3_transfer transfer = {0};

    if (t->is_exchange) {
        const struct hy3_all_to_all rows = {.parts = {{1, t->send, t->receive}},
                                            .send_first = t->first,
                                            .send_count = t->count,
                                            .receive_first = t->first,
                                            .receive_count = t->count};

        return c->all_to_all(t->stream, t->group, &rows, "testing the links");
    }
    HY3_TRY(c->all_gather(t->stream, t->group, t->send, t->bytes / 2, HY3_BF16, &transfer));
    return c->finish(t->stream, &transfer, "testing the links");
}

/* Seconds of `turns` turns on the slowest rank. */
static hy3_status measure(struct test *t, int64_t turns, double *seconds)
{
    const struct hy3_device *device = &t->model->backend->device;
    double begin = hy3_seconds();

    for (int64_t i = 0; i < turns; i++)
        HY3_TRY(turn(t));
    HY3_TRY(device->synchronize(t->stream));
    *seconds = hy3_seconds() - begin;
    hy3_allreduce_real(t->group->comm, seconds, 1, MPI_MAX, "testing the links");
    return HY3_OK;
}

static bool is_local(const struct hy3_layout *layout, const struct hy3_group *group)
{
    int64_t nodes[2] = {layout->world.rank, 0};

    hy3_allreduce_int(layout->node.comm, nodes, 1, MPI_MIN, "testing the links");
    nodes[1] = -nodes[0];
    hy3_allreduce_int(group->comm, nodes, 2, MPI_MIN, "testing the links");
    nodes[0] = nodes[0] != -nodes[1];
    hy3_allreduce_int(layout->world.comm, nodes, 1, MPI_MAX, "testing the links");
    return nodes[0] == 0;
}

/* The first turn connects the ranks, the second says how many fit the time. */
static hy3_status test(struct test *t, const struct hy3_group *group, struct link *out)
{
    const struct hy3_layout *layout = &t->model->layout;
    int64_t turns;
    double seconds;

    *out = (struct link){.is_local = is_local(layout, group)};
    if (group->size == 1)
        return HY3_OK;
    t->group = group;
    t->is_exchange =
        group == &layout->experts || group == &layout->near || group == &layout->across;
    HY3_TRY(measure(t, 1, &seconds));
    HY3_TRY(measure(t, 1, &seconds));
    turns = seconds * MOST_TURNS < SECONDS ? MOST_TURNS : (int64_t)(SECONDS / seconds) + 1;
    HY3_TRY(measure(t, turns, &seconds));
    out->rate = (double)(turns * (group->size - 1) * t->bytes) / seconds;
    hy3_allreduce_real(layout->world.comm, &out->rate, 1, MPI_MIN, "testing the links");
    return HY3_OK;
}

static hy3_status allocate(struct test *t, const struct hy3_group *const groups[GROUPS], int count)
{
    const struct hy3_layout *l = &t->model->layout;
    const struct hy3_device *device = &t->model->backend->device;
    int64_t most = 1;
    size_t ranks;

    for (int i = 0; i < count; i++)
        most = groups[i]->size > most ? groups[i]->size : most;
    ranks = (size_t)most;
    HY3_TRY(hy3_alloc(&t->first, ranks, sizeof *t->first));
    HY3_TRY(hy3_alloc(&t->count, ranks, sizeof *t->count));
    t->bytes = ALL / most < EACH ? ALL / most / 2 * 2 : EACH;
    for (int64_t i = 0; i < most; i++) {
        t->first[i] = i * t->bytes;
        t->count[i] = t->bytes;
    }
    HY3_TRY(device->stream_create(&t->stream));
    HY3_TRY(device->alloc(ranks * (size_t)t->bytes, &t->send));
    return device->alloc((size_t)(l->experts.size * t->bytes), &t->receive);
}

static void release(struct test *t)
{
    const struct hy3_device *device = &t->model->backend->device;

    device->free(t->send);
    device->free(t->receive);
    device->stream_free(t->stream);
    hy3_free(t->first);
    hy3_free(t->count);
}

/* Of the names of GPUs, in nodes of eight of which all have NVLink. */
static bool has_nvlink(const char *device)
{
    static const char *const names[] = {"SXM",  "HBM3",  "H200",  "B200",
                                        "B300", "GH200", "GB200", "GB300"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(device, names[i]) && !strstr(device, "PCI") && !strstr(device, "NVL"))
            return true;
    return false;
}

/* Warns where a link is slow for what it is. */
static void judge(const char *group, const struct link *link, const char *device)
{
    bool is_pcie = !has_nvlink(device);
    double reach = !link->is_local ? NETWORK : is_pcie ? PCIE : NVLINK;

    if (link->rate == 0 || link->rate > SLOW * reach || strncmp(device, "NVIDIA ", 7) != 0)
        return;
    hy3_log(
        HY3_LOG_WARN,
        "%s: %.1f GB/s per rank, where %s reaches %.0f; %s; NCCL_DEBUG=INFO shows the path that "
        "NCCL takes",
        group, 1e-9 * link->rate,
        !link->is_local ? "an adapter of 400 Gb/s a GPU"
        : is_pcie       ? "PCIe"
                        : "NVLink",
        1e-9 * reach,
        link->is_local ? "perhaps a process sees only its own GPU (--gpus-per-task, "
                         "--gpu-bind), so that GPUs cannot read each other's memory: give "
                         "each task all GPUs of the node; or NCCL_P2P_DISABLE is set"
                       : "perhaps NCCL goes over TCP, or all GPUs over one adapter: look at "
                         "NCCL_IB_HCA, NCCL_SOCKET_IFNAME and NCCL_NET");
}

static void announce(const struct hy3_loaded_model *model, int zero_stage, const char *device,
                     const struct link links[GROUPS], size_t held)
{
    const struct hy3_layout *l = &model->layout;
    const char *const groups[GROUPS] = {l->peers.size > 1 ? "ZeRO groups" : "all ranks",
                                        l->zero.size > 1 ? "ZeRO peers" : "all ranks",
                                        "expert groups",
                                        "expert replicas",
                                        "replica peers",
                                        "sequence groups",
                                        "expert groups in nodes",
                                        "expert groups over nodes"};
    int64_t nodes = l->node.rank == 0;
    char text[400] = "";
    int used = 0;

    hy3_allreduce_int(l->world.comm, &nodes, 1, MPI_SUM, "testing the links");
    hy3_log(HY3_LOG_INFO,
            "GPUs: %s, %s; %d ranks on %lld node%s; expert groups of %d; zero_stage %d over %d "
            "ranks, of experts over %d",
            device, model->backend->library, l->world.size, (long long)nodes, hy3_s(nodes),
            l->experts.size, zero_stage, l->zero.size, l->replicas.size);
    for (int i = 0; i < GROUPS; i++)
        if (links[i].rate > 0)
            used += snprintf(text + used, sizeof text - (size_t)used, "%s%s %.2f (%s)",
                             used > 0 ? ", " : "", groups[i], 1e-9 * links[i].rate,
                             links[i].is_local ? "in the node" : "network");
    hy3_log(HY3_LOG_INFO, "links, GB/s received per rank: %s; %s holds %.3f GB", text,
            model->backend->library, 1e-9 * (double)held);
    for (int i = 0; i < GROUPS; i++)
        judge(groups[i], &links[i], device);
}

hy3_status hy3_links_test(const struct hy3_loaded_model *model, int zero_stage)
{
    hy3_status status = HY3_OK;
    const struct hy3_layout *l = &model->layout;
    const struct hy3_device *device = &model->backend->device;
    const struct hy3_group *const groups[GROUPS] = {&l->zero,     &l->peers,         &l->experts,
                                                    &l->replicas, &l->replica_peers, &l->sequence,
                                                    &l->near,     &l->across};
    const int count = model->is_over_nodes ? GROUPS : GROUPS - 2;
    struct test t = {.model = model};
    struct hy3_device_identity identity;
    struct link links[GROUPS] = {{0}};
    size_t left;

    if (!device->identify || l->world.size == 1)
        return HY3_OK;
    HY3_AGREE_DONE(l->world.comm, allocate(&t, groups, count), "testing the links");
    for (int i = 0; i < count && status == HY3_OK; i++)
        status = test(&t, groups[i], &links[i]);
    if (status != HY3_OK) /* the others wait for this rank */
        hy3_abort(status, "testing the links");
    release(&t);
    t = (struct test){.model = model};
    status = device->identify(&identity);
    if (status == HY3_OK)
        status = device->available(&left);
    HY3_AGREE_DONE(l->world.comm, status, "testing the links");
    announce(model, zero_stage, identity.name, links,
             model->device_free > left ? model->device_free - left : 0);
done:
    release(&t);
    return status;
}
