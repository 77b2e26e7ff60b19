/* SPDX-License-Identifier: Apache-2.0 */
/* moments.c - the two code books, and blocks of numbers as codes and back. */
#include "backend/moments.h"

#include <float.h>
#include <math.h>

static struct hy3_moment_book books[2];

/* Numbers of a decade. */
static int32_t numbers_of(int decade, bool is_signed)
{
    return (is_signed ? 1 : 2) << decade;
}

/* The j-th number of a decade, 0.1 + 0.9 (j + 1/2) / n of its upper end, by one division. */
static float number_at(int decade, int32_t n, int32_t j)
{
    static const float tens[] = {1e7f, 1e6f, 1e5f, 1e4f, 1e3f, 1e2f, 1e1f};

    return (float)(2 * n + 9 * (2 * j + 1)) / ((float)(2 * n) * tens[decade]);
}

static void make(struct hy3_moment_book *book, bool is_signed)
{
    int32_t zero = is_signed ? 127 : 0, up = zero;
    double ten = 1e6;

    for (int decade = 0; decade < HY3_MOMENT_DECADES; decade++, ten /= 10) {
        int32_t n = numbers_of(decade, is_signed);

        book->slope[decade] = (float)(ten * n / 0.9);
        book->base[decade] = (float)(up + 1 - zero - 0.1 * n / 0.9);
        for (int32_t j = 0; j < n; j++) {
            book->value[++up] = number_at(decade, n, j);
            if (is_signed)
                book->value[2 * zero - up] = -book->value[up];
        }
    }
    book->value[255] = 1;
    if (is_signed)
        book->value[0] = -1;
    for (int i = 1; i < 256; i++)
        book->edge[i] = (book->value[i - 1] + book->value[i]) / 2;
    if (!is_signed)
        book->edge[1] = 0;
    book->edge[0] = -INFINITY;
    book->edge[256] = INFINITY;
    book->zero = zero;
}

const struct hy3_moment_book *hy3_moment_book(bool is_signed)
{
    struct hy3_moment_book *book = &books[is_signed];

    if (book->value[255] == 0)
        make(book, is_signed);
    return book;
}

float hy3_moments_encode(const struct hy3_moment_book *book, const float *x, int64_t n,
                         uint8_t *codes)
{
    float scale = 0;

    for (int64_t i = 0; i < n; i++)
        scale = fabsf(x[i]) > scale ? fabsf(x[i]) : scale;
    scale = scale < FLT_MAX ? scale : FLT_MAX;
    for (int64_t i = 0; i < n; i++)
        codes[i] = (uint8_t)(scale > 0 ? hy3_moment_code(book, x[i] / scale) : book->zero);
    return scale;
}

void hy3_moments_decode(const struct hy3_moment_book *book, const uint8_t *codes, float scale,
                        int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = book->value[codes[i]] * scale;
}
