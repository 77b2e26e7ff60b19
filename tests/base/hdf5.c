/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5.c - attributes and data sets come back, and nothing is read that is not what it must be. */
#include "base/hdf5.h"

#include "base/file.h"
#include "base/memory.h"
#include "support/test.h"

static const char *path(void)
{
    static char path[HY3_PATH_MAX];

    snprintf(path, sizeof path, "%s/test.h5", hy3_test_directory());
    return path;
}

static hid_t create(void)
{
    hid_t file;

    hy3_hdf5_quiet();
    file = H5Fcreate(path(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void attributes_come_back(void **state)
{
    const int64_t integer = -7;
    const uint64_t natural = UINT64_MAX;
    const double real = 0.1;
    int64_t i = 0;
    uint64_t n = 0;
    double r = 0;
    char *text = NULL;
    hid_t file = create();

    (void)state;
    assert_ok(hy3_hdf5_put_number(file, "integer", H5T_NATIVE_INT64, &integer, path()));
    assert_ok(hy3_hdf5_put_number(file, "natural", H5T_NATIVE_UINT64, &natural, path()));
    assert_ok(hy3_hdf5_put_number(file, "real", H5T_NATIVE_DOUBLE, &real, path()));
    assert_ok(hy3_hdf5_put_text(file, "text", "one\ntwo", path()));
    assert_fails(HY3_EIO, "cannot write 'text' of '",
                 hy3_hdf5_put_text(file, "text", "again", path()));
    assert_ok(hy3_hdf5_get_number(file, "integer", H5T_NATIVE_INT64, &i));
    assert_ok(hy3_hdf5_get_number(file, "natural", H5T_NATIVE_UINT64, &n));
    assert_ok(hy3_hdf5_get_number(file, "real", H5T_NATIVE_DOUBLE, &r));
    assert_true(i == integer && n == natural && r == real);
    assert_ok(hy3_hdf5_get_text(file, "text", 100, &text));
    assert_string_equal(text, "one\ntwo");
    hy3_free(text);
    assert_ok(hy3_hdf5_get_text(file, "absent", 100, &text));
    assert_string_equal(text, "");
    hy3_free(text);
    H5Fclose(file);
}

static void put(hid_t file, const char *name, hid_t type, hsize_t count, const void *values)
{
    hid_t space = H5Screate_simple(1, &count, NULL);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);

    assert_true(attribute >= 0 && H5Awrite(attribute, type, values) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

/* Of another class, size or number of elements, and texts that are pointers. */
static void other_attributes_are_refused_before_they_are_read(void **state)
{
    static const char *const names[] = {"wide", "real", "two"};
    const int64_t numbers[2] = {1, 2};
    const char *pointer = "text";
    char *text = NULL;
    int32_t small = 0;
    int64_t out = 0;
    hid_t file = create(), variable = H5Tcopy(H5T_C_S1);

    (void)state;
    H5Tset_size(variable, H5T_VARIABLE);
    put(file, "wide", H5T_NATIVE_INT32, 1, &small);
    put(file, "real", H5T_NATIVE_DOUBLE, 1, numbers);
    put(file, "two", H5T_NATIVE_INT64, 2, numbers);
    put(file, "pointer", variable, 1, &pointer);
    assert_ok(hy3_hdf5_put_text(file, "text", "12345678", path()));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_fails(HY3_EFORMAT, "is not one 64-bit integer",
                     hy3_hdf5_get_number(file, names[i], H5T_NATIVE_INT64, &out));
    assert_fails(HY3_EFORMAT, "'two' is not one 64-bit real number",
                 hy3_hdf5_get_number(file, "two", H5T_NATIVE_DOUBLE, &out));
    assert_fails(HY3_EFORMAT, "no attribute 'absent'",
                 hy3_hdf5_get_number(file, "absent", H5T_NATIVE_INT64, &out));
    assert_int_equal(out, 0);
    assert_fails(HY3_EFORMAT, "at most 8 bytes", hy3_hdf5_get_text(file, "text", 8, &text));
    assert_fails(HY3_EFORMAT, "'two' is not a text", hy3_hdf5_get_text(file, "two", 100, &text));
    assert_null(text);
    assert_fails(HY3_EFORMAT, "'pointer' is not one text",
                 hy3_hdf5_get_text(file, "pointer", 100, &text));
    hy3_free(text);
    H5Tclose(variable);
    H5Fclose(file);
}

static void a_data_set_has_its_place_at_once(void **state)
{
    struct hy3_hdf5_place place = {.dims = 2, .shape = {3, 5}}, found;
    hsize_t bytes = 0;
    hid_t file = create(), set = -1;

    (void)state;
    assert_ok(hy3_hdf5_create_set(file, "set", H5T_IEEE_F32LE, path(), &place, &set));
    assert_int_equal(place.count, 15);
    assert_true(place.offset > 0);
    H5Dclose(set);
    assert_fails(HY3_EIO, "cannot create 'set' of '",
                 hy3_hdf5_create_set(file, "set", H5T_IEEE_F32LE, path(), &place, &set));
    assert_int_equal(set, -1);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    assert_true(H5Fget_filesize(file, &bytes) >= 0);
    assert_ok(hy3_hdf5_open_set(file, "set", H5T_IEEE_F32LE, (int64_t)bytes, &found, &set));
    assert_memory_equal(&found, &place, sizeof found);
    H5Dclose(set);
    assert_fails(HY3_EFORMAT, "'set' has another type",
                 hy3_hdf5_open_set(file, "set", H5T_STD_U64LE, (int64_t)bytes, &found, &set));
    assert_int_equal(set, -1);
    assert_fails(HY3_EFORMAT, "'set' is not one piece within the file",
                 hy3_hdf5_open_set(file, "set", H5T_IEEE_F32LE, place.offset + 59, &found, &set));
    assert_fails(HY3_EFORMAT, "no data set 'absent'",
                 hy3_hdf5_open_set(file, "absent", H5T_IEEE_F32LE, (int64_t)bytes, &found, &set));
    H5Fclose(file);
}

static void a_data_set_in_chunks_is_refused(void **state)
{
    struct hy3_hdf5_place place;
    const hsize_t size = 8, chunk = 4;
    hid_t file = create(), space = H5Screate_simple(1, &size, NULL), set;
    hid_t layout = H5Pcreate(H5P_DATASET_CREATE);

    (void)state;
    H5Pset_chunk(layout, 1, &chunk);
    set = H5Dcreate2(file, "chunked", H5T_STD_U64LE, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    H5Dclose(set);
    H5Pclose(layout);
    H5Sclose(space);
    assert_fails(HY3_EFORMAT, "'chunked' is not one piece within the file",
                 hy3_hdf5_open_set(file, "chunked", H5T_STD_U64LE, INT64_MAX, &place, &set));
    H5Fclose(file);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attributes_come_back),
        cmocka_unit_test(other_attributes_are_refused_before_they_are_read),
        cmocka_unit_test(a_data_set_has_its_place_at_once),
        cmocka_unit_test(a_data_set_in_chunks_is_refused),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
