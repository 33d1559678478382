# SPDX-License-Identifier: Apache-2.0
"""Peak memory of calibration with few and with many feeds, each in a process of its own.

    python benchmarks/calibration_memory.py MODEL DATA [--few 50] [--many 400] [--observer entropy]

DATA is anything `tersor build --data` takes; a function should be a generator, for a list holds all feeds.
All floating-point values between nodes are measured. Prints one JSON line for each run and the ratio of the
two peaks (resident set size as the system counts it); it should stay below 1.1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def main() -> int:
    """Run both sizes, or one of them when asked as a child."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--few", type=int, default=50)
    parser.add_argument("--many", type=int, default=400)
    parser.add_argument("--observer", default="entropy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(
            json.dumps(measure(options.model, options.data, options.child, options.observer, options.threads))
        )
        return 0
    peaks: list[float] = []
    for count in (options.few, options.many):
        command = [sys.executable, __file__, *sys.argv[1:], "--child", str(count)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        print(answer, flush=True)
        peaks.append(float(json.loads(answer)["peak_mb"]))
    print(json.dumps({"ratio": round(peaks[1] / peaks[0], 3)}))
    return 0


def measure(path: Path, data: str, count: int, rule: str, threads: int) -> dict[str, float | int]:
    """Calibrate with `count` feeds; seconds, and the peak of this process in megabytes."""
    from tersor.calibration import choose, collect, open_feeds
    from tersor.graph_ir import load

    model = load(path)
    feeds = open_feeds(data, model, limit=count)
    names = list(float_values(path, next(iter(feeds))))
    start = time.perf_counter()
    histograms = collect(model, feeds, names, threads=threads)
    collected = time.perf_counter()
    choose(histograms, rule)
    chosen = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "feeds": histograms.samples,
        "values": len(names),
        "collect_s": round(collected - start, 2),
        "choose_s": round(chosen - collected, 2),
        "peak_mb": round(peak, 1),
    }


def float_values(path: Path, feed: dict[str, object]) -> Iterator[str]:
    """Inputs and outputs of nodes that hold floats, found by running the model once."""
    import numpy as np

    from tersor.analysis.evaluate import Evaluator
    from tersor.graph_ir import is_constant, load

    model = load(path)
    made = [o for node in model.graph for o in node.outputs if o.name and (o.uses() or o.is_graph_output())]
    names = [*feed, *(o.name or "" for o in made if not is_constant(o))]
    for name, array in Evaluator(model, outputs=names).run(feed).items():
        if isinstance(array, np.ndarray) and array.dtype == np.float32:
            yield name


if __name__ == "__main__":
    sys.exit(main())
