/* SPDX-License-Identifier: Apache-2.0 */
/* generate.c - from a conversation to its next turn. */
#include "app/generate.h"

#include "app/identity.h"
#include "app/loaded_model.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "comm/stop.h"
#include "data/kind.h"
#include "engine/generate.h"
#include "text/message.h"
#include "text/template.h"
#include "text/tokenizer.h"

#include <errno.h>

struct hy3_generate {
    struct hy3_generate_options options;
    struct hy3_loaded_model model;
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

hy3_status hy3_generate_open(MPI_Comm comm, const struct hy3_generate_options *options,
                             struct hy3_generate **out)
{
    hy3_status status = HY3_OK;
    struct hy3_generate *g = NULL;
    struct hy3_loaded_model_options model = {
        .directory = options->directory, .adapter = options->adapter, .device = options->device};
    struct hy3_state_identity identity;
    bool wide;

    *out = NULL;
    if (hy3_size(comm) != 1)
        HY3_FAIL_DONE(HY3_EUSAGE, "text is generated on one rank, not %d; start without a launcher",
                      hy3_size(comm));
    HY3_TRY_DONE(hy3_alloc(&g, 1, sizeof *g));
    g->options = *options;
    HY3_TRY_DONE(hy3_loaded_model_open(comm, &model, &g->model));
    HY3_TRY_DONE(is_wide(options->directory, &wide));
    model.store.dtype = wide ? HY3_FP32 : HY3_BF16;
    model.expert_parallel_size = 1;
    HY3_TRY_DONE(hy3_tokenizer_open(options->directory, &g->tokenizer));
    if (hy3_tokenizer_size(g->tokenizer) > g->model.shape.vocab)
        HY3_FAIL_DONE(HY3_EFORMAT, "the tokenizer in '%s' has more ids than the model's vocabulary",
                      options->directory);
    HY3_TRY_DONE(hy3_loaded_model_load(&g->model, &model));
    if (options->adapter) /* warns of one that is for another base */
        HY3_TRY_DONE(hy3_identity_of(&g->model, options->directory, &identity));
    if (options->adapter)
        HY3_TRY_DONE(hy3_loaded_model_load_adapter(&g->model, 0, hy3_store_values(g->model.store)));
    *out = HY3_TAKE(g);
done:
    hy3_generate_close(g);
    return status;
}

void hy3_generate_close(struct hy3_generate *g)
{
    if (!g)
        return;
    hy3_tokenizer_close(g->tokenizer);
    hy3_loaded_model_close(&g->model);
    hy3_free(g);
}

/* The prompt's ids, with an assistant turn opened at its end. What the messages say is plain text:
 * it never ends a turn or speaks as another role. */
static hy3_status encode(const struct hy3_generate *g, struct hy3_conversation *conversation,
                         struct hy3_ids *ids)
{
    hy3_status status = HY3_OK;
    struct hy3_template_options options = {.add_generation_prompt = true, .keep_thinking = -1};
    struct hy3_text text = {0};
    struct hy3_contents contents = {0};
    int32_t found;
    size_t at;
    json_t *messages = json_object_get(hy3_conversation_json(conversation), "messages");
    size_t count = json_array_size(messages);
    const json_t *role = json_object_get(json_array_get(messages, count - 1), "role");

