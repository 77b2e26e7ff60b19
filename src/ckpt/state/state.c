/* SPDX-License-Identifier: Apache-2.0 */
/* state.c - reads state.h5: rank 0 the index, each rank its slabs. */
#include "ckpt/state/state.h"

#include "base/file.h"
#include "base/hdf5.h"
#include "base/memory.h"
#include "ckpt/state/list.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"

#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct hy3_state {
    char path[HY3_PATH_MAX];
    struct hy3_state_index index;
    int fd;
};

/* Broadcasts the index that rank 0 has read. */
static hy3_status share_index(MPI_Comm comm, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    bool first = hy3_rank(comm) == 0;
    int64_t sizes[4] = {index->tensor_count, index->slab_count, 0, index->file_bytes};

    sizes[2] = first ? (int64_t)strlen(index->configuration) + 1 : 0;
    hy3_broadcast(comm, 0, sizes, sizeof sizes, "reading a checkpoint");
    if (!first) {
        index->tensor_count = sizes[0];
        index->slab_count = sizes[1];
        index->file_bytes = sizes[3];
        status = hy3_alloc(&index->tensors, (size_t)sizes[0], sizeof *index->tensors);
        if (status == HY3_OK)
            status = hy3_alloc(&index->slabs, (size_t)sizes[1], sizeof *index->slabs);
        if (status == HY3_OK)
            status = hy3_alloc(&index->configuration, (size_t)sizes[2], 1);
    }
    HY3_AGREE(comm, status, "reading a checkpoint");
    hy3_broadcast(comm, 0, &index->info, sizeof index->info, "reading a checkpoint");
    hy3_broadcast(comm, 0, index->tensors, (size_t)sizes[0] * sizeof *index->tensors,
                  "reading a checkpoint");
    hy3_broadcast(comm, 0, index->slabs, (size_t)sizes[1] * sizeof *index->slabs,
                  "reading a checkpoint");
    hy3_broadcast(comm, 0, index->configuration, (size_t)sizes[2], "reading a checkpoint");
    return status;
}

static hy3_status open_here(struct hy3_state *state)
{
    int64_t bytes;

    HY3_TRY(hy3_file_open(state->path, &state->fd));
    HY3_TRY(hy3_file_size(state->path, &bytes));
    if (bytes < state->index.file_bytes)
        HY3_FAIL(HY3_EFORMAT, "'%s' has %lld bytes here, %lld on rank 0: is it a shared directory?",
                 state->path, (long long)bytes, (long long)state->index.file_bytes);
    return HY3_OK;
}

/* The directory of a state file. */
static void directory_of(const char *path, char directory[HY3_PATH_MAX])
{
    snprintf(directory, HY3_PATH_MAX, "%.*s", (int)(hy3_path_name(path) - path), path);
    for (size_t n = strlen(directory); n > 1 && directory[n - 1] == '/'; n--)
        directory[n - 1] = '\0';
    if (directory[0] == '\0')
        memcpy(directory, ".", 2);
}

/* Rank 0. The step inside the file is that of its directory's name. */
static hy3_status inspect(const char *path, struct hy3_state_index *index)
{
    char directory[HY3_PATH_MAX];

    HY3_TRY(hy3_state_file_inspect(path, index));
    directory_of(path, directory);
    return hy3_checkpoint_check_name(directory, index->info.step);
}

/* Says what is there instead of a state file: users name the wrong directory. */
static hy3_status no_state(const char *path)
{
    char directory[HY3_PATH_MAX];
    int64_t *steps = NULL, newest = -1;
    size_t count;

    directory_of(path, directory);
    if (!hy3_path_is_directory(directory))
        HY3_FAIL(HY3_EIO, "'%s' is no checkpoint: there is no such directory", directory);
    HY3_TRY(hy3_checkpoints_list(directory, &steps, &count));
    newest = count > 0 ? steps[0] : -1;
    hy3_free(steps);
    if (newest >= 0)
        HY3_FAIL(HY3_EIO, "'%s' is no checkpoint: it has no state.h5, but '%s/checkpoint-%lld'",
                 directory, directory, (long long)newest);
    if (hy3_path_exists_in(directory, "model.safetensors") ||
        hy3_path_exists_in(directory, "model.safetensors.index.json"))
        HY3_FAIL(HY3_EIO,
                 "'%s' is no checkpoint: it has no state.h5, but a model; it can be the "
                 "model_name_or_path of a run, and needs no hy3_export",
                 directory);
    HY3_FAIL(HY3_EIO, "'%s' is no checkpoint: it has no state.h5", directory);
}

