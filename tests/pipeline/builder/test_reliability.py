# SPDX-License-Identifier: Apache-2.0
"""Values and graphs that break quantizers: each is handled, or left float with the reason recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.backends.onnxruntime.audit import Audit, AuditRow, LeftoverDequantize, audit
from tersor.graph_ir import load, parse, to_proto
from tersor.graph_ir.provenance import stored_origins
from tersor.pipeline.builder import BuildResult, proving
from tersor.pipeline.builder.search import Search
from tests.support import odd_models
from tests.support.building import check, default_run, quick, steady, work_in

# A block every model has, so that something is int8 whatever becomes of the odd part.
BODY = """
  a = Conv <pads: ints = [1, 1, 1, 1]> (x, w1, b1)
  r = Relu (a)
  c = Conv <pads: ints = [1, 1, 1, 1]> (r, w2, b2)
"""
WEIGHTS = (
    "float[16,8,3,3] w1 = {seed}, float[16] b1 = {seed}, float[16,16,3,3] w2 = {seed}, float[16] b2 = {seed}"
)


def text(odd: str, weights: str = "", outputs: str = "float[N,16,6,6] y") -> onnx.ModelProto:
    """The block, which makes `r` and `c`, and the odd part behind it."""
    more = f", {weights}" if weights else ""
    return to_proto(
        parse(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[N,8,6,6] x) => ({outputs})'
            f" <{WEIGHTS}{more}> {{ {BODY} {odd} }}"
        )
    )


def comfortable(*_: object) -> bool:
    return True


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Steady times, and no node left float for accuracy: what is float has another reason."""
    steady(monkeypatch)
    monkeypatch.setattr(Search, "_comfortable", comfortable)
    return work_in(tmp_path / "work", monkeypatch)


def built(folder: Path, proto: onnx.ModelProto) -> BuildResult:
    """The int8 result of a build on drawn data; no weight in it is dequantized at run time."""
    onnx.save(proto, folder / "m.onnx")
    result = quick(folder / "m.onnx", folder / "out", data="random:1:4", samples=4, min_sqnr_db=15.0)
    assert result.winner.quantized, result.why
    check(result, folder / "m.onnx", proto)
    found = result.proof.audit
    assert found is not None
    assert not found.leftovers
    assert not found.misread
    return result


def rows(result: BuildResult) -> dict[str, AuditRow]:
    """What became of the original's nodes."""
    origins = stored_origins(onnx.load(result.winner.path))
    return {
        name: row for row in audit(result.winner.path).rows for name in origins.get(row.node, (row.node,))
    }


def test_infinite_activations_stay_float_with_the_reason(tmp_path: Path) -> None:
    """Log(0) is -inf, which Exp makes 0 again; the convolution between would have no grid."""
    odd = """
      l = Log (r)
      e = Exp (l)
      m = Sub (e, r)
      n = MatMul (l, w3)
      o = Exp (n)
      p = Mul (o, m)
      y = Add (c, p)
    """
    positive = ", ".join(["0.1"] * 36)
    result = built(tmp_path, text(odd, f"float[6,6] w3 = {{{positive}}}"))
    row = rows(result)["MatMul(n)"]
    assert row.precision == "float"
    assert "infinite values" in row.reason
    assert rows(result)["Conv(c)"].precision == "int8"


def test_nan_activations_leave_the_model_float_with_the_reason(tmp_path: Path) -> None:
    odd = """
      s = Sqrt (c)
      bad = IsNaN (s)
      y = Where (bad, c, s)
    """
    result = quick(text(odd), tmp_path / "out", data="random:1:4")
    assert not result.winner.quantized
    assert any(note.startswith("no int8: sample 0, value 's'") for note in result.notes)


def test_a_tensor_that_is_constant_has_a_grid(tmp_path: Path) -> None:
    odd = """
      z = Mul (c, zero)
      s = Conv (z, w3)
      y = Add (c, s)
    """
    result = built(tmp_path, text(odd, "float zero = {0.0}, float[16,16,1,1] w3 = {seed}"))
    assert rows(result)["Conv(c)"].precision == "int8"


def test_a_tensor_the_data_never_fills_stays_float_with_the_reason(tmp_path: Path) -> None:
    """Nothing is larger than 1e9, so no row is chosen and the product has none."""
    odd = """
      f = Flatten (c)
      g0 = ReduceMax <axes: ints = [1], keepdims: int = 0> (f)
      over = Greater (g0, limit)
      some = Compress <axis: int = 0> (f, over)
      m = MatMul (some, w3)
      total = ReduceSum <keepdims: int = 0> (m)
      y = Add (c, total)
    """
    result = built(tmp_path, text(odd, "float limit = {1e9}, float[576,4] w3 = {seed}"))
    row = rows(result)["MatMul(m)"]
    assert row.precision == "float"
    assert "no values" in row.reason


