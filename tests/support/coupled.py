# SPDX-License-Identifier: Apache-2.0
"""Small models around one operator, and what the coupling graph finds in them."""

from __future__ import annotations

from tersor.analysis.coupling import Coupling, couple
from tersor.graph_ir import Model, from_proto, to_proto
from tests.support.prune_build import build
from tests.support.prune_cuts import halve


def between(
    body: str,
    weights: str = "",
    *,
    constants: str = "",
    tail: str = "y = Conv(r, w2)",
    w2: str = "4,8,1,1",
    y: str = "float[2,4,8,8] y",
    opset: int = 17,
) -> Model:
    """A convolution makes 8 channels `a` [2, 8, 8, 8], the body makes `r` of them for another to read."""
    more = f"; {weights}" if weights else ""
    return build(
        f"a = Conv(x, w1)  {body}  {tail}",
        f"w1 8,3,1,1; w2 {w2}{more}",
        y=y,
        constants=constants,
        opset=opset,
    )


def dense(
    body: str,
    weights: str = "",
    *,
    constants: str = "",
    tail: str = "y = MatMul(r, w2)",
    w2: str = "12,6",
    y: str = "float[2,5,6] y",
    opset: int = 17,
) -> Model:
    """As `between`, with matrix products: `a` is [2, 5, 12]."""
    more = f"; {weights}" if weights else ""
    return build(
        f"a = MatMul(x, w1)  {body}  {tail}",
        f"w1 7,12; w2 {w2}{more}",
        x="float[2,5,7] x",
        y=y,
        constants=constants,
        opset=opset,
    )


def sizes(coupling: Coupling) -> dict[str, int]:
    """Atoms of each group."""
    return {group.name: group.atoms for group in coupling.groups}


def cut(model: Model) -> dict[str, int]:
    """Atoms of each group; half of each is removed from a copy, which then computes what the oracle says."""
    return sizes(halve(from_proto(to_proto(model))))


def places(model: Model, name: str) -> list[str]:
    """Where a group lives: `value:axis`, with the times each atom stands there when that is not once."""
    found: list[str] = []
    for axis in couple(model).group(name).axes:
        times = int((axis.atom_of >= 0).sum()) // couple(model).group(name).atoms
        found.append(f"{axis.value.name}:{axis.axis}{f'*{times}' if times != 1 else ''}")
    return sorted(found)


def reason(model: Model, value: str) -> str:
    """Why what a layer makes must stay; fails when it can go."""
    coupling = couple(model)
    assert not any(name.startswith(f"{value}:") for name in sizes(coupling))
    return next(pin.reason for pin in coupling.pinned if pin.value == value)
