# SPDX-License-Identifier: Apache-2.0
"""Criteria against their formulas, written out over the weights."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.coupling import couple
from tersor.graph_ir import DataError, Model, UsageError, constant, parse
from tersor.pipeline.prune.criteria import TABLE, Request, get, names, normalise
from tersor.pipeline.prune.criteria.l1 import L1
from tersor.pipeline.prune.criteria.l2 import L2

RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,6,6] x) => (float[N,4,6,6] y)
<float[8,3,3,3] W = {seed}, float[8] g = {seed}, float[8] t = {seed}, float[8] m = {seed},
 float[8] v = {1,2,1,2,1,2,1,2}, float[8,8,3,3] K = {seed}, float[8] B = {seed}, float[4,8,1,1] H = {seed}>
{
    a = Conv<pads = [1,1,1,1]>(x, W)
    n = BatchNormalization(a, g, t, m, v)
    r = Relu(n)
    k = Conv<pads = [1,1,1,1]>(r, K, B)
    z = Add(k, r)
    y = Conv(z, H)
}
"""
CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3] x) => (float[N,4] y)
<float[3,6] W = {seed}, float[4,6] V = {seed}>
{
    a = MatMul(x, W)
    r = Relu(a)
    y = Gemm<transB = 1>(r, V)
}
"""


def weight(model: Model, name: str) -> NDArray[np.float64]:
    array = constant(model.graph.initializers[name])
    assert array is not None
    return array.astype(np.float64)


def scored(text: str, name: str, seed: int = 0) -> tuple[Model, NDArray[np.float64]]:
    """The scores of the model's only group."""
    model = parse(text)
    (scores,) = get(name).score(Request(model, couple(model), feeds(model), seed)).values()
    return model, scores


def feeds(model: Model) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(0)
    shape = [2, *(int(d) for d in model.graph.inputs[0].shape or () if isinstance(d, int))]
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]


def test_l1_and_l2_sum_over_every_layer_that_makes_the_channel() -> None:
    model, l1 = scored(RESIDUAL, "l1")
    _, l2 = scored(RESIDUAL, "l2")
    made = [weight(model, "W").reshape(8, -1), weight(model, "K").reshape(8, -1)]
    np.testing.assert_allclose(l1, sum(np.abs(w).sum(axis=1) for w in made))
    np.testing.assert_allclose(l2, np.sqrt(sum((w * w).sum(axis=1) for w in made)))


def test_consumers_count_when_asked() -> None:
    model = parse(CHAIN)
    made, read = np.transpose(weight(model, "W")), np.transpose(weight(model, "V"))
    (l1,) = L1(consumers=True).score(Request(model, couple(model), None, 0)).values()
    (l2,) = L2(consumers=True).score(Request(model, couple(model), None, 0)).values()
    np.testing.assert_allclose(l1, np.abs(made).sum(axis=1) + np.abs(read).sum(axis=1))
    np.testing.assert_allclose(l2, np.sqrt((made**2).sum(axis=1) + (read**2).sum(axis=1)))


def test_weights_behind_moves_and_casts_and_grids_are_the_same_weights() -> None:
    text = CHAIN.replace("float[3,6] W", "float[6,3] WT").replace(
        "a = MatMul(x, W)",
        """T = Transpose<perm = [1,0]>(WT)
    I = Identity(T)
    C = Cast<to = 1>(I)
    a = MatMul(x, C)""",
    )
    model, l1 = scored(text, "l1")
    np.testing.assert_allclose(l1, np.abs(weight(model, "WT")).sum(axis=1), rtol=1e-6)
    grid = CHAIN.replace("float[3,6] W = {seed}", "int8[3,6] Q = {seed}, float[6] s = {1,2,3,4,5,6}").replace(
        "a = MatMul(x, W)", "W = DequantizeLinear<axis = 1>(Q, s)\n a = MatMul(x, W)"
    )
    model, l1 = scored(grid, "l1")
    np.testing.assert_allclose(l1, np.abs(weight(model, "Q")).sum(axis=0) * np.arange(1, 7))


