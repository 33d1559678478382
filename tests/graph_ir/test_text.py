# SPDX-License-Identifier: Apache-2.0
"""The short text form, and reading ONNX text with seeded weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tersor.graph_ir import ModelError, constant, fingerprint, from_proto, parse, to_text
from tests.support.features import container_model, feature_model, function_model

TEXT = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[N,2] x, bool c) => (float[N,2] y)
<float[2] w = {1.5, -2}, float[4,4] big = {seed}, int64[1] axis = {0}> {
    h = Clip(x, , w)
    i = If(c) <then_branch = a () => (float[N,2] t) { t = Neg(h) },
        else_branch = b () => (float[N,2] e) { e = Elu<alpha = 0.5>(h) }>
    y = local.f<k = 2>(i)
}
<domain: "local", opset_import: ["" : 17]> f <k> (p) => (q) { q = Elu<alpha: float = @k>(p) }"""

PRINTED = """ir 8 opset ai.onnx 17, local 1
g (float[N,2] x, bool[] c) -> (float[N,2] y)
  float[2] w = {1.5, -2.0}
  int64[1] axis = {0}
  float[4,4] big = #8d3b1a2c
  h = Clip(x, _, w)
  i = If<else_branch=graph, then_branch=graph>(c)
    a () -> (float[N,2] t)
      t = Neg(h)
    b () -> (float[N,2] e)
      e = Elu<alpha=0.5>(h)
  y = local.f<k=2>(i)
function local.f
"""


def test_the_text_is_short_and_complete() -> None:
    lines = to_text(parse(TEXT)).splitlines()
    wanted = PRINTED.splitlines()
    assert [line for line in lines[:13] if " big " not in line] == [w for w in wanted if " big " not in w]
    assert lines[13].endswith("(? p) -> (? q)")
    assert lines[14] == "  q = Elu<alpha=@k>(p)"


@pytest.mark.parametrize("make", [feature_model, function_model, container_model])
def test_any_model_has_the_same_text_each_time(make: Callable[[], onnx.ModelProto]) -> None:
    text = to_text(from_proto(make()))
    assert text == to_text(from_proto(make()))
    assert all(node.op_type in text for node in make().graph.node)


def test_a_changed_weight_shows() -> None:
    assert to_text(parse(TEXT)) == to_text(parse(TEXT, seed=0))
    changed = set(to_text(parse(TEXT)).splitlines()) ^ set(to_text(parse(TEXT, seed=1)).splitlines())
    assert {line.split("=")[0].strip() for line in changed} == {"float[4,4] big"}


@pytest.mark.parametrize("kind", ["float", "double", "float16", "int64", "int32", "int8", "uint8"])
def test_seeded_weights_depend_on_the_seed_alone(kind: str) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\n'
    text += f"g ({kind}[3,5] x) => ({kind}[3,5] y) <{kind}[3,5] w = {{seed}}> {{ y = Add(x, w) }}"
    first, same, other = (constant(parse(text, seed).graph.initializers["w"]) for seed in (0, 0, 1))
    assert first is not None
    assert same is not None
    assert other is not None
    assert first.shape == (3, 5)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert first.dtype.name == {"float": "float32", "double": "float64"}.get(kind, kind)


def test_parse_gives_what_was_written() -> None:
    model = parse(TEXT)
    assert fingerprint(model) == fingerprint(parse(TEXT))
    assert not [v for v in model.graph[0].outputs if v.type is not None]
    assert model.graph.initializers["big"].shape == [4, 4]


ONE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x) => (float[N] y) <{0}[1] w = {{{1}}}> {{ y = Relu(x) }}"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "cannot read ONNX text"),
        (ONE.format("float", "1e400"), "cannot read ONNX text"),
        (ONE.format("int64", "9" * 20), "cannot read ONNX text"),
        (TEXT.replace("float[4,4] big", "complex64[4,4] big"), "no seeded weights of type 'complex64'"),
        (TEXT.replace("Neg(h)", "Neg(hh)"), "reads 'hh', which is not defined"),
    ],
)
def test_bad_text_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert "b'" not in str(caught.value)
