# SPDX-License-Identifier: Apache-2.0
# What the bridge and surgery scripts use of onnx-graphsurgeon, which ships no types. Written from what it
# shows when asked (dir, inspect.signature, the attributes of objects). A name missing here is not used yet.

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

# A numpy type, or the number of an ONNX element type that numpy does not have.
_DType: TypeAlias = np.dtype[Any] | type[np.generic] | int

class OnnxGraphSurgeonException(Exception): ...

class Tensor:
    name: str
    # The nodes that make this tensor (at most one) and those that read it; kept in step with the nodes.
    inputs: list[Node]
    outputs: list[Node]
    dtype: _DType | None
    shape: Sequence[int | str | None] | None
    def is_empty(self) -> bool: ...
    def i(self, tensor_idx: int = 0, producer_idx: int = 0) -> Tensor: ...
    def o(self, consumer_idx: int = 0, tensor_idx: int = 0) -> Tensor: ...

class Variable(Tensor):
    type: str
    def __init__(
        self,
        name: str,
        dtype: _DType | None = None,
        shape: Sequence[int | str | None] | None = None,
        type: str = "tensor_type",
    ) -> None: ...
    @staticmethod
    def empty() -> Variable: ...
    def copy(self) -> Variable: ...
    def to_constant(self, values: NDArray[Any], export_dtype: _DType | None = None) -> Constant: ...

class Constant(Tensor):
    values: NDArray[Any]
    data_location: int | None
    export_dtype: _DType | None
    def __init__(
        self,
        name: str,
        values: NDArray[Any],
        data_location: int | None = None,
        export_dtype: _DType | None = None,
    ) -> None: ...
    def copy(self) -> Constant: ...
    def to_variable(
        self, dtype: _DType | None = None, shape: Sequence[int | str | None] = []
    ) -> Variable: ...

class Node:
    op: str
    name: str
    attrs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    domain: str | None
    def __init__(
        self,
        op: str,
        name: str | None = None,
        attrs: dict[str, Any] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
        domain: str | None = None,
    ) -> None: ...
    def i(self, tensor_idx: int = 0, producer_idx: int = 0) -> Node: ...
    def o(self, consumer_idx: int = 0, tensor_idx: int = 0) -> Node: ...

class Graph:
    nodes: list[Node]
    inputs: list[Tensor]
    outputs: list[Tensor]
    name: str
    doc_string: str
    opset: int
    import_domains: Sequence[onnx.OperatorSetIdProto] | None
    producer_name: str
    producer_version: str
    ir_version: int | None
    def __init__(
        self,
        nodes: Sequence[Node] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
        name: str | None = None,
        doc_string: str | None = None,
        opset: int | None = None,
        import_domains: Sequence[onnx.OperatorSetIdProto] | None = None,
        producer_name: str | None = None,
        producer_version: str | None = None,
        functions: Sequence[Function] | None = None,
        ir_version: int | None = None,
    ) -> None: ...
    @property
    def functions(self) -> list[Function]: ...
    def cleanup(
        self,
        remove_unused_node_outputs: bool = False,
        recurse_subgraphs: bool = True,
        remove_unused_graph_inputs: bool = False,
        recurse_functions: bool = True,
    ) -> Graph: ...
    def copy(self, tensor_map: dict[str, Tensor] | None = None) -> Graph: ...
    def fold_constants(
        self,
        fold_shapes: bool = True,
        recurse_subgraphs: bool = True,
        partitioning: Literal["basic", "recursive"] | None = None,
        error_ok: bool = True,
        flatten_subgraphs: bool = True,
        size_threshold: int | None = None,
        should_exclude_node: Callable[[Node], bool] | None = None,
        recurse_functions: bool = True,
    ) -> Graph: ...
    def tensors(self, check_duplicates: bool = False) -> dict[str, Tensor]: ...
    def toposort(
        self,
        recurse_subgraphs: bool = True,
        recurse_functions: bool = True,
        mode: Literal["full", "nodes", "functions"] = "full",
    ) -> Graph: ...

class Function(Graph):
    domain: str
    attrs: dict[str, Any]
    @property
    def unique_id(self) -> tuple[str, str]: ...

def import_onnx(onnx_model: onnx.ModelProto) -> Graph: ...
def export_onnx(graph: Graph, do_type_check: bool = True, **kwargs: Any) -> onnx.ModelProto: ...
