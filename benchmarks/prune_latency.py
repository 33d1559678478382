# SPDX-License-Identifier: Apache-2.0
"""What pruning half of the MACs does to the latency, by what the choice of channels aims at.

    python benchmarks/prune_latency.py MODEL [MODEL ...] [--macs 0.5] [--latency 0.6] [--opt] [--finish]
        [--cpu-time] [--json OUT]

Each model is brought into the form channels are removed from and pruned by `l2` without data: as by default,
with an eye on time; by importance alone; and so with any width. The forms then take turns in onnxruntime.
*eff.* is the speed-up as a share of what the removed MACs would give if time went with them: 1 is ideal.
*convs* says how many of the convolutions came out narrower, at either end. With --latency the model is also
pruned to that share of its time, from measured tables. With --opt models are simplified first, with --finish
all forms, the original included, are brought last into what suits onnxruntime best, as a build leaves them
(presets `raised` and `finish`): what no channel touches then takes less of the time. On a machine that does
other things, --cpu-time with one thread counts the processor's time instead of the clock's. Inputs are drawn
by the models' signatures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tersor.analysis.cost import cost
from tersor.backends.onnxruntime.config import SessionConfig
from tersor.backends.onnxruntime.latency import compare, measure, session_runners
from tersor.graph_ir import Model, TersorError, load, save, signature_of
from tersor.pipeline import manager
from tersor.pipeline.builder.model_facts import bindings_in, drawn
from tersor.pipeline.presets import FINISH, LOSSLESS, PRUNE_READY, RAISED
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.job import Job, Origin
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.select import Limits
from tersor.pipeline.prune.table import Table, cache_folder
from tersor.pipeline.prune.timing import Clock
from tersor.pipeline.spec import parse

FORMS = {
    "time": Limits(),
    "importance": Limits(aim="importance"),
    "any width": Limits(align=1, aim="importance"),
}


@dataclass
class Row:
    """One form of one model; macs, params and latency as shares of the original's."""

    model: str
    form: str
    macs: float
    params: float
    latency: float
    low: float
    high: float
    efficiency: float
    convs: int
    all_convs: int


def main() -> int:
    """Prune and time all models, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--latency", type=float)
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--opt", action="store_true", help="simplify the model first, original included")
    parser.add_argument("--finish", action="store_true", help="bring all forms into what suits onnxruntime")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cpu-time", action="store_true", help="count the processor's time of one thread")
    options = parser.parse_args()
    if options.cpu_time and options.threads != 1:
        parser.error("--cpu-time needs --threads 1")
    rows: list[Row] = []
    print(
        f"{'model':36}{'form':12}{'MACs':>6}{'params':>8}{'time':>7}{'95 % interval':>18}{'eff.':>7}  convs"
    )
    for path in options.models:
        try:
            for row in compare_forms(path, options):
                rows.append(row)
                print(
                    f"{row.model:36}{row.form:12}{row.macs:6.2f}{row.params:8.2f}{row.latency:7.2f}"
                    f"{row.low:9.2f} - {row.high:5.2f} {row.efficiency:7.2f}  {row.convs} of {row.all_convs}",
                    flush=True,
                )
        except TersorError as error:
            print(f"{path.stem:36}{error}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


def compare_forms(path: Path, options: argparse.Namespace) -> list[Row]:
    """The pruned forms of one model against the original, in one run."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = load(path)
        manager.run(parse(f"{PRUNE_READY},{LOSSLESS}" if options.opt else PRUNE_READY), model)
        original = work / "original.onnx"
        save(model, original)
        feeds = drawn(original, signature_of(model), 0)
        if not feeds:
            raise TersorError("it does not run on drawn inputs")
        bindings = bindings_in(signature_of(model), feeds)
        files = {"original": (original, SessionConfig())}
        made: dict[str, Model] = {}
        for form, limits in FORMS.items():
            job = Job(Budget("macs", options.macs), options.criterion, limits)
            try:
                made[form] = prune(model, job, Origin(bindings)).model
            except TersorError as error:
                print(f"{path.stem:36}{form:12}{error}", flush=True)
        if options.latency is not None:
            table = Table(cache_folder(), options.threads)
            timed = Clock(original, feeds[0], work, table=table, threads=options.threads, bindings=bindings)
            job = Job(Budget("latency", options.latency), options.criterion)
            form = f"latency {options.latency:g}"
            try:
                made[form] = prune(model, job, Origin(bindings), clock=timed).model
            except TersorError as error:
                print(f"{path.stem:36}{form:12}{error}", flush=True)
        before = cost(model, bindings=bindings)
        counted = {form: cost(pruned, bindings=bindings) for form, pruned in made.items()}
        cut = {form: narrower(model, pruned) for form, pruned in made.items()}
        for form, pruned in {"original": model, **made}.items():
            if options.finish:
                manager.run(parse(f"{RAISED},{FINISH}"), pruned)
            files[form] = (work / f"{form}.onnx", SessionConfig())
            save(pruned, files[form][0])
        with session_runners(files, feeds[:1], threads=options.threads) as runners:
            clock = time.thread_time if options.cpu_time else time.perf_counter
            times = measure(runners, rounds=options.rounds, budget_s=60, clock=clock)
        rows: list[Row] = []
        for form, after in counted.items():
            ratio = compare(times[form], times["original"])
            macs = after.macs / before.macs
            narrow, total = cut[form]
            rows.append(
                Row(
                    path.stem,
                    form,
                    macs,
                    after.parameters / before.parameters,
                    ratio.median,
                    ratio.low,
                    ratio.high,
                    macs / ratio.median,
                    narrow,
                    total,
                )
            )
        return rows


def narrower(before: Model, after: Model) -> tuple[int, int]:
    """How many of the convolutions have a smaller weight than before, and how many there are."""
    sizes = [sizes_of(model) for model in (before, after)]
    return sum(sizes[1].get(name, ()) != size for name, size in sizes[0].items()), len(sizes[0])


def sizes_of(model: Model) -> dict[str, tuple[object, ...]]:
    """Shape of the weight of each convolution, by the name of what it makes."""
    found: dict[str, tuple[object, ...]] = {}
    for node in model.graph:
        weight = node.inputs[1] if node.op_type in ("Conv", "ConvTranspose") else None
        if weight is not None and weight.shape is not None:
            found[node.outputs[0].name or ""] = tuple(weight.shape)
    return found


if __name__ == "__main__":
    sys.exit(main())
