# SPDX-License-Identifier: Apache-2.0
"""Without torch one line says how to get it; what torch cannot run is named before anything runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from tersor.calibration.torch_graph import TorchModel
from tersor.graph_ir import UsageError, parse
from tests.support.int8 import graph

find = importlib.util.find_spec


def without(name: str, package: str | None = None) -> ModuleSpec | None:
    return None if name == "torch" else find(name, package)


def test_without_torch_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tersor.calibration.torch_graph.extra.find_spec", without)
    with pytest.raises(UsageError) as caught:
        TorchModel(graph("y = Relu(x)"), what="criterion 'taylor'")
    assert (
        str(caught.value)
        == "criterion 'taylor' needs gradients, which torch computes: pip install 'tersor[train]'"
    )


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, tersor.calibration.torch_graph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd="src").returncode == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("y = NonMaxSuppression(x, x)", "operator NonMaxSuppression (node 'NonMaxSuppression(y)')"),
        ("y = own.f(x)", "operator own.f .*inline the model's functions first"),
    ],
)
def test_unknown_operators_are_named(body: str, words: str) -> None:
    pytest.importorskip("torch")
    model = parse(f"""<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[3,8] x) => (y) {{ {body} }}
    <domain: "own", opset_import: ["" : 17]> f (a) => (b) {{ b = Relu(a) }}""")
    with pytest.raises(UsageError, match=words.replace("(", r"\(").replace(")", r"\)")):
        TorchModel(model)
