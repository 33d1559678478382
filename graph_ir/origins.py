# SPDX-License-Identifier: Apache-2.0
"""Which nodes of the source model a node stands for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import cast

import onnx_ir as ir

from .ops import label

ORIGINS = "tersor.origins"


class Together(Mapping[str, str]):
    """The origins of several nodes, made one table when first read.

    A node that absorbs thousands of others, one at a time, would copy what it stands for each time.
    """

    __slots__ = ("_table", "parts")

    def __init__(self, nodes: Iterable[ir.Node]) -> None:
        self.parts = tuple(originals(node) for node in nodes)
        self._table: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._whole()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def _whole(self) -> dict[str, str]:
        if self._table is None:
            self._table = {}
            waiting: list[Mapping[str, str]] = [self]
            seen: set[int] = set()  # what two nodes were made from is reached twice
            while waiting:
                part = waiting.pop()
                if id(part) in seen:
                    continue
                seen.add(id(part))
                if isinstance(part, Together) and part.parts:
                    waiting.extend(reversed(part.parts))
                else:
                    self._table.update(part)
            self.parts = ()
        return self._table


def originals(node: ir.Node) -> Mapping[str, str]:
    """The source nodes this node stands for, label to operator; itself when it was in the file.

    The operator is empty where a file names nodes only.
    """
    recorded = cast("Mapping[str, str] | None", node.meta.data.get(ORIGINS))
    if recorded is not None:
        return recorded
    stored = node.metadata_props.get(ORIGINS)
    if stored is not None:
        return read_origins(stored.split("\n"))
    return {label(node): node.op_type}


def origins(node: ir.Node) -> tuple[str, ...]:
    """The labels of the source nodes this node stands for."""
    return tuple(originals(node))


def read_origins(lines: Iterable[str]) -> dict[str, str]:
    """What files say of origins, a label and behind a tab its operator to a line, as label to operator."""
    found: dict[str, str] = {}
    for line in lines:
        name, tab, op_type = line.rpartition("\t")
        found[name if tab else line] = op_type if tab else ""
    return found


def write_origins(known: Mapping[str, str]) -> list[str]:
    """The lines that `read_origins` reads."""
    return [f"{name}\t{op_type}" if op_type else name for name, op_type in known.items()]


def goes_by(node: ir.Node, names: Collection[str]) -> bool:
    """Whether one of the names is the node's label or one of its origins."""
    return bool(names) and any(name in names for name in (label(node), *origins(node)))


def set_origins(node: ir.Node, known: Mapping[str, str]) -> None:
    """Record which source nodes a node stands for (kept in memory; `save` writes them when asked)."""
    node.meta[ORIGINS] = known
