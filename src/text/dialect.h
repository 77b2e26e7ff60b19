/* SPDX-License-Identifier: Apache-2.0 */
/* dialect.h - the names of the tokens in Hy3-preview (plain) and Hy3 (":opensource"). */
#pragma once

enum hy3_dialect { HY3_DIALECT_PREVIEW, HY3_DIALECT_FINAL };

struct hy3_dialect_names {
    const char *bos, *eos, *pad, *user, *assistant, *mode, *think, *end_think;
    const char *suffix; /* of the tool tags: <tool_call{suffix}> */
};

const struct hy3_dialect_names *hy3_dialect_names(enum hy3_dialect dialect);
