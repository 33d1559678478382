# SPDX-License-Identifier: Apache-2.0
"""The reconstruction criterion against least squares solved outright."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.coupling import couple
from tersor.graph_ir import parse
from tersor.passes.linear.patches import Moments
from tersor.pipeline.prune.criteria import Request, get, readers
from tersor.pipeline.prune.criteria.readers import Reader
from tersor.pipeline.prune.criteria.reconstruction import Problem, eliminate, problem_of
from tests.support.prune_refit import error, images, refitted

TWINS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2,5,5] x) => (float[N,3,5,5] y)
<float[4,2,1,1] W = {1,0, 1,0, 0,1, 0,0.5}, float[4] B = {0,0,0,5}, float[3,4,1,1] V = {seed}>
{
    a = Conv(x, W, B)
    r = Sigmoid(a)
    y = Conv(r, V)
}
"""


def solved(x: NDArray[np.float64], y: NDArray[np.float64], channels: list[int]) -> float:
    """Squared error per row of the best fit of y from some channels of x and a constant."""
    known = np.column_stack([x[:, channels], np.ones(len(x))])
    best = np.linalg.lstsq(known, y, rcond=None)[0]
    return float(np.square(y - known @ best).sum() / len(x))


def test_losses_are_those_of_the_best_refit() -> None:
    """Each removal's loss is by how much the error of the outright solution grows (with next to no ridge)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) @ rng.standard_normal((3, 6)) + 0.3 * rng.standard_normal((400, 6))
    weights = rng.standard_normal((6, 5))
    y = x @ weights
    centred = x - x.mean(axis=0)
    covariance = np.matmul(np.transpose(centred), centred) / len(x)
    problem = Problem(
        np.asarray(np.linalg.inv(covariance), np.float64),
        np.matmul(weights, np.transpose(weights)),
        np.arange(6)[:, None],
    )
    alive, before = list(range(6)), 0.0
    while len(alive) > 1:
        losses = problem.losses(np.array(alive))
        for i, atom in enumerate(alive):
            rest = [a for a in alive if a != atom]
            assert losses[i] == pytest.approx(solved(x, y, rest) - before, rel=1e-6, abs=1e-9)
        gone = alive.pop(int(np.argmin(losses)))
        problem.remove(gone)
        before = solved(x, y, alive)


def test_many_removals_agree_with_the_block_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batched updates of single channels against the plain ones, over more than one batch."""
    monkeypatch.setattr("tersor.pipeline.prune.criteria.surgery._BATCH", 32)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((200, 80)) @ rng.standard_normal((80, 80))
    weights = rng.standard_normal((80, 7))
    inverse = np.asarray(np.linalg.inv(np.cov(x, rowvar=False) + np.eye(80)), np.float64)
    gram = np.matmul(weights, np.transpose(weights))
    single = Problem(np.array(inverse), np.array(gram), np.arange(80)[:, None])
    # Channels in pairs, the second a spare that nothing reads and that is unrelated to all.
    spare = np.block([[inverse, np.zeros((80, 80))], [np.zeros((80, 80)), np.eye(80)]])
    read = np.block([[gram, np.zeros((80, 80))], [np.zeros((80, 80)), np.zeros((80, 80))]])
    paired = Problem(spare, read, np.arange(80)[:, None] + np.array([0, 80]))
    np.testing.assert_allclose(eliminate([single], 80), eliminate([paired], 80), rtol=1e-6)


def test_atoms_of_several_channels_are_removed_as_one() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6))
    weights = rng.standard_normal((6, 2))
    centred = x - x.mean(axis=0)
    members = np.array([[0, 3], [1, 4], [2, 5]])
    problem = Problem(
        np.asarray(np.linalg.inv(np.matmul(np.transpose(centred), centred) / 300), np.float64),
        np.matmul(weights, np.transpose(weights)),
        members,
    )
    expected = [solved(x, x @ weights, [i for i in range(6) if i not in pair]) for pair in members.tolist()]
    np.testing.assert_allclose(problem.losses(np.arange(3)), expected, rtol=1e-6)


def test_the_last_atom_to_go_takes_all_that_is_left() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((500, 4))
    products = np.matmul(np.transpose(rows), rows)
    moments = Moments(500, rows.sum(0)[None], np.square(rows).sum(0)[None], products[None])
    made = parse(TWINS).graph[0]
    reader = Reader(made, made.outputs[0], 1, rng.standard_normal((4, 3)), np.arange(4, dtype=np.int32))
    problem = problem_of([reader], moments)
    assert problem is not None
    scores = eliminate([problem], 4)
    assert scores.sum() == pytest.approx(1.0, rel=0.01)  # shares of the output's variance, channels unrelated
    assert np.unique(scores).size == 4


def test_of_equal_channels_one_is_free_and_a_constant_one_is_too() -> None:
    model = parse(TWINS)
    (scores,) = (
        get("reconstruction").score(Request(model, couple(model), images(20, (1, 2, 5, 5)), 0)).values()
    )
    assert scores[:2].min() < 1e-3 < 0.05 * scores[:2].max()
    assert scores[3] < 0.05 * scores[2]


def test_what_it_keeps_serves_the_refit_better_than_magnitude() -> None:
    text = TWINS.replace("float[4] B = {0,0,0,5}", "float[4] B = {0,0,0,0}")
    feeds = images(20, (1, 2, 5, 5))
    model = parse(text)
    (group,) = couple(model).groups
    errors: dict[str, float] = {}
    for name in ("reconstruction", "l2"):
        scores = get(name).score(Request(model, couple(model), feeds, 0))[group.name]
        kept = {group.name: sorted(np.argsort(-scores, kind="stable")[:2].tolist())}
        errors[name] = error(model, refitted(text, kept, feeds)[0], feeds)
    assert errors["reconstruction"] < 0.2 * errors["l2"]


def test_data_and_seed_decide() -> None:
    model = parse(TWINS.replace("5,5]", "40,40]"))
    one, two = (
        get("reconstruction").score(Request(model, couple(model), images(5, (1, 2, 40, 40)), 3))
        for _ in range(2)
    )
    np.testing.assert_array_equal(next(iter(one.values())), next(iter(two.values())))


def test_moments_that_do_not_fit_in_memory_together_are_taken_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = parse(
        TWINS.replace("y = Conv(r, V)", "c = Conv(r, V)\n    y = Conv(c, T)").replace(
            "float[3,4,1,1] V = {seed}", "float[3,4,1,1] V = {seed}, float[3,3,1,1] T = {seed}"
        )
    )
    coupling, feeds = couple(model), images(20, (1, 2, 5, 5))
    assert len(coupling.groups) == 2
    want = get("reconstruction").score(Request(model, coupling, feeds, 0))
    monkeypatch.setattr(readers, "_MOST_BYTES", 1)
    told: list[tuple[int, int | None]] = []

    def tell(done: int, total: int | None) -> None:
        told.append((done, total))

    got = get("reconstruction").score(Request(model, coupling, feeds, 0, tell))
    # Moments of the first group, its turn; moments of the second, its turn.
    runs = [(done // 20, 4) for done in range(1, 21)]
    assert told == [*runs, (1, 4), *((2 + done, total) for done, total in runs), (3, 4)]
    for name, scores in want.items():
        np.testing.assert_array_equal(got[name], scores)
