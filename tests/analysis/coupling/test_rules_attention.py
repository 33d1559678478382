# SPDX-License-Identifier: Apache-2.0
"""Coupling of onnxruntime's attention in all its forms: which heads go together, and what keeps them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tersor.analysis.coupling import couple
from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, VerifyError, to_proto
from tersor.graph_ir.ops import static_shape
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_masks
from tests.support.coupled import cut, places, reason, sizes
from tests.support.prune_blocks_more import grouped_queries, sampled_by_head
from tests.support.prune_build import build
from tests.support.prune_cuts import assert_equal, half
from tests.support.prune_cuts import cut as cut_by
from tests.support.prune_oracle import oracle

ONE, OUT = "float[1,5,12] x", "float[1,5,6] y"
GQA = "com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>"
LENGTHS = "float[1,5,32] a, int32[1] seq = {{{}}}, int32 total = {{{}}}"


def packed(parts: int, bias: str = "") -> Model:
    """Queries, keys and values (or the last two) in one tensor `[B, L, heads, parts, width]`."""
    first = "q = MatMul(x, wq)  " if parts == 2 else ""
    inputs = {2: "q, p", 3: "p"}[parts] + ({2: ", , b", 3: ", , , b"}[parts] if bias else "")
    return build(
        f"""{first}s = MatMul(x, ws)  p = Reshape(s, split)
        a = com.microsoft.MultiHeadAttention<num_heads = 4>({inputs})  y = MatMul(a, wo)""",
        f"ws 12,{12 * parts}; wo 12,6{'; wq 12,12' if parts == 2 else ''}{bias and '; b 36'}",
        x="float[2,5,12] x",
        y="float[2,5,6] y",
        constants=f"int64[5] split = {{2, 5, 4, {parts}, 3}}",
    )


def unpacked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same with three inputs, for onnxruntime has no kernel for packed ones on CPU."""
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        if node.op_type != "MultiHeadAttention":
            nodes.append(node)
            continue
        apart = [name for name in node.input[:2] if name not in ("p", "")]
        for part in range(3 - len(apart)):
            at = numpy_helper.from_array(np.asarray(part, np.int64), f"part{part}")
            proto.graph.initializer.append(at)
            nodes.append(helper.make_node("Gather", ["p", at.name], [f"p{part}"], axis=3))
            nodes.append(helper.make_node("Reshape", [f"p{part}", "rows"], [f"r{part}"]))
            apart.append(f"r{part}")
        node.input[:] = [*apart, *node.input[3:]]
        nodes.append(node)
    rows = numpy_helper.from_array(np.asarray([0, 0, -1], np.int64), "rows")
    proto.graph.initializer.append(rows)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


@pytest.mark.parametrize("bias", ["", "b"])
@pytest.mark.parametrize("parts", [3, 2])
def test_heads_of_packed_queries_keys_and_values_go_together(parts: int, bias: str) -> None:
    model = packed(parts, bias)
    coupling = couple(model)
    assert list(sizes(coupling).values()) == [4]
    masks = half(model, coupling).masks(coupling)
    expected = unpacked(to_proto(oracle(model, masks)))
    assert apply_masks(model, masks, Context())
    (attention,) = [n for n in model.graph if n.op_type == "MultiHeadAttention"]
    assert attention.attributes["num_heads"].value == 2
    assert_equal(expected, unpacked(to_proto(model)))


def test_the_axis_that_holds_the_parts_stays() -> None:
    (group,) = couple(packed(3)).groups
    assert sorted((a.value.name, a.axis) for a in group.axes) == [
        ("a", 2), ("p", 2), ("s", 2), ("wo", 0), ("ws", 1)
    ]  # fmt: skip
    (weight,) = [a for a in group.axes if a.value.name == "ws"]
    assert weight.atom_of.tolist() == np.repeat(np.arange(4), 9).tolist()


