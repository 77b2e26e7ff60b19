/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - what a directory is, by its files. */
#include "app/check.h"

#include "base/file.h"
#include "base/log.h"
#include "base/plural.h"
#include "base/printable.h"
#include "base/size.h"
#include "ckpt/adapter/check.h"
#include "ckpt/hf/verify.h"
#include "ckpt/state/state.h"
#include "comm/agree.h"
#include "comm/comm.h"

/* Of a directory without findings. all: every byte was read. */
static void tell_checksums(const struct hy3_check *options, int64_t listed, bool all, FILE *out)
{
    if (listed == 0)
        fprintf(out, "'%s' has no checksums.json: values that were changed would not be noticed\n",
                options->directory);
    else
        fprintf(out, "checksums.json: %lld file%s %s\n", (long long)listed, hy3_s(listed),
                all ? "as written, byte by byte"
                    : "there; tensors that were read and small files are as written, --all "
                      "compares every byte");
    if (options->list)
        fprintf(out, "'%s': every SHA-256 agrees\n", options->list);
}

static hy3_status check_model(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                              int64_t *findings)
{
    struct hy3_check_summary sum;
    char size[HY3_SIZE_TEXT];

    HY3_TRY(hy3_check(comm, options, out, &sum));
    *findings = sum.findings;
    if (sum.findings == 0 && hy3_rank(comm) == 0) {
        fprintf(out,
                "'%s' is valid: %lld tensor%s in %lld shard%s, %s; the values of %lld were "
                "read\n",
                options->directory, (long long)sum.tensors, hy3_s(sum.tensors),
                (long long)sum.shards, hy3_s(sum.shards), hy3_size_text((double)sum.bytes, size),
                (long long)sum.read);
        tell_checksums(options, sum.listed, options->spot_check < 0 || options->list, out);
    }
    return HY3_OK;
}

static void tell_adapter(const struct hy3_check *options,
                         const struct hy3_adapter_check_summary *sum, FILE *out)
{
    const char *directory = options->directory;

    if (sum->zeros > 0)
        hy3_log(HY3_LOG_WARN, "'%s': B is zero for %lld of %lld matrices, which do not change%s",
                directory, (long long)sum->zeros, (long long)sum->tensors / 2,
                2 * sum->zeros == sum->tensors ? ": was it trained?" : "");
    if (sum->findings > 0)
        return;
    fprintf(out, "'%s' is a valid adapter: r = %lld, alpha = %g%s, %lld tensors; ", directory,
            (long long)sum->rank, sum->alpha, sum->rslora ? ", rsLoRA" : "",
            (long long)sum->tensors);
    if (sum->has_base)
        fprintf(out, "it fits its base '%s' in %lld layer%s\n", sum->base, (long long)sum->layers,
                hy3_s(sum->layers));
    else
        fprintf(out, "its base '%s' is not here, so the shapes were not compared\n", sum->base);
    tell_checksums(options, sum->listed, true, out);
}

static hy3_status check_adapter(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                                int64_t *findings)
{
    struct hy3_adapter_check_summary sum = {0};
    hy3_status status = HY3_OK;

    if (hy3_rank(comm) == 0) {
        status = hy3_adapter_check(options->directory, options->list, out, &sum);
        if (status == HY3_OK)
            tell_adapter(options, &sum, out);
    }
    HY3_AGREE(comm, status, "checking the adapter");
    hy3_broadcast(comm, 0, &sum.findings, sizeof sum.findings, "checking the adapter");
    *findings += sum.findings;
    return HY3_OK;
}

struct findings {
    FILE *out;
    int64_t count;
};

static void tell_finding(void *context, const char *text)
{
    struct findings *f = context;
    char line[HY3_ERROR_MAX];

    f->count++;
    snprintf(line, sizeof line, "%s", text);
    hy3_make_printable(line, false);
    fprintf(f->out, "%s\n", line);
}

/* Collective. The files of a checkpoint that is no model and no adapter against the user's list. */
static hy3_status check_list(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                             int64_t *findings)
{
    hy3_status status = HY3_OK;
    struct findings found = {.out = out};
    struct hy3_verify verify = {.directory = options->directory,
                                .path = options->list,
                                .tell = tell_finding,
                                .context = &found};

    if (hy3_rank(comm) == 0) {
        status = hy3_verify_open(&verify);
        if (status == HY3_OK)
            status = hy3_verify_files(&verify, true, NULL);
        hy3_verify_close(&verify);
    }
    HY3_AGREE(comm, status, "comparing the checksums");
    hy3_broadcast(comm, 0, &found.count, sizeof found.count, "comparing the checksums");
    *findings += found.count;
    return HY3_OK;
}

static hy3_status check_checkpoint(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                                   int64_t *findings)
{
    hy3_status status = HY3_OK;
    const char *directory = options->directory;
    struct hy3_state *state = NULL;
    bool all = options->spot_check < 0 || options->list;
    char path[HY3_PATH_MAX];

    HY3_AGREE_DONE(comm, hy3_path_format(path, sizeof path, "%s/state.h5", directory),
                   "opening the checkpoint");
    HY3_TRY_DONE(hy3_state_open(comm, path, &state));
    if (all)
        HY3_AGREE_DONE(comm, hy3_state_verify(state, hy3_rank(comm), hy3_size(comm)),
                       "checking the checkpoint");
    if (hy3_path_exists_in(directory, "adapter_config.json"))
        HY3_TRY_DONE(check_adapter(comm, options, out, findings));
    else if (options->list)
        HY3_TRY_DONE(check_list(comm, options, out, findings));
    if (*findings == 0 && hy3_rank(comm) == 0)
        fprintf(out,
                "'%s' is a complete training checkpoint of step %lld of %lld%s; make a model of "
                "it: hy3_export %s OUTPUT_DIR\n",
                directory, (long long)hy3_state_info(state)->step,
                (long long)hy3_state_info(state)->total_steps,
                all ? ", every value as it was written" : "", directory);
done:
    hy3_state_close(state);
    return status;
}

hy3_status hy3_check_directory(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                               int64_t *findings)
{
    const char *directory = options->directory;

    *findings = 0;
    if (hy3_path_exists_in(directory, "model.safetensors") ||
        hy3_path_exists_in(directory, "model.safetensors.index.json"))
        return check_model(comm, options, out, findings);
    if (hy3_path_exists_in(directory, "state.h5"))
        return check_checkpoint(comm, options, out, findings);
    if (hy3_path_exists_in(directory, "adapter_config.json") ||
        hy3_path_exists_in(directory, "adapter_model.safetensors"))
        return check_adapter(comm, options, out, findings);
    return check_model(comm, options, out, findings);
}
