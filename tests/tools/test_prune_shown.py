# SPDX-License-Identifier: Apache-2.0
"""`tersor prune`: what its tables say of heads, and of the file that was given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tersor.analysis.cost import cost
from tersor.graph_ir import load, parse, save
from tests.support.command import tersor

HEADS = """
<ir_version: 8, opset_import: ["" : 17]>
heads (float[1,5,32] x) => (float[1,5,6] y)
<float[32,32] wq = {seed}, float[32,32] wk = {seed}, float[32,32] wv = {seed}, float[32,6] wo = {seed},
 float[900] unused = {seed}, float scale = {3.0}, int64[4] split = {0,0,4,8}, int64[3] join = {0,0,32}>
{
    s4 = Div(scale, scale)  k0 = MatMul(x, wk)  k1 = Reshape(k0, split)
    k2 = Transpose<perm = [0,2,3,1]>(k1)  k = Mul(k2, s4)
    q0 = MatMul(x, wq)  q1 = Reshape(q0, split)  q = Transpose<perm = [0,2,1,3]>(q1)
    v0 = MatMul(x, wv)  v1 = Reshape(v0, split)  v = Transpose<perm = [0,2,1,3]>(v1)
    s = MatMul(q, k)  p = Softmax(s)  o = MatMul(p, v)
    m = Transpose<perm = [0,2,1,3]>(o)  j = Reshape(m, join)  y = MatMul(j, wo)
}
"""


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "heads.onnx"
    save(parse(HEADS), path)
    return path


def test_heads_are_called_so(capsys: pytest.CaptureFixture[str], heads: Path) -> None:
    done = tersor(capsys, "prune", heads, "--ratio", "0.5", "--dry-run")
    assert done.code == 0, done.err
    shown = r"^k0:2 +32 \(4 heads\) +16 \(2 heads\) +16 \(2 heads\) +highest l2$"
    assert re.search(shown, done.out, re.MULTILINE)
    done = tersor(capsys, "prune", heads, "--ratio", "0.75", "--dry-run")
    assert "8 (1 head) " in done.out
    done = tersor(capsys, "prune", heads, "--ratio", "0.2", "--dry-run", "--align", 8, "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)["groups"]
    assert found["heads"] is True
    assert found["width"] == {"before": 32, "ideal": 24, "after": 24}


def test_no_smaller_alignment_is_advised_where_single_heads_go(
    capsys: pytest.CaptureFixture[str], heads: Path
) -> None:
    done = tersor(capsys, "prune", heads, "--macs", "0.7", "--dry-run", "--align", 8)
    assert done.code == 0, done.err
    assert "its next width" in done.out
    assert "--align" not in done.out


def test_the_figures_before_are_those_of_the_file(capsys: pytest.CaptureFixture[str], heads: Path) -> None:
    given = cost(load(heads)).parameters
    done = tersor(capsys, "prune", heads, "--params", "0.6", "--dry-run", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["before"]["parameters"] == given
    assert found["before"]["size"] == heads.stat().st_size
    (note,) = (note for note in found["notes"] if note.startswith("the share is of"))
    left = int(note.split()[4])
    assert left <= given - 900
    assert found["after"]["parameters"] <= 0.6 * left


PADDED = """
<ir_version: 8, opset_import: ["" : 17]>
padded (float[N,1,T] x) => (float[N,4,U] y)
<float[32,1,3] W = {seed}, float[32,32,3] V = {seed}, float[4,32,3] O = {seed}, int64[1] four = {4},
 int64[5] zeros = {0,0,0,0,0}>
{
    s = Shape<start = 2>(x)  r = Mod(s, four)  f = Cast<to = 1>(r)  q = Sqrt(f)  i = Cast<to = 7>(q)
    p = Concat<axis = 0>(zeros, i)  a = Pad(x, p)
    b = Conv(a, W)  c = Conv(b, V)  y = Conv(c, O)
}
"""


def test_macs_are_counted_at_lengths_that_only_a_run_tells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: lengths behind a computed pad were taken as 1, and half of the MACs for more than all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "padded.onnx"
    save(parse(PADDED), path)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((8, 1, 101)).astype(np.float32))
    done = tersor(capsys, "prune", path, "--macs", "0.5", "--dry-run", "--data", tmp_path / "x.npz", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    before, after = found["before"], found["after"]
    assert before["macs"] == 100 * 32 * 3 + 98 * 32 * 32 * 3 + 96 * 4 * 32 * 3
    assert not before["uncounted"]
    assert not after["uncounted"]
    assert after["macs"] / before["macs"] == pytest.approx(found["rounds"][0]["left"])
    done = tersor(capsys, "prune", path, "--macs", "0.5", "--dry-run")
    assert "note: MACs are of one run with N=1, T=64" in done.out
