/* batches.c - which samples make which step. */
#include "data/batches.h"

#include "base/memory.h"
#include "support/test.h"

enum { SAMPLES = 37 };

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The sorted samples of a step, over all its micro-batches and ranks. */
static int64_t collect(const struct hy3_dataset *d, int64_t batch, int64_t accumulation, int ranks,
                       int64_t step, int64_t *out)
{
    int64_t count = 0;

    for (int rank = 0; rank < ranks; rank++) {
        struct hy3_batches b = {.dataset = d,
                                .count = SAMPLES,
                                .batch = batch,
                                .accumulation = accumulation,
                                .rank = rank,
                                .ranks = ranks,
                                .shuffle = true,
                                .seed = 5};
        struct hy3_batch *micro;

        assert_ok(hy3_batch_create(&b, &micro));
        for (int64_t m = 0; m < accumulation; m++) {
            assert_ok(hy3_batches_load(&b, step, m, micro));
            for (int64_t s = 0; s < micro->S; s++)
                out[count++] = micro->samples[s];
        }
        hy3_batch_free(micro);
    }
    qsort(out, (size_t)count, sizeof *out, compare);
    return count;
}

static void the_samples_of_a_step_do_not_depend_on_the_layout(void **state)
{
    static const int layouts[][3] = {{12, 1, 1}, {1, 12, 1}, {3, 2, 2},
                                     {2, 2, 3},  {1, 1, 12}, {1, 3, 4}};
    struct hy3_dataset *d;

    (void)state;
    assert_ok(hy3_dataset_dummy(SAMPLES, 9, 100, 1, &d));
    for (int64_t step = 0; step < 9; step++) { /* over two epochs and a bit; the 4th is partial */
        int64_t first[64], other[64], n = collect(d, 12, 1, 1, step, first);

        assert_int_equal(n, step % 4 == 3 ? 1 : 12);
        for (size_t i = 1; i < sizeof layouts / sizeof *layouts; i++) {
            assert_int_equal(collect(d, layouts[i][0], layouts[i][1], layouts[i][2], step, other),
                             n);
            assert_memory_equal(first, other, (size_t)n * sizeof *first);
        }
    }
    hy3_dataset_close(d);
}

static void an_epoch_visits_every_sample_once(void **state)
{
    struct hy3_dataset *d;
    int64_t orders[2][SAMPLES];

    (void)state;
    assert_ok(hy3_dataset_dummy(SAMPLES, 9, 100, 1, &d));
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        struct hy3_batches b = {.dataset = d, .count = SAMPLES, .batch = 1, .accumulation = 1};
        bool seen[SAMPLES] = {false};

        b.ranks = 1;
        b.shuffle = true;
        b.seed = 3;
        for (int64_t place = 0; place < SAMPLES; place++) {
            int64_t sample = hy3_batches_sample(&b, epoch, place);

            assert_true(sample >= 0 && sample < SAMPLES && !seen[sample]);
            seen[sample] = true;
            orders[epoch][place] = sample;
        }
    }
    assert_memory_not_equal(orders[0], orders[1], sizeof orders[0]);
    hy3_dataset_close(d);
}

static void targets_are_the_next_tokens_of_the_sample(void **state)
{
    struct hy3_batches b = {.count = SAMPLES, .batch = 3, .accumulation = 1, .ranks = 1};
    struct hy3_dataset *d;
    struct hy3_batch *micro;

    (void)state;
    assert_ok(hy3_dataset_dummy(SAMPLES, 9, 100, 1, &d));
    b.dataset = d;
    assert_ok(hy3_batch_create(&b, &micro));
    assert_ok(hy3_batches_load(&b, 2, 0, micro));
    assert_int_equal(micro->S, 3);
    assert_int_equal(micro->T, 27);
    assert_int_equal(micro->labels, 24);
    for (int64_t t = 0; t < micro->T; t++) {
        assert_int_equal(micro->positions[t], t % 9);
        assert_int_equal(micro->targets[t], t % 9 == 8 ? -1 : micro->ids[t + 1]);
    }
    hy3_batch_free(micro);
    hy3_dataset_close(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_samples_of_a_step_do_not_depend_on_the_layout),
        cmocka_unit_test(an_epoch_visits_every_sample_once),
        cmocka_unit_test(targets_are_the_next_tokens_of_the_sample),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
