# SPDX-License-Identifier: Apache-2.0
# The checked-in reference is what the tables of options and arguments print.

@test "doc/config.md is what the option table prints" {
    "$HY3_BUILD/hy3_sft" --write-reference=md | diff - "$HY3_SOURCE/doc/config.md"
}

@test "doc/migration.md is what the table of other tools' keys prints" {
    "$HY3_BUILD/hy3_sft" --write-reference=migration | diff - "$HY3_SOURCE/doc/migration.md"
}

@test "the manual pages are what the tables print" {
    for program in hy3_sft hy3_tokenize hy3_init hy3_generate hy3_convert hy3_merge hy3_check \
        hy3_export hy3_plan; do
        "$HY3_BUILD/$program" --write-reference=man | diff - "$HY3_SOURCE/doc/man/$program.1"
    done
}
