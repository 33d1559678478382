# SPDX-License-Identifier: Apache-2.0
"""How long `tersor opt` takes beside onnxsim and onnxslim, each run a process of its own, imports included.

    python benchmarks/opt_scale.py [MODEL ...] [--nodes 1000 10000 40000] [--peers-python PYTHON]

Without models it makes residual ones of these sizes: convolutions with BatchNormalization, Identity, Mul by
a constant and a Reshape to a computed shape, of which half of the nodes can go. PYTHON is an interpreter that
can import the peers (this one by default); a peer it lacks is left out, and one that takes longer than
--limit seconds is shown as such and not asked again. Tools take turns, the best round counts. Times are of
user and system CPU, which other work on the machine disturbs least; the wall clock stands beside.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PEERS = {
    "onnxsim": "import onnx, onnxsim, sys; m, _ = onnxsim.simplify(sys.argv[1]); onnx.save(m, sys.argv[2])",
    "onnxslim": "import onnx, onnxslim, sys; onnx.save(onnxslim.slim(sys.argv[1]), sys.argv[2])",
}
OURS = "tersor"


@dataclass
class Best:
    """The best round of one tool on one model: seconds of CPU and of wall clock, and the nodes it leaves."""

    cpu: float
    wall: float
    nodes: int


def main() -> int:
    """Time all tools on all models and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--nodes", nargs="+", type=int, default=[1000, 10000, 40000])
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0)
    options = parser.parse_args()
    tools = [OURS, *(p for p in PEERS if has_module(options.peers_python, p))]
    print(
        f"{'model':40}{'tool':10}{'CPU s':>8}{'wall s':>8}{'nodes':>8}{'verify s':>9}  CPU relative to tersor"
    )
    with tempfile.TemporaryDirectory() as folder:
        models = options.models or [residual(n, Path(folder) / f"{n}-nodes.onnx") for n in options.nodes]
        for model in models:
            compare(model, tools, options.peers_python, options.rounds, options.limit, Path(folder))
    return 0


def has_module(python: str, name: str) -> bool:
    """Whether an interpreter can import a module."""
    return subprocess.run([python, "-c", f"import {name}"], check=False, capture_output=True).returncode == 0


def compare(model: Path, tools: list[str], python: str, rounds: int, limit: float, folder: Path) -> None:
    """Time the tools on one model, turn by turn, and print a line for each."""
    found: dict[str, Best | None] = {}
    for _ in range(rounds):
        for tool in tools:
            if tool in found and found[tool] is None:
                continue
            target = folder / f"{tool}.onnx"
            if tool == OURS:
                command = [sys.executable, "-m", "tersor", "opt", str(model), str(target)]
            else:
                command = [python, "-c", PEERS[tool], str(model), str(target)]
            taken, before = run(command, target, limit), found.get(tool)
            found[tool] = taken if before is None or taken is None or taken.cpu < before.cpu else before
    ours = found[OURS]
    for tool, best in found.items():
        if best is None:
            print(f"{model.name:40}{tool:10}  failed, or took longer than {limit:.0f} s")
            continue
        verifier = f"{verify_seconds(model):9.3f}" if tool == OURS else " " * 9
        ratio = "" if ours is None else f"{best.cpu / ours.cpu:6.2f}"
        print(f"{model.name:40}{tool:10}{best.cpu:8.2f}{best.wall:8.2f}{best.nodes:8}{verifier}  {ratio}")
    sys.stdout.flush()


def run(command: list[str], target: Path, limit: float) -> Best | None:
    """Run one tool; None when it fails or is too slow."""
    target.unlink(missing_ok=True)
    # Compiled modules are kept from the first round on, as they are of whatever is installed.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, start = os.times(), time.perf_counter()
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=limit, env=environment)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    import onnx

    return Best(cpu, wall, len(onnx.load(target).graph.node))


def verify_seconds(model: Path) -> float:
    """CPU seconds of one verification of the loaded model, the best of three."""
    from tersor.graph_ir import gc_paused, load, signature_of, verify

    loaded, best = load(model), float("inf")
    signature = signature_of(loaded)
    with gc_paused():
        for _ in range(3):
            start = time.process_time()
            verify(loaded, signature)
            best = min(best, time.process_time() - start)
    return best


def residual(count: int, path: Path) -> Path:
    """Write a residual model of about `count` nodes, ten to a block, of which five can be optimised away."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int, least: float | None = None) -> str:
        data = rng.normal(0, 0.1, shape) if least is None else rng.uniform(least, least + 1, shape)
        weights.append(numpy_helper.from_array(data.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def node(op_type: str, *inputs: str, pads: list[int] | None = None) -> str:
        made = helper.make_node(op_type, inputs, [f"v{len(nodes)}"], f"n{len(nodes)}")
        if pads is not None:
            made.attribute.append(helper.make_attribute("pads", pads))
        nodes.append(made)
        return nodes[-1].output[0]

    x = "x"
    while len(nodes) < count:
        y = node("Conv", x, weight(8, 8, 3, 3), weight(8), pads=[1, 1, 1, 1])
        y = node("BatchNormalization", y, weight(8, least=0.5), weight(8), weight(8), weight(8, least=0.5))
        y = node("Relu", node("Identity", y))
        y = node("Mul", node("Conv", y, weight(8, 8, 1, 1)), weight(8, 1, 1))
        x = node("Relu", node("Add", node("Reshape", y, node("Shape", y)), x))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8, 16, 16]) for name in ("x", x)]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


if __name__ == "__main__":
    sys.exit(main())
