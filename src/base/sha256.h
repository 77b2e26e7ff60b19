/* SPDX-License-Identifier: Apache-2.0 */
/* sha256.h - SHA-256 (FIPS 180-4) of bytes as they pass by, by libcrypto. */
#pragma once

#include "base/error.h"

/* Bytes of a digest; characters of its text, with the final NUL. */
enum { HY3_SHA256 = 32, HY3_SHA256_TEXT = 65 };

struct hy3_sha256; /* opaque */

/* Local. The caller owns *out (hy3_sha256_free). Errors: HY3_ENOMEM. */
hy3_status hy3_sha256_create(struct hy3_sha256 **out);
void hy3_sha256_free(struct hy3_sha256 *sha256); /* NULL is fine */

/* Local. The next bytes; then the digest of all of them, after which nothing may be added. */
void hy3_sha256_add(struct hy3_sha256 *sha256, const void *data, size_t size);
void hy3_sha256_end(struct hy3_sha256 *sha256, unsigned char digest[HY3_SHA256]);

/* In hexadecimal digits, lower case. */
void hy3_sha256_text(const unsigned char digest[HY3_SHA256], char text[HY3_SHA256_TEXT]);
bool hy3_sha256_is_text(const char *text);

/* Local. The text of the digest of `size` bytes. */
hy3_status hy3_sha256_of(const void *data, size_t size, char text[HY3_SHA256_TEXT]);
