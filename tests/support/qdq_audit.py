# SPDX-License-Identifier: Apache-2.0
"""Pieces of quantized graphs whose node `n` is looked at, and their audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tersor.backends.onnxruntime.audit import Audit, AuditRow, audit
from tersor.backends.onnxruntime.config import SessionConfig
from tests.support.qdq_models import ACT_SCALE, Qdq

Build: TypeAlias = "Callable[[Qdq], str | tuple[str, ...]]"
IMAGE: list[int | str] = [1, 16, 8, 8]
ROWS: list[int | str] = [4, 16]
BIAS = ACT_SCALE * 0.01


def audited(build: Build, shape: list[int | str] = IMAGE, off: tuple[str, ...] = ()) -> Audit:
    graph = Qdq(shape)
    made = build(graph)
    return audit(graph.model(*((made,) if isinstance(made, str) else made)), SessionConfig({}, off))


def row_of(report: Audit, node: str = "n") -> AuditRow:
    return next(row for row in report.rows if row.node == node)


def conv(g: Qdq, source: str | None = None, **knobs: Any) -> str:
    return g.conv(source or g.qdq("x"), 16, 16, name="n", **knobs)


def gemm(g: Qdq, *, bias: str | None, **attrs: Any) -> str:
    extra = [bias] if bias else []
    return g.op("Gemm", g.qdq("x"), g.weight((16, 16), axis=1), *extra, name="n", **attrs)


def matmul(g: Qdq, axis: int = 1, source: str | None = None) -> str:
    return g.op("MatMul", source or g.qdq("x"), g.weight((16, 16), axis=axis), name="n")


def also(g: Qdq, op_type: str, tensor: str) -> tuple[str, str]:
    return g.qdq(tensor), g.op(op_type, tensor)


def forked(g: Qdq, tensor: str) -> tuple[str, str]:
    return g.op("Exp", tensor), g.op("Tanh", tensor)
