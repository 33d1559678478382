# SPDX-License-Identifier: Apache-2.0
"""Which nodes of the source model the nodes of a rewritten one stand for.

The `Rewriter` records origins on every node it makes; a node that came from the file is its own origin.
"""

from __future__ import annotations

from ..graph_ir import Model, Node
from ..graph_ir.ops import origins, walk_nodes

__all__ = ["by_origin", "origins"]


def by_origin(model: Model) -> dict[str, list[Node]]:
    """The nodes that stand for each source node, by its label, in graph order."""
    found: dict[str, list[Node]] = {}
    for node in walk_nodes(model):
        for name in origins(node):
            found.setdefault(name, []).append(node)
    return found
