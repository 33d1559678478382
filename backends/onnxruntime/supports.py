# SPDX-License-Identifier: Apache-2.0
"""Whether onnxruntime on CPU can run a node, asked of its own registries of operators and kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from ...graph_ir import Model, Node, TensorType
from ...graph_ir.ops import label, walk_nodes
from ..base import Support
from .runtime import PROVIDER, runtime

_STANDARD = frozenset({"", "ai.onnx"})
# The runtime puts Cast nodes around float16 nodes with a float32 kernel only (InsertCastTransformer).
_THROUGH_FLOAT = {"tensor(float16)": "tensor(float)"}


@dataclass(frozen=True)
class _Kernel:
    first: int
    last: int
    types: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class _Schema:
    since: int
    type_names: tuple[str, ...]  # per input: a type constraint's name, or a type
    variadic: bool


@dataclass
class _Operator:
    schemas: list[_Schema] = field(default_factory=list["_Schema"])
    kernels: list[_Kernel] = field(default_factory=list["_Kernel"])


def supports(node: Node, opsets: Mapping[str, int] | None = None) -> Support:
    """Whether a node runs: its operator is registered at the opset, and a CPU kernel takes its dtypes.

    Args:
        node: its inputs' dtypes are judged where they are known.
        opsets: version by domain; by default those of the node's graph, else the newest version is taken.

    A node that calls a function of its own model is for `refusals` to judge, which sees the model.
    """
    domain = "" if node.domain in _STANDARD else node.domain
    operator = _registry().get((domain, node.op_type))
    if operator is None or not operator.schemas:
        return _unknown(domain, node.op_type)
    version = _version(node, domain, opsets)
    fitting = [schema for schema in operator.schemas if version is None or schema.since <= version]
    if not fitting:
        return Support(ok=False, reason=f"{node.op_type} does not exist yet in opset {version}")
    schema = max(fitting, key=lambda item: item.since)
    kernels = [k for k in operator.kernels if k.first <= schema.since <= k.last]
    if not kernels:
        if _is_function(domain, node.op_type, schema.since):
            return Support(ok=True, reason="runs as the primitive operators that its definition spells out")
        return Support(
            ok=False, reason=f"onnxruntime has no CPU kernel for {node.op_type} of opset {schema.since}"
        )
    return _typed(node, schema, kernels)


def refusals(model: Model) -> list[tuple[str, str]]:
    """Every node that cannot run, as (label, reason), bodies and functions included; empty is good."""
    functions = {(key[0], key[1]) for key in model.functions}
    found: list[tuple[str, str]] = []
    for node in walk_nodes(model):
        if (node.domain, node.op_type) in functions:
            continue
        answer = supports(node, model.opset_imports)
        if not answer.ok:
            found.append((label(node), answer.reason))
    return found


def _unknown(domain: str, op_type: str) -> Support:
    if not domain:
        return Support(ok=False, reason=f"{op_type} is no operator that this onnxruntime knows")
    return Support(ok=False, reason=f"{op_type} of domain {domain!r} is a custom operator")


def _version(node: Node, domain: str, opsets: Mapping[str, int] | None) -> int | None:
    if opsets is None and node.graph is not None:
        opsets = node.graph.opset_imports
    found = opsets or {}
    version = found.get(domain)
    if version is None and not domain:
        version = found.get("ai.onnx")
    return version if version is not None else node.version


def _typed(node: Node, schema: _Schema, kernels: list[_Kernel]) -> Support:
    wanted: dict[str, str] = {}
    for position, value in enumerate(node.inputs):
        if value is None or not isinstance(value.type, TensorType) or not schema.type_names:
            continue
        if position >= len(schema.type_names) and not schema.variadic:
            return Support(ok=False, reason=f"{node.op_type} takes {len(schema.type_names)} inputs at most")
        name = schema.type_names[min(position, len(schema.type_names) - 1)]
        wanted.setdefault(name, f"tensor({value.type.dtype.name.lower()})")
    if _any_takes(kernels, wanted):
        return Support(ok=True)
    widened = {name: _THROUGH_FLOAT.get(kind, kind) for name, kind in wanted.items()}
    if widened != wanted and _any_takes(kernels, widened):
        return Support(ok=True, reason="has no float16 kernel; runs in float32 between Casts")
    types = ", ".join(sorted({kind.removeprefix("tensor(").removesuffix(")") for kind in wanted.values()}))
    return Support(ok=False, reason=f"onnxruntime has no CPU kernel for {node.op_type} on {types}")


def _any_takes(kernels: list[_Kernel], wanted: Mapping[str, str]) -> bool:
    return any(
        all(kind in kernel.types[name] for name, kind in wanted.items() if name in kernel.types)
        for kernel in kernels
    )


@cache
def _registry() -> dict[tuple[str, str], _Operator]:
    runtime()
    state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found: dict[tuple[str, str], _Operator] = {}
    for schema in state.get_all_operator_schema():
        variadic = bool(schema.inputs) and str(schema.inputs[-1].option).endswith("Variadic")
        names = tuple(str(item.typeStr) for item in schema.inputs)
        entry = found.setdefault((_plain(schema.domain), schema.name), _Operator())
        entry.schemas.append(_Schema(schema.since_version, names, variadic))
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == PROVIDER:
            first, last = kernel.version_range
            types = {name: frozenset(kinds) for name, kinds in kernel.type_constraints.items()}
            entry = found.setdefault((_plain(kernel.domain), kernel.op_name), _Operator())
            entry.kernels.append(_Kernel(first, last, types))
    return found


def _plain(domain: str) -> str:
    return "" if domain in _STANDARD else domain


def _is_function(domain: str, op_type: str, since: int) -> bool:
    import onnx

    try:
        schema: Any = onnx.defs.get_schema(op_type, since, domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)
