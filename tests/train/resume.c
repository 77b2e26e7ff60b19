/* SPDX-License-Identifier: Apache-2.0 */
/* resume.c - a run that continues from a checkpoint ends where the undisturbed one does: bit for
 * bit on the same layout, up to the order of sums on another; and what happens to checkpoints that
 * are damaged. */
#include "base/file.h"
#include "base/memory.h"
#include "ckpt/state/file.h"
#include "ckpt/state/state.h"
#include "comm/comm.h"
#include "support/golden.h"
#include "support/training.h"
#include "train/checkpoint.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

enum { STEPS = 6, MIDDLE = 4, GLOBAL_BATCH = 12, ARG_MAX = HY3_PATH_MAX + 64 };

#define DIVIDED "stage3_param_persistence_threshold=0"

struct layout {
    int ranks;
    const char *settings[7];
};

struct task {
    const char *name, *file;
    const char *settings[8];
};

static const struct task full = {"full", "model.safetensors", {"bf16=false"}};
static const struct task lora = {"lora",
                                 "adapter_model.safetensors",
                                 {"bf16=false", "finetuning_type=lora", "lora_target=[\"all\"]",
                                  "lora_rank=4", "lora_dropout=0.2"}};
static const struct task packed = {
    "packed", "model.safetensors", {"bf16=false", "packing=true", "packing_length=128"}};
static const struct task narrow = {"bf16", "model.safetensors", {"bf16=true", "logging_steps=4"}};
static const struct task attention = {
    "attention", "model.safetensors", {"bf16=true", "finetuning_type=attention"}};

static const struct task coded = {
    "8bit",
    "model.safetensors",
    {"bf16=true", "logging_steps=1", "optim=adamw_8bit", "save_async=true"}};
static const struct task carried = {
    "bf16 gradients", "model.safetensors", {"bf16=true", "logging_steps=1", "grad_dtype=bf16"}};
static const struct task plain = {
    "fp32 moments", "model.safetensors", {"bf16=true", "logging_steps=1"}};
static const struct task rounded = {
    "bf16 moments",
    "model.safetensors",
    {"bf16=true", "logging_steps=1", "optim=adamw_bf16", "save_async=true"}};

static const char *path_of(const char *name, const char *below)
{
    static char paths[4][HY3_PATH_MAX];
    static int next;
    char *path = paths[next = (next + 1) % 4];

    snprintf(path, HY3_PATH_MAX, "%s/%s%s", hy3_test_directory(), name, below);
    return path;
}

/* Trains on the first ranks of the world, the others wait; `more` (may be NULL) are further
 * settings. */
