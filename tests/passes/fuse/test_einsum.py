# SPDX-License-Identifier: Apache-2.0
"""Einsum of two operands as a matrix product."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.fuse.einsum import EinsumToMatMul
from tests.support.prune_build import build
from tests.support.rewriting import declined, rewrite

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "f": 7}


def einsum(equation: str, *, weight: str = "", dynamic: str = "") -> Model:
    """Einsum of x and z, of which `weight` is constant; letters in `dynamic` are open in what is fed."""
    operands, _, result = equation.partition("->")
    first, second = operands.split(",")

    def sizes(letters: str, fed: bool) -> str:
        return ",".join(x.upper() if fed and x in dynamic else str(SIZES[x]) for x in letters)

    terms = {"x": first, "z": second}
    fed = ", ".join(f"float[{sizes(t, True)}] {n}" for n, t in terms.items() if n != weight)
    held = f"{weight} {sizes(terms[weight], False)}" if weight else ""
    rank = len(result) or 2
    y = f"float[{','.join(f'o{i}' for i in range(rank))}] y"
    model = build(f'y = Einsum<equation = "{equation}">(x, z)', held, x=fed, y=y)
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    ("equation", "ops"),
    [
        ("bc,cd->bd", ["MatMul"]),
        ("bc,cd", ["MatMul"]),
        ("bc,dc->bd", ["Transpose", "MatMul"]),
        ("abcd,abed->abce", ["Transpose", "MatMul"]),
        ("abce,abed->abcd", ["MatMul"]),
        ("aecd,abcd->acbe", ["Transpose", "Transpose", "MatMul"]),
        ("acbe,aecd->abcd", ["Transpose", "MatMul", "Transpose"]),
        ("cb,cd->bd", ["Transpose", "MatMul"]),
        ("bc,cd->db", ["Transpose", "Transpose", "MatMul"]),
        ("abc,cd->abd", ["MatMul"]),
        ("abcd,bde->abce", ["MatMul"]),
    ],
)
@pytest.mark.parametrize("dynamic", ["", "ab"])
def test_two_that_are_fed(equation: str, ops: list[str], dynamic: str) -> None:
    model = einsum(equation, dynamic=dynamic)
    assert rewrite(EinsumToMatMul(), model, A=SIZES["a"], B=SIZES["b"]).ops == ops


@pytest.mark.parametrize(
    ("equation", "weight", "ops"),
    [
        ("abc,cde->abde", "z", ["MatMul", "Reshape"]),
        ("abcd,cde->abe", "z", ["Reshape", "MatMul"]),
        ("abcd,dce->abe", "z", ["Reshape", "MatMul"]),
        ("abcd,cdef->abef", "z", ["Reshape", "MatMul", "Reshape"]),
        ("abc,cd->abd", "z", ["MatMul"]),
        ("abc,c->ab", "z", ["MatMul", "Reshape"]),
        ("cde,abc->abde", "x", ["MatMul", "Reshape"]),
        ("abc,dc->adb", "z", ["MatMul", "Transpose"]),
        ("abc,bcd->abd", "z", ["Transpose", "MatMul", "Transpose"]),
    ],
)
def test_one_that_is_constant(equation: str, weight: str, ops: list[str]) -> None:
    model = einsum(equation, weight=weight, dynamic="ab" if "bcd" not in equation.split(",")[1] else "a")
    assert rewrite(EinsumToMatMul(), model, A=SIZES["a"], B=SIZES["b"]).ops == ops


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (einsum("bb,bc->bc"), "not two operands with each letter once"),
        (einsum("ab,bc->a"), "no product of matrices"),
        (einsum("ab,cd->abcd"), "no product of matrices"),
        (einsum("b,bc->c"), "no product of matrices"),
        (einsum("abc,bcd->ad"), "several columns or summed axes"),
        (einsum("abc,cde->abde"), "several columns or summed axes"),
        (einsum("ab,bc->ac", weight="z", dynamic="b"), "sizes summed over are not known to be equal"),
    ],
)
def test_near_misses(model: Model, reason: str) -> None:
    assert declined(EinsumToMatMul(), model) == {reason}


@pytest.mark.parametrize("bias", ["5,6", "1,5,6", "1,1,5,6"])
def test_a_bias_goes_behind_the_product(bias: str) -> None:
    body = 'e = Einsum<equation = "abc,cde->abde">(x, z) y = Add(c, e)'
    model = build(body, f"z 4,5,6; c {bias}", x="float[A,B,4] x", y="float[A,B,5,6] y")
    infer_shapes(model)
    assert rewrite(EinsumToMatMul(), model, A=2, B=3).ops == ["MatMul", "Add", "Reshape"]


@pytest.mark.parametrize(
    ("shape", "bias", "reason"),
    [
        ("{0, 0, 5, 6}", "6", "a constant of other axes"),
        ("{0, 0, 5, 6}", "3,5,6", "a constant of other axes"),
        ("{0, 3, 5, 6}", "5,6", "not the last axis set apart"),
        ("{0, 0, 30, 1, 1}", "1,1", "a constant of other axes"),
        ("{0, 0, -1, 6}", "5,6", "not the last axis set apart"),
        ("{0, 0, 30}", "30", "not the last axis set apart"),
    ],
)
def test_other_sums_behind_a_reshape_stay(shape: str, bias: str, reason: str) -> None:
    rank = shape.count(",") + 1
    y = f"float[{','.join(f'o{i}' for i in range(rank))}] y"
    model = build(
        "r = Reshape(x, s) y = Add(r, c)",
        f"c {bias}",
        x="float[2,3,30] x",
        y=y,
        constants=f"int64[{rank}] s = {shape}",
    )
    infer_shapes(model)
    assert declined(EinsumToMatMul(), model) == {reason}


@pytest.mark.parametrize(
    ("body", "bias", "opset", "reason"),
    [
        ("r = Reshape(x, s) y = Add(r, c)", "1,1,1,5,6", 17, "a constant of other axes"),
        ("r = Reshape<allowzero = 1>(x, s) y = Add(r, c)", "5,6", 17, "opset below 7, or zeros for sizes"),
        ("r = Reshape(x, s) y = Add<broadcast = 1>(r, c)", "5,6", 6, "opset below 7, or zeros for sizes"),
    ],
    ids=["a higher rank", "no elements", "opset 6"],
)
def test_a_bias_that_does_more_stays(body: str, bias: str, opset: int, reason: str) -> None:
    y = f"float[{'o,' if len(bias) > 3 else ''}B,T,5,6] y"
    zeros = "int64[4] s = {0, 0, 5, 6}"
    model = build(body, f"c {bias}", x="float[A,2,30] x", y=y, constants=zeros, opset=opset)
    infer_shapes(model)
    result = rewrite(EinsumToMatMul(), model, numbers=False)
    assert (result.changed, result.reasons) == (False, {reason})


def test_integers_are_left() -> None:
    model = build(
        'y = Einsum<equation = "ab,bc->ac">(x, z)', x="int32[2,3] x, int32[3,4] z", y="int32[2,4] y"
    )
    infer_shapes(model)
    assert declined(EinsumToMatMul(), model) == {"not a float"}
