# SPDX-License-Identifier: Apache-2.0
"""Saving as ONNX text and JSON: every bit is kept, or the file is not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import Model, ModelError, fingerprint, from_proto, load, parse, save, tensor
from tests.support.features import feature_model
from tests.support.runtime import PRINTS_EVERY_BIT

WEIGHTS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,64] x) => (float[2,64] y) <float[64,64] a = {seed}, float[64,64] b = {seed}, float[2] c = {seed}> {
    h = MatMul(x, a)
    y = MatMul(h, b)
}"""


def text_model(value: float) -> Model:
    model = parse(WEIGHTS)
    held = np.full((64, 64), value, np.float32)
    model.graph.initializers["a"].const_value = tensor(held, name="a")
    return model


@pytest.mark.parametrize("value", [1 / 3, 1e-40, float("inf"), float("nan"), -0.0])
def test_onnx_text_keeps_every_bit(value: float, tmp_path: Path) -> None:
    model = text_model(value)
    if not PRINTS_EVERY_BIT:
        with pytest.raises(ModelError, match=r"ONNX text .*save it as \.textproto"):
            save(model, tmp_path / "m.onnxtxt")
        return
    save(model, tmp_path / "m.onnxtxt")
    assert fingerprint(load(tmp_path / "m.onnxtxt")) == fingerprint(model)


def test_what_onnx_text_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ONNX text .*save it as \.textproto"):
        save(from_proto(feature_model()), tmp_path / "m.onnxtxt")
    with pytest.raises(ModelError, match="holds all weights itself"):
        save(parse(WEIGHTS), tmp_path / "m.json", external_data=True)
    assert not list(tmp_path.iterdir())
