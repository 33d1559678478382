# SPDX-License-Identifier: Apache-2.0
"""MatMul and Gemm, groups that fuse into wrong numbers, and optimizers that are switched off."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.qdq_audit import BIAS, IMAGE, ROWS, Build, also, audited, conv, gemm, matmul, row_of
from tests.support.runtime import MATMUL_MISREAD

MATRIX_FUSED: dict[str, tuple[Build, str]] = {
    "matmul": (lambda g: g.qdq(matmul(g)), "QLinearMatMul"),
    "matmul into float": (lambda g: g.op("Tanh", matmul(g)), "MatMulIntegerToFloat"),
    "gemm into float": (lambda g: g.op("Tanh", gemm(g, bias=g.bias(16))), "QGemm"),
    "gemm with float bias and quantizer": (
        lambda g: g.qdq(gemm(g, bias=g.const(np.ones(16, np.float32)))),
        "QGemm",
    ),
    "matmul and int32 bias": (
        lambda g: g.op("Tanh", g.op("Add", matmul(g), g.bias(16), name="add")),
        "QGemm",
    ),
}

MATRIX_FLOAT: dict[str, tuple[Build, str]] = {
    "gemm with float bias into float": (
        lambda g: g.op("Tanh", gemm(g, bias=g.const(np.ones(16, np.float32)))),
        "float-bias",
    ),
    "gemm with beta": (lambda g: g.qdq(gemm(g, bias=g.bias(16), beta=2.0)), "gemm-scaling"),
    "gemm with a fork": (lambda g: also(g, "Tanh", gemm(g, bias=g.bias(16))), "forked-output"),
    "matmul with a fork": (lambda g: also(g, "Tanh", matmul(g)), "forked-output"),
    "the MatMulAddFusion trap": (
        lambda g: g.op("Tanh", g.op("Add", matmul(g), g.const(np.ones(16, np.float32)), name="add")),
        "matmul-add-fusion",
    ),
}

MISREAD: dict[str, tuple[Build, list[int | str], str]] = {
    "conv scales along the input channels": (
        lambda g: g.qdq(
            g.op("Conv", g.qdq("x"), g.weight((16, 16, 3, 3), axis=1), name="n", kernel_shape=[3, 3])
        ),
        IMAGE,
        "wrong-axis",
    ),
    "conv bias off by one percent": (
        lambda g: g.qdq(conv(g, bias=g.bias(16, scale=BIAS * 1.01))),
        IMAGE,
        "bias-scale",
    ),
    "conv with a float weight": (
        lambda g: g.qdq(
            g.op(
                "Conv",
                g.qdq("x"),
                g.const(np.ones((16, 16, 3, 3), np.float32)),
                name="n",
                kernel_shape=[3, 3],
            )
        ),
        IMAGE,
        "weight-requantized",
    ),
    "gemm bias scale": (lambda g: g.qdq(gemm(g, bias=g.bias(16, scale=BIAS * 1.5))), ROWS, "bias-scale"),
}


@pytest.mark.parametrize("case", MATRIX_FUSED)
def test_matrix_product_ends_in_an_int8_kernel(case: str) -> None:
    build, kernel = MATRIX_FUSED[case]
    row = row_of(audited(build, ROWS))
    assert (row.precision, row.kernel, row.code) == ("int8", kernel, "")


@pytest.mark.parametrize("case", MATRIX_FLOAT)
def test_matrix_product_stays_float(case: str) -> None:
    build, code = MATRIX_FLOAT[case]
    report = audited(build, ROWS)
    row = row_of(report)
    assert (row.precision, row.code) == ("float", code), row.reason
    assert any("n" in leftover.readers for leftover in report.leftovers)


@pytest.mark.parametrize("case", MISREAD)
def test_fused_but_wrong_is_called_out(case: str) -> None:
    build, shape, code = MISREAD[case]
    report = audited(build, shape)
    row = row_of(report)
    assert (row.precision, row.code, row.misread) == ("int8", code, True)
    assert report.misread == (row,)


def test_scales_along_k_are_called_out() -> None:
    """From 1.32 on, onnxruntime leaves such a product float; before, it took the scales for another axis'."""
    report = audited(lambda g: g.qdq(matmul(g, axis=0)), ROWS)
    row = row_of(report)
    assert (row.precision, row.code) == ("int8" if MATMUL_MISREAD else "float", "wrong-axis")
    assert report.misread == ((row,) if MATMUL_MISREAD else ())


def test_switching_an_optimizer_off_is_seen() -> None:
    build, _ = MATRIX_FLOAT["the MatMulAddFusion trap"]
    row = row_of(audited(build, ROWS, off=("MatMulAddFusion",)))
    assert (row.precision, row.kernel) == ("int8", "MatMulIntegerToFloat")
    build, _, _ = MISREAD["conv with a float weight"]
    row = row_of(audited(build, off=("WeightBiasQuantization",)))
    assert (row.precision, row.code) == ("float", "float-weight")
