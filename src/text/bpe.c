/* SPDX-License-Identifier: Apache-2.0 */
/* bpe.c - byte pair encoding. */
#include "text/bpe.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/random.h"
#include "text/merges.h"
#include "text/utf8.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    CACHE_SLOTS = 1 << 15,
    CACHE_TEXT = 30, /* so that a slot is one cache line */
    CACHE_IDS = 8,
};

struct slot {
    uint8_t size, count; /* size 0: empty */
    char text[CACHE_TEXT];
    int32_t ids[CACHE_IDS];
};

struct hy3_bpe {
    const struct hy3_vocab *vocab;
    struct hy3_merges *merges;
    int32_t of_byte[256]; /* id of a single byte, -1: none */
    int32_t unknown;      /* for a byte without id, -1: it vanishes */
    bool fuses_unknown, ignores_merges;
    uint64_t seed; /* of the hash: no file can foresee which words collide */
    struct slot *cache;
    int32_t *words; /* [words_size] by hash of the bytes, -1: free; only with ignores_merges */
    size_t words_size;
};

static hy3_status refuse_options(const json_t *model, const char *where)
{
    static const char *const texts[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *type = json_object_get(model, "type");
    double dropout;
    bool byte_fallback;

    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        HY3_FAIL(HY3_EFORMAT, "%s: the model type '%.60s' is not supported, only BPE", where,
                 json_is_string(type) ? json_string_value(type) : "?");
    for (size_t i = 0; i < 2; i++) {
        const json_t *text = json_object_get(model, texts[i]);

        if (text && !json_is_null(text) && json_string_length(text) + !json_is_string(text) > 0)
            HY3_FAIL(HY3_EFORMAT, "%s: '%s' is not supported", where, texts[i]);
    }
    HY3_TRY(hy3_json_bool_or(model, "byte_fallback", where, false, &byte_fallback));
    HY3_TRY(hy3_json_real_or(model, "dropout", where, 0, &dropout));
    if (byte_fallback || dropout != 0)
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' is not supported", where,
                 byte_fallback ? "byte_fallback" : "dropout");
    return HY3_OK;
}

static hy3_status read_vocab(const json_t *model, const char *where, struct hy3_vocab *vocab)
{
    json_t *words = json_object_get(model, "vocab"), *id;
    const char *word;

    if (!json_is_object(words))
        HY3_FAIL(HY3_EFORMAT, "%s: the model has no 'vocab'", where);
    json_object_foreach(words, word, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > HY3_ID_MAX)
            HY3_FAIL(HY3_EFORMAT, "%s: the id of token '%.60s' must be an integer of 0 to %d",
                     where, word, HY3_ID_MAX);
        HY3_TRY(hy3_vocab_add(vocab, (int32_t)json_integer_value(id), word, where));
    }
    return HY3_OK;
}

static int32_t id_of(const json_t *words, const char *word)
{
    const json_t *id = json_object_get(words, word);

    return id ? (int32_t)json_integer_value(id) : -1;
}

static hy3_status read_unknown(struct hy3_bpe *bpe, const json_t *model, const json_t *words,
                               const char *where)
{
    const json_t *token = json_object_get(model, "unk_token");

    bpe->unknown = -1;
    if (!token || json_is_null(token))
        return HY3_OK;
    if (json_is_string(token))
        bpe->unknown = id_of(words, json_string_value(token));
    if (bpe->unknown < 0)
        HY3_FAIL(HY3_EFORMAT, "%s: 'unk_token' is not in the vocabulary", where);
    return HY3_OK;
}

static uint64_t hash(const struct hy3_bpe *bpe, const char *word, size_t size)
{
    return XXH3_64bits_withSeed(word, size, bpe->seed);
}

/* Where `word` stands in bpe->words or the free place where it belongs. */
static size_t place_of(const struct hy3_bpe *bpe, const char *word, size_t size)
{
    size_t at = hash(bpe, word, size) & (bpe->words_size - 1);

    for (; bpe->words[at] >= 0; at = (at + 1) & (bpe->words_size - 1)) {
        const struct hy3_token *token = &bpe->vocab->tokens[bpe->words[at]];

        if (token->size == size && memcmp(bpe->vocab->bytes + token->at, word, size) == 0)
            break;
    }
    return at;
}

