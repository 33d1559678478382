# SPDX-License-Identifier: Apache-2.0
"""Origins of nodes: gathered along rewrites, written when asked, and never mistaken for others' metadata."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tersor.graph_ir import Rewriter, load, parse, save, to_proto
from tersor.graph_ir.origins import ORIGINS, originals, origins, set_origins
from tersor.graph_ir.provenance import stored_origins

TEXT = """
<ir_version: {version}, opset_import: ["": 17]>
g (float[2] x) => (float[2] y) {{
  a = Relu (x)
  y = Neg (a)
}}
"""


@pytest.mark.parametrize("version", [8, 10])
def test_origins_are_written_when_asked_and_read_back(tmp_path: Path, version: int) -> None:
    """Nodes have no metadata before IR version 10: there it is the model's."""
    model = parse(TEXT.format(version=version))
    set_origins(model.graph[0], {"one": "Conv", "two": ""})
    plain = to_proto(model)
    assert not plain.graph.node[0].metadata_props
    assert not plain.metadata_props
    save(model, tmp_path / "m.onnx", provenance=True)
    assert not model.graph[0].metadata_props
    assert not model.metadata_props
    proto = onnx.load(tmp_path / "m.onnx")
    assert bool(proto.metadata_props) == (version < 10)
    assert list(stored_origins(proto).values()) == [{"one": "Conv", "two": ""}]
    again = load(tmp_path / "m.onnx")
    assert origins(again.graph[0]) == ("one", "two")
    assert originals(again.graph[0]) == {"one": "Conv", "two": ""}
    assert origins(again.graph[1]) == ("Neg(y)",)
    assert not again.metadata_props


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"a": 1}'])
def test_metadata_that_is_no_table_of_origins_is_left_alone(tmp_path: Path, text: str) -> None:
    model = parse(TEXT.format(version=8))
    model.metadata_props[ORIGINS] = text
    save(model, tmp_path / "m.onnx")
    assert load(tmp_path / "m.onnx").metadata_props[ORIGINS] == text
    assert not stored_origins(onnx.load(tmp_path / "m.onnx"))


def test_origins_of_a_long_chain_are_told_in_order_and_once() -> None:
    """Each step stands for both nodes before it: there are far more ways through them than can be walked."""
    model = parse(TEXT.format(version=8))
    rewriter = Rewriter(model)
    older, newer = model.graph
    for _ in range(5000):
        with rewriter.standing_for([newer, older]):
            older, newer = newer, rewriter.node("Abs", [model.graph.inputs[0]], before=older)
    assert list(originals(newer).items()) == [("Neg(y)", "Neg"), ("Relu(a)", "Relu")]
