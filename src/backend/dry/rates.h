/* SPDX-License-Identifier: Apache-2.0 */
/* rates.h - what a device, its host and its links do in a second, for estimates of time.
 *
 * Achieved rates, not those of a data sheet; etc/devices has a file for each kind of device, and
 * app/rates.h reads it. */
#pragma once

#include <stdbool.h>

struct hy3_rates {
    double peak; /* flop/s that the device could reach with products in bf16 */
    /* flop/s of products, by dtype of the operands; grouped: one product per expert over the rows,
     * grouped_weights: their weights' gradients */
    double product_bf16, product_fp32;
    double grouped_bf16, grouped_fp32;
    double grouped_weights_bf16, grouped_weights_fp32;
    double attention_forward, attention_backward;           /* flop/s of causal attention */
    double attention_forward_long, attention_backward_long; /* beyond 16384 tokens */
    double memory;                                          /* bytes/s of element-wise kernels */
    double host_copy;   /* bytes/s between host and device, per rank */
    double host_memory; /* bytes/s of AdamW in host memory, per rank */
    double launch;      /* seconds of the host per kernel */
    double kernel;      /* seconds of a kernel that has nothing to do */
    double wait;        /* seconds of the host per synchronization, beyond what it waits for */
    double node_link;   /* bytes/s of a rank within its node */
    double network;     /* bytes/s of a rank to other nodes */
    double node_latency, network_latency; /* seconds of a collective; of each rank in it */
    bool overlap; /* whether transfers and kernels proceed while the host does something else */
};
