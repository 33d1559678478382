# SPDX-License-Identifier: Apache-2.0
"""Small models with seeded weights whose signals stay near 1, from short text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tersor.graph_ir import DataType, Model, parse, tensor

Maker = Callable[[], Model]
P1 = "pads = [1, 1, 1, 1]"
IMAGE = "float[2,3,8,8] x"


def build(
    body: str,
    weights: str = "",
    *,
    x: str = IMAGE,
    y: str = "float[2,4,8,8] y",
    constants: str = "",
    opset: int = 17,
    seed: int = 0,
) -> Model:
    """A model whose signals stay near 1.

    Args:
        body: its nodes.
        weights: `name shape; name shape`, normal, divided by the root of what is summed over. Those called
            `var...` are positive, those called `gain...` lie near 1.
        x: inputs.
        y: outputs.
        constants: further initializers as ONNX text.
        opset: of ai.onnx; com.microsoft 1 is imported, too.
        seed: of the weights.
    """
    pairs = [item.split() for item in weights.split(";") if item.strip()]
    declared = [f"float[{shape}] {name} = {{seed}}" for name, shape in pairs]
    listed = ", ".join([*declared, *([constants] if constants else [])])
    model = parse(
        f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
        f" block ({x}) => ({y}) <{listed}> {{ {body} }}",
        seed,
    )
    for name, _ in pairs:
        value = model.graph.initializers[name]
        assert value.const_value is not None
        assert value.dtype == DataType.FLOAT
        value.const_value = tensor(_scaled(name, value.const_value.numpy()), name=name)
    return model


def _scaled(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if name.startswith("var"):
        return np.add(np.abs(array), 0.5, dtype=np.float32)
    if name.startswith("gain"):
        return np.add(1, 0.2 * array, dtype=np.float32)
    fan_in = 1 if array.ndim == 1 else array[0].size if array.ndim > 2 else array.shape[0]
    return np.divide(array, np.sqrt(fan_in), dtype=np.float32)
