# SPDX-License-Identifier: Apache-2.0
"""The refit: exact where it can be, better on unseen data where it cannot, never worse."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import DataError, constant, parse, to_proto, verify
from tersor.pipeline.prune.reconstruct import refit
from tests.support.prune_refit import cut, error, images, plan_for, refitted

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,4,6,6] y)
<float[12,3,3,3] W = {seed}, float[12] B = {seed}, float[4,12,3,3] V = {seed}>
{
    a = Conv<pads = [1,1,1,1]>(x, W, B)
    r = Relu(a)
    y = Conv(r, V)
}
"""
LINEAR = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[12,3,1,1] W = {seed}, float[12] B = {seed}, float[4,12,1,1] V = {seed}, float[4] C = {seed}>
{
    a = Conv(x, W, B)
    y = Conv(a, V, C)
}
"""
RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,3,3] W = {seed}, float[16,8,1,1] E = {seed}, float[16,1,3,3] D = {seed}, float[16] BD = {seed},
 float[8,16,1,1] P = {seed}, float[8] s = {seed}, float[8] t = {seed}, float[8] m = {seed},
 float[8] v = {1,2,1,2,1,2,1,2}, float[4,8,1,1] H = {seed}>
{
    a = Conv<pads = [1,1,1,1]>(x, W)
    r = Relu(a)
    e = Conv(r, E)
    f = Relu(e)
    d = Conv<pads = [1,1,1,1], group = 16>(f, D, BD)
    h = Relu(d)
    p = Conv(h, P)
    n = BatchNormalization(p, s, t, m, v)
    z = Add(n, r)
    q = Relu(z)
    y = Conv(q, H)
}
"""
BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,8,8] x) => (float[N,8,8,8] y)
<float[8,3,3,3] W = {seed}, float[8,8,3,3] K = {seed}, float[12,3,3,3] E = {seed}, float[8,12,1,1] P = {seed},
 float[8] s = {1,2,1,2,1,2,1,2}, float[8] t = {seed}, float[8] m = {seed}, float[8] v = {1,2,1,2,1,2,1,2}>
{
    a = Conv<pads = [1,1,1,1]>(x, W)
    o = Relu(a)
    k = Conv<pads = [1,1,1,1]>(o, K)
    e = Conv<pads = [1,1,1,1]>(x, E)
    f = Relu(e)
    p = Conv(f, P)
    n = BatchNormalization(p, s, t, m, v)
    y = Add(n, k)
}
"""
ENDS = {
    "Gemm": """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,6] x) => (float[N,4] y)
<float[10,6] W = {seed}, float[10] B = {seed}, float[10,4] V = {seed}, float[1,4] C = {seed}>
{
    a = Gemm<transB = 1>(x, W, B)
    r = Relu(a)
    y = Gemm<alpha = 0.5, beta = 2.0>(r, V, C)
}
""",
    "MatMul": """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,5,6] x) => (float[N,5,4] y)
<float[6,10] W = {seed}, float[10] B = {seed}, float[4,10] VT = {seed}, float[4] C = {seed}>
{
    a = MatMul(x, W)
    b = Add(a, B)
    r = Relu(b)
    V = Transpose<perm = [1,0]>(VT)
    m = MatMul(r, V)
    y = Add(C, m)
}
""",
    "Conv1d": """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,6,9] x) => (float[N,4,5] y)
<float[10,6,1] W = {seed}, float[10] B = {seed}, float[4,10,4] V = {seed}>
{
    a = Conv(x, W, B)
    r = Relu(a)
    y = Conv<auto_pad = "SAME_LOWER", strides = [2]>(r, V)
}
""",
}


def no_branch(linear: object, order: object) -> tuple[None, tuple[()]]:
    """In place of the search for a residual branch."""
    return None, ()


def test_what_the_rest_can_say_is_said_exactly() -> None:
    """Twelve channels made linearly of three: any six can stand in for all."""
    kept = {"a:1": [0, 2, 3, 5, 8, 9]}
    feeds, unseen = images(20, (1, 3, 8, 8)), images(5, (1, 3, 8, 8), seed=1)
    pruned, report = refitted(LINEAR, kept, feeds)
    original = parse(LINEAR)
    assert error(original, cut(LINEAR, kept), unseen) > 0.05
    assert error(original, pruned, unseen) < 1e-6
    assert [r.reason for r in report] == [""]
    assert report[0].after < 1e-6 < report[0].before


@pytest.mark.parametrize(("text", "kept"), [
    (CHAIN, {"a:1": list(range(8))}),
    (RESIDUAL, {"a:1": list(range(6)), "e:1": list(range(11))}),
])  # fmt: skip
def test_unseen_data_is_closer_than_plainly_sliced(text: str, kept: dict[str, list[int]]) -> None:
    feeds, unseen = images(40, (1, 3, 8, 8)), images(10, (1, 3, 8, 8), seed=1)
    pruned, report = refitted(text, kept, feeds)
    verify(pruned)
    original = parse(text)
    assert error(original, pruned, unseen) < 0.5 * error(original, cut(text, kept), unseen)
    assert all(r.after <= r.before for r in report)
    assert report[-1].after == pytest.approx(error(original, pruned, unseen), rel=0.5)


@pytest.mark.parametrize("kind", list(ENDS))
def test_each_kind_of_layer_is_refitted_as_it_computes(kind: str) -> None:
    """The reported error, in the layer's own terms, is the error of the model that was written."""
    text = ENDS[kind]
    original = parse(text)
    (group,) = couple(original).groups
    kept = {group.name: list(range(7))}
    shape = {"Gemm": (16, 6), "MatMul": (2, 5, 6), "Conv1d": (2, 6, 9)}[kind]
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(120)]
    pruned, (report,) = refitted(text, kept, feeds)
    axis = 1 if kind == "Conv1d" else -1
    assert report.before == pytest.approx(error(original, cut(text, kept), feeds, axis), rel=1e-4)
    assert report.after == pytest.approx(error(original, pruned, feeds, axis), rel=0.1)
    assert report.after < 0.9 * report.before


