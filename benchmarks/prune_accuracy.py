# SPDX-License-Identifier: Apache-2.0
"""Accuracy after pruning without any training, at equal parameters, with and without the refit.

    python benchmarks/prune_accuracy.py MODEL DATA METRIC [--ratios 0.2,0.3] [--criteria l2,reconstruction]
        [--peers-python PYTHON] [--out FILE.json]

DATA is what `tersor prune --data` takes, METRIC a `module:function` called with run(feed) -> outputs that
returns a number; let it score other samples than DATA holds. With --peers-python, an interpreter that has
onnxsim, its `apply_structured_pruning` runs first at each ratio (after its own `simplify`, by L2 and by L1),
and what it leaves is the number of parameters all others get; without it, what plain magnitude leaves at that
ratio of the channels of every group.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tersor.analysis.cost import cost
from tersor.calibration import load_function, open_feeds
from tersor.graph_ir import Model, TersorError, load
from tersor.pipeline import manager
from tersor.pipeline.presets import PRUNE_READY
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.criteria import get
from tersor.pipeline.prune.job import Job
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.select import Limits
from tersor.pipeline.spec import parse

PEER = """
import sys, onnx, onnxsim
from onnxsim.pruning import apply_structured_pruning
model, ok = onnxsim.simplify(onnx.load(sys.argv[1]))
assert ok
pruned = apply_structured_pruning(model, sparsity=float(sys.argv[3]), importance_norm=sys.argv[4])
onnx.save(pruned, sys.argv[2])
"""


def main() -> int:
    """Run it; 1 when at some ratio onnxsim or plain magnitude beats the refit of `reconstruction`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("metric")
    parser.add_argument("--ratios", default="0.2,0.3")
    parser.add_argument("--criteria", default="l1,l2,reconstruction")
    parser.add_argument("--peers-python", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [row(args.model, ready(args.model), "original", None, args.metric, 0.0)]
    print(line(rows[0]), flush=True)
    for ratio in (float(text) for text in args.ratios.split(",")):
        found = at_ratio(args, ratio, rows[0]["parameters"])
        rows += found
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(best_is_other(rows, ratio) for ratio in {r["ratio"] for r in rows[1:]}))


def at_ratio(args: argparse.Namespace, ratio: float, whole: int) -> list[dict[str, Any]]:
    """The rows of one ratio."""
    rows: list[dict[str, Any]] = []

    def add(made: dict[str, Any]) -> None:
        rows.append(made)
        print(line(made), flush=True)

    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        for norm in ("l2", "l1") if args.peers_python is not None else ():
            path = Path(folder) / f"{norm}.onnx"
            start = time.perf_counter()
            command = [str(args.peers_python), "-c", PEER, str(args.model), str(path), str(ratio), norm]
            subprocess.run(command, check=True, capture_output=True)
            spent = time.perf_counter() - start
            add(row(path, load(path), f"onnxsim {norm}", ratio, args.metric, spent))
    budget = Budget("params", rows[0]["parameters"] / whole) if rows else Budget("ratio", ratio)
    for name in args.criteria.split(","):
        for refit in (False, True):
            model = ready(args.model)
            needs = refit or get(name).needs_data
            feeds = open_feeds(args.data, model) if needs else None
            job = Job(budget, criterion=name, limits=Limits(align=1), refit=refit, seed=args.seed)
            start = time.perf_counter()
            try:
                made = prune(model, job, feeds=feeds).model
            except TersorError as error:
                print(f"{name}: {error}")
                continue
            spent = time.perf_counter() - start
            add(row(args.model, made, f"tersor {name}{' + refit' * refit}", ratio, args.metric, spent))
            if budget.kind == "ratio":
                budget = Budget("params", rows[0]["parameters"] / whole)
    return rows


def ready(path: Path) -> Model:
    """The model in the form channels are removed from."""
    model = load(path)
    manager.run(parse(PRUNE_READY), model)
    return model


def row(
    path: Path, model: Model, who: str, ratio: float | None, metric: str, seconds: float
) -> dict[str, Any]:
    """Score a model."""
    return {
        "model": path.stem,
        "who": who,
        "ratio": ratio,
        "parameters": cost(model).parameters,
        "metric": scored(model, metric),
        "seconds": round(seconds, 1),
    }


def scored(model: Model, metric: str) -> float:
    """The metric of a model, in one session."""
    import onnxruntime as ort

    from tersor.graph_ir import save

    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        path = Path(folder) / "scored.onnx"
        save(model, path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def run(feed: dict[str, Any]) -> list[Any]:
            return list(session.run(None, feed))

        try:
            return float(load_function(metric)(run))
        except ArithmeticError:  # nothing detected at all, say
            return math.nan


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return f"{ratio:5} {row['who']:32} {row['parameters']:>12,} {row['metric']:9.4f} {row['seconds']:8.1f} s"


def best_is_other(rows: list[dict[str, Any]], ratio: float) -> bool:
    """Whether at this ratio the refitted `reconstruction` is beaten by onnxsim or by plain magnitude."""
    here = {r["who"]: r["metric"] for r in rows if r["ratio"] == ratio}
    ours = here.get("tersor reconstruction + refit")
    others = [here[who] for who in here if who.startswith("onnxsim") or who in ("tersor l1", "tersor l2")]
    return ours is None or any(other > ours for other in others)


if __name__ == "__main__":
    sys.exit(main())
