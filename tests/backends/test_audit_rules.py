# SPDX-License-Identifier: Apache-2.0
"""Each fusion rule broken alone: what onnxruntime really does, and the reason that the audit gives."""

from __future__ import annotations

import platform
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.qdq_audit import BIAS, Build, also, audited, conv, forked, row_of
from tests.support.qdq_models import Qdq
from tests.support.runtime import CHECKS_CONV_BIAS, RESIZES_LINEAR_IN_FLOAT


def clip(g: Qdq, tensor: str, low: float, high: float) -> str:
    return g.op("Clip", tensor, g.const(np.float32(low)), g.const(np.float32(high)), name="clamp")


def shared_quantizer(g: Qdq) -> tuple[str, str]:
    tensor = conv(g)
    first, params = g.q(tensor)
    second, _ = g.q(tensor, params=params)
    return g.op("Exp", g.dq(first, params)), g.op("Tanh", g.dq(second, params))


def both(tensor: str, through: Callable[[str], str]) -> tuple[str, str]:
    return tensor, through(tensor)


def two_scales(g: Qdq) -> tuple[str, str]:
    tensor = conv(g)
    return g.qdq(tensor), g.qdq(tensor, scale=0.1)


def equal_quantizers(g: Qdq) -> tuple[str, str]:
    tensor = conv(g)
    return g.op("Exp", g.qdq(tensor)), g.op("Tanh", g.qdq(tensor))


def signed_fork(g: Qdq) -> tuple[str, str]:
    source = g.qdq("x", dtype=np.int8)
    return g.qdq(conv(g, source), dtype=np.int8), g.op("Exp", source)


FUSED: dict[str, tuple[Build, str]] = {
    "conv": (lambda g: g.qdq(conv(g)), "QLinearConv"),
    "conv with float bias": (
        lambda g: g.qdq(conv(g, bias=g.const(np.ones(16, np.float32)))),
        "QLinearConv",
    ),
    "one quantizer read twice": (
        lambda g: forked(g, g.qdq(conv(g))),
        "QLinearConv",
    ),
    "two quantizers of the same initializers": (shared_quantizer, "QLinearConv"),
    "relu at zero point 0": (lambda g: g.qdq(g.op("Relu", conv(g))), "QLinearConv"),
    "relu6 with range 0 to 6": (lambda g: g.qdq(clip(g, conv(g), 0, 6), scale=6 / 255), "QLinearConv"),
    "bias scale off by 1e-4": (lambda g: g.qdq(conv(g, bias=g.bias(16, scale=BIAS * 1.0001))), "QLinearConv"),
    "signed activation without fork": (
        lambda g: g.qdq(conv(g, g.qdq("x", dtype=np.int8)), dtype=np.int8),
        "QLinearConv",
    ),
    "unsigned weight": (lambda g: g.qdq(conv(g, w_dtype=np.uint8)), "QLinearConv"),
    "add": (lambda g: g.qdq(g.op("Add", g.qdq("x"), g.qdq("x", scale=0.1), name="n")), "QLinearAdd"),
    "max pool of equal parameters": (
        lambda g: g.qdq(g.op("MaxPool", g.qdq("x"), name="n", kernel_shape=[2, 2])),
        "MaxPool",
    ),
    "max pool before a float reader": (
        lambda g: g.op("Tanh", g.op("MaxPool", g.qdq("x"), name="n", kernel_shape=[2, 2])),
        "MaxPool",
    ),
}

FLOAT: dict[str, tuple[Build, str]] = {
    "also a graph output": (lambda g: both(conv(g), g.qdq), "graph-output"),
    "ends the graph": (conv, "graph-output"),
    "no quantizer": (lambda g: g.op("Tanh", conv(g)), "no-quantizer"),
    "fork into float": (lambda g: also(g, "Exp", conv(g)), "forked-output"),
    "two scales": (two_scales, "several-quantizers"),
    "equal scales in separate initializers": (
        equal_quantizers,
        "several-quantizers",
    ),
    "relu at zero point 128": (lambda g: g.qdq(g.op("Relu", conv(g)), zero=128), "relu-kept"),
    "relu6 with a wider range": (lambda g: g.qdq(clip(g, conv(g), 0, 6)), "relu-kept"),
    "float input": (lambda g: g.qdq(conv(g, g.op("Tanh", "x"))), "float-input"),
    "unsigned in, signed out with fork": (
        lambda g: forked(g, g.qdq(conv(g), dtype=np.int8)),
        "type-mismatch",
    ),
    "transposed conv": (
        lambda g: g.qdq(g.op("ConvTranspose", g.qdq("x"), g.weight((16, 16, 3, 3)), name="n")),
        "no-int8-kernel",
    ),
}

