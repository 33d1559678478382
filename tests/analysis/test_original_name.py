# SPDX-License-Identifier: Apache-2.0
"""Which of its origins a rewritten node is called by."""

from __future__ import annotations

import pytest

from tersor.analysis.provenance import original_name

SOURCES = {"norm": "BatchNormalization", "conv": "Conv", "act": "Relu", "mul": "MatMul", "add": "Add"}


@pytest.mark.parametrize(
    ("op_type", "names", "wanted"),
    [
        ("Conv", ("norm", "conv", "act"), "conv"),
        ("Relu", ("norm", "conv", "act"), "act"),
        ("Gemm", ("add", "mul"), "mul"),
        ("Clip", ("gone", "add", "act"), "add"),
        ("Conv", ("gone",), ""),
    ],
)
def test_the_operator_decides_then_a_linear_one_then_the_first(
    op_type: str, names: tuple[str, ...], wanted: str
) -> None:
    assert original_name(op_type, names, SOURCES) == wanted
