/* SPDX-License-Identifier: Apache-2.0 */
/* flags.h - command lines of other tools: "--learning_rate 1e-5 --do_train --dataset a b". */
#pragma once

#include "config/foreign/keys.h"
#include "config/settings.h"

/* Local. Whether the command line is one of flags, of train.py, LLaMA-Factory or ms-swift: one of
 * them names the model. */
bool hy3_flags_find(int argc, char **argv, enum hy3_origin *origin);

/* Local. Whether the word is key=value, of a key of that tool or of hy3: it ends the values of a
 * flag that has one or needs none. */
bool hy3_flags_is_pair(enum hy3_origin origin, const char *word);

/* Local. Reads argv[*i], a flag, and its values, by the rules of HfArgumentParser (transformers,
 * hf_argparser.py): --key v, --key=v, --key a b c, --some-key v; --flag is true, --no_flag false;
 * of two the last counts. *i: moved to the last word taken. Errors: HY3_ENOMEM. */
hy3_status hy3_flag_read(enum hy3_origin origin, int argc, char **argv, int *i,
                         struct hy3_settings *settings, struct hy3_problems *problems);