def test_other_forms_are_pinned() -> None:
    model = build(
        """q = MatMul(x, wq)  p = Reshape(q, split)
        a = com.microsoft.MultiHeadAttention<num_heads = 4>(q, p, p)  y = MatMul(a, wo)""",
        "wq 12,12; wo 12,6",
        x="float[2,5,12] x",
        y="float[2,5,6] y",
        constants="int64[5] split = {2, 5, 2, 2, 3}, float[2,5,12] a",
    )
    assert "not known" in reason(model, "q")


def group_query(inputs: str, weights: str = "", *, more: str = "", y: str = "", past: int = 0) -> Model:
    return build(
        f"q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  a, nk, nv = {GQA}({inputs})"
        "  y = MatMul(a, wo)",
        f"wq 12,32; wk 12,16; wv 12,16; wo 32,6{weights}",
        x=f"{ONE}{more}",
        y=f"{OUT}{y}",
        constants=LENGTHS.format(past + 4, past + 5),
    )


def test_a_head_of_keys_goes_with_the_queries_that_share_it() -> None:
    model = group_query("q, k, v, , , seq, total, , , , bias, sink", "; bias 1,4,5,5; sink 4")
    assert cut(model) == {"q:2": 2}
    assert places(model, "q:2") == [
        "a:2*16", "bias:1*2", "k:2*8", "q:2*16", "sink:0*2", "v:2*8", "wk:1*8", "wo:0*16", "wq:1*16",
        "wv:1*8",
    ]  # fmt: skip


STATES = ", float[1,2,3,8] pk, float[1,2,3,8] pv"
PRESENT = ", float[1,2,8,8] nk, float[1,2,8,8] nv"


def test_where_states_keep_the_keys_the_same_of_each_share_of_queries_goes() -> None:
    model = group_query("q, k, v, pk, pv, seq, total", more=STATES, y=PRESENT, past=3)
    assert cut(model) == {"q:2": 2}
    (weight,) = [a for a in couple(model).group("q:2").axes if a.value.name == "wq"]
    assert weight.atom_of.tolist() == np.tile(np.repeat(np.arange(2), 8), 2).tolist()
    assert "input of the model" in reason(model, "k")


def test_quantized_states_are_pinned() -> None:
    model = group_query("q, k, v, , , seq, total, , , , , , scale, scale", "; scale 1")
    assert "not known" in reason(model, "q")


def test_packed_parts_that_do_not_fit_are_pinned() -> None:
    model = build(
        f"p = MatMul(x, w)  a = {GQA}(p, , , , , seq, total)  y = MatMul(a, wo)",
        "w 12,60; wo 32,6",
        x=ONE,
        y=OUT,
        constants=LENGTHS.format(4, 5),
    )
    assert "does not fit its heads" in reason(model, "p")


def test_states_of_the_signature_keep_heads_but_not_what_is_read() -> None:
    model = build(
        """h = MatMul(x, wh)  a, now = com.microsoft.Attention<num_heads = 4>(h, w, b, , past)
        y = MatMul(a, wo)""",
        "wh 7,12; w 12,36; b 36; wo 12,6",
        x="float[2,5,7] x, float[2,2,4,3,3] past",
        y="float[2,5,6] y, float[2,2,4,8,3] now",
        constants="float[2,5,12] a",
    )
    assert cut(model) == {"h:2": 12}
    assert "input of the model" in reason(model, "a")


def test_heads_that_are_turned_go_as_a_whole() -> None:
    def model(attribute: str) -> Model:
        return build(
            f"q = MatMul(x, wq)  r = RotaryEmbedding{attribute}(q, cos, sin)  y = MatMul(r, wo)",
            "wq 12,24; cos 1,5,3; sin 1,5,3; wo 24,6",
            x=ONE,
            y=OUT,
            opset=23,
        )

    assert cut(model("<num_heads = 4>")) == {"q:2": 4}
    by_head = build(
        """q = MatMul(x, wq)  s = Reshape(q, split)  t = Transpose<perm = [0, 2, 1, 3]>(s)
        r = RotaryEmbedding(t, cos, sin)  u = Transpose<perm = [0, 2, 1, 3]>(r)  j = Reshape(u, join)
        y = MatMul(j, wo)""",
        "wq 12,24; cos 1,5,3; sin 1,5,3; wo 24,6",
        x=ONE,
        y=OUT,
        constants="int64[4] split = {1, 5, 4, 6}, int64[3] join = {1, 5, 24}",
        opset=23,
    )
    assert cut(by_head) == {"q:2": 4}


