# SPDX-License-Identifier: Apache-2.0
"""`sparsify` on models: counts per row, what data makes of it, what stays dense, and what is said of it."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.graph_ir import DataError, Model, UsageError, constant, signature_of, to_proto, verify
from tersor.pipeline.prune.sparsify import SparsityOptions, SparsityReport, sparsify
from tests.support.int8 import Feed, feeds_of, graph, run

NET = "t = Conv<pads=[1,1,1,1]>(x, w, b) u = Relu(t) v = Flatten(u) y = Gemm(v, k)"
WEIGHTS = "float[12,8,3,3] w = {seed}, float[12] b = {seed}, float[432,8] k = {seed}"


def net() -> Model:
    return graph(NET, WEIGHTS, x="n,8,6,6")


def mixed_feeds(count: int = 640) -> list[Feed]:
    """Feeds whose channels and places go together, of very different sizes."""
    rng = np.random.default_rng(5)
    mix = rng.standard_normal((8, 3)) * np.geomspace(0.1, 10, 8)[:, None]
    hidden = rng.standard_normal((count, 6, 6, 3))
    made = np.einsum("nhwk,ck->nchw", hidden, mix) + 0.1 * rng.standard_normal((count, 8, 6, 6))
    return [{"x": made[i : i + 64].astype(np.float32)} for i in range(0, count, 64)]


def weights(model: Model, name: str) -> NDArray[np.float32]:
    return np.array(constant(model.graph.initializers[name]), np.float32)


def error(before: Model, after: Model, feeds: list[Feed]) -> float:
    first, second = to_proto(before), to_proto(after)
    want, got = (np.concatenate([run(p, f, off=True)[0] for f in feeds]) for p in (first, second))
    return float(np.square(want - got).sum() / np.square(want).sum())


def apply(model: Model, **options: Any) -> SparsityReport:
    signature, names = signature_of(model), sorted(model.graph.initializers)
    feeds = mixed_feeds() if options.get("criterion", "magnitude") != "magnitude" else None
    report = sparsify(model, SparsityOptions(**options), feeds)
    verify(model, signature)
    assert sorted(model.graph.initializers) == names
    for layer in report.layers:
        assert np.count_nonzero(weights(model, layer.weight) == 0) == layer.zeros
    return report


def test_on_correlated_inputs_the_order_is_sparsegpt_wanda_magnitude() -> None:
    errors: list[float] = []
    for criterion in ("sparsegpt", "wanda", "magnitude"):
        model = net()
        report = apply(model, sparsity=0.5, criterion=criterion)
        assert report.zeros == 12 * 72 // 2 + 432 * 8 // 2
        errors.append(error(net(), model, mixed_feeds(960)[10:]))
    assert errors[0] < 0.5 * errors[1]
    assert errors[1] < 0.7 * errors[2]


def test_wanda_takes_the_same_number_from_every_row() -> None:
    model = net()
    apply(model, sparsity=0.4, criterion="wanda")
    assert (np.count_nonzero(weights(model, "w").reshape(12, -1) == 0, axis=1) == round(0.4 * 72)).all()
    assert (np.count_nonzero(weights(model, "k") == 0, axis=0) == round(0.4 * 432)).all()


def test_wanda_keeps_what_meets_large_inputs() -> None:
    model = graph("y = MatMul(x, w)", "float[8,4] w = {seed}", x="5,8")
    kept = weights(model, "w")
    size = np.array([9, 1, 5, 1, 2, 9, 1, 7], np.float32)
    feeds = [{"x": f["x"] * size} for f in feeds_of(model)]
    norms = np.sqrt(sum(np.square(f["x"].astype(np.float64)).sum(axis=0) for f in feeds))
    sparsify(model, SparsityOptions(sparsity=0.5, criterion="wanda"), feeds)
    order = np.argsort(np.abs(kept) * norms[:, None], axis=0)[:4]
    mask = np.zeros(kept.shape, bool)
    np.put_along_axis(mask, order, values=True, axis=0)
    np.testing.assert_array_equal(weights(model, "w"), np.where(mask, 0, kept))


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_patterns_hold_along_the_channels(criterion: str) -> None:
    model = net()
    report = apply(model, pattern="2:4", criterion=criterion)
    assert report.sparsity == 0.5
    for name, axis in (("w", 1), ("k", 0)):
        runs = np.moveaxis(weights(model, name), axis, -1).reshape(-1, 4)
        assert (np.count_nonzero(runs, axis=1) == 2).all()


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_the_same_bytes_each_time(criterion: str) -> None:
    models = [net(), net()]
    reports = [apply(model, sparsity=0.6, criterion=criterion) for model in models]
    first, second = (to_proto(model).SerializeToString(deterministic=True) for model in models)
    assert first == second
    assert reports[0] == reports[1]


def test_layers_that_cannot_be_measured_or_divided_stay_dense_with_the_reason() -> None:
    body = """a = Conv(x, s) b = ConvTranspose(a, c) d = Reshape(b, r) e = MatMul(d, m)
              y = MatMul(e, k)"""
    declared = """float[4,8,1,1] s = {seed}, float[4,6,1,1] c = {seed}, int64[3] r = {2, 3, 36},
                  float[2,36,8] m = {seed}, float[8,8] k = {seed}"""
    model = graph(body, declared, x="1,8,6,6")
    options = SparsityOptions(sparsity=0.5, criterion="sparsegpt")
    report = sparsify(model, options, feeds_of(model))
    assert [layer.weight for layer in report.layers] == ["s", "k"]
    assert {one.weight: one.reason for one in report.left} == {
        "c": "a ConvTranspose sums over other weights at each place of its output",
        "m": "it is a batch of matrices",
    }
    report = apply(
        graph(body, declared.replace("36,8", "36,6").replace("[8,8] k", "[6,8] k"), x="1,8,6,6"),
        pattern="2:4",
    )
    assert {one.weight: one.reason for one in report.left} == {
        "k": "its 6 input channels are no multiple of 4"
    }


def test_a_shared_weight_is_fitted_to_all_its_readers() -> None:
    model = graph("t = MatMul(x, w) y = MatMul(t, w)", "float[16,16] w = {seed}", x="4,16")
    report = sparsify(model, SparsityOptions(sparsity=0.5, criterion="sparsegpt"), feeds_of(model, 8))
    assert [(layer.nodes, layer.zeros) for layer in report.layers] == [(("MatMul(t)", "MatMul(y)"), 128)]
    turned = graph("t = MatMul(x, w) y = Gemm<transB=1>(t, w)", "float[16,16] w = {seed}", x="4,16")
    with pytest.raises(UsageError, match="sum over it in different ways"):
        sparsify(turned, SparsityOptions(sparsity=0.5, criterion="wanda"), feeds_of(turned))


def test_the_report_says_what_the_zeros_are_good_for() -> None:
    model = net()
    proto = to_proto(model).SerializeToString(deterministic=True)
    report = apply(model, sparsity=0.5)
    assert "onnxruntime gains nothing from zeros" in report.note
    assert report.gzip_before is not None
    assert report.gzip_after is not None
    assert abs(report.gzip_before - len(gzip.compress(proto, 6))) < 64
    assert report.gzip_after < 0.7 * report.gzip_before
    lines = report.lines()
    assert lines[0].startswith("magnitude, sparsity 0.5, per layer: 2,160 of 4,320 weights in 2 layers")
    assert "compressed by gzip" in lines[1]
    data = report.to_json()
    assert data["zeros"] == 2160
    assert data["layers"][0]["error"] is None
    notes = {
        (target, pattern): apply(net(), target=target, compress=False, **kind).note
        for target in ("tensorrt", "elsewhere")
        for pattern, kind in (("2:4", {"pattern": "2:4"}), ("", {"sparsity": 0.5}))
    }
    assert "may run layers of 2:4 weights faster" in notes["tensorrt", "2:4"]
    assert "sparse kernels for 2:4 only" in notes["tensorrt", ""]
    assert notes["elsewhere", "2:4"] == "nothing is known of elsewhere gaining from zeros"


def test_what_stays_dense_is_told_once_for_each_reason() -> None:
    body = "a = Conv<group=6>(x, d) b = Conv<group=6>(a, e) c = Conv(b, w) y = Conv(c, v)"
    depthwise = "float[6,1,1,1] d = {seed}, float[6,1,1,1] e = {seed}"
    model = graph(body, f"{depthwise}, float[8,6,1,1] w = {{seed}}, float[8,8,1,1] v = {{seed}}", x="1,6,4,4")
    assert apply(model, pattern="2:4", compress=False).lines()[2:] == [
        "'d' of 'Conv(a)' and 1 more stay dense: its 1 input channels are no multiple of 4",
        "'w' of 'Conv(c)' stays dense: its 6 input channels are no multiple of 4",
    ]


def test_the_error_in_the_report_is_that_of_the_layer() -> None:
    model = graph("y = MatMul(x, w)", "float[16,6] w = {seed}", x="9,16")
    feeds, before = feeds_of(model, 6), weights(model, "w")
    report = sparsify(model, SparsityOptions(sparsity=0.5, criterion="sparsegpt"), feeds)
    x = np.concatenate([f["x"] for f in feeds]).astype(np.float64)
    want = np.square(x @ (weights(model, "w") - before)).sum() / np.square(x @ before).sum()
    assert report.layers[0].error == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give a share of zeros"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "not both"),
        ({"sparsity": 1.0}, "no share of weights"),
        ({"pattern": "2-4"}, "N:M"),
        ({"sparsity": 0.5, "criterion": "l2"}, "there are magnitude, wanda, sparsegpt"),
        ({"sparsity": 0.5, "scope": "all"}, "not one of layer, global"),
        (
            {"sparsity": 0.5, "scope": "global", "criterion": "wanda"},
            "criterion magnitude and a sparsity only",
        ),
        ({"sparsity": 0.5, "damping": 0.0}, "is not positive"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        SparsityOptions(**options)
    assert "\n" not in str(caught.value)


def test_data_is_asked_for_and_an_iterator_refused() -> None:
    options = SparsityOptions(sparsity=0.5, criterion="wanda")
    with pytest.raises(UsageError, match="give it data, or take magnitude"):
        sparsify(net(), options)
    with pytest.raises(DataError, match="iterator"):
        sparsify(net(), options, iter(mixed_feeds()))
    with pytest.raises(UsageError, match="nothing in the model can be made sparse: it has no Conv"):
        sparsify(graph("y = Relu(x)"), SparsityOptions(sparsity=0.5))
