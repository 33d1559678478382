# SPDX-License-Identifier: Apache-2.0
"""What the fusion audit of a chosen form counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import parse, save
from tersor.pipeline.builder import proving
from tersor.pipeline.builder.result import Candidate, Judgement
from tersor.pipeline.builder.settings import BuildSettings

# The last axis is padded by a computed amount: only a run tells how long it is.
PADDED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,1,T] x) => (float[1,4,U] y)
<float[4,1,3] W = {seed}, int64[5] zeros = {0,0,0,0,0}, int64[1] four = {4}>
{
    s = Shape<start = 2>(x)
    r = Mod(s, four)
    f = Cast<to = 1>(r)
    q = Sqrt(f)
    i = Cast<to = 7>(q)
    p = Concat<axis = 0>(zeros, i)
    a = Pad(x, p)
    y = Conv(a, W)
}
"""


def test_macs_of_a_size_that_only_a_run_tells_are_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_callers(*args: object, **kwargs: object) -> list[object]:
        return []

    monkeypatch.setattr(proving, "check_concurrency", no_callers)
    save(parse(PADDED), path := tmp_path / "m.onnx")
    winner = Candidate("form", path, quantized=True)
    feeds = [{"x": np.zeros((1, 1, 11), np.float32)}]
    judgement = Judgement(True, "", None, None, {})
    proof = proving.prove(winner, winner, feeds, {"T": 11}, BuildSettings(path, tmp_path), judgement)
    assert proof.audit is not None
    assert proof.audit.macs_total == 10 * 4 * 3
    assert proof.audit.macs_share == 0, "a Conv in float is no int8"
