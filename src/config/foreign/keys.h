/* SPDX-License-Identifier: Apache-2.0 */
/* keys.h - the keys of other tools and what becomes of each: one table, read by the translation and
 * by the page "Coming from LLaMA-Factory, DeepSpeed, ms-swift" (doc/migration.md). */
#pragma once

#include "base/error.h"

enum hy3_origin { /* bits: a key may belong to several */
                  HY3_LLAMA_FACTORY = 1,
                  HY3_MS_SWIFT = 2,
                  HY3_TRAIN_PY = 4, /* flags of the public train.py of Hy3 */
                  HY3_DEEPSPEED = 8 /* the JSON that the others name */
};

enum hy3_foreign_kind {
    HY3_FOREIGN_MAPPED,  /* becomes a key of hy3 */
    HY3_FOREIGN_CHECKED, /* must have a value that hy3 has anyway */
    HY3_FOREIGN_UNUSED,  /* changes nothing that is learned, and means nothing here: named once */
    HY3_FOREIGN_SILENT,  /* the same, and stands in every file: not named */
    HY3_FOREIGN_REFUSED  /* changes the result and is not available */
};

/* How a value of a mapped key becomes one of ours. */
enum hy3_foreign_how {
    HY3_HOW_PLAIN,       /* by the type of our key */
    HY3_HOW_NAMED,       /* of a checked key: named with those that have no meaning here */
    HY3_HOW_PATH,        /* an input: also looked for beside the file that names it */
    HY3_HOW_ADAPTER,     /* the same, and a list of one is fine */
    HY3_HOW_DATASET_DIR, /* the same; dataset_info.json must be in it */
    HY3_HOW_TOKENIZED,   /* a directory that is not there yet: our cache */
    HY3_HOW_ALPHA,       /* not given, null or 0: twice the rank */
    HY3_HOW_WARMUP,      /* below 1: warmup_ratio */
    HY3_HOW_TIMEOUT,     /* above a day: ours stays */
    HY3_HOW_RESUME,      /* a directory: must be a checkpoint of hy3 */
    HY3_HOW_SWIFT_DATA,  /* paths, "#N" behind one: N samples */
    HY3_HOW_REPORT,      /* a list of backends */
    HY3_HOW_MIN_LR,      /* of train.py: only with cosine_with_min_lr */
    HY3_HOW_SYSTEM,      /* a system message; not the name of a file with one */
    HY3_HOW_SCHEDULE,    /* lr_scheduler_type: two are refused with what to use */

    /* one of several keys that make ours: none of them replaces another */
    HY3_HOW_PART,
    HY3_HOW_CHECKPOINTING = HY3_HOW_PART, /* disable_…: wins over gradient_checkpointing */
    HY3_HOW_PACKING,                      /* either of two */
    HY3_HOW_TARGETS,                      /* modules; "all" is without routed experts there */
    HY3_HOW_PARAMETERS,                   /* both of mlp.experts.*: experts */
    HY3_HOW_EVAL,                         /* no, steps, epoch */
    HY3_HOW_SAVE,                         /* no, steps, epoch, best */
    HY3_HOW_SAMPLING,                     /* sequential: not shuffled */
    HY3_HOW_SWANLAB,                      /* one more of report_to */
    HY3_HOW_MODEL,                        /* must be as config.json has it */
    HY3_HOW_PRESERVE,                     /* of loss_scale or mask_history if not given */
    HY3_HOW_LOSS_SCALE,                   /* words joined by '+': what is not learned */
    HY3_HOW_LORA_FLAG,                    /* use_lora: the adapter's type and targets */
    HY3_HOW_ATTENTION,                    /* train_attention_params_only */
    HY3_HOW_FLASH_FLAG,                   /* use_flash_attn */
    HY3_HOW_DEEPSPEED,                    /* a file, a map in place, a preset's name */
    HY3_HOW_FSDP,                         /* full_shard, shard_grad_op, no_shard, offload */
    HY3_HOW_UNDER_PREFIX,                 /* the keys of the map of this name */
};

struct hy3_foreign_key {
    const char
        *names;       /* words, of one meaning; an entry of other kinds than mapped may have many */
    unsigned origins; /* of enum hy3_origin */
    enum hy3_foreign_kind kind;
    enum hy3_foreign_how how;
    const char *to;     /* our key; NULL: of the same name */
    const char *values; /* mapped: "theirs=ours …"; checked: the values that are right; refused:
                           those that mean off, besides null, false, 0, none and no */
    const char *note;   /* refused, checked: what to do instead; else for the page; or NULL */
};

/* A value that a key of ours has where the file of that tool is silent, and differs from ours. */
struct hy3_foreign_default {
    unsigned origins;
    const char *key, *value;
};

/* The Linear modules of Hy3, which are "all" there: the routed experts are parameters. */
#define HY3_FOREIGN_LINEAR "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"

/* Both end with an entry of zeros. */
extern const struct hy3_foreign_key hy3_foreign_keys[];
extern const struct hy3_foreign_default hy3_foreign_defaults[];

/* Local. The entry of that key in that origin, NULL if there is none. */
const struct hy3_foreign_key *hy3_foreign_find(enum hy3_origin origin, const char *key);

/* Local. The key of the origin, or of hy3, that is most like `key`; NULL if none is. */
const char *hy3_foreign_nearest(enum hy3_origin origin, const char *key);

/* Local. "LLaMA-Factory", "ms-swift", "train.py", "DeepSpeed". */
const char *hy3_origin_name(enum hy3_origin origin);
