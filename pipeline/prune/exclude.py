# SPDX-License-Identifier: Apache-2.0
"""Which groups the user wants left alone: by name, by operator, or by a chain of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ...graph_ir import Model, Node, UsageError
from ...graph_ir.ops import walk_nodes

if TYPE_CHECKING:
    from ...analysis.coupling import Coupling, Group

OP = "op:"
CHAIN = ">"


def excluded(model: Model, coupling: Coupling, patterns: Sequence[str]) -> dict[str, str]:
    """The groups that patterns name, each with the pattern that does.

    A pattern is a glob over the names of nodes, values and weights (`head*`), an operator (`op:LSTM`), or a
    chain of operators each of which reads the one before (`Conv>Sigmoid`). It stands for the groups whose
    channels one of the nodes makes or hands on, not for those it only sums over.

    Raises:
        UsageError: a pattern fits nothing in the model.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        if not pattern.strip():
            raise UsageError("--exclude is empty; give a name, op:OPERATOR or a chain of operators")
        if pattern.startswith(OP):
            nodes = _by_operator(model, pattern)
        elif CHAIN in pattern:
            nodes = _by_chain(model, pattern)
        else:
            nodes = _by_name(model, pattern)
        for group in coupling.groups:
            if group.name not in found and _touches(group, nodes):
                found[group.name] = f"excluded by {pattern!r}"
    return found


def makers(group: Group) -> Iterator[Node]:
    """The nodes that make the group's channels or hand them on."""
    yield from group.producers
    for axis in group.axes:
        node = axis.value.producer()
        if node is not None:
            yield node


def _touches(group: Group, nodes: set[Node]) -> bool:
    return any(node in nodes for node in makers(group))


def _by_operator(model: Model, pattern: str) -> set[Node]:
    wanted = pattern.removeprefix(OP)
    found = {node for node in walk_nodes(model) if node.op_type == wanted}
    if not found:
        present = {node.op_type for node in walk_nodes(model)}
        raise UsageError(f"--exclude {pattern!r}: the model has no such operator{_near(wanted, present)}")
    return found


def _by_chain(model: Model, pattern: str) -> set[Node]:
    wanted = [part.strip() for part in pattern.split(CHAIN)]
    found = _where(model, lambda node: node.op_type == wanted[0], wanted)
    if not found:
        raise UsageError(f"--exclude {pattern!r}: the model has no such chain of operators")
    return found


def _where(model: Model, starts: Callable[[Node], bool], wanted: Sequence[str]) -> set[Node]:
    """All nodes of all the paths with these operators, one after the other."""
    levels: list[set[Node]] = [{node for node in walk_nodes(model) if starts(node)}]
    for op_type in wanted[1:]:
        readers = (user for n in levels[-1] for o in n.outputs for user, _ in o.uses())
        levels.append({user for user in readers if user.op_type == op_type})
    for before, after in zip(levels[-2::-1], levels[:0:-1], strict=True):
        before.intersection_update(
            [n for n in before if any(user in after for o in n.outputs for user, _ in o.uses())]
        )
    return set[Node]().union(*levels)


def _by_name(model: Model, pattern: str) -> set[Node]:
    """Nodes of that name, with outputs of that name, or that read a weight of that name."""
    found: set[Node] = set()
    names: set[str] = set()
    for node in walk_nodes(model):
        weights = [v.name or "" for v in node.inputs if v is not None and v.is_initializer()]
        mine = [node.name or "", *(output.name or "" for output in node.outputs), *weights]
        names.update(mine)
        if any(name and fnmatchcase(name, pattern) for name in mine):
            found.add(node)
    if not found:
        raise UsageError(f"--exclude {pattern!r} fits no node and no value{_near(pattern, names)}")
    return found


def _near(word: str, names: set[str]) -> str:
    near = get_close_matches(word, sorted(names), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
