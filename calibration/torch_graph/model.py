# SPDX-License-Identifier: Apache-2.0
"""A model that torch runs, whose weights are leaves of its graph of gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...analysis.evaluate import check_feed
from ...graph_ir import DataType, Graph, Model, Node, UsageError, Value, signature_of
from ...graph_ir.ops import constant_tensor, graphs_within, is_op, label, opset_of, subgraphs
from .extra import require_torch

if TYPE_CHECKING:
    from torch import Tensor

    from .call import Function

Values = dict[Value, "Tensor | None"]


class TorchModel:
    """Runs a model in torch, on the CPU.

    Every floating-point constant of the model (initializers and Constant nodes, bodies of If included) is a
    leaf tensor that requires a gradient; integers are computed as they are, so arithmetic on shapes needs no
    special care. Half precision is held in float32. Values of the graph are the same as onnxruntime's within
    rounding.

    Args:
        model: left unchanged, and must be while this lives; no functions (inline them first).
        wide: compute in float64.
        what: what asks for it, for the message when torch is missing.

    Attributes:
        weights: name of the constant to its tensor; what is put in ``weights[name].data`` is computed with.

    Raises:
        UsageError: torch is not installed, or the model has an operator there is no function for (named).
    """

    def __init__(self, model: Model, *, wide: bool = False, what: str = "running a model in torch") -> None:
        require_torch(what)
        from .table import FUNCTIONS

        self.signature = signature_of(model)
        self.weights: dict[str, Tensor] = {}
        self._model = model
        self._wide = wide
        self._functions: Mapping[str, Function] = FUNCTIONS
        self._constants: Values = {}
        _refuse_unknown(model, FUNCTIONS)
        for value in _constants(model):
            self._constants[value] = self._load(value)
        self._last = _last_uses(model.graph)

    def run(self, feed: Mapping[str, Any]) -> list[Tensor]:
        """The model's outputs for one feed, in order, with gradients to the weights.

        Raises:
            DataError: the feed does not fit the model.
            UsageError: torch cannot do what a node asks for (an attribute, say); names the node.
        """
        found = self.values(feed, [value.name or "" for value in self._model.graph.outputs])
        return list(found.values())

    def values(self, feed: Mapping[str, Any], names: list[str]) -> dict[str, Tensor]:
        """Values of the main graph by name, inside it or at its ends; see `run`."""
        check_feed(self.signature, feed)
        env: Values = dict(self._constants)
        for value in self._model.graph.inputs:
            name = value.name or ""
            if name in feed:
                env[value] = self._tensor(np.asarray(feed[name]))
        wanted = dict.fromkeys(names)
        found: dict[str, Tensor] = {}
        for value, tensor in env.items():
            if value.name in wanted and tensor is not None and value.graph is self._model.graph:
                found[value.name] = tensor
        for index, node in enumerate(self._model.graph):
            self._step(node, env)
            for output in node.outputs:
                made = env.get(output)
                if output.name in wanted and made is not None:
                    found[output.name] = made
            for value in self._last.get(index, ()):
                env.pop(value, None)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise UsageError(f"{missing[0]!r} is no value of the model's main graph")
        return {name: found[name] for name in names}

    def _graph(self, graph: Graph, env: Values) -> list[Tensor]:
        """A body's outputs; what it captures is in the environment already."""
        for node in graph:
            self._step(node, env)
        return [_given(env, value) for value in graph.outputs]

    def _step(self, node: Node, env: Values) -> None:
        from .call import Call

        if is_op(node, "Constant"):
            return
        if is_op(node, "If"):
            condition = node.inputs[0]
            assert condition is not None
            branch = "then_branch" if bool(_given(env, condition).item()) else "else_branch"
            made = self._graph(node.attributes[branch].as_graph(), env)
        else:
            call = Call(
                label(node), node.op_type, opset_of(self._model), node.attributes,
                [None if value is None else _given(env, value) for value in node.inputs],
                len(node.outputs), self._wide,
            )  # fmt: skip
            result = self._functions[node.op_type](call)
            made = list(result) if isinstance(result, Sequence) else [result]
        for output, tensor in zip(node.outputs, made, strict=False):
            env[output] = tensor

    def _load(self, value: Value) -> Tensor | None:
        tensor = constant_tensor(value) or value.const_value
        if tensor is None or tensor.dtype == DataType.STRING:
            return None
        made = self._tensor(tensor.numpy(), tensor.dtype)
        if made is not None and made.is_floating_point() and not value.is_graph_input():
            made.requires_grad_(True)
            self.weights[value.name or ""] = made
        return made

    def _tensor(self, array: NDArray[Any], dtype: DataType | None = None) -> Tensor | None:
        import torch

        from .call import torch_dtype

        found = torch_dtype(dtype or DataType.from_numpy(array.dtype), wide=self._wide)
        if found is None:
            return None  # an error where it is read
        if found.is_floating_point and array.dtype != np.float64:
            array = array.astype(np.float32)
        elif found in (torch.int32, torch.int64):
            array = array.astype(np.int64)
        return torch.from_numpy(np.array(array)).to(found)


def _given(env: Values, value: Value) -> Tensor:
    found = env.get(value)
    if found is None:
        raise UsageError(f"{value.name!r} is of a type that torch does not hold, or is given by nothing")
    return found


def _constants(model: Model) -> Iterator[Value]:
    for graph in graphs_within(model.graph):
        yield from graph.initializers.values()
        for node in graph:
            if is_op(node, "Constant"):
                yield node.outputs[0]


def _refuse_unknown(model: Model, known: Mapping[str, Function]) -> None:
    functions = {(f.domain, f.name) for f in model.functions.values()}
    for graph in graphs_within(model.graph):
        for node in graph:
            if is_op(node, "Constant", "If") or (is_op(node, *known) and not subgraphs(node)):
                continue
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            hint = (
                "inline the model's functions first (pass inline)"
                if (node.domain, node.op_type) in functions
                else "torch has no function for it here"
            )
            raise UsageError(f"operator {name} (node {label(node)!r}) cannot be run in torch: {hint}")


def _last_uses(graph: Graph) -> dict[int, list[Value]]:
    """By index of a node, the values nothing reads after it; what bodies capture is kept."""
    index = {node: i for i, node in enumerate(graph)}
    last: dict[int, list[Value]] = {}
    for node, i in index.items():
        for output in node.outputs:
            if output.is_graph_output():
                continue
            users = [index.get(user) for user, _ in output.uses()]
            if None not in users:
                last.setdefault(max([i, *(u for u in users if u is not None)]), []).append(output)
    return last