def test_any_batch_runs_in_what_was_built_for_a_free_one(tmp_path: Path) -> None:
    result = built(tmp_path, text("y = Relu (c)"))
    for batch in (1, 3, 7):
        x = np.random.default_rng(batch).standard_normal((batch, 8, 6, 6)).astype(np.float32)
        want = default_run(tmp_path / "m.onnx", {"x": x})[0]
        got = default_run(result.winner.path, {"x": x})[0]
        assert got.shape == want.shape
        assert float(np.square(got - want).sum()) < 0.03 * float(np.square(want).sum())


@pytest.mark.parametrize("taken", [True, False])
def test_bodies_stay_float_with_the_reason(tmp_path: Path, taken: bool) -> None:
    limit = "-1e9" if taken else "1e9"
    odd = """
      top = ReduceMax <keepdims: int = 0> (x)
      cond = Greater (top, limit)
      y = If (cond) <
        then_branch = yes () => (float[N,16,6,6] t) { t = MatMul (c, w3) },
        else_branch = no () => (float[N,16,6,6] e) { e = Neg (c) }
      >
    """
    result = built(tmp_path, text(odd, f"float limit = {{{limit}}}, float[6,6] w3 = {{seed}}"))
    row = rows(result)["MatMul(t)"]
    assert (row.precision, row.reason) == ("float", "it is inside a body or function")


def test_weights_that_several_nodes_read_are_stored_once(tmp_path: Path) -> None:
    odd = """
      d = Conv <pads: ints = [1, 1, 1, 1]> (c, w2, b2)
      y = Conv <pads: ints = [1, 1, 1, 1]> (d, w2)
    """
    result = built(tmp_path, text(odd))
    codes = [
        value
        for value in load(result.winner.path).graph.initializers.values()
        if value.dtype is not None and value.dtype.name == "INT8" and value.shape is not None
    ]
    assert [tuple(v.shape or ()) for v in codes].count((16, 16, 3, 3)) == 1
    assert rows(result)["Conv(d)"].precision == "int8"


def test_a_weight_read_along_both_axes_has_a_grid_for_each(tmp_path: Path) -> None:
    odd = """
      p = GlobalAveragePool (c)
      f = Flatten (p)
      g0 = Gemm (f, w3)
      h = Gemm <transB: int = 1> (g0, w3)
      k = MatMul (h, w3)
      y = Mul (k, g0)
    """
    proto = text(odd, "float[16,16] w3 = {seed}", outputs="float[N,16] y")
    result = built(tmp_path, proto)
    found = rows(result)
    assert [found[name].precision for name in ("Gemm(g0)", "Gemm(h)", "MatMul(k)")] == ["int8"] * 3


def test_an_int8_value_that_is_also_an_output(tmp_path: Path) -> None:
    result = built(tmp_path, text("y = Neg (c)", outputs="float[N,16,6,6] y, float[N,16,6,6] r"))
    assert [out.name for out in load(result.winner.path).graph.outputs] == ["y", "r"]


def test_a_quantized_output_of_the_original_keeps_its_type(tmp_path: Path) -> None:
    proto = text(
        "y = QuantizeLinear (c, scale, zp)", "float scale = {0.5}, uint8 zp = {128}", "uint8[N,16,6,6] y"
    )
    onnx.save(proto, tmp_path / "m.onnx")
    result = quick(tmp_path / "m.onnx", tmp_path / "out", data="random:1:4", min_sqnr_db=10.0)
    check(result, tmp_path / "m.onnx", proto)


def test_infinite_weights_beside_a_healthy_part_are_named(tmp_path: Path) -> None:
    result = quick(odd_models.conv_net(bad=float("inf")), tmp_path / "out", data="random:1:3")
    assert not result.winner.quantized
    assert any(note.startswith("no int8: sample 0, value ") for note in result.notes)


def test_a_candidate_with_a_weight_dequantized_in_every_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = LeftoverDequantize("dq", "w2_quantized", 2304, ("Conv(c)",))

    def audited(model: Path, *args: object, **kwargs: object) -> Audit:
        found = audit(model)
        return found if model.name == "m.onnx" else replace(found, leftovers=(left,))

    monkeypatch.setattr(proving, "audit", audited)
    onnx.save(text("y = Relu (c)"), tmp_path / "m.onnx")
    result = quick(tmp_path / "m.onnx", tmp_path / "out", data="random:1:4", min_sqnr_db=15.0)
    assert not result.winner.quantized
    words = "onnxruntime dequantizes 'w2_quantized' for node 'Conv(c)' in every run"
    assert [j.reason for _, j in result.judged.values()].count(words) >= 1
    assert all(j.reason for c, j in result.judged.values() if c.quantized and j.accepted is False)
