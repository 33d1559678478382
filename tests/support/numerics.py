# SPDX-License-Identifier: Apache-2.0
"""Judges of numbers: is a rewritten model bit for bit the same, or the same up to rounding?

Both models run in onnxruntime with its optimizer off (in ONNX's reference evaluator when onnxruntime has no
kernel). ROUNDING is judged against the truth, a float64 run of the model before: the error after may be a
small multiple of the error before, or of what one unit in the last place of each weight and input does to the
truth. No tolerance is picked by hand, so a wrong epsilon or a dropped bias cannot hide behind one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tersor.graph_ir import Model, to_proto
from tests.support.float64 import CORRECTED

Array: TypeAlias = NDArray[Any]
Feed: TypeAlias = Mapping[str, Array]
AnyModel: TypeAlias = Model | onnx.ModelProto

FACTOR = 4.0
_EPSILON: dict[int, float] = {
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
}
_FLOATS = {np.dtype(np.float16): 2.0**-10, np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): 2.0**-52}


def snapshot(model: AnyModel) -> onnx.ModelProto:
    """The model as it stands, out of reach of passes that edit in place."""
    return model if isinstance(model, onnx.ModelProto) else to_proto(model)


def feeds_for(model: AnyModel, seed: int = 0, dims: Mapping[str, int] | None = None) -> dict[str, Array]:
    """A seeded feed for each input without a default: normal floats, integers 0 to 3, booleans.

    Args:
        model: whose signature is fed.
        seed: of the generator.
        dims: sizes of symbolic dimensions; 2 for those not named.
    """
    rng = np.random.default_rng(seed)
    graph = snapshot(model).graph
    defaults = {i.name for i in graph.initializer}
    feed: dict[str, Array] = {}
    for port in graph.input:
        if port.name in defaults:
            continue
        tensor = port.type.tensor_type
        shape = [
            (dims or {}).get(d.dim_param, 2) if d.WhichOneof("value") != "dim_value" else d.dim_value
            for d in tensor.shape.dim
        ]
        kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if kind == np.dtype(bool):
            feed[port.name] = rng.integers(0, 2, shape).astype(bool)
        elif np.issubdtype(kind, np.integer):
            feed[port.name] = rng.integers(0, 4, shape).astype(kind)
        else:
            feed[port.name] = rng.standard_normal(shape).astype(kind)
    return feed


def run_onnxruntime(model: AnyModel, feed: Feed) -> list[Array] | None:
    """Outputs from onnxruntime with its optimizer off, or None when it has no kernel for a node."""
    import onnxruntime as ort
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            snapshot(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except NoKernel:
        return None
    return [np.asarray(value) for value in cast("Sequence[Any]", session.run(None, dict(feed)))]


def run_reference(model: AnyModel, feed: Feed) -> list[Array]:
    """Outputs from ONNX's reference evaluator."""
    evaluator = ReferenceEvaluator(snapshot(model), new_ops=CORRECTED)
    outputs = cast("Sequence[Any]", evaluator.run(None, dict(feed)))
    return [np.asarray(value) for value in outputs]


def run_both(before: AnyModel, after: AnyModel, feed: Feed) -> tuple[list[Array], list[Array]]:
    """Outputs of two models from the same engine."""
    first, second = run_onnxruntime(before, feed), run_onnxruntime(after, feed)
    if first is None or second is None:
        return run_reference(before, feed), run_reference(after, feed)
    return first, second


def run_double(model: AnyModel, feed: Feed, jitter: np.random.Generator | None = None) -> list[Array]:
    """Outputs of the model with every float made float64, from the reference evaluator.

    Args:
        model: the model.
        feed: its inputs, in their own dtypes.
        jitter: when given, each float weight and input is first moved by up to one unit in its last place.
    """
    twin = onnx.ModelProto()
    twin.CopyFrom(snapshot(model))
    _double_graph(twin.graph, jitter)
    for function in twin.functions:
        _double_nodes(function.node, jitter)
    return run_reference(twin, {name: _double(array, jitter) for name, array in feed.items()})


