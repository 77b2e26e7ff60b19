/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - every token reaches each rank of its experts once, is copied to the rows of these
 * experts in their order, and comes back as one sum a rank; in one round or many, with ranks that
 * send nothing, experts that get nothing, all tokens for one expert or one rank. With nodes of half
 * the ranks, the same by way of a rank of each node. */
#include "parallel/exchange.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

#include <math.h>

enum { EXPERTS = 24, HIDDEN = 3, TOP_K = 3, TOKENS = 11, MOST = 6 * TOKENS * TOP_K };

enum pattern { RANDOM, ONE_EXPERT, ONE_RANK, ONE_RANK_SENDS, NOTHING, PATTERNS };

static int64_t tokens_of(enum pattern pattern, int rank)
{
    if (pattern == NOTHING || (pattern == ONE_RANK_SENDS && rank != 0))
        return 0;
    return TOKENS - rank;
}

static int64_t top_k_of(enum pattern pattern)
{
    return pattern == ONE_EXPERT ? 1 : TOP_K;
}

/* The j-th expert of a token of a rank; ascending. */
static int64_t expert_of(enum pattern pattern, int rank, int64_t token, int64_t j)
{
    uint32_t word[4];

    if (pattern == ONE_EXPERT)
        return EXPERTS - 1;
    if (pattern == ONE_RANK)
        return EXPERTS - TOP_K + j;
    hy3_random(9, HY3_RANDOM_ORDER, (uint64_t)rank, (uint64_t)token, word);
    return word[0] % 3 == 0 ? j + word[1] % (EXPERTS - TOP_K) : 7 * j + word[j] % 7;
}

/* What token `token` of a rank holds in column h, and the weight of its j-th expert. */
static float value(int rank, int64_t token, int h)
{
    return (float)(rank * 100 + token) + 0.25f * (float)h;
}

static float weight(int rank, int64_t token, int64_t j)
{
    return 0.5f + 0.125f * (float)((rank + token + j) % 4);
}

/* Rows and labels that left this rank, seen where they leave; rows to other nodes. */
static int64_t rows_sent, labels_sent, rows_across;
static const struct hy3_backend *plain;
static const struct hy3_group *network;

static hy3_status counting_all_to_all(struct hy3_stream *stream, const struct hy3_group *group,
                                      const struct hy3_all_to_all *rows, const char *phase)
{
    for (int r = 0; r < group->size; r++) {
        rows_sent += r == group->rank ? 0 : rows->send_count[r];
        labels_sent += r == group->rank || !rows->parts[1].send ? 0 : rows->send_count[r];
        rows_across += r == group->rank || group != network ? 0 : rows->send_count[r];
    }
    return plain->collectives.all_to_all(stream, group, rows, phase);
}

/* Everything of one exchange. */
struct trial {
    enum pattern pattern;
    struct hy3_backend backend;
    struct hy3_exchange x;
    struct hy3_exchange_source source;
    struct hy3_exchange_way way;
    int32_t ids[MOST], position[MOST], token[MOST];
    int64_t starts[EXPERTS + 1];
    float weights[MOST], tokens[TOKENS * HIDDEN], rows[MOST * HIDDEN], back[MOST * HIDDEN],
        received[MOST * HIDDEN], spare[MOST * HIDDEN];
    void *memory;
};

/* Whether the rows of a round are those in order of expert, rank, token; times their weights. They
 * become what the experts make of them: times the number of the expert, from 1. */
static bool check_round(struct trial *t, const struct hy3_exchange_round *round, int64_t done,
                        bool weighted)
{
    const struct hy3_exchange *x = &t->x;
    int64_t held = EXPERTS / x->group->size, at = 0;
    bool right = round->starts[held] <= x->capacity;

    for (int64_t e = 0; e < held; e++) {
        int64_t expert = x->group->rank * held + e, in_round = 0;

        for (int64_t i = 0; i < MOST * x->group->size; i++) {
            int p = (int)(i / MOST);
            int64_t token = i % MOST / x->top_k, j = i % x->top_k;
            float *row;

            if (token >= tokens_of(t->pattern, p) || expert_of(t->pattern, p, token, j) != expert ||
                at++ < done || at > done + x->capacity)
                continue;
            row = t->received + (at - 1 - done) * HIDDEN;
            for (int h = 0; h < HIDDEN; h++) {
                float sent = value(p, token, h) * (weighted ? weight(p, token, j) : 1);

                right = right && row[h] == sent;
                row[h] *= (float)(expert + 1);
            }
            if (weighted)
                x->memory.came_products[x->memory.row_slot[at - 1 - done]] =
                    (float)(expert * 1000 + p * 100 + token);
            in_round++;
        }
        right = right && round->starts[e + 1] - round->starts[e] == in_round;
    }
    return right;
}

/* Whether the sums of what came back of a token are what its experts made of it, each times its
 * weight; the same both ways. */
