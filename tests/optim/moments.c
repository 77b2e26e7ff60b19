/* SPDX-License-Identifier: Apache-2.0 */
/* moments.c - AdamW with 8-bit and bf16 moments, step by step, against gen_moments.py; codes that
 * were decoded come back; blocks that are put in parts. */
#include "optim/moments.h"

#include "backend/gpu.h"
#include "backend/mirror.h"
#include "base/memory.h"
#include "base/random.h"
#include "optim/moment_copy.h"
#include "optim/optimizer.h"
#include "support/golden.h"

#include <float.h>
#include <math.h>

enum { MOST = 4096 };

/* The bytes of a text of hexadecimal digits. */
static void read_hex(const json_t *of, const char *key, void *out, size_t bytes)
{
    const char *text = json_string_value(json_object_get(of, key));

    assert_non_null(text);
    assert_int_equal(strlen(text), 2 * bytes);
    for (size_t i = 0; i < bytes; i++) {
        const char digits[] = {text[2 * i], text[2 * i + 1], '\0'};

        ((unsigned char *)out)[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
}

static uint32_t hashed(int64_t i, int64_t step, int64_t salt)
{
    uint32_t h = (uint32_t)((uint64_t)(i + 1) * 2654435761u + (uint64_t)step * 2246822519u +
                            (uint64_t)salt * 3266489917u);

    h ^= h >> 15;
    h *= 2246822519u;
    return h ^ h >> 13;
}

static float gradient(int64_t i, int64_t step, int64_t salt)
{
    if (i % 50 == 0 || (i >= 320 && step >= 12))
        return 0;
    return ldexpf((float)(hashed(i, step, salt) & 0xffff) - 32768, -(15 + (int)(i * 7 % 23)));
}

/* The arrays of a run. */
static struct {
    float w[MOST], grad[MOST], m_scale[MOST], v_scale[MOST];
    uint8_t m[2 * MOST], v[2 * MOST];
} run;

static void equals(const json_t *step, const char *key, const void *ours, size_t bytes)
{
    unsigned char theirs[2 * MOST];

    read_hex(step, key, theirs, bytes);
    assert_memory_equal(ours, theirs, bytes);
}

/* Relative to the number, or to `least`. */
static void is_near(const json_t *step, const char *key, const float *ours, int64_t n, double least)
{
    const double limit = 1e-6;
    float theirs[MOST];

    read_hex(step, key, theirs, (size_t)n * sizeof *theirs);
    for (int64_t i = 0; i < n; i++)
        hy3_assert_within(key, fabs((double)ours[i] - (double)theirs[i]),
                          limit * fmax(fabs((double)theirs[i]), least));
}

/* Runs the steps of one format; codes and bf16 numbers have the same bits after each. */
static void follow(const struct hy3_kernels *kernels, const json_t *golden, const char *name,
                   enum hy3_moment_format format)
{
    struct hy3_adamw a;
    const json_t *of = json_object_get(golden, name), *step;
    int64_t n = json_integer_value(json_object_get(golden, "n"));
    int64_t salt = json_integer_value(json_object_get(of, "salt"));
    size_t i, bytes = (size_t)n * hy3_moment_size(format);

    memset(&run, 0, sizeof run);
    a = (struct hy3_adamw){.n = n,
                           .lr = json_number_value(json_object_get(golden, "lr")),
                           .beta1 = json_number_value(json_object_get(golden, "beta1")),
                           .beta2 = json_number_value(json_object_get(golden, "beta2")),
                           .eps = json_number_value(json_object_get(golden, "eps")),
                           .decay = json_number_value(json_object_get(golden, "decay")),
                           .grad_scale = json_number_value(json_object_get(golden, "grad_scale")),
                           .seed = (uint64_t)json_integer_value(json_object_get(golden, "seed")),
                           .tensor = json_integer_value(json_object_get(golden, "tensor")),
                           .first = json_integer_value(json_object_get(golden, "first")),
                           .moments = format};
    a.weight = run.w;
    a.grad = run.grad;
    a.m = run.m;
    a.v = run.v;
    a.m_scale = run.m_scale;
    a.v_scale = run.v_scale;
    for (int64_t j = 0; j < n; j++)
        run.w[j] = ldexpf((float)(hashed(j, 0, salt) & 0xffff) - 32768, -16);
    assert_int_equal(json_array_size(json_object_get(of, "steps")), 20);
    json_array_foreach(json_object_get(of, "steps"), i, step)
    {
        a.step = (int64_t)i + 1;
        for (int64_t j = 0; j < n; j++)
            run.grad[j] = gradient(j, a.step, salt);
        assert_ok(kernels->adamw(NULL, &a));
        equals(step, "m", run.m, bytes);
        equals(step, "v", run.v, bytes);
        is_near(step, "w", run.w, n, 0.1);
        if (format == HY3_MOMENTS_8BIT) {
            is_near(step, "m_scale", run.m_scale, hy3_moment_blocks(a.first, n), 1e-30);
            is_near(step, "v_scale", run.v_scale, hy3_moment_blocks(a.first, n), 1e-30);
        }
    }
}

static void twenty_steps_have_the_bits_of_the_reference(void **state)
{
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    json_t *golden = hy3_golden_json("moments/moments.json");

    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct hy3_backend *backend = hy3_cpu_backend(isas[i]);

        if (!backend)
            continue;
        follow(&backend->kernels, golden, "8bit", HY3_MOMENTS_8BIT);
        follow(&backend->kernels, golden, "bf16", HY3_MOMENTS_BF16);
    }
    json_decref(golden);
}

static void so_they_have_on_the_gpu(void **state)
{
    json_t *golden = hy3_golden_json("moments/moments.json");
    const struct hy3_device *device;
    const struct hy3_kernels *kernels;

    (void)state;
    if (hy3_test_gpu(&device, &kernels) != HY3_OK) {
        print_message("%s\n", hy3_error_text());
        json_decref(golden);
        skip();
    }
    hy3_mirror_add(&run, sizeof run);
    follow(hy3_mirror(device, kernels), golden, "8bit", HY3_MOMENTS_8BIT);
    follow(hy3_mirror(device, kernels), golden, "bf16", HY3_MOMENTS_BF16);
    hy3_mirror_forget();
    json_decref(golden);
}

static void the_codes_are_those_of_the_reference(void **state)
{
    json_t *golden = hy3_golden_json("moments/moments.json");

    (void)state;
    equals(golden, "signed", hy3_moment_book(true)->value, 256 * sizeof(float));
    equals(golden, "unsigned", hy3_moment_book(false)->value, 256 * sizeof(float));
    json_decref(golden);
}

static float drawn(uint64_t which, int64_t i)
{
    uint32_t word[4];

    hy3_random(4, HY3_RANDOM_WEIGHT, which, (uint64_t)i, word);
    return ldexpf(2 * hy3_random_uniform(word[0]) - 1, (int)(word[1] % 40) - 30);
}

/* Codes by counting the edges below. */
static void every_number_gets_the_nearest_code(void **state)
{
    (void)state;
    for (int is_signed = 0; is_signed < 2; is_signed++) {
        const struct hy3_moment_book *book = hy3_moment_book(is_signed);

        for (int64_t i = 0; i < 300000; i++) {
            float y = i < 256    ? book->value[i]
                      : i < 511  ? book->edge[i - 255]
                      : i < 1022 ? nextafterf(book->edge[(i - 511) / 2 + 1], i % 2 ? 2 : -2)
                                 : drawn(1, i);
            int32_t code = 0;

            y = !is_signed && y < 0 ? -y : y;
            y = fmaxf(-1, fminf(y, 1));
            while (code < 255 && book->edge[code + 1] < y)
                code++;
            assert_int_equal(hy3_moment_code(book, y), code);
        }
        assert_int_equal(hy3_moment_code(book, INFINITY), 255);
        assert_int_equal(hy3_moment_code(book, is_signed ? -INFINITY : 0), 0);
    }
}

static void decoded_numbers_are_encoded_into_the_same_bits(void **state)
{
    (void)state;
    for (int64_t block = 0; block < 2000; block++) {
        bool is_signed = block % 2;
        const struct hy3_moment_book *book = hy3_moment_book(is_signed);
        int64_t n = block % 7 == 0 ? 1 + block % 256 : 256;
        float x[256], scale, again;
        uint8_t codes[256], other[256];

        for (int64_t i = 0; i < n; i++)
            x[i] = ldexpf(is_signed ? drawn(2, 256 * block + i) : fabsf(drawn(2, 256 * block + i)),
                          (int)(block % 150) - 80);
        x[0] = block % 11 == 0 ? (float)INFINITY : x[0];
        scale = hy3_moments_encode(book, x, n, codes);
        assert_true(scale > 0 && scale <= FLT_MAX);
        hy3_moments_decode(book, codes, scale, n, x);
        again = hy3_moments_encode(book, x, n, other);
        assert_true(again == scale);
        assert_memory_equal(codes, other, (size_t)n);
        for (int64_t i = 0; i < n && !is_signed; i++)
            assert_true((x[i] > 0) == (codes[i] > 0));
    }
}

/* Two ranges of a tensor, with 8-bit moments, and one of another. */
static struct hy3_optimizer *open_optimizer(enum hy3_moment_format format, bool host,
                                            hy3_bf16 *weights, const float *grads)
{
    struct hy3_optimizer *o;
    const struct hy3_backend *backend;
    struct hy3_optimizer_options options = {
        .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .seed = 3, .placement = {.host = host}};
    struct hy3_range ranges[3];
    const int64_t at[] = {0, 1111, 3000, MOST};

    for (int i = 0; i < 3; i++)
        ranges[i] = (struct hy3_range){.name = "a",
                                       .weight = weights + at[i],
                                       .dtype = HY3_BF16,
                                       .grad = grads + at[i],
                                       .count = at[i + 1] - at[i],
                                       .rate = 1,
                                       .norm = {0, at[i + 1] - at[i]},
                                       .moments = i < 2 ? format : HY3_MOMENTS_FP32,
                                       .tensor = i / 2,
                                       .first = i < 2 ? at[i] : 0};
    assert_ok(hy3_backend_open(MPI_COMM_WORLD, "cpu", &backend));
    assert_ok(hy3_optimizer_create(backend, &options, ranges, 3, &o));
    return o;
}

static void steps(struct hy3_optimizer *o, float *grads, int64_t from, int64_t to)
{
    for (int64_t step = from; step <= to; step++) {
        for (int64_t i = 0; i < MOST; i++)
            grads[i] = drawn((uint64_t)step + 10, i);
        assert_ok(hy3_optimizer_step(o, NULL, step, 1e-3, 0.5));
    }
}

/* All fields of a range, from one optimizer to another, `most` elements at a time. */
static void hand_over(const struct hy3_optimizer *from, struct hy3_optimizer *to, int64_t most)
{
    static const int64_t counts[] = {1111, 3000 - 1111, MOST - 3000};
    float values[MOST];

    for (int range = 0; range < 3; range++)
        for (int field = 0; field < HY3_FIELDS; field++)
            for (int64_t i = 0; i < counts[range]; i += most) {
                struct hy3_span span = hy3_span_piece((struct hy3_span){0, counts[range]}, i, most);

                assert_ok(hy3_optimizer_get(from, field, range, span, values));
                assert_ok(hy3_optimizer_put(to, field, range, span, values));
            }
}

/* As a run that is stopped after step 5 and resumed; the file's slabs may cut blocks. */
static void a_resumed_run_has_the_same_bits(void **state)
{
    static hy3_bf16 weights[3][MOST];
    static float grads[MOST], values[2][MOST];

    (void)state;
    for (int i = 0; i < 8; i++) {
        enum hy3_moment_format format = i & 1 ? HY3_MOMENTS_8BIT : HY3_MOMENTS_BF16;
        bool host = i & 2;
        int64_t most = i & 4 ? 100 : MOST;
        struct hy3_optimizer *one = open_optimizer(format, false, weights[0], grads);
        struct hy3_optimizer *other = open_optimizer(format, host, weights[1], grads);

        steps(one, grads, 1, 5);
        hand_over(one, other, most);
        assert_memory_equal(weights[0], weights[1], sizeof weights[0]);
        steps(one, grads, 6, 10);
        steps(other, grads, 6, 10);
        for (int field = 0; field < HY3_FIELDS; field++)
            for (int range = 0; range < 3; range++) {
                struct hy3_span span = {0, 1000};

                assert_ok(hy3_optimizer_get(one, field, range, span, values[0]));
                assert_ok(hy3_optimizer_get(other, field, range, span, values[1]));
                assert_memory_equal(values[0], values[1], 1000 * sizeof(float));
            }
        hy3_optimizer_free(one);
        hy3_optimizer_free(other);
    }
}

/* fp32 moments of a run that goes on with 8 bits: a block that comes in parts is rounded once. */
static void parts_of_a_block_give_the_codes_of_the_whole(void **state)
{
    static hy3_bf16 weights[MOST];
    static float grads[MOST], in[MOST], out[2][MOST];

    (void)state;
    for (int64_t i = 0; i < MOST; i++)
        in[i] = drawn(3, i);
    for (int i = 0; i < 2; i++) {
        struct hy3_optimizer *o = open_optimizer(HY3_MOMENTS_8BIT, false, weights, grads);
        int64_t most = i ? 37 : 1000, n = 1000;

        for (int64_t at = 0; at < n; at += most) {
            struct hy3_span span = hy3_span_piece((struct hy3_span){0, n}, at, most);

            assert_ok(hy3_optimizer_put(o, HY3_ADAM_M, 1, span, in + at));
        }
        assert_ok(hy3_optimizer_get(o, HY3_ADAM_M, 1, (struct hy3_span){0, n}, out[i]));
        hy3_optimizer_free(o);
    }
    assert_memory_equal(out[0], out[1], 1000 * sizeof(float));
}

/* 2 remainders and 2 codes a weight, a scale for 256 codes, in ranges that are padded. */
static void state_is_as_small_as_it_says(void **state)
{
    static hy3_bf16 weights[MOST];
    static float grads[MOST];
    struct hy3_optimizer *o = open_optimizer(HY3_MOMENTS_8BIT, false, weights, grads);
    size_t fp32 = (MOST - 3000) * 10, codes = 3000 * 4, scales = 2 * 4 * (5 + 8);

    (void)state;
    assert_true(hy3_optimizer_bytes(o) >= fp32 + codes + scales);
    assert_true(hy3_optimizer_bytes(o) <= fp32 + codes + scales + 3 * 4 * (256 + 64));
    hy3_optimizer_free(o);
    o = open_optimizer(HY3_MOMENTS_BF16, false, weights, grads);
    assert_true(hy3_optimizer_bytes(o) >= fp32 + 6 * 3000);
    assert_true(hy3_optimizer_bytes(o) <= fp32 + 6 * 3000 + 3 * 3 * 64);
    hy3_optimizer_free(o);
}

/* A decay of 0.1 % a step is below half a bf16's distance: rounding to nearest would stop it. */
static void bf16_moments_keep_the_average(void **state)
{
    static hy3_bf16 weights[MOST];
    static float grads[MOST], out[MOST];
    struct hy3_optimizer *o = open_optimizer(HY3_MOMENTS_BF16, false, weights, grads);
    double mean = 0;

    (void)state;
    for (int64_t i = 0; i < MOST; i++)
        grads[i] = 1;
    for (int64_t step = 1; step <= 50; step++)
        assert_ok(hy3_optimizer_step(o, NULL, step, 0, step == 1 ? 1 : 0.5));
    assert_ok(hy3_optimizer_get(o, HY3_ADAM_V, 0, (struct hy3_span){0, 1111}, out));
    for (int i = 0; i < 1111; i++)
        mean += out[i] / 1111.0;
    hy3_assert_within("mean of v",
                      fabs(mean / (0.01 * pow(0.99, 49) + 0.25 * (1 - pow(0.99, 49))) - 1), 2e-3);
    hy3_optimizer_free(o);
}

/* Numbers that a moment of the format gave: of a tensor whose rank begins and ends in a block. */
static void a_copy_gives_the_numbers_it_was_given(void **state)
{
    static float x[MOST], out[MOST];
    const struct hy3_span spans[] = {{0, MOST},  {100, 3000}, {256, 512},
                                     {300, 100}, {511, 2},    {7, 0}};

    (void)state;
    for (int format = HY3_MOMENTS_FP32; format <= HY3_MOMENTS_8BIT; format++)
        for (int first = 0; first < 2; first++) {
            uint8_t codes[HY3_MOMENT_BLOCK];

            for (int64_t i = 0; i < MOST; i++) {
                x[i] = gradient(i + 1, 1, 9);
                x[i] = hy3_float_from_bf16(hy3_bf16_from_float(first ? x[i] : fabsf(x[i])));
            }
            for (int64_t i = 0; format == HY3_MOMENTS_8BIT && i < MOST; i += HY3_MOMENT_BLOCK) {
                const struct hy3_moment_book *book = hy3_moment_book(first);

                hy3_moments_decode(book, codes,
                                   hy3_moments_encode(book, x + i, HY3_MOMENT_BLOCK, codes),
                                   HY3_MOMENT_BLOCK, x + i);
            }
            for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
                struct hy3_span span = spans[i], piece;
                struct hy3_moment_copy copy;

                assert_ok(hy3_moment_copy_open(format, first, span, &copy));
                for (int64_t at = span.first; at < hy3_span_end(span); at = hy3_span_end(piece)) {
                    piece = hy3_moment_copy_piece(&copy, at);
                    hy3_moment_copy_put(&copy, piece, x + piece.first);
                }
                for (int64_t at = 0; at < span.count; at += 333) { /* as a file wants them */
                    piece = hy3_span_piece(span, at, 333);
                    hy3_moment_copy_get(&copy, piece, out);
                    assert_memory_equal(out, x + piece.first, (size_t)piece.count * sizeof *x);
                }
                if (format == HY3_MOMENTS_8BIT && span.count == MOST)
                    assert_int_equal(hy3_moment_copy_bytes(format, span), MOST + MOST / 64);
                hy3_moment_copy_close(&copy);
            }
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_codes_are_those_of_the_reference),
        cmocka_unit_test(every_number_gets_the_nearest_code),
        cmocka_unit_test(twenty_steps_have_the_bits_of_the_reference),
        cmocka_unit_test(so_they_have_on_the_gpu),
        cmocka_unit_test(decoded_numbers_are_encoded_into_the_same_bits),
        cmocka_unit_test(a_resumed_run_has_the_same_bits),
        cmocka_unit_test(parts_of_a_block_give_the_codes_of_the_whole),
        cmocka_unit_test(state_is_as_small_as_it_says),
        cmocka_unit_test(a_copy_gives_the_numbers_it_was_given),
        cmocka_unit_test(bf16_moments_keep_the_average),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
