/* SPDX-License-Identifier: Apache-2.0 */
/* yaml.c - libyaml's document, walked once. */
#include "config/foreign/yaml.h"

#include "base/memory.h"
#include "config/foreign/scalar.h"

#include <yaml.h>

#include <stdarg.h>

enum {
    DEPTH_MAX = 8,      /* of maps in maps */
    VISITS_MAX = 20000, /* nodes, those behind aliases counted every time */
    WHERE_MAX = 512,
};

struct reader {
    yaml_document_t *document;
    const char *path;
    int visits;
    struct hy3_settings *settings;
    struct hy3_problems *problems;
};

static hy3_status read_map(struct reader *r, const yaml_node_t *map, const char *prefix, int depth);

static int line_of(const yaml_node_t *node)
{
    return (int)node->start_mark.line + 1;
}

__attribute__((format(printf, 3, 4))) static void refuse(const struct reader *r,
                                                         const yaml_node_t *node,
                                                         const char *format, ...)
{
    char place[WHERE_MAX], text[HY3_YAML_KEY + 64];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(place, sizeof place, "%.480s:%d", r->path, line_of(node));
    hy3_problem(r->problems, place, "%s", text);
}

static const char *text_of(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* Whether a scalar can be taken: no NUL in it, and a tag of YAML's core. */
static bool check_node(struct reader *r, const yaml_node_t *node)
{
    static const char core[] = "tag:yaml.org,2002:";
    static const char *const kinds[] = {"str", "int", "float", "bool", "null", "seq", "map"};
    const char *tag = (const char *)node->tag;
    bool is_known = false;

    if (++r->visits > VISITS_MAX) {
        if (r->visits == VISITS_MAX + 1)
            refuse(r, node, "too many values; are aliases nested?");
        return false;
    }
    for (size_t i = 0; tag && i < sizeof kinds / sizeof *kinds; i++)
        is_known = is_known || (strncmp(tag, core, sizeof core - 1) == 0 &&
                                strcmp(tag + sizeof core - 1, kinds[i]) == 0);
    if (tag && !is_known)
        refuse(r, node, "unknown tag '%.64s'", tag);
    if (node->type == YAML_SCALAR_NODE && strlen(text_of(node)) != node->data.scalar.length)
        refuse(r, node, "a text must not hold a NUL");
    return true;
}

static bool is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           hy3_scalar_is_null(text_of(node));
}

static hy3_status read_list(struct reader *r, const yaml_node_t *node, struct hy3_setting *to)
{
    to->type = HY3_VALUE_LIST;
    for (const yaml_node_item_t *i = node->data.sequence.items.start;
         i < node->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(r->document, *i);

        if (!check_node(r, item))
            return HY3_OK;
        if (item->type != YAML_SCALAR_NODE || is_null(item))
            to->type = HY3_VALUE_MIXED;
        else
            HY3_TRY(hy3_list_add(&to->texts, text_of(item), strlen(text_of(item))));
    }
    return HY3_OK;
}

/* The value of the key whose whole name is `name`. */
static hy3_status read_value(struct reader *r, const yaml_node_t *key, const yaml_node_t *value,
                             const char *name, int depth)
{
    char place[WHERE_MAX];
    struct hy3_setting *setting;
    bool is_map = value->type == YAML_MAPPING_NODE;

    if (!check_node(r, value))
        return HY3_OK;
    if (is_map && value->data.mapping.pairs.start < value->data.mapping.pairs.top) {
        if (depth < DEPTH_MAX)
            return read_map(r, value, name, depth + 1);
        refuse(r, value, "the maps of '%.64s' are nested too deep", name);
        return HY3_OK;
    }
    snprintf(place, sizeof place, "%.480s:%d", r->path, line_of(key));
    HY3_TRY(hy3_settings_add(r->settings, name, place, &setting));
    setting->type = is_map || is_null(value) ? HY3_VALUE_NULL : HY3_VALUE_WORD;
    if (value->type == YAML_SEQUENCE_NODE)
        return read_list(r, value, setting);
    if (setting->type == HY3_VALUE_NULL)
        return HY3_OK;
    return hy3_list_add(&setting->texts, text_of(value), strlen(text_of(value)));
}

/* Whether the map has the key in a pair before `end`. */
static bool has_key(const struct reader *r, const yaml_node_t *map, const yaml_node_pair_t *end,
                    const char *key)
{
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < end; p++) {
        const yaml_node_t *node = yaml_document_get_node(r->document, p->key);

        if (node->type == YAML_SCALAR_NODE && strcmp(text_of(node), key) == 0)
            return true;
    }
    return false;
}

