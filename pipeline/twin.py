# SPDX-License-Identifier: Apache-2.0
"""The float64 twin of a model: every float widened, as the truth that rounding errors are measured against.

onnxruntime runs it where it has kernels for float64 (it has none for Conv), else ONNX's reference evaluator,
which is slow: only for models below a budget of weights. It also runs some operators wrongly, so whoever uses
a twin checks that it agrees with the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..analysis.evaluate import Evaluator
from ..graph_ir import DataError, Model, ModelError, to_proto
from ..graph_ir.extract import written_weights
from ..graph_ir.protos import parts_of

if TYPE_CHECKING:
    import onnx

Array: TypeAlias = NDArray[Any]
Runner: TypeAlias = Callable[[Mapping[str, Array]], list[Any]]

REFERENCE_ELEMENTS = 1 << 22  # weights; above, the reference evaluator would take minutes

# What ONNX's reference evaluator raises for an operator it lacks or runs wrongly; it has no error of its own.
REFERENCE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


def snapshot(model: Model) -> onnx.ModelProto:
    """The model as a proto of its own, weights included, out of reach of passes that edit in place."""
    proto = to_proto(model)
    for tensor, value in written_weights(proto, model):
        if tensor.external_data and value.const_value is not None:
            del tensor.external_data[:]
            tensor.data_location = tensor.DEFAULT
            tensor.raw_data = value.const_value.tobytes()
    return proto


def reference_runner(proto: onnx.ModelProto) -> Runner:
    """Run a proto in ONNX's reference evaluator.

    Raises:
        ModelError: it cannot be run there; the runner raises DataError for the same while running.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(proto, new_ops=_corrected())
    except REFERENCE_ERRORS as error:
        raise ModelError(
            f"ONNX's reference evaluator cannot run this model: {type(error).__name__}"
        ) from error

    def run(feed: Mapping[str, Array]) -> list[Any]:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an empty mean is NaN there as it is in onnxruntime
                return list(evaluator.run(None, dict(feed)))  # pyright: ignore[reportArgumentType]
        except REFERENCE_ERRORS as error:
            raise DataError(f"ONNX's reference evaluator failed: {type(error).__name__}") from error

    return run


def _corrected() -> list[Any]:
    """What the reference evaluator runs wrongly: BatchNormalization before opset 14 trains there."""
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        """y = (x - mean) / sqrt(var + epsilon) * scale + bias over axis 1: inference, of every opset."""

        def _run(
            self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, **attributes: Any
        ) -> tuple[Array]:
            if attributes.get("training_mode") or attributes.get("spatial") == 0:
                raise NotImplementedError("only inference over channels")
            epsilon = np.float64(np.float32(attributes.get("epsilon") or 1e-5))
            shape = (-1, *[1] * (x.ndim - 2))
            scale, bias, mean, var = (p.reshape(shape) for p in (scale, bias, mean, var))
            return (((x - mean) / np.sqrt(var + epsilon) * scale + bias).astype(x.dtype),)

    return [BatchNormalization]


def twin_runner(proto: onnx.ModelProto, jitter: np.random.Generator | None = None) -> Runner | None:
    """Run the float64 twin of a model: takes feeds in the model's own types, gives float64 outputs.

    Args:
        proto: the model; left as it is.
        jitter: move each weight and input by up to one unit in its last place first (how much does that alone
            move the outputs?).

    Returns:
        None when nothing here can run it.
    """
    wide = widened(proto, jitter)

    def feeding(run: Runner) -> Runner:
        return lambda feed: run({name: _wide(array, jitter) for name, array in feed.items()})

    try:
        evaluator = Evaluator(wide)
    except ModelError:
        if sum(int(np.prod(t.dims)) for t in parts_of(wide).weights()) > REFERENCE_ELEMENTS:
            return None
        try:
            return feeding(reference_runner(wide))
        except ModelError:
            return None
    return feeding(lambda feed: list(evaluator.run(feed, check=False).values()))


def widened(proto: onnx.ModelProto, jitter: np.random.Generator | None = None) -> onnx.ModelProto:
    """A copy of a model in which every float16, bfloat16 and float32 is float64."""
    import onnx

    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    widener = _Widener(jitter)
    widener.graph(twin.graph)
    for function in twin.functions:
        widener.nodes(function.node)
    return twin


class _Widener:
    def __init__(self, jitter: np.random.Generator | None) -> None:
        from onnx import TensorProto

        self.jitter = jitter
        self.narrow = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
        self.double = TensorProto.DOUBLE

    def graph(self, graph: onnx.GraphProto) -> None:
        kept = {
            name
            for node in graph.node
            if node.op_type in ("Resize", "Upsample")
            for name in list(node.input)[1:3]  # their scales are float32 by the schema
        }
        for tensor in graph.initializer:
            if tensor.name not in kept:
                self.tensor(tensor)
        for port in (*graph.input, *graph.output, *graph.value_info):
            self.type(port.type)
        self.nodes(graph.node)

    def type(self, proto: onnx.TypeProto) -> None:
        kind = proto.WhichOneof("value")
        if kind == "tensor_type" and proto.tensor_type.elem_type in self.narrow:
            proto.tensor_type.elem_type = self.double
        elif kind == "sequence_type":
            self.type(proto.sequence_type.elem_type)
        elif kind == "optional_type":
            self.type(proto.optional_type.elem_type)

    def tensor(self, tensor: onnx.TensorProto) -> None:
        from onnx import numpy_helper

        if tensor.data_type in self.narrow:
            wide = _wide(numpy_helper.to_array(tensor), self.jitter)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))

    def nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        from onnx import AttributeProto, helper, numpy_helper

        for node in nodes:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    self.tensor(attribute.t)
                elif attribute.type == AttributeProto.GRAPH:
                    self.graph(attribute.g)
                elif attribute.name in ("to", "dtype") and attribute.i in self.narrow:
                    attribute.i = self.double
                elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                    single = attribute.name == "value_float"
                    values = np.asarray(attribute.f if single else list(attribute.floats), np.float64)
                    attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))
            if node.op_type == "ConstantOfShape" and not node.attribute:
                zero = numpy_helper.from_array(np.zeros(1, np.float64))
                node.attribute.append(helper.make_attribute("value", zero))


def _wide(array: Array, jitter: np.random.Generator | None) -> Array:
    name = str(array.dtype)
    step = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}.get(name)
    if step is None:
        return array
    wide = array.astype(np.float64)
    if jitter is None:
        return wide
    return np.asarray(wide * (1 + step * jitter.uniform(-1, 1, wide.shape)))
