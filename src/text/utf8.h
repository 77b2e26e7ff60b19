/* SPDX-License-Identifier: Apache-2.0 */
/* utf8.h - UTF-8 by hand: where text is broken, and the printable characters that byte-level BPE
 * writes for bytes. */
#pragma once

#include "base/error.h"

/* Bytes of the well-formed sequence at `text` and its code point, or 0 and in *code the bytes of
 * the broken part, which becomes one U+FFFD (Unicode 15, 3.9, maximal subparts). size > 0. */
size_t hy3_utf8_next(const char *text, size_t size, uint32_t *code);

/* Bytes written to `out`, which holds at least 4. */
size_t hy3_utf8_put(uint32_t code, char *out);

/* Bytes of the last sequence of well-formed `text`; size > 0. */
size_t hy3_utf8_last(const char *text, size_t size, uint32_t *code);

/* Local. `bytes` with U+FFFD for what is broken, with a NUL beyond *out_size; the caller owns *out
 * (hy3_free). */
hy3_status hy3_utf8_repair(const char *bytes, size_t size, char **out, size_t *out_size);

/* Whether the code point has the property White_Space. */
bool hy3_utf8_is_space(uint32_t code);

/* The code point that stands for a byte in a byte-level vocabulary (GPT-2): printable ones are
 * themselves, the others follow from U+0100. */
uint32_t hy3_byte_to_char(unsigned char byte);

/* Undoes it for a whole token. False, and nothing of use in `out` [size], if a character stands for
 * no byte. */
bool hy3_chars_to_bytes(const char *text, size_t size, char *out, size_t *out_size);

/* A code point of the same length and category that PCRE2 has known since Unicode 14, for one that
 * Hugging Face's Oniguruma (Unicode 16) classifies otherwise; 0 if both agree. */
uint32_t hy3_utf8_stand_in(uint32_t code);
