# SPDX-License-Identifier: Apache-2.0
"""Random graphs through every clean pass: numbers, signature, and a second run that changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.graph_ir import from_proto, load, parse, save, signature_of, to_proto, to_text, verify
from tersor.passes import catalog
from tersor.passes.base import Context, Exactness
from tests.support.numerics import assert_bitwise, assert_rounding, feeds_for, snapshot

CLEAN = (
    "inline", "inline-constant-if", "eliminate-identity", "eliminate-no-ops", "fold-shapes", "fold-constants",
    "dedup-weights", "cse", "eliminate-dead-code",
)  # fmt: skip
UNARY = ("Neg", "Abs", "Relu", "Identity", "Dropout")
BINARY = ("Add", "Sub", "Mul", "Max")
WEIGHTS = {"k1": "{1, 1}", "k2": "{1, 1}", "k3": "{0.5, -2}", "z": "{0, 0}", "free": "{1, 1}"}


def _line(draw: Any, name: str, values: list[str], depth: int) -> str:
    """One node that makes `name` of values in sight."""

    def pick() -> str:
        return draw(st.sampled_from([*values, *WEIGHTS]))

    kind = draw(st.sampled_from(["unary", "binary", "constant", "shape", "call", "if"][: 6 if depth else 5]))
    if kind == "unary":
        return f"{name} = {draw(st.sampled_from(UNARY))}({pick()})"
    if kind == "binary":
        return f"{name} = {draw(st.sampled_from(BINARY))}({pick()}, {pick()})"
    if kind == "constant":
        return f"{name} = Constant<value = float[2] {{{draw(st.sampled_from(['1, 1', '0, 2']))}}}>()"
    if kind == "shape":
        return f"{name}_s = Shape({pick()})\n {name} = Expand({pick()}, {name}_s)"
    if kind == "call":
        return f"{name} = local.{draw(st.sampled_from(['f', 'g']))}({pick()})"
    bodies: list[str] = []
    for branch in ("then", "else"):
        inner = list(values)
        lines: list[str] = []
        for index in range(draw(st.integers(1, 3))):
            inner_name = f"{name}_{branch}{index}"
            lines.append(_line(draw, inner_name, inner, depth - 1))
            inner.append(inner_name)
        bodies.append(f"{branch}_branch = {branch} () => (float[2] {inner[-1]}) {{ {chr(10).join(lines)} }}")
    return f"{name} = If({draw(st.sampled_from(['c', 'yes', 'no']))}) <{', '.join(bodies)}>"


FUNCTIONS = """
<domain: "local", opset_import: ["" : {0}, "local" : 1]> f (u) => (w) {{ a = Relu(u)\n w = Neg(a) }}
<domain: "local", opset_import: ["" : {0}, "local" : 1]> g (u) => (w) {{ a = local.f(u)\n b = local.f(u)
    w = Add(a, b) }}"""


@st.composite
def models(draw: Any) -> onnx.ModelProto:
    """Up to ten nodes with constants, equal weights, bodies, calls; any value may be an output."""
    opset = draw(st.sampled_from([9, 13, 17, 21]))
    values, lines = ["x"], list[str]()
    for index in range(draw(st.integers(1, 10))):
        lines.append(_line(draw, f"v{index}", values, 2))
        values.append(f"v{index}")
    outputs = [values[-1], *draw(st.lists(st.sampled_from(values[1:]), max_size=2, unique=True))]
    outputs = list(dict.fromkeys(outputs))
    weights = ", ".join(f"float[2] {name} = {data}" for name, data in WEIGHTS.items())
    text = f"""<ir_version: 8, opset_import: ["" : {opset}, "local" : 1]>
        g (float[2] x, bool c, float[2] free) => ({", ".join(f"float[2] {o}" for o in outputs)})
        <{weights}, bool yes = {{1}}, bool no = {{0}}> {{ {chr(10).join(lines)} }}{FUNCTIONS.format(opset)}"""
    return to_proto(parse(text))


@pytest.mark.parametrize("name", CLEAN)
@given(proto=models())
@settings(max_examples=40)
def test_each_pass_alone(name: str, proto: onnx.ModelProto) -> None:
    _check((name,), proto)


@given(proto=models())
@settings(max_examples=60)
def test_all_of_them_after_inference(proto: onnx.ModelProto) -> None:
    _check(("infer-shapes", *CLEAN, "infer-shapes", *CLEAN), proto)


def _check(names: tuple[str, ...], proto: onnx.ModelProto) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    model, context = from_proto(copy), Context()
    signature = signature_of(model)
    exact = True
    for name in names:
        item = catalog.get(name)()
        exact = exact and item.exact is Exactness.BITWISE
        changed = item.run(model, context)
        verify(model, signature)
        text = to_text(model)
        if name != "infer-shapes":
            assert changed or name not in names[:1] or snapshot(model) == proto
        assert not item.run(model, context), f"a second run of {name} changes the model"
        assert to_text(model) == text
    after = snapshot(model)
    onnx.checker.check_model(after)
    judge = assert_bitwise if exact else assert_rounding
    for seed in (0, 1, 2):
        feed = feeds_for(proto, seed)
        judge(proto, after, feed)
        if exact:
            judge(proto, after, {**feed, "free": feed["x"]})


def test_saved_and_loaded_between_passes_gives_the_same(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
        a = Neg(w)\n b = Neg(w)\n d = Add(a, b)\n e = Identity(d)\n y = Mul(x, e) }"""
    straight, stored = parse(text), parse(text)
    for name in CLEAN:
        catalog.get(name)().run(straight, Context())
        catalog.get(name)().run(stored, Context())
        save(stored, tmp_path / "m.onnx")
        stored = load(tmp_path / "m.onnx")
    assert to_text(straight) == to_text(stored)
