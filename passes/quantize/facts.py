# SPDX-License-Identifier: Apache-2.0
"""Names of what calibration measures for the passes here, and when it is no longer true."""

from __future__ import annotations

from ..base import Context

RANGES = "ranges"
MEANS = "channel-means"
MAXIMA = "channel-maxima"
MOMENTS = "second-moments"
GRIDS = "weight-grids"  # see `linear_form.least_squares_grids`
CALIBRATED = (RANGES, MEANS, MAXIMA, MOMENTS, GRIDS)


def forget(ctx: Context) -> None:
    """Drop what was measured: the values of the model are others now, under the same names."""
    for name in CALIBRATED:
        ctx.facts.pop(name, None)
