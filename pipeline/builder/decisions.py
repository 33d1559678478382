# SPDX-License-Identifier: Apache-2.0
"""Where answers stop being numbers that have an error: an ArgMax, a NonMaxSuppression, a comparison.

What int8 does to such answers cannot be measured on them: a class is the same or another one, a box is kept
or is not, and the rows behind it move up. So it is measured on the floats that the decisions are made from,
and an error that is made larger is made larger there: the rest of the model is run on the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analysis.shapes import infer_shapes
from ...backends.base import Feed
from ...backends.onnxruntime.config import SessionConfig
from ...backends.onnxruntime.session import OrtSession
from ...backends.onnxruntime.source import graph_proto
from ...graph_ir import Model, Node, TensorType, Value, load
from ...graph_ir.extract import keep_needed
from ...graph_ir.ops import graphs_within, input_at, is_constant, is_op, is_read, subgraphs
from ...passes.quantize.kinds import FLOAT_LINEAR, LINEAR

if TYPE_CHECKING:
    import onnx

Run = Callable[[Feed], list[Any]]

_CHOOSING = ("TopK", "Unique")  # also where nobody asks which


@dataclass(frozen=True)
class Decisions:
    """The place where a model begins to decide.

    Attributes:
        floats: names of what has an error there: what decisions are made from, and outputs of no decision.
        read: ONNX data type by name of those `floats` that the rest of the model reads.
        rest: the outputs that are not among `floats`, in the order of the model's.
    """

    floats: tuple[str, ...]
    read: Mapping[str, int]
    rest: tuple[str, ...]

    def before(self, path: Path) -> onnx.ModelProto | None:
        """A form of the model that answers `floats` alone; None where it lacks one of them."""
        proto, _ = graph_proto(path)
        known = {output.name: output for output in proto.graph.output}
        made = {name for node in proto.graph.node for name in node.output}
        if not made.issuperset(self.floats):
            return None
        del proto.graph.output[:]
        for name in self.floats:
            proto.graph.output.append(known[name]) if name in known else proto.graph.output.add(name=name)
        keep_needed(proto.graph)
        return proto

    def open(self, path: Path, config: SessionConfig, *, spinning: bool | None = None) -> OrtSession | None:
        """A session of `before`; None where there is none."""
        proto = self.before(path)
        return None if proto is None else OrtSession(proto, config, spinning=spinning, folder=path.parent)

    def behind(self, path: Path) -> onnx.ModelProto:
        """The rest of the model: what it reads of `floats` are further inputs."""
        proto, _ = graph_proto(path)
        for node in proto.graph.node:
            for index, name in enumerate(node.output):
                if name in self.read:
                    node.output[index] = f"{name}/computed"
        kept = [output for output in proto.graph.output if output.name in self.rest]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
        for name, data_type in self.read.items():
            proto.graph.input.add(name=name).type.tensor_type.elem_type = data_type
        keep_needed(proto.graph)
        return proto

    def finished(self, run: Run, rest: OrtSession, outputs: Sequence[str]) -> Run:
        """A run of the whole model.

        Args:
            run: of what answers `floats`.
            rest: of `behind`.
            outputs: the model's.
        """

        def whole(feed: Feed) -> list[Any]:
            found = dict(zip(self.floats, run(feed), strict=True))
            given = {name: found[name] for name in self.read}
            found |= zip(self.rest, rest.run_unchecked({**feed, **given}, self.rest), strict=True)
            return [found[name] for name in outputs]

        return whole


def decisions(path: Path) -> Decisions | None:
    """Where a model begins to decide; None where it does not, or layers with weights come behind.

    Only what depends on a layer with weights has an error, and only in its values: shapes have none.
    """
    model = load(path)
    infer_shapes(model)
    found = _Walk(model)
    outputs = [value for value in model.graph.outputs if value.name]
    if found.layers_behind or not found.decided.intersection(outputs):
        return None
    if not all(isinstance(value.type, TensorType) and value.dtype for value in found.read):
        return None  # sequences have no error that could be made larger
    floats = [value for value in outputs if value in found.moved and value not in found.decided]
    floats += [value for value in found.read if value not in floats]
    names = tuple(value.name or "" for value in floats)
    read = {value.name or "": int(value.dtype or 0) for value in found.read}
    return Decisions(names, read, tuple(v.name or "" for v in outputs if v not in floats))


class _Walk:
    """What has an error, what is decided by that, and what decisions read of it."""

    def __init__(self, model: Model) -> None:
        self.moved: set[Value] = set()
        self.decided: set[Value] = set()
        self.read: dict[Value, None] = {}
        self.layers_behind = False
        for node in model.graph:
            self._visit(node)

    def _visit(self, node: Node) -> None:
        reads = list(_reads(node))
        decided = not self.decided.isdisjoint(reads)
        layer = any(_is_layer(each) for each in _nodes(node))
        if is_op(node, "Shape", "Size") and not decided:
            return
        if not layer and self.moved.isdisjoint(reads):
            return
        made = list(filter(is_read, node.outputs))
        self.moved.update(made)
        codes = any(value.dtype is not None and not value.dtype.is_floating_point() for value in made)
        if decided or codes or is_op(node, *_CHOOSING):
            self.layers_behind |= layer
            read = (v for v in reads if v in self.moved and v not in self.decided)
            self.read |= dict.fromkeys(map(_before_transposes, read))
            self.decided.update(made)


def _before_transposes(value: Value) -> Value:
    """What a value is the transpose of: passes take decisions in front of transposes."""
    node = value.producer()
    while node is not None and is_op(node, "Transpose") and (source := node.inputs[0]) is not None:
        value, node = source, source.producer()
    return value


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for body in subgraphs(node):
        for graph in graphs_within(body):
            yield from graph


def _reads(node: Node) -> Iterator[Value]:
    """What a node and its bodies read."""
    for each in _nodes(node):
        yield from (value for value in each.inputs if value is not None)


def _is_layer(node: Node) -> bool:
    if is_op(node, *LINEAR):
        return any(is_constant(input_at(node, index)) for index in (0, 1))
    return is_op(node, *FLOAT_LINEAR)
