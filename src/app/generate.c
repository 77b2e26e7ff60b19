/* SPDX-License-Identifier: Apache-2.0 */
/* generate.c - from a conversation to the next turn. */
#include "app/generate.h"

#include "app/loaded_model.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "engine/generate.h"
#include "text/template.h"
#include "text/tokenizer.h"

struct hy3_answerer {
    struct hy3_answer_options options;
    struct hy3_loaded_model network;
    struct hy3_tokenizer *tokenizer;
};

/* Whether config.json says float32; all else runs in bf16. */
static hy3_status is_wide(const char *directory, bool *wide)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    json_t *config = NULL;
    const json_t *dtype;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/config.json", directory));
    HY3_TRY_DONE(hy3_json_read(path, (size_t)1 << 20, &config));
    dtype = json_object_get(config, "dtype");
    if (!dtype)
        dtype = json_object_get(config, "torch_dtype");
    *wide = json_is_string(dtype) && strcmp(json_string_value(dtype), "float32") == 0;
done:
    json_decref(config);
    return status;
}

hy3_status hy3_answerer_open(MPI_Comm comm, const struct hy3_answer_options *options,
                             struct hy3_answerer **out)
{
    hy3_status status = HY3_OK;
    struct hy3_answerer *a = NULL;
    struct hy3_loaded_model_options network = {
        .directory = options->directory, .adapter = options->adapter, .device = options->device};
    bool wide;

    *out = NULL;
    if (hy3_size(comm) != 1)
        HY3_FAIL_DONE(HY3_EUSAGE, "text is generated on one rank, not %d; start without a launcher",
                      hy3_size(comm));
    HY3_TRY_DONE(hy3_alloc(&a, 1, sizeof *a));
    a->options = *options;
    HY3_TRY_DONE(hy3_loaded_model_open(comm, &network, &a->network));
    HY3_TRY_DONE(is_wide(options->directory, &wide));
    network.store.dtype = wide ? HY3_FP32 : HY3_BF16;
    network.expert_parallel_size = 1;
    HY3_TRY_DONE(hy3_tokenizer_open(options->directory, &a->tokenizer));
    if (hy3_tokenizer_size(a->tokenizer) > a->network.shape.vocab)
        HY3_FAIL_DONE(HY3_EFORMAT, "the tokenizer in '%s' has more ids than the model's vocabulary",
                      options->directory);
    HY3_TRY_DONE(hy3_loaded_model_load(&a->network, &network));
    if (options->adapter)
        HY3_TRY_DONE(hy3_loaded_model_load_adapter(&a->network, 0, NULL, NULL));
    *out = a;
    a = NULL;
done:
    hy3_answerer_close(a);
    return status;
}

void hy3_answerer_close(struct hy3_answerer *a)
{
    if (!a)
        return;
    hy3_tokenizer_close(a->tokenizer);
    hy3_loaded_model_close(&a->network);
    hy3_free(a);
}

/* The prompt's ids, with an assistant turn opened at its end. */
static hy3_status encode(const struct hy3_answerer *a, struct hy3_conversation *conversation,
                         struct hy3_ids *ids)
{
    hy3_status status = HY3_OK;
    struct hy3_template_options options = {.add_generation_prompt = true, .keep_thinking = -1};
    struct hy3_text text = {0};
    json_t *messages = json_object_get(hy3_conversation_json(conversation), "messages");
    size_t count = json_array_size(messages);
    const json_t *role = json_object_get(json_array_get(messages, count - 1), "role");

    if (count > 1 && json_is_string(role) && strcmp(json_string_value(role), "assistant") == 0)
        json_array_remove(messages, count - 1);
    HY3_TRY_DONE(
        hy3_template_render(conversation, hy3_tokenizer_dialect(a->tokenizer), &options, &text));
    HY3_TRY_DONE(hy3_tokenizer_encode(a->tokenizer, text.data, text.size, false, ids));
done:
    hy3_free(text.data);
    return status;
}

static hy3_status print_token(const struct hy3_answerer *a, int32_t token, FILE *out)
{
    const char *bytes;
    size_t size;

    HY3_TRY(hy3_tokenizer_bytes(a->tokenizer, token, &bytes, &size));
    fwrite(bytes, 1, size, out);
    if (fflush(out) != 0)
        HY3_FAIL(HY3_EIO, "cannot write the answer");
    return HY3_OK;
}

hy3_status hy3_answer(struct hy3_answerer *a, struct hy3_conversation *conversation, FILE *out)
{
    hy3_status status = HY3_OK;
    struct hy3_ids ids = {0};
    struct hy3_generator *generator = NULL;
    int64_t room = a->network.shape.max_positions, limit;
    const float *logits;

    HY3_TRY_DONE(encode(a, conversation, &ids));
    if ((int64_t)ids.count >= room)
        HY3_FAIL_DONE(HY3_EUSAGE, "the prompt has %zu tokens, the model has %lld positions",
                      ids.count, (long long)room);
    limit = (int64_t)ids.count + a->options.max_new_tokens;
    limit = limit < room ? limit : room;
    HY3_TRY_DONE(hy3_generator_open(a->network.backend, a->network.store, limit, &generator));
    HY3_TRY_DONE(hy3_generator_feed(generator, ids.data, (int64_t)ids.count, &logits));
    for (int64_t place = (int64_t)ids.count; place < limit; place++) {
        int32_t token = hy3_sample_token(logits, hy3_tokenizer_size(a->tokenizer),
                                         a->options.temperature, a->options.seed, (uint64_t)place);

        if (token == hy3_tokenizer_specials(a->tokenizer)->eos)
            break;
        HY3_TRY_DONE(print_token(a, token, out));
        if (place + 1 < limit)
            HY3_TRY_DONE(hy3_generator_feed(generator, &token, 1, &logits));
    }
    fputc('\n', out);
done:
    hy3_generator_close(generator);
    hy3_free(ids.data);
    return status;
}
