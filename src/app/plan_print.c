/* SPDX-License-Identifier: Apache-2.0 */
/* plan_print.c - the table of a plan and what would fit. */
#include "app/plan_print.h"

#include "app/module_options.h"
#include "app/offload.h"
#include "app/plan_data.h"
#include "app/plan_fit.h"
#include "app/plan_time.h"
#include "app/suggest.h"
#include "base/output.h"
#include "base/plural.h"
#include "base/size.h"
#include "comm/stop.h"

#include <stdlib.h>

static void print_size(const char *what, double bytes)
{
    char size[HY3_SIZE_TEXT];

    printf("  %-42s %12s\n", what, hy3_size_text(bytes, size));
}

static void print_table(const struct hy3_config *c, const struct hy3_plan_options *o,
                        const struct hy3_plan *p)
{
    char size[HY3_SIZE_TEXT], zero[32] = "", sequence[40] = "", text[HY3_OFFLOAD_TEXT];
    bool is_shared = c->sequence_parallel_size > 1;

    if (p->zero_group < o->ranks)
        snprintf(zero, sizeof zero, "ZeRO groups of %d; ", p->zero_group);
    if (is_shared)
        snprintf(sequence, sizeof sequence, "sequence groups of %lld; ",
                 (long long)c->sequence_parallel_size);
    printf(
        "%d rank%s, %d per node; %s%sexpert groups of %d; zero_stage %lld, offload %s; %s; "
        "%.4g of %.4g G parameters trainable\n",
        o->ranks, hy3_s(o->ranks), o->ranks_per_node, zero, sequence, p->group,
        (long long)c->zero_stage, hy3_config_word(c, "offload"), c->bf16 ? "bf16" : "fp32",
        1e-9 * p->trained, 1e-9 * p->parameters);
    if (c->offload == HY3_OFFLOAD_auto)
        printf("%s\n", hy3_offload_text(c, p->offload_ratio, text));
    printf("memory per rank\n");
    print_size("weights", p->weights);
    print_size("gradients", p->grads);
    print_size("optimizer", p->optimizer);
    print_size("gathered units, reduction buffers", p->gathered);
    printf("  %-42s %12s   %lld x %lld tokens", "activations and workspace",
           hy3_size_text(p->workspace, size), (long long)c->per_device_train_batch_size,
           (long long)hy3_module_options_item_tokens(c));
    if (is_shared)
        printf(" / %lld ranks", (long long)c->sequence_parallel_size);
    putchar('\n');
    print_size("kernel workspaces", p->kernels);
    print_size("NCCL's buffers, estimated", p->nccl);
    print_size("copy for save_async", p->saving);
    print_size("MPI reduction buffer", p->mpi);
    print_size("device, peak", p->device);
    print_size("host, peak", p->host);
    print_size("host memory per node", hy3_plan_fit_node(c, o, p));
    printf("sent per rank and step\n");
    print_size("all-reduce of gradients", p->reduced);
    print_size(is_shared ? "all-gather of weights, keys and values" : "all-gather of weights",
               p->gathered_sent);
    print_size(is_shared ? "reduce-scatter of their gradients" : "reduce-scatter of gradients",
               p->scattered);
    print_size("all-to-all of tokens to experts and back", p->exchanged);
    if (c->device != HY3_DEVICE_cpu)
        print_size("copies from and to host memory", p->copied);
    printf("on disk\n");
    print_size("checkpoint", p->checkpoint);
    print_size("model or adapter", p->model);
}

/* What does not fit, and into what. */
static void print_lack(const struct hy3_config *config, const struct hy3_plan_options *o,
                       const struct hy3_plan *plan)
{
    const struct {
        double needed, given;
        const char *where;
    } limits[] = {{plan->device, config->device == HY3_DEVICE_cpu ? 0 : o->device_memory, "device"},
                  {hy3_plan_fit_node(config, o, plan), o->host_memory, "node"}};

    const char *before = "does not fit: ";
    char size[2][HY3_SIZE_TEXT];

    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        if (limits[i].given <= 0 || limits[i].needed <= limits[i].given)
            continue;
        printf("%s%s per %s, %s given", before, hy3_size_text(limits[i].needed, size[0]),
               limits[i].where, hy3_size_text(limits[i].given, size[1]));
        before = "; ";
    }
    putchar('\n');
}

