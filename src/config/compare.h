/* SPDX-License-Identifier: Apache-2.0 */
/* compare.h - in what a configuration differs from the one of an earlier run, as its config.cfg has
 * it. */
#pragma once

#include "config/options.h"

/* A key with two values, both as a file has them; "" is not set. */
struct hy3_change {
    const struct hy3_option *option;
    char *before, *now;
};

struct hy3_changes { /* zero: none */
    struct hy3_change *items;
    size_t count, capacity;
};

/* Local. The keys whose values differ in effect: a key that does nothing in both configurations
 * (lora_rank without an adapter) is left out, and so is a path that leads to the same directory.
 * text: the old file, of `size` bytes and a NUL; keys it has that are unknown now are ignored.
 * Errors: HY3_EFORMAT where it is no configuration; HY3_ENOMEM. The caller owns *changes. */
hy3_status hy3_config_compare(const char *text, size_t size, const struct hy3_config *now,
                              struct hy3_changes *changes);
void hy3_changes_free(struct hy3_changes *changes);
