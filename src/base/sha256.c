/* SPDX-License-Identifier: Apache-2.0 */
/* sha256.c - libcrypto's digest context. */
#include "base/sha256.h"

#include "base/memory.h"

#include <openssl/evp.h>

struct hy3_sha256 {
    EVP_MD_CTX *context;
};

hy3_status hy3_sha256_create(struct hy3_sha256 **out)
{
    hy3_status status = HY3_OK;
    struct hy3_sha256 *h = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&h, 1, sizeof *h));
    h->context = EVP_MD_CTX_new();
    if (!h->context || EVP_DigestInit_ex(h->context, EVP_sha256(), NULL) != 1)
        HY3_FAIL_DONE(HY3_ENOMEM, "libcrypto has no memory for a SHA-256");
    *out = HY3_TAKE(h);
done:
    hy3_sha256_free(h);
    return status;
}

void hy3_sha256_free(struct hy3_sha256 *h)
{
    if (h)
        EVP_MD_CTX_free(h->context);
    hy3_free(h);
}

void hy3_sha256_add(struct hy3_sha256 *h, const void *data, size_t size)
{
    HY3_ASSERT(EVP_DigestUpdate(h->context, data, size) == 1);
}

void hy3_sha256_end(struct hy3_sha256 *h, unsigned char digest[HY3_SHA256])
{
    HY3_ASSERT(EVP_DigestFinal_ex(h->context, digest, NULL) == 1);
}

void hy3_sha256_text(const unsigned char digest[HY3_SHA256], char text[HY3_SHA256_TEXT])
{
    for (int i = 0; i < HY3_SHA256; i++)
        snprintf(text + (size_t)2 * (size_t)i, 3, "%02x", digest[i]);
}

bool hy3_sha256_is_text(const char *text)
{
    return strlen(text) == HY3_SHA256_TEXT - 1 &&
           strspn(text, "0123456789abcdef") == HY3_SHA256_TEXT - 1;
}

hy3_status hy3_sha256_of(const void *data, size_t size, char text[HY3_SHA256_TEXT])
{
    struct hy3_sha256 *h = NULL;
    unsigned char digest[HY3_SHA256];

    HY3_TRY(hy3_sha256_create(&h));
    hy3_sha256_add(h, data, size);
    hy3_sha256_end(h, digest);
    hy3_sha256_free(h);
    hy3_sha256_text(digest, text);
    return HY3_OK;
}
