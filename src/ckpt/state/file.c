/* SPDX-License-Identifier: Apache-2.0 */
/* file.c - reads groups, datasets and attributes of state.h5. */
#include "ckpt/state/file.h"

#include "base/file.h"
#include "base/hdf5_seal.h"
#include "base/memory.h"
#include "base/printable.h"

#include <math.h>
#include <unistd.h>

enum { MAX_TENSORS = 1 << 20, MAX_SLABS = 1 << 26 };

#define FIELD(name) offsetof(struct hy3_state_info, name)

const struct hy3_state_attribute hy3_state_attributes[] = {
    {"step", FIELD(step), 'i', 0},
    {"global_batch", FIELD(global_batch), 'i', 0},
    {"seed", FIELD(seed), 'i', 0},
    {"total_steps", FIELD(total_steps), 'i', 0},
    {"tokens", FIELD(tokens), 'i', 0},
    {"data_samples", FIELD(data_samples), 'i', 0},
    {"data_fingerprint", FIELD(data_fingerprint), 'u', 0},
    {"log_loss", FIELD(log_loss), 'r', 0},
    {"log_steps", FIELD(log_steps), 'i', 0},
    {"log_tokens", FIELD(log_tokens), 'i', 0},
    {"elapsed_seconds", FIELD(elapsed), 'r', 0},
    {"base_fingerprint", FIELD(identity.fingerprint), 't', 0},
    {"base", FIELD(identity.base), 't', 0},
    {"adapter", FIELD(identity.adapter), 't', 0},
    {"eval_step", FIELD(best.evaluated), 'i', 3},
    {"best_step", FIELD(best.step), 'i', 3},
    {"best_metric", FIELD(best.metric), 'r', 3},
    {"stale_evaluations", FIELD(best.stale), 'i', 3},
    {"best_checkpoint", FIELD(best.checkpoint), 'i', 3},
    {"best_checkpoint_metric", FIELD(best.checkpoint_metric), 'r', 3},
    {"eval_fingerprint", FIELD(best.data), 'u', 3},
    {NULL, 0, 0, 0},
};

hid_t hy3_state_memory_type(char type)
{
    return type == 'r' ? H5T_NATIVE_DOUBLE : type == 'u' ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64;
}

const char *hy3_state_field_name(enum hy3_field field)
{
    static const char *const names[] = {"param", "adam_m", "adam_v"};

    return names[field];
}

static hy3_status get_tensor(hid_t file, const char *name, struct hy3_state_index *index,
                             enum hy3_field field)
{
    hy3_status status = HY3_OK;
    hid_t set = -1;
    struct hy3_hdf5_place place;
    struct hy3_state_tensor *t;
    char path[HY3_PARAM_NAME + 16];
    int64_t number = -1;

    snprintf(path, sizeof path, "%s/%s", hy3_state_field_name(field), name);
    HY3_TRY_DONE(hy3_hdf5_open_set(file, path, H5T_IEEE_F32LE, index->file_bytes, &place, &set));
    HY3_TRY_DONE(hy3_hdf5_get_number(set, "tensor", H5T_NATIVE_INT64, &number));
    if (place.count < 1)
        HY3_FAIL_DONE(HY3_EFORMAT, "'%.100s' has no elements", path);
    if (number < 0 || number >= index->tensor_count)
        HY3_FAIL_DONE(HY3_EFORMAT, "'%.100s' has a number that no tensor has", path);
    t = &index->tensors[number];
    if (field == HY3_MASTER) {
        if (t->count > 0)
            HY3_FAIL_DONE(HY3_EFORMAT, "'%.100s' has the number of '%s'", path, t->name);
        snprintf(t->name, sizeof t->name, "%s", name);
        t->dims = place.dims;
        memcpy(t->shape, place.shape, sizeof t->shape);
        t->count = place.count;
    }
    if (strcmp(t->name, name) != 0 || t->dims != place.dims ||
        memcmp(t->shape, place.shape, sizeof t->shape) != 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "'%.100s' and 'param' of the same number differ", path);
    t->offset[field] = place.offset;
done:
    if (set >= 0)
        H5Dclose(set);
    return status;
}

struct reader {
    hid_t file;
    struct hy3_state_index *index;
    enum hy3_field field;
    hy3_status status; /* of the last tensor */
};

/* A link of a group, as H5Literate hands it over. Names are visited in the order in which they lie:
 * sorting them makes libhdf5 1.10.8 crash on some damaged groups. */
static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *link, void *reader)
{
    struct reader *r = reader;

    if (link->type != H5L_TYPE_HARD || strlen(name) >= HY3_PARAM_NAME)
        r->status = hy3_fail(HY3_EFORMAT, __FILE__, __LINE__, "'%s/%.100s' is no tensor",
                             hy3_state_field_name(r->field), name);
    else
        r->status = get_tensor(r->file, name, r->index, r->field);
    return r->status == HY3_OK ? 0 : -1;
}

