/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_plan - memory, traffic and disk space of a run, without running it. */
#include "app/machine.h"
#include "app/plan_print.h"
#include "app/rates.h"
#include "comm/agree.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"

enum { NODE = 8 }; /* ranks of a node, where they are not given */

/* Local. No argument is ignored in silence: what a plan takes is nothing to measuring (`file`). */
static hy3_status check(const struct hy3_plan_options *o, const char *rates, const char *trace,
                        const char *file, bool overwrite)
{
    const struct {
        const char *name;
        bool is_given;
    } of_plan[] = {{"ranks", o->ranks > 0},
                   {"ranks-per-node", o->ranks_per_node > 0},
                   {"device-memory", o->device_memory > 0},
                   {"host-memory", o->host_memory > 0},
                   {"rates", rates},
                   {"imbalance", o->imbalance > 0},
                   {"disk", o->disk > 0},
                   {"trace", trace},
                   {"suggest", o->suggest}};

    for (size_t i = 0; file && i < sizeof of_plan / sizeof *of_plan; i++)
        if (of_plan[i].is_given)
            HY3_FAIL(HY3_EUSAGE,
                     "--probe measures this machine and makes no plan: leave out --%s (the ranks "
                     "are those of mpiexec)",
                     of_plan[i].name);
    if (overwrite && !file)
        HY3_FAIL(HY3_EUSAGE, "--overwrite is of the file of --probe, which is missing");
    return HY3_OK;
}

/* Collective. The plan, on rank 0. */
static hy3_status plan(const struct hy3_config *config, const struct hy3_plan_options *options,
                       const char *device, const char *trace)
{
    hy3_status status = HY3_OK;
    struct hy3_plan_options o = *options;
    struct hy3_rates rates;
    int rank = hy3_rank(MPI_COMM_WORLD);

    o.ranks_per_node = o.ranks_per_node > 0 ? o.ranks_per_node : NODE;
    o.imbalance = o.imbalance > 0 ? o.imbalance : HY3_PLAN_IMBALANCE;
    if (o.ranks == 0)
        HY3_FAIL(HY3_EUSAGE, "the argument --ranks is missing");
    if ((trace || o.suggest) && !device)
        HY3_FAIL(HY3_EUSAGE, "--%s needs --rates", trace ? "trace" : "suggest");
    if (rank == 0 && device) {
        status = hy3_rates_read(device, &rates);
        o.rates = &rates;
    }
    HY3_AGREE(MPI_COMM_WORLD, status, "reading the rates");
    if (rank == 0)
        status = hy3_plan_print(config, &o, trace);
    return hy3_agree(MPI_COMM_WORLD, status, "planning");
}

/* Collective. Measures this machine instead. */
static hy3_status probe(const struct hy3_config *config, const char *shape_file, const char *file,
                        bool overwrite)
{
    hy3_status status = HY3_OK;
    struct hy3_shape shape;

    if (hy3_rank(MPI_COMM_WORLD) == 0)
        status = hy3_rates_may_write(file, overwrite);
    HY3_AGREE(MPI_COMM_WORLD, status, "looking for the rates");
    HY3_AGREE(MPI_COMM_WORLD, hy3_plan_shape(config, shape_file, &shape), "reading the shape");
    return hy3_machine_probe(MPI_COMM_WORLD, config, &shape, file);
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_plan_options o = {0};
    struct hy3_config config = {0};
    const char *device_rates = NULL, *trace = NULL, *file = NULL;
    double imbalance = 0;
    int64_t ranks = 0, per_node = 0, device = 0, host = 0, disk = 0;
    bool finished, overwrite = false;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("ranks", HY3_COUNT, &ranks, "N",
                      "number of ranks; required, except with --probe"),
         .count = {.low = 1, .high = 1 << 20}},
        {HY3_ARGUMENT("ranks-per-node", HY3_COUNT, &per_node, "N", "ranks per node (default 8)"),
         .count = {.low = 1, .high = 1 << 20}},
        {HY3_ARGUMENT("device-memory", HY3_SIZE, &device, "SIZE",
                      "memory of a GPU, e.g. 80GB (default: no limit)")},
        {HY3_ARGUMENT("host-memory", HY3_SIZE, &host, "SIZE",
                      "memory of a node, e.g. 1.5TB (default: no limit)")},
        {HY3_ARGUMENT("rates", HY3_TEXT, &device_rates, "DEVICE",
                      "estimate seconds: h100, h200, or a file like etc/devices/h100.cfg")},
        {HY3_ARGUMENT("imbalance", HY3_REAL, &imbalance, "R",
                      "rows of the busiest rank's experts by their mean (default 1.2)"),
         .real = {.low = 1, .high = 1000}},
        {HY3_ARGUMENT("disk", HY3_SIZE, &disk, "SIZE",
                      "bytes per second that a checkpoint is written at, e.g. 20GB")},
        {HY3_ARGUMENT("trace", HY3_TEXT, &trace, "FILE",
                      "write the timeline of a step, for Perfetto")},
        {HY3_ARGUMENT("suggest", HY3_BOOL, &o.suggest, NULL,
                      "search settings of the same result for the five fastest that fit")},
        {HY3_ARGUMENT("probe", HY3_TEXT, &file, "FILE",
                      "instead measure the CPUs for --rates FILE; start it as the run on a node")},
        {HY3_ARGUMENT("overwrite", HY3_BOOL, &overwrite, NULL,
                      "write FILE also where it is not of --probe")},
        {HY3_ARGUMENT("shape", HY3_TEXT, &o.shape, "FILE",
                      "config.json, where the model directory is not here"),
         .path = HY3_PATH_FILE},
        {.key = NULL},
    };
    const struct hy3_usage usage = {"hy3_plan",
                                    "Predicts memory, traffic and disk space of a run of hy3_sft.",
                                    table, &config, false};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    o.ranks = (int)ranks;
    o.ranks_per_node = (int)per_node;
    o.device_memory = (double)device;
    o.host_memory = (double)host;
    o.disk = (double)disk;
    o.imbalance = imbalance;
    HY3_TRY_DONE(check(&o, device_rates, trace, file, overwrite));
    status =
        file ? probe(&config, o.shape, file, overwrite) : plan(&config, &o, device_rates, trace);
done:
    hy3_config_free(&config);
    return hy3_finish(status);
}
