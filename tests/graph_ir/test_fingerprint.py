# SPDX-License-Identifier: Apache-2.0
"""What a fingerprint follows, and what it does not see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tersor.graph_ir import fingerprint, from_proto, load, parse, save, structure_fingerprint, to_proto
from tersor.graph_ir.ops import walk_graphs
from tests.support.features import container_model, feature_model, function_model

TEXT = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2] x, float[2] d, bool c) => (float[2] y, float[2] k)
<float[2] w = {1.5, 2.5}, float[2] d = {1, 2}, float[2] k = {3, 4}, float[2] idle = {5, 6}> {
    h = Add(x, w)
    e = Elu<alpha = 0.5>(h)
    p = Constant<value = float[2] {7, 8}>()
    i = If(c) <
        then_branch = a () => (float[2] t) <float[2] inner = {9, 10}> { t = Add(e, inner) },
        else_branch = b () => (float[2] u) { u = Sub(e, p) }>
    f = local.f(i)
    y = Add(f, d)
}
<domain: "local", opset_import: ["" : 17]> f <slope: float = 0.1> (p) => (r) {
    r = Elu<alpha: float = @slope>(p)
}"""


def test_loads_agree(tmp_path: Path) -> None:
    for make in (feature_model, function_model, container_model):
        (tmp_path / "m.onnx").write_bytes(make().SerializeToString())
        model = load(tmp_path / "m.onnx")
        assert fingerprint(model) == fingerprint(load(tmp_path / "m.onnx")) == fingerprint(from_proto(make()))
        save(model, tmp_path / "again.onnx", external_data=True)
        assert fingerprint(load(tmp_path / "again.onnx")) == fingerprint(model)
        assert len(fingerprint(model)) == len(structure_fingerprint(model)) == 32


def test_inner_names_do_not_matter() -> None:
    model = parse(TEXT)
    before = fingerprint(model), structure_fingerprint(model)
    ports = {*model.graph.inputs, *model.graph.outputs}
    for number, graph in enumerate(walk_graphs(model)):
        for value in [*graph.inputs, *graph.initializers.values(), *(o for n in graph for o in n.outputs)]:
            if value not in ports:
                value.name = f"{number}.{value.name}"
        for node in graph:
            node.name = f"n{number}"
    assert (fingerprint(model), structure_fingerprint(model)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("float[2] x,", "float[3] x,"),
        ("float[2] x,", "double[2] x,"),
        ("float[2] x,", "float[N] x,"),
        ("(float[2] x,", "(float[2] z, float[2] x,"),
        ("=> (float[2] y, float[2] k)", "=> (float[2] k, float[2] y)"),
        ("h = Add(x, w)", "h = Add(w, x)"),
        ("h = Add(x, w)", "h = Sub(x, w)"),
        ("alpha = 0.5", "alpha = 0.25"),
        ("u = Sub(e, p)", "u = Sub(p, e)"),
        ("u = Sub(e, p)", "u = Sub(h, p)"),
        ("y = Add(f, d)", "y = Add(i, d)"),
        ("slope: float = 0.1", "slope: float = 0.2"),
        ('"" : 17, "local"', '"" : 16, "local"'),
        ("{7, 8}", "{7, 9}"),
        ("float[2] d, bool c)", "bool c)"),
    ],
)
def test_structure_matters(old: str, new: str) -> None:
    assert old in TEXT
    before, after = parse(TEXT), parse(TEXT.replace(old, new))
    assert fingerprint(before) != fingerprint(after)
    assert structure_fingerprint(before) != structure_fingerprint(after)


@pytest.mark.parametrize("weight", ["{1.5, 2.5}", "{1, 2}", "{3, 4}", "{5, 6}", "{9, 10}"])
def test_every_weight_matters_and_not_to_the_structure(weight: str) -> None:
    """Also defaults of inputs, weights that are outputs, of bodies, and those nothing reads."""
    before, after = parse(TEXT), parse(TEXT.replace(weight, "{0.5, 0.25}"))
    assert fingerprint(before) != fingerprint(after)
    assert structure_fingerprint(before) == structure_fingerprint(after)


@pytest.mark.parametrize("bit", [0, 7, 63])
def test_every_bit_matters(bit: int) -> None:
    array = np.zeros(2, np.uint32)
    array[bit // 32] ^= np.uint32(1 << bit % 32)
    proto = to_proto(parse(TEXT))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(2, np.float32), "w"))
    zeros = fingerprint(from_proto(proto))
    proto = to_proto(parse(TEXT))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array.view(np.float32), "w"))
    assert fingerprint(from_proto(proto)) != zeros


def in_strings(proto: onnx.ModelProto) -> None:
    next(t for t in proto.graph.initializer if t.name == "text").string_data[0] = b"b"


def in_tensors(proto: onnx.ModelProto) -> None:
    custom = next(n for n in proto.graph.node if n.op_type == "Custom")
    tensors = next(a for a in custom.attribute if a.name == "tensors")
    tensors.tensors[0].CopyFrom(numpy_helper.from_array(np.array([0, 1, 3]), "t"))


def in_raw_text(proto: onnx.ModelProto) -> None:
    custom = next(n for n in proto.graph.node if n.op_type == "Custom")
    next(a for a in custom.attribute if a.name == "raw").s = b"\xff\xfd"


def in_four_bits(proto: onnx.ModelProto) -> None:
    packed = next(t for t in proto.graph.initializer if t.name == "i4")
    packed.raw_data = bytes([packed.raw_data[0] ^ 1]) + packed.raw_data[1:]


@pytest.mark.parametrize("change", [in_strings, in_tensors, in_raw_text, in_four_bits])
def test_odd_contents_matter(change: Callable[[onnx.ModelProto], None]) -> None:
    proto = feature_model()
    change(proto)
    assert fingerprint(from_proto(proto)) != fingerprint(from_proto(feature_model()))


def test_documentation_does_not_matter() -> None:
    proto = feature_model()
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "other words"
    assert fingerprint(from_proto(proto)) == fingerprint(from_proto(feature_model()))
