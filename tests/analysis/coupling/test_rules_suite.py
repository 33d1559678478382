# SPDX-License-Identifier: Apache-2.0
"""The rules against ONNX's own tests of its operators: what they say goes together can be removed together.

The inputs of a test become weights. One atom of each class is removed wherever the rule says it stands, and
what is left of the result must be what the test expects of it. Atoms that are summed or normalised over are
left out.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tersor.analysis.coupling.atoms import classes, islands
from tersor.analysis.coupling.choices import settle
from tersor.analysis.coupling.graph import _facts  # pyright: ignore[reportPrivateUsage]
from tersor.analysis.coupling.spaces import Spaces
from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, Value, from_proto, to_proto
from tersor.graph_ir.ops import walk_nodes
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_masks

Masks = Mapping[tuple[str, int], NDArray[np.bool_]]
Case = tuple[onnx.NodeProto, list[Any], list[Any], int]

OPERATORS = (
    *(
        "add",
        "argmax",
        "batch_normalization",
        "concat",
        "depthtospace",
        "dequantizelinear",
        "expand",
        "flatten",
    ),
    *(
        "gather",
        "gatherelements",
        "gathernd",
        "groupnormalization",
        "gru",
        "layernormalization",
        "lstm",
        "pad",
    ),
    *("prelu", "quantizelinear", "reduceprod", "reshape", "rnn", "scatterelements", "scatternd", "slice"),
    *(
        "softmax",
        "spacetodepth",
        "split",
        "squeeze",
        "tile",
        "topk",
        "transpose",
        "trilu",
        "unsqueeze",
        "where",
    ),
)


def cases(module: str, monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The tests of one operator in opset 21; those of older forms and of bodies are left out."""
    found: list[Case] = []

    def expect(node: onnx.NodeProto, inputs: list[Any], outputs: list[Any], name: str, **more: Any) -> None:
        opset = next((o.version for o in more.get("opset_imports", ()) if o.domain == ""), 21)
        if all(isinstance(v, np.ndarray) and v.dtype.kind in "biuf" for v in (*inputs, *outputs)):
            found.append((node, inputs, outputs, opset))

    # Releases before 1.23 call some of these modules otherwise, and cannot run all of them.
    where = f"onnx.backend.test.case.node.{module}"
    release = tuple(int(part) for part in onnx.__version__.split(".")[:2])
    if importlib.util.find_spec(where) is None or (module == "groupnormalization" and release < (1, 23)):
        pytest.skip(f"onnx {onnx.__version__} has no cases of {module} that it can run")
    tests = importlib.import_module(where)
    monkeypatch.setattr(tests, "expect", expect)
    for _, case in inspect.getmembers(tests, inspect.isclass):
        for name, export in inspect.getmembers(case, inspect.isfunction):
            if name.startswith("export") and case.__module__ == tests.__name__:
                export()
    return found


def weighted(case: Case) -> onnx.ModelProto:
    """A model of one node whose inputs are weights; sums of its results are what it gives."""
    node, inputs, _, opset = case
    names = [name for name in node.input if name]
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in zip(names, inputs, strict=True)
    ]
    nodes, results = [node], list[onnx.ValueInfoProto]()
    for name in (n for n in node.output if n):
        nodes.append(helper.make_node("Cast", [name], [f"{name}_as_float"], to=onnx.TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceSum", [f"{name}_as_float"], [f"{name}_sum"], keepdims=0))
        results.append(helper.make_tensor_value_info(f"{name}_sum", onnx.TensorProto.FLOAT, []))
    graph = helper.make_graph(nodes, "case", [], results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def removals(model: Model) -> Iterator[Masks]:
    """For each class of free atoms, masks that remove its last one."""
    facts = _facts(model)
    spaces = Spaces(facts)
    summed = [axis for axis, node in facts.consumers if not (node.outputs[0].name or "").endswith("_sum")]
    left_out = {spaces.of(axis) for axis in (*summed, *(axis for axis, _ in facts.normalisers))}
    links = [*facts.links, *settle(facts.choices, facts.heads, spaces)]
    for island in islands(facts.grouped, links, spaces):
        kinds = classes(island, spaces.size)
        for kind in sorted(set[int](kinds.tolist())):
            atoms = [a for a in np.flatnonzero(kinds == kind).tolist() if island.stays[a] is None]
            if len(atoms) < 2:
                continue
            stays = {s: island.at(s, spaces.size[s]) != atoms[-1] for s in island.spaces}
            touched = [s for s, mask in stays.items() if not mask.all()]
            if left_out.isdisjoint(touched):
                members = [(s, holder, axis) for s in touched for holder, axis in spaces.members[s]]
                yield {(h.name or "", axis): stays[s] for s, h, axis in members if isinstance(h, Value)}


def without(model: Model, masks: Masks, names: list[str]) -> list[NDArray[Any]]:
    """The results of the first node after a removal."""
    values = {v.name: v for n in walk_nodes(model) for v in (*n.inputs, *n.outputs) if v is not None}
    assert apply_masks(model, {(values[name], axis): mask for (name, axis), mask in masks.items()}, Context())
    proto = to_proto(model)
    kept = [n for n in proto.graph.node if not any(o.endswith(("_sum", "_as_float")) for o in n.output)]
    graph = helper.make_graph(
        kept, "cut", [], [helper.make_empty_tensor_value_info(n) for n in names], proto.graph.initializer
    )
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=proto.opset_import)).run(None, {})  # type: ignore[return-value]


@pytest.mark.parametrize("module", OPERATORS)
def test_what_goes_together_can_be_removed_together(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    removed = 0
    for case in cases(module, monkeypatch)[:12]:
        node, _, outputs, _ = case
        proto = weighted(case)
        names = [name for name in node.output if name]
        model = from_proto(proto)
        infer_shapes(model)
        for masks in list(removals(model)):
            again = from_proto(proto)
            infer_shapes(again)
            for name, got, expected in zip(names, without(again, masks, names), outputs, strict=True):
                left = expected
                for (value, axis), mask in masks.items():
                    left = np.compress(mask, left, axis) if value == name else left
                np.testing.assert_allclose(
                    np.asarray(got, np.float64), np.asarray(left, np.float64), 1e-3, 1e-4
                )
            removed += 1
    assert removed
