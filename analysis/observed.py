# SPDX-License-Identifier: Apache-2.0
"""Sizes that only a run tells: of what is padded by a computed amount, selected, or cut at what data says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from ..graph_ir import DataError, Model, ModelError
from . import expr
from .evaluate import Evaluator, Feed
from .shapes import dims_of, infer_shapes

_AT_ONCE = 16  # values looked at in one run


def observed_sizes(model: Model, bindings: Mapping[str, int], feed: Feed) -> dict[str, int]:
    """The bindings, and those of the other names that sizes in the main graph have, as one feed has them.

    Names that stand by themselves nowhere are left out; so are those in bodies, which no run shows, and those
    of values that the runtime does not compute.

    Args:
        model: its shapes are inferred first.
        bindings: sizes of names that are known.
        feed: what the model is run on, where any name is left.
    """
    infer_shapes(model)
    places: dict[str, list[tuple[int, str]]] = {}
    known = set(bindings)
    for value in (value for node in model.graph for value in node.outputs):
        for axis, dim in enumerate(dims_of(value) or ()):
            for name in expr.names(dim) - known:
                if dim == expr.symbol(name):
                    known.add(name)
                    places.setdefault(value.name or "", []).append((axis, name))
    found = dict(bindings)
    values = list(places)
    for start in range(0, len(values), _AT_ONCE):
        part = values[start : start + _AT_ONCE]
        seen: Mapping[str, Any] = {}
        with suppress(DataError, ModelError):
            seen = Evaluator(model, outputs=part).run(feed)
        for value, array in seen.items():
            shape = np.shape(array)
            found.update((name, shape[axis]) for axis, name in places[value])
    return found
