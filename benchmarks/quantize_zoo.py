# SPDX-License-Identifier: Apache-2.0
"""Quantise float models, count what did not fuse, and time the variants turn by turn on one thread.

    python benchmarks/quantize_zoo.py ZOO FLOAT_MODELS OUT [--models A,B] [--against DIR] [--rounds 15]

ZOO holds `evaluate.py` (its `feeds(model)` gives calibration inputs). FLOAT_MODELS holds simplified
float models of opset 13 or later under the zoo's names. DIR/<name>.onnx, where given, is timed too
(another tool's quantised model).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tersor import graph_ir
from tersor.analysis.shapes import infer_shapes
from tersor.passes.base import Context
from tersor.passes.quantize.dynamic import QuantizeDynamic
from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.passes.quantize.plan import tensors_to_observe


@dataclass
class Span:
    """A calibrated range."""

    lo: float
    hi: float
    unsafe: str | None = None


def session(model: Any, save_to: Path | None = None) -> onnxruntime.InferenceSession:
    """A default session on one thread (no spinning: many live side by side)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def measure_ranges(path: Path, feeds: list[dict[str, Any]], names: list[str]) -> dict[str, Span]:
    """Min-max ranges of the named values over the feeds."""
    proto = onnx.load(path)
    have = {o.name for o in proto.graph.output}
    inputs = {i.name for i in proto.graph.input}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in have | inputs)
    runner = session(proto.SerializeToString())
    outputs = [o.name for o in runner.get_outputs()]
    spans: dict[str, Span] = {}
    for feed in feeds:
        found = dict(zip(outputs, runner.run(None, feed), strict=True)) | feed
        for name in names:
            lo, hi = float(np.min(found[name])), float(np.max(found[name]))
            before = spans.setdefault(name, Span(lo, hi))
            before.lo, before.hi = min(before.lo, lo), max(before.hi, hi)
    return spans


def leftovers(path: Path, scratch: Path) -> tuple[Counter[str], int]:
    """Operators of the runtime's own graph, and how many DequantizeLinear of constants it kept."""
    session(str(path), scratch)
    graph = onnx.load(scratch).graph
    constants = {i.name for i in graph.initializer}
    kept = sum(n.op_type == "DequantizeLinear" and n.input[0] in constants for n in graph.node)
    return Counter(n.op_type for n in graph.node), kept


def race(paths: dict[str, Path], feed: dict[str, Any], rounds: int) -> dict[str, float]:
    """Interleaved medians in milliseconds of CPU time (one thread computes; a busy machine disturbs less)."""
    runners = {k: session(str(p)) for k, p in paths.items()}
    spent: dict[str, list[float]] = {k: [] for k in runners}
    repeats = {}
    for key, runner in runners.items():
        runner.run(None, feed)
        start = time.thread_time()
        runner.run(None, feed)
        repeats[key] = max(1, int(0.02 / (time.thread_time() - start)))
    for _ in range(rounds):
        for key, runner in runners.items():
            start = time.thread_time()
            for _ in range(repeats[key]):
                runner.run(None, feed)
            spent[key].append((time.thread_time() - start) / repeats[key] * 1e3)
    return {k: float(np.median(v)) for k, v in spent.items()}


def sqnr(want: list[Any], got: list[Any]) -> float:
    """Signal to noise over all outputs, in dB."""
    power = sum(float(np.square(w, dtype=np.float64).sum()) for w in want)
    noise = sum(
        float(np.square(np.subtract(w, g, dtype=np.float64)).sum()) for w, g in zip(want, got, strict=True)
    )
    return 10 * float(np.log10(power / noise)) if noise else float("inf")


VARIANTS = {
    "int8": InsertQdq(),
    "stem8": InsertQdq(float_stem=False),
    "tail8": InsertQdq(float_tail=False),
    "dyn": QuantizeDynamic(),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo", type=Path)
    parser.add_argument("floats", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", default="")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    sys.path.insert(0, str(args.zoo.resolve()))
    import evaluate

    args.out.mkdir(parents=True, exist_ok=True)
    for source in sorted(args.floats.glob("*.onnx")):
        if args.models and not any(source.stem.startswith(m) for m in args.models.split(",")):
            continue
        original = args.zoo / "models" / source.name
        calib = evaluate.feeds(str(original), limit=24)
        test = evaluate.feeds(str(original), split="eval", limit=8)
        base = graph_ir.load(source)
        infer_shapes(base)
        spans = measure_ranges(source, calib, tensors_to_observe(base))
        paths = {"float": source}
        notes: dict[str, str] = {}
        for key in args.variants.split(","):
            model, ctx = graph_ir.load(source), Context(facts={"ranges": spans})
            infer_shapes(model)
            if not VARIANTS[key].run(model, ctx):
                continue
            graph_ir.verify(model)
            path = args.out / f"{source.stem}.{key}.onnx"
            graph_ir.save(model, path)
            paths[key] = path
            ops, kept = leftovers(path, args.out / "optimised.onnx")
            left = {o: ops[o] for o in ("Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul") if ops[o]}
            notes[key] = (
                f"float {left}, DQ of constants {kept}, Q {ops['QuantizeLinear']}, ops {sum(ops.values())}"
            )
        if args.against is not None and (args.against / source.name).exists():
            paths["peer"] = args.against / source.name
        want = [session(str(source)).run(None, f) for f in test]
        times = race(paths, test[0], args.rounds)
        print(f"{source.stem}: float {times['float']:.3f} ms")
        for key, path in paths.items():
            if key == "float":
                continue
            runner = session(str(path))
            got = [runner.run(None, f) for f in test]
            noise = sqnr([o for w in want for o in w], [o for g in got for o in g])
            print(f"  {key:6} {times['float'] / times[key]:5.2f}x  {noise:6.1f} dB  {notes.get(key, '')}")


if __name__ == "__main__":
    main()
