# SPDX-License-Identifier: Apache-2.0
"""Facts about a model, read only.

The names below are loaded on first use, so that importing one analysis does not pay for the others.
A function called as its module is (`cost.cost`) is not among them: loading the module would take its place.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cost import CostTable, NodeCost
    from .liveness import Peak, lifetimes, peak_activations
    from .provenance import by_origin, origins
    from .shapes import ShapeReport, dims_of, infer_node, infer_shapes, refined_shape, symbolic_data

_HOMES = {
    "CostTable": "cost",
    "NodeCost": "cost",
    "Peak": "liveness",
    "lifetimes": "liveness",
    "peak_activations": "liveness",
    "by_origin": "provenance",
    "origins": "provenance",
    "ShapeReport": "shapes",
    "dims_of": "shapes",
    "infer_node": "shapes",
    "infer_shapes": "shapes",
    "refined_shape": "shapes",
    "symbolic_data": "shapes",
}

__all__ = [
    "CostTable",
    "NodeCost",
    "Peak",
    "ShapeReport",
    "by_origin",
    "dims_of",
    "infer_node",
    "infer_shapes",
    "lifetimes",
    "origins",
    "peak_activations",
    "refined_shape",
    "symbolic_data",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
