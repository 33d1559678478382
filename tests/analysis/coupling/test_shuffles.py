# SPDX-License-Identifier: Apache-2.0
"""Chains of channel shuffles: what a Reshape forces together, and that it is the Reshape that does."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model, to_proto
from tests.support.coupled import cut
from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_build import build

WIDTH = 16
MADE = ("r1", "r2", "r3", "s0")


def chain(units: int, by: str) -> Model:
    """Units of ShuffleNetV2: one half of the channels convolved, both joined, and dealt out in turn.

    Args:
        units: how many, one after the other.
        by: how channels are dealt out: `reshape` to two rows and transposed, or `gather` by indices.
    """
    body, weights = ["s0 = Conv(x, w)"], [f"w {WIDTH},3,1,1; last 4,{WIDTH},1,1"]
    deal = {
        "reshape": "t{0} = Reshape(c{0}, rows)  u{0} = Transpose<perm = [0, 2, 1, 3, 4]>(t{0})"
        "  s{0} = Reshape(u{0}, flat)",
        "gather": "s{0} = Gather<axis = 1>(c{0}, order)",
    }[by]
    for i in range(1, units + 1):
        body.append(
            f"p{i}, q{i} = Split<axis = 1>(s{i - 1}, halves)  r{i} = Conv(q{i}, w{i})"
            f"  c{i} = Concat<axis = 1>(p{i}, r{i})  {deal.format(i)}"
        )
        weights.append(f"w{i} {WIDTH // 2},{WIDTH // 2},1,1")
    order = ", ".join(str(i + j) for i in range(WIDTH // 2) for j in (0, WIDTH // 2))
    return build(
        f"{'  '.join(body)}  y = Conv(s{units}, last)",
        "; ".join(weights),
        constants="int64[2] halves = {8, 8}, int64[5] rows = {2, 2, 8, 8, 8}, int64[4] flat = {2, 16, 8, 8},"
        f" int64[{WIDTH}] order = {{{order}}}",
    )


def together(model: Model) -> dict[str, list[int]]:
    """For what each convolution in the chain makes, how many of its channels go with each atom."""
    found: dict[str, list[int]] = {}
    for group in couple(model).groups:
        for axis in group.axes:
            name = axis.value.name or ""
            if axis.axis == 1 and re.fullmatch(r"s0|r\d", name):
                held = np.bincount(axis.atom_of[axis.atom_of >= 0])
                found.setdefault(name, []).extend(held[held > 0].tolist())
    return {name: sorted(counts) for name, counts in sorted(found.items())}


@pytest.mark.parametrize("units", [1, 3, 5])
def test_both_ways_of_dealing_are_the_same_network(units: int) -> None:
    one, other = to_proto(chain(units, "reshape")), to_proto(chain(units, "gather"))
    first, second = (run_onnxruntime(proto, feeds_for(proto)) for proto in (one, other))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first[0], second[0])


def test_each_reshape_ties_twice_as_many_until_all_go_together() -> None:
    assert together(chain(3, "reshape")) == {"r1": [1] * 8, "r2": [2] * 4, "r3": [4] * 2, "s0": [1] * 16}
    longer = couple(chain(5, "reshape"))
    stays = {pin.value: (pin.positions, pin.reason) for pin in longer.pinned}
    assert {name: stays[name] for name in ("r3", "r4", "r5")} == dict.fromkeys(
        ("r3", "r4", "r5"), (8, "all of these channels can only go together")
    )


def test_a_gather_by_indices_ties_nothing() -> None:
    assert together(chain(3, "gather")) == {
        name: [1] * n for name, n in zip(MADE, (8, 8, 8, 16), strict=True)
    }
    assert together(chain(5, "gather"))["r5"] == [1] * 8


@pytest.mark.parametrize("by", ["reshape", "gather"])
def test_a_chain_is_cut_either_way(by: str) -> None:
    assert cut(chain(3, by))


def atoms(units: int) -> list[set[int]]:
    """What goes with each atom, of the input's channels and then of what each unit makes."""
    starts = {"s0": 0, **{f"r{i}": WIDTH + (i - 1) * WIDTH // 2 for i in range(1, units + 1)}}
    found: list[set[int]] = []
    for group in couple(chain(units, "reshape")).groups:
        held = [a for a in group.axes if a.axis == 1 and a.value.name in starts]
        for atom in range(group.atoms):
            gone = [starts[a.value.name or ""] + np.flatnonzero(a.atom_of == atom) for a in held]
            found.append({int(channel) for channels in gone for channel in channels.tolist()})
    return found


def dealt(row: list[int]) -> list[int]:
    """Reshape to two rows, Transpose, Reshape."""
    half = len(row) // 2
    return [channel for pair in zip(row[:half], row[half:], strict=True) for channel in pair]


def deals(gone: set[int], units: int) -> bool:
    """Whether dealing what is left brings it into the order it had."""
    row = list(range(WIDTH))
    for unit in range(units):
        first = WIDTH + unit * WIDTH // 2
        joined = [*row[: WIDTH // 2], *range(first, first + WIDTH // 2)]
        row = dealt(joined)
        left = [channel for channel in joined if channel not in gone]
        if len(left) % 2 or dealt(left) != [channel for channel in row if channel not in gone]:
            return False
    return True


def test_a_part_of_an_atom_cannot_go_while_a_reshape_deals() -> None:
    """Tried out on the order of channels: an atom alone may go, and not when one channel of it stays."""
    tried = 0
    for gone in atoms(3):
        assert deals(gone, 3)
        for channel in gone if len(gone) > 1 else ():
            assert not deals(gone - {channel}, 3)
            tried += 1
    assert tried > 30
