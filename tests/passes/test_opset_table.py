# SPDX-License-Identifier: Apache-2.0
"""The tables of redefinitions against the schemas of the onnx package and the kernels of onnxruntime."""

from __future__ import annotations

from functools import cache

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.defs import OpSchema
from onnxruntime.capi import onnxruntime_pybind11_state as state

from tersor.graph_ir import Rewriter, from_proto, to_proto
from tersor.passes.opset import raise_opset
from tersor.passes.opset_steps import STEPS
from tersor.passes.opset_table import COMPATIBLE, NEWEST, OLDEST, UNRUN


@cache
def histories() -> dict[str, list[OpSchema]]:
    found: dict[str, list[OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, []).append(schema)
    return {name: sorted(schemas, key=lambda s: s.since_version) for name, schemas in found.items()}


def types(schema: OpSchema, port: OpSchema.FormalParameter) -> set[str]:
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    return allowed.get(port.type_str, {port.type_str})


def default(attribute: OpSchema.Attribute) -> object:
    given = attribute.default_value
    return onnx.helper.get_attribute_value(given) if given.name else None


def narrowed(old: OpSchema, new: OpSchema) -> list[str]:
    """In what way the newer definition refuses what the older one took."""
    found = ["deprecated"] if new.deprecated else []
    for name, attribute in old.attributes.items():
        now = new.attributes.get(name)
        if now is None or now.type != attribute.type or default(now) != default(attribute):
            found.append(f"attribute {name}")
    found += [f"required {n}" for n, a in new.attributes.items() if a.required and n not in old.attributes]
    if new.min_input > old.min_input or len(new.inputs) < len(old.inputs):
        found.append("inputs")
    if len(new.outputs) < len(old.outputs):
        found.append("outputs")
    ports = [*zip(old.inputs, new.inputs, strict=False), *zip(old.outputs, new.outputs, strict=False)]
    found += [f"types of {a.name}" for a, b in ports if not types(old, a) <= types(new, b)]
    return found


def test_every_compatible_redefinition_only_allows_more() -> None:
    assert len(COMPATIBLE) > 200
    for name, version in sorted(COMPATIBLE):
        schemas = histories()[name]
        place = [s.since_version for s in schemas].index(version)
        assert place > 0, f"{name} is new in {version}"
        assert narrowed(schemas[place - 1], schemas[place]) == [], f"{name} {version}"


def test_every_redefinition_with_another_form_has_a_step_or_is_refused() -> None:
    refused: set[tuple[str, int]] = set()
    for name, schemas in histories().items():
        versions = [s.since_version for s in schemas]
        later = {(name, v) for v in versions[1:] if OLDEST < v <= NEWEST}
        assert not later & COMPATIBLE & set(STEPS)
        refused |= later - COMPATIBLE - set(STEPS)
    # An older onnx does not know the newest of them.
    known = {(name, s.since_version) for name, schemas in histories().items() for s in schemas}
    assert refused == known & {
        ("Scan", 9),
        ("MaxUnpool", 11),
        ("OneHot", 11),
        ("DFT", 20),
        ("GroupNormalization", 21),
        ("Attention", 24),
        ("Attention", 25),
    }


TYPES = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(int64)": TensorProto.INT64,
}
KINDS = OpSchema.AttrType
REQUIRED = {KINDS.FLOAT: 1.0, KINDS.INT: 1, KINDS.INTS: [2, 2], KINDS.FLOATS: [1.0, 1.0]}


def one_node(schema: OpSchema, opset: int, chosen: str) -> onnx.ModelProto | None:
    """The operator with its required inputs and attributes, all of its types this one where it may be."""
    values: list[onnx.ValueInfoProto] = []
    for port in schema.inputs[: schema.min_input]:
        allowed = types(schema, port)
        given = chosen if chosen in allowed else next((t for t in TYPES if t in allowed), None)
        if given is None:
            return None
        values.append(helper.make_tensor_value_info(f"x{len(values)}", TYPES[given], None))
    attributes = {n: REQUIRED.get(a.type) for n, a in schema.attributes.items() if a.required}
    if None in attributes.values():
        return None
    outputs = [f"y{i}" for i in range(max(1, schema.min_output))]
    node = helper.make_node(schema.name, [v.name for v in values], outputs)
    node.attribute.extend(helper.make_attribute(n, v) for n, v in attributes.items())
    untyped = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "g", values, untyped)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def loads(model: onnx.ModelProto) -> bool:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except (state.Fail, state.InvalidGraph, state.NotImplemented, state.RuntimeException):
        return False
    return True


@pytest.mark.parametrize("opset", sorted({since for _, since in UNRUN}))
def test_what_onnxruntime_loads_it_loads_at_a_raised_opset(opset: int) -> None:
    newest = (
        None
        if onnx.defs.onnx_opset_version() < opset
        else one_node(histories()["Neg"][-1], opset, "tensor(float)")
    )
    if newest is None or not loads(newest):
        pytest.skip(f"onnx or onnxruntime does not know opset {opset}")
    functions = {s.name for s in onnx.defs.get_function_ops()}
    raised: list[str] = []
    for name, schemas in histories().items():
        older = [s for s in schemas if s.since_version < opset]
        schema = older[-1] if older else None
        again = opset in [s.since_version for s in schemas]
        if schema is None or schema.deprecated or not (again or schema.name in functions):
            continue  # its kernels are the same
        for chosen in TYPES:
            before = one_node(schema, opset - 1, chosen)
            if before is None or not loads(before):
                continue
            model = from_proto(before)
            if raise_opset(model, Rewriter(model), opset):
                raised.append(name)
                assert loads(to_proto(model)), f"{name} of {chosen} in {opset}"
    assert len(set(raised)) > 10
