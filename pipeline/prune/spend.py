# SPDX-License-Identifier: Apache-2.0
"""What a model costs as a function of how many atoms each group keeps, without applying anything.

A weight's elements are the product of the sizes of its axes, and the MACs of a linear node a product of
sizes of its weight's and its activations' axes: parameters, bytes and MACs are sums of such (`products`).
`analysis.cost` counts exactly once a plan has been applied.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.contrib_rules import MICROSOFT
from ...analysis.cost import Branches, macs_by_node
from ...graph_ir import Model, Node, Value, gc_paused
from ...graph_ir.ops import (
    constant_tensor,
    int_attr,
    is_standard,
    rank,
    static_shape,
    string_attr,
    walk_graphs,
)
from .products import Axes, Axis, Product, Products
from .widths import channels_per_atom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling


class Spend:
    """Predicts what is left of a model.

    Args:
        model: as the coupling saw it, shapes inferred.
        coupling: its groups.
        bindings: sizes of named dims, for the MACs.
        overhead: bytes of the model's files that are not weights, and do not change.
        left_alone: groups that may not be cut; their channels do not count.
    """

    def __init__(
        self,
        model: Model,
        coupling: Coupling,
        *,
        bindings: Mapping[str, int] | None = None,
        overhead: int = 0,
        left_alone: Container[str] = (),
    ) -> None:
        self.coupling = coupling
        with gc_paused():
            self.axes = Axes(coupling)
            self._counted = macs_by_node(model, bindings=bindings)
            weights = list(_weights(model))
            self._params = Products(self.axes, ((size, axes) for size, _, axes in weights))
            stored = ((size * each, axes) for size, each, axes in weights)
            self._bytes = Products(self.axes, [*stored, (float(overhead), [])])
            terms = list(self.mac_terms())
            self._macs = Products(
                self.axes, ((value, product) for value, _, product, _ in terms), [t[3] for t in terms]
            )
        self.full: NDArray[np.int64] = np.array([group.atoms for group in coupling.groups], np.int64)
        self._channels: NDArray[np.float64] = np.array(
            [0 if g.name in left_alone else channels_per_atom(g) for g in coupling.groups], np.float64
        )

    def left(self, kind: str, kept: NDArray[np.int64]) -> float:
        """The share of the original that is left; 1 where there is nothing to count.

        Args:
            kind: `ratio` (here the share of the channels kept), `params`, `size` or `macs`.
            kept: atoms kept, by group in the order of the coupling; [groups].
        """
        if kind == "ratio":
            whole, now = float(self._channels @ self.full), float(self._channels @ kept)
        else:
            counted = {"params": self._params, "size": self._bytes, "macs": self._macs}[kind]
            whole, now = counted.total(self.full), counted.total(kept)
        return now / whole if whole else 1.0

    def mac_terms(self) -> Iterator[tuple[float, Node, Product, Branches]]:
        """The MACs of each node that could be counted, the axes they are a product of, and its branches."""
        for node, macs, within in self._counted:
            products = mac_products(node)
            shares = _shares(node) if len(products) == 2 else ()
            if shares:
                for product, share in zip(products, shares, strict=True):
                    yield macs * share, node, product, within
            else:
                yield float(macs), node, products[0] if products else [], within

    def costs(self, kind: str) -> NDArray[np.float64]:
        """What an atom of each group takes of what a budget counts, up to a factor; MACs stand for time."""
        if kind == "ratio":
            return self._channels
        counted = {"params": self._params, "size": self._bytes}.get(kind, self._macs)
        return counted.slopes()


def _weights(model: Model) -> Iterator[tuple[float, float, Product]]:
    """Of each stored constant, once: its elements, the bytes of one, and its axes."""
    seen: set[int] = set()
    for graph in walk_graphs(model):
        made = (o for node in graph if node.op_type == "Constant" for o in node.outputs)
        for value in (*graph.initializers.values(), *made):
            tensor = value.const_value if value.is_initializer() else constant_tensor(value)
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                shape = tensor.shape.numpy()
                size = float(prod(shape))
                yield size, tensor.dtype.itemsize, [(value, axis) for axis in range(len(shape))]


def _shares(node: Node) -> tuple[float, ...]:
    """How W and R share the MACs of a recurrent node; empty where their sizes are not known."""
    sizes = [prod(static_shape(value) or (0,)) for value in node.inputs[1:3] if value is not None]
    return tuple(size / sum(sizes) for size in sizes) if all(sizes) else ()


def mac_products(node: Node) -> list[Product]:
    """The axes whose sizes the node's MACs are a product of (two products for W and R of a recurrent node).

    Empty where nothing is known; such a node's MACs are taken not to change.
    """
    op_type = node.op_type
    if node.domain == MICROSOFT and op_type in ("GroupQueryAttention", "MultiHeadAttention"):
        return [_axes(node.outputs[0])]  # a head of the result goes with those of queries, keys and values
    if node.domain == MICROSOFT and op_type == "Attention":
        return [_axes(node.inputs[1])]  # the projections are the most of it
    if not is_standard(node):
        return []
    if op_type in ("Conv", "ConvInteger", "DeformConv", "QLinearConv"):
        weight = node.inputs[3 if op_type == "QLinearConv" else 1]
        return [[*_axes(node.outputs[0]), *_axes(weight)[1:]]]
    if op_type == "ConvTranspose":
        return [[*_axes(node.inputs[0]), *_axes(node.inputs[1])[1:]]]
    if op_type in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return [[*_axes(node.outputs[0]), *_axes(node.inputs[0])[-1:]]]
    if op_type == "Gemm":
        summed = 0 if int_attr(node, "transA", 0) else 1
        return [[*_axes(node.outputs[0]), *_axes(node.inputs[0])[summed : summed + 1]]]
    if op_type in ("LSTM", "GRU", "RNN"):
        return [_axes(node.inputs[1]), _axes(node.inputs[2])]
    if op_type == "Einsum":
        return [_einsum(node)]
    if op_type == "Attention":
        return [_axes(node.inputs[0])]
    return []


def _axes(value: Value | None) -> Product:
    return [] if value is None else [(value, axis) for axis in range(rank(value) or 0)]


def _einsum(node: Node) -> Product:
    """One axis for each label, of the first operand that has it."""
    terms = string_attr(node, "equation", "").replace(" ", "").split("->")[0].split(",")
    found: dict[str, Axis] = {}
    for value, term in zip(node.inputs, terms, strict=False):
        for axis, letter in enumerate(term):
            if value is not None:
                found.setdefault(letter, (value, axis))
    return list(found.values())
