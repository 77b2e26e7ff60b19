/* SPDX-License-Identifier: Apache-2.0 */
/* digest.h - the checksums of a shard while its bytes pass by in the order of the file: SHA-256 of
 * all of them, XXH3 (64 bits) of each tensor's. */
#pragma once

#include "base/sha256.h"
#include "base/span.h"

struct hy3_digest {
    /* of the caller, before the first byte: where the tensors lie, in the order of the file */
    struct hy3_span *tensors; /* [count] bytes from the first of the file */
    int count;
    /* results */
    uint64_t *xxh3; /* [count] of the tensors that have passed by */
    unsigned char sha256[HY3_SHA256];
    /* internal */
    struct hy3_sha256 *all; /* NULL: not wanted */
    void *one;              /* XXH3_state_t of the tensor under way */
    int64_t at;
    int tensor; /* the one under way, or the next */
};

/* Local. The caller owns *out (hy3_digest_free). Errors: HY3_ENOMEM. */
hy3_status hy3_digest_create(int count, bool with_sha256, struct hy3_digest **out);
void hy3_digest_free(struct hy3_digest *digest); /* NULL is fine */

/* Local. The next bytes of the file. */
void hy3_digest_add(struct hy3_digest *digest, const void *data, size_t size);

/* Local. After the last byte. */
void hy3_digest_end(struct hy3_digest *digest);
