/* SPDX-License-Identifier: Apache-2.0 */
/* offload.c - offload = auto in terms of the other values. */
#include "app/offload.h"

#include "app/module_options.h"

void hy3_offload_settle(double ratio, struct hy3_config *config)
{
    if (config->offload != HY3_OFFLOAD_auto)
        return;
    config->offload = ratio > 0 ? HY3_OFFLOAD_full : HY3_OFFLOAD_none;
    config->offload_ratio = ratio > 0 ? ratio : 1;
}

const char *hy3_offload_text(const struct hy3_config *config, double ratio,
                             char out[HY3_OFFLOAD_TEXT])
{
    struct hy3_config c = *config; /* shares its texts, is not freed */
    double state, weights;

    hy3_offload_settle(ratio, &c);
    state = hy3_module_options_offload(&c, HY3_OFFLOAD_optimizer).ratio;
    weights = hy3_module_options_offload(&c, HY3_OFFLOAD_param).ratio;
    if (ratio > 0)
        snprintf(out, HY3_OFFLOAD_TEXT,
                 "offload = auto: in host memory %.3g %% of the optimizer state, %.3g %% of the "
                 "weights (offload=full offload_ratio=%.4g)",
                 100 * state, 100 * weights, c.offload_ratio);
    else
        snprintf(out, HY3_OFFLOAD_TEXT, "offload = auto: nothing needs host memory");
    return out;
}
