# SPDX-License-Identifier: Apache-2.0
"""Which candidates to make, and in what order.

Ranges by each rule, and by another one for single values; the accuracy methods that bring the closest form
closer; those variants that make it cheaper; and, where its outputs are not comfortably close, a ladder of
placements (`placement`) that leave more and more regions float. Everything is judged when it is made and
timed at once beside the original, so that the ladder is climbed only so far as it pays. What is measured
here only guides the search; the choice is made by one measurement of all contenders at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TypeVar

from ...calibration.sensitivity import Sensitivity
from ...calibration.switches import Per
from ...graph_ir import ModelError, load
from ...passes.quantize.insert_qdq import InsertQdq
from .accuracy import COMFORT_DB
from .budget import OutOfBudgetError
from .form import Dynamic, Form, plain
from .model_facts import may_be_static, mostly_dynamic, only_dynamic
from .picking import pick
from .placement import ladder
from .tried import Trials

OBSERVERS = ("mse", "percentile", "minmax", "entropy")
MOST_REGIONS = 512  # above this, sensitivities cost more than they bring in a build
SENSITIVITY_FEEDS = 3
SMOOTH = "smooth-quant"
SMOOTHED_DB = 0.5  # what that has to bring: it may add operators
ROUNDED_DB = 0.2  # likewise: it costs nothing, and brings more the more of the rest is float
WEIGHTS_DB = 10.0  # outputs further off than this suffer from activations, not from the rounding of weights
CHEAPER = 0.97  # a variant that is not cheaper by this is within the noise of a quick timing
WORSE = 1.03  # a rung dearer than the best by this does not pay; two in a row end the climb

_T = TypeVar("_T")


class Search(Trials):
    """What is tried one after the other; see `Trials`.

    Attributes:
        sensitivity: what each region of the static form with the best ranges costs; None before that.
    """

    sensitivity: Sensitivity | None = None

    def run(self) -> None:
        """Static forms, then dynamic ones, until all is tried or the budget is spent.

        Where nearly everything can be dynamic, that is tried first: it takes one trial, and often wins there.

        Raises:
            UnobservableError: the data cannot be calibrated on.
        """
        try:
            if mostly_dynamic(self._workshop.int8_ready):
                self.dynamic(((),))
            self.static()
            self.dynamic(((), (SMOOTH,)))
        except OutOfBudgetError:
            self._tell("the time for trials is over", 0, None)
            self._note(
                f"the search ended with its budget of {self._budget.seconds:g} s, after {len(self.judged)} "
                "candidates; a larger budget may find a better one"
            )

    def static(self) -> None:
        """Static int8, from the best rule to the best form that is accepted."""
        ready = self._workshop.int8_ready
        if ready is None or not may_be_static(load(ready)):
            return  # before the data is gone through
        scheme = "u8s8-reduced" if self._workshop.reduced else "u8s8"
        self._try(plain(scheme))
        forms = [Form(observer, InsertQdq(scheme)) for observer in OBSERVERS]
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
        best = self._variants(self._methods(self._picked(best)))
        comfortable = self._comfortable(best)
        # Only to tell where the loss is, one feed will do.
        self.sensitivity = self._measured(best, 1 if comfortable else SENSITIVITY_FEEDS)
        last = best if self.sensitivity is None or comfortable else self._climb(best, self.sensitivity)
        if last is not best or only_dynamic(self._workshop.int8_ready):
            for rest in self._rests(best.options.bits):
                self._try(replace(last, rest=rest))

    def dynamic(self, each: Sequence[tuple[str, ...]]) -> None:
        """Dynamic int8 of the linear layers, behind each of these accuracy methods."""
        bits = 7 if self._workshop.reduced else 8
        ready = self._workshop.int8_ready
        coarser = (False, True) if mostly_dynamic(ready) or only_dynamic(ready) else (False,)
        for methods, per_tensor in product(each, coarser):
            form = Dynamic(bits, methods, per_tensor)
            if form.name in self.judged:
                continue
            self._in_time()
            made = self._workshop.dynamic(form)
            if made is not None:
                self._judged(made.name, made)

    def _comfortable(self, form: Form) -> bool:
        """Whether the form is accepted, for good reasons, and close enough for data that was not seen."""
        name = self._names[form]
        return self._closeness(name) >= COMFORT_DB and self._accepted(name)

    def _picked(self, best: Form) -> Form:
        """The form with other rules for the noisiest values, where that brings the outputs closer."""
        closeness = self._closeness(self._names[best])
        if closeness >= COMFORT_DB:
            return best
        try:
            found = self._measured(best, 1, "activation", self._budget.check_part)
        except OutOfBudgetError:  # of a part: the rest is for what is tried next
            return best
        if found is None:
            return best
        form = pick(
            best,
            [loss.part.name for loss in found.losses if loss.noise > 0],
            OBSERVERS,
            range_of=self._workshop.range_of,
            closeness=self._trial,
            known=closeness,
            tell=self._tell,
        )
        tried = None if form is best else self._try(form, late=True)
        return form if tried is not None and tried[1].closeness_db > closeness else best

    def _methods(self, best: Form) -> Form:
        """The form with those accuracy methods before it that bring its outputs clearly closer."""
        best = self._closer(best, SMOOTH, SMOOTHED_DB)
        return self._closer(best, f"adaptive-rounding{{bits={best.options.bits} sweeps=2}}", ROUNDED_DB)

    def _closer(self, form: Form, method: str, least: float) -> Form:
        """A form that was tried, with an accuracy method before it if that pays."""
        closeness = self._closeness(self._names[form])
        if closeness >= COMFORT_DB:
            return form
        if method != SMOOTH and closeness < WEIGHTS_DB:
            return form
        more = replace(form, methods=(*form.methods, method))
        tried = self._try(more)
        return form if tried is None or tried[1].closeness_db <= closeness + least else more

    def _variants(self, best: Form) -> Form:
        """The form with those choices the other way that make it cheaper, each beside those before it."""
        for changes in ({"join_concats": True}, {"float_stem": False}, {"float_tail": False}):
            form = replace(best, options=replace(best.options, **changes))
            if self._try(form) is not None and self._price(form) < self._price(best) * CHEAPER:
                best = form
        return best

    def _measured(
        self, best: Form, feeds: int, per: Per = "region", watch: Callable[[], None] | None = None
    ) -> Sensitivity | None:
        """What each part of the form costs; None where that takes too long or cannot be run."""
        self._in_time()
        count = self._workshop.regions(best)
        if count > MOST_REGIONS:
            self._note(f"sensitivity was not measured: {count} regions take too long")
            return None
        try:
            some, outputs = self._judge.feeds[:feeds], self._judge.decided_by
            watch = watch or self._budget.check
            return self._workshop.sensitivity(best, some, per, outputs=outputs, watch=watch)
        except ModelError as error:
            self._note(f"sensitivity was not measured: {error}")
            return None

    def _climb(self, best: Form, found: Sensitivity) -> Form:
        """The last of forms that leave more and more regions float, while that pays or none is accepted."""
        name = self._names[best]
        regions = self._workshop.priced(best, found, self._judge.feeds[0])
        rungs = ladder(regions, self._closeness(name), COMFORT_DB)
        cheapest = self._price(best) if self._accepted(name) else math.inf
        dearer = -1  # the first rung is a small one, and says little of the next
        last = best
        for excluded in self._each("leaving regions float", rungs):
            form = replace(best, options=replace(best.options, exclude=excluded))
            if self._try(form) is None:
                continue
            last, name = form, self._names[form]
            if too_dear := self._stands(name) and self.times[name] > cheapest * WORSE:
                dearer += 1  # whatever it will lose: that could only make it dearer still
            elif self._accepted(name):
                price = self._price(form)
                dearer = dearer + 1 if price > cheapest * WORSE else 0
                cheapest = min(cheapest, price)
            if dearer == 2 or (too_dear and self._closeness(name) >= COMFORT_DB) or self._comfortable(form):
                break
        return last

    def _rests(self, bits: int) -> tuple[str, ...]:
        """What else layers left float can be; weights of eight bits only where products do not saturate."""
        rests = [f"quantize-dynamic{{bits={bits}}}"]
        if only_dynamic(self._workshop.int8_ready):
            rests.append(f"quantize-dynamic{{bits={bits} per-tensor=true}}")
        return (*rests, "weight-only{bits=8}") if bits == 8 else tuple(rests)

    def _each(self, stage: str, items: Sequence[_T]) -> Iterator[_T]:
        for index, item in enumerate(items):
            self._tell(stage, index, len(items))
            yield item
