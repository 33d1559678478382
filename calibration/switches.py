# SPDX-License-Identifier: Apache-2.0
"""One model in which every part can be quantised alone: each part is an If with a switch of its own.

A switch is a scalar boolean input. Off, the part computes as in the float model; on, its operands, weights
and result lie on the grids of the plan. So one session and one pass over the data serve all parts, and only
one branch of each If is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..graph_ir import DataType, Graph, Model, Node, Rewriter, Shape, TensorType, Value, constant
from ..graph_ir.numerics import QuantParams, activation_params, dequantize, quantize, quantize_bias
from ..graph_ir.ops import label
from ..graph_ir.origins import origins
from ..passes.quantize.bias_correction import Means
from ..passes.quantize.kinds import data_inputs
from ..passes.quantize.linear_form import Grids, Numbers, linear_form
from ..passes.quantize.quant_plan import NodePlan, QuantPlan, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

Per = Literal["region", "tensor", "activation"]


@dataclass(frozen=True)
class Part:
    """What one switch quantises.

    Attributes:
        name: of the region's node, or of the tensor.
        kind: region, activation or weight.
        op_type: of the region's or the weight's node, or of the one that makes the activation.
        nodes: the nodes of the source model it stands for.
        switch: the input that turns it on.
    """

    name: str
    kind: Literal["region", "activation", "weight"]
    op_type: str
    nodes: tuple[str, ...]
    switch: str


def split(
    model: Model,
    plan: QuantPlan,
    per: Per = "region",
    *,
    bits: int = 8,
    mse: bool = False,
    means: Means | None = None,
    grids: Grids | None = None,
) -> list[Part]:
    """Put switches into a model.

    A region is a node with an int8 kernel and what the kernel takes in (its bias, activation or gate): its
    data inputs, weights and result. An activation is quantised for all its readers, a weight together with
    the bias that its node adds.

    Args:
        model: edited in place, for measuring only.
        plan: made for this very model, which nothing has edited since.
        per: one part for each region, for each tensor, or for each activation alone.
        bits: of the weights.
        mse: see `linear_form`.
        means: see `linear_form`.
        grids: see `linear_form`.

    Returns:
        The parts in graph order.
    """
    form = partial(linear_form, bits=bits, mse=mse, means=means, grids=grids)
    splitter = _Splitter(model, plan, form)
    splitter.regions() if per == "region" else splitter.tensors(weights=per == "tensor")
    return splitter.parts


class _Splitter:
    def __init__(self, model: Model, plan: QuantPlan, form: Numbers) -> None:
        self._model, self._plan, self._form = model, plan, form
        self._rw = Rewriter(model)
        self._grids: dict[tuple[Any, ...], tuple[Value, Value]] = {}
        self.parts: list[Part] = []
        self._work = [(n, p) for n, p in plan.nodes.items() if p.role in (Role.LINEAR, Role.FOLLOWER)]

    def regions(self) -> None:
        """A switch for each node with an int8 kernel."""
        ready = [(n, p, self._constants(n, p)) for n, p in self._work]  # before names move
        grids = dict(self._plan.params)
        for node, planned, arrays in ready:
            inside = planned.absorbed(node)[::-1]
            part = self._part(label(node), "region", node.op_type, _sources(*inside))
            out = planned.handed(node)[0]
            new = self._switched(part, node, planned, arrays, grids)
            self._rw.replace(out, new)
            if out in grids:
                grids[new] = grids[out]
            self._rw.erase_all(inside[::-1])

    def tensors(self, *, weights: bool) -> None:
        """A switch for each activation that has a grid, and for each linear node's weights if wanted."""
        work = [(n, p, self._constants(n, p)) for n, p in self._work] if weights else []
        wanted = self._carried()
        order = list(self._model.graph)
        place = {node: index for index, node in enumerate(order)}
        for value in wanted:
            producer = value.producer()
            index = -1 if producer is None else place[producer]
            if index + 1 < len(order):
                self._activation(value, order[index + 1])
        for node, planned, arrays in work:
            if arrays:
                inside = planned.absorbed(node)[::-1]
                source = node.inputs[1] if planned.role is Role.LINEAR else None
                name = source.name if source is not None and source.name else label(node)
                part = self._part(name, "weight", node.op_type, _sources(node))
                made = self._branching(part, inside, [*inside], arrays, {}, None)
                self._rw.replace(inside[-1].outputs[0], made)
                self._rw.erase_all(inside[::-1])

    def _carried(self) -> list[Value]:
        """The values with a grid, without those that only hand on another's codes."""
        passed = {
            out
            for node, planned in self._plan.nodes.items()
            if planned.role in (Role.PASSING, Role.NATIVE)
            for out in node.outputs
        }
        return [value for value in self._plan.params if value not in passed]

    def _activation(self, value: Value, anchor: Node) -> None:
        producer = value.producer()
        op_type = "" if producer is None else producer.op_type
        makers = () if producer is None else _sources(producer)
        part = self._part(value.name or "", "activation", op_type, makers)
        users = list(value.uses())
        on, off = _Branch(self._rw), _Branch(self._rw)
        on.outputs = [self._snapped(on, value, self._plan.params[value], anchor)]
        off.outputs = [off.node("Identity", [value]).outputs[0]]
        made = self._if(part, on, off, anchor)
        made.type, made.shape = value.type, value.shape
        for user, index in users:
            self._rw.set_input(user, index, made)

    def _switched(
        self,
        part: Part,
        node: Node,
        planned: NodePlan,
        arrays: Mapping[tuple[Node, int], NDArray[Any]],
        grids: Mapping[Value, QuantParams],
    ) -> Value:
        inside = planned.absorbed(node)[::-1]
        # A Relu or Clip that the grid of the result does is not computed.
        computed = [n for n in inside if n is not planned.tail]
        read = node.inputs[:1] if planned.role is Role.LINEAR else data_inputs(planned.gate or node)
        snapped = {v: grids[v] for v in read if v is not None and v in grids}
        out = planned.handed(node)[0]
        grid = grids.get(out) if planned.quantized_out else None
        return self._branching(part, inside, computed, arrays, snapped, grid)

    def _branching(
        self,
        part: Part,
        inside: Sequence[Node],
        computed: Sequence[Node],
        arrays: Mapping[tuple[Node, int], NDArray[Any]],
        snapped: Mapping[Value, QuantParams],
        grid: QuantParams | None,
    ) -> Value:
        """The If: off, the nodes as they are; on, those computed with other constants, between grids."""
        anchor = inside[-1]
        on, off = _Branch(self._rw), _Branch(self._rw)
        for value, params in snapped.items():
            on.known[value] = self._snapped(on, value, params, anchor)
        for item in computed:
            other = {
                index: self._rw.constant(array, f"{part.name}_snapped", anchor)
                for (owner, index), array in arrays.items()
                if owner is item
            }
            on.copy(item, other)
        result = on.known[computed[-1].outputs[0]]
        on.outputs = [result if grid is None else self._snapped(on, result, grid, anchor)]
        for item in inside:
            off.copy(item, {})
        off.outputs = [off.known[anchor.outputs[0]]]
        return self._if(part, on, off, anchor)

    def _if(self, part: Part, on: _Branch, off: _Branch, anchor: Node) -> Value:
        switch = Value(name=part.switch, type=TensorType(DataType.BOOL), shape=Shape(()))
        self._model.graph.inputs.append(switch)
        bodies = {
            "then_branch": on.graph(f"{part.switch}_on"),
            "else_branch": off.graph(f"{part.switch}_off"),
        }
        return self._rw.node("If", [switch], bodies, before=anchor, name=part.switch).outputs[0]

    def _snapped(self, branch: _Branch, value: Value, params: QuantParams, near: Node) -> Value:
        if params.key not in self._grids:
            scale = self._rw.constant(params.scale, "snap_scale", near)
            self._grids[params.key] = scale, self._rw.constant(params.zero_point, "snap_zero", near)
        grid = self._grids[params.key]
        codes = branch.node("QuantizeLinear", [value, *grid]).outputs[0]
        return branch.node("DequantizeLinear", [codes, *grid]).outputs[0]

    def _part(
        self, name: str, kind: Literal["region", "activation", "weight"], op_type: str, nodes: tuple[str, ...]
    ) -> Part:
        switch = self._rw.fresh_name(f"switch_{len(self.parts)}")
        self.parts.append(Part(name, kind, op_type, nodes, switch))
        return self.parts[-1]

    def _constants(self, node: Node, planned: NodePlan) -> dict[tuple[Node, int], NDArray[Any]]:
        """By node and input, what int8 codes make of the constants that a part reads."""
        found: dict[tuple[Node, int], NDArray[Any]] = {}
        if planned.role is not Role.LINEAR:
            for index, value in enumerate(node.inputs):
                array = constant(value) if value in data_inputs(node) else None
                if array is not None:
                    params = activation_params(float(array.min()), float(array.max()))
                    found[node, index] = dequantize(quantize(array, params), params)
            return found
        x = node.inputs[0]
        assert x is not None
        grid = self._plan.params[x]
        form = self._form(node, planned, grid)
        found[node, 1] = dequantize(quantize(form.weights, form.params), form.params)
        if form.bias is not None:
            codes, scale = quantize_bias(form.bias, grid.scale, form.params.scale)
            bias = (codes * scale.astype(np.float64)).astype(np.float32)
            add = planned.bias_add
            if add is None:
                found[node, 2] = bias
            else:
                found[add, next(i for i, v in enumerate(add.inputs) if constant(v) is not None)] = bias
        return found


