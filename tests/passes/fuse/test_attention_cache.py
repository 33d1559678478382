# SPDX-License-Identifier: Apache-2.0
"""Attention behind a cache, or of heads that share keys and values, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.attention import FuseAttention
from tests.support.numerics import assert_rounding, snapshot
from tests.support.rewriting import Rewritten, model_of, rewrite

FUSE = FuseAttention()
RULE = "AttentionOfCache"
WEIGHTS = (
    "float root = {2}, float half = {0.7}, float less = {-1}, float zero = {0}, float far = {-30000}, "
    "int64[1] two = {2}, int64[5] grow = {1, 1, 3, 1, 1}, int64[4] merge = {0, 6, -1, 4}, "
    "int64[4] split = {0, 2, -1, 4}, int64[1] last = {-1}"
)
QUERIES = "float[N,6,T,4] q"
NEW = "float[N,6,T,4] k, float[N,6,T,4] v"
PAST = "float[N,6,P,4] pk, float[N,6,P,4] pv"
FEW = NEW.replace("6", "2"), PAST.replace("6", "2")
Y = "float[N,6,T,4] y"
KEPT = "float[N,6,K,4] nk, float[N,6,K,4] nv"
JOIN = "nk = Concat<axis = 2>(pk, k) nv = Concat<axis = -2>(pv, v) "
SCORES = "kt = Transpose<perm = [0,1,3,2]>(nk) s = MatMul(q, kt) f = Div(s, root) "
END = "p = Softmax<axis = -1>(f) y = MatMul(p, nv) "
CACHED = JOIN + SCORES + END
REPEAT = (
    "uk = Unsqueeze(nk, two) ek = Expand(uk, grow) rk = Reshape(ek, merge) "
    "uv = Unsqueeze(nv, two) ev = Expand(uv, grow) rv = Reshape(ev, merge) "
)
SHARED = JOIN + REPEAT + (SCORES + END).replace("(nk)", "(rk)").replace("nv)", "rv)")


def made(body: str, x: str = f"{QUERIES}, {NEW}, {PAST}", y: str = f"{Y}, {KEPT}", opset: int = 23) -> Model:
    model = model_of(body, WEIGHTS, x=x, y=y, opset=opset)
    infer_shapes(model)
    return model


def fused(model: Model) -> Rewritten:
    """Fuse; numbers hold with a long past, an empty one and one query."""
    before = snapshot(model)
    done = rewrite((FUSE, EliminateDeadCode()), model, N=2, T=3, P=5, K=8, M=8)
    for batch, tokens, past in ((1, 1, 7), (2, 4, 0), (1, 1, 0)):
        sizes = {"N": batch, "T": tokens, "P": past, "K": tokens + past, "M": tokens + past}
        random = np.random.default_rng(tokens)
        feed = {
            port.name: random.standard_normal(
                [d.dim_value or sizes[d.dim_param] for d in port.type.tensor_type.shape.dim]
            ).astype(np.float32)
            for port in before.graph.input
        }
        assert_rounding(before, done.model, feed)
    return done


def test_text_in_text_out() -> None:
    done = fused(made(CACHED))
    assert done.ops == ["Attention"]
    assert "y, nk, nv = Attention" in done.text
    assert "(q, k, v, _, pk, pv)" in done.text
    assert "scale=0.5" in done.text


def test_heads_that_share_keys_and_values() -> None:
    new, past = FEW
    done = fused(made(SHARED, f"{QUERIES}, {new}, {past}", f"{Y}, {KEPT.replace('6', '2')}"))
    assert done.ops == ["Attention"]
    assert "(q, k, v, _, pk, pv)" in done.text


def test_heads_that_share_without_a_cache() -> None:
    body = SHARED.removeprefix(JOIN)
    x = f"{QUERIES}, float[N,2,K,4] nk, float[N,2,K,4] nv"
    done = fused(made(body, x, Y))
    assert done.ops == ["Attention"]
    assert "(q, nk, nv)" in done.text


@pytest.mark.parametrize("mask", ["float[N,1,T,K] m", "float[T,K] m", "float[1,6,T,K] m"])
def test_masks_of_the_whole_length(mask: str) -> None:
    """The caller names the length of past and new tokens; only what is computed of them is known to be it."""
    sized = (
        "ps = Shape<start = 2, end = 3>(pk) ts = Shape<start = 2, end = 3>(k) ks = Add(ps, ts) "
        "ms = Concat<axis = 0>(SIZES) mm = Expand(less, ms) n = Softmax<axis = -1>(mm) "
    )
    named = {"N": "ns", "T": "ts", "K": "ks", "1": "one", "6": "six"}
    sizes = ", ".join(named[s] for s in mask[mask.index("[") + 1 : mask.index("]")].split(","))
    body = "ns = Shape<start = 0, end = 1>(q) one = Constant<value = int64[1] {1}>() "
    body += "six = Constant<value = int64[1] {6}>() "
    body += sized.replace("SIZES", sizes) + JOIN + SCORES + "g = Add(f, n) " + END.replace("(f)", "(g)")
    done = fused(made(body))
    assert "Attention" in done.ops
    assert "MatMul" not in done.ops


def test_readers_of_the_cache_keep_it() -> None:
    """The Concat is read before the operator and behind it; only the graph's output is the operator's."""
    body = JOIN + "a = ReduceMax<keepdims = 0>(nk) qa = Mul(q, a) b = Relu(nv) "
    body += SCORES.replace("(q, kt)", "(qa, kt)") + END
    done = fused(made(body, y=f"{Y}, {KEPT}, float[N,6,M,4] b"))
    assert sorted(done.ops) == ["Attention", "Concat", "Concat", "Mul", "ReduceMax", "Relu"]
    assert not snapshot(done.model).graph.value_info


def test_a_cache_that_is_no_output() -> None:
    done = fused(made(CACHED, y=Y))
    assert done.ops == ["Attention"]


GUARD = "n = IsNaN(p) w = Where(n, zero, p) y = MatMul(w, nv) "


def test_a_guard_without_a_mask_goes() -> None:
    assert fused(made(JOIN + SCORES + END.partition("y =")[0] + GUARD)).ops == ["Attention"]


def test_a_factor_of_the_keys() -> None:
    body = CACHED.replace("(nk)", "(nk) ks = Mul(kt, half)").replace("(q, kt)", "(q, ks)")
    assert fused(made(body)).ops == ["Attention"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (CACHED.replace("root", "less"), "the factor is not a positive number"),
        (CACHED.replace("<axis = -1>", "<axis = 2>"), "not a softmax over keys"),
        (CACHED.replace("nv)", "v2)").replace(JOIN, f"{JOIN} v2 = Relu(nv) "), None),
        (CACHED.replace("perm = [0,1,3,2]", "perm = [0,1,2,3]"), None),
    ],
    ids=["a negative factor", "another axis", "a cache of keys alone", "keys that are not turned"],
)
def test_near_misses(body: str, reason: str | None) -> None:
    model = model_of(body, WEIGHTS, x=f"{QUERIES}, {NEW}, {PAST}", y=f"{Y}, {KEPT}", opset=23)
    infer_shapes(model)
    done = rewrite((FUSE,), model, numbers=False)
    assert "Attention" not in done.ops
    assert reason is None or (RULE, reason) in done.context.misses


@pytest.mark.parametrize(
    ("body", "x"),
    [
        (CACHED, PAST.replace("N,6,P", "B,6,P")),
        (CACHED.replace("(q, kt)", "(r, kt)"), f"{PAST}, float[B,6,T,4] r"),
    ],
    ids=["a past of another batch", "queries of another batch"],
)
def test_batches_that_are_not_known_to_be_equal(body: str, x: str) -> None:
    done = rewrite((FUSE,), made(body, f"{QUERIES}, {NEW}, {x}"), numbers=False)
    assert "Attention" not in done.ops
    assert (RULE, "heads or batches are not known to be equal") in done.context.misses


def test_pasts_of_two_names_are_as_long_wherever_there_is_a_product() -> None:
    done = rewrite(
        (FUSE,),
        made(CACHED, f"{QUERIES}, {NEW}, {PAST.replace('P,4] pv', 'R,4] pv')}"),
        N=2,
        T=3,
        P=5,
        R=5,
        K=8,
    )
    assert done.ops.count("Attention") == 1


def test_lengths_split_otherwise_are_joined_before() -> None:
    """Of equal length in all, but not where the past ends: no cache, so nothing is gained."""
    x = f"{QUERIES}, float[N,6,T,4] k, float[N,6,P,4] v, float[N,6,P,4] pk, float[N,6,T,4] pv"
    assert not rewrite((FUSE,), made(CACHED, x), numbers=False).changed


def test_heads_in_another_order_stay() -> None:
    """Repeated as a whole, head 0 of the keys would serve queries 0, 2 and 4."""
    new, past = FEW
    body = SHARED.replace("two)", "one)").replace("grow)", "tile)")
    body = "one = Constant<value = int64[1] {1}>() tile = Constant<value = int64[5] {1,3,1,1,1}>() " + body
    done = rewrite(
        (FUSE,), made(body, f"{QUERIES}, {new}, {past}", f"{Y}, {KEPT.replace('6', '2')}"), N=2, T=3, P=5, K=8
    )
    assert "(q, k, v, _, pk, pv)" not in done.text


def test_below_opset_23_and_raised() -> None:
    low = rewrite((FUSE,), made(CACHED, opset=17), N=2, T=3, P=5, K=8)
    assert not low.changed
    assert low.reasons == {"needs opset 23"}
    raised = rewrite((FuseAttention(raise_opset=True),), made(CACHED, opset=17), N=2, T=3, P=5, K=8)
    assert "Attention" in raised.ops
