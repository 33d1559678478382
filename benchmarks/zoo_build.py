# SPDX-License-Identifier: Apache-2.0
"""`tersor build` on every model of a zoo, one process per model.

    python benchmarks/zoo_build.py ZOO OUT [--models A,B] [--max-drop 1%] [--timeout 1800]

ZOO holds models/*.onnx and adapter.py, whose `feeds()` and `metric(run)` serve the model named by the
environment variable ZOO_MODEL. OUT/<model>/ gets what a build writes, OUT/<model>.log what it printed,
OUT/summary.json the table. The times are of whole processes. Speed is what the build itself measured; to
compare with other tools in one run, hand OUT to a bench that times them side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Build every model; 1 when one of the builds failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", default="", help="names separated by commas; all without it")
    parser.add_argument("--max-drop", default="1%")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one model")
    args = parser.parse_args()
    wanted = [name for name in args.models.split(",") if name]
    models = [p for p in sorted((args.zoo / "models").glob("*.onnx")) if not wanted or p.stem in wanted]
    if not models:
        parser.error(f"no such models in {args.zoo / 'models'}")
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    print(f"{'model':34} {'seconds':>8} {'1 thread':>9} {'all':>7} {'metric':>17} {'int8':>6}  shipped")
    for model in models:
        row = build(model, args.zoo, args.out, args.max_drop, args.timeout)
        rows.append(row)
        print(line(row), flush=True)
    (args.out / "summary.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(row["error"] for row in rows))


def build(model: Path, zoo: Path, out: Path, max_drop: str, timeout: float) -> dict[str, Any]:
    """Build one model in a process of its own; one row of the summary."""
    target = out / model.stem
    paths = [str(zoo.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "ZOO_MODEL": model.stem, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "tersor", "build", str(model), "-o", str(target)]
    command += ["--data", "adapter:feeds", "--metric", "adapter:metric", "--max-drop", max_drop]
    start = time.perf_counter()
    with (out / f"{model.stem}.log").open("w", encoding="utf-8") as log:
        try:
            code = subprocess.run(
                command, env=environment, stdout=log, stderr=log, timeout=timeout, check=False
            ).returncode
            error = "" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            error = f"not done after {timeout:.0f} s"
    seconds = round(time.perf_counter() - start, 1)
    row: dict[str, Any] = {"model": model.stem, "seconds": seconds, "error": error}
    return row if error else {**row, **figures(target / "report.json")}


def figures(path: Path) -> dict[str, Any]:
    """What the summary takes from a report."""
    report = json.loads(path.read_text(encoding="utf-8"))
    metric = {c["name"]: c["metric"] for c in report["candidates"]}
    return {
        "shipped": report["shipped"],
        "speedup": list(report["speedup"].values()),
        "metric": [metric["original"], metric[report["shipped"]]],
        "int8_macs_share": None if report["int8"] is None else report["int8"]["macs_share"],
        "why": report["why"],
    }


def line(row: dict[str, Any]) -> str:
    """One printed line."""
    head = f"{row['model']:34} {row['seconds']:8.1f}"
    if row["error"]:
        return f"{head}  {row['error']}"
    one, last = row["speedup"][0], row["speedup"][-1]
    metric = "-" if row["metric"][0] is None else f"{row['metric'][0]:.4f} {row['metric'][1]:.4f}"
    share = "-" if row["int8_macs_share"] is None else f"{row['int8_macs_share']:.0%}"
    return f"{head} {one:8.2f}x {last:6.2f}x {metric:>17} {share:>6}  {row['shipped']}"


if __name__ == "__main__":
    sys.exit(main())
