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

RUNS_OPSET_24 = ORT >= (1, 24)
"""It loads models of opset 24, so it has Swish."""

CHECKS_CONV_BIAS = ORT >= (1, 27)
"""It fuses a Conv only if the scale of the bias is near input scale times weight scale; before, always."""

RESIZES_LINEAR_IN_FLOAT = ORT >= (1, 27)
"""Resize of mode linear keeps its Q/DQ; before, it ran on int8."""

DEFINES_INFINITE_PRELU = ORT >= (1, 27)
"""PRelu of an infinity is what ONNX says; before, it is NaN."""
