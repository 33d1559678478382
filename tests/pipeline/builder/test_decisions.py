# SPDX-License-Identifier: Apache-2.0
"""Models that decide: closeness and evidence come from what they decide by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from tersor.backends.onnxruntime.session import OrtSession
from tersor.pipeline.builder.accuracy import Judge
from tersor.pipeline.builder.decisions import Decisions, decisions
from tersor.pipeline.builder.result import Candidate
from tersor.pipeline.builder.settings import BuildSettings

CLASSES = """
   logits = MatMul(x, w)
   ids = ArgMax<axis = 1, keepdims = 0>(logits)
"""


def write(folder: Path, body: str, outputs: str, weights: str = "", name: str = "original") -> Path:
    lines = [line for line in body.splitlines() if line.strip()]
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x) => ({outputs}) <float[4, 3] w = {{1, 2, 3, 4, 3, 2, 1, 0, -1, -2, -3, 1}}{weights}>
    {{ {chr(10).join(lines)} }}"""
    path = folder / f"{name}.onnx"
    onnx.save(parser.parse_model(text), path)
    return path


def feed(rows: int = 5, seed: int = 0) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)}


def where(path: Path) -> Decisions:
    found = decisions(path)
    assert found is not None
    return found


def test_a_class_is_decided_by_logits(tmp_path: Path) -> None:
    found = where(write(tmp_path, CLASSES, "int64[N] ids"))
    assert (found.floats, found.rest) == (("logits",), ("ids",))
    assert found.read == {"logits": 1}


def test_outputs_of_no_decision_are_compared_themselves(tmp_path: Path) -> None:
    body = f"{CLASSES}\nscores = Softmax(logits)\nbest = ReduceMax<axes = [1]>(scores)"
    found = where(write(tmp_path, body, "float[N, 1] best, int64[N] ids"))
    assert (found.floats, found.rest) == (("best", "logits"), ("ids",))


def test_what_is_gathered_by_a_decision_belongs_to_it(tmp_path: Path) -> None:
    body = """
       logits = MatMul(x, w)
       top, index = TopK<axis = 0>(logits, k)
       doubled = Add(top, top)
       count = Shape(logits)
    """
    found = where(write(tmp_path, body, "float[2, 3] doubled, int64[2] count", ", int64[1] k = {2}"))
    assert (found.floats, found.rest) == (("logits",), ("doubled", "count"))


def test_the_cut_is_in_front_of_a_transpose_that_passes_take_away(tmp_path: Path) -> None:
    body = "logits = MatMul(x, w)\nturned = Transpose<perm = [1, 0]>(logits)\nids = ArgMax<axis = 0>(turned)"
    found = where(path := write(tmp_path, body, "int64[1, N] ids"))
    assert (found.floats, found.read) == (("logits",), {"logits": 1})
    with OrtSession(found.behind(path)) as rest:
        logits = np.array([[0, 2, 1], [5, 3, 4]], np.float32)
        (ids,) = rest.run_unchecked({**feed(2), "logits": logits}, found.rest)
    assert ids.tolist() == [[1, 0]]


def test_a_sequence_has_no_error_that_could_be_made_larger(tmp_path: Path) -> None:
    body = """
       logits = MatMul(x, w)
       parts = SplitToSequence<axis = 1>(logits)
       count = SequenceLength(parts)
    """
    assert decisions(write(tmp_path, body, "int64 count")) is None


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("y = MatMul(x, w)", "float[N, 3] y"),
        ("positive = Greater(x, zero)\nmask = Cast<to = 1>(positive)\ny = MatMul(mask, w)", "float[N, 3] y"),
        # A layer behind the decision: an error in front of it is not all there is.
        (
            "a = MatMul(x, w)\nb = Greater(a, zero)\nc = Cast<to = 1>(b)\ny = MatMul(c, v)",
            "float[N, 3] y",
        ),
        ("y = MatMul(x, w)\nn = Shape(y)", "float[N, 3] y, int64[2] n"),
        ("y = MatMul(x, w)\nn = ArgMax(x)", "float[N, 3] y, int64[1, 4] n"),
    ],
)
def test_no_decision_that_an_error_could_tip(body: str, outputs: str, tmp_path: Path) -> None:
    weights = ", float zero = {0}, float[3, 3] v = {1, 2, 3, 4, 5, 6, 7, 8, 9}"
    assert decisions(write(tmp_path, body, outputs, weights)) is None


def test_the_halves_give_what_the_whole_gives(tmp_path: Path) -> None:
    body = """
       half = Constant<value_float = 0.5>()
       y = MatMul(x, w)
       s = Sigmoid(y)
       n = Shape(s)
       low = Less(s, half)
       at = NonZero(low)
       pairs = Transpose(at)
       kept = GatherND(y, pairs)
    """
    path = write(tmp_path, body, "float[K] kept, float[N, 3] s, int64[2] n")
    found = where(path)
    assert (set(found.floats), found.rest) == ({"s", "y"}, ("kept", "n"))
    before = found.before(path)
    assert before is not None
    with OrtSession(path) as whole, OrtSession(before) as first, OrtSession(found.behind(path)) as second:
        run = found.finished(first.run, second, ["kept", "s", "n"])
        for want, got in zip(whole.run(feed()), run(feed()), strict=True):
            np.testing.assert_array_equal(want, got)


def first_classes(run: Callable[[dict[str, Any]], list[Any]]) -> float:
    """How often one of ten samples is of class 0; one more, so that it is never 0."""
    return 1.0 + np.count_nonzero(run(feed(10, 3))[0] == 0) / 10


def judge(path: Path, metric: str) -> Judge:
    settings = BuildSettings(path, path.parent / "out", metric=f"{__name__}:{metric}", max_drop=0.5)
    return Judge(Candidate("original", path), [feed(), feed(7, 1)], settings)


def test_forms_are_compared_and_vouched_for_by_what_they_decide_by(tmp_path: Path) -> None:
    judging = judge(write(tmp_path, CLASSES, "int64[N] ids"), "first_classes")
    shifted = CLASSES.replace("MatMul(x, w)", "MatMul(x, w)\nlogits = Add(exact, off)")
    shifted = shifted.replace("logits = MatMul", "exact = MatMul")
    weights = ", float[3] off = {0.1, -0.1, 0}"
    path = write(tmp_path, shifted, "int64[N] ids", weights, "off")
    found = judging.judge(Candidate("off", path, quantized=True))
    assert set(found.fidelity) == {"ids"}
    assert set(found.before) == {"logits"}
    assert 30 < found.closeness_db < 60
    assert judging.closeness(Candidate("off", path)) == found.closeness_db
    asked = judging.vouch(Candidate("off", path, quantized=True), found)
    assert asked.accepted
    assert asked.expected is not None


def test_a_form_that_lacks_what_is_decided_by_is_not_vouched_for(tmp_path: Path) -> None:
    judging = judge(write(tmp_path, CLASSES, "int64[N] ids"), "first_classes")
    renamed = CLASSES.replace("logits", "other").replace("x, w", "x, w2")
    weights = ", float[4, 3] w2 = {1.1, 2, 3, 4, 3, 2, 1, 0, -1, -2, -3, 1}"
    candidate = Candidate("other", write(tmp_path, renamed, "int64[N] ids", weights, "other"), quantized=True)
    found = replace(judging.judge(candidate), accepted=True)
    assert not found.before
    asked = judging.vouch(candidate, found)
    assert asked.accepted == (found.closeness_db == np.inf)
    assert asked.accepted or "has another name" in asked.reason