hy3_status hy3_state_open(MPI_Comm comm, const char *path, struct hy3_state **out)
{
    hy3_status status = HY3_OK;
    struct hy3_state *state = NULL;

    *out = NULL;
    HY3_AGREE_DONE(comm, hy3_alloc(&state, 1, sizeof *state), "reading a checkpoint");
    state->fd = -1;
    status = hy3_path_format(state->path, sizeof state->path, "%s", path);
    if (status == HY3_OK && hy3_rank(comm) == 0)
        status = hy3_path_exists(path) ? inspect(path, &state->index) : no_state(path);
    HY3_AGREE_DONE(comm, status, "reading a checkpoint");
    HY3_TRY_DONE(share_index(comm, &state->index));
    HY3_AGREE_DONE(comm, open_here(state), "reading a checkpoint");
    *out = HY3_TAKE(state);
done:
    hy3_state_close(state);
    return status;
}

void hy3_state_close(struct hy3_state *state)
{
    if (!state)
        return;
    if (state->fd >= 0)
        close(state->fd);
    hy3_state_index_free(&state->index);
    hy3_free(state);
}

double hy3_state_bytes(const struct hy3_params *params)
{
    return (double)(HY3_FIELDS * sizeof(float)) * (double)hy3_params_trained(params);
}

const struct hy3_state_info *hy3_state_info(const struct hy3_state *state)
{
    return &state->index.info;
}

const char *hy3_state_configuration(const struct hy3_state *state)
{
    return state->index.configuration;
}

static const struct hy3_state_tensor *find(const struct hy3_state *state, const char *name)
{
    for (int64_t i = 0; i < state->index.tensor_count; i++)
        if (strcmp(state->index.tensors[i].name, name) == 0)
            return &state->index.tensors[i];
    return NULL;
}

/* Whether the trained tensor of that name is in the table. */
static bool is_trained(const struct hy3_params *params, const char *name)
{
    for (int i = 0; i < params->count; i++)
        if (params->params[i].trainable && strcmp(params->params[i].name, name) == 0)
            return true;
    return false;
}

/* By names: versions 1 and 2 number a router before the shared experts of its layer. */
hy3_status hy3_state_matches(const struct hy3_state *state, const struct hy3_params *params)
{
    int64_t n = 0;

    for (int i = 0; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];
        const struct hy3_state_tensor *t;

        if (!p->trainable)
            continue;
        t = find(state, p->name);
        if (!t || t->dims != p->dims || memcmp(t->shape, p->shape, sizeof t->shape) != 0)
            HY3_FAIL(HY3_EUSAGE, "'%s' is of another run: this run trains '%s', which the file %s",
                     state->path, p->name, t ? "has in another shape" : "does not have");
        n++;
    }
    for (int64_t i = 0; n < state->index.tensor_count && i < state->index.tensor_count; i++)
        if (!is_trained(params, state->index.tensors[i].name))
            HY3_FAIL(HY3_EUSAGE,
                     "'%s' is of another run: it has '%s', which this run does not train",
                     state->path, state->index.tensors[i].name);
    if (n < state->index.tensor_count)
        HY3_FAIL(HY3_EFORMAT, "'%s' names a tensor twice", state->path);
    return HY3_OK;
}

/* Reads a slab and compares it with its checksum. */
static hy3_status read_slab(const struct hy3_state *state, const struct hy3_state_slab *slab,
                            float *values)
{
    const struct hy3_state_tensor *t = &state->index.tensors[slab->tensor];
    size_t bytes = slab->count * sizeof(float);

    HY3_TRY(hy3_file_read_at(state->fd, values, bytes,
                             t->offset[slab->field] + (int64_t)(slab->first * sizeof(float)),
                             state->path));
    if (XXH3_64bits(values, bytes) != slab->checksum)
        HY3_FAIL(HY3_EFORMAT, "'%s': elements %lld to %lld of '%s/%s' are damaged (wrong checksum)",
                 state->path, (long long)slab->first, (long long)(slab->first + slab->count - 1),
                 hy3_state_field_name((enum hy3_field)slab->field), t->name);
    return HY3_OK;
}

