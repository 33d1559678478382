# SPDX-License-Identifier: Apache-2.0
"""Which onnx and onnxruntime the tests run with, for what differs between their releases."""

from __future__ import annotations

from typing import TypeAlias

import onnx
import onnxruntime

Version: TypeAlias = "tuple[int, int]"


def _version(text: str) -> Version:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


ONNX = _version(onnx.__version__)
ORT = _version(onnxruntime.__version__)

PRINTS_EVERY_BIT = ONNX >= (1, 23)
"""Its text holds each float exactly; before, it rounds or cannot read what it wrote."""

NORMALISES_ONE = ORT >= (1, 24)
"""It runs a LayerNormalization over one number; before, it refuses."""

GROUPS_QUERIES = ORT >= (1, 24)
"""ONNX's Attention is right where several heads of queries share one of keys; before, it is not."""

RUNS_OPSET_24 = ORT >= (1, 24)
"""It loads models of opset 24, so it has Swish."""

FUSES_NARROW_WEIGHTS = ORT >= (1, 25)
"""It makes MatMulNBits behind any blocked DequantizeLinear; before, only of a MatMul of 4 bits, no bias."""

CHECKS_CONV_BIAS = ORT >= (1, 27)
"""It fuses a Conv only if the scale of the bias is near input scale times weight scale; before, always."""

RESIZES_LINEAR_IN_FLOAT = ORT >= (1, 27)
"""Resize of mode linear keeps its Q/DQ; before, it ran on int8."""

RESIZES_NEGATIVE_AXES = ORT >= (1, 27)
"""Resize takes axes that count from the end; before, it refuses them as it runs."""

DEFINES_INFINITE_PRELU = ORT >= (1, 27)
"""PRelu of an infinity is what ONNX says; before, it is NaN."""

MATMUL_MISREAD = ORT < (1, 32)
"""It takes scales of a product's weight along K for scales along N; since, it leaves such a product float."""
