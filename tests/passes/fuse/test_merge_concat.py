# SPDX-License-Identifier: Apache-2.0
"""Concatenations of concatenations: merged where the inner one is nobody else's, and along the same axis."""

from __future__ import annotations

import pytest

from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.fuse.merge_concat import MergeConcats
from tests.support.rewriting import model_of, rewrite

STEPS = (InferShapes(), MergeConcats())


def concats(body: str, y: str = "float[A,B] y", x: str = "float[2,3] x") -> list[str]:
    done = rewrite(STEPS, model_of(body, x=x, y=y))
    return [node.op_type for node in done.model.graph if node.op_type == "Concat"]


@pytest.mark.parametrize(
    "body",
    [
        "n = Neg(x) a = Concat<axis = 1>(x, n) y = Concat<axis = 1>(a, x)",
        "n = Neg(x) a = Concat<axis = 1>(x, n) y = Concat<axis = -1>(x, a, n)",
        "n = Neg(x) a = Concat<axis = 0>(n, x) b = Concat<axis = 0>(x, n, x) y = Concat<axis = 0>(b, n, a)",
        """n = Neg(x) a = Concat<axis = 1>(n, x) b = Concat<axis = 1>(x, a) c = Concat<axis = 1>(b, n)
        y = Concat<axis = 1>(n, c)""",
    ],
)
def test_a_tree_becomes_one(body: str) -> None:
    assert concats(body) == ["Concat"]


@pytest.mark.parametrize(
    ("body", "y"),
    [
        ("a = Concat<axis = 0>(x, x) y = Concat<axis = 1>(a, a)", "float[4,6] y"),
        ("a = Concat<axis = 1>(x, x) y = Concat<axis = 1>(a, a)", "float[2,12] y"),
        ("a = Concat<axis = 1>(x, x) b = Neg(a) y = Concat<axis = 1>(a, b)", "float[2,12] y"),
        ("a = Concat<axis = 1>(x, x) y = Concat<axis = 1>(a, x)", "float[2,9] y, float[2,6] a"),
    ],
)
def test_what_is_read_elsewhere_or_along_another_axis_stays(body: str, y: str) -> None:
    assert len(concats(body, y)) == body.count("Concat")


def test_the_order_of_a_long_chain_is_kept() -> None:
    steps = " ".join(f"a{i + 1} = Concat<axis = 0>(a{i}, x)" for i in range(300))
    body = f"n = Neg(x) a0 = Concat<axis = 0>(n, x) {steps} y = Identity(a300)"
    done = rewrite(STEPS, model_of(body, x="float[2,3] x", y="float[604,3] y"))
    assert done.context.counters["merge-concat"] == 300
