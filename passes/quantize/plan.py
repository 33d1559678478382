# SPDX-License-Identifier: Apache-2.0
"""Decide which nodes become int8 for onnxruntime on CPU, and which values carry Q/DQ.

The runtime fuses a node into its int8 kernel only in certain surroundings; a node that misses them is slower
than float. So a node is planned as int8 only together with all that its kernel needs:

- *linear* nodes (Conv, Gemm, MatMul with constant weights): data input with a range; a Conv needs a quantised
  output, Gemm and MatMul end in float unless an int8 node reads them; a Conv may compute its weights;
- *followers* (Add, Mul, Concat, pools, ...) when an int8 node feeds them and they lead to a linear node;
- *passing* nodes (Reshape, MaxPool, ...) carry the codes on, in the grid of their input;
- a Relu or Clip that the output grid does anyway is absorbed (`NodePlan.tail`);
- all else stays float and reads dequantised values.

Each value has one Q. A linear node left float has its reason recorded.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...graph_ir import DataType, Model, Node, Value, constant
from ...graph_ir.numerics import QuantParams
from ...graph_ir.ops import is_op, is_standard, label, only_user, walk_graphs
from .candidates import Candidates
from .joined import joined
from .kinds import (
    BOUNDS,
    FLOAT_LINEAR,
    FOLLOWERS,
    ISLANDS,
    LINEAR,
    activations_of,
    computes_weights,
    data_inputs,
    refuse_linear,
)
from .quant_plan import Decision, HasRange, NodePlan, PlanOptions, QuantPlan, RangeMap, Role

__all__ = [
    "Decision",
    "HasRange",
    "NodePlan",
    "PlanOptions",
    "QuantPlan",
    "RangeMap",
    "Role",
    "plan",
    "tensors_to_observe",
]


def plan(model: Model, ranges: RangeMap, options: PlanOptions | None = None) -> QuantPlan:
    """Plan the int8 form of a model.

    Args:
        model: with shapes inferred as far as known; not changed. Only float32 nodes of the main graph
            are considered.
        ranges: by value name; a value without one stays float.
        options: what is asked for.
    """
    options = options or PlanOptions()
    nodes = [n for n in model.graph if is_standard(n)]
    if options.join_concats:
        ranges = joined(nodes, ranges)
    candidates = Candidates(nodes, ranges, options)
    final = _settle(nodes, candidates.planned, options)
    result = QuantPlan(_decisions(model, candidates, final), final, candidates.excluded)
    for node in final:
        _assign_grids(node, candidates, result)
    return result


def tensors_to_observe(model: Model) -> list[str]:
    """Names of the values whose ranges `plan` may ask for, in graph order, each once."""
    wanted: dict[str, None] = {}

    def want(values: Iterable[Value | None]) -> None:
        for value in values:
            if value is None or not value.name or value.dtype not in (None, DataType.FLOAT):
                continue
            if constant(value) is None:
                wanted[value.name] = None

    for node in model.graph:
        if not is_standard(node):
            continue
        if computes_weights(node) or (node.op_type in LINEAR and refuse_linear(node) is None):
            want(activations_of(node))
        elif node.op_type in FOLLOWERS | ISLANDS:
            want(data_inputs(node))
        else:
            continue
        out = node.outputs[0]
        want([out])
        user = only_user(out)
        if user is not None and is_op(user, *BOUNDS):
            want(user.outputs[:1])
    return list(wanted)


def _settle(
    nodes: list[Node], planned_of: dict[Node, NodePlan], options: PlanOptions
) -> dict[Node, NodePlan]:
    """Of what could be int8: linear nodes, what leads to one, and passing nodes behind codes."""
    needed: set[Node] = set()
    for node in reversed(nodes):
        planned = planned_of.get(node)
        if planned is None:
            continue
        ends = not options.float_tail and node.op_type in FOLLOWERS and planned.gate is None
        if node.op_type in LINEAR or ends or _read_by(needed, planned.handed(node)):
            needed.add(node)
    final: dict[Node, NodePlan] = {}
    coded: set[Value] = set()
    for node in nodes:
        planned = planned_of.get(node)
        if planned is None:
            continue
        carries_on = planned.role in (Role.PASSING, Role.NATIVE) and node.inputs[0] in coded
        if node not in needed and not carries_on:
            continue
        final[node] = planned
        if planned.role is Role.LINEAR and node.op_type != "Conv":
            planned.quantized_out = planned.quantized_out and _read_by(needed, planned.handed(node))
            if not planned.quantized_out:
                planned.tail = None
                continue
        coded.update(planned.handed(node))
    return final


def _read_by(nodes: set[Node], values: Iterable[Value]) -> bool:
    return any(user in nodes for value in values for user, _ in value.uses())


def _assign_grids(node: Node, candidates: Candidates, result: QuantPlan) -> None:
    planned = result.nodes[node]
    if planned.role in (Role.PASSING, Role.NATIVE):
        first = node.inputs[0]
        assert first is not None
        for out in node.outputs:
            result.params[out] = result.params[first]
        return
    inputs = node.inputs[:1] if planned.role is Role.LINEAR else data_inputs(planned.gate or node)
    values = [v for v in inputs if v is not None and constant(v) is None]
    if planned.quantized_out:
        values.append(result.carrier(node))
    for value in values:
        if value not in result.params:
            grid = candidates.grid(value)
            assert isinstance(grid, QuantParams)
            result.params[value] = grid


def _decisions(model: Model, candidates: Candidates, final: dict[Node, NodePlan]) -> list[Decision]:
    found: list[Decision] = []
    for graph in walk_graphs(model):
        for node in graph:
            if not is_standard(node):
                continue
            if node.op_type in FLOAT_LINEAR:
                reason = f"the runtime has no int8 kernel for {node.op_type}"
            elif node.op_type in LINEAR:
                reason = candidates.reasons.get(node, "it is inside a body or function")
            else:
                continue
            done = node in final
            found.append(Decision(label(node), node.op_type, done, "" if done else reason))
    return found