static bool check_back(const struct trial *t, bool products)
{
    const struct hy3_exchange *x = &t->x;
    const int32_t *parcel = t->way.rounds == 1 ? x->memory.parcel : t->position;
    bool right = true;

    for (int64_t token = 0; token < t->source.T; token++) {
        float factor = 0;

        for (int64_t j = 0; j < x->top_k; j++) {
            int64_t expert = t->ids[token * x->top_k + j];
            int64_t slot = x->memory.slot[token * x->top_k + j];

            factor += (float)(expert + 1) * weight(x->group->rank, token, j);
            right = right && slot < t->way.parcels * t->way.width;
            if (products)
                right = right && x->memory.products[slot] ==
                                     (float)(expert * 1000 + x->group->rank * 100 + token);
        }
        for (int h = 0; h < HIDDEN; h++) {
            float sum = 0, expected = factor * value(x->group->rank, token, h);

            for (int64_t j = 0; j < x->top_k; j++)
                if (parcel[token * x->top_k + j] >= 0)
                    sum += t->back[parcel[token * x->top_k + j] * HIDDEN + h];
            right = right && fabsf(sum - expected) <= 1e-5f * fabsf(expected);
        }
    }
    return right;
}

/* Parcels of this rank for others: a token once for each other rank that has experts of it, or,
 * in rounds, each row whose expert is elsewhere; and what comes to it the same. Of a group whose
 * ranks are nodes: `ranks` of them. */
static int64_t least_sent(const struct trial *t, bool received, int ranks)
{
    int64_t rows = 0, held = EXPERTS / ranks, together = t->x.group->size / ranks;

    for (int64_t i = 0; i < MOST * t->x.group->size; i++) {
        int p = (int)(i / MOST);
        int64_t token = i % MOST / t->x.top_k, j = i % t->x.top_k, owner;

        if (token >= tokens_of(t->pattern, p))
            continue;
        owner = expert_of(t->pattern, p, token, j) / held;
        if (t->way.rounds == 1 && j > 0 && expert_of(t->pattern, p, token, j - 1) / held == owner)
            continue;
        if (received && p % together != t->x.group->rank % together)
            continue;
        rows += owner != p / together &&
                (received ? owner : p / together) == t->x.group->rank / together &&
                (received || p == t->x.group->rank);
    }
    return rows;
}

/* The rows of the rank whose experts get the most. */
static int64_t most_received(const struct trial *t)
{
    int64_t most = 0, rows[EXPERTS] = {0};

    for (int p = 0; p < t->x.group->size; p++)
        for (int64_t i = 0; i < tokens_of(t->pattern, p) * t->x.top_k; i++)
            rows[expert_of(t->pattern, p, i / t->x.top_k, i % t->x.top_k) /
                 (EXPERTS / t->x.group->size)]++;
    for (int d = 0; d < t->x.group->size; d++)
        most = rows[d] > most ? rows[d] : most;
    return most;
}

/* Nodes of half the ranks; NULL: none. */
struct nodes {
    struct hy3_group near, across;
};

static void prepare(struct trial *t, const struct hy3_group *group, const struct nodes *nodes,
                    enum pattern pattern, int64_t capacity)
{
    struct hy3_arena arena = {0};

    memset(t, 0, sizeof *t);
    assert_ok(hy3_backend_open(MPI_COMM_WORLD, "cpu", &plain));
    network = nodes ? &nodes->across : NULL;
    t->pattern = pattern;
    t->backend = *plain;
    t->backend.collectives.all_to_all = counting_all_to_all;
    t->x = (struct hy3_exchange){.backend = &t->backend,
                                 .group = group,
                                 .near = nodes ? &nodes->near : NULL,
                                 .across = nodes ? &nodes->across : NULL,
                                 .spare = t->spare,
                                 .experts = EXPERTS,
                                 .top_k = top_k_of(pattern),
                                 .capacity = capacity,
                                 .hidden = HIDDEN,
                                 .dtype = HY3_FP32,
                                 .slots = 2};
    t->source = (struct hy3_exchange_source){.T = tokens_of(pattern, group->rank),
                                             .ids = t->ids,
                                             .position = t->position,
                                             .token = t->token,
                                             .starts = t->starts,
                                             .weights = t->weights};
    hy3_exchange_take(&t->x, t->source.T, true, &arena, &t->x.memory);
    arena = (struct hy3_arena){.size = arena.peak};
    assert_ok(hy3_alloc(&t->memory, arena.size, 1));
    arena.base = t->memory;
    hy3_exchange_take(&t->x, t->source.T, true, &arena, &t->x.memory);
    for (int64_t i = 0; i < t->source.T * t->x.top_k; i++) {
        int64_t token = i / t->x.top_k, j = i % t->x.top_k;

        t->ids[i] = (int32_t)expert_of(pattern, group->rank, token, j);
        t->weights[i] = weight(group->rank, token, j);
    }
    for (int64_t i = 0; i < t->source.T * HIDDEN; i++)
        t->tokens[i] = value(group->rank, i / HIDDEN, (int)(i % HIDDEN));
    assert_ok(hy3_exchange_open(&t->x));
    assert_ok(plain->kernels.route_index(NULL, &(struct hy3_route_index){.T = t->source.T,
                                                                         .G = EXPERTS,
                                                                         .k = t->x.top_k,
                                                                         .width = 1,
                                                                         .stride = 1,
                                                                         .ids = t->ids,
                                                                         .position = t->position,
                                                                         .token = t->token,
                                                                         .starts = t->starts}));
}

