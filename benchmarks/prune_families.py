# SPDX-License-Identifier: Apache-2.0
"""Whether pruned networks compute what they should, over a folder of them.

    python benchmarks/prune_families.py FOLDER [--ratio 0.3] [--json OUT]

From each group of each model a random share of the atoms is removed, before and after `tersor opt`. The
pruned model is compared with the oracle of the tests: the original, in which removed channels are multiplied
by zero wherever they are summed. *off* is the largest difference of any output over its largest value, with
onnxruntime's optimizer off; more than rounding is a fault. Where the oracle's outputs are the original's,
because some layer of an untrained network multiplies by zero, the comparison says nothing, and the row does
not count. *params* and *MACs* are the shares removed;
*layers* says how many of the Conv, ConvTranspose, Gemm and MatMul nodes with weights make or read channels
that went, of all there are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tersor.analysis.cost import cost
from tersor.analysis.coupling import Coupling, couple
from tersor.analysis.coupling.rules.common import is_weight
from tersor.graph_ir import Model, TersorError, load, to_proto, verify
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_masks
from tersor.pipeline import manager
from tersor.pipeline.presets import LOSSLESS, PRUNE_READY
from tersor.pipeline.spec import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the oracle belongs to the tests

from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_oracle import oracle

FORMS = {"as exported": PRUNE_READY, "after opt": f"{LOSSLESS},{PRUNE_READY}"}
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ROUNDING = 2e-5  # of the largest output


@dataclass
class Row:
    """One form of one model: how far off the oracle, and that from the original; shares removed."""

    model: str
    form: str
    off: float
    moved: float
    groups: int
    params: float
    macs: float
    layers: int
    all_layers: int
    seconds: float

    @property
    def fault(self) -> str:
        """What is wrong with the pruned model, or with the comparison; empty when nothing is."""
        if self.moved <= 10 * ROUNDING:
            return "the outputs do not depend on what was removed"
        return "" if self.off <= ROUNDING else "WRONG"


def main() -> int:
    """Prune and compare all models, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    failed = 0
    print(f"{'model':36}{'form':13}{'off':>9}{'groups':>8}{'params':>8}{'MACs':>7}{'s':>7}  layers")
    for path in sorted(options.folder.glob("*.onnx")):
        try:
            for row in forms_of(path, options.ratio, options.seed):
                rows.append(row)
                print(
                    f"{row.model:36}{row.form:13}{row.off:9.0e}{row.groups:8}{row.params:8.2f}{row.macs:7.2f}"
                    f"{row.seconds:7.2f}  {row.layers} of {row.all_layers}  {row.fault}",
                    flush=True,
                )
        except TersorError as error:
            failed += 1
            print(f"{path.stem:36}{error}", flush=True)
    wrong = sum(row.fault != "" for row in rows)
    print(f"{len(rows) - wrong} of {len(rows)} equal the oracle; {failed} models failed")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 1 if wrong or failed else 0


def forms_of(path: Path, ratio: float, seed: int) -> Iterator[Row]:
    """The rows of a model, one for each form it is pruned in."""
    for form, passes in FORMS.items():
        model = load(path)
        manager.run(parse(passes), model, Context())
        yield pruned(model, path.stem, form, ratio, seed)


def pruned(model: Model, name: str, form: str, ratio: float, seed: int) -> Row:
    """Remove a random share of each group and compare."""
    start = time.process_time()
    coupling = couple(model)
    seconds = time.process_time() - start
    masks = coupling.masks(drawn(coupling, ratio, seed))
    layers = [n for n in model.graph if n.op_type in LINEAR and any(map(is_weight, n.inputs))]
    cut = {node for group in coupling.groups for node in (*group.producers, *group.consumers)}
    before = cost(model)
    expected = to_proto(oracle(model, masks))
    feeds = feeds_for(expected, seed)
    original, want = run_onnxruntime(model, feeds), run_onnxruntime(expected, feeds)
    apply_masks(model, masks, Context())
    verify(model)
    after = cost(model)
    got = run_onnxruntime(model, feeds)
    assert original is not None
    assert want is not None
    assert got is not None
    return Row(
        name,
        form,
        apart(want, got),
        apart(original, want),
        len(coupling.groups),
        1 - after.parameters / before.parameters,
        1 - after.macs / max(before.macs, 1),
        sum(node in cut for node in layers),
        len(layers),
        seconds,
    )


def apart(first: Sequence[NDArray[Any]], second: Sequence[NDArray[Any]]) -> float:
    """The largest difference of any output over its largest value."""
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


def drawn(coupling: Coupling, ratio: float, seed: int) -> dict[str, NDArray[np.bool_]]:
    """For each group, which atoms stay: a random share, at least one."""
    rng = np.random.default_rng(seed)
    kept: dict[str, NDArray[np.bool_]] = {}
    for group in coupling.groups:
        stays = np.zeros(group.atoms, np.bool_)
        stays[rng.permutation(group.atoms)[: max(1, round(group.atoms * (1 - ratio)))]] = True
        kept[group.name] = stays
    return kept


if __name__ == "__main__":
    sys.exit(main())