static hy3_status train(const char *name, const struct task *task, const struct layout *l,
                        const char *const *more)
{
    static char texts[16][ARG_MAX];
    const char *all[HY3_TEST_SETTINGS] = {0};
    int count = 0;
    bool takes_part = hy3_rank(MPI_COMM_WORLD) < l->ranks;
    MPI_Comm comm;
    hy3_status status = HY3_OK;

    MPI_Comm_split(MPI_COMM_WORLD, takes_part ? 0 : MPI_UNDEFINED, 0, &comm);
#define ARG(...) snprintf(texts[count], ARG_MAX, __VA_ARGS__), all[count] = texts[count], count++
    ARG("model_name_or_path=%s", hy3_golden("a/inner"));
    ARG("tokenizer_name_or_path=%s", hy3_golden("a/tokenizer"));
    ARG("train_data_file=%s", hy3_golden("a/dataset.jsonl"));
    ARG("cache_dir=%s", path_of("cache", ""));
    ARG("max_seq_length=64");
    ARG("per_device_train_batch_size=%d",
        GLOBAL_BATCH / l->ranks * hy3_test_shared_by(l->settings));
    ARG("learning_rate=1e-3");
    ARG("weight_decay=0.1");
    ARG("warmup_steps=2");
    ARG("max_steps=%d", STEPS);
    ARG("save_steps=2");
    ARG("save_format=outer");
#undef ARG
    for (int i = 0; i < 8 && task->settings[i]; i++)
        all[count++] = task->settings[i];
    for (int i = 0; i < 6 && l->settings[i]; i++)
        all[count++] = l->settings[i];
    for (int i = 0; more && more[i]; i++)
        all[count++] = more[i];
    if (takes_part) {
        status = hy3_test_try_to_train(comm, path_of(name, ""), all);
        MPI_Comm_free(&comm);
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
    return status;
}

static const char *const afresh[] = {"overwrite_output_dir=true", NULL};
static const char *const go_on[] = {"overwrite_output_dir=false", "resume_from_checkpoint=auto",
                                    NULL};

static void shell(const char *format, ...)
{
    char command[3 * HY3_PATH_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): test directories only */
    hy3_barrier(MPI_COMM_WORLD, "testing");
}

/* `to` becomes the run `from` as it was when a crash followed its checkpoint of step MIDDLE. */
static void cut_short(const char *from, const char *to)
{
    shell("rm -rf %s && cp -r %s %s && cd %s && rm -rf checkpoint-%d model* adapter* loss.png",
          path_of(to, ""), path_of(from, ""), path_of(to, ""), path_of(to, ""), STEPS);
}

/* The log without what depends on the clock. */
static bool same_log(const char *a, const char *b, size_t lines)
{
    static const char *const keys[] = {"step",      "epoch",         "loss",
                                       "grad_norm", "learning_rate", "num_tokens"};
    bool same = true;

    for (size_t i = 0; i < lines; i++) {
        json_t *x = hy3_test_logged(path_of(a, ""), i), *y = hy3_test_logged(path_of(b, ""), i);

        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            same = same && json_equal(json_object_get(x, keys[k]), json_object_get(y, keys[k]));
        json_decref(x);
        json_decref(y);
    }
    return same;
}

static bool same_file(const char *a, const char *b, const char *file)
{
    char *x, *y;
    size_t n, m;
    bool same;

    assert_ok(hy3_file_read(path_of(a, file), (size_t)1 << 26, &x, &n));
    assert_ok(hy3_file_read(path_of(b, file), (size_t)1 << 26, &y, &m));
    same = n == m && memcmp(x, y, n) == 0;
    hy3_free(x);
    hy3_free(y);
    return same;
}

static void check_same_bits(const struct task *task, const struct layout *l)
{
    char file[64];
    bool same = true;

    if (l->ranks > hy3_size(MPI_COMM_WORLD))
        return;
    snprintf(file, sizeof file, "/%s", task->file);
    assert_all(train("whole", task, l, afresh) == HY3_OK);
    cut_short("whole", "cut");
    assert_all(train("cut", task, l, go_on) == HY3_OK);
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        same = same_log("whole", "cut", task == &narrow ? 2 : STEPS) &&
               same_file("whole", "cut", file);
    assert_all(same);
}

static void the_same_layout_continues_bit_for_bit(void **state)
{
    static const struct layout layouts[] = {
        {1, {"zero_stage=0", "expert_parallel_size=1"}},
        {1, {"zero_stage=3", DIVIDED, "offload=full"}},
        {2, {"zero_stage=1", "expert_parallel_size=2", "save_async=true"}},
        {4, {"zero_stage=3", DIVIDED, "expert_parallel_size=2", "save_async=true"}},
        {4, {"zero_stage=2", "expert_parallel_size=4", "offload=optimizer"}},
        {4, {"zero_stage=3", DIVIDED, "zero_group_size=2", "save_async=true"}},
        {4, {"zero_stage=0", "expert_parallel_size=1", "save_total_limit=2"}},
        {4, {"zero_stage=3", DIVIDED, "expert_parallel_size=2", "sequence_parallel_size=4"}},
    };
    static const struct task *const tasks[] = {&full, &lora, &narrow, &attention};

    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++)
            if (getenv("HY3_LONG") || (i + t) % 2 == 0)
                check_same_bits(tasks[t], &layouts[i]);
}

