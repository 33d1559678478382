# SPDX-License-Identifier: Apache-2.0
"""Quantise small models with ranges measured on their feeds, and read back what onnxruntime made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, parse, tensor, to_proto, verify
from tersor.passes.base import Context
from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.passes.quantize.plan import tensors_to_observe

Feed = Mapping[str, NDArray[Any]]
FLOAT_LINEAR = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


@dataclass(frozen=True)
class Span:
    """A measured range."""

    lo: float
    hi: float
    unsafe: str | None = None


def graph(body: str, weights: str = "", x: str = "1,16,12,12", y: str = "", opset: int = 17) -> Model:
    """A model over `float[<x>] x` whose output is `y`; weights are seeded, scaled to keep signals near 1."""
    text = f"""<ir_version: 9, opset_import: ["" : {opset}]>
    g (float[{x}] x) => (float{f"[{y}]" if y else ""} y) <{weights}> {{ {body} }}"""
    model = parse(text)
    for value in model.graph.initializers.values():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is not None and array.dtype == np.float32 and array.ndim > 1:
            fan_in = array[0].size if array.ndim > 2 else array.shape[0]
            value.const_value = tensor(array / np.float32(np.sqrt(fan_in)), name=value.name)
    infer_shapes(model)
    return model


def feeds_of(model: Model, count: int = 4, seed: int = 0) -> list[Feed]:
    """Normal feeds for all (static float) inputs; free dimensions are 1."""
    rng = np.random.default_rng(seed)

    def one() -> Feed:
        return {
            i.name or "": rng.standard_normal([d if isinstance(d, int) else 1 for d in i.shape or ()]).astype(
                np.float32
            )
            for i in model.graph.inputs
        }

    return [one() for _ in range(count)]


def session(proto: onnx.ModelProto, *, optimised: Path | None = None, off: bool = False) -> Any:
    """A default session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    if off:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(proto: onnx.ModelProto, feed: Feed, *, off: bool = False) -> list[NDArray[Any]]:
    """Outputs of one run."""
    return cast("list[NDArray[Any]]", session(proto, off=off).run(None, dict(feed)))


def ranges_of(model: Model, feeds: Sequence[Feed], names: Iterable[str] | None = None) -> dict[str, Span]:
    """Min-max ranges of the values the planner asks for."""
    proto = to_proto(model)
    wanted = list(tensors_to_observe(model) if names is None else names)
    have = {o.name for o in proto.graph.output} | {i.name for i in proto.graph.input}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in have)
    runner = session(proto, off=True)
    outputs = [o.name for o in runner.get_outputs()]
    found: dict[str, list[NDArray[Any]]] = {n: [] for n in wanted}
    for feed in feeds:
        values = dict(zip(outputs, runner.run(None, dict(feed)), strict=True)) | dict(feed)
        for name in wanted:
            found[name].append(values[name])
    return {n: Span(float(min(a.min() for a in v)), float(max(a.max() for a in v))) for n, v in found.items()}


def quantised(
    model: Model, options: InsertQdq | None = None, *, spans: Mapping[str, Span] | None = None, **facts: Any
) -> tuple[onnx.ModelProto, onnx.ModelProto, Context]:
    """The float model, its int8 form (verified), and the context of the pass."""
    before = to_proto(model)
    ranges = ranges_of(model, feeds_of(model)) if spans is None else spans
    ctx = Context(facts={"ranges": ranges, **facts})
    (options or InsertQdq(float_stem=False)).run(model, ctx)
    verify(model)
    return before, to_proto(model), ctx


@dataclass(frozen=True)
class Optimised:
    """What onnxruntime made of a model: its operators, and what its int8 kernels missed."""

    ops: Counter[str]
    constant_dqs: int

    @property
    def float_linear(self) -> int:
        """How many linear nodes run in float."""
        return sum(self.ops[op] for op in FLOAT_LINEAR)


def optimised(proto: onnx.ModelProto, folder: Path) -> Optimised:
    """The runtime's own graph in a default session."""
    path = folder / "optimised.onnx"
    session(proto, optimised=path)
    made = onnx.load(path).graph
    constants = {i.name for i in made.initializer}
    ops = Counter(n.op_type for n in made.node)
    return Optimised(ops, sum(n.op_type == "DequantizeLinear" and n.input[0] in constants for n in made.node))


def sqnr(want: NDArray[Any], got: NDArray[Any]) -> float:
    """Signal to noise in dB."""
    noise = float(np.square(want.astype(np.float64) - got).sum())
    return 200.0 if noise == 0 else 10 * float(np.log10(np.square(want.astype(np.float64)).sum() / noise))
