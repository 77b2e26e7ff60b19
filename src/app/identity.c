/* SPDX-License-Identifier: Apache-2.0 */
/* identity.c - texts, so that a message can show both. */
#include "app/identity.h"

#include "base/log.h"
#include "ckpt/hf/fingerprint.h"
#include "model/lora.h"

/* "rank 4, alpha 8, dropout 0.05, targets q_proj v_proj"; "" without an adapter. */
static void format_adapter(const struct hy3_lora *lora, char *out, size_t size)
{
    size_t used;

    out[0] = '\0';
    if (lora->rank == 0)
        return;
    used = (size_t)snprintf(out, size, "rank %lld, alpha %g%s, dropout %g, targets",
                            (long long)lora->rank, lora->alpha, lora->rslora ? ", rsLoRA" : "",
                            lora->dropout);
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT && used < size; kind++) {
        const char *target = hy3_kinds[kind].target;
        bool told = false;

        for (int before = 0; before < kind && target; before++)
            told |= lora->targets[before] && hy3_kinds[before].target &&
                    strcmp(hy3_kinds[before].target, target) == 0;
        if (lora->targets[kind] && target && !told)
            used += (size_t)snprintf(out + used, size - used, " %s", target);
    }
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT && used < size; kind++)
        if (lora->saved[kind])
            used +=
                (size_t)snprintf(out + used, size - used, ", whole %s", hy3_lora_saved_name(kind));
}

hy3_status hy3_identity_of(struct hy3_loaded_model *model, const char *path,
                           struct hy3_state_identity *out)
{
    uint64_t fingerprint;

    *out = (struct hy3_state_identity){0};
    HY3_TRY(hy3_hf_fingerprint(model->layout.world.comm, model->base, &model->shape, &fingerprint));
    snprintf(model->base_fingerprint, sizeof model->base_fingerprint, "%016llx",
             (unsigned long long)fingerprint);
    snprintf(out->fingerprint, sizeof out->fingerprint, "%s", model->base_fingerprint);
    if (model->adapter)
        hy3_adapter_tell_base(model->adapter, path, model->base_fingerprint);
    snprintf(out->base, sizeof out->base, "%s", path);
    format_adapter(&model->params->lora, out->adapter, sizeof out->adapter);
    return HY3_OK;
}

/* Whether all tensors of the units are trained. */
static bool is_full(const struct hy3_params *params)
{
    for (int i = 0; i < params->count; i++)
        if (params->params[i].unit >= 0 && !params->params[i].trainable)
            return false;
    return true;
}

hy3_status hy3_identity_check(const struct hy3_loaded_model *model, const char *path,
                              const struct hy3_state_identity *state,
                              const struct hy3_state_identity *here)
{
    if (state->fingerprint[0] == '\0') {
        hy3_log(HY3_LOG_INFO,
                "'%s' is of an earlier version and does not say which base and which settings of "
                "an adapter it was trained with: not compared",
                path);
        return HY3_OK;
    }
    if (strcmp(state->adapter, here->adapter) != 0)
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' is of another run: it trained %s%s, this one trains %s%s; restore the "
                 "settings (lora_rank, lora_alpha, use_rslora, lora_dropout, lora_target, "
                 "additional_target), or start over in another directory",
                 path, state->adapter[0] ? "an adapter with " : "no adapter", state->adapter,
                 here->adapter[0] ? "an adapter with " : "no adapter", here->adapter);
    if (strcmp(state->fingerprint, here->fingerprint) == 0)
        return HY3_OK;
    if (!is_full(model->params))
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' was trained on the base '%s' (fingerprint %s), the base '%s' has other "
                 "weights (fingerprint %s): name that base, or start over in another directory",
                 path, state->base, state->fingerprint, here->base, here->fingerprint);
    hy3_log(HY3_LOG_WARN,
            "'%s' was trained from the base '%s', '%s' has other weights: the biases of routers "
            "and the MTP layers, which are not trained, are now those of '%s'",
            path, state->base, here->base, here->base);
    return HY3_OK;
}
