/* SPDX-License-Identifier: Apache-2.0 */
/* identity.h - what the trained tensors of a checkpoint belong to: the base and the adapter's
 * settings.
 *
 * An adapter, and attention weights, mean nothing without the frozen weights that they were trained
 * beside; a factor's scale and dropout are no tensors. After full fine-tuning only the router's
 * biases and the MTP layers come from the base. */
#pragma once

#include "app/loaded_model.h"
#include "ckpt/state/state.h"

/* Collective on the model's world. The identity of a model that is open, whose fingerprint is kept
 * in it; path: of its base, for messages. The log warns of an adapter that says it is of another
 * base. Errors: HY3_EIO, HY3_EFORMAT of the base. */
hy3_status hy3_identity_of(struct hy3_loaded_model *model, const char *path,
                           struct hy3_state_identity *out);

/* Logically collective. Whether the state at `path` may be continued or exported with this model:
 * HY3_EUSAGE naming both bases, or both adapters' settings, if not. Of another base where nearly
 * all is trained, and of a state that says nothing (versions before), the log tells. */
hy3_status hy3_identity_check(const struct hy3_loaded_model *model, const char *path,
                              const struct hy3_state_identity *state,
                              const struct hy3_state_identity *here);
