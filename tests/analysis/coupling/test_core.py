# SPDX-License-Identifier: Apache-2.0
"""The core of the coupling graph on facts made by hand: spaces, choices, atoms, classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tersor.analysis.coupling.atoms import Island, classes, islands
from tersor.analysis.coupling.choices import settle
from tersor.analysis.coupling.facts import AxisKey, Facts
from tersor.analysis.coupling.graph import couple
from tersor.analysis.coupling.spaces import Spaces
from tersor.analysis.coupling.ties import Ties
from tersor.graph_ir.text import parse


def a_node() -> Ties:
    """The voice of a node whose own axes do not matter: virtual axes stand for all."""
    model = parse('<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Relu(x) }')
    return Ties(next(iter(model.graph)), 17, Facts())


def found(ties: Ties) -> tuple[Spaces, list[Island]]:
    facts = ties.facts
    spaces = Spaces(facts)
    links = [*facts.links, *settle(facts.choices, facts.heads, spaces)]
    return spaces, islands(facts.grouped, links, spaces)


def atoms_at(ties: Ties, axis: AxisKey) -> list[int]:
    spaces, all_islands = found(ties)
    space = spaces.of(axis)
    (island,) = [i for i in all_islands if space in i.spaces]
    atoms = island.at(space, spaces.size[space])
    return [-1 if island.stays[a] is not None else a for a in atoms.tolist()]


def test_axes_of_one_space_share_their_atoms() -> None:
    ties = a_node()
    a, b, c = (ties.virtual(i, 4) for i in range(3))
    ties.same(a, b)
    ties.same(c, b)
    spaces, _ = found(ties)
    assert spaces.of(a) == spaces.of(b) == spaces.of(c)
    assert spaces.size == [4]


def test_axes_of_unequal_or_unknown_size_are_pinned() -> None:
    ties = a_node()
    a, b, c = ties.virtual(0, 4), ties.virtual(1, 6), ties.virtual(2, None)
    ties.same(a, b)
    ties.free(c)
    spaces, all_islands = found(ties)
    assert not all_islands
    assert "another size" in spaces.pins[spaces.of(a)]
    assert "not known" in spaces.pins[spaces.of(c)]


def test_a_pinned_part_pins_only_its_positions() -> None:
    ties = a_node()
    whole, left, right = ties.virtual(0, 5), ties.virtual(1, 2), ties.virtual(2, 3)
    ties.part(whole, left, 0)
    ties.part(whole, right, 2)
    ties.pin(left, "given")
    assert atoms_at(ties, whole) == [-1, -1, 2, 3, 4]
    assert len(set(atoms_at(ties, right))) == 3


def test_a_tensor_concatenated_twice_goes_in_both_places() -> None:
    ties = a_node()
    whole, part = ties.virtual(0, 6), ties.virtual(1, 3)
    ties.part(whole, part, 0)
    ties.part(whole, part, 3)
    assert atoms_at(ties, whole) == [0, 1, 2, 0, 1, 2]


def test_parts_of_a_concat_fall_into_classes_of_their_own() -> None:
    ties = a_node()
    whole, left, right = ties.virtual(0, 5), ties.virtual(1, 2), ties.virtual(2, 3)
    ties.part(whole, left, 0)
    ties.part(whole, right, 2)
    spaces, (island,) = found(ties)
    kinds = classes(island, spaces.size)
    assert kinds[0] == kinds[1]
    assert kinds[2] == kinds[3] == kinds[4]
    assert kinds[0] != kinds[2]


def test_a_flattened_axis_is_cut_through_the_factor_that_is_not_pinned() -> None:
    ties = a_node()
    flat = ties.virtual(9, 12)
    ties.regroup([3, 2, 2], [(flat, (0, 1, 2))])
    node = ties.node
    ties.pin((node, -2), "a window slides over it")
    ties.pin((node, -3), "a window slides over it")
    assert atoms_at(ties, flat) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_a_pinned_product_pins_its_factors_and_all_pinned_factors_their_product() -> None:
    ties = a_node()
    flat, other = ties.virtual(9, 6), ties.virtual(8, 6)
    ties.regroup([2, 3], [(flat, (0, 1)), (other, (1, 0))])
    ties.pin(flat, "given")
    spaces, all_islands = found(ties)
    assert not all_islands
    assert spaces.pins[spaces.of(other)] == "given"


def test_heads_are_cut_before_the_longer_factor() -> None:
    ties = a_node()
    flat = ties.virtual(9, 12)
    ties.regroup([3, 4], [(flat, (0, 1))])
    assert atoms_at(ties, flat) == [0, 1, 2, 3] * 3
    ties = a_node()
    flat = ties.virtual(9, 12)
    ties.regroup([3, 4], [(flat, (0, 1))])
    ties.heads((ties.node, -1))
    assert atoms_at(ties, flat) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_heads_get_narrower_where_that_is_asked_for() -> None:
    ties = a_node()
    flat = ties.virtual(9, 12)
    ties.regroup([4, 3], [(flat, (0, 1))])
    ties.heads((ties.node, -1))
    spaces = Spaces(ties.facts)
    (link,) = settle(ties.facts.choices, ties.facts.heads, spaces, whole_heads=False)
    assert link.indices.tolist() == [0, 1, 2] * 4


def test_a_grouped_convolution_loses_whole_groups() -> None:
    ties = a_node()
    ins, outs, weight = ties.virtual(0, 4), ties.virtual(1, 6), ties.virtual(2, 2)
    ties.grouped(ins, outs, 2, weight)
    assert atoms_at(ties, ins) == [0, 0, 1, 1]
    assert atoms_at(ties, outs) == [0, 0, 0, 1, 1, 1]
    assert atoms_at(ties, weight) == [-1, -1]


def test_groups_that_hang_together_lose_the_same_positions_instead() -> None:
    ties = a_node()
    ins, outs, weight = ties.virtual(0, 4), ties.virtual(1, 6), ties.virtual(2, 2)
    ties.grouped(ins, outs, 2, weight)
    mixer = ties.virtual(3, 2)
    ties.spread(mixer, ins, outer=2, inner=1)  # ties the first channel of each group
    assert atoms_at(ties, ins) == [0, 1, 0, 1]
    assert atoms_at(ties, outs) == [0, 1, 2, 0, 1, 2]
    assert atoms_at(ties, weight) == atoms_at(ties, ins)[:2]


def test_pinned_inputs_leave_a_grouped_convolution_the_positions_of_its_outputs() -> None:
    ties = a_node()
    ins, outs = ties.virtual(0, 4), ties.virtual(1, 6)
    ties.grouped(ins, outs, 2, None)
    ties.pin(ins, "given")
    assert atoms_at(ties, outs) == [0, 1, 2, 0, 1, 2]


def reference(total: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    label = list(range(total))
    for _ in range(total):
        for one, other in pairs:
            label[one] = label[other] = min(label[one], label[other])
    order = {lowest: i for i, lowest in enumerate(sorted(set(label)))}
    return [order[lowest] for lowest in label]


@given(st.integers(2, 9), st.data())
def test_atoms_are_the_connected_positions(size: int, data: st.DataObject) -> None:
    """Against a plain fixed point: links between random positions of three axes."""
    places = st.lists(st.integers(0, size - 1), min_size=size, max_size=size)
    ties = a_node()
    axes = [ties.virtual(i, size) for i in range(3)]
    pairs: list[tuple[int, int]] = []
    for one, other in ((0, 1), (1, 2), (0, 2), (2, 2)):
        indices = data.draw(places)
        ties.pick(axes[one], axes[other], np.array(indices, dtype=np.int64))
        pairs += [(one * size + source, other * size + here) for here, source in enumerate(indices)]
    _, (island,) = found(ties)
    assert island.atom.tolist() == reference(3 * size, pairs)


def test_the_reason_given_first_stays() -> None:
    model = parse("""
    <ir_version: 8, opset_import: ["": 17, "other": 1]>
    g (float[1,3] x) => (float[1,4] y, float[1,4] z)
    <float[3,4] w = {seed}>
    {
      y = MatMul (x, w)
      z = other.Unknown (y)
    }
    """)
    (pinned,) = [pin for pin in couple(model).pinned if pin.value == "y"]
    assert pinned.reason == "no rule is known for other.Unknown"