def test_bn_gamma_is_the_scale_and_needs_one() -> None:
    model, scores = scored(RESIDUAL, "bn-gamma")
    np.testing.assert_allclose(scores, np.abs(weight(model, "g")))
    with pytest.raises(UsageError, match=r"no channel to prune passes a BatchNormalization.*take l2"):
        scored(CHAIN, "bn-gamma")


def test_lamp_is_the_share_of_what_is_left() -> None:
    model, scores = scored(CHAIN, "lamp")
    squares = (weight(model, "W") ** 2).sum(axis=0)
    np.testing.assert_allclose(scores, [q / squares[squares >= q].sum() for q in squares])
    assert scores.max() == 1.0


def test_fpgm_is_the_distance_to_all_others() -> None:
    model, scores = scored(CHAIN, "fpgm")
    filters = np.transpose(weight(model, "W"))
    expected = [np.linalg.norm(filters - one, axis=1).sum() for one in filters]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_random_follows_the_seed() -> None:
    _, one = scored(CHAIN, "random", 1)
    _, same = scored(CHAIN, "random", 1)
    _, other = scored(CHAIN, "random", 2)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.unique(one).size == 6


def test_wanda_weighs_columns_by_what_they_read() -> None:
    model, scores = scored(CHAIN, "wanda")
    x = np.concatenate([feed["x"] for feed in feeds(model)]).astype(np.float64)
    read = np.maximum(x @ weight(model, "W"), 0.0)
    expected = np.sqrt((read**2).mean(axis=0)) * np.abs(weight(model, "V")).sum(axis=0)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_wanda_reads_grouped_and_transposed_convolutions_by_channel() -> None:
    text = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,4,4] x) => (float[N,4,4,4] y)
<float[6,3,1,1] W = {seed}, float[6,4,1,1] V = {seed}>
{
    a = Conv(x, W)
    y = ConvTranspose(a, V)
}
"""
    model, scores = scored(text, "wanda")
    x = np.concatenate([feed["x"] for feed in feeds(model)]).astype(np.float64)
    read = np.einsum("nchw,oc->nohw", x, weight(model, "W")[:, :, 0, 0])
    rms = np.sqrt((read**2).mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(scores, rms * np.abs(weight(model, "V")).sum(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("name", ["wanda", "reconstruction"])
def test_criteria_of_data_say_when_it_is_missing(name: str) -> None:
    model = parse(CHAIN)
    assert get(name).needs_data
    with pytest.raises(UsageError, match="needs data; give some, or take l2"):
        get(name).score(Request(model, couple(model), None, 0))
    with pytest.raises(DataError, match="iterator"):
        get(name).score(Request(model, couple(model), iter(feeds(model)), 0))


def test_scores_leave_the_model_alone_and_cover_every_group() -> None:
    for name in ("l1", "l2", "lamp", "fpgm", "random", "wanda", "reconstruction", "bn-gamma"):
        model = parse(RESIDUAL)
        coupling = couple(model)
        before = weight(model, "W")
        scores = get(name).score(Request(model, coupling, feeds(model), 0))
        assert get(name).name == name
        assert {n: s.shape for n, s in scores.items()} == {g.name: (g.atoms,) for g in coupling.groups}
        assert all(np.isfinite(s).all() and (s >= 0).all() for s in scores.values())
        np.testing.assert_array_equal(weight(model, "W"), before)


def test_normalised_scores_have_mean_one() -> None:
    found = normalise({"a": np.array([1.0, 3.0]), "b": np.zeros(3)})
    np.testing.assert_allclose(found["a"], [0.5, 1.5])
    np.testing.assert_allclose(found["b"], 1.0)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    assert names() == sorted(TABLE)
    with pytest.raises(UsageError, match="'recontruction'; did you mean reconstruction"):
        get("recontruction")
