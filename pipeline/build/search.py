# SPDX-License-Identifier: Apache-2.0
"""Which candidates to make: ranges by each rule, then variants of the best, then fewer int8 nodes.

A short, fixed plan: the rule that keeps the outputs closest, biases corrected; where the outputs are not
comfortably close or the accuracy limit is missed, the nodes that cost most go back to float, twice as many
each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...calibration.sensitivity import Sensitivity
from ...graph_ir import DataError, ModelError, TersorError
from ...passes.quantize.insert_qdq import InsertQdq
from ...passes.quantize.kinds import LINEAR
from .accuracy import COMFORT_DB, Judge
from .choose import distrust
from .lock import hash_files
from .result import Candidate, Judgement
from .settings import BuildSettings
from .workshop import Workshop

OBSERVERS = ("mse", "percentile", "minmax", "entropy")
MOST_REGIONS = 512  # above this, sensitivities cost more than they bring in a build
SENSITIVITY_FEEDS = 3
SMOOTH = "smooth-quant"
CLEARLY_DB = 0.5  # what an accuracy method has to bring
WEIGHTS_DB = 10.0  # outputs further off than this suffer from activations, not from the rounding of weights
ENOUGH_EXCLUDED = 8  # once accepted, more float nodes than this cost speed for little

Judged = tuple[Candidate, Judgement]


@dataclass(frozen=True)
class _Form:
    """One static int8 form: which rule, which options, which accuracy methods before them."""

    observer: str
    options: InsertQdq
    methods: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        words = ["int8", self.observer]
        if self.options.mse_weights:
            words.append("mse-weights")
        if not self.options.float_stem:
            words.append("stem")
        if not self.options.float_tail:
            words.append("tail")
        if self.options.exclude:
            words.append(f"less-{len(self.options.exclude)}")
        words += [method.partition("{")[0] for method in self.methods]
        return " ".join(words)


class Search:
    """Makes and judges candidates.

    Args:
        workshop: makes them.
        judge: judges them.
        settings: limits, and who is told how far it is.

    Attributes:
        judged: candidates by name.
        sensitivity: what each region of the static form with the best ranges costs; None before that.
    """

    def __init__(self, workshop: Workshop, judge: Judge, settings: BuildSettings) -> None:
        self._workshop = workshop
        self._judge = judge
        self._tell = settings.progress
        self._max_drop = settings.max_drop
        self._digests: dict[str, str] = {}
        self._names: dict[_Form, str] = {}
        self.judged: dict[str, Judged] = {}
        self.sensitivity: Sensitivity | None = None

    def static(self) -> None:
        """Static int8, from the best rule to the best form that is accepted."""
        scheme = "u8s8-reduced" if self._workshop.reduced else "u8s8"
        forms = [_Form(observer, InsertQdq(scheme)) for observer in OBSERVERS]
        scored = [
            (form, found) for form in self._each("choosing ranges", forms) if (found := self._try(form))
        ]
        if not scored:
            return
        # The metric of few samples would choose by chance here; the closest outputs will serve any metric.
        best, found = max(scored, key=lambda item: item[1][1].closeness_db)
        weights = replace(best, options=replace(best.options, mse_weights=True))
        tried = self._try(weights)
        if tried is not None and tried[1].closeness_db > found[1].closeness_db:
            best = weights
        best = self._methods(best)
        self._variants(best)
        self.sensitivity = self._measured(best)
        if self.sensitivity is not None and not self._comfortable(best):
            self._relax(best, self.sensitivity)

    def dynamic(self) -> None:
        """Dynamic int8 of the linear layers."""
        for methods in ((), (SMOOTH,)):
            made = self._workshop.dynamic(" ".join(("int8 dynamic", *methods)), methods)
            if made is not None:
                self.judged[made.name] = (made, self._judge.judge(made))

    def _comfortable(self, form: _Form) -> bool:
        """Whether the form is accepted, for good reasons, and close enough for data that was not seen."""
        name = self._name(form)
        if name is None:
            return False
        judgement = distrust(self.judged, self._max_drop)[name][1]
        return judgement.accepted and judgement.closeness_db >= COMFORT_DB

    def _name(self, form: _Form) -> str | None:
        """The name a form was judged under: its own, or that of an earlier one with the same bytes."""
        return self._names.get(form)

    def _methods(self, best: _Form) -> _Form:
        """The form with those accuracy methods before it that bring its outputs clearly closer."""
        for method in (SMOOTH, f"adaptive-rounding{{bits={best.options.bits} sweeps=2}}"):
            name = self._name(best)
            if name is None or self.judged[name][1].closeness_db >= COMFORT_DB:
                return best
            if method != SMOOTH and self.judged[name][1].closeness_db < WEIGHTS_DB:
                return best
            form = replace(best, methods=(*best.methods, method))
            tried = self._try(form)
            if tried is not None and tried[1].closeness_db > self.judged[name][1].closeness_db + CLEARLY_DB:
                best = form
        return best

    def _variants(self, best: _Form) -> None:
        """The stem and the tail in int8 as well: faster on some models, less accurate on others."""
        options = best.options
        for changed in (replace(options, float_stem=False), replace(options, float_tail=False)):
            self._try(replace(best, options=changed))

    def _measured(self, best: _Form) -> Sensitivity | None:
        """What each region of the form costs; None where that takes too long or cannot be run."""
        count = self._workshop.regions(best.observer, best.options, best.methods)
        if count > MOST_REGIONS:
            self._workshop.notes.append(f"sensitivity was not measured: {count} regions take too long")
            return None
        try:
            return self._workshop.sensitivity(
                best.observer, best.options, self._judge.feeds[:SENSITIVITY_FEEDS], methods=best.methods
            )
        except ModelError as error:
            self._workshop.notes.append(f"sensitivity was not measured: {error}")
            return None

    def _relax(self, best: _Form, found: Sensitivity) -> None:
        """Leave the most sensitive linear nodes float, twice as many each time, till outputs are close."""
        regions = [loss.part for loss in found.losses if loss.noise > 0]
        ranked = [part.name for part in regions if part.op_type in LINEAR]
        count = 1
        while count <= len(ranked) // 2:
            self._tell("leaving nodes float", count, len(ranked) // 2)
            form = replace(best, options=replace(best.options, exclude=tuple(ranked[:count])))
            name = None if self._try(form) is None else self._name(form)
            if name is not None:
                accepted = distrust(self.judged, self._max_drop)[name][1].accepted
                if self._comfortable(form) or (accepted and count >= ENOUGH_EXCLUDED):
                    return
            count *= 2

    def _each(self, stage: str, forms: list[_Form]) -> Iterator[_Form]:
        for index, form in enumerate(forms):
            self._tell(stage, index, len(forms))
            yield form

    def _make(self, form: _Form, name: str) -> Candidate | None:
        try:
            return self._workshop.static(name, form.observer, form.options, form.methods)
        except DataError:
            raise
        except TersorError as error:
            self._workshop.notes.append(f"{form.name} was not made: {error}")
            return None

    def _try(self, form: _Form) -> Judged | None:
        if form in self._names:
            return self.judged[self._names[form]]
        made = self._make(form, form.name)
        if made is None:
            return None
        digest = hash_files([made.path])
        name = self._names[form] = self._digests.setdefault(digest, form.name)
        if name not in self.judged:
            self.judged[name] = (made, self._judge.judge(made))
        return self.judged[name]
