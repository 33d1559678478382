# SPDX-License-Identifier: Apache-2.0
"""Which widths a group may have."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.coupling import Group, GroupAxis, couple
from tersor.graph_ir import UsageError
from tersor.pipeline.prune.widths import channels_per_atom, is_depthwise, steps
from tests.support.prune_blocks import BLOCKS
from tests.support.prune_models import group, node_named, residual, value


def allowed(
    width: int, align: int = 16, per_atom: int = 1, least: float = 0.0, most: float = 1.0
) -> list[int]:
    """Widths, in channels."""
    made = group("g", width // per_atom, per_atom=per_atom)
    return [int(n) * per_atom for n in steps(made, align, least, most).allowed()]


def test_a_multiple_of_the_alignment_stays_one() -> None:
    assert allowed(64) == [16, 32, 48, 64]
    assert allowed(64, align=8) == [8, 16, 24, 32, 40, 48, 56, 64]


def test_a_wider_one_becomes_a_multiple_or_stays() -> None:
    assert allowed(24) == [16, 24]
    assert allowed(20) == [16, 20]
    assert allowed(68) == [16, 32, 48, 64, 68]
    assert allowed(20, align=8) == [8, 16, 20]


def test_a_narrower_one_goes_in_steps_of_the_largest_power_of_two_that_divides_it() -> None:
    assert allowed(12) == [4, 8, 12]
    assert allowed(14) == [4, 8, 12, 14]


@pytest.mark.parametrize("width", [58, 21, 63])
def test_no_width_is_made_that_is_not_a_multiple_of_four(width: int) -> None:
    *less, whole = allowed(width)
    assert whole == width
    assert less
    assert all(w % 4 == 0 for w in less)


def test_what_is_narrower_than_one_step_stays() -> None:
    assert allowed(16) == [16]
    assert allowed(3) == [3]


def test_a_group_whose_atoms_and_alignment_meet_at_its_width_only_may_be_halved_when_asked() -> None:
    made = group("g", 16, per_atom=3)  # 48 channels: the only multiple of 16 and of 3
    assert steps(made, 16).allowed().tolist() == [16]
    assert steps(made, 16, halve=True).allowed().tolist() == [8, 16]


def test_a_group_of_one_step_may_be_halved_when_asked() -> None:
    for width, least in (
        (16, [8, 16]),
        (24, [8, 16, 24]),
        (8, [4, 8]),
        (12, [4, 8, 12]),
        (4, [4]),
        (64, [16, 32, 48, 64]),
    ):
        assert steps(group("g", width), 16, halve=True).allowed().tolist() == least


def test_without_alignment_any_width_but_none_is_allowed() -> None:
    assert allowed(6, align=1) == [1, 2, 3, 4, 5, 6]


def test_an_atom_of_several_channels_counts_them_all() -> None:
    assert allowed(256, per_atom=64) == [64, 128, 192, 256]  # heads: always aligned
    assert allowed(64, per_atom=4) == [16, 32, 48, 64]
    assert allowed(60, per_atom=3) == [12, 24, 36, 48, 60]  # steps of 4 channels, in whole atoms of 3


def test_the_narrowest_activation_counts_and_weights_do_not() -> None:
    flat = GroupAxis(value("flat", 1, 32 * 49), 1, np.repeat(np.arange(32, dtype=np.int32), 49))
    made = group("g", 32, axes=[flat])
    assert channels_per_atom(made) == 1
    assert channels_per_atom(Group("f", 32, (flat,), (), (), ())) == 49


def test_heads_count_the_channels_that_layers_make_of_them() -> None:
    """The scores have one position for a head, the layers three channels."""
    (heads,) = couple(BLOCKS["attention"]()).groups
    assert heads.heads
    assert (heads.atoms, channels_per_atom(heads)) == (4, 3)
    rule = steps(heads, 4)
    assert rule.allowed().tolist() == [4]
    assert rule.why == "multiples of 4, 3 channels at a time"
    assert steps(heads, 1).allowed().tolist() == [1, 2, 3, 4]


def test_what_is_narrower_than_an_alignment_no_target_has_stays() -> None:
    assert allowed(48, align=100) == [48]
    assert steps(group("g", 48), 100, halve=True).allowed().tolist() == [48]
    assert allowed(12, align=16) == [4, 8, 12]


def test_bounds_leave_at_least_one_width() -> None:
    assert allowed(64, least=0.5) == [32, 48, 64]
    assert allowed(64, most=0.5) == [16, 32]
    assert allowed(64, least=1.0) == [64]
    assert allowed(64, least=0.9, most=0.95) == [60]


def test_the_nearest_width_is_taken_and_the_larger_of_two() -> None:
    made = steps(group("g", 64), 16)
    assert made.nearest(np.array([0, 1, 23, 24, 25, 39, 41, 57, 64])).tolist() == [
        16, 16, 16, 32, 32, 32, 48, 64, 64,
    ]  # fmt: skip


def test_a_depthwise_convolution_is_told_by_its_weight() -> None:
    model = residual()
    assert is_depthwise(node_named(model, "depthwise"))
    assert not is_depthwise(node_named(model, "expand"))


def test_an_alignment_that_does_not_divide_the_width_still_holds() -> None:
    assert allowed(96, align=64) == [64, 96]


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(UsageError, match="--align must be at least 1"):
        steps(group("g", 8), 0)
    with pytest.raises(UsageError, match=r"to keep from 0\.8 to 0\.2 of it is no range"):
        steps(group("g", 8), 1, 0.8, 0.2)
