/* SPDX-License-Identifier: Apache-2.0 */
/* state.c - state.h5 is read as it was written, and refused if any bit of it is damaged. */
#include "ckpt/state/state.h"

#include "base/random.h"
#include "base/span.h"
#include "ckpt/fixture.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static const struct hy3_state_info info = {.step = 3,
                                           .global_batch = 4,
                                           .total_steps = 9,
                                           .tokens = 100,
                                           .data_samples = 7,
                                           .log_loss = 2,
                                           .log_steps = 1,
                                           .log_tokens = 30,
                                           .elapsed = 1.5,
                                           .best = {.evaluated = 3,
                                                    .step = 2,
                                                    .metric = 0.1,
                                                    .stale = 1,
                                                    .checkpoint = 2,
                                                    .checkpoint_metric = 1.0 / 3,
                                                    .data = UINT64_MAX}};

static float expected(int field, int64_t i)
{
    return (float)(field + 1) + (float)i / 1024;
}

static hy3_status get(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, float *out)
{
    (void)of;
    (void)param;
    for (int64_t i = 0; i < span.count; i++)
        out[i] = expected(field, span.first + i);
    return HY3_OK;
}

static struct hy3_span all_of(void *of, const struct hy3_param *param)
{
    (void)of;
    return (struct hy3_span){0, param->count};
}

static hy3_status put(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, const float *values)
{
    (void)param;
    for (int64_t i = 0; i < span.count; i++)
        *(bool *)of = *(bool *)of && values[i] == expected(field, span.first + i);
    return HY3_OK;
}

/* A small model whose tensors and groups need link tables as large models do. */
static struct hy3_params *create_params(void)
{
    struct hy3_params *params;
    struct hy3_shape shape;

    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    assert_ok(hy3_params_create(&shape, 0, shape.experts, &params));
    for (int i = 0; i < params->count; i++) /* the small ones are enough */
        params->params[i].trainable = params->params[i].trainable && params->params[i].count < 4096;
    return params;
}

static void write_state(const char *path, const struct hy3_params *params)
{
    assert_ok(hy3_state_write(MPI_COMM_WORLD, path, true, params, &info, "seed = 1;\n",
                              (struct hy3_values){.get = get, .share = all_of}));
}

/* HY3_OK: all values are those that were written. */
static hy3_status read_state(const char *path, const struct hy3_params *params)
{
    hy3_status status = HY3_OK;
    struct hy3_state *state = NULL;
    bool right = true;

    HY3_TRY_DONE(hy3_state_open(MPI_COMM_SELF, path, &state));
    HY3_TRY_DONE(hy3_state_load(state, params,
                                (struct hy3_values){.of = &right, .put = put, .kept = all_of}));
    if (!right || memcmp(hy3_state_info(state), &info, sizeof info) != 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "other values");
done:
    hy3_state_close(state);
    return status;
}

static void what_was_written_is_read(void **state)
{
    struct hy3_params *params = create_params();

    (void)state;
    write_state(scratch("good.h5"), params);
    assert_ok(read_state(scratch("good.h5"), params));
    sleep(1); /* no time is in it */
    write_state(scratch("again.h5"), params);
    assert_true(same_file(scratch("good.h5"), scratch("again.h5")));
    hy3_params_free(params);
}

