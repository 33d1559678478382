# SPDX-License-Identifier: Apache-2.0
"""onnx-ir, imported without what it seldom needs.

It computes with symbolic dimensions through sympy, whose import takes longer than that of all the rest;
tersor never asks it to. Protobuf's text and JSON formats, which onnx imports, are for a few files only, and
some of onnx's own modules are for nobody here. So these are loaded when they are first used, by the standard
library's own means.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


class _Late(MetaPathFinder):
    """Finds the named modules as ever, and has their code run at the first use of one of their names."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


@contextmanager
def _late(*names: str) -> Generator[None]:
    """Load the named modules at their first use, if they are first imported inside the block."""
    finder = _Late(frozenset(names))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with _late(
    "sympy",
    "onnx_ir._symbolic_shapes",  # all that asks for sympy on import
    "google.protobuf.json_format",
    "google.protobuf.text_format",
    "google.protobuf.internal.python_message",  # of the protobuf without C
    "onnx.compose",
    "onnx.gen_proto",
    "onnx.utils",
):
    from onnx_ir import (
        Attr,
        AttributeType,
        DataType,
        ExternalTensor,
        Function,
        Graph,
        Model,
        Node,
        Shape,
        SymbolicDim,
        Tensor,
        TensorProtocol,
        TensorType,
        Value,
        tensor,
    )

__all__ = [
    "Attr",
    "AttributeType",
    "DataType",
    "ExternalTensor",
    "Function",
    "Graph",
    "Model",
    "Node",
    "Shape",
    "SymbolicDim",
    "Tensor",
    "TensorProtocol",
    "TensorType",
    "Value",
    "tensor",
]
