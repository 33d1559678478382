# SPDX-License-Identifier: Apache-2.0
"""`tersor bench` and `tersor compare`: what they measure, and their exit codes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import parse, save
from tests.support.command import tersor

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y, float[N,4] z)
<float[4] w = {1.0, 2.0, 3.0, 4.0}> { y = Mul(x, w)  z = Relu(x) }
"""


def write(folder: Path, name: str, text: str) -> Path:
    save(parse(text), folder / name)
    return folder / name


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, one whose first output is 10 % off, and data."""
    data = tmp_path / "d.npz"
    np.savez(data, x=np.random.default_rng(0).standard_normal((6, 4), np.float32))
    off = write(tmp_path, "b.onnx", TEXT.replace("1.0, 2.0, 3.0, 4.0", "1.1, 2.2, 3.3, 4.4"))
    return write(tmp_path, "a.onnx", TEXT), off, data


def test_compare_measures_each_output(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]
) -> None:
    a, b, data = pair
    found = json.loads(tersor(capsys, "compare", a, b, "--data", data, "--json").out)
    assert found["samples"] == 6
    y, z = found["outputs"]
    assert y["sqnr_db"] == pytest.approx(20.0, abs=0.01)
    assert y["cosine"] == pytest.approx(1.0)
    x = np.load(data)["x"]
    assert y["max_abs"] == pytest.approx(0.1 * np.abs(x * [1, 2, 3, 4]).max(), rel=1e-4)
    assert (z["sqnr_db"], z["max_abs"]) == ("inf", 0.0)
    assert (y["count"], z["count"]) == (24, 24)


def test_compare_says_how_much_is_no_number(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    *_, data = pair
    void = write(tmp_path, "void.onnx", TEXT.replace("Relu(x)", "Sqrt(x)"))
    negative = int(np.count_nonzero(np.load(data)["x"] < 0))
    done = tersor(capsys, "compare", void, void, "--data", data)
    assert f"output 'z': {negative} of 24 elements are NaN or infinite in both" in done.out
    y, z = json.loads(tersor(capsys, "compare", void, void, "--data", data, "--json").out)["outputs"]
    assert (y["void"], z["void"]) == (0, negative)


def test_compare_fails_below_the_limit(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]
) -> None:
    a, b, data = pair
    assert tersor(capsys, "compare", a, b, "--data", data, "--min-sqnr", "19").code == 0
    done = tersor(capsys, "compare", a, b, "--data", data, "--min-sqnr", "21")
    assert done.code == 1
    assert done.err == "error: output 'y' has an SQNR of 20.0 dB, 21 are asked for\n"
    assert "6 samples" in done.out
    done = tersor(capsys, "compare", a, b, "--data", data, "--min-sqnr", "21", "--json")
    assert (done.code, json.loads(done.out)["ok"]) == (1, False)


def test_compare_limits_samples(capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]) -> None:
    a, b, data = pair
    found = json.loads(tersor(capsys, "compare", a, b, "--data", data, "--samples", "2", "--json").out)
    assert found["samples"] == 2


def test_compare_matches_outputs_by_name_or_else_by_order(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]
) -> None:
    a, _, data = pair
    swapped = write(
        a.parent, "s.onnx", TEXT.replace("float[N,4] y, float[N,4] z", "float[N,4] z, float[N,4] y")
    )
    renamed = write(a.parent, "r.onnx", TEXT.replace("y", "u").replace(" z", " v"))
    for other in (swapped, renamed):
        found = json.loads(tersor(capsys, "compare", a, other, "--data", data, "--json").out)
        assert [output["sqnr_db"] for output in found["outputs"]] == ["inf", "inf"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("float[N,4] y, float[N,4] z", "float[N,4] y"), "has 2 outputs"),
        (("float[N,4] x", "float[N,5] x"), "take other inputs: 'x' is float[N, 4] and float[N, 5]"),
    ],
)
def test_compare_refuses_what_does_not_match(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path], change: tuple[str, str], message: str
) -> None:
    a, _, data = pair
    text = TEXT.replace(*change).replace("float[4] w = {1.0, 2.0, 3.0, 4.0}", "float[1] w = {1.0}")
    other = write(
        a.parent,
        "o.onnx",
        text.replace("float[N,4] y", "float[N,M] y").replace("float[N,4] z", "float[N,M] z"),
    )
    done = tersor(capsys, "compare", a, other, "--data", data)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_compare_refuses_a_limit_that_is_no_number(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]
) -> None:
    a, b, data = pair
    done = tersor(capsys, "compare", a, b, "--data", data, "--min-sqnr", "nan")
    assert (done.code, done.out) == (2, "")
    assert "--min-sqnr is a number of dB, not nan" in done.err


def test_compare_refuses_nan_in_the_data(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]
) -> None:
    a, b, data = pair
    np.savez(data, x=np.full((2, 4), np.nan, np.float32))
    done = tersor(capsys, "compare", a, b, "--data", data)
    assert done.code == 2
    assert "sample 0, input 'x': holds NaN" in done.err


def test_bench_reports_every_model_and_thread_count(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]
) -> None:
    a, b, data = pair
    flags = ["--rounds", "2", "--budget", "0.5", "--data", data, "--threads", "1", "--json"]
    found = json.loads(tersor(capsys, "bench", a, b, a, *flags).out)
    assert [entry["model"] for entry in found] == [str(a), str(b), f"{a} #2"]
    assert all(entry["threads"] == 1 for entry in found)
    assert all(0 < entry["min_ms"] <= entry["median_ms"] for entry in found)
    assert found[0]["speed"]["median"] == 1.0
    assert math.isfinite(found[1]["speed"]["median"])
    table = tersor(capsys, "bench", a, b, *flags[:-1]).out.splitlines()
    assert [row.endswith("too few rounds") for row in table[2:4]] == [False, True]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("0", "--budget must be more than nothing, not 0 s"),
        ("soon", "--budget: 'soon' is no time; write 90s, 2m or 1h30m"),
        ("nan", "--budget: 'nan' is no time; write 90s, 2m or 1h30m"),
    ],
)
def test_bench_takes_no_budget_of_nothing(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path], budget: str, said: str
) -> None:
    done = tersor(capsys, "bench", pair[0], "--budget", budget)
    assert (done.code, done.out, done.err) == (2, "", f"error: {said}\n")


def test_bench_takes_samples_of_every_shape_in_turn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = write(
        tmp_path,
        "a.onnx",
        TEXT.replace("[N,4]", "[N,M]").replace("1.0, 2.0, 3.0, 4.0", "1.0").replace("float[4]", "float[1]"),
    )
    (tmp_path / "feeds").mkdir()
    for length in (2, 3, 5):
        np.savez(tmp_path / "feeds" / f"{length}.npz", x=np.ones((1, length), np.float32))
    flags = ["--rounds", "3", "--budget", "9", "--data", tmp_path / "feeds", "--threads", "1"]
    assert [
        entry["samples"] for entry in json.loads(tersor(capsys, "bench", model, *flags, "--json").out)
    ] == [3]
    last = tersor(capsys, "bench", model, *flags).out.splitlines()[-1]
    assert last == f"3 samples of {tmp_path / 'feeds'}: x [1, 2] and 2 other shapes"
    last = tersor(capsys, "bench", model, *flags, "--samples", "1").out.splitlines()[-1]
    assert last == f"1 sample of {tmp_path / 'feeds'}: x [1, 2]"


def test_bench_honours_the_session_beside_the_model(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path, Path]
) -> None:
    a, _, _ = pair
    (a.parent / "session.json").write_text('{"config": {}, "disabled_optimizers": 3}')
    done = tersor(capsys, "bench", a, "--rounds", "1", "--threads", "1")
    assert (done.code, done.out) == (2, "")
    assert "`disabled_optimizers` must be a list of optimizer names" in done.err
    (a.parent / "session.json").write_text('{"config": {}, "disabled_optimizers": ["ConstantFolding"]}')
    done = tersor(capsys, "bench", a, "--rounds", "1", "--threads", "1")
    assert done.code == 0
    assert "1.00x" in done.out


def test_a_truncated_model_is_said_in_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pair: tuple[Path, Path, Path]
) -> None:
    a, _, data = pair
    (tmp_path / "half.onnx").write_bytes(a.read_bytes()[:-40])
    for command in ("compare", "bench"):
        done = tersor(capsys, command, a, tmp_path / "half.onnx", "--data", data)
        assert (done.code, done.out) == (2, "")
        assert "half.onnx' is not an ONNX model, or is truncated" in done.err


def test_batches_are_not_called_samples(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write(tmp_path, "a.onnx", TEXT.replace("[N,4]", "[3,4]"))
    np.savez(tmp_path / "d.npz", x=np.ones((6, 4), np.float32))
    out = tersor(capsys, "compare", model, model, "--data", tmp_path / "d.npz").out
    assert out.splitlines()[-1] == "2 feeds"
