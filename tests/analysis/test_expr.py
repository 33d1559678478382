# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of dims against Python's integers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.analysis import expr
from tersor.analysis.expr import Dim

N, H = expr.symbol("N"), expr.symbol("H")


def truncated(a: int, b: int) -> int:
    return int(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


OPS: dict[str, tuple[Callable[[Dim, Dim], Dim | bool], Callable[[int, int], int]]] = {
    "add": (expr.add, lambda a, b: a + b),
    "sub": (expr.sub, lambda a, b: a - b),
    "mul": (expr.mul, lambda a, b: a * b),
    "div": (expr.div, truncated),
    "mod": (expr.mod, lambda a, b: a % b),
    "fmod": (lambda a, b: expr.mod(a, b, fmod=True), lambda a, b: a - b * truncated(a, b)),
    "min": (expr.minimum, min),
    "max": (expr.maximum, max),
    "equal": (expr.equal, lambda a, b: int(a == b)),
    "less": (expr.less, lambda a, b: int(a < b)),
}
leaf = st.one_of(st.integers(-4, 9), st.sampled_from(["N", "H"]))
tree = st.recursive(leaf, lambda kid: st.tuples(st.sampled_from(sorted(OPS)), kid, kid), max_leaves=7)


def both(node: object, sizes: dict[str, int]) -> tuple[Dim, int]:
    """The symbolic result (None when given up) and the number."""
    if isinstance(node, int):
        return node, node
    if isinstance(node, str):
        return expr.symbol(node), sizes[node]
    assert isinstance(node, tuple)
    name, left, right = node  # pyright: ignore[reportUnknownVariableType]
    (a, x), (b, y) = both(left, sizes), both(right, sizes)  # pyright: ignore[reportUnknownArgumentType]
    symbolic, real = OPS[str(name)]  # pyright: ignore[reportUnknownArgumentType]
    if y == 0 and name in ("div", "mod", "fmod"):
        raise ZeroDivisionError
    found = symbolic(a, b)
    return (int(found) if isinstance(found, bool) else found), real(x, y)


@given(tree, st.integers(0, 7), st.integers(0, 7))
def test_every_known_result_is_the_number(node: object, n: int, h: int) -> None:
    sizes = {"N": n, "H": h}
    try:
        symbolic, real = both(node, sizes)
    except ZeroDivisionError:
        return
    if symbolic is not None:
        assert expr.evaluate(symbolic, sizes) == real


@given(st.integers(-30, 30), st.integers(1, 6), st.integers(1, 6), st.integers(-5, 5), st.integers(0, 40))
def test_nested_floors_join_exactly(shift: int, first: int, second: int, between: int, n: int) -> None:
    inner = expr.floor_div(expr.add(N, shift), first)
    outer = expr.floor_div(expr.add(inner, between), second)
    assert expr.evaluate(outer, {"N": n}) == ((n + shift) // first + between) // second


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (expr.div(expr.mul(N, 8), 8), "N"),
        (expr.div(expr.mul(expr.mul(N, H), 12), expr.mul(H, 4)), "3*N"),
        (expr.sub(expr.add(N, 3), 3), "N"),
        (expr.ceil_div(N, 2), "floor((N + 1)/2)"),
        (expr.mod(expr.mul(N, 6), 3), "0"),
        (expr.maximum(expr.add(N, 2), N), "N + 2"),
        (expr.equal(N, -1), "False"),
        (expr.minimum(N, 5), "min(N, 5)"),
        (expr.maximum(expr.minimum(N, 5), N), "N"),
        (expr.less(5, expr.minimum(N, 5)), "False"),
        (expr.mul(expr.sub(N, 2), expr.add(H, 1)), "H*N - 2*H + N - 2"),
    ],
)
def test_simplifies_what_shape_arithmetic_makes(found: Dim, wanted: str) -> None:
    assert str(found) == wanted


@pytest.mark.parametrize(
    "found",
    [
        expr.div(expr.sub(N, 3), 2),  # truncation and floor differ below zero
        expr.div(H, N),
        expr.minimum(expr.sub(N, 3), 5),  # may be below zero, which no named size is
        expr.equal(N, 0),
        expr.mod(expr.sub(N, 3), 2, fmod=True),
        expr.less(N, H),
    ],
)
def test_gives_up_where_no_proof_exists(found: Dim) -> None:
    assert found is None


def test_the_least_and_the_quotient_of_the_same_two_differ() -> None:
    gap = expr.sub(expr.minimum(N, 4), expr.div(N, 4))
    assert [expr.evaluate(gap, {"N": n}) for n in (0, 1, 4, 20)] == [0, 1, 3, -1]


def test_a_sum_of_many_that_are_cut_off_is_told_at_once() -> None:
    """Each may be replaced by either of its two bounds, which are 32 thousand ways."""
    names = [expr.symbol(f"n{index}") for index in range(15)]
    cut = expr.total(expr.minimum(name, 4) for name in names)
    assert expr.less(cut, 61) is True
    assert expr.less(cut, 60) is None
    few = expr.total(expr.minimum(name, 4) for name in names[:8])
    assert expr.less(expr.total(names[:8]), few) is False
    assert expr.less(expr.total(names[1:8]), few) is None


@pytest.mark.parametrize("grow", [expr.mul, expr.add], ids=["squares", "doubles"])
def test_what_grows_without_end_is_given_up(grow: Callable[[Dim, Dim], Dim]) -> None:
    sizes: list[Dim] = [N, 3, expr.add(N, H)]
    for _ in range(200):
        sizes = [grow(size, size) for size in sizes]
    assert sizes == [None, None, None]
    assert expr.add(2**63 - 1, 1) is None  # runtimes wrap it
    assert expr.sub(-(2**63) + 1, 1) == -(2**63)
