# SPDX-License-Identifier: Apache-2.0
"""What tests of `tersor build` share: made-up candidates and timings, quick builds, folders compared."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tersor.analysis.fidelity import Closeness
from tersor.backends.onnxruntime.latency import Latency, Runner
from tersor.graph_ir import load, signature_of
from tersor.pipeline.builder import BuildResult, BuildSettings, build
from tersor.pipeline.builder.result import Candidate, Judgement

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
FILES = ["build.lock.json", "model.onnx", "report.json", "session.json"]

Judged = tuple[Candidate, Judgement]


def closeness(sqnr_db: float) -> Closeness:
    return Closeness(sqnr_db, 1.0, 0.0, 10, 0)


def judged(
    name: str,
    sqnr_db: float = float("inf"),
    *,
    accepted: bool = True,
    drop: float | None = None,
    quantized: bool | None = None,
) -> Judged:
    """A candidate whose file is never opened, and what is said of it."""
    is_int8 = name not in ("original", "float") if quantized is None else quantized
    metric = None if drop is None else 1.0 - drop
    reason = "" if accepted else "made up"
    judgement = Judgement(accepted, reason, metric, drop, {"y": closeness(sqnr_db)})
    return Candidate(name, Path(name), quantized=is_int8), judgement


def latency(name: str, *turns_ms: float) -> Latency:
    return Latency(name, turns_ms, min(turns_ms), 1)


def times(**medians: float) -> dict[int, Mapping[str, Latency]]:
    """Three steady rounds on one thread."""
    return {1: {name: latency(name, ms, ms, ms) for name, ms in medians.items()}}


def quick(model: Path | onnx.ModelProto, out: Path, **options: Any) -> BuildResult:
    """Build with as few rounds as make a figure; a proto is written to a temporary folder."""
    if not isinstance(model, Path):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in.onnx"
            onnx.save(model, path)
            return quick(path, out, **options)
    settings = BuildSettings(model, out)
    return build(replace(settings, **{"rounds": 1, "samples": 8, **options}))


def hashes(folder: Path) -> dict[str, str]:
    """Each file below a folder with a hash of its content; folders end in a slash."""
    return {
        str(path.relative_to(folder)) + "/" * path.is_dir(): ""
        if path.is_dir()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def work_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Let temporary folders be made below a folder of the test's own, which is to be empty afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    patch.setattr(tempfile, "tempdir", str(folder))
    return folder


def steady(patch: pytest.MonkeyPatch) -> None:
    """Replace the clock: int8 takes half of the original's time, the float form nine tenths."""

    def measured(runners: Mapping[str, Runner], **_: Any) -> dict[str, Latency]:
        share = {"original": 1.0, "float": 0.9, "float32": 0.9, "int8 dynamic": 0.8}
        return {name: latency(name, *[share.get(name, 0.5)] * 3) for name in runners}

    patch.setattr("tersor.pipeline.builder.timing.measure", measured)


def default_run(model: Path, feed: Mapping[str, NDArray[Any]]) -> list[Any]:
    """The outputs of a session made without any options."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


def feed_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Values as calibration sees them: normal floats, ids of 0 and 1."""
    generator = np.random.default_rng(11)
    feed: dict[str, np.ndarray] = {}
    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        if value.name not in weights:
            dims = [dim.dim_value or 2 for dim in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            made = generator.standard_normal(dims) if dtype.kind == "f" else generator.integers(0, 2, dims)
            feed[value.name] = made.astype(dtype)
    return feed


def flat(outputs: list[Any]) -> list[np.ndarray]:
    """Sequences taken apart."""
    found: list[np.ndarray] = []
    for output in outputs:
        found += output if isinstance(output, list) else [output]
    return found


def check(result: BuildResult, model: Path, proto: onnx.ModelProto) -> None:
    """The result runs in a default session, with the signature and close to the answers of the original."""
    out = result.winner.path.parent
    assert sorted(hashes(out)) == FILES
    assert result.judged[result.winner.name][1].accepted
    before, after = signature_of(load(model)), signature_of(load(result.winner.path))
    assert after.outputs == before.outputs
    assert {name for name, _, _ in after.inputs} <= {name for name, _, _ in before.inputs}
    feed = feed_of(proto)
    wanted, found = flat(default_run(model, feed)), flat(default_run(result.winner.path, feed))
    for want, got in zip(wanted, found, strict=True):
        assert got.dtype == want.dtype
        scale = float(np.abs(want.astype(np.float64)).max())
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), atol=0.1 * scale)