static double mean_difference(const char *a, const char *b)
{
    struct hy3_shard *one, *other;
    double sum = 0, count = 0;

    assert_ok(hy3_shard_open(a, &one));
    assert_ok(hy3_shard_open(b, &other));
    for (int i = 0; i < hy3_shard_count(one); i++) {
        const char *name = hy3_shard_tensor(one, i)->name;
        int64_t n;
        float *x = hy3_golden_floats(one, name, &n), *y = hy3_golden_floats(other, name, NULL);

        sum += hy3_mean_difference(x, y, n) * (double)n;
        count += (double)n;
        hy3_free(x);
        hy3_free(y);
    }
    hy3_shard_close(one);
    hy3_shard_close(other);
    return sum / count;
}

static void check_elastic(const struct task *task, const struct layout *from,
                          const struct layout *to)
{
    char file[64];

    if (from->ranks > hy3_size(MPI_COMM_WORLD) || to->ranks > hy3_size(MPI_COMM_WORLD))
        return;
    snprintf(file, sizeof file, "/%s", task->file);
    assert_all(train("whole", task, from, afresh) == HY3_OK);
    cut_short("whole", "cut");
    assert_all(train("cut", task, to, go_on) == HY3_OK);
    if (hy3_rank(MPI_COMM_WORLD) != 0)
        return;
    for (size_t i = 0; i < STEPS; i++) {
        json_t *x = hy3_test_logged(path_of("whole", ""), i);
        json_t *y = hy3_test_logged(path_of("cut", ""), i);

        hy3_assert_within("loss", fabs(hy3_json_number(x, "loss") - hy3_json_number(y, "loss")),
                          2e-5);
        hy3_assert_within(
            "norm", fabs(hy3_json_number(x, "grad_norm") / hy3_json_number(y, "grad_norm") - 1),
            2e-5);
        assert_true(hy3_json_number(x, "num_tokens") == hy3_json_number(y, "num_tokens"));
        json_decref(x);
        json_decref(y);
    }
    hy3_assert_within("weights, mean",
                      mean_difference(path_of("whole", file), path_of("cut", file)), 1e-6);
}

static void another_layout_continues_with_the_same_numbers(void **state)
{
    static const struct layout one = {1, {"zero_stage=0"}};
    static const struct layout two = {2, {"zero_stage=2", "expert_parallel_size=2"}};
    static const struct layout three = {3, {"zero_stage=3", DIVIDED, "expert_parallel_size=1"}};
    static const struct layout four = {4, {"zero_stage=3", DIVIDED, "expert_parallel_size=4"}};
    static const struct layout four_1 = {4, {"zero_stage=1", "expert_parallel_size=1"}};
    static const struct layout four_full = {
        4, {"zero_stage=3", DIVIDED, "expert_parallel_size=2", "offload=full"}};
    static const struct layout pairs = {4, {"zero_stage=2", "zero_group_size=2"}};
    static const struct layout shared = {
        4, {"zero_stage=1", "expert_parallel_size=4", "sequence_parallel_size=4"}};
    static const struct layout shared_3 = {
        4, {"zero_stage=3", "expert_parallel_size=2", "sequence_parallel_size=2"}};

    (void)state;
    check_elastic(&full, &one, &shared);
    check_elastic(&full, &shared, &one);
    check_elastic(&lora, &shared, &shared_3);
    check_elastic(&full, &pairs, &four);
    check_elastic(&lora, &four, &pairs);
    check_elastic(&full, &two, &four);
    check_elastic(&lora, &four, &three);
    check_elastic(&full, &four, &four_1);
    check_elastic(&lora, &four_1, &four_full);
    check_elastic(&full, &four_full, &one);
    check_elastic(&lora, &one, &four);
}