/* Whether an earlier map of "<<", which wins, has given the key. */
static bool is_merged(const struct reader *r, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < r->settings->count; i++) {
        const char *key = r->settings->items[i].key;

        if (strncmp(key, name, length) == 0 && (key[length] == '\0' || key[length] == '.'))
            return true;
    }
    return false;
}

/* "<<": the pairs of another map, or of several, that `map` does not have itself. */
static hy3_status merge(struct reader *r, const yaml_node_t *map, const yaml_node_t *from,
                        const char *prefix, int depth)
{
    if (!check_node(r, from) || depth > DEPTH_MAX)
        return HY3_OK;
    if (from->type == YAML_SEQUENCE_NODE) {
        for (const yaml_node_item_t *i = from->data.sequence.items.start;
             i < from->data.sequence.items.top; i++)
            HY3_TRY(merge(r, map, yaml_document_get_node(r->document, *i), prefix, depth + 1));
        return HY3_OK;
    }
    if (from->type != YAML_MAPPING_NODE) {
        refuse(r, from, "'<<' needs a map, or a list of maps");
        return HY3_OK;
    }
    for (const yaml_node_pair_t *p = from->data.mapping.pairs.start;
         p < from->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, p->key);
        char name[HY3_YAML_KEY];

        if (!check_node(r, key))
            return HY3_OK;
        if (key->type != YAML_SCALAR_NODE ||
            has_key(r, map, map->data.mapping.pairs.top, text_of(key)))
            continue;
        if ((size_t)snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "",
                             text_of(key)) >= sizeof name)
            refuse(r, key, "the key '%.64s…' is too long", text_of(key));
        else if (!is_merged(r, name))
            HY3_TRY(read_value(r, key, yaml_document_get_node(r->document, p->value), name, depth));
    }
    return HY3_OK;
}

static hy3_status read_map(struct reader *r, const yaml_node_t *map, const char *prefix, int depth)
{
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, p->key);
        const yaml_node_t *value = yaml_document_get_node(r->document, p->value);
        char name[HY3_YAML_KEY];

        if (!check_node(r, key))
            return HY3_OK;
        if (key->type != YAML_SCALAR_NODE) {
            refuse(r, key, "a key must be a word");
            continue;
        }
        if (strcmp(text_of(key), "<<") == 0) {
            HY3_TRY(merge(r, map, value, prefix, depth));
            continue;
        }
        if ((size_t)snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "",
                             text_of(key)) >= sizeof name)
            refuse(r, key, "the key '%.64s…' is too long", text_of(key));
        else if (has_key(r, map, p, text_of(key)))
            refuse(r, key, "the key '%.64s' is given twice; keep one", text_of(key));
        else
            HY3_TRY(read_value(r, key, value, name, depth));
    }
    return HY3_OK;
}

/* What libyaml says of text that is none. */
static void explain(const struct reader *r, const yaml_parser_t *parser)
{
    char place[WHERE_MAX];
    const char *problem = parser->problem ? parser->problem : "it cannot be read";
    bool is_tab = strstr(problem, "cannot start any token") && parser->problem_mark.line > 0;

    snprintf(place, sizeof place, "%.480s:%d", r->path, (int)parser->problem_mark.line + 1);
    hy3_problem(r->problems, place, "not valid YAML: %s%s", problem,
                is_tab ? " (a tab indents nothing in YAML: use blanks)" : "");
}

static hy3_status read_document(struct reader *r, yaml_parser_t *parser)
{
    yaml_document_t second;
    const yaml_node_t *root = yaml_document_get_root_node(r->document);

    if (!root)
        return HY3_OK;
    if (root->type != YAML_MAPPING_NODE) {
        refuse(r, root, "the top level must be a map of keys and values");
        return HY3_OK;
    }
    HY3_TRY(read_map(r, root, "", 0));
    if (!yaml_parser_load(parser, &second)) {
        explain(r, parser);
        return HY3_OK;
    }
    if (yaml_document_get_root_node(&second))
        refuse(r, yaml_document_get_root_node(&second), "%s",
               "a second document begins here; give one");
    yaml_document_delete(&second);
    return HY3_OK;
}

hy3_status hy3_yaml_read(const char *text, size_t size, const char *path,
                         struct hy3_settings *settings, struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    yaml_document_t document;
    yaml_parser_t parser;
    struct reader r = {
        .document = &document, .path = path, .settings = settings, .problems = problems};

    if (!yaml_parser_initialize(&parser))
        HY3_FAIL(HY3_ENOMEM, "out of memory for reading '%s'", path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    if (!yaml_parser_load(&parser, &document)) {
        explain(&r, &parser);
        goto done;
    }
    status = read_document(&r, &parser);
    yaml_document_delete(&document);
done:
    yaml_parser_delete(&parser);
    return status;
}
