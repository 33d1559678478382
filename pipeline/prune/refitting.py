# SPDX-License-Identifier: Apache-2.0
"""Refit a pruned model, and keep what that gives where the whole model comes closer to the original.

Every layer is checked on data held out from its fit, but errors add up over layers: with few samples each
layer of a deep network may come closer and the network not. So some feeds are kept from the fit altogether,
and what the whole model gives for them decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...analysis.coupling import Coupling
from ...analysis.evaluate import Evaluator
from ...analysis.fidelity import Fidelity
from ...graph_ir import Model
from ...passes.prune.plan import PrunePlan
from ..tell import Tell, silent
from .criteria import Samples
from .reconstruct import count_of, refit

if TYPE_CHECKING:
    from numpy.typing import NDArray

EACH = 8  # one feed of so many is kept from the fit
FEWEST = 4  # feeds; of fewer none can be spared

IN_BODIES = "only bodies (of If, Loop or Scan) read what was cut, where no weights can be refitted"
IN_PART = "are in bodies (of If, Loop or Scan), where no weights can be refitted"
NO_CLOSER = (
    "refitted weights brought the outputs no closer to the original's on data kept from the fit, so the "
    "model has the sliced ones; more data may help"
)


@dataclass(frozen=True)
class _Part:
    """Every eighth of the feeds, or all others; can be gone through again and again."""

    feeds: Samples
    count: int
    held: bool

    def __len__(self) -> int:
        held = sum(1 for i in range(self.count) if self._is_held(i))
        return held if self.held else self.count - held

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (feed for i, feed in enumerate(self.feeds) if self._is_held(i) is self.held)

    def _is_held(self, index: int) -> bool:
        return index % EACH == EACH // 2 - 1


def refitted(
    original: Model,
    pruned: Model,
    plan: PrunePlan,
    coupling: Coupling,
    feeds: Samples,
    seed: int,
    *,
    tell: Tell = silent,
) -> tuple[Model, str]:
    """Refit the weights of a pruned model.

    Args:
        original: what `plan` and `coupling` are of.
        pruned: what the plan makes of it; left as it is.
        plan: which atoms stay.
        coupling: of the original.
        feeds: can be gone through again and again.
        seed: of the places that are drawn.
        tell: told how many levels of layers are done.

    Returns:
        The model with the better weights, and a note for people where those are the sliced ones.
    """
    readers = {node for cut in plan.cuts for node in coupling.group(cut.group).consumers}
    inside = sum(node.graph is not original.graph for node in readers)
    if readers and inside == len(readers):
        return pruned, IN_BODIES
    note = f"{inside} of {len(readers)} layers that read what was cut {IN_PART}" if inside else ""
    masks = plan.masks(coupling)
    progress = partial(tell, "refitting weights")
    progress(0, None)
    made = pruned.clone()
    count = count_of(feeds)
    if count < FEWEST:
        refit(original, made, masks, feeds, seed=seed, progress=progress)
        return made, note
    refit(original, made, masks, _Part(feeds, count, held=False), seed=seed, progress=progress)
    held = list(_Part(feeds, count, held=True))
    want = list(map(Evaluator(original).run, held))
    return (made, note) if _noise(made, held, want) <= _noise(pruned, held, want) else (pruned, NO_CLOSER)


def _noise(model: Model, feeds: Sequence[Mapping[str, Any]], want: Sequence[Mapping[str, Any]]) -> float:
    """The sum over the outputs of error over signal; outputs that are not numbers count for nothing."""
    runner = Evaluator(model)
    totals: dict[str, Fidelity] = {}
    for feed, answers in zip(feeds, want, strict=True):
        for name, got in runner.run(feed).items():
            if _comparable(answers[name], got):
                totals.setdefault(name, Fidelity()).update(answers[name], got)
    return sum(10 ** (-t.result().sqnr_db / 10) for t in totals.values() if t.count)


def _comparable(want: Any, got: Any) -> bool:
    if not (isinstance(want, np.ndarray) and isinstance(got, np.ndarray)):
        return False
    first, second = cast("NDArray[Any]", want), cast("NDArray[Any]", got)
    return first.shape == second.shape and first.dtype.kind in "biuf"
