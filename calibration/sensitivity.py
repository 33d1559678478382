# SPDX-License-Identifier: Apache-2.0
"""How much accuracy each part of a model costs when it alone is quantised.

All parts are measured in one session (`switches`) and one pass over the data: the first feed runs once for
every part, the others for those alone that make up nearly all of the loss there.

Noise of parts adds up while it is small, so a part's share of the summed noise energy says how much of the
loss is its own; `Sensitivity.together_db` beside `sum_db` shows how far that holds. Regions that follow one
another share a tensor, whose noise is then counted with both; tensors are each counted once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.evaluate import Evaluator, Feed
from ..analysis.fidelity import Fidelity, json_figure
from ..analysis.provenance import original_name
from ..graph_ir import DataError, Model
from ..graph_ir.ops import label, walk_nodes
from ..passes.quantize.bias_correction import Means
from ..passes.quantize.linear_form import Grids
from ..passes.quantize.quant_plan import QuantPlan
from .data import Feeds
from .switches import Part, Per, split
from .visit import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST = 0.9  # of what is lost
_NUMBERS = "biuf"  # numpy's kinds of what has a distance

MATTERS = 0.95  # parts that make up this much of the loss on the first feed are measured on the others, too


@dataclass(frozen=True)
class Loss:
    """What quantising one part does to the model's outputs.

    Attributes:
        part: which.
        sqnr_db: signal-to-noise ratio of the output that suffers most; inf when nothing changes.
        output: that output's name.
        node: of the source model, the region's node, the activation's maker or the weight's reader; empty
            where the source model is not known or has none.
        given: whether the source model has a tensor of the part's name.
        noise: noise over signal power, summed over the outputs.
        samples: how many feeds these figures rest on: one where the part hardly mattered on the first.
        share: of the noise of all parts.
        cumulative: share of this part and those that cost more.
    """

    part: Part
    sqnr_db: float
    output: str
    noise: float
    samples: int = 1
    share: float = 0.0
    cumulative: float = 0.0
    node: str = ""
    given: bool = False

    @property
    def title(self) -> str:
        """What the source model calls the part; a tensor it lacks has the node beside it."""
        if not self.node:
            return self.part.name
        if self.part.kind == "region":
            return self.node
        return self.part.name if self.given else f"{self.part.name} ({self.node})"


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """The parts by falling loss.

    Attributes:
        losses: one for each part.
        samples: how many feeds were run, with the parts that mattered on the first; see `Loss.samples`.
        together_db: signal-to-noise ratio of the worst output when all parts are quantised.
        sum_db: the same if the noise of the parts just added up.
        observer: the rule the ranges were chosen by; empty where the caller of `sensitivity` knows.
        form: the name of the int8 form that was taken apart; likewise.
        notes: what to know of the figures, a line each.
    """

    losses: tuple[Loss, ...]
    samples: int
    together_db: float
    sum_db: float
    observer: str = ""
    form: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Sensitivity({self.summary()}; see losses, to_dict())"

    def summary(self) -> str:
        """`3 of 52 regions make 92% of what int8 loses`: the fewest parts that make up most of it."""
        if not self.losses or self.losses[-1].cumulative == 0:
            return "nothing is lost"
        count = next(i for i, loss in enumerate(self.losses, 1) if loss.cumulative >= _MOST - 1e-9)
        what = "regions" if self.losses[0].part.kind == "region" else "tensors"
        lost = self.losses[count - 1].cumulative
        return f"{count} of {len(self.losses)} {what} make{'s' * (count == 1)} {lost:.0%} of what int8 loses"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; decibels that are infinite are text, which JSON lacks numbers for."""
        return {
            "summary": self.summary(),
            "form": self.form or None,
            "observer": self.observer or None,
            "samples": self.samples,
            "together_db": json_figure(self.together_db),
            "sum_db": json_figure(self.sum_db),
            "parts": [
                {
                    "name": loss.node if loss.node and loss.part.kind == "region" else loss.part.name,
                    "kind": loss.part.kind,
                    "op_type": loss.part.op_type,
                    "node": loss.node or None,
                    "nodes": list(loss.part.nodes),
                    "sqnr_db": json_figure(loss.sqnr_db),
                    "output": loss.output,
                    "samples": loss.samples,
                    "share": json_figure(loss.share),
                    "cumulative": json_figure(loss.cumulative),
                }
                for loss in self.losses
            ],
        }


