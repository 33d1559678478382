# SPDX-License-Identifier: Apache-2.0
"""`tersor opt` on every model of a zoo: is the output the same, and how long does it take?

    python benchmarks/zoo_opt.py ZOO OUT [--models A,B] [--peers-python PYTHON] [--rounds 3] [--samples 8]

ZOO holds models/*.onnx and adapter.py, whose `feeds()` serves the model named by the environment variable
ZOO_MODEL. The original and the result run on the first feeds in onnxruntime with its optimizer off; they
count as the same when no output is off by more than `BOUND` of its largest value, and integers are equal.
The time is that of the whole process, import included, the median over rounds in which the tools take
turns. PYTHON is the interpreter of an environment that has the onnxslim and onnxsim commands. Prints a
table, writes OUT/summary.json; exits with 1 when an output differs or a run fails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BOUND = 1e-4  # of the largest value of an output: what rounding in float32 may come to in a deep model
PEERS = ("onnxslim", "onnxsim")


def main() -> int:
    """Run everything, or compare one pair of models when asked as a child."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", default="", help="names separated by commas; all without it")
    parser.add_argument("--peers-python", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(compare(args.child, args.out, args.samples)))
        return 0
    wanted = [name for name in args.models.split(",") if name]
    models = [p for p in sorted((args.zoo / "models").glob("*.onnx")) if not wanted or p.stem in wanted]
    if not models:
        parser.error(f"no such models in {args.zoo / 'models'}")
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for model in models:
        rows.append(measure(model, args))
        print(line(rows[-1]), flush=True)
    (args.out / "summary.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(not all(row["same"] for row in rows))


def measure(model: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One model: nodes, closeness, and the seconds of each tool."""
    folder: Path = args.out / model.stem
    folder.mkdir(exist_ok=True)
    commands = {"tersor": [sys.executable, "-m", "tersor", "opt", str(model), str(folder / "tersor.onnx")]}
    if args.peers_python is not None:
        for peer in PEERS:
            tool = args.peers_python.parent / peer
            commands[peer] = [str(tool), str(model), str(folder / f"{peer}.onnx")]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    processor: dict[str, list[float]] = {name: [] for name in commands}
    failed: dict[str, int] = {}
    for _ in range(args.rounds):
        for name, command in commands.items():
            start, spent = time.perf_counter(), children_s()
            code = subprocess.run(command, capture_output=True, check=False).returncode
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(children_s() - spent)
            if code != 0:
                failed[name] = code
    row: dict[str, Any] = {
        "model": model.stem,
        "seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items()},
        "cpu_seconds": {name: round(statistics.median(times), 2) for name, times in processor.items()},
        "nodes": {"original": nodes(model), **{n: nodes(folder / f"{n}.onnx") for n in commands}},
        "failed": failed,
        "same": False,
        "outputs": {},
    }
    if "tersor" not in failed:
        row["outputs"] = closeness(model, folder / "tersor.onnx", args)
        row["same"] = all(output["same"] for output in row["outputs"].values())
    return row


def children_s() -> float:
    """Processor seconds of all children that have ended; a busy machine disturbs them less."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def nodes(path: Path) -> int | None:
    """Number of nodes of the main graph, Constants left out; None without the file."""
    import onnx

    if not path.exists():
        return None
    graph = onnx.load(path, load_external_data=False).graph
    return sum(node.op_type != "Constant" for node in graph.node)


def closeness(model: Path, result: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Compare in a process of its own, as the adapter serves one model per process."""
    paths = [str(args.zoo.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "ZOO_MODEL": model.stem, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, __file__, str(model), str(result), "--samples", str(args.samples)]
    command += ["--child", str(model)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(original: Path, result: Path, samples: int) -> dict[str, Any]:
    """Closeness of each output over the first feeds, both without onnxruntime's optimizer."""
    import numpy as np

    from tersor.analysis.evaluate import Evaluator
    from tersor.analysis.fidelity import Fidelity
    from tersor.calibration import open_feeds
    from tersor.graph_ir import load

    feeds = open_feeds("adapter:feeds", load(original), limit=samples)
    one, two = Evaluator(original), Evaluator(result)
    totals: dict[str, Fidelity] = {}
    off: dict[str, float] = {}
    for feed in feeds:
        for (name, was), now in zip(one.run(feed).items(), two.run(feed).values(), strict=True):
            totals.setdefault(name, Fidelity()).update(was, now)
            scale = float(np.max(np.abs(was), initial=0.0)) if was.dtype.kind == "f" else 0.0
            worst = float(np.max(np.abs(was.astype(np.float64) - now), initial=0.0))
            off[name] = max(off.get(name, 0.0), worst / scale if scale else worst)
    return {
        name: {"sqnr_db": str(round(total.result().sqnr_db, 1)), "off": off[name], "same": off[name] <= BOUND}
        for name, total in totals.items()
    }


def line(row: dict[str, Any]) -> str:
    """One printed line."""
    worst = max((output["off"] for output in row["outputs"].values()), default=float("nan"))
    count, cpu = row["nodes"], row["cpu_seconds"]
    times = [f"{name} {spent:.2f} s (cpu {cpu[name]:.2f})" for name, spent in row["seconds"].items()]
    ratios = [f"{row['seconds'][name] / row['seconds']['tersor']:.1f}x" for name in cpu if name != "tersor"]
    left = ", ".join(f"{name} {found}" for name, found in count.items())
    state = "same" if row["same"] else "DIFFERS"
    failed = "".join(f"; {name} exits with {code}" for name, code in row["failed"].items())
    return (
        f"{row['model']:34} {state}, off by {worst:.1e}; nodes: {left}; {', '.join(times)}"
        f"{' (' + ', '.join(ratios) + ' of tersor)' if ratios else ''}{failed}"
    )


if __name__ == "__main__":
    sys.exit(main())
