# SPDX-License-Identifier: Apache-2.0
"""Which regions to leave float: a ladder of placements, each closer to the original than the one before.

The region goes first whose return to float takes the most noise out for the least time. Noise is measured
(`calibration.sensitivity`); the time is an estimate that only ranks, and the same on every run, so that equal
inputs give equal candidates. What a placement really takes is measured on the whole model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ...analysis.cost import NodeCost, cost
from ...backends.onnxruntime.speeds import BOUNDARY_PS, CALL_US, ELEMENT_PS, INT8_MAC_PS, MAC_PS
from ...calibration.sensitivity import Sensitivity
from ...graph_ir import Model
from ...graph_ir.ops import int_attr
from ...passes.quantize.kinds import LINEAR

RUNGS = 7
FIRST_DB = 1.0  # what is hardly too far off needs little, and a whole step may cost a fifth of the speed
STEP_DB = 2.0
_ALL_DB, _NOTHING = 90.0, 1e-9
MOST_LOST = 0.6  # of what int8 gains in all; a placement that gives up more is hardly worth its tensors


@dataclass(frozen=True)
class Region:
    """A linear node that can be int8 or float.

    Attributes:
        name: its label.
        noise: over signal, summed over the outputs, when it alone is int8; inf where it breaks an output.
        cost_us: what leaving it float is estimated to cost, in microseconds.
        gain_us: the part of it that is the kernel's own, without boundaries.
    """

    name: str
    noise: float
    cost_us: float
    gain_us: float


def regions_of(model: Model, found: Sensitivity, bindings: Mapping[str, int]) -> list[Region]:
    """The linear regions that were measured, by falling loss.

    Args:
        model: what sensitivities were measured on.
        found: by region.
        bindings: sizes of named dims.
    """
    costs = {entry.name: entry for entry in cost(model, bindings=bindings).nodes}
    regions: list[Region] = []
    for loss in found.losses:
        if loss.part.op_type in LINEAR:
            gain, boundary = _times(costs.get(loss.part.name))
            regions.append(Region(loss.part.name, loss.noise, max(CALL_US, gain + boundary), gain))
    return regions


def _times(entry: NodeCost | None) -> tuple[float, float]:
    """What int8 gains within the kernel, and what a boundary on both sides costs, in microseconds."""
    if entry is None:
        return 0.0, 0.0
    grouped = entry.op == "Conv" and int_attr(entry.node, "group", 1) > 1
    gain = 0.0 if grouped else (entry.macs or 0) * (MAC_PS - INT8_MAC_PS) * 1e-6
    moved = max(0, (entry.bytes_moved or 0) - entry.parameter_bytes)
    return gain, moved * BOUNDARY_PS * 1e-6


def share_of(model: Model, op_types: Collection[str]) -> float:
    """The share that operators of some types have in the estimated time of linear nodes; 0 without any."""
    times = {True: 0.0, False: 0.0}
    for entry in cost(model).nodes:
        if entry.op in LINEAR or entry.op in op_types:
            times[entry.op in op_types] += (entry.macs or 0) * MAC_PS + entry.parameters * ELEMENT_PS
    return times[True] / sum(times.values()) if times[True] else 0.0


def ladder(regions: Sequence[Region], full_db: float, wanted_db: float) -> list[tuple[str, ...]]:
    """Names to leave float, rung by rung; each rung holds the one before.

    Noise of regions is taken to add up: without the regions of a rung, the outputs are as much closer as
    those regions' share of all noise says.

    Args:
        regions: those that can be left float.
        full_db: how close the outputs are with all of them int8.
        wanted_db: how close they should come.
    """
    ranked = sorted(
        (region for region in regions if region.noise > 0), key=lambda r: (-r.noise / r.cost_us, r.name)
    )
    broken = [region for region in ranked if math.isinf(region.noise)]
    ranked = broken + [region for region in ranked if not math.isinf(region.noise)]
    total = sum(region.noise for region in ranked[len(broken) :])
    most = MOST_LOST * sum(region.gain_us for region in regions)
    step = max(STEP_DB, (wanted_db - full_db) / (RUNGS - 1)) if math.isfinite(full_db) else STEP_DB
    rungs: list[tuple[str, ...]] = []
    left, lost, wanted = total, 0.0, FIRST_DB
    for count, region in enumerate(ranked, 1):
        lost += region.gain_us
        left -= 0.0 if math.isinf(region.noise) else region.noise
        if lost > most or len(rungs) == RUNGS:
            break
        brought = 10 * math.log10(total / left) if left > total * _NOTHING else _ALL_DB
        if count >= len(broken) and (brought >= wanted or count == len(broken)):
            rungs.append(tuple(r.name for r in ranked[:count]))
            wanted = (math.floor(brought / step) + 1) * step
    return rungs
