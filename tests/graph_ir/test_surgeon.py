# SPDX-License-Identifier: Apache-2.0
"""To graphsurgeon and back: nothing is lost on the way, and edits come through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.graph_ir import (
    Model,
    UnsupportedModelError,
    fingerprint,
    from_proto,
    load,
    parse,
    to_proto,
    verify,
)
from tersor.graph_ir.surgeon import from_surgeon, to_surgeon
from tests.support.features import container_model, feature_model
from tests.support.zoo import zoo_models

pytest.importorskip("onnx_graphsurgeon", reason="needs the extra graphsurgeon")

RICH = """<ir_version: 10, opset_import: ["" : 17]>
g (float[N,2] x, float[2] d, bool c) => (float[N,2] y)
<float[2] w = {1.5, -2}, float[2] d = {1, 2}, float[2] idle = {3, 4}> {
    h = Add(x, w)
    i = If(c) <then_branch = a () => (float[N,2] t) { t = Neg(h) },
        else_branch = b () => (float[N,2] e) <float[2] k = {1, 2}> { e = Add(h, k) }>
    m = Clip(i, , )
    y = Add(m, d)
}"""


def there_and_back(model: Model) -> Model:
    return from_surgeon(to_surgeon(model), model)


@pytest.mark.parametrize("path", zoo_models())
def test_zoo_models_come_back_the_same(path: Path) -> None:
    model = load(path)
    back = there_and_back(model)
    verify(back)
    assert fingerprint(back) == fingerprint(model)


def test_bodies_defaults_and_unused_weights_come_back() -> None:
    model = parse(RICH)
    back = there_and_back(model)
    verify(back)
    assert fingerprint(back) == fingerprint(model)


def plain_features() -> Model:
    """The feature model without the types graphsurgeon fails on."""
    proto = feature_model()
    kept = [t for t in proto.graph.initializer if t.name not in ("text", "i4", "u4", "bf16", "f8", "f8uz")]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return from_proto(proto)


def test_documentation_and_metadata_come_back() -> None:
    model = plain_features()
    before, after = to_proto(model), to_proto(there_and_back(model))
    assert after.ir_version == before.ir_version
    assert after.domain == before.domain
    assert after.model_version == before.model_version
    assert after.doc_string == before.doc_string
    assert list(after.metadata_props) == list(before.metadata_props)
    assert list(after.graph.metadata_props) == list(before.graph.metadata_props)
    assert list(after.graph.quantization_annotation) == list(before.graph.quantization_annotation)
    assert list(after.graph.input) == list(before.graph.input)
    for was, now in zip(before.graph.node, after.graph.node, strict=True):
        assert list(now.metadata_props) == list(was.metadata_props)
        # Bodies differ in the names their nodes were given.
        plain = [{a.name: a for a in n.attribute if a.type != a.GRAPH} for n in (was, now)]
        assert plain[0] == plain[1]


def test_edits_come_through() -> None:
    model = parse(RICH)
    graph = to_surgeon(model)
    add = next(node for node in graph.nodes if node.op == "Add")
    add.op = "Sub"
    back = from_surgeon(graph, model)
    assert [n.op_type for n in back.graph] == ["Sub", "If", "Clip", "Add"]
    verify(back)


def test_what_graphsurgeon_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="graphsurgeon cannot hold"):
        to_surgeon(from_proto(container_model()))