GROUPED: dict[str, tuple[dict[str, str], str]] = {
    "keys without their queries": ({"k:2 wk:1 v:2 wv:1": "10"}, "queries and keys"),
    "other queries of each share": ({"q:2 wq:1 a:2 wo:0": "1001"}, "queries and keys"),
    "keys and not values": ({"k:2 wk:1": "10", "q:2 wq:1 a:2 wo:0": "1100"}, "same heads"),
    "half a head": ({"q:2 wq:1 a:2 wo:0": "half"}, "not cut alike"),
}


@pytest.mark.parametrize("name", GROUPED)
def test_heads_cut_in_no_known_way_are_refused(name: str) -> None:
    masks, message = GROUPED[name]
    wide = {
        place: "1" * 20 + "0" * 12 if m == "half" else "".join(d * 8 for d in m) for place, m in masks.items()
    }
    with pytest.raises(VerifyError, match=f"cannot cut channels at GroupQueryAttention .*{message}"):
        cut_by(group_query("q, k, v, , , seq, total"), wide, compare=False)


def test_shapes_of_packed_parts() -> None:
    model = packed(3)
    infer_shapes(model)
    (attention,) = [n for n in model.graph if n.op_type == "MultiHeadAttention"]
    assert static_shape(attention.outputs[0]) == (2, 5, 12)


def test_standard_attention_with_states_loses_the_same_of_each_share() -> None:
    model = build(
        """q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
        a, nk, nv = Attention<q_num_heads = 6, kv_num_heads = 2>(q, k, v, , pk, pv)  y = MatMul(a, wo)""",
        "wq 12,24; wk 12,8; wv 12,8; wo 24,6",
        x=f"{ONE}, float[1,2,3,4] pk, float[1,2,3,4] pv",
        y=f"{OUT}, float[1,2,8,4] nk, float[1,2,8,4] nv",
        opset=23,
    )
    assert cut(model) == {"q:2": 3}


def weight_of(model: Model, name: str) -> NDArray[np.float32]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_the_heads_that_stay_keep_their_columns() -> None:
    model = packed(3)
    before = weight_of(model, "ws").reshape(12, 4, 9)
    coupling = couple(model)
    (group,) = coupling.groups
    apply_masks(model, coupling.masks({group.name: np.array([True, False, False, True])}), Context())
    np.testing.assert_array_equal(weight_of(model, "ws"), before[:, [0, 3]].reshape(12, 18))


@pytest.mark.parametrize(
    ("heads", "shared", "groups"),
    [
        (8, 4, {"q0:2": ("q0", "k0", "v0")}),  # whole heads of keys and values, each with its two of queries
        (16, 4, {"q0:2": ("q0", "k0", "v0")}),
        (8, 2, {"q0:2": ("q0",)}),  # too few of them: the same of each one's queries
    ],
)
def test_heads_of_keys_and_values_go_with_their_queries(
    heads: int, shared: int, groups: dict[str, tuple[str, ...]]
) -> None:
    model = grouped_queries(heads, shared)
    coupling = couple(model)
    assert {g.name: tuple(n.outputs[0].name for n in g.producers) for g in coupling.groups} == groups
    assert cut(model) == {"q0:2": 4}


def test_shared_heads_get_narrower_instead() -> None:
    found = couple(grouped_queries(8, 4), attention="widths")
    assert sizes(found) == {"q0:2": 4, "v0:2": 4}


def test_heads_that_sample_pictures_go_with_their_places() -> None:
    coupling = couple(sampled_by_head())
    (heads,) = coupling.groups
    assert heads.heads
    assert heads.atoms == 4
    assert [node.outputs[0].name for node in heads.producers] == ["v0", "p0"]
    assert [node.outputs[0].name for node in heads.consumers] == ["y"]
