# SPDX-License-Identifier: Apache-2.0
"""How long it takes to find what can be pruned, on models of growing size.

    python benchmarks/prune_scale.py [MODEL ...] [--nodes 1000 10000 40000] [--rounds 3]

Without models it makes residual ones of about these sizes: blocks of an expanding, a depthwise and a
narrowing convolution with BatchNormalization, a gate of squeeze-and-excitation and a residual Add, in stages
that a strided convolution and a Concat separate. Each step is timed alone in CPU seconds, the best of the
rounds: shape inference, the coupling graph, scores by `l2`, the choice of what stays (a MACs budget), and
applying the plan. *per node* is the coupling graph's time; it should not grow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from tersor.analysis.coupling import couple
from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import fingerprint, load
from tersor.pipeline.prune.criteria import Request, get
from tersor.pipeline.prune.select import Limits, select, to_reach
from tersor.pipeline.prune.spend import Spend
from tersor.pipeline.prune.steps import applied, plan_of

T = TypeVar("T")
STEPS = ("load", "shapes", "couple", "score", "select", "apply")


def main() -> int:
    """Time all models and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--nodes", nargs="+", type=int, default=[1000, 10000, 40000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'model':24}{'nodes':>8}{'groups':>8}" + "".join(f"{step:>9}" for step in STEPS) + "   per node")
    with tempfile.TemporaryDirectory() as folder:
        models = options.models or [blocks(n, Path(folder) / f"{n}-nodes.onnx") for n in options.nodes]
        for path in models:
            best: dict[str, float] = {}
            nodes = groups = 0
            for _ in range(options.rounds):
                nodes, groups, times = once(path)
                best = {step: min(seconds, best.get(step, seconds)) for step, seconds in times.items()}
            columns = "".join(f"{best[step]:9.2f}" for step in STEPS)
            print(
                f"{path.stem:24}{nodes:8}{groups:8}{columns}{1e6 * best['couple'] / nodes:8.1f} us",
                flush=True,
            )
    return 0


def once(path: Path) -> tuple[int, int, dict[str, float]]:
    """Nodes, groups and the seconds of each step, from a fresh load."""
    times: dict[str, float] = {}

    def timed(step: str, work: Callable[[], T]) -> T:
        start = time.process_time()
        result = work()
        times[step] = time.process_time() - start
        return result

    model = timed("load", lambda: load(path))
    timed("shapes", lambda: infer_shapes(model))
    coupling = timed("couple", lambda: couple(model))
    scores = timed("score", lambda: get("l2").score(Request(model, coupling, None, 0)))

    def choose() -> object:
        spend = Spend(model, coupling)
        reach = to_reach(lambda kept: spend.left("macs", kept), 0.5)
        return plan_of(fingerprint(model), select(coupling, scores, reach, Limits(align=4)), "heads")

    plan = timed("select", choose)
    timed("apply", lambda: applied(model, plan, coupling))  # type: ignore[arg-type]
    return sum(1 for _ in model.graph), len(coupling.groups), times


def blocks(count: int, path: Path) -> Path:
    """Write a model of about `count` nodes, fifteen to a block."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int, least: float | None = None) -> str:
        data = rng.normal(0, 0.1, shape) if least is None else rng.uniform(least, least + 1, shape)
        weights.append(numpy_helper.from_array(data.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def node(op_type: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op_type, inputs, [f"v{len(nodes)}"], f"n{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    def conv(x: str, wide: int, narrow: int, kernel: int = 1, group: int = 1, stride: int = 1) -> str:
        pads = [kernel // 2] * 4
        w = weight(wide, narrow // group, kernel, kernel)
        y = node("Conv", x, w, pads=pads, group=group, strides=[stride] * 2)
        return node("BatchNormalization", y, *(weight(wide, least=0.5) for _ in range(4)))

    x, width, stage = "x", 8, 0
    while len(nodes) < count:
        y = node("Relu", conv(x, 4 * width, width))
        y = node("Relu", conv(y, 4 * width, 4 * width, 3, 4 * width))
        gate = node("Relu", node("Conv", node("GlobalAveragePool", y), weight(8, 4 * width, 1, 1)))
        y = node("Mul", y, node("Sigmoid", node("Conv", gate, weight(4 * width, 8, 1, 1))))
        x = node("Add", conv(y, width, 4 * width), x)
        stage += 1
        if stage % 8 == 0:
            sides = [conv(x, 4, width, 3), conv(x, 4, width)]
            x = node("Concat", *sides, axis=1)
    last = node("Conv", x, weight(8, width, 1, 1))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8, 16, 16]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "blocks", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


if __name__ == "__main__":
    sys.exit(main())
