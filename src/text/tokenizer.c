/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.c - opens a tokenizer, encodes, decodes. */
#include "text/tokenizer.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/dialect.h"
#include "text/pretokenizer.h"
#include "text/utf8.h"

#include <xxhash.h>

#define FILE_LIMIT ((size_t)256 << 20)
#define TEXT_LIMIT ((size_t)1 << 30)

struct hy3_tokenizer {
    struct hy3_vocab vocab;
    struct hy3_bpe *bpe;
    struct hy3_pretokenizer *pretokenizer;
    struct hy3_added *added;
    struct hy3_specials specials;
    enum hy3_dialect dialect;
    uint64_t fingerprint;
    char *shape; /* a text with stand-ins */
    size_t shape_capacity;
    struct hy3_ids *ids; /* where the encoding in progress goes */
    const char *text;    /* its text */
    struct hy3_budget budget;
};

/* Without a normalizer, or with an empty sequence of them. */
static hy3_status check_normalizer(const json_t *document, const char *where)
{
    const json_t *value = json_object_get(document, "normalizer");
    const json_t *list = json_object_get(value, "normalizers");
    const char *type = json_string_value(json_object_get(value, "type"));

    if (value && !json_is_null(value) && !(json_is_array(list) && json_array_size(list) == 0))
        HY3_FAIL(HY3_EFORMAT, "%s: the normalizer '%.60s' is not supported", where,
                 type ? type : "?");
    return HY3_OK;
}

static hy3_status check_decoder(const json_t *document, const char *where)
{
    const json_t *value = json_object_get(document, "decoder");
    const char *type = json_string_value(json_object_get(value, "type"));

    if (value && !json_is_null(value) && (!type || strcmp(type, "ByteLevel") != 0))
        HY3_FAIL(HY3_EFORMAT, "%s: the decoder '%.60s' is not supported, only ByteLevel", where,
                 type ? type : "?");
    return HY3_OK;
}

static hy3_status build(struct hy3_tokenizer *tokenizer, const json_t *document, const char *where)
{
    const json_t *model = json_object_get(document, "model");

    if (!json_is_object(document))
        HY3_FAIL(HY3_EFORMAT, "%s: the top level must be an object", where);
    HY3_TRY(check_normalizer(document, where));
    HY3_TRY(check_decoder(document, where));
    HY3_TRY(hy3_pretokenizer_create(json_object_get(document, "pre_tokenizer"), where,
                                    &tokenizer->pretokenizer));
    HY3_TRY(hy3_bpe_create(model, where, &tokenizer->vocab, &tokenizer->bpe));
    return hy3_added_create(json_object_get(document, "added_tokens"),
                            json_object_get(model, "vocab"), where, &tokenizer->vocab,
                            &tokenizer->added);
}

hy3_status hy3_tokenizer_parse(const char *text, size_t size, const char *where,
                               struct hy3_tokenizer **out)
{
    hy3_status status = HY3_OK;
    struct hy3_tokenizer *tokenizer = NULL;
    json_t *document = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&tokenizer, 1, sizeof *tokenizer));
    tokenizer->specials = (struct hy3_specials){-1, -1, -1, -1, -1};
    HY3_TRY_DONE(hy3_json_parse(text, size, where, &document));
    HY3_TRY_DONE(build(tokenizer, document, where));
    tokenizer->fingerprint = XXH3_64bits(text, size);
    *out = HY3_TAKE(tokenizer);
done:
    json_decref(document);
    hy3_tokenizer_close(tokenizer);
    return status;
}

void hy3_tokenizer_close(struct hy3_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    hy3_added_free(tokenizer->added);
    hy3_bpe_free(tokenizer->bpe);
    hy3_pretokenizer_free(tokenizer->pretokenizer);
    hy3_vocab_release(&tokenizer->vocab);
    hy3_free(tokenizer->shape);
    hy3_free(tokenizer);
}

/* The id of a text that must be one token. */
static hy3_status one_id(struct hy3_tokenizer *tokenizer, const char *text, const char *where,
                         const char *key, int32_t *id)
{
    hy3_status status = HY3_OK;
    struct hy3_ids ids = {0};

    HY3_TRY_DONE(hy3_tokenizer_encode(tokenizer, text, strlen(text), false, &ids));
    if (ids.count != 1)
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: '%s' is '%.60s', which is %zu tokens; it must be one",
                      where, key, text, ids.count);
    *id = ids.data[0];
done:
    hy3_free(ids.data);
    return status;
}

/* A text, or an object with "content"; the dialect's own name if the key is absent or null. */
static hy3_status read_special(struct hy3_tokenizer *tokenizer, const json_t *config,
                               const char *where, const char *key, const char *initial, int32_t *id)
{
    const json_t *value = json_object_get(config, key);

    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (value && !json_is_null(value) && !json_is_string(value))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be a text", where, key);
    return one_id(tokenizer, json_is_string(value) ? json_string_value(value) : initial, where, key,
                  id);
}

