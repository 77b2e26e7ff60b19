/* SPDX-License-Identifier: Apache-2.0 */
/* collisions.c - a tokenizer.json whose merges, or whose words, all had one place in a table hashed
 * without a secret: reading it takes seconds, not hours, and its results are what they were. */
#include "base/json.h"
#include "support/test.h"
#include "text/bpe.h"
#include "text/merges.h"
#include "text/utf8.h"

#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    MERGES = 1 << 17,
    WORDS = 1 << 16,
    STEP = 64,    /* between left ids: multiples of it were equal in the bits that were looked at */
    SECONDS = 10, /* of a processor, also with sanitizers; without a secret 50 and more */
};

static void put(json_t *vocab, const char *word, int64_t id)
{
    if (json_object_set_new(vocab, word, json_integer(id)) != 0)
        abort();
}

/* "left-I" + "r-J" is a word, for MERGES / 2 values of I and two of J. */
static void merges_of_one_place_are_read(void **state)
{
    json_t *vocab = json_object(), *list = json_array();
    struct hy3_merges *merges;
    clock_t begin;

    (void)state;
    put(vocab, "r0", 1);
    put(vocab, "r1", 2);
    for (int i = 0; i < MERGES; i++) {
        char left[32], merge[64];

        snprintf(left, sizeof left, "l%d", i / 2);
        if (i % 2 == 0)
            put(vocab, left, (int64_t)(i / 2 + 1) * STEP);
        snprintf(merge, sizeof merge, "%sr%d", left, i % 2);
        put(vocab, merge, (int64_t)(i / (STEP - 1) + 1) * STEP + 1 + i % (STEP - 1));
        snprintf(merge, sizeof merge, "%s r%d", left, i % 2);
        json_array_append_new(list, json_string(merge));
    }
    begin = clock();
    assert_ok(hy3_merges_create(list, vocab, "test.json", &merges));
    for (int i = 0; i < MERGES; i++) {
        int32_t ids[2] = {(i / 2 + 1) * STEP, 1 + i % 2};
        size_t count = 2;

        if (hy3_merges_apply(merges, ids, &count) != HY3_OK || count != 1 ||
            ids[0] != (i / (STEP - 1) + 1) * STEP + 1 + i % (STEP - 1))
            fail_msg("merge %d", i);
    }
    assert_true(clock() - begin < SECONDS * (clock_t)CLOCKS_PER_SEC);
    hy3_merges_free(merges);
    json_decref(list);
    json_decref(vocab);
}

static uint64_t rotated(uint64_t x, unsigned by)
{
    by %= 64;
    return by > 0 ? x << by | x >> (64 - by) : x;
}

/* The eight bytes whose XXH3 is `hash`: the function is a bijection of them. Its first step,
 * x ^ rotated(x, 49) ^ rotated(x, 24), is the identity when it is done 64 times. */
static uint64_t bytes_of(uint64_t hash)
{
    const uint64_t odd = 0x9FB21C651E98DF25u;
    uint64_t inverse = 1, key, zero = 0, h = hash;

    for (int i = 0; i < 6; i++)
        inverse *= 2 - odd * inverse;
    h ^= h >> 28 ^ h >> 56;
    h *= inverse;
    h ^= (h >> 35) + 8;
    h *= inverse;
    for (unsigned i = 0; i < 6; i++)
        h ^= rotated(h, 49u << i) ^ rotated(h, 24u << i);
    /* the key that the library mixes in, from one known pair */
    memcpy(&key, XXH3_kSecret + 8, sizeof key);
    memcpy(&zero, XXH3_kSecret + 16, sizeof zero);
    return rotated(h ^ key ^ zero, 32);
}

/* As tokenizer.json spells `word`; at most 2 bytes for each. */
static void spell(uint64_t word, char *out)
{
    for (int i = 0; i < 8; i++)
        out += hy3_utf8_put(hy3_byte_to_char((unsigned char)(word >> 8 * i)), out);
    *out = '\0';
}

static void words_of_one_place_are_found(void **state)
{
    json_t *model = json_object(), *vocab = json_object();
    struct hy3_vocab table = {0};
    struct hy3_ids ids = {0};
    struct hy3_bpe *bpe;
    clock_t begin;

    (void)state;
    for (uint64_t i = 0; i < WORDS; i++) {
        uint64_t word = bytes_of(i << 32);
        char text[32];

        if (XXH3_64bits(&word, sizeof word) != i << 32)
            fail_msg("the hash of word %llu is another", (unsigned long long)i);
        spell(word, text);
        put(vocab, text, (int64_t)i);
    }
    json_object_set_new(model, "vocab", vocab);
    json_object_set_new(model, "merges", json_array());
    json_object_set_new(model, "ignore_merges", json_true());
    begin = clock();
    assert_ok(hy3_bpe_create(model, "test.json", &table, &bpe));
    for (uint64_t i = 0; i < WORDS; i++) {
        uint64_t word = bytes_of(i << 32);

        ids.count = 0;
        if (hy3_bpe_encode(bpe, (const char *)&word, sizeof word, &ids) != HY3_OK ||
            ids.count != 1 || ids.data[0] != (int32_t)i)
            fail_msg("word %llu", (unsigned long long)i);
    }
    assert_true(clock() - begin < SECONDS * (clock_t)CLOCKS_PER_SEC);
    free(ids.data);
    hy3_bpe_free(bpe);
    hy3_vocab_release(&table);
    json_decref(model);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_of_one_place_are_read),
        cmocka_unit_test(words_of_one_place_are_found),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