static void moments_and_gradients_of_fewer_bytes_continue_bit_for_bit(void **state)
{
    static const struct layout layouts[] = {
        {1, {"zero_stage=3", DIVIDED, "offload=optimizer"}},
        {2, {"zero_stage=1", "expert_parallel_size=2", "save_async=true"}},
        {3, {"zero_stage=3", DIVIDED, "expert_parallel_size=1"}},
        {4, {"zero_stage=2", "zero_group_size=2"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        check_same_bits(&coded, &layouts[i]);
        check_same_bits(&rounded, &layouts[i]);
        check_same_bits(&carried, &layouts[i]);
    }
}

/* Runs on from a checkpoint with moments or gradients of another format, on another layout. */
static void check_formats(const struct task *task, const struct layout *from,
                          const struct layout *to, const char *setting)
{
    const char *const more[] = {go_on[0], go_on[1], setting, NULL};

    if (from->ranks > hy3_size(MPI_COMM_WORLD) || to->ranks > hy3_size(MPI_COMM_WORLD))
        return;
    assert_all(train("whole", task, from, afresh) == HY3_OK);
    cut_short("whole", "cut");
    assert_all(train("cut", task, to, more) == HY3_OK);
    for (size_t i = 0; hy3_rank(MPI_COMM_WORLD) == 0 && i < STEPS; i++) {
        json_t *x = hy3_test_logged(path_of("whole", ""), i);
        json_t *y = hy3_test_logged(path_of("cut", ""), i);

        hy3_assert_within("loss", fabs(hy3_json_number(x, "loss") - hy3_json_number(y, "loss")),
                          i < MIDDLE ? 0 : 4e-2); /* bf16 moments are rounded at random */
        json_decref(x);
        json_decref(y);
    }
}

static void a_run_continues_with_moments_and_gradients_of_another_format(void **state)
{
    static const struct layout one = {1, {"zero_stage=0"}};
    static const struct layout four = {4, {"zero_stage=3", DIVIDED, "expert_parallel_size=2"}};

    (void)state;
    check_formats(&coded, &one, &one, "optim=adamw");
    check_formats(&plain, &one, &one, "optim=adamw_8bit");
    check_formats(&coded, &one, &four, "optim=adamw_8bit");
    check_formats(&coded, &four, &one, "optim=adamw_bf16");
    check_formats(&rounded, &four, &one, "optim=adamw_8bit");
    check_formats(&plain, &one, &four, "grad_dtype=bf16");
    check_formats(&carried, &four, &four, "grad_dtype=fp32");
}

/* Rows of 128 tokens: an epoch has a full step of 12 and a partial one. */
static void a_packed_run_continues_as_others_do(void **state)
{
    static const struct layout one = {1, {"zero_stage=0"}};
    static const struct layout two = {2, {"zero_stage=1", "expert_parallel_size=2"}};
    static const struct layout four = {4, {"zero_stage=3", DIVIDED, "expert_parallel_size=1"}};

    (void)state;
    check_same_bits(&packed, &one);
    check_same_bits(&packed, &two);
    check_same_bits(&packed, &four);
    check_elastic(&packed, &two, &four);
    check_elastic(&packed, &four, &one);
}

/* Changes a byte in the middle of the values of a dataset's first tensor; field -1: of the table of
 * checksums. */
static void flip(const char *path, int field)
{
    struct hy3_state_index index;
    int64_t at;
    char byte;
    int fd;

    assert_ok(hy3_state_file_inspect(path, &index));
    at = field < 0 ? index.slabs_offset + 8 * (5 * (index.slab_count / 2) + 4)
                   : index.tensors[3].offset[field] + index.tensors[3].count * 2;
    hy3_state_index_free(&index);
    assert_true((fd = open(path, O_RDWR | O_CLOEXEC)) >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void delete_mark(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);

    assert_true(file >= 0);
    assert_true(H5Adelete(file, "complete") >= 0);
    H5Fclose(file);
}

/* Makes a state file as version 1 wrote it, without the base, the adapter's settings and the best
 * evaluation. */
static void forget_identity(const char *path)
{
    static const char *const names[] = {"base_fingerprint",
                                        "base",
                                        "adapter",
                                        "eval_step",
                                        "best_step",
                                        "best_metric",
                                        "stale_evaluations",
                                        "best_checkpoint",
                                        "best_checkpoint_metric",
                                        "eval_fingerprint"};
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), version;
    const int64_t one = 1;

    assert_true(file >= 0);
    assert_true((version = H5Aopen(file, "version", H5P_DEFAULT)) >= 0);
    assert_true(H5Awrite(version, H5T_NATIVE_INT64, &one) >= 0);
    H5Aclose(version);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_true(H5Adelete(file, names[i]) >= 0);
    H5Fclose(file);
}

/* Gives the tensors the numbers n-1 to 0: others than this version would. */
static void renumber_tensors(const char *path)
{
    static struct hy3_state_slab slabs[1000];
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), set;
    int64_t count = 0;

    assert_true(file >= 0);
    for (int field = 0; field < HY3_FIELDS; field++) {
        hid_t group = H5Gopen2(file, hy3_state_field_name((enum hy3_field)field), H5P_DEFAULT);
        H5G_info_t info;

        assert_true(group >= 0 && H5Gget_info(group, &info) >= 0);
        count = (int64_t)info.nlinks;
        for (hsize_t i = 0; i < info.nlinks; i++) {
            hid_t tensor = H5Oopen_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT);
            hid_t attribute = H5Aopen(tensor, "tensor", H5P_DEFAULT);
            int64_t number;

            assert_true(H5Aread(attribute, H5T_NATIVE_INT64, &number) >= 0);
            number = count - 1 - number;
            assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &number) >= 0);
            H5Aclose(attribute);
            H5Oclose(tensor);
        }
        H5Gclose(group);
    }
    assert_true((set = H5Dopen2(file, "checksums", H5P_DEFAULT)) >= 0);
    assert_in_range(H5Dget_storage_size(set), 1, sizeof slabs);
    assert_true(H5Dread(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, slabs) >= 0);
    for (size_t i = 0; i < H5Dget_storage_size(set) / sizeof *slabs; i++)
        slabs[i].tensor = (uint64_t)count - 1 - slabs[i].tensor;
    assert_true(H5Dwrite(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, slabs) >= 0);
    H5Dclose(set);
    H5Fclose(file);
}

