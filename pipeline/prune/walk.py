# SPDX-License-Identifier: Apache-2.0
"""Go through a model from front to back, a pass over the data for each stretch of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...analysis.evaluate import Evaluator, check_feed
from ...analysis.liveness import reads
from ...graph_ir import Model, Node, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_CARRIED = 256 << 20  # bytes of values of all feeds


class Walk:
    """Runs each node once for each feed, where what later ones read can be carried from pass to pass.

    Where it takes more than `MOST_CARRIED`, passes begin where it was less, at the inputs if need be.

    Args:
        model: weights of nodes that were not needed so far may change between passes.
        feeds: gone through once per pass.
        threads: used inside operators.
    """

    def __init__(self, model: Model, feeds: Iterable[Mapping[str, Any]], threads: int) -> None:
        self._model, self._feeds, self._threads = model, feeds, threads
        self._done: set[Node] = set()
        self._carried: list[dict[str, Array]] = []  # what nodes still to come read of those done, by feed

    def values(self, wanted: Sequence[str]) -> Iterator[dict[str, Array]]:
        """The values of these names for each feed; one pass.

        Raises:
            DataError: a feed does not fit.
        """
        made = {v.name: v for node in self._model.graph for v in node.outputs if v.name}
        given = self._carried[0] if self._carried else {}
        targets = [made[name] for name in wanted if name in made and name not in given]
        if any(value.producer() in self._done for value in targets):
            self._done, self._carried, given = set(), [], {}
            targets = [made[name] for name in wanted if name in made]
        done = self._done | self._needed(targets)
        edge = self._edge(done)
        evaluator = Evaluator(self._model, outputs=[*wanted, *edge], threads=self._threads, given=given)
        fresh: list[dict[str, Array]] = []
        room = MOST_CARRIED
        for index, feed in enumerate(self._feeds):
            check_feed(evaluator.signature, feed, index)
            carried = self._carried[index] if self._carried else {}
            found = evaluator.run({**feed, **carried}, index=index, check=False)
            yield {name: found[name] for name in wanted}
            room -= sum(_bytes(found[name]) for name in edge)
            if room >= 0:
                fresh.append({name: found[name] for name in edge})
            else:
                fresh.clear()
        if room >= 0:
            self._done, self._carried = done, fresh

    def _needed(self, targets: Sequence[Value]) -> set[Node]:
        """The nodes not done yet that these values hang on."""
        found: set[Node] = set()
        waiting = [value.producer() for value in targets]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self._done and node not in found:
                found.add(node)
                waiting += [value.producer() for value in reads(node)]
        return found

    def _edge(self, done: set[Node]) -> list[str]:
        """What the other nodes read of those done."""
        rest = (node for node in self._model.graph if node not in done)
        read = (value for node in rest for value in reads(node) if value.producer() in done)
        return list(dict.fromkeys(value.name or "" for value in read))


def _bytes(found: object) -> int:
    """What a value takes; more than there is room for where it cannot be fed again as it came."""
    if not isinstance(found, np.ndarray):
        return MOST_CARRIED + 1
    array = cast("Array", found)
    return array.nbytes if array.dtype.kind in "biuf" else MOST_CARRIED + 1