/* Flips `flips` bits one after the other, half of them outside the values, where HDF5 looks. */
static void no_flipped_bit_is_missed(void **state)
{
    const char *flips = getenv("HY3_FLIPS"), *path = scratch("flipped.h5");
    struct hy3_params *params = create_params();
    struct hy3_state_index index;
    int64_t bytes, first;
    int fd;

    (void)state;
    write_state(path, params);
    assert_ok(hy3_state_file_inspect(path, &index));
    assert_ok(hy3_file_size(path, &bytes));
    first = index.tensors[0].offset[0];
    hy3_state_index_free(&index);
    assert_true((fd = open(path, O_RDWR | O_CLOEXEC)) >= 0);
    for (int64_t i = 0; i < (flips ? strtol(flips, NULL, 10) : 400); i++) {
        uint32_t word[4];
        int64_t at;
        char byte, kept;

        hy3_random(7, 0, 0, (uint64_t)i, word);
        at = (int64_t)(word[0] % (uint64_t)(i % 2 == 0 ? bytes : first));
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        kept = byte;
        byte = (char)(byte ^ (1 << word[1] % 8));
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        if (read_state(path, params) == HY3_OK)
            fail_msg("bit %u of byte %lld", word[1] % 8, (long long)at);
        if (!strstr(hy3_error_text(), path))
            fail_msg("no file in '%s'", hy3_error_text());
        assert_int_equal(pwrite(fd, &kept, 1, at), 1);
    }
    close(fd);
    assert_ok(read_state(path, params));
    hy3_params_free(params);
}

/* What a file of another program may hold; each opens the file anew. */
static void put_number(hid_t object, const char *name, int64_t value)
{
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);

    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(attribute);
}

static void put_real(hid_t object, const char *name, double value)
{
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);

    assert_true(H5Awrite(attribute, H5T_NATIVE_DOUBLE, &value) >= 0);
    H5Aclose(attribute);
}

static void put_array(hid_t file, const char *name, hsize_t count, size_t size)
{
    hid_t space = H5Screate_simple(1, &count, NULL), type = H5Tcopy(H5T_C_S1), attribute;

    H5Tset_size(type, size);
    H5Adelete(file, name);
    attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0);
    H5Aclose(attribute);
    H5Tclose(type);
    H5Sclose(space);
}

static hid_t never(const char *name, hid_t group, const void *data, size_t size, hid_t access,
                   hid_t transfer)
{
    return -1;
}

