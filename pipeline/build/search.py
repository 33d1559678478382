# SPDX-License-Identifier: Apache-2.0
"""Which candidates to make: ranges by each rule, then refinements of the best, then fewer int8 nodes.

A short, fixed plan: the rule that keeps most of the outputs, refined while that helps; where the accuracy
limit is still missed, the nodes that cost most accuracy go back to float, twice as many each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...graph_ir import DataError, TersorError
from ...passes.quantize.insert_qdq import InsertQdq
from .accuracy import COMFORT_DB, Judge
from .choose import distrust
from .result import Candidate, Judgement
from .settings import BuildSettings
from .workshop import Workshop

OBSERVERS = ("mse", "percentile", "minmax", "entropy")
MOST_SENSITIVITY_NODES = 96  # above this, sensitivities cost more than they bring in a build
ENOUGH_EXCLUDED = 4  # once accepted, more float nodes than this cost speed for little

Judged = tuple[Candidate, Judgement]


@dataclass(frozen=True)
class _Form:
    """One static int8 form: which rule, which options, whether biases are corrected."""

    observer: str
    options: InsertQdq
    means: bool = False

    @property
    def name(self) -> str:
        words = ["int8", self.observer]
        if self.means:
            words.append("bias-corrected")
        if self.options.mse_weights:
            words.append("mse-weights")
        if not self.options.float_stem:
            words.append("stem")
        if not self.options.float_tail:
            words.append("tail")
        if self.options.exclude:
            words.append(f"less-{len(self.options.exclude)}")
        return " ".join(words)


class Search:
    """Makes and judges candidates.

    Args:
        workshop: makes them.
        judge: judges them.
        settings: limits, and who is told how far it is.
    """

    def __init__(self, workshop: Workshop, judge: Judge, settings: BuildSettings) -> None:
        self._workshop = workshop
        self._judge = judge
        self._tell = settings.progress
        self._max_drop = settings.max_drop
        self.judged: dict[str, Judged] = {}

    def static(self) -> None:
        """Static int8, from the best rule to the best form that is accepted."""
        forms = [_Form(observer, InsertQdq()) for observer in OBSERVERS]
        scored = [
            (form, found) for form in self._each("choosing ranges", forms) if (found := self._try(form))
        ]
        if not scored:
            return
        best, found = max(scored, key=lambda item: _score(item[1][1]))
        best = self._refine(best, found)
        self._variants(best)
        if not self._comfortable(best):
            self._relax(best)

    def dynamic(self) -> None:
        """Dynamic int8 of the linear layers."""
        made = self._workshop.dynamic("int8 dynamic")
        if made is not None:
            self.judged[made.name] = (made, self._judge.judge(made))

    def _comfortable(self, form: _Form) -> bool:
        """Whether the form is accepted, for good reasons, and close enough for data that was not seen."""
        judgement = distrust(self.judged, self._max_drop)[form.name][1]
        return judgement.accepted and judgement.sqnr_db >= COMFORT_DB

    def _refine(self, best: _Form, found: Judged) -> _Form:
        """Keep each refinement that brings the outputs closer."""
        for refine in (_with_mse_weights, _with_corrected_biases):
            form = refine(best)
            tried = self._try(form)
            if tried is not None and _score(tried[1]) > _score(found[1]):
                best, found = form, tried
        return best

    def _variants(self, best: _Form) -> None:
        """The stem and the tail in int8 as well: faster on some models, less accurate on others."""
        options = best.options
        for changed in (replace(options, float_stem=False), replace(options, float_tail=False)):
            self._try(replace(best, options=changed))

    def _relax(self, best: _Form) -> None:
        """Leave the most sensitive nodes float, twice as many each time, until the outputs are close."""
        nodes = [d.node for d in self._workshop.decisions() if d.int8]
        if not 2 <= len(nodes) <= MOST_SENSITIVITY_NODES:
            return
        ranked = self._ranked(best, nodes)
        count = 1
        while count <= len(nodes) // 2:
            form = replace(best, options=replace(best.options, exclude=tuple(ranked[:count])))
            if self._try(form) is not None:
                accepted = distrust(self.judged, self._max_drop)[form.name][1].accepted
                if self._comfortable(form) or (accepted and count >= ENOUGH_EXCLUDED):
                    return
            count *= 2

    def _ranked(self, best: _Form, nodes: list[str]) -> list[str]:
        """Nodes by how much closer the outputs come when the node alone is left float, most first."""
        gains: dict[str, float] = {}
        for index, node in enumerate(nodes):
            self._tell("measuring sensitivity", index, len(nodes))
            form = replace(best, options=replace(best.options, exclude=(node,)))
            made = self._make(form, f"sensitivity {index}")
            gains[node] = -1e9 if made is None else self._judge.quick(made)
            if made is not None:
                made.path.unlink(missing_ok=True)
        return sorted(nodes, key=lambda node: -gains[node])

    def _each(self, stage: str, forms: list[_Form]) -> Iterator[_Form]:
        for index, form in enumerate(forms):
            self._tell(stage, index, len(forms))
            yield form

    def _make(self, form: _Form, name: str) -> Candidate | None:
        try:
            return self._workshop.static(name, form.observer, form.options, means=form.means)
        except DataError:
            raise
        except TersorError as error:
            self._workshop.notes.append(f"{form.name} was not made: {error}")
            return None

    def _try(self, form: _Form) -> Judged | None:
        if form.name in self.judged:
            return self.judged[form.name]
        made = self._make(form, form.name)
        if made is None:
            return None
        self.judged[form.name] = (made, self._judge.judge(made))
        return self.judged[form.name]


def _with_mse_weights(form: _Form) -> _Form:
    return replace(form, options=replace(form.options, mse_weights=True))


def _with_corrected_biases(form: _Form) -> _Form:
    return replace(form, means=True)


def _score(judgement: Judgement) -> tuple[bool, float]:
    return (judgement.accepted, judgement.sqnr_db)
