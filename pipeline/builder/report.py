# SPDX-License-Identifier: Apache-2.0
"""`report.json`: the figures of a build, for machines and for later."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ...analysis.fidelity import Closeness, json_figure
from ...backends.onnxruntime.audit import Audit
from ...backends.onnxruntime.latency import compare
from ...graph_ir import atomic_write
from .result import BuildResult, Judgement
from .settings import BuildSettings

REPORT_FILE = "report.json"
REPORT_VERSION = 1


def write_report(result: BuildResult, settings: BuildSettings) -> None:
    """Write the report into the output folder."""
    with atomic_write(settings.out / REPORT_FILE) as beside:
        beside.write_text(json.dumps(to_dict(result, settings), indent=2) + "\n", encoding="utf-8")


def to_dict(result: BuildResult, settings: BuildSettings) -> dict[str, Any]:
    """The report as plain data; infinite figures are strings, which JSON lacks numbers for."""
    return {
        "report": REPORT_VERSION,
        "model": settings.model.name,
        "target": settings.target,
        "shipped": result.winner.name,
        "words": result.winner.words,
        "why": result.why,
        "unmet": result.unmet,
        "pipeline": result.winner.pipeline,
        "observer": result.winner.observer,
        "limits": {"max_drop": settings.max_drop, "min_sqnr_db": settings.min_sqnr_db},
        "facts": {name: asdict(facts) for name, facts in result.facts.items()},
        "speedup": {str(threads): json_figure(result.speedup(threads)) for threads in result.latency},
        "candidates": [
            {
                "name": name,
                "words": candidate.words,
                "pipeline": candidate.pipeline,
                "bytes": _size(result, name),
                **_judgement(judgement),
            }
            for name, (candidate, judgement) in result.judged.items()
        ],
        "latency": _latency(result),
        "int8": _audit(result.proof.audit),
        "sensitivity": None if result.sensitivity is None else result.sensitivity.to_dict(),
        "concurrency": [asdict(setting) for setting in result.proof.concurrency],
        "notes": result.notes,
    }


def _size(result: BuildResult, name: str) -> int | None:
    facts = result.facts.get(name)
    return None if facts is None else facts.size


def _judgement(judgement: Judgement) -> dict[str, Any]:
    return {
        "accepted": judgement.accepted,
        "reason": judgement.reason,
        "metric": judgement.metric,
        "drop": None if judgement.drop is None else json_figure(judgement.drop),
        "expected_drop": None if judgement.expected is None else json_figure(judgement.expected),
        "expected_at_most": None if judgement.at_most is None else json_figure(judgement.at_most),
        "closeness_db": json_figure(judgement.closeness_db),
        "fidelity": {
            name: _closeness(c, judgement.varying_db(name)) for name, c in judgement.fidelity.items()
        },
    }


def _closeness(closeness: Closeness, varying_db: float) -> dict[str, Any]:
    return {
        "sqnr_db": json_figure(closeness.sqnr_db),
        "varying_db": json_figure(varying_db),
        "cosine": json_figure(closeness.cosine),
        "max_abs": json_figure(closeness.max_abs),
    }


def _latency(result: BuildResult) -> dict[str, Any]:
    reference = result.before.name
    return {
        str(threads): {
            name: {
                "median_ms": json_figure(latency.median_ms),
                "p10_ms": json_figure(latency.p10_ms),
                "p90_ms": json_figure(latency.p90_ms),
                "min_ms": json_figure(latency.min_ms),
                "rounds": latency.rounds,
                "share": json_figure(latency.share),
                "over_original": [json_figure(x) for x in (ratio.low, ratio.median, ratio.high)],
            }
            for name, latency in by_name.items()
            for ratio in [compare(latency, by_name[reference])]
        }
        for threads, by_name in result.latency.items()
    }


def _audit(found: Audit | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "linear_nodes": found.linear_total,
        "linear_int8": found.linear_int8,
        "macs_share": json_figure(found.macs_share),
        "weights_dequantized_each_run": len(found.leftovers),
        "not_int8": [
            {"node": row.node, "op_type": row.op_type, "kernel": row.kernel, "reason": row.reason}
            for row in found.misses
        ],
    }