/* The template writes these; one that is several tokens would train on ids the model has never
 * seen. */
static hy3_status check_names(struct hy3_tokenizer *tokenizer, const char *where)
{
    const struct hy3_dialect_names *names = hy3_dialect_names(tokenizer->dialect);
    const char *const texts[] = {names->bos,  names->eos,   names->user,     names->assistant,
                                 names->mode, names->think, names->end_think};
    int32_t id;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        HY3_TRY(one_id(tokenizer, texts[i], where, "a token of the chat template", &id));
    return HY3_OK;
}

static hy3_status read_specials(struct hy3_tokenizer *tokenizer, const json_t *config,
                                const char *where)
{
    const struct hy3_dialect_names *names = hy3_dialect_names(tokenizer->dialect);
    struct hy3_specials *ids = &tokenizer->specials;

    HY3_TRY(read_special(tokenizer, config, where, "bos_token", names->bos, &ids->bos));
    HY3_TRY(read_special(tokenizer, config, where, "eos_token", names->eos, &ids->eos));
    HY3_TRY(read_special(tokenizer, config, where, "pad_token", names->pad, &ids->pad));
    HY3_TRY(read_special(tokenizer, config, where, "user_token", names->user, &ids->user));
    return read_special(tokenizer, config, where, "assistant_token", names->assistant,
                        &ids->assistant);
}

/* A tokenizer.json may forget to flag them. */
static void mark_controls(struct hy3_tokenizer *tokenizer)
{
    const struct hy3_specials *ids = &tokenizer->specials;
    const int32_t controls[] = {ids->bos, ids->eos, ids->pad, ids->user, ids->assistant};

    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++)
        tokenizer->vocab.tokens[controls[i]].is_control = true;
}

hy3_status hy3_tokenizer_open(const char *directory, struct hy3_tokenizer **out)
{
    hy3_status status = HY3_OK;
    struct hy3_tokenizer *tokenizer = NULL;
    char path[HY3_PATH_MAX], *text = NULL, *config_text = NULL;
    json_t *config = NULL;
    size_t size;

    *out = NULL;
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/tokenizer.json", directory));
    HY3_TRY_DONE(hy3_file_read(path, FILE_LIMIT, &text, &size));
    HY3_TRY_DONE(hy3_tokenizer_parse(text, size, path, &tokenizer));
    if (hy3_added_mention(tokenizer->added, ":opensource"))
        tokenizer->dialect = HY3_DIALECT_FINAL;
    HY3_TRY_DONE(check_names(tokenizer, path));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/tokenizer_config.json", directory));
    if (hy3_path_exists(path)) { /* without it the dialect's own names hold */
        HY3_TRY_DONE(hy3_file_read(path, FILE_LIMIT, &config_text, &size));
        HY3_TRY_DONE(hy3_json_parse(config_text, size, path, &config));
        if (!json_is_object(config))
            HY3_FAIL_DONE(HY3_EFORMAT, "%s: the top level must be an object", path);
        tokenizer->fingerprint = XXH3_64bits_withSeed(config_text, size, tokenizer->fingerprint);
    }
    HY3_TRY_DONE(read_specials(tokenizer, config, path));
    mark_controls(tokenizer);
    *out = HY3_TAKE(tokenizer);
done:
    json_decref(config);
    hy3_free(text);
    hy3_free(config_text);
    hy3_tokenizer_close(tokenizer);
    return status;
}

/* Checks that `text` is UTF-8 and fills *shape, see struct hy3_piece. */
static hy3_status shape_text(struct hy3_tokenizer *tokenizer, const char *text, size_t size,
                             const char **shape)
{
    size_t length;
    uint32_t code, stand_in;
    uint64_t eight;

    *shape = text;
    for (size_t i = 0; i < size; i += length) {
        length = 8;
        if (i + 8 <= size && (memcpy(&eight, text + i, 8), !(eight & 0x8080808080808080u)))
            continue;
        length = hy3_utf8_next(text + i, size - i, &code);
        if (length == 0)
            HY3_FAIL(HY3_EFORMAT, "the text is not valid UTF-8 at byte %zu", i);
        if (length < 3 || (stand_in = hy3_utf8_stand_in(code)) == 0)
            continue;
        if (*shape == text) {
            HY3_TRY(hy3_grow(&tokenizer->shape, &tokenizer->shape_capacity, size, 1));
            memcpy(tokenizer->shape, text, size);
            *shape = tokenizer->shape;
        }
        hy3_utf8_put(stand_in, tokenizer->shape + i);
    }
    return HY3_OK;
}

static hy3_status emit_word(void *context, const char *word, size_t size)
{
    struct hy3_tokenizer *tokenizer = context;

    return hy3_bpe_encode(tokenizer->bpe, word, size, tokenizer->ids);
}

