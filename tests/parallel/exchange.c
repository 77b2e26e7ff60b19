/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - every row reaches the rank of its expert, in the order of experts, and comes back to
 * its place; in one round or many, with ranks that send nothing, experts that get nothing, and all
 * rows for one expert. */
#include "parallel/exchange.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

enum { EXPERTS = 24, HIDDEN = 3, MOST = 400 };

/* Rows of rank `rank` for expert `expert`. */
enum pattern { EVEN, RANDOM, ONE_EXPERT, ONE_RANK_SENDS, NOTHING, PATTERNS };

static int64_t rows_of(enum pattern pattern, int rank, int64_t expert)
{
    uint32_t word[4];

    switch (pattern) {
    case EVEN:
        return 2;
    case RANDOM:
        hy3_random(9, HY3_RANDOM_ORDER, (uint64_t)rank, (uint64_t)expert, word);
        return word[0] % 3 == 0 ? word[1] % 9 : 0;
    case ONE_EXPERT:
        return expert == EXPERTS - 1 ? 5 + rank : 0;
    case ONE_RANK_SENDS:
        return rank == 0 ? expert % 4 : 0;
    default:
        return 0;
    }
}

/* What row i of (rank, expert) holds in column h. */
static float value(int rank, int64_t expert, int64_t i, int h)
{
    return (float)(rank * 10000 + expert * 100 + i) + 0.25f * (float)h;
}

/* Rows that left this rank, seen where they leave. */
static int64_t rows_sent;
static const struct hy3_backend *plain;

static hy3_status counting_all_to_all(struct hy3_stream *stream, const struct hy3_group *group,
                                      const struct hy3_all_to_all *rows, const char *phase)
{
    for (int r = 0; r < group->size; r++)
        rows_sent += r == group->rank ? 0 : rows->send_count[r];
    return plain->collectives.all_to_all(stream, group, rows, phase);
}

static bool check_round(const struct hy3_exchange *x, enum pattern pattern, int64_t done,
                        const struct hy3_exchange_round *round, const float *received)
{
    int64_t held = EXPERTS / x->group->size, at = 0;
    bool right = round->starts[held] <= x->capacity;

    /* in order of expert, rank, place: those of this round are `done` .. `done + capacity` */
    for (int64_t e = 0; e < held; e++) {
        int64_t in_round = 0;

        for (int p = 0; p < x->group->size; p++) {
            int64_t expert = x->group->rank * held + e;

            for (int64_t i = 0; i < rows_of(pattern, p, expert); i++, at++) {
                if (at < done || at >= done + x->capacity)
                    continue;
                for (int h = 0; h < HIDDEN; h++)
                    right = right && received[(at - done) * HIDDEN + h] == value(p, expert, i, h);
                in_round++;
            }
        }
        right = right && round->starts[e + 1] - round->starts[e] == in_round;
    }
    return right;
}

/* The rows of this rank, sorted by expert; starts [EXPERTS + 1]. */
static void fill(const struct hy3_group *group, enum pattern pattern, int64_t *starts, float *rows)
{
    starts[0] = 0;
    for (int64_t e = 0; e < EXPERTS; e++) {
        starts[e + 1] = starts[e] + rows_of(pattern, group->rank, e);
        for (int64_t i = starts[e]; i < starts[e + 1]; i++)
            for (int h = 0; h < HIDDEN; h++)
                rows[i * HIDDEN + h] = value(group->rank, e, i - starts[e], h);
    }
}

/* The rows of the rank that receives the most. */
static int64_t most_received(const struct hy3_group *group, enum pattern pattern)
{
    int64_t most = 0;

    for (int d = 0; d < group->size; d++) {
        int64_t sum = 0;

        for (int64_t e = d * (EXPERTS / group->size); e < (d + 1) * (EXPERTS / group->size); e++)
            for (int p = 0; p < group->size; p++)
                sum += rows_of(pattern, p, e);
        most = sum > most ? sum : most;
    }
    return most;
}

/* No less can be sent: every row whose expert is elsewhere, there, and every row that came,
 * back. */
static int64_t least_sent(const struct hy3_group *group, enum pattern pattern)
{
    int64_t rows = 0;

    for (int64_t e = 0; e < EXPERTS; e++) {
        bool here = e / (EXPERTS / group->size) == group->rank;

        for (int p = 0; p < group->size; p++)
            rows += (p == group->rank) != here ? rows_of(pattern, p, e) : 0;
    }
    return rows;
}

static bool exchange(const struct hy3_group *group, enum pattern pattern, int64_t capacity)
{
    static float rows[MOST * HIDDEN], back[MOST * HIDDEN], arrival[MOST * HIDDEN],
        received[MOST * HIDDEN], arrived[MOST], products[MOST];
    static int32_t token[MOST], position[MOST];
    static int64_t blocks[3 * EXPERTS];
    struct hy3_backend counting;
    int64_t starts[EXPERTS + 1], *all, rounds, most;
    struct hy3_exchange x = {.group = group,
                             .experts = EXPERTS,
                             .capacity = capacity,
                             .hidden = HIDDEN,
                             .dtype = HY3_FP32,
                             .arrival = arrival,
                             .token = token,
                             .position = position,
                             .blocks = blocks,
                             .slots = 2};
    bool right;

    assert_ok(hy3_backend_open(MPI_COMM_WORLD, "cpu", &plain));
    counting = *plain;
    counting.collectives.all_to_all = counting_all_to_all;
    x.backend = &counting;
    rows_sent = 0;
    assert_ok(hy3_exchange_open(&x));
    assert_ok(hy3_alloc(&all, (size_t)(EXPERTS * group->size), sizeof *all));
    fill(group, pattern, starts, rows);
    hy3_exchange_count(&x, starts, all);
    rounds = hy3_exchange_rounds(&x, all, &most);
    right = most == most_received(group, pattern) &&
            rounds == (most > capacity ? (most + capacity - 1) / capacity : 1);
    memset(back, 0, sizeof back);
    for (int64_t r = 0; r < rounds; r++) {
        const struct hy3_returned returned = {received, back, arrived, products};
        struct hy3_exchange_round round;

        hy3_exchange_plan(&x, all, 1, r, &round);
        assert_ok(hy3_exchange_load(&x, NULL, &round));
        assert_ok(hy3_exchange_dispatch(&x, NULL, &round, rows, received));
        right = check_round(&x, pattern, r * capacity, &round, received) && right;
        for (int64_t i = 0; i < round.starts[EXPERTS / group->size]; i++)
            arrived[token[i]] = received[i * HIDDEN];
        assert_ok(hy3_exchange_return(&x, NULL, &round, &returned));
    }
    right = right && rows_sent == least_sent(group, pattern);
    right = right && memcmp(rows, back, (size_t)(starts[EXPERTS] * HIDDEN) * sizeof *rows) == 0;
    for (int64_t i = 0; i < starts[EXPERTS]; i++)
        right = right && products[i] == rows[i * HIDDEN];
    hy3_exchange_close(&x);
    hy3_free(all);
    return right;
}

static void rows_reach_their_expert_and_come_back(void **state)
{
    struct hy3_group world = hy3_group_of(MPI_COMM_WORLD);
    static const int64_t capacities[] = {MOST, 7, 1};
    bool right = true;

    (void)state;
    for (int pattern = 0; pattern < PATTERNS; pattern++)
        for (size_t c = 0; c < sizeof capacities / sizeof *capacities; c++)
            right = exchange(&world, pattern, capacities[c]) && right;
    assert_all(right);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_reach_their_expert_and_come_back)};

    return hy3_test_run(&argc, &argv, tests, 1);
}