static hy3_status get_field(hid_t file, struct hy3_state_index *index, enum hy3_field field)
{
    hy3_status status = HY3_OK;
    struct reader reader = {.file = file, .index = index, .field = field};
    const char *name = hy3_state_field_name(field);
    hid_t group = H5Gopen2(file, name, H5P_DEFAULT);
    H5G_info_t info;

    if (group < 0 || H5Gget_info(group, &info) < 0 || info.nlinks > MAX_TENSORS)
        HY3_FAIL_DONE(HY3_EFORMAT, "it has no group '%s', or a damaged one", name);
    if (field == HY3_MASTER) {
        index->tensor_count = (int64_t)info.nlinks;
        HY3_TRY_DONE(hy3_alloc(&index->tensors, info.nlinks, sizeof *index->tensors));
    }
    if ((int64_t)info.nlinks != index->tensor_count)
        HY3_FAIL_DONE(HY3_EFORMAT, "'%s' holds %lld tensors instead of %lld", name,
                      (long long)info.nlinks, (long long)index->tensor_count);
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_link, &reader) < 0) {
        HY3_TRY_DONE(reader.status);
        HY3_FAIL_DONE(HY3_EFORMAT, "the names in '%s' cannot be read", name);
    }
done:
    if (group >= 0)
        H5Gclose(group);
    return status;
}

