# SPDX-License-Identifier: Apache-2.0
"""Which nodes of the source model the nodes of a rewritten one stand for.

The `Rewriter` records origins on every node it makes; a node that came from the file is its own origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph_ir import Model, Node
from ..graph_ir.ops import walk_nodes
from ..graph_ir.origins import origins

__all__ = ["by_origin", "original_name", "origins"]

_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def by_origin(model: Model) -> dict[str, list[Node]]:
    """The nodes that stand for each source node, by its label, in graph order."""
    found: dict[str, list[Node]] = {}
    for node in walk_nodes(model):
        for name in origins(node):
            found.setdefault(name, []).append(node)
    return found


def original_name(op_type: str, names: Sequence[str], sources: Mapping[str, str]) -> str:
    """The one source node to call a rewritten node by: of its operator, else a linear one, else the first.

    Args:
        op_type: of the rewritten node.
        names: its origins.
        sources: operator by label, of the nodes of the source model.

    Returns:
        Empty when the source model has none of the names.
    """
    known = [name for name in names if name in sources]
    alike = [name for name in known if sources[name] == op_type]
    linear = [name for name in known if sources[name] in _LINEAR]
    return next(iter(alike or linear or known), "")
