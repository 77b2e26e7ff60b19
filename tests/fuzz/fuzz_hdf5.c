/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_hdf5.c - the bytes choose how an HDF5 file is built that would be a state.h5 or a token
 * file: each attribute, group and data set as hy3 writes it (0), or in another form that HDF5
 * knows. It is sealed, so that the readers look behind the seal. A file of zeros is accepted. */
#include "base/log.h"
#include "ckpt/state/state.h"
#include "data/sample.h"
#include "data/token_file.h"
#include "fuzz.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { IDS = 4096, TENSORS = 2, ELEMENTS = 6, SAMPLES = 2, TOKENS = 5 };

/* What is open, to be closed in the end; what could not be opened is kept as it is. */
static hid_t ids[IDS];
static int id_count;
static struct fuzz_bytes in;

static hid_t keep(hid_t id)
{
    if (id >= 0 && id_count < IDS)
        ids[id_count++] = id;
    return id;
}

static unsigned choose(void)
{
    return fuzz_byte(&in);
}

/* A type that is not the wanted one, or is it in other words. */
static hid_t choose_type(hid_t file, hid_t wanted)
{
    const hid_t plain[] = {H5T_STD_I64BE,  H5T_STD_U64LE,     H5T_STD_I32LE,   H5T_IEEE_F32LE,
                           H5T_IEEE_F64LE, H5T_STD_B64LE,     H5T_STD_REF_OBJ, H5T_UNIX_D64LE,
                           H5T_STD_I8LE,   H5T_NATIVE_LDOUBLE};
    hid_t type = keep(H5Tcopy(wanted));
    hsize_t two = 2;
    unsigned kind = choose();

    switch (kind % 9) {
    case 0:
        return keep(H5Tcopy(plain[kind / 9 % (sizeof plain / sizeof *plain)]));
    case 1:
        type = keep(H5Tcopy(H5T_C_S1));
        H5Tset_size(type, 1 + choose() * 3);
        return type;
    case 2:
        type = keep(H5Tcopy(H5T_C_S1));
        H5Tset_size(type, H5T_VARIABLE);
        return type;
    case 3:
        return keep(H5Tvlen_create(wanted));
    case 4:
        return keep(H5Tarray_create2(wanted, 1, &two));
    case 5:
        type = keep(H5Tcreate(H5T_COMPOUND, 2 * H5Tget_size(wanted)));
        H5Tinsert(type, "a", 0, wanted);
        H5Tinsert(type, "b", H5Tget_size(wanted), wanted);
        return type;
    case 6:
        return keep(H5Tenum_create(H5T_STD_I64LE));
    case 7:
        return keep(H5Tcreate(H5T_OPAQUE, 8));
    default: /* the wanted type by a name in the file */
        H5Tcommit_anon(file, type, H5P_DEFAULT, H5P_DEFAULT);
        return type;
    }
}

/* A space that is not the wanted one, of at most `most` elements in all (0: any number). */
static hid_t choose_space(int64_t most)
{
    unsigned kind = choose();
    hsize_t shape[5];

    if (kind % 4 == 0)
        return keep(H5Screate(H5S_NULL));
    if (kind % 4 == 1)
        return keep(H5Screate(H5S_SCALAR));
    for (int i = 0; i < 5; i++)
        shape[i] = (hsize_t)fuzz_number(&in, 3);
    for (int i = 0; i < 5 && most > 0; i++) {
        if (shape[i] > (hsize_t)most)
            shape[i] = (hsize_t)most;
        most /= shape[i] > 0 ? (int64_t)shape[i] : 1;
    }
    return keep(H5Screate_simple(1 + (int)(kind / 4 % 5), shape, NULL));
}

/* Writes a value where the type is not the one it has in memory: any bytes. */
static void write_any(hid_t attribute)
{
    hid_t type = keep(H5Aget_type(attribute)), space = keep(H5Aget_space(attribute));
    hssize_t count = H5Sget_simple_extent_npoints(space);
    size_t size = H5Tget_size(type);
    char *bytes;

    if (count < 1 || size < 1 || (size_t)count * size > 60000 ||
        H5Tdetect_class(type, H5T_VLEN) > 0 || H5Tis_variable_str(type) > 0)
        return;
    bytes = malloc((size_t)count * size);
    memset(bytes, (int)choose(), (size_t)count * size);
    H5Awrite(attribute, type, bytes);
    free(bytes);
}

