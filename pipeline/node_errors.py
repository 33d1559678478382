# SPDX-License-Identifier: Apache-2.0
"""How far the values inside a rewritten model are from those of the original, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.evaluate import Evaluator, Feed
from ..analysis.fidelity import Closeness, Fidelity
from ..analysis.provenance import by_origin
from ..calibration.visit import BUDGET, groups
from ..graph_ir import DataType, Model, Node, Value
from ..graph_ir.ops import label
from ..graph_ir.origins import origins

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOATS = frozenset({DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16, DataType.DOUBLE})
_ORDERS = ((0, 3, 1, 2), (0, 2, 3, 1))  # channels first from channels last, and back
_BOUNDARY = frozenset({"QuantizeLinear", "DequantizeLinear"})


def node_errors(
    original: Model, model: Model, feeds: Sequence[Feed], threads: int = 1
) -> dict[str, Closeness]:
    """Closeness of the output of each original node, both models run as the graphs say (optimizer off).

    Args:
        original: with float values; shapes inferred where possible, which saves time.
        model: what it was rewritten to; its metadata say which nodes stand for which.
        feeds: for both.
        threads: threads used inside operators.

    Returns:
        By label of the original node. Left out are nodes whose result the rewritten model does not hold, in
        this shape or with the channels at the other end, or holds as codes alone. Where a rewrite scales a
        value, as equalization does, the figure says nothing of accuracy.
    """
    pairs = _pairs(original, model)
    found: dict[str, Fidelity] = {}
    first = feeds[0]
    for group in groups(original, list(dict.fromkeys(left for _, left, _ in pairs)), first, BUDGET):
        inside = set(group)
        here = [pair for pair in pairs if pair[1] in inside]
        one = Evaluator(original, outputs=list(group), threads=threads)
        two = Evaluator(model, outputs=[right for _, _, right in here], threads=threads)
        for index, feed in enumerate(feeds):
            wanted, given = one.run(feed, index=index), two.run(feed, index=index)
            for node, left, right in here:
                got = _aligned(wanted[left], given[right])
                if got is not None:
                    found.setdefault(node, Fidelity()).update(wanted[left], got)
    return {node: total.result() for node, total in found.items()}


def _aligned(want: NDArray[Any], got: NDArray[Any]) -> NDArray[Any] | None:
    """The rewritten value in the layout of the original; None when it is another thing."""
    if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance] - sequences are lists
        return None
    if got.dtype.kind in "iu":
        return None  # codes that are read as they are
    if got.shape == want.shape:
        return got
    if got.ndim == want.ndim == 4:
        turned: list[NDArray[Any]] = [np.transpose(got, order) for order in _ORDERS]
        return next((array for array in turned if array.shape == want.shape), None)
    return None


def _pairs(original: Model, model: Model) -> list[tuple[str, str, str]]:
    """Original node, the value it makes, and the value that holds the same in the rewritten model."""
    made = {output.name: node for node in model.graph for output in node.outputs if output.name}
    standing = by_origin(model)
    place = {label(node): index for index, node in enumerate(original.graph)}
    found: list[tuple[str, str, str]] = []
    for node in original.graph:
        output = node.outputs[0]
        if not output.name or (output.dtype is not None and output.dtype not in _FLOATS):
            continue
        name = label(node)
        if output.name in made and _ends_with(made[output.name], name, place):
            found.append((name, output.name, output.name))
            continue
        last = next((n for n in standing.get(name, [])[::-1] if n.op_type not in _BOUNDARY), None)
        other = None if last is None or not _ends_with(last, name, place) else _read(last).name
        if other:
            found.append((name, output.name, other))
    return found


def _ends_with(node: Node, name: str, place: Mapping[str, int]) -> bool:
    """Whether a node stands for the named one and for none behind it; names of values may be used again."""
    known = origins(node)
    return name in known and all(place.get(other, -1) <= place[name] for other in known)


def _read(node: Node) -> Value:
    """What readers get of a node's result: behind a Q and DQ if it is quantized."""
    value = node.outputs[0]
    users = [user for user, _ in value.uses()]
    if len(users) == 1 and users[0].op_type == "QuantizeLinear":
        readers = [user for user, _ in users[0].outputs[0].uses()]
        if readers and all(reader.op_type == "DequantizeLinear" for reader in readers):
            return readers[0].outputs[0]
    return value
