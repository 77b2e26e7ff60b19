/* SPDX-License-Identifier: Apache-2.0 */
/* plot.h - loss.png, the loss over the steps. */
#pragma once

#include <stddef.h>

struct hy3_plot_point {
    double step, loss, eval_loss; /* eval_loss NaN: none */
};

/* Local. Draws directory/loss.png from one point or more. Without gnuplot: one warning. */
void hy3_plot_draw(const char *directory, const struct hy3_plot_point *points, size_t count);
