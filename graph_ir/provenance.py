# SPDX-License-Identifier: Apache-2.0
"""Where the origins of nodes lie in a file: which nodes of the source model each node stands for.

From IR version 10 on, in the node's own metadata, to a line one name and behind a tab its operator. Older
versions have metadata of the model only: there it is one JSON object, node label to list of such lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

import onnx
import onnx_ir as ir

from .errors import DataError
from .json_text import parse_object
from .ops import label, walk_nodes
from .origins import ORIGINS, read_origins, set_origins, write_origins

LEFT_FLOAT = "tersor.left-float"
NODE_METADATA_IR_VERSION = 10  # nodes have metadata_props from here on


def stamp(model: ir.Model) -> list[ir.Node]:
    """Put recorded origins where the IR version has metadata for them; the nodes `unstamp` is to clear."""
    recorded = {
        node: write_origins(cast("Mapping[str, str]", node.meta[ORIGINS]))
        for node in walk_nodes(model)
        if ORIGINS in node.meta and ORIGINS not in node.metadata_props
    }
    if model.ir_version < NODE_METADATA_IR_VERSION:
        if recorded:
            table = {label(node): lines for node, lines in recorded.items()}
            model.metadata_props[ORIGINS] = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
        return []
    for node, lines in recorded.items():
        node.metadata_props[ORIGINS] = "\n".join(lines)
    return list(recorded)


def unstamp(model: ir.Model, stamped: Sequence[ir.Node]) -> None:
    """Undo `stamp`."""
    if model.ir_version < NODE_METADATA_IR_VERSION:
        model.metadata_props.pop(ORIGINS, None)
    for node in stamped:
        del node.metadata_props[ORIGINS]


def restore(model: ir.Model) -> None:
    """Hand origins from the model's metadata to its nodes; what is no table of them is left alone."""
    table = _table(model.metadata_props.get(ORIGINS, ""))
    if table:
        del model.metadata_props[ORIGINS]
        for node in walk_nodes(model):
            known = table.get(label(node))
            if known:
                set_origins(node, known)


def stored_origins(proto: onnx.ModelProto) -> dict[str, dict[str, str]]:
    """The origins in a file and their operators, by node label, those of bodies included."""
    found: dict[str, dict[str, str]] = {}
    for entry in proto.metadata_props:
        if entry.key == ORIGINS:
            found.update(_table(entry.value))
    graphs = [proto.graph]
    while graphs:
        for node in graphs.pop().node:
            for entry in node.metadata_props:
                if entry.key == ORIGINS and entry.value:
                    title = node.name or f"{node.op_type}({next((o for o in node.output if o), '')})"
                    found[title] = read_origins(entry.value.split("\n"))
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
    return found


def note_left_float(model: ir.Model, reasons: Mapping[str, str], *, keep: bool = False) -> None:
    """Record in the model's metadata why nodes were left float, by label.

    Earlier records are replaced, or kept where there are any.
    """
    earlier = model.metadata_props.pop(LEFT_FLOAT, None)
    if keep and earlier is not None:
        reasons = {**reasons, **{name: str(reason) for name, reason in _object(earlier).items()}}
    if reasons:
        model.metadata_props[LEFT_FLOAT] = json.dumps(reasons, ensure_ascii=False, separators=(",", ":"))


def left_float(proto: onnx.ModelProto) -> dict[str, str]:
    """What `note_left_float` recorded."""
    given = (_object(entry.value) for entry in proto.metadata_props if entry.key == LEFT_FLOAT)
    return {name: str(reason) for table in given for name, reason in table.items()}


def _table(text: str) -> dict[str, dict[str, str]]:
    return {
        name: read_origins(str(item) for item in cast("list[object]", lines))
        for name, lines in _object(text).items()
        if isinstance(lines, list)
    }


def _object(text: str) -> dict[str, object]:
    with suppress(DataError):
        return parse_object(text, "the table")
    return {}