FLOAT_ELEMENTWISE: dict[str, tuple[Build, str]] = {
    "hard swish": (lambda g: g.qdq(g.op("HardSwish", g.qdq("x"), name="n")), "no-int8-kernel"),
    "add of a float": (
        lambda g: g.qdq(g.op("Add", g.qdq("x"), g.op("Tanh", "x"), name="n")),
        "float-input",
    ),
    "add of a float constant": (
        lambda g: g.qdq(g.op("Add", g.qdq("x"), g.const(np.ones((16, 1, 1), np.float32)), name="n")),
        "float-constant",
    ),
    "concat of a float": (
        lambda g: g.qdq(g.op("Concat", g.qdq("x"), g.op("Tanh", "x"), name="n", axis=1)),
        "float-input",
    ),
    "sigmoid without quantizer": (
        lambda g: g.op("Tanh", g.op("Sigmoid", g.qdq("x"), name="n")),
        "no-quantizer",
    ),
    "pool between different parameters": (
        lambda g: g.qdq(g.op("MaxPool", g.qdq("x"), name="n", kernel_shape=[2, 2]), scale=0.02),
        "params-differ",
    ),
    "depth to space without quantizer": (
        lambda g: g.op("Tanh", g.op("DepthToSpace", g.qdq("x"), name="n", blocksize=2)),
        "no-quantizer",
    ),
    "relu alone at zero point 128": (
        lambda g: g.qdq(g.op("Relu", g.qdq("x"), name="n"), zero=128),
        "relu-kept",
    ),
}


@pytest.mark.parametrize("case", FUSED)
def test_kept_rule_ends_in_an_int8_kernel(case: str) -> None:
    build, kernel = FUSED[case]
    report = audited(build)
    row = row_of(report)
    assert (row.precision, row.kernel, row.code) == ("int8", kernel, "")
    assert not report.leftovers


@pytest.mark.parametrize("case", FLOAT)
def test_broken_rule_leaves_the_conv_float_with_its_weight_dequantized(case: str) -> None:
    build, code = FLOAT[case]
    report = audited(build)
    row = row_of(report)
    assert (row.precision, row.code) == ("float", code), row.reason
    assert report.linear_int8 == 0
    assert any("n" in leftover.readers for leftover in report.leftovers)


@pytest.mark.parametrize("case", FLOAT_ELEMENTWISE)
def test_broken_rule_leaves_the_node_float(case: str) -> None:
    build, code = FLOAT_ELEMENTWISE[case]
    report = audited(build)
    row = row_of(report)
    assert (row.precision, row.code) == ("float", code), row.reason
    assert not report.leftovers


def test_bias_scale_off_by_half_is_float_or_misread() -> None:
    report = audited(lambda g: g.qdq(conv(g, bias=g.bias(16, scale=BIAS * 1.5))))
    row = row_of(report)
    assert row.code == "bias-scale"
    assert row.precision == ("float" if CHECKS_CONV_BIAS else "int8")
    assert bool(report.leftovers) == CHECKS_CONV_BIAS
    assert report.misread == (() if CHECKS_CONV_BIAS else (row,))


def test_linear_resize_is_float_unless_the_runtime_is_old() -> None:
    def build(g: Qdq) -> str:
        scales = g.const(np.array([1, 1, 2, 2], np.float32))
        return g.qdq(g.op("Resize", g.qdq("x"), "", scales, name="n", mode="linear"))

    report = audited(build)
    row = row_of(report)
    expected = ("float", "no-int8-kernel") if RESIZES_LINEAR_IN_FLOAT else ("int8", "")
    assert (row.precision, row.code) == expected, row.reason
    assert not report.leftovers


def test_absorbed_relu_is_gone_and_kept_relu_is_float() -> None:
    gone = row_of(audited(lambda g: g.qdq(g.op("Relu", conv(g), name="r"))), "r")
    assert (gone.precision, gone.kernel) == ("gone", "")
    kept = row_of(audited(lambda g: g.qdq(g.op("Relu", conv(g), name="r"), zero=128)), "r")
    assert (kept.precision, kept.code) == ("float", "relu-kept")


@pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686"},
    reason="only x86 has no kernels for int8 activations",
)
def test_signed_activation_with_fork_stays_float_on_x86() -> None:
    report = audited(signed_fork)
    row = row_of(report)
    assert (row.precision, row.code) == ("float", "signed-activation"), row.reason
    assert {leftover.readers for leftover in report.leftovers} == {("n",)}
