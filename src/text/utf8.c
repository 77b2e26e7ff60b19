/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.c - UTF-8 by hand. */
#include "text/utf8.h"

#include "base/memory.h"

size_t hy3_utf8_next(const char *text, size_t size, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned low = 0x80, high = 0xBF; /* of the second byte */
    size_t need, i;

    if (s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    need = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    *code = 1;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return 0;
    low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : low;
    high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : high;
    for (i = 1; i < need && i < size && s[i] >= low && s[i] <= high; i++) {
        low = 0x80;
        high = 0xBF;
    }
    *code = (uint32_t)i;
    if (i < need)
        return 0;
    *code = s[0] & (0x7Fu >> need);
    for (i = 1; i < need; i++)
        *code = *code << 6 | (s[i] & 0x3F);
    return need;
}

size_t hy3_utf8_put(uint32_t code, char *out)
{
    size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned lead[] = {0, 0, 0xC0, 0xE0, 0xF0};

    for (size_t i = size - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)(lead[size] | code);
    return size;
}

size_t hy3_utf8_last(const char *text, size_t size, uint32_t *code)
{
    size_t at = size - 1;

    while (at > 0 && (text[at] & 0xC0) == 0x80)
        at--;
    return hy3_utf8_next(text + at, size - at, code);
}

hy3_status hy3_utf8_repair(const char *bytes, size_t size, char **out, size_t *out_size)
{
    size_t used = 0, length;
    uint32_t code;

    HY3_TRY(hy3_alloc(out, 3 * size + 1, 1)); /* a broken byte becomes three */
    for (size_t i = 0; i < size;) {
        length = hy3_utf8_next(bytes + i, size - i, &code);
        if (length > 0) {
            memcpy(*out + used, bytes + i, length);
            used += length;
            i += length;
        } else {
            used += hy3_utf8_put(0xFFFD, *out + used);
            i += code;
        }
    }
    *out_size = used;
    return HY3_OK;
}

bool hy3_utf8_is_space(uint32_t code)
{
    return (code >= 9 && code <= 13) || code == ' ' || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

static bool is_printable(uint32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

uint32_t hy3_byte_to_char(unsigned char byte)
{
    uint32_t code = 0x100;

    if (is_printable(byte))
        return byte;
    for (unsigned b = 0; b < byte; b++)
        code += !is_printable(b);
    return code;
}

static int char_to_byte(uint32_t code)
{
    if (code < 0x100)
        return is_printable(code) ? (int)code : -1;
    if (code < 0x121)
        return (int)(code - 0x100);
    return code < 0x143 ? (int)(code - 0x121 + 127) : code == 0x143 ? 173 : -1;
}

bool hy3_chars_to_bytes(const char *text, size_t size, char *out, size_t *out_size)
{
    size_t used = 0, length;
    uint32_t code;
    int byte;

    for (size_t i = 0; i < size; i += length) {
        length = hy3_utf8_next(text + i, size - i, &code);
        if (length == 0 || (byte = char_to_byte(code)) < 0)
            return false;
        out[used++] = (char)byte;
    }
    *out_size = used;
    return true;
}
