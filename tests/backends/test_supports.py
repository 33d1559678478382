# SPDX-License-Identifier: Apache-2.0
"""What the runtime's registries say about single nodes, and that sessions agree."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from tersor.backends.base import BackendError
from tersor.backends.onnxruntime.session import OrtSession
from tersor.backends.onnxruntime.supports import refusals, supports
from tersor.graph_ir import from_proto

IMPORTS = '<ir_version: 9, opset_import: ["": 20, "com.microsoft": 1, "my": 1]>'

GOOD = {
    "conv": "(float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,4,8,8] y) { y = Conv(x, w) }",
    "function": "(float[4] x) => (float[4] y) { y = HardSwish(x) }",
    "contrib": "(float[4] x) => (float[4] y) { y = com.microsoft.FastGelu(x) }",
    "variadic": "(float[4] x) => (float[16] y) { y = Concat<axis=0>(x, x, x, x) }",
    "half through float": "(float16[4] x) => (float16[4] y) { y = HardSigmoid(x) }",
    "optional input left out": "(float[4] x, float top) => (float[4] y) { y = Clip(x, , top) }",
    "sequence": "(seq(float[4]) x) => (int64 y) { y = SequenceLength(x) }",
}
BAD = {
    "unknown": ("(float[4] x) => (float[4] y) { y = Foo(x) }", "no operator that this onnxruntime knows"),
    "custom": ("(float[4] x) => (float[4] y) { y = my.Bar(x) }", "domain 'my' is a custom operator"),
    "newer": (
        "(float[4] x, float[4] w) => (float[4] y) { y = RMSNormalization(x, w) }",
        "not exist yet in opset 20",
    ),
    "dtype": (
        "(double[4] x) => (double[4] y) { y = HardSigmoid(x) }",
        "no CPU kernel for HardSigmoid on double",
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_supported_and_a_session_agrees(case: str) -> None:
    proto = onnx.parser.parse_model(f"{IMPORTS} g {GOOD[case]}")
    (node,) = from_proto(proto).graph
    assert supports(node), supports(node).reason
    OrtSession(proto, threads=1).close()


@pytest.mark.parametrize("case", BAD)
def test_refused_with_a_reason_and_a_session_agrees(case: str, tmp_path: Path) -> None:
    body, reason = BAD[case]
    proto = onnx.parser.parse_model(f"{IMPORTS} g {body}")
    model = from_proto(proto)
    (node,) = model.graph
    answer = supports(node)
    assert not answer
    assert reason in answer.reason
    assert refusals(model) == [(f"{node.op_type}(y)", answer.reason)]
    onnx.save(proto, path := tmp_path / "m.onnx")
    with pytest.raises(
        BackendError, match=re.escape(f"it cannot run node '{node.op_type}(y)': {answer.reason}")
    ):
        OrtSession(path, threads=1)


def test_calls_of_the_models_own_functions_are_no_refusals() -> None:
    proto = onnx.parser.parse_model(
        f"{IMPORTS} g (float[4] x) => (float[4] y) {{ y = my.twice(x) }} "
        '<domain: "my", opset_import: ["": 20]> twice (a) => (b) { b = Add(a, a) }'
    )
    assert refusals(from_proto(proto)) == []


def test_nodes_in_a_body_are_judged_at_the_models_opset() -> None:
    proto = onnx.parser.parse_model(
        f"{IMPORTS} g (bool c, float[4] x) => (float[4] y) {{ "
        "y = If (c) <then_branch = t () => (float[4] a) { a = Foo(x) }, "
        "else_branch = e () => (float[4] b) { b = Neg(x) }> }"
    )
    assert [name for name, _ in refusals(from_proto(proto))] == ["Foo(a)"]