    if (count > 1 && json_is_string(role) && strcmp(json_string_value(role), "assistant") == 0)
        json_array_remove(messages, count - 1);
    HY3_TRY_DONE(hy3_template_render_marked(conversation, hy3_tokenizer_dialect(g->tokenizer),
                                            &options, &text, &contents));
    HY3_TRY_DONE(hy3_tokenizer_encode_rendered(g->tokenizer, text.data, text.size, &contents, ids,
                                               &found, &at));
done:
    hy3_free(contents.items);
    hy3_free(text.data);
    return status;
}

static hy3_status print_token(const struct hy3_generate *g, int32_t token, FILE *out)
{
    const char *bytes;
    size_t size;

    HY3_TRY(hy3_tokenizer_bytes(g->tokenizer, token, &bytes, &size));
    fwrite(bytes, 1, size, out);
    if (fflush(out) != 0 && errno != EPIPE) /* a reader that has left ends nothing */
        HY3_FAIL(HY3_EIO, "cannot write the generated text: %s", strerror(errno));
    return HY3_OK;
}

/* The assistant's next turn. */
static hy3_status add_turn(struct hy3_generate *g, struct hy3_conversation *conversation, FILE *out)
{
    hy3_status status = HY3_OK;
    struct hy3_ids ids = {0};
    struct hy3_generator *generator = NULL;
    int64_t room = g->model.shape.max_positions, limit;
    const float *logits;

    HY3_TRY_DONE(encode(g, conversation, &ids));
    if ((int64_t)ids.count >= room)
        HY3_FAIL_DONE(HY3_EUSAGE, "the prompt has %zu tokens, the model has %lld positions",
                      ids.count, (long long)room);
    limit = (int64_t)ids.count + g->options.max_new_tokens;
    limit = limit < room ? limit : room;
    HY3_TRY_DONE(hy3_generator_open(g->model.backend, g->model.store, limit, &generator));
    HY3_TRY_DONE(hy3_generator_feed(generator, ids.data, (int64_t)ids.count, &logits));
    for (int64_t place = (int64_t)ids.count; place < limit; place++) {
        int32_t token = hy3_sample_token(logits, hy3_tokenizer_size(g->tokenizer),
                                         g->options.temperature, g->options.seed, (uint64_t)place);

        if (token == hy3_tokenizer_specials(g->tokenizer)->eos)
            break;
        HY3_TRY_DONE(print_token(g, token, out));
        HY3_TRY_DONE(hy3_stop_check("generating text"));
        if (place + 1 < limit)
            HY3_TRY_DONE(hy3_generator_feed(generator, &token, 1, &logits));
    }
    fputc('\n', out);
done:
    hy3_generator_close(generator);
    hy3_free(ids.data);
    return status;
}

hy3_status hy3_generate_prompt(struct hy3_generate *generate, const char *prompt, FILE *out)
{
    hy3_status status = HY3_OK;
    struct hy3_conversation *conversation = NULL;

    HY3_TRY_DONE(hy3_conversation_prompt(prompt, &conversation));
    HY3_TRY_DONE(add_turn(generate, conversation, out));
done:
    hy3_conversation_free(conversation);
    return status;
}

/* Once for the whole file. */
static void name_unread(const char *path, json_t *unread)
{
    const char *name;
    json_t *value;

    json_object_foreach(unread, name, value)
        hy3_log(HY3_LOG_INFO, "%s: ignored key: %s", path, name);
}

hy3_status hy3_generate_file(struct hy3_generate *generate, const char *path, FILE *out)
{
    hy3_status status = HY3_OK;
    struct hy3_conversation *conversation;
    char *text = NULL, *end, reason[HY3_ERROR_MAX];
    size_t size, line = 0;
    enum hy3_data_layout layout;
    json_t *unread = json_object();

    HY3_TRY_DONE(hy3_file_read(path, (size_t)1 << 30, &text, &size));
    HY3_TRY_DONE(
        hy3_kind_check(path, text, size < HY3_KIND_BYTES ? size : HY3_KIND_BYTES, &layout));
    if (layout != HY3_LAYOUT_LINES)
        HY3_FAIL_DONE(HY3_EFORMAT,
                      "'%s' is a JSON array, or has objects over several lines; write one in each "
                      "line: jq -c '.[]' (or jq -c .) IN.json > OUT.jsonl",
                      path);
    for (char *at = text; at < text + size; at = end + 1) {
        end = memchr(at, '\n', (size_t)(text + size - at));
        end = end ? end : text + size;
        line++;
        if (strspn(at, " \t\r") >= (size_t)(end - at))
            continue;
        status = hy3_conversation_parse(at, (size_t)(end - at), &conversation);
        if (status == HY3_OK)
            json_object_update(unread, hy3_conversation_unread(conversation));
        if (status == HY3_OK)
            status = add_turn(generate, conversation, out);
        hy3_conversation_free(conversation);
        if (status == HY3_EFORMAT) {
            snprintf(reason, sizeof reason, "%s", hy3_error_text());
            HY3_FAIL_DONE(HY3_EFORMAT, "%s:%zu: %s", path, line, reason);
        }
        HY3_TRY_DONE(status);
    }
    name_unread(path, unread);
done:
    json_decref(unread);
    hy3_free(text);
    return status;
}