static void damage(const char *path, int kind)
{
    int64_t bytes;

    assert_ok(hy3_file_size(path, &bytes));
    if (kind == 0)
        assert_int_equal(truncate(path, bytes - 1), 0);
    else if (kind == 1)
        assert_int_equal(truncate(path, 0), 0);
    else if (kind == 2)
        delete_mark(path);
    else if (kind == 3)
        assert_int_equal(unlink(path), 0);
    else
        flip(path, kind - 5);
}

/* The newest checkpoint is damaged: the one before is used and gives the same end. All are damaged:
 * an error, and nothing is lost. */
static void a_damaged_checkpoint_is_skipped(void **state)
{
    static const struct layout one = {1, {NULL}}, four = {4, {NULL}};
    const struct layout *l = hy3_size(MPI_COMM_WORLD) >= 4 ? &four : &one;

    (void)state;
    assert_all(train("whole", &full, l, afresh) == HY3_OK);
    for (int kind = 0; kind < 8; kind++) {
        char newest[HY3_PATH_MAX], older[HY3_PATH_MAX];
        bool same = true;

        cut_short("whole", "cut");
        snprintf(newest, sizeof newest, "%s/checkpoint-%d/state.h5", path_of("cut", ""), MIDDLE);
        snprintf(older, sizeof older, "%s/checkpoint-%d/state.h5", path_of("cut", ""), MIDDLE - 2);
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            damage(newest, kind);
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(train("cut", &full, l, go_on) == HY3_OK);
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            same = same_file("whole", "cut", "/model.safetensors");
        assert_all(same);
        cut_short("whole", "cut");
        if (hy3_rank(MPI_COMM_WORLD) == 0) {
            damage(newest, kind);
            damage(older, kind);
        }
        hy3_barrier(MPI_COMM_WORLD, "testing");
        if (hy3_rank(MPI_COMM_WORLD) == 0 && getenv("HY3_VERBOSE"))
            printf("# damage of kind %d\n", kind);
        assert_all(train("cut", &full, l, go_on) != HY3_OK || hy3_rank(MPI_COMM_WORLD) >= l->ranks);
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            assert_non_null(
                strstr(hy3_error_text(), kind == 3 ? "have lost their state.h5" : "no checkpoint"));
    }
}