static int by_place(const void *a, const void *b)
{
    const struct hy3_state_slab *x = a, *y = b;

    if (x->field != y->field)
        return x->field < y->field ? -1 : 1;
    if (x->tensor != y->tensor)
        return x->tensor < y->tensor ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

/* Sorts the slabs; every element of every tensor must be in exactly one of them. */
static hy3_status check_slabs(struct hy3_state_index *index)
{
    uint64_t field = 0, tensor = 0, at = 0;
    int64_t i = 0;

    qsort(index->slabs, (size_t)index->slab_count, sizeof *index->slabs, by_place);
    while (field < HY3_FIELDS && index->tensor_count > 0) {
        const struct hy3_state_slab *s = &index->slabs[i];
        uint64_t count = (uint64_t)index->tensors[tensor].count;

        if (i == index->slab_count || s->field != field || s->tensor != tensor || s->first != at ||
            s->count < 1 || s->count > count - at)
            HY3_FAIL(HY3_EFORMAT, "its checksums do not cover '%s/%s' exactly",
                     hy3_state_field_name((enum hy3_field)field), index->tensors[tensor].name);
        i++;
        at += s->count;
        if (at < count)
            continue;
        at = 0;
        tensor = (tensor + 1) % (uint64_t)index->tensor_count;
        field += tensor == 0;
    }
    if (i != index->slab_count)
        HY3_FAIL(HY3_EFORMAT, "it has %lld checksums too many", (long long)(index->slab_count - i));
    return HY3_OK;
}

static hy3_status get_slabs(hid_t file, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    struct hy3_hdf5_place place;
    hid_t set = -1;

    HY3_TRY_DONE(
        hy3_hdf5_open_set(file, "checksums", H5T_STD_U64LE, index->file_bytes, &place, &set));
    if (place.dims != 2 || place.shape[1] != HY3_STATE_SLAB_COLUMNS || place.shape[0] > MAX_SLABS)
        HY3_FAIL_DONE(HY3_EFORMAT, "its checksums are not rows of %d numbers",
                      HY3_STATE_SLAB_COLUMNS);
    index->slab_count = place.shape[0];
    index->slabs_offset = place.offset;
    HY3_TRY_DONE(hy3_alloc(&index->slabs, (size_t)index->slab_count, sizeof *index->slabs));
    if (index->slab_count > 0 &&
        H5Dread(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, index->slabs) < 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "its checksums cannot be read: %s", hy3_hdf5_text());
    HY3_TRY_DONE(check_slabs(index));
done:
    if (set >= 0)
        H5Dclose(set);
    return status;
}

/* A best evaluation or checkpoint is one of those before. */
static hy3_status check_best(const struct hy3_state_best *b, int64_t step)
{
    if (b->evaluated < 0 || b->evaluated > step || b->step < 0 || b->step > b->evaluated ||
        b->stale < 0 || b->stale > b->evaluated || b->checkpoint < 0 || b->checkpoint > step ||
        !isfinite(b->metric) || !isfinite(b->checkpoint_metric))
        HY3_FAIL(HY3_EFORMAT, "its record of the best evaluation is out of range");
    return HY3_OK;
}

/* Counts that a run can have reached; beyond them arithmetic overflows or loops never end. */
static hy3_status check_info(const struct hy3_state_info *i)
{
    const int64_t most = (int64_t)1 << 50;

    if (i->step < 0 || i->step > i->total_steps || i->total_steps > most)
        HY3_FAIL(HY3_EFORMAT, "it is of step %lld of %lld, which no run has reached",
                 (long long)i->step, (long long)i->total_steps);
    if (i->global_batch < 1 || i->global_batch > most || i->data_samples < 1 ||
        i->data_samples > most)
        HY3_FAIL(HY3_EFORMAT, "its global batch (%lld) or number of samples (%lld) is out of range",
                 (long long)i->global_batch, (long long)i->data_samples);
    if (i->tokens < 0 || i->tokens > most || i->log_steps < 0 || i->log_steps > i->step ||
        i->log_tokens < 0 || i->log_tokens > i->tokens || !isfinite(i->log_loss) ||
        !(i->elapsed >= 0 && i->elapsed < 1e12))
        HY3_FAIL(HY3_EFORMAT, "its counts of tokens, steps or seconds are out of range");
    return check_best(&i->best, i->step);
}

static hy3_status get_attribute(hid_t file, const struct hy3_state_attribute *a, char *out)
{
    char *text = NULL;

    if (a->type != 't')
        return hy3_hdf5_get_number(file, a->name, hy3_state_memory_type(a->type), out);
    HY3_TRY(hy3_hdf5_get_text(file, a->name, HY3_STATE_TEXT, &text));
    snprintf(out, HY3_STATE_TEXT, "%s", text);
    hy3_free(text);
    hy3_make_printable(out, false); /* it is shown */
    return HY3_OK;
}

static hy3_status inspect(hid_t file, bool is_sealed, struct hy3_state_index *index)
{
    int64_t complete = 0, version = 0;
    hsize_t bytes = 0;

    if (H5Aexists(file, "complete") > 0)
        HY3_TRY(hy3_hdf5_get_number(file, "complete", H5T_NATIVE_INT64, &complete));
    if (complete != 1)
        HY3_FAIL(HY3_EFORMAT, "its mark 'complete' is missing: it was cut short");
    HY3_TRY(hy3_hdf5_get_number(file, "version", H5T_NATIVE_INT64, &version));
    if (version < 1 || version > HY3_STATE_VERSION)
        HY3_FAIL(HY3_EFORMAT, "it is of version %lld, this program reads 1 to %d",
                 (long long)version, HY3_STATE_VERSION);
    if (version > 1 && !is_sealed)
        HY3_FAIL(HY3_EFORMAT, "the checksum of its metadata is missing: it was cut short");
    if (H5Fget_filesize(file, &bytes) < 0)
        HY3_FAIL(HY3_EFORMAT, "its size is unknown");
    index->file_bytes = (int64_t)bytes;
    for (const struct hy3_state_attribute *a = hy3_state_attributes; a->name; a++)
        if (a->since <= version)
            HY3_TRY(get_attribute(file, a, (char *)&index->info + a->offset));
    HY3_TRY(check_info(&index->info));
    HY3_TRY(hy3_hdf5_get_text(file, "configuration", HY3_STATE_CONFIGURATION_LIMIT,
                              &index->configuration));
    for (int field = 0; field < HY3_FIELDS; field++)
        HY3_TRY(get_field(file, index, field));
    return get_slabs(file, index);
}

/* The bytes that HDF5 interprets are compared before it does. */
static hy3_status check_and_inspect(int fd, const char *path, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    hid_t file = -1;
    bool is_sealed;

    HY3_TRY_DONE(hy3_hdf5_seal_check(fd, path, &is_sealed));
    HY3_TRY_DONE(hy3_hdf5_open_file(path, &file));
    HY3_TRY_DONE(inspect(file, is_sealed, index));
done:
    hy3_hdf5_close(file);
    return status;
}

hy3_status hy3_state_file_inspect(const char *path, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    char why[HY3_ERROR_MAX];
    int fd;

    *index = (struct hy3_state_index){0};
    HY3_TRY(hy3_file_open(path, &fd));
    status = check_and_inspect(fd, path, index);
    close(fd);
    if (status != HY3_OK) {
        snprintf(why, sizeof why, "%s", hy3_error_text());
        status = hy3_fail(status, __FILE__, __LINE__, "'%s': %s", path, why);
        hy3_state_index_free(index);
    }
    return status;
}

void hy3_state_index_free(struct hy3_state_index *index)
{
    hy3_free(index->tensors);
    hy3_free(index->slabs);
    hy3_free(index->configuration);
    *index = (struct hy3_state_index){0};
}
