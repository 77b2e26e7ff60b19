/* SPDX-License-Identifier: Apache-2.0 */
/* names.h - inner and outer names and the layout of experts: the only place that knows both.
 *
 * Outer: the names of model/params.h, experts fused as gate_up_proj [E,2I,H] (gate rows first) and
 * down_proj [E,H,I]. Inner: as published, one tensor an expert
 * (mlp.experts.N.{gate,up,down}_proj.weight), mlp.router.gate.weight, mlp.expert_bias,
 * mlp.shared_mlp.*; older: mlp.gate.wg.weight. */
#pragma once

#include "model/params.h"

enum hy3_names { HY3_INNER, HY3_OUTER };

/* "inner", "outer", NULL. */
extern const char *const hy3_names_words[];

/* What a tensor of a file is: a range of an outer tensor. */
struct hy3_name {
    char outer[HY3_PARAM_NAME]; /* outer name of the tensor it is (a part of) */
    int layer;                  /* -1 outside the layers */
    int64_t expert;             /* -1: the whole tensor */
    int part;                   /* gate 0, up 1 of gate_up_proj; else 0 */
    bool is_inner;              /* the name exists in the inner layout only */
    bool is_outer;              /* the name exists in the outer layout only */
};

/* Local. Reads the name of a tensor of a checkpoint; unknown names come back unchanged as `outer`.
 * false: too long. */
bool hy3_name_parse(const char *name, struct hy3_name *out);

/* Local. The name in a layout of the tensor with this outer name, or of one expert's part of it
 * (expert and part as in struct hy3_name). Names without a rule stay as they are. false: too
 * long. */
bool hy3_name_format(const char *outer, int64_t expert, int part, enum hy3_names names,
                     char out[HY3_PARAM_NAME]);

/* Local. The number of tensors the outer parameter has in a layout: 1, or for experts in the inner
 * one 2E (gate_up) or E. */
int64_t hy3_name_pieces(const struct hy3_param *param, const struct hy3_shape *shape,
                        enum hy3_names names);

/* Local. Piece `i` of a parameter in a layout: its name and shape; returns its elements of the
 * flattened outer tensor. */
struct hy3_span hy3_name_piece(const struct hy3_param *param, const struct hy3_shape *shape,
                               enum hy3_names names, int64_t i, char name[HY3_PARAM_NAME],
                               int *dims, int64_t piece_shape[3]);

/* Local. Name and shape in the file of an adapter, of a factor or of a tensor that it has whole:
 * PEFT puts base_model.model. in front of the outer name. */
void hy3_name_in_adapter(const struct hy3_param *param, char name[HY3_PARAM_NAME], int *dims,
                         int64_t shape[3]);

/* Where a tensor of a checkpoint belongs in the table. */
struct hy3_place {
    const struct hy3_param *param; /* NULL: it is no parameter */
    bool is_mtp;                   /* no parameter, but part of a multi-token-prediction layer */
    int64_t piece, pieces; /* which of the parameter's inner pieces it is; pieces 1: all of it */
    int dims;              /* the shape that the tensor must have */
    int64_t shape[3];
    struct hy3_span span; /* of the flattened outer tensor */
};

/* Local. Looks up the name, of either layout, of a checkpoint's tensor. */
void hy3_name_locate(const struct hy3_params *params, const char *name, struct hy3_place *out);
