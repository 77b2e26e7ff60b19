/* SPDX-License-Identifier: Apache-2.0 */
/* reference.c - doc/migration.md, from the table. */
#include "config/foreign/keys.h"
#include "config/help.h"
#include "config/version.h"

/* clang-format off */
static const char intro[] =
    "# Coming from LLaMA-Factory, DeepSpeed, ms-swift, train.sh\n\n"
    "Written by `hy3_sft --write-reference=migration` of hy3 %s. Their configurations run as they\n"
    "stand, or are refused with the reason, file and line; nothing that changes what is learned is\n"
    "ignored.\n\n"
    "| you have | type |\n|---|---|\n"
    "| a YAML of LLaMA-Factory or ms-swift | `srun hy3_sft run.yaml` |\n"
    "| the flags of `train.sh`, `llamafactory-cli train`, `swift sft` | `srun hy3_sft --model_name_or_path model --train_data_file chat.jsonl --deepspeed z3.json --output_dir output` |\n"
    "| a DeepSpeed JSON | `srun hy3_sft run.yaml deepspeed=z3.json`, or `deepspeed: z3.json` in the YAML |\n"
    "| a wish to see what it means here | `hy3_sft run.yaml --print-config >run.cfg` |\n"
    "| one thing to change | `srun hy3_sft run.yaml learning_rate=2e-5 lr_scheduler_kwargs.min_lr=1e-6` |\n\n"
    "- **Dialect.** A file ending in .yaml, .yml or .json is ms-swift's if it has `model`,\n"
    "  `tuner_type`, `train_type` or `tuner_backend`, else LLaMA-Factory's; flags are ms-swift's with\n"
    "  `--model`, LLaMA-Factory's with `--stage` or `--dataset`, else train.py's. The log names it.\n"
    "  Arguments `key=value` are read in the same origin, their values as YAML; they may follow\n"
    "  flags.\n"
    "- **Defaults.** An absent key has the tool's default, below; keys of hy3 may be used beside\n"
    "  theirs.\n"
    "- **Values.** YAML 1.1 as OmegaConf reads it: `1e-5`, `.1`, `1_000`, `0x10`, `017` (= 15) are\n"
    "  numbers, `yes` and `off` truth values, `null` and `~` an absent key; `&a`, `*a` and `<<` work,\n"
    "  and so do `${key}` and `${oc.env:NAME,default}`. Lists may be texts with commas.\n"
    "- **Paths** are relative to the working directory; an input that is not there but beside the\n"
    "  file that names it is taken from there, with a line in the log.\n"
    "- **Mistakes** of all files and arguments come together, and nothing starts. Keys without a\n"
    "  meaning here are named once in the log, never their values.\n"
    "- Prompts are rendered with the model's own chat template; token ids differ from those of the\n"
    "  other tools where their templates differ from it.\n";

/* clang-format on */

static const struct {
    enum hy3_origin origin;
    const char *title;
} sections[] = {
    {HY3_LLAMA_FACTORY, "LLaMA-Factory"},
    {HY3_MS_SWIFT, "ms-swift"},
    {HY3_TRAIN_PY, "Flags of train.py (train.sh, train_lora.sh)"},
    {HY3_DEEPSPEED, "DeepSpeed's JSON"},
};

/* The words as code. */
static void write_words(FILE *out, const char *words)
{
    const char *word, *before = "";
    size_t length;

    for (; (word = hy3_option_word(&words, &length)); before = " ")
        fprintf(out, "%s`%.*s`", before, (int)length, word);
}

static void write_defaults(FILE *out, enum hy3_origin origin)
{
    if (origin == HY3_DEEPSPEED)
        return;
    fputs("\n| default that differs from hy3's | value |\n|---|---|\n", out);
    for (const struct hy3_foreign_default *d = hy3_foreign_defaults; d->key; d++)
        if (d->origins & origin)
            fprintf(out, "| `%s` | %s |\n", d->key, d->value);
    if (origin == HY3_LLAMA_FACTORY)
        fputs("| `lora_alpha` | twice the rank |\n", out);
    if (origin == HY3_MS_SWIFT)
        fputs("| `learning_rate` | 1e-4, for full training 1e-5 |\n", out);
}

static void write_meaning(FILE *out, const struct hy3_foreign_key *k)
{
    switch (k->kind) {
    case HY3_FOREIGN_MAPPED:
        if (k->how == HY3_HOW_UNDER_PREFIX) {
            fputs(k->note, out);
            return;
        }
        if (k->to)
            fprintf(out, "`%s`", k->to);
        else
            fputs("the same", out);
        fprintf(out, "%s%s", k->note ? "; " : "", k->note ? k->note : "");
        return;
    case HY3_FOREIGN_CHECKED:
        fputs("must be ", out);
        write_words(out, k->values);
        fprintf(out, "%s%s", k->note ? ": " : "", k->note ? k->note : "");
        return;
    case HY3_FOREIGN_UNUSED:
    case HY3_FOREIGN_SILENT:
        fprintf(out, "no meaning here%s%s", k->note ? ": " : "", k->note ? k->note : "");
        return;
    case HY3_FOREIGN_REFUSED:
        fprintf(out, "refused: %s", k->note);
    }
}

hy3_status hy3_reference_write_migration(FILE *out)
{
    fprintf(out, intro, HY3_VERSION);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        fprintf(out, "\n## %s\n", sections[i].title);
        write_defaults(out, sections[i].origin);
        fputs("\n| key | here |\n|---|---|\n", out);
        for (const struct hy3_foreign_key *k = hy3_foreign_keys; k->names; k++) {
            if (!(k->origins & sections[i].origin))
                continue;
            fputs("| ", out);
            write_words(out, k->names);
            fputs(" | ", out);
            write_meaning(out, k);
            fputs(" |\n", out);
        }
    }
    return HY3_OK;
}