/* Links into other files can only be made while their class is known, which hy3 does away with. */
static void link_outside(hid_t file, const char *name)
{
    const H5L_class_t external = {.version = H5L_LINK_CLASS_T_VERS,
                                  .id = H5L_TYPE_EXTERNAL,
                                  .comment = "external",
                                  .trav_func = never};

    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    assert_true(H5Lregister(&external) >= 0);
    assert_true(
        H5Lcreate_external(scratch("fifo"), "/param", file, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lunregister(H5L_TYPE_EXTERNAL) >= 0);
}

static void make_hostile(hid_t file, int kind)
{
    hid_t group = H5Gopen2(file, "param", H5P_DEFAULT);

    if (kind == 0)
        put_number(file, "step", -5);
    else if (kind == 1)
        put_number(file, "total_steps", INT64_MAX);
    else if (kind == 2)
        put_number(file, "tokens", INT64_MAX);
    else if (kind == 3)
        put_number(file, "log_steps", 4);
    else if (kind == 4)
        put_number(file, "data_samples", 0);
    else if (kind == 5)
        put_array(file, "configuration", 60, 1000);
    else if (kind == 6)
        put_array(file, "step", 1000, 8);
    else if (kind == 7)
        link_outside(file, "adam_m");
    else if (kind == 8)
        assert_true(H5Lcreate_soft("/param", group, "a", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    else if (kind == 9)
        H5Gclose(H5Gcreate2(group, "a", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    else if (kind == 10)
        put_number(file, "version", HY3_STATE_VERSION + 1);
    else if (kind == 11)
        put_number(file, "step", INT64_MAX);
    else if (kind == 12)
        put_number(file, "global_batch", 0);
    else
        put_real(file, "elapsed_seconds", kind == 13 ? -1 : (double)NAN);
    H5Gclose(group);
}

static void what_others_wrote_is_refused(void **state)
{
    struct hy3_params *params = create_params();
    const char *path = scratch("hostile.h5");

    (void)state;
    assert_int_equal(mkfifo(scratch("fifo"), 0600), 0);
    for (int kind = 0; kind <= 14; kind++) {
        hid_t file;

        write_state(path, params);
        assert_true((file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT)) >= 0);
        put_number(file, "version", 1); /* which has no seal */
        make_hostile(file, kind);
        H5Fclose(file);
        if (read_state(path, params) != HY3_EFORMAT || !strstr(hy3_error_text(), path))
            fail_msg("kind %d: %s", kind, hy3_error_text());
    }
    assert_true(read_state(scratch("fifo"), params) != HY3_OK);
    hy3_params_free(params);
}

static void a_best_evaluation_that_cannot_be_is_refused(void **state)
{
    static const struct hy3_state_best bad[] = {{.evaluated = -1},
                                                {.evaluated = 4},
                                                {.evaluated = INT64_MAX},
                                                {.evaluated = 2, .step = 3},
                                                {.step = -1},
                                                {.evaluated = 2, .stale = 3},
                                                {.stale = -1},
                                                {.checkpoint = 4},
                                                {.checkpoint = INT64_MIN},
                                                {.metric = (double)NAN},
                                                {.checkpoint_metric = (double)INFINITY}};
    struct hy3_params *params = create_params();
    const char *path = scratch("best.h5");

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hy3_state_info wrong = info;

        wrong.best = bad[i];
        assert_ok(hy3_state_write(MPI_COMM_WORLD, path, true, params, &wrong, "seed = 1;\n",
                                  (struct hy3_values){.get = get, .share = all_of}));
        assert_fails(HY3_EFORMAT, "its record of the best evaluation is out of range",
                     read_state(path, params));
    }
    hy3_params_free(params);
}

/* The number of runs, and the bytes of HDF5's part, are the first two of the last five words. */
static void a_seal_with_numbers_of_any_size_is_refused(void **state)
{
    static const uint64_t numbers[] = {0,         1 << 23,           1 << 24,
                                       INT64_MAX, (uint64_t)1 << 63, UINT64_MAX};
    struct hy3_params *params = create_params();
    const char *path = scratch("seal.h5");
    int64_t bytes;
    int fd;

    (void)state;
    write_state(path, params);
    assert_ok(hy3_file_size(path, &bytes));
    assert_true((fd = open(path, O_RDWR | O_CLOEXEC)) >= 0);
    for (int word = 0; word < 2; word++) {
        uint64_t kept;

        assert_int_equal(pread(fd, &kept, 8, bytes - 40 + 8 * word), 8);
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            assert_int_equal(pwrite(fd, &numbers[i], 8, bytes - 40 + 8 * word), 8);
            assert_fails(HY3_EFORMAT, "seal", read_state(path, params));
        }
        assert_int_equal(pwrite(fd, &kept, 8, bytes - 40 + 8 * word), 8);
    }
    close(fd);
    assert_ok(read_state(path, params));
    hy3_params_free(params);
}

/* A sparse file of a terabyte, all of it said to be metadata, would be read for minutes. */
static void metadata_beyond_all_measure_is_not_read(void **state)
{
    uint64_t tail[5] = {0, (uint64_t)1 << 40};
    struct hy3_params *params = create_params();
    const char *path = scratch("sparse.h5");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    tail[3] = XXH3_64bits(tail, 3 * sizeof *tail);
    memcpy(&tail[4], "hy3 seal", 8);
    assert_int_equal(ftruncate(fd, (off_t)tail[1]), 0);
    assert_int_equal(pwrite(fd, tail, sizeof tail, (off_t)tail[1]), sizeof tail);
    close(fd);
    alarm(60); /* a hang ends the test */
    assert_fails(HY3_EFORMAT, "metadata, more than", read_state(path, params));
    alarm(0);
    hy3_params_free(params);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(no_flipped_bit_is_missed),
        cmocka_unit_test(a_seal_with_numbers_of_any_size_is_refused),
        cmocka_unit_test(metadata_beyond_all_measure_is_not_read),
        cmocka_unit_test(what_others_wrote_is_refused),
        cmocka_unit_test(a_best_evaluation_that_cannot_be_is_refused)};

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