def sensitivity(
    model: Model,
    plan: QuantPlan,
    feeds: Iterable[Feed],
    per: Per = "region",
    *,
    outputs: Sequence[str] = (),
    bits: int = 8,
    mse: bool = False,
    means: Means | None = None,
    grids: Grids | None = None,
    original: Model | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Sensitivity:
    """Quantise each part alone and compare the model's outputs with the float ones.

    Args:
        model: edited in place, of no further use; shapes inferred.
        plan: made for it (`passes.quantize.plan`), with the ranges to use.
        feeds: as few as tell parts apart; four do.
        per: see `switches.split`.
        outputs: names of the values to compare by, where the model has them all; else, or without any, its
            outputs.
        bits: of the weights.
        mse: how the int8 form chooses weight scales, see `passes.quantize.linear_form`.
        means: what it corrects biases by, see there.
        grids: what it would choose for weights, see there.
        original: the source model, for its names.
        threads: threads used inside operators.
        progress: called after each part with (runs done, runs in all or None when not known).

    Raises:
        DataError: there are no feeds, or one does not fit the model.
    """
    parts = split(model, plan, per, bits=bits, mse=mse, means=means, grids=grids)
    made = {value.name for node in model.graph for value in node.outputs}
    wanted = outputs if outputs and made.issuperset(outputs) else None
    evaluator = Evaluator(model, outputs=wanted, threads=threads)
    count = feeds.count if isinstance(feeds, Feeds) else None
    off = {part.switch: np.array(False) for part in parts}
    on = np.array(True)
    together = _Totals()
    totals = {part: _Totals() for part in parts}
    active = parts
    samples = done = 0
    for index, feed in enumerate(feeds):
        want = evaluator.run({**feed, **off}, index=index)
        together.update(want, evaluator.run({**feed, **dict.fromkeys(off, on)}, check=False))
        for part in active:
            totals[part].update(want, evaluator.run({**feed, **off, part.switch: on}, check=False))
            done += 1
            if progress is not None:
                left = None if count is None else done + (count - index - 1) * len(active)
                progress(done, left)
        if index == 0:
            first = _ranked([total.loss(part) for part, total in totals.items()])
            known = {loss.part for loss in first if loss.cumulative - loss.share <= MATTERS}
            active = [part for part in parts if part in known]
        samples += 1
    if not samples:
        raise DataError("there are no feeds to measure the sensitivity on")
    summed: dict[str, float] = {}
    for total in totals.values():
        for name, noise in total.noise().items():
            summed[name] = summed.get(name, 0.0) + noise
    losses = [total.loss(part) for part, total in totals.items()]
    if original is not None:
        losses = _named(losses, original)
    worst = max(summed.values(), default=0.0)
    return Sensitivity(_ranked(losses), samples, together.worst()[0], _decibels(worst))


class _Totals:
    """Closeness of each output over the feeds, one part switched on."""

    def __init__(self) -> None:
        self._found: dict[str, Fidelity] = {}
        self._samples = 0

    def update(self, want: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> None:
        self._samples += 1
        for name, left in want.items():
            right = got[name]
            if not isinstance(left, np.ndarray) or left.dtype.kind not in _NUMBERS:  # pyright: ignore[reportUnnecessaryIsInstance] - sequences are lists
                continue
            total = self._found.setdefault(name, Fidelity())
            if left.shape == right.shape:
                total.update(left, right)
            else:
                total.count += 1
                total.broken += 1

    def noise(self) -> dict[str, float]:
        """Noise over signal power by output; inf where a value is broken, or noise is all there is."""
        return {name: _ratio(total) for name, total in self._found.items()}

    def worst(self) -> tuple[float, str]:
        """The worst output's signal-to-noise ratio in dB, and its name."""
        name, noise = max(self.noise().items(), key=lambda item: item[1], default=("", 0.0))
        return _decibels(noise), name

    def loss(self, part: Part) -> Loss:
        sqnr, name = self.worst()
        return Loss(part, sqnr, name, sum(self.noise().values()), self._samples)


def _ratio(total: Fidelity) -> float:
    if total.broken:
        return math.inf
    if total.noise == 0:
        return 0.0
    return total.noise / total.signal if total.signal > 0 else math.inf


def _decibels(noise: float) -> float:
    return math.inf if noise == 0 else -math.inf if math.isinf(noise) else -10 * math.log10(noise)


def _named(losses: list[Loss], original: Model) -> list[Loss]:
    """The losses with what the source model calls their parts."""
    nodes = list(walk_nodes(original))
    sources = {label(node): node.op_type for node in nodes}
    values = {value.name for node in nodes for value in (*node.inputs, *node.outputs) if value is not None}
    return [
        replace(
            loss,
            node=original_name(loss.part.op_type, loss.part.nodes, sources),
            given=loss.part.name in values,
        )
        for loss in losses
    ]


def _ranked(losses: list[Loss]) -> tuple[Loss, ...]:
    """Losses by falling noise with their shares; where some are infinite, those share all of it."""
    endless = sum(math.isinf(loss.noise) for loss in losses)
    total = sum(loss.noise for loss in losses)
    found: list[Loss] = []
    seen = 0.0
    for loss in sorted(losses, key=lambda item: -item.noise):
        share = math.isinf(loss.noise) / endless if endless else loss.noise / total if total else 0.0
        seen = min(1.0, seen + share)
        found.append(replace(loss, share=share, cumulative=seen))
    return tuple(found)