/* There and back in all rounds; weighted there: as in a backward, else as in a forward. */
static bool travel(struct trial *t, const int64_t *all, bool weighted)
{
    bool right = true;

    rows_sent = labels_sent = rows_across = 0;
    assert_ok(hy3_exchange_pack(&t->x, NULL, &t->source, &t->way, t->tokens, t->rows));
    for (int64_t r = 0; r < t->way.rounds; r++) {
        struct hy3_exchange_round round;

        if (t->way.rounds == 1 && weighted)
            round = hy3_exchange_planned(&t->x, all, 1);
        else
            hy3_exchange_plan(&t->x, all, 1, r, &round);
        assert_ok(
            hy3_exchange_dispatch(&t->x, NULL, &t->source, &round, t->rows, weighted, t->received));
        right = check_round(t, &round, r * t->x.capacity, weighted) && right;
        assert_ok(hy3_exchange_return(&t->x, NULL, &round, t->received, !weighted, t->back));
    }
    if (t->way.relayed)
        right = right && rows_across == least_sent(t, false, t->x.across->size) +
                                            least_sent(t, true, t->x.across->size);
    else
        right = right && rows_sent == least_sent(t, false, t->x.group->size) +
                                          least_sent(t, true, t->x.group->size);
    return check_back(t, weighted) && right;
}

static bool exchange(const struct hy3_group *group, const struct nodes *nodes, enum pattern pattern,
                     int64_t capacity)
{
    static struct trial t;
    int64_t *all, most;
    bool right;

    prepare(&t, group, nodes, pattern, capacity);
    most = most_received(&t);
    assert_ok(hy3_alloc(&all, (size_t)(hy3_exchange_counts(&t.x) * group->size), sizeof *all));
    assert_ok(hy3_exchange_index(&t.x, NULL, &t.source, true));
    hy3_exchange_count(&t.x, t.starts, all);
    t.way = hy3_exchange_way(&t.x, all);
    right = t.way.most == most &&
            t.way.rounds == (most > capacity ? (most + capacity - 1) / capacity : 1);
    right = right && (!t.way.relayed || nodes) && (t.way.relayed || !nodes || capacity < MOST);
    right = travel(&t, all, false) && right;
    right = right && (t.way.relayed || labels_sent == least_sent(&t, false, group->size));
    right = travel(&t, all, true) && right; /* the labels are there, unless there are rounds */
    right =
        right && (t.way.relayed ||
                  labels_sent == least_sent(&t, true, group->size) +
                                     (t.way.rounds > 1 ? least_sent(&t, false, group->size) : 0));
    hy3_exchange_close(&t.x);
    hy3_free(t.memory);
    hy3_free(all);
    return right;
}

static bool exchange_all(const struct hy3_group *group, const struct nodes *nodes)
{
    static const int64_t capacities[] = {MOST, 7, 1};
    bool right = true;

    for (int pattern = 0; pattern < PATTERNS; pattern++)
        for (size_t c = 0; c < sizeof capacities / sizeof *capacities; c++)
            right = exchange(group, nodes, pattern, capacities[c]) && right;
    return right;
}

static void tokens_reach_their_experts_and_come_back(void **state)
{
    struct hy3_group world = hy3_group_of(MPI_COMM_WORLD);

    assert_all(exchange_all(&world, NULL));
}

static void over_nodes_they_cross_the_network_once_a_node(void **state)
{
    struct hy3_group world = hy3_group_of(MPI_COMM_WORLD);
    int per_node = world.size / 2;
    MPI_Comm near, across;
    struct nodes nodes;

    MPI_Comm_split(MPI_COMM_WORLD, world.rank / per_node, world.rank, &near);
    MPI_Comm_split(MPI_COMM_WORLD, world.rank % per_node, world.rank, &across);
    nodes = (struct nodes){hy3_group_of(near), hy3_group_of(across)};
    assert_all(exchange_all(&world, &nodes));
    MPI_Comm_free(&near);
    MPI_Comm_free(&across);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_reach_their_experts_and_come_back),
        cmocka_unit_test(over_nodes_they_cross_the_network_once_a_node),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
