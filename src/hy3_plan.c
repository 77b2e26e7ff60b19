/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_plan - memory, traffic and disk space of a run, without running it. */
#include "app/plan_print.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"
#include "config/config.h"

/* Options go one way, the configuration and its overrides the other: both keep their order. */
static void split(int argc, char **argv, int *options, char **option, int *words, char **word)
{
    option[(*options)++] = argv[0];
    word[(*words)++] = argv[0];
    for (int i = 1; i < argc; i++) {
        bool takes_next = strncmp(argv[i], "--", 2) == 0 && !strchr(argv[i], '=') &&
                          strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "--version") != 0;

        if (strncmp(argv[i], "--", 2) != 0) {
            word[(*words)++] = argv[i];
            if (*words == 2) /* CONFIG belongs to both */
                option[(*options)++] = argv[i];
            continue;
        }
        option[(*options)++] = argv[i];
        if (takes_next && i + 1 < argc)
            option[(*options)++] = argv[++i];
    }
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_plan_options o = {0};
    struct hy3_config config = {0};
    const char *file, *device = NULL, *host = NULL;
    int64_t ranks = 0, per_node = 8, bytes;
    char **parts = NULL;
    int options = 0, words = 0;
    bool finished;
    const struct hy3_argument table[] = {
        {"CONFIG", HY3_ARG_WORD, &file, NULL, "configuration of the run"},
        {"ranks", HY3_ARG_COUNT, &ranks, "N", "ranks of the run; needed"},
        {"ranks-per-node", HY3_ARG_COUNT, &per_node, "N", "of a node (8)"},
        {"device-memory", HY3_ARG_TEXT, &device, "SIZE", "of a GPU, e.g. 80GB; not set: no limit"},
        {"host-memory", HY3_ARG_TEXT, &host, "SIZE", "of a node, e.g. 1.5TB; not set: no limit"},
        {"shape", HY3_ARG_TEXT, &o.shape, "FILE", "config.json of a model that is not here"},
    };
    const struct hy3_usage usage = {
        "hy3_plan",
        "Says what memory, traffic and disk a run of hy3_sft needs; key=value overrides CONFIG.",
        table, sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_alloc(&parts, 2 * ((size_t)argc + 1), sizeof *parts));
    split(argc, argv, &options, parts, &words, parts + argc + 1);
    HY3_TRY_DONE(
        hy3_arguments_parse(&usage, options, parts, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished) /* --help, --version */
        goto done;
    if (ranks < 1 || ranks > 1 << 20 || per_node < 1)
        HY3_FAIL_DONE(HY3_EUSAGE, "--ranks N is needed, and both numbers must be 1 or more");
    o.ranks = (int)ranks;
    o.ranks_per_node = (int)per_node;
    if (device)
        HY3_TRY_DONE(hy3_config_bytes(device, "--device-memory", &bytes));
    o.device_memory = device ? (double)bytes : 0;
    if (host)
        HY3_TRY_DONE(hy3_config_bytes(host, "--host-memory", &bytes));
    o.host_memory = host ? (double)bytes : 0;
    HY3_TRY_DONE(hy3_config_parse(&config, MPI_COMM_WORLD, words, parts + argc + 1, "", &finished));
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        status = hy3_plan_print(&config, &o);
    status = hy3_agree(MPI_COMM_WORLD, status, "planning");
done:
    hy3_free(parts);
    hy3_config_free(&config);
    return hy3_finish(status);
}
