# SPDX-License-Identifier: Apache-2.0
"""What the chosen candidate must stand before it is shipped: the fusion audit and concurrent callers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...analysis.cost import cost
from ...analysis.observed import observed_sizes
from ...analysis.provenance import original_name
from ...backends.base import Feed
from ...backends.onnxruntime.audit import Audit, LeftoverDequantize, audit
from ...backends.onnxruntime.runtime_check import (
    MismatchError,
    Mode,
    Tolerance,
    check_concurrency,
    output_steps,
)
from ...graph_ir import load
from ...graph_ir.ops import label, walk_nodes
from ...graph_ir.origins import origins
from .files import model_files
from .result import Candidate, Judgement, Proof
from .settings import BuildSettings

NOISE_PART = 0.25  # of quantization's noise, that answers may differ by from one number of threads to another
CALLERS_S = 8.0  # of runs by concurrent callers
MOST_IN_EACH_SESSION = 2**29  # bytes of a model that callers open sessions of their own on


def prove(
    winner: Candidate,
    original: Candidate,
    feeds: Sequence[Feed],
    bindings: Mapping[str, int],
    settings: BuildSettings,
    judgement: Judgement,
) -> Proof:
    """Audit what onnxruntime makes of the winner, and run it under concurrent callers."""
    found = _audited(winner, original, bindings, feeds)
    if found is not None and found.misread:
        row = found.misread[0]
        return Proof(found, [], f"onnxruntime misreads node {row.node!r}: {row.reason}")
    left = [] if found is None else _left_over(found, original)
    if left:
        where = f" for node {left[0].readers[0]!r}" if left[0].readers else ""
        reason = f"onnxruntime dequantizes {left[0].initializer!r}{where} in every run"
        return Proof(found, [], reason)
    settings.progress("checking concurrent callers", 0, None)
    part = NOISE_PART if winner.quantized else 0.0
    limits = Tolerance(
        step_of=output_steps(winner.path),
        noise_of={name: part * 10 ** (-c.sqnr_db / 20) for name, c in judgement.fidelity.items()},
    )
    if not feeds:
        return Proof(found, [], "")
    modes = _modes(winner)
    try:
        runs = check_concurrency(
            winner.path,
            feeds[:4],
            winner.config,
            modes=modes,
            budget_s=settings.at_most(CALLERS_S),
            tolerance=limits,
        )
    except MismatchError as error:
        return Proof(found, [], str(error))
    return Proof(found, runs, "")


def _modes(winner: Candidate) -> Sequence[Mode]:
    """A session for each caller, too, unless that would hold large weights several times over."""
    size = sum(file.stat().st_size for file in model_files(load(winner.path), winner.path))
    return ("shared",) if size > MOST_IN_EACH_SESSION else ("shared", "separate")


def _left_over(found: Audit, original: Candidate) -> list[LeftoverDequantize]:
    """Constants that are dequantized in every run, without those of a model that came quantized."""
    if not found.leftovers:
        return []
    before = {left.initializer for left in audit(original.path, original.config).leftovers}
    return [left for left in found.leftovers if left.initializer not in before]


def _audited(
    winner: Candidate, original: Candidate, bindings: Mapping[str, int], feeds: Sequence[Feed]
) -> Audit | None:
    """The fusion audit of a quantized candidate, nodes called as in the original; None for the others.

    MACs are counted as in the facts of a form, with sizes that only a run tells as the first feed has them.
    """
    if not winner.quantized:
        return None
    model = load(winner.path)
    table = cost(model, bindings=observed_sizes(model, bindings, feeds[0]) if feeds else bindings)
    found = audit(
        winner.path, winner.config, macs={entry.name: float(entry.macs or 0) for entry in table.nodes}
    )
    sources = {label(node): node.op_type for node in walk_nodes(load(original.path))}
    names = {label(node): original_name(node.op_type, origins(node), sources) for node in walk_nodes(model)}
    return replace(
        found, rows=tuple(replace(row, node=names.get(row.node) or row.node) for row in found.rows)
    )
