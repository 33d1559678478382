# SPDX-License-Identifier: Apache-2.0
"""Grouped convolutions behind a shuffle that mixes the groups lose equally many channels of each."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.coupling import couple
from tersor.analysis.coupling.balance import Blocks, balanced
from tersor.graph_ir import Model
from tests.support.coupled import cut, reason, sizes
from tests.support.prune_build import build


def shuffled(groups: int, width: int, *, twice: bool = False) -> Model:
    """ShuffleNet's unit: 1 x 1 in groups, a shuffle, depthwise, 1 x 1 in groups.

    Args:
        groups: of both convolutions.
        width: channels between them.
        twice: the last weight is read by a second convolution, too.
    """
    each = width // groups
    more = f"  o = Conv<group = {groups}>(d, w3)  p = Add(b, o)" if twice else "  p = Relu(b)"
    return build(
        f"""a = Conv<group = {groups}>(x, w1)  s = Reshape(a, rows)
        t = Transpose<perm = [0, 2, 1, 3, 4]>(s)  u = Reshape(t, flat)  r = Relu(u)
        d = Conv<group = {width}, pads = [1, 1, 1, 1]>(r, w2)  b = Conv<group = {groups}>(d, w3){more}
        y = Conv(p, w4)""",
        f"w1 {width},2,1,1; w2 {width},1,3,3; w3 {2 * groups},{each},1,1; w4 4,{2 * groups},1,1",
        x=f"float[2,{2 * groups},8,8] x",
        constants=f"int64[5] rows = {{2, {groups}, {each}, 8, 8}}, int64[4] flat = {{2, {width}, 8, 8}}",
    )


@pytest.mark.parametrize(
    ("groups", "width", "atoms"),
    [
        (2, 8, 2),  # every two neighbours in one group: relative positions do
        (2, 10, 2),  # of five pairs the middle one has a channel in each group: it alone stays
        (3, 15, 0),  # three of the five triples even out, and so do the other two: one of a kind each
        (3, 60, 6),
        (4, 68, 3),
    ],
)
def test_shuffles_that_mix_the_groups_can_be_cut(groups: int, width: int, atoms: int) -> None:
    found = cut(shuffled(groups, width))
    assert found.get("a:1", 0) == atoms


def test_a_weight_that_another_node_reads_keeps_its_columns_in_order() -> None:
    assert "together" in reason(shuffled(3, 60, twice=True), "a")
    assert "a:1" not in sizes(couple(shuffled(3, 60, twice=True)))


def bundles_of(
    atom: list[int], *blocks: Blocks, stay: tuple[int, ...] = ()
) -> tuple[list[set[int]], set[int]]:
    free = np.array([a not in stay for a in range(max(atom) + 1)])
    found, odd = balanced(np.array(atom), free, blocks)
    return [set(bundle.tolist()) for bundle in found], set(odd.tolist())


def test_one_of_each_group_goes() -> None:
    found, odd = bundles_of([0, 1, 2, 3, 4, 5], Blocks(0, 6, 2))
    assert sorted(map(sorted, found)) == [[0, 3], [1, 4], [2, 5]]
    assert not odd


def test_what_is_even_by_itself_needs_no_other() -> None:
    assert bundles_of([0, 1, 0, 1], Blocks(0, 4, 2)) == ([], set())


def test_straddling_atoms_wait_for_their_counterparts() -> None:
    """Atoms of two channels dealt to groups of three: 2+0, 1+1 and 0+2."""
    found, odd = bundles_of([0, 0, 1, 1, 2, 2], Blocks(0, 6, 2))
    assert found == [{0, 2}]
    assert not odd


def test_two_convolutions_are_evened_out_at_once() -> None:
    """Blocks of four and, two further on, blocks of three: the third block of either lacks nothing."""
    atom = list(range(12))
    found, odd = bundles_of(atom, Blocks(0, 12, 3), Blocks(3, 9, 3))
    for bundle in found:
        for blocks in (Blocks(0, 12, 3), Blocks(3, 9, 3)):
            each = blocks.size // blocks.groups
            held = [(i - blocks.start) // each for i in bundle if i >= blocks.start]
            assert len({held.count(g) for g in range(3)}) == 1
    assert sum(map(len, found)) + len(odd) == 12
    assert len(found) >= 2


@pytest.mark.parametrize(("width", "groups"), [(12, 3), (16, 4), (96, 8)])
def test_any_order_between_two_convolutions_is_evened_out(width: int, groups: int) -> None:
    """A perfect matching always exists; taking what fills most first ends with some left over."""
    order = np.random.default_rng(1).permutation(width).tolist()
    found, odd = bundles_of([*range(width), *order], Blocks(0, width, groups), Blocks(width, width, groups))
    assert not odd
    assert sorted(i for bundle in found for i in bundle) == list(range(width))
    for bundle in found:
        assert sorted(i // (width // groups) for i in bundle) == list(range(groups))
        assert sorted(order.index(i) // (width // groups) for i in bundle) == list(range(groups))


def test_without_a_counterpart_it_stays() -> None:
    found, odd = bundles_of([0, 1, 2, 3], Blocks(0, 4, 2), stay=(2, 3))
    assert found == []
    assert odd == {0, 1}


@pytest.mark.parametrize("seed", range(6))
def test_channels_dealt_at_random_are_cut_or_stay(seed: int) -> None:
    """Two convolutions in groups, each behind channels in an order that fits neither's groups."""
    rng = np.random.default_rng(seed)
    orders = [", ".join(map(str, rng.permutation(24))) for _ in range(2)]
    model = build(
        """a = Conv(x, w0)  s = Gather<axis = 1>(a, i)  b = Conv<group = 3>(s, w1)  c = Add(a, b)
        t = Gather<axis = 1>(c, j)  d = Conv<group = 4>(t, w2)  y = Conv(d, w3)""",
        "w0 24,3,1,1; w1 24,8,1,1; w2 24,6,1,1; w3 4,24,1,1",
        constants=f"int64[24] i = {{{orders[0]}}}, int64[24] j = {{{orders[1]}}}",
    )
    assert cut(model)["d:1"] == 6