static hy3_status index_words(struct hy3_bpe *bpe)
{
    const struct hy3_vocab *vocab = bpe->vocab;

    for (bpe->words_size = 8; bpe->words_size < 2 * vocab->count;)
        bpe->words_size *= 2;
    HY3_TRY(hy3_alloc(&bpe->words, bpe->words_size, sizeof *bpe->words));
    for (size_t i = 0; i < bpe->words_size; i++)
        bpe->words[i] = -1;
    for (size_t id = 0; id < vocab->count; id++) {
        const struct hy3_token *token = &vocab->tokens[id];

        if (token->is_present && token->is_bytes)
            bpe->words[place_of(bpe, vocab->bytes + token->at, token->size)] = (int32_t)id;
    }
    return HY3_OK;
}

hy3_status hy3_bpe_create(const json_t *model, const char *where, struct hy3_vocab *vocab,
                          struct hy3_bpe **out)
{
    const json_t *words = json_object_get(model, "vocab");
    hy3_status status = HY3_OK;
    struct hy3_bpe *bpe = NULL;
    char text[8];

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&bpe, 1, sizeof *bpe));
    bpe->vocab = vocab;
    bpe->seed = hy3_random_secret();
    if (!json_is_object(model))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: 'model' is missing", where);
    HY3_TRY_DONE(refuse_options(model, where));
    HY3_TRY_DONE(read_vocab(model, where, vocab));
    HY3_TRY_DONE(hy3_merges_create(json_object_get(model, "merges"), words, where, &bpe->merges));
    HY3_TRY_DONE(read_unknown(bpe, model, words, where));
    HY3_TRY_DONE(hy3_json_bool_or(model, "fuse_unk", where, false, &bpe->fuses_unknown));
    HY3_TRY_DONE(hy3_json_bool_or(model, "ignore_merges", where, false, &bpe->ignores_merges));
    for (int b = 0; b < 256; b++) {
        text[hy3_utf8_put(hy3_byte_to_char((unsigned char)b), text)] = '\0';
        bpe->of_byte[b] = id_of(words, text);
    }
    if (bpe->ignores_merges)
        HY3_TRY_DONE(index_words(bpe));
    *out = HY3_TAKE(bpe);
done:
    hy3_bpe_free(bpe);
    return status;
}

void hy3_bpe_free(struct hy3_bpe *bpe)
{
    if (!bpe)
        return;
    hy3_merges_free(bpe->merges);
    hy3_free(bpe->cache);
    hy3_free(bpe->words);
    hy3_free(bpe);
}

/* The ids of single bytes; at most `size`. */
static size_t spell(const struct hy3_bpe *bpe, const char *word, size_t size, int32_t *ids)
{
    size_t count = 0;
    bool was_unknown = false;

    for (size_t i = 0; i < size; i++) {
        int32_t id = bpe->of_byte[(unsigned char)word[i]];

        if (id >= 0 || (bpe->unknown >= 0 && !(was_unknown && bpe->fuses_unknown)))
            ids[count++] = id >= 0 ? id : bpe->unknown;
        was_unknown = id < 0;
    }
    return count;
}

static hy3_status encode(struct hy3_bpe *bpe, const char *word, size_t size, struct hy3_ids *ids)
{
    int32_t *at = ids->data + ids->count;
    size_t count, place;

    if (bpe->ignores_merges) {
        place = place_of(bpe, word, size);
        if (bpe->words[place] >= 0) {
            *at = bpe->words[place];
            ids->count++;
            return HY3_OK;
        }
    }
    count = spell(bpe, word, size, at);
    HY3_TRY(hy3_merges_apply(bpe->merges, at, &count));
    ids->count += count;
    return HY3_OK;
}

hy3_status hy3_bpe_encode(struct hy3_bpe *bpe, const char *word, size_t size, struct hy3_ids *ids)
{
    size_t need = ids->count + size + CACHE_IDS, before = ids->count;
    struct slot *slot;

    if (need > ids->capacity)
        HY3_TRY(hy3_grow(&ids->data, &ids->capacity, need, sizeof *ids->data));
    if (size > CACHE_TEXT)
        return encode(bpe, word, size, ids);
    if (!bpe->cache)
        HY3_TRY(hy3_alloc(&bpe->cache, CACHE_SLOTS, sizeof *bpe->cache));
    slot = &bpe->cache[hash(bpe, word, size) & (CACHE_SLOTS - 1)];
    if (slot->size == size && memcmp(slot->text, word, size) == 0) {
        memcpy(ids->data + before, slot->ids, sizeof slot->ids);
        ids->count += slot->count;
        return HY3_OK;
    }
    HY3_TRY(encode(bpe, word, size, ids));
    if (ids->count - before > CACHE_IDS)
        return HY3_OK;
    slot->size = (uint8_t)size;
    slot->count = (uint8_t)(ids->count - before);
    memcpy(slot->text, word, size);
    memcpy(slot->ids, ids->data + before, slot->count * sizeof *slot->ids);
    return HY3_OK;
}
