# SPDX-License-Identifier: Apache-2.0
"""Real shapes and contents of every value of a model's main graph, to hold inference against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tersor.analysis import expr
from tersor.analysis.shapes import dims_of, infer_shapes, symbolic_data
from tersor.graph_ir import Model, from_proto

Array = NDArray[Any]


def run_all(proto: onnx.ModelProto, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the main graph, from onnxruntime with its optimizer off."""
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    del watched.graph.value_info[:]
    have = {o.name for o in watched.graph.output}
    names = [name for node in watched.graph.node for name in node.output if name and name not in have]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, dict(feed)), strict=True))


def check(proto: onnx.ModelProto, feed: Mapping[str, Array], bindings: Mapping[str, int]) -> Model:
    """Infer, and assert that dims, dtypes and known elements are what the run gives; the typed model."""
    model = from_proto(proto)
    infer_shapes(model)
    truth = run_all(proto, feed)
    sizes = dict(bindings)
    values = {v.name: v for node in model.graph for v in node.outputs if v.name}
    for name, array in truth.items():  # names of open dims stand for what the run gives, and must agree
        dims = dims_of(values[name])
        for dim, size in zip(dims or (), array.shape, strict=False):
            if isinstance(dim, expr.Expr) and (dim.name or "").startswith("?"):
                sizes.setdefault(dim.name or "", size)
    for name, array in truth.items():
        value, dims = values[name], dims_of(values[name])
        if value.dtype is not None:
            assert value.dtype.numpy() == array.dtype, name
        if dims is not None:
            assert [expr.evaluate(d, sizes) for d in dims] == list(array.shape), name
        for item, real in zip(symbolic_data(value) or (), array.ravel(), strict=False):
            assert not isinstance(item, int) or item == int(np.asarray(real).item()), name
    return model