/* Setting after setting until the run fits on these ranks. */
static hy3_status print_settings(const struct hy3_config *config, const struct hy3_shape *shape,
                                 const struct hy3_plan_options *o)
{
    struct hy3_config c = *config; /* shares its texts, is not freed */
    const char *change, *before = "    ";
    char size[2][HY3_SIZE_TEXT];
    bool changed;

    c.gradient_accumulation_steps = 1;
    printf("with %s %d rank%s\n", o->ranks == 1 ? "this" : "these", o->ranks, hy3_s(o->ranks));
    for (int i = 0; (change = hy3_plan_fit_change(&c, i, &changed)); i++) {
        struct hy3_plan plan;
        bool fits;

        if (!changed) /* it is set so */
            continue;
        HY3_TRY(hy3_plan_make(&c, shape, o, &plan));
        fits = hy3_plan_fit(&c, o, &plan);
        printf("  %s%-62s device %9s, node %9s%s\n", before, change,
               hy3_size_text(plan.device, size[0]),
               hy3_size_text(hy3_plan_fit_node(&c, o, &plan), size[1]), fits ? "   fits" : "");
        if (fits)
            return HY3_OK;
        before = "and ";
    }
    printf("  does not fit with any setting\n");
    return HY3_OK;
}

static hy3_status print_ranks(const struct hy3_config *config, const struct hy3_shape *shape,
                              const struct hy3_plan_options *options)
{
    struct hy3_plan_options o = *options;
    struct hy3_plan plan;
    char size[2][HY3_SIZE_TEXT];

    HY3_TRY(hy3_plan_fit_ranks(config, shape, options, &o.ranks, &plan));
    if (o.ranks > 0)
        printf("as configured it fits on %d rank%s (device %s, node %s)\n", o.ranks, hy3_s(o.ranks),
               hy3_size_text(plan.device, size[0]),
               hy3_size_text(hy3_plan_fit_node(config, &o, &plan), size[1]));
    else
        printf("as configured it does not fit on %d ranks either\n", HY3_PLAN_FIT_RANKS);
    return HY3_OK;
}

/* The plan of the run as configured, with its trace in that file (NULL: none). */
static hy3_status make(const struct hy3_config *config, const struct hy3_shape *shape,
                       const struct hy3_plan_options *options, const char *trace,
                       struct hy3_plan *plan)
{
    hy3_status status = HY3_OK;
    struct hy3_plan_options o = *options;
    char *text = NULL;
    size_t size = 0;

    if (!trace)
        return hy3_plan_make(config, shape, options, plan);
    if (!(o.trace = open_memstream(&text, &size)))
        HY3_FAIL(HY3_ENOMEM, "no memory for the trace");
    status = hy3_plan_make(config, shape, &o, plan);
    if (fclose(o.trace) != 0 && status == HY3_OK)
        status = hy3_fail(HY3_ENOMEM, __FILE__, __LINE__, "no memory for the trace");
    if (status == HY3_OK)
        status = hy3_output_replace(trace, text, size);
    free(text);
    return status;
}

hy3_status hy3_plan_print(const struct hy3_config *config, const struct hy3_plan_options *options,
                          const char *trace)
{
    struct hy3_shape shape;
    struct hy3_plan plan;

    HY3_TRY(hy3_plan_shape(config, options->shape, &shape));
    HY3_TRY(hy3_module_options_check(config, &shape));
    HY3_TRY(make(config, &shape, options, trace, &plan));
    HY3_TRY(hy3_stop_check("planning"));
    print_table(config, options, &plan);
    hy3_plan_time_print(config, options, &plan);
    HY3_TRY(hy3_plan_data_print(config, &shape, options->ranks));
    if (options->suggest)
        HY3_TRY(hy3_suggest_print(config, &shape, options, &plan));
    if (options->device_memory <= 0 && options->host_memory <= 0)
        return HY3_OK;
    if (hy3_plan_fit(config, options, &plan)) {
        printf("fits\n");
        return print_ranks(config, &shape, options);
    }
    print_lack(config, options, &plan);
    HY3_TRY(print_settings(config, &shape, options));
    HY3_TRY(print_ranks(config, &shape, options));
    fflush(stdout);
    HY3_FAIL(HY3_ENOMEM, "the run does not fit into the given memory; see the table");
}