static hy3_status emit_id(struct hy3_ids *ids, int32_t id)
{
    HY3_TRY(hy3_grow(&ids->data, &ids->capacity, ids->count + 1, sizeof *ids->data));
    ids->data[ids->count++] = id;
    return HY3_OK;
}

static hy3_status emit_stretch(void *context, struct hy3_piece piece, int32_t id)
{
    struct hy3_tokenizer *tokenizer = context;
    struct hy3_ids *ids = tokenizer->ids;
    size_t first = ids->count;

    if (id >= 0)
        HY3_TRY(emit_id(ids, id));
    else
        HY3_TRY(hy3_pretokenizer_split(tokenizer->pretokenizer, piece, &tokenizer->budget,
                                       emit_word, tokenizer));
    if (!ids->marks_places)
        return HY3_OK;
    HY3_TRY(hy3_grow(&ids->at, &ids->at_capacity, ids->count, sizeof *ids->at));
    while (first < ids->count)
        ids->at[first++] = (size_t)(piece.text - tokenizer->text);
    return HY3_OK;
}

static hy3_status encode(struct hy3_tokenizer *tokenizer, const char *text, size_t size,
                         struct hy3_added_text *as_text, struct hy3_ids *ids)
{
    struct hy3_piece whole = {text, text, size};

    if (size > TEXT_LIMIT)
        HY3_FAIL(HY3_EFORMAT, "a text of %zu bytes is too long to tokenize", size);
    HY3_TRY(shape_text(tokenizer, text, size, &whole.shape));
    tokenizer->ids = ids;
    tokenizer->text = text;
    tokenizer->budget = hy3_budget_of(size);
    return hy3_added_cut(tokenizer->added, whole, as_text, &tokenizer->budget, emit_stretch,
                         tokenizer);
}

hy3_status hy3_tokenizer_encode(struct hy3_tokenizer *tokenizer, const char *text, size_t size,
                                bool specials_as_text, struct hy3_ids *ids)
{
    struct hy3_added_text as_text = {.all = specials_as_text, .id = -1};

    return encode(tokenizer, text, size, &as_text, ids);
}

hy3_status hy3_tokenizer_encode_rendered(struct hy3_tokenizer *tokenizer, const char *text,
                                         size_t size, const struct hy3_contents *contents,
                                         struct hy3_ids *ids, int32_t *found, size_t *at)
{
    struct hy3_added_text as_text = {.contents = contents, .id = -1};

    HY3_TRY(encode(tokenizer, text, size, &as_text, ids));
    *found = as_text.id;
    *at = as_text.at;
    return HY3_OK;
}

static hy3_status token_of(const struct hy3_tokenizer *tokenizer, int32_t id,
                           const struct hy3_token **token)
{
    if (id < 0 || (size_t)id >= tokenizer->vocab.count)
        HY3_FAIL(HY3_EFORMAT, "the id %d is out of range: the tokenizer has ids 0 to %lld", id,
                 (long long)hy3_tokenizer_size(tokenizer) - 1);
    *token = &tokenizer->vocab.tokens[id];
    return HY3_OK;
}

hy3_status hy3_tokenizer_decode(struct hy3_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                bool skip_special, char **text, size_t *size)
{
    hy3_status status = HY3_OK;
    const struct hy3_token *token = NULL;
    char *bytes = NULL;
    size_t used = 0, capacity = 0;

    *text = NULL;
    for (size_t i = 0; i < count; i++) {
        HY3_TRY_DONE(token_of(tokenizer, ids[i], &token));
        if (token->size == 0 || (skip_special && token->is_special))
            continue;
        HY3_TRY_DONE(hy3_grow(&bytes, &capacity, used + token->size, 1));
        memcpy(bytes + used, tokenizer->vocab.bytes + token->at, token->size);
        used += token->size;
    }
    HY3_TRY_DONE(hy3_utf8_repair(bytes, used, text, size));
done:
    hy3_free(bytes);
    return status;
}

hy3_status hy3_tokenizer_bytes(struct hy3_tokenizer *tokenizer, int32_t id, const char **bytes,
                               size_t *size)
{
    const struct hy3_token *token = NULL;

    HY3_TRY(token_of(tokenizer, id, &token));
    *bytes = tokenizer->vocab.bytes + token->at;
    *size = token->size;
    return HY3_OK;
}

enum hy3_dialect hy3_tokenizer_dialect(const struct hy3_tokenizer *tokenizer)
{
    return tokenizer->dialect;
}

const struct hy3_specials *hy3_tokenizer_specials(const struct hy3_tokenizer *tokenizer)
{
    return &tokenizer->specials;
}

int64_t hy3_tokenizer_size(const struct hy3_tokenizer *tokenizer)
{
    return (int64_t)tokenizer->vocab.count;
}

uint64_t hy3_tokenizer_fingerprint(const struct hy3_tokenizer *tokenizer)
{
    return tokenizer->fingerprint;
}
