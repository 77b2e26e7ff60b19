/* SPDX-License-Identifier: Apache-2.0 */
/* training.c - configuration from arguments, then what hy3_sft.c does. */
#include "support/training.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "ckpt/state/file.h"
#include "comm/comm.h"
#include "config/config.h"
#include "support/golden.h"
#include "train/run.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

hy3_status hy3_test_try_to_train(MPI_Comm comm, const char *out, const char *const *settings)
{
    hy3_status status = HY3_OK;
    char *argv[HY3_TEST_SETTINGS + 4] = {0}, path[HY3_PATH_MAX + 32], output[HY3_PATH_MAX + 32];
    static const char ours[] =
        "plot_loss = false;\noverwrite_output_dir = true;\n"
        "resume_from_checkpoint = \"none\";\n";
    int argc = 0;
    struct hy3_config config = {0};
    struct hy3_run *run = NULL;
    bool finished;

    snprintf(path, sizeof path, "%s.cfg", out);
    snprintf(output, sizeof output, "output_dir=%s", out);
    if (hy3_rank(comm) == 0)
        assert_ok(hy3_output_replace(path, ours, sizeof ours - 1));
    hy3_barrier(comm, "testing");
    HY3_TRY_DONE(hy3_strdup("hy3_sft", &argv[argc++]));
    HY3_TRY_DONE(hy3_strdup(path, &argv[argc++]));
    HY3_TRY_DONE(hy3_strdup(output, &argv[argc++]));
    for (int i = 0; settings[i]; i++)
        HY3_TRY_DONE(hy3_strdup(settings[i], &argv[argc++]));
    HY3_TRY_DONE(hy3_config_parse(&config, comm, argc, argv, "", &finished));
    HY3_TRY_DONE(hy3_run_open(comm, &config, &run));
    HY3_TRY_DONE(hy3_run_train(run));
done:
    hy3_run_close(run);
    hy3_config_free(&config);
    for (int i = 0; i < argc; i++)
        hy3_free(argv[i]);
    hy3_barrier(comm, "testing");
    return status;
}

void hy3_test_train(MPI_Comm comm, const char *out, const char *const *settings)
{
    assert_ok(hy3_test_try_to_train(comm, out, settings));
}

int hy3_test_shared_by(const char *const *settings)
{
    static const char key[] = "sequence_parallel_size=";

    for (int i = 0; settings[i]; i++)
        if (strncmp(settings[i], key, sizeof key - 1) == 0)
            return (int)strtol(settings[i] + sizeof key - 1, NULL, 10);
    return 1;
}

double hy3_json_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

json_t *hy3_test_logged(const char *out, size_t step)
{
    char path[HY3_PATH_MAX + 32], *text, *at;
    size_t size;
    json_t *line;

    snprintf(path, sizeof path, "%s/train_log.jsonl", out);
    assert_ok(hy3_file_read(path, (size_t)1 << 20, &text, &size));
    at = text;
    while (step-- > 0 && strchr(at, '\n'))
        at = strchr(at, '\n') + 1;
    assert_non_null(strchr(at, '\n'));
    assert_ok(hy3_json_parse(at, (size_t)(strchr(at, '\n') - at), path, &line));
    hy3_free(text);
    return line;
}

/* The first moments after the first step are a tenth of its gradients. */
static float *gradients(const char *out, size_t *count)
{
    char path[HY3_PATH_MAX + 64];
    struct hy3_state_index index;
    float *values;
    int fd;

    snprintf(path, sizeof path, "%s/checkpoint-1/state.h5", out);
    assert_ok(hy3_state_file_inspect(path, &index));
    *count = 0;
    for (int i = 0; i < index.tensor_count; i++)
        *count += (size_t)index.tensors[i].count;
    assert_ok(hy3_alloc(&values, *count, sizeof *values));
    assert_true((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0);
    *count = 0;
    for (int i = 0; i < index.tensor_count; i++) {
        size_t bytes = (size_t)index.tensors[i].count * sizeof *values;

        assert_int_equal(pread(fd, values + *count, bytes, index.tensors[i].offset[HY3_ADAM_M]),
                         (ssize_t)bytes);
        *count += (size_t)index.tensors[i].count;
    }
    close(fd);
    hy3_state_index_free(&index);
    return values;
}

double hy3_test_distance(const char *a, const char *b)
{
    size_t n, m;
    float *x = gradients(a, &n), *y = gradients(b, &m);
    double apart = 0, size = 0;

    assert_true(n == m && n > 1000);
    for (size_t i = 0; i < n; i++) {
        apart += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        size += (double)x[i] * x[i];
    }
    assert_true(size > 0);
    hy3_free(x);
    hy3_free(y);
    return sqrt(apart / size);
}

void hy3_test_same_steps(const char *a, const char *b, size_t steps)
{
    static const char *const keys[] = {"loss", "eval_loss"};

    for (size_t step = 0; step < steps; step++) {
        json_t *x = hy3_test_logged(a, step), *y = hy3_test_logged(b, step);

        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            hy3_assert_within(
                keys[k], fabs(hy3_json_number(x, keys[k]) - hy3_json_number(y, keys[k])), 2e-5);
        hy3_assert_within(
            "norm", fabs(hy3_json_number(x, "grad_norm") / hy3_json_number(y, "grad_norm") - 1),
            2e-5);
        json_decref(x);
        json_decref(y);
    }
    hy3_assert_within("gradients", hy3_test_distance(a, b), 2e-5);
}
