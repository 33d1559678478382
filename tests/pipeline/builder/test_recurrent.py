# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers are tried in dynamic int8, alone and beside static layers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tersor.calibration import open_feeds
from tersor.graph_ir import load, save
from tersor.pipeline.builder import BuildSettings
from tersor.pipeline.builder.accuracy import Judge
from tersor.pipeline.builder.model_facts import only_dynamic
from tersor.pipeline.builder.result import Candidate
from tersor.pipeline.builder.search import Search
from tersor.pipeline.builder.workshop import Workshop
from tests.support.int8 import graph

LSTM = "s, y = LSTM<hidden_size=24>(x, w, r)"
WEIGHTS = "float[1,96,16] w = {seed}, float[1,96,24] r = {seed}"
TAIL = (
    "s, h = LSTM<hidden_size=24>(x, w, r) f = Flatten(h) t = Gemm(f, v, c) u = Relu(t) y = Gemm(u, p, c)",
    WEIGHTS + ", float[24,24] v = {seed}, float[24] c = {seed}, float[24,24] p = {seed}",
)


@pytest.mark.parametrize(
    ("body", "weights", "wanted"),
    [
        (LSTM, WEIGHTS, {"int8 dynamic"}),
        (*TAIL, {"int8 dynamic", "static quantize-dynamic"}),
    ],
)
def test_what_is_tried_of_a_recurrent_layer(
    body: str, weights: str, wanted: set[str], tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    save(graph(body, weights, x="6,1,16"), path)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((6 * 8, 1, 16)).astype(np.float32))
    settings = BuildSettings(model=path, out=tmp_path / "out", data=str(tmp_path / "calib.npz"))
    feeds = open_feeds(str(settings.data), load(path))
    original = Candidate("original", path, "")
    workshop, judge = Workshop(settings, tmp_path), Judge(original, list(feeds)[:4], settings)
    workshop.calibrate_with(feeds)
    search = Search(workshop, judge, settings, timer=lambda _: 1.0)
    search.run()
    assert only_dynamic(workshop.int8_ready)
    made = {name: dict(candidate.composition) for name, (candidate, _) in search.judged.items()}
    on_codes = {name for name, count in made.items() if count.get("DynamicQuantizeLSTM")}
    kinds = {name: re.sub(r".* quantize", "static quantize", name) for name in on_codes}
    assert set(kinds.values()) == wanted | {f"{kind} per-tensor" for kind in wanted}
    axes = {kind: made[name]["axes of scales"] for name, kind in kinds.items()}
    assert all(axes[kind] > axes[f"{kind} per-tensor"] for kind in wanted)
    assert not any(count.get("LSTM") for name, count in made.items() if name in on_codes)