static void put(hid_t object, const char *name, hid_t type, const void *value)
{
    hid_t space = keep(H5Screate(H5S_SCALAR)), attribute, in_file = type;
    unsigned kind = choose();
    int64_t number;

    switch (kind % 8) {
    case 1:
        return;
    case 2:
        in_file = choose_type(object, type);
        break;
    case 3:
        space = choose_space(4000);
        break;
    case 4: /* a link to nowhere of that name as well */
        H5Lcreate_soft(name, object, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    default:
        break;
    }
    attribute = keep(H5Acreate2(object, name, in_file, space, H5P_DEFAULT, H5P_DEFAULT));
    if (attribute < 0)
        return;
    if (kind % 8 == 2 || kind % 8 == 3) {
        write_any(attribute);
    } else if (kind % 8 == 5 && H5Tget_class(type) == H5T_INTEGER) {
        memcpy(&number, value, sizeof number);
        number = fuzz_number(&in, number);
        H5Awrite(attribute, type, &number);
    } else {
        H5Awrite(attribute, type, value);
    }
}

static void put_number(hid_t object, const char *name, int64_t value)
{
    put(object, name, H5T_NATIVE_INT64, &value);
}

static void put_text(hid_t object, const char *name, const char *text)
{
    hid_t type = keep(H5Tcopy(H5T_C_S1));

    H5Tset_size(type, strlen(text) + 1);
    put(object, name, type, text);
}

static hid_t never(const char *name, hid_t group, const void *data, size_t size, hid_t access,
                   hid_t transfer)
{
    return -1;
}

/* A name that leads nowhere, elsewhere, in a circle, or out of the file. */
static void link_instead(hid_t group, const char *name)
{
    static const char *const targets[] = {"/",    ".",        "/param",  "/checksums",   "/tokens",
                                          "gone", "/param/a", "/adam_m", "/source_name", "../x"};
    const H5L_class_t classes[] = {
        {.version = H5L_LINK_CLASS_T_VERS, .id = H5L_TYPE_EXTERNAL, .trav_func = never},
        {.version = H5L_LINK_CLASS_T_VERS, .id = (H5L_type_t)100, .trav_func = never}};
    unsigned kind = choose();
    const char *target = targets[kind / 4 % (sizeof targets / sizeof *targets)];

    switch (kind % 4) {
    case 0:
        H5Lcreate_soft(kind >= 128 ? name : target, group, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 1:
        H5Lcreate_hard(group, target, group, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 2:
        H5Lregister(&classes[0]);
        H5Lcreate_external("/etc/passwd", target, group, name, H5P_DEFAULT, H5P_DEFAULT);
        H5Lunregister(H5L_TYPE_EXTERNAL);
        break;
    default:
        H5Lregister(&classes[1]);
        H5Lcreate_ud(group, name, (H5L_type_t)100, target, strlen(target), H5P_DEFAULT,
                     H5P_DEFAULT);
        H5Lunregister((H5L_type_t)100);
    }
}

static hid_t contiguous(void)
{
    hid_t creation = keep(H5Pcreate(H5P_DATASET_CREATE));

    H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
    H5Pset_obj_track_times(creation, false);
    return creation;
}

static hid_t choose_layout(hid_t space)
{
    hid_t creation = keep(H5Pcreate(H5P_DATASET_CREATE));
    hsize_t chunk[5] = {1 + choose() % 4, 1, 2, 1, 1};
    unsigned kind = choose(), none = 0;
    char fifo[HY3_PATH_MAX];

    switch (kind % 6) {
    case 0:
        H5Pset_layout(creation, H5D_COMPACT);
        return creation;
    case 1: /* a file that blocks whoever opens it */
        H5Pset_external(creation, fuzz_path(fifo, "fifo"), 0, H5F_UNLIMITED);
        return creation;
    case 2:
        H5Pset_external(creation, "/etc/passwd", 0, H5F_UNLIMITED);
        return creation;
    case 3:
        H5Pset_virtual(creation, space, kind >= 128 ? "/etc/passwd" : fuzz_path(fifo, "fifo"),
                       "tokens", space);
        return creation;
    case 4: /* no space until it is written */
        H5Pset_alloc_time(creation, H5D_ALLOC_TIME_LATE);
        return creation;
    default:
        break;
    }
    H5Pset_chunk(creation, H5Sget_simple_extent_ndims(space), chunk);
    if (kind & 8)
        H5Pset_shuffle(creation);
    if (kind & 16)
        H5Pset_deflate(creation, 6);
    if (kind & 32)
        H5Pset_fletcher32(creation);
    if (kind & 64) /* a filter that nobody has */
        H5Pset_filter(creation, 4711, H5Z_FLAG_OPTIONAL, 1, &none);
    return creation;
}

/* A data set of `count` elements (0: rows of `width`), or what stands in its place; it, or -1. */
static hid_t put_set(hid_t group, const char *name, hid_t type, int dims, const hsize_t *shape,
                     const void *values)
{
    hid_t space = keep(H5Screate_simple(dims, shape, NULL)), creation = contiguous(),
          in_file = type;
    unsigned kind = choose();
    char longer[400];
    hid_t set;

    switch (kind % 10) {
    case 1:
        return -1;
    case 2:
        return keep(H5Gcreate2(group, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    case 3:
        link_instead(group, name);
        return -1;
    case 4:
        creation = choose_layout(space);
        break;
    case 5:
        in_file = choose_type(group, type);
        break;
    case 6: /* any size, as it takes no space */
        space = choose_space(0);
        H5Pset_alloc_time(creation, H5D_ALLOC_TIME_LATE);
        break;
    case 7:
        space = choose_space(1000);
        break;
    case 8:
        memset(longer, (int)(33 + choose() % 200), sizeof longer);
        longer[choose() + 1] = '\0';
        name = longer;
        break;
    default:
        break;
    }
    set = keep(H5Dcreate2(group, name, in_file, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    if (set >= 0 && kind % 10 != 5 && kind % 10 != 6 && kind % 10 != 7 &&
        H5Pget_external_count(creation) == 0)
        H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    return set;
}

static hid_t put_group(hid_t file, const char *name)
{
    hid_t creation = keep(H5Pcreate(H5P_GROUP_CREATE));
    unsigned kind = choose();

    switch (kind % 8) {
    case 1:
        return file; /* what is to be in it lies beside it */
    case 2:
        link_instead(file, name);
        return -1;
    case 3: /* names by a B-tree, however few */
        H5Pset_link_phase_change(creation, 0, 0);
        break;
    case 4:
        H5Pset_link_creation_order(creation, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
        break;
    default:
        break;
    }
    return keep(H5Gcreate2(file, name, H5P_DEFAULT, creation, H5P_DEFAULT));
}

static void build_state(hid_t file)
{
    static const struct hy3_state_info info = {.step = 3,
                                               .global_batch = 4,
                                               .total_steps = 9,
                                               .tokens = 100,
                                               .data_samples = 7,
                                               .log_steps = 1,
                                               .log_tokens = 30};
    static const float values[ELEMENTS] = {1, 2, 3, 4, 5, 6};
    const hsize_t shape[2] = {2, 3};
    hsize_t rows[2] = {0, HY3_STATE_SLAB_COLUMNS};
    uint64_t slabs[HY3_FIELDS * TENSORS][HY3_STATE_SLAB_COLUMNS];

    put_number(file, "version", HY3_STATE_VERSION);
    for (const struct hy3_state_attribute *a = hy3_state_attributes; a->name; a++)
        if (a->type == 't')
            put_text(file, a->name, (const char *)&info + a->offset);
        else
            put(file, a->name, hy3_state_memory_type(a->type), (const char *)&info + a->offset);
    put_text(file, "configuration", "seed = 1;\n");
    for (int field = 0; field < HY3_FIELDS; field++) {
        hid_t group = put_group(file, hy3_state_field_name((enum hy3_field)field));

        for (int t = 0; t < TENSORS; t++) {
            hid_t set = put_set(group, t == 0 ? "a" : "b.weight", H5T_IEEE_F32LE, 2, shape, values);
            const uint64_t row[] = {(uint64_t)field, (uint64_t)t, 0, ELEMENTS,
                                    XXH3_64bits(values, sizeof values)};

            if (set >= 0)
                put_number(set, "tensor", t);
            for (size_t i = 0; i < HY3_STATE_SLAB_COLUMNS; i++)
                slabs[rows[0]][i] = (uint64_t)fuzz_number(&in, (int64_t)row[i]);
            rows[0]++;
        }
    }
    put_set(file, "checksums", H5T_STD_U64LE, 2, rows, slabs);
}

static void read_state(const char *path, bool must)
{
    struct hy3_state *state = NULL;
    hy3_status status = hy3_state_open(MPI_COMM_SELF, path, &state);

    if (status == HY3_OK)
        status = hy3_state_verify(state, 0, 1);
    if (must && status != HY3_OK)
        HY3_BUG("what hy3 would write is refused: %s", hy3_error_text());
    hy3_state_close(state);
}

static struct hy3_source source = {.path = (char[]){"data.jsonl"}, .size = 10, .mtime_ns = 20};

static void build_tokens(hid_t file)
{
    static const uint32_t tokens[TOKENS] = {1, 2, 3, 4, 5}, files[SAMPLES] = {0, 0};
    static const uint8_t mask[TOKENS] = {0, 1, 0, 1, 1};
    static const float weights[TOKENS] = {0, 0.5f, 0, 1, 1};
    static const uint64_t offsets[SAMPLES + 1] = {0, 2, TOKENS}, lines[SAMPLES] = {1, 2};
    const uint64_t sums[SAMPLES] = {hy3_sample_checksum(tokens, mask, 2),
                                    hy3_sample_checksum(tokens + 2, mask + 2, 3)};
    const uint64_t weight_sums[SAMPLES] = {hy3_sample_weight_checksum(weights, 2), HY3_NO_WEIGHTS};
    const int64_t from[] = {source.size, source.mtime_ns, source.ctime_ns, source.sampled};
    const void *const values[] = {tokens, mask,        weights,  offsets,  lines,    files,
                                  sums,   weight_sums, &from[0], &from[1], &from[2], &from[3]};
    const struct hy3_token_header header = {
        .format = HY3_TOKEN_FORMAT,
        .piece_bytes = 1,
        .max_seq_length = 3,
        .summary = {.samples = SAMPLES, .tokens = TOKENS, .longest = 3, .lines = 2, .weighted = 1}};
    hid_t type = keep(H5Tcopy(H5T_C_S1));
    const hsize_t one = 1;

    for (const struct hy3_token_attribute *a = hy3_token_attributes; a->name; a++)
        put(file, a->name, hy3_token_attribute_type(a), (const char *)&header + a->offset);
    put_text(file, "unread_keys", "id (2 lines)");
    for (int c = 0; c < HY3_TOKEN_COLUMNS; c++) {
        const struct hy3_token_column *column = &hy3_token_columns[c];
        hsize_t count = (hsize_t)hy3_token_column_count(column, &header, 1);

        put_set(file, column->name, hy3_token_column_type(column), 1, &count, values[c]);
    }
    H5Tset_size(type, strlen(source.path));
    put_set(file, "source_name", type, 1, &one, source.path);
}

static void read_tokens(const char *path, bool must)
{
    struct hy3_token_header header;
    uint64_t *offsets;
    hy3_status status = hy3_token_file_inspect(path, &source, 1, &header, &offsets);

    if (must && (status != HY3_OK || !header.has_same_sources))
        HY3_BUG("what hy3 would write is refused: %s", hy3_error_text());
    if (status == HY3_OK && (header.tokens_at + 4 * header.summary.tokens > header.size ||
                             header.mask_at + header.summary.tokens > header.size))
        HY3_BUG("tokens beyond the file");
    hy3_free(offsets);
}

static hid_t create(const char *path, unsigned form)
{
    hid_t access = keep(H5Pcreate(H5P_FILE_ACCESS)), creation = keep(H5Pcreate(H5P_FILE_CREATE));

    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    if (form % 4 == 0)
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    else if (form % 4 == 1)
        H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    if (form & 4)
        H5Pset_userblock(creation, 512);
    if (form & 8)
        H5Pset_sizes(creation, 4, 4);
    if (form & 16)
        H5Pset_file_space_strategy(creation, H5F_FSPACE_STRATEGY_PAGE, true, 1);
    return H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[HY3_PATH_MAX], fifo[HY3_PATH_MAX];
    bool is_plain = true, is_state;
    int64_t bytes;
    hid_t file;

    fuzz_begin_mpi();
    hy3_hdf5_quiet();
    mkfifo(fuzz_path(fifo, "fifo"), 0600);
    fuzz_path(path, "built.h5");
    for (size_t i = 1; i < size; i++)
        is_plain = is_plain && data[i] == 0;
    in = (struct fuzz_bytes){data, data + size};
    is_state = choose() % 2 == 0;
    file = create(path, choose());
    if (file >= 0) {
        put_number(file, "complete", 1);
        if (is_state)
            build_state(file);
        else
            build_tokens(file);
    }
    while (id_count > 0)
        H5Idec_ref(ids[--id_count]);
    if (file < 0 || H5Fclose(file) < 0) /* HDF5 does not allow every form */
        return 0;
    if (hy3_file_size(path, &bytes) != HY3_OK || bytes > 1 << 26) /* all of it is sealed */
        return 0;
    fuzz_seal(path);
    (is_state ? read_state : read_tokens)(path, is_plain);
    return 0;
}