def _sources(*nodes: Node) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for node in nodes for name in origins(node)))


class _Branch:
    """The nodes of one branch as they are made."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rw = rewriter
        self._nodes: list[Node] = []
        self.known: dict[Value | None, Value] = {}  # what the branch reads in place of a value outside
        self.outputs: list[Value] = []

    def node(self, op_type: str, inputs: Sequence[Value | None]) -> Node:
        return self._add(Node("", op_type, inputs, name=self._rw.fresh_node_name(op_type)))

    def copy(self, node: Node, constants: Mapping[int, Value]) -> Node:
        """A copy of a node, with some inputs replaced by constants; Gemm's factors are within these."""
        inputs = [constants.get(i, self.known.get(v, v)) for i, v in enumerate(node.inputs)]
        extra = [value for index, value in constants.items() if index >= len(node.inputs)]
        dropped = ("alpha", "beta") if constants and node.op_type == "Gemm" else ()
        made = self._add(
            Node(
                node.domain,
                node.op_type,
                [*inputs, *extra],
                [a for name, a in node.attributes.items() if name not in dropped],
                num_outputs=len(node.outputs),
                name=self._rw.fresh_node_name(node.name or node.op_type),
            )
        )
        self.known.update(zip(node.outputs, made.outputs, strict=True))
        return made

    def _add(self, node: Node) -> Node:
        for output in node.outputs:
            output.name = self._rw.fresh_name(f"{node.name}_out")
        self._nodes.append(node)
        return node

    def graph(self, name: str) -> Graph:
        return Graph([], self.outputs, nodes=self._nodes, name=name)