def test_a_depthwise_layer_follows_its_shifted_input() -> None:
    _, report = refitted(RESIDUAL, {"a:1": [0, 1, 2, 4, 6]}, images(30, (1, 3, 8, 8)))
    by_output = {r.output: r for r in report}
    assert not by_output["d"].reason
    assert by_output["d"].after < by_output["d"].before


def test_the_branch_last_before_an_add_makes_up_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error at the Add is minimised, behind the branch's normalisation, not that of the branch alone."""
    text = BRANCHES
    feeds, kept = images(40, (1, 3, 8, 8)), {"a:1": [0, 1, 2, 4, 6]}
    helped, _ = refitted(text, kept, feeds)
    monkeypatch.setattr("tersor.pipeline.prune.schedule._branch", no_branch)
    alone, _ = refitted(text, kept, feeds)
    assert error(parse(text), helped, feeds) < 0.95 * error(parse(text), alone, feeds)


def test_little_noisy_data_does_no_harm() -> None:
    """With as many unknowns as rows, plain least squares would fit the noise."""
    kept = {"a:1": list(range(9))}
    text = ENDS["Gemm"].replace("N,", "2,")
    (group,) = couple(parse(text)).groups
    kept = {group.name: list(range(9))}
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.standard_normal((2, 6)).astype(np.float32)} for _ in range(5)]
    unseen = [{"x": rng.standard_normal((2, 6)).astype(np.float32)} for _ in range(100)]
    pruned, _ = refitted(text, kept, feeds)
    original = parse(text)
    assert error(original, pruned, unseen) < 1.2 * error(original, cut(text, kept), unseen)


def test_the_same_data_and_seed_give_the_same_bytes() -> None:
    kept, feeds = {"a:1": list(range(8))}, images(10, (1, 3, 8, 8))
    one, two = (to_proto(refitted(CHAIN, kept, feeds)[0]).SerializeToString() for _ in range(2))
    assert one == two


def test_the_original_is_left_alone_and_levels_are_counted() -> None:
    original = parse(RESIDUAL)
    before = to_proto(original).SerializeToString()
    kept = {"a:1": [0, 1, 2, 4, 6]}
    told: list[tuple[int, int | None]] = []
    refit(
        original,
        cut(RESIDUAL, kept),
        plan_for(original, kept).masks(couple(original)),
        images(8, (1, 3, 8, 8)),
        progress=lambda done, total: told.append((done, total)),
    )
    assert to_proto(original).SerializeToString() == before
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_shared_and_quantized_weights_are_left_with_a_reason() -> None:
    text = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,6] x) => (float[N,6] y, float[N,6] z)
<float[6,10] W = {seed}, float[10,6] V = {seed}>
{
    a = MatMul(x, W)
    r = Relu(a)
    y = MatMul(r, V)
    s = Sigmoid(r)
    z = MatMul(s, V)
}
"""
    (group,) = couple(parse(text)).groups
    kept = {group.name: list(range(7))}
    feeds = [{"x": np.random.default_rng(i).standard_normal((4, 6)).astype(np.float32)} for i in range(8)]
    pruned, report = refitted(text, kept, feeds)
    assert {r.output: r.reason for r in report} == dict.fromkeys("yz", "its weight is shared")
    held = {name: constant(value) for name, value in pruned.graph.initializers.items()}
    plain = cut(text, kept)
    assert all(np.array_equal(held[n], constant(v)) for n, v in plain.graph.initializers.items())  # pyright: ignore[reportArgumentType]


def test_no_data_is_refused() -> None:
    original, kept = parse(CHAIN), {"a:1": list(range(8))}
    masks = plan_for(original, kept).masks(couple(original))
    with pytest.raises(DataError, match="no feeds"):
        refit(original, cut(CHAIN, kept), masks, [])
    with pytest.raises(DataError, match="iterator"):
        refit(original, cut(CHAIN, kept), masks, iter(images(2, (1, 3, 8, 8))))