static void a_checkpoint_of_another_run_is_refused(void **state)
{
    static const struct layout one = {1, {NULL}};
    static const struct layout batch = {1, {"gradient_accumulation_steps=2"}};
    static const struct layout seed = {1, {"seed=7"}};
    static const struct layout data = {1, {"max_samples=5"}};
    static const struct layout rows = {1, {"packing=true"}};

    static const struct {
        const struct task *task;
        const struct layout *layout;
        const char *words;
    } others[] = {
        {&full, &batch, "global batch"},      {&full, &seed, "seed"},
        {&full, &data, "training data"},      {&lora, &one, "of another run"},
        {&attention, &one, "of another run"}, {&full, &rows, "packing: false -> true"},
    };

    (void)state;
    assert_all(train("whole", &full, &one, afresh) == HY3_OK);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        bool refused = true;

        cut_short("whole", "cut");
        if (train("cut", others[i].task, others[i].layout, go_on) == HY3_OK)
            refused = hy3_rank(MPI_COMM_WORLD) > 0;
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            refused = refused && strstr(hy3_error_text(), others[i].words);
        assert_all(refused);
    }
}

/* Version 1 kept no base, and numbered the tensors in another order. */
static void a_checkpoint_of_an_earlier_version_continues(void **state)
{
    static const struct layout one = {1, {NULL}};
    static const struct task *const tasks[] = {&lora, &full};
    char path[HY3_PATH_MAX], file[HY3_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        assert_all(train("whole", tasks[i], &one, afresh) == HY3_OK);
        cut_short("whole", "cut");
        snprintf(path, sizeof path, "%s/checkpoint-%d/state.h5", path_of("cut", ""), MIDDLE);
        snprintf(file, sizeof file, "/%s", tasks[i]->file);
        if (hy3_rank(MPI_COMM_WORLD) == 0) {
            forget_identity(path);
            renumber_tensors(path);
        }
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(train("cut", tasks[i], &one, go_on) == HY3_OK);
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            assert_true(same_file("whole", "cut", file));
    }
}

static void old_checkpoints_go_and_small_files_are_there(void **state)
{
    static const struct layout one = {1, {"save_total_limit=2"}};
    int64_t *steps;
    size_t count;

    (void)state;
    assert_all(train("whole", &lora, &one, afresh) == HY3_OK);
    assert_ok(hy3_checkpoints_list(path_of("whole", ""), &steps, &count));
    assert_all(count == 2 && steps[0] == 6 && steps[1] == 4);
    hy3_free(steps);
    assert_all(hy3_path_exists(path_of("whole", "/checkpoint-4/adapter_model.safetensors")));
    assert_all(hy3_path_exists(path_of("whole", "/checkpoint-4/tokenizer.json")));
    assert_all(same_file("whole/checkpoint-6", "whole", "/adapter_model.safetensors"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_layout_continues_bit_for_bit),
        cmocka_unit_test(another_layout_continues_with_the_same_numbers),
        cmocka_unit_test(moments_and_gradients_of_fewer_bytes_continue_bit_for_bit),
        cmocka_unit_test(a_run_continues_with_moments_and_gradients_of_another_format),
        cmocka_unit_test(a_packed_run_continues_as_others_do),
        cmocka_unit_test(a_damaged_checkpoint_is_skipped),
        cmocka_unit_test(a_checkpoint_of_another_run_is_refused),
        cmocka_unit_test(a_checkpoint_of_an_earlier_version_continues),
        cmocka_unit_test(old_checkpoints_go_and_small_files_are_there),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
