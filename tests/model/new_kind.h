/* SPDX-License-Identifier: Apache-2.0 */
/* new_kind.h - a kind of tensor more: one entry, in front of every source of a second library and
 * of the programs linked with it. The arithmetic ignores it. See new_kind.bats. */
#define HY3_EXTRA_KINDS(X) \
    X(HY3_P_NEW, "self_attn.gate", "self_attn.gating", NULL, ANY, DENSE, _, Q, _, ATTENTION, NULL)