def _double(array: Array, jitter: np.random.Generator | None, epsilon: float | None = None) -> Array:
    step = _FLOATS.get(array.dtype) if epsilon is None else epsilon
    if step is None:
        return array
    wide = array.astype(np.float64)
    return wide if jitter is None else np.asarray(wide * (1 + step * jitter.uniform(-1, 1, wide.shape)))


def _double_tensor(tensor: onnx.TensorProto, jitter: np.random.Generator | None) -> None:
    step = _EPSILON.get(tensor.data_type)
    if step is None:
        return
    array = _double(numpy_helper.to_array(tensor), jitter, step)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _double_graph(graph: onnx.GraphProto, jitter: np.random.Generator | None) -> None:
    for tensor in graph.initializer:
        _double_tensor(tensor, jitter)
    for port in (*graph.input, *graph.output, *graph.value_info):
        if port.type.tensor_type.elem_type in _EPSILON:
            port.type.tensor_type.elem_type = TensorProto.DOUBLE
    _double_nodes(graph.node, jitter)


def _double_nodes(nodes: Iterable[onnx.NodeProto], jitter: np.random.Generator | None) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _double_tensor(attribute.t, jitter)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _double_graph(attribute.g, jitter)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _EPSILON:
                attribute.i = TensorProto.DOUBLE
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                wide = numpy_helper.from_array(np.asarray(values, dtype=np.float64))
                attribute.CopyFrom(helper.make_attribute("value", wide))


def assert_bitwise(before: AnyModel, after: AnyModel, feeds: Feed | Iterable[Feed]) -> None:
    """Every output of both models has the same dtype, shape and bits on every feed."""
    for feed in _each(feeds):
        for i, (a, b) in enumerate(zip(*run_both(before, after, feed), strict=True)):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), (
                f"output {i}: {a.dtype}{a.shape} became {b.dtype}{b.shape}"
            )
            assert a.tobytes() == b.tobytes(), f"output {i}: bits differ, by at most {_distance(a, b):g}"


def assert_rounding(
    before: AnyModel, after: AnyModel, feeds: Feed | Iterable[Feed], factor: float = FACTOR
) -> None:
    """Every output after is as near to the truth, up to `factor`, as rounding alone lets one expect.

    Outputs that are not floats must be equal, and the two must be infinite or NaN in the same places.
    """
    for feed in _each(feeds):
        first, second = run_both(before, after, feed)
        truth = run_double(before, feed)
        noise: list[float] | None = None
        for i, (a, b, exact) in enumerate(zip(first, second, truth, strict=True)):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), (
                f"output {i}: {a.dtype}{a.shape} became {b.dtype}{b.shape}"
            )
            if a.dtype not in _FLOATS:
                assert np.array_equal(a, b), f"output {i} ({a.dtype}) changed"
                continue
            finite = np.isfinite(a)
            assert np.array_equal(finite, np.isfinite(b)), f"output {i}: infinite or NaN in other places"
            error, moved = _distance(a, exact, finite), _distance(b, exact, finite)
            scale = float(np.max(np.abs(exact[finite]), initial=0.0))
            assert error <= max(0.1 * scale, 1e-6), (
                f"output {i}: the float64 run disagrees with the model itself"
            )
            allowed = factor * max(error, _FLOATS[a.dtype] * scale)
            if moved > allowed:
                noise = _noise(before, feed, truth) if noise is None else noise
                allowed = max(allowed, factor * noise[i])
            assert moved <= allowed, f"output {i}: error {error:g} became {moved:g} (allowed {allowed:g})"


def _noise(model: AnyModel, feed: Feed, truth: Sequence[Array]) -> list[float]:
    """How far each output moves when all weights and inputs move by one unit in the last place."""
    moved = run_double(model, feed, np.random.default_rng(0))
    return [_distance(a, b, np.isfinite(a)) for a, b in zip(truth, moved, strict=True)]


def _distance(a: Array, b: Array, where: Array | None = None) -> float:
    if where is not None:
        a, b = a[where], b[where]
    if a.dtype == np.dtype(bool):
        return float(np.count_nonzero(a != b))
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))


def _each(feeds: Feed | Iterable[Feed]) -> list[Feed]:
    return [cast("Feed", feeds)] if isinstance(feeds, Mapping) else list(feeds)