static size_t largest_slab(const struct hy3_state *state)
{
    uint64_t most = 1;

    for (int64_t i = 0; i < state->index.slab_count; i++)
        most = state->index.slabs[i].count > most ? state->index.slabs[i].count : most;
    return (size_t)most;
}

/* By tensor, field and place. */
static int compare_slabs(const void *a, const void *b)
{
    const struct hy3_state_slab *x = *(const struct hy3_state_slab *const *)a;
    const struct hy3_state_slab *y = *(const struct hy3_state_slab *const *)b;
    const uint64_t keys[][2] = {{x->tensor, y->tensor}, {x->field, y->field}, {x->first, y->first}};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i][0] != keys[i][1])
            return keys[i][0] < keys[i][1] ? -1 : 1;
    return 0;
}

/* The slabs as they follow each other in their tensors: what takes values in blocks gets the parts
 * of one together. [slab_count], the caller's. */
static hy3_status sort_slabs(const struct hy3_state *state, const struct hy3_state_slab ***out)
{
    size_t count = (size_t)state->index.slab_count;

    HY3_TRY(hy3_alloc(out, count, sizeof(void *)));
    for (size_t i = 0; i < count; i++)
        (*out)[i] = &state->index.slabs[i];
    qsort((void *)*out, count, sizeof(void *), compare_slabs);
    return HY3_OK;
}

hy3_status hy3_state_load(const struct hy3_state *state, const struct hy3_params *params,
                          struct hy3_values values)
{
    hy3_status status = HY3_OK;
    const struct hy3_param **by_number = NULL;
    const struct hy3_state_slab **sorted = NULL;
    float *read = NULL;

    HY3_TRY_DONE(hy3_state_matches(state, params));
    HY3_TRY_DONE(hy3_alloc(&read, largest_slab(state), sizeof *read));
    HY3_TRY_DONE(sort_slabs(state, &sorted));
    HY3_TRY_DONE(hy3_alloc(&by_number, (size_t)state->index.tensor_count, sizeof(void *)));
    for (int i = 0; i < params->count; i++)
        if (params->params[i].trainable)
            by_number[find(state, params->params[i].name) - state->index.tensors] =
                &params->params[i];
    for (int64_t i = 0; i < state->index.slab_count; i++) {
        const struct hy3_state_slab *slab = sorted[i];
        const struct hy3_param *p = by_number[slab->tensor];
        struct hy3_span whole = {(int64_t)slab->first, (int64_t)slab->count};
        struct hy3_span part = hy3_span_intersect(values.kept(values.of, p), whole);

        if (part.count == 0)
            continue;
        HY3_TRY_DONE(hy3_stop_check("reading a checkpoint"));
        HY3_TRY_DONE(read_slab(state, slab, read));
        HY3_TRY_DONE(values.put(values.of, (enum hy3_field)slab->field, p, part,
                                read + part.first - whole.first));
    }
done:
    hy3_free((void *)by_number);
    hy3_free((void *)sorted);
    hy3_free(read);
    return status;
}

hy3_status hy3_state_verify(const struct hy3_state *state, int rank, int ranks)
{
    hy3_status status = HY3_OK;
    float *values = NULL;

    HY3_TRY_DONE(hy3_alloc(&values, largest_slab(state), sizeof *values));
    for (int64_t i = rank; i < state->index.slab_count; i += ranks) {
        HY3_TRY_DONE(hy3_stop_check("checking a checkpoint"));
        HY3_TRY_DONE(read_slab(state, &state->index.slabs[i], values));
    }
done:
    hy3_free(values);
    return status;
}

static hy3_status get(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, float *out)
{
    const struct hy3_state *state = of;
    const struct hy3_state_tensor *t = find(state, param->name);

    if (!t || span.first < 0 || span.count > t->count - span.first)
        HY3_FAIL(HY3_EUSAGE, "'%s' does not have these elements of '%s'", state->path, param->name);
    return hy3_file_read_at(state->fd, out, (size_t)span.count * sizeof *out,
                            t->offset[field] + span.first * (int64_t)sizeof *out, state->path);
}

struct hy3_values hy3_state_values(struct hy3_state *state)
{
    return (struct hy3_values){.of = state, .get = get};
}
