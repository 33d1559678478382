# SPDX-License-Identifier: Apache-2.0
"""`tersor explain`: of each original node, the kernel it ended in, precision, time, error and the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..analysis.fidelity import Closeness
from ..analysis.provenance import by_origin
from ..analysis.shapes import infer_shapes
from ..backends.base import BackendError, Feed
from ..backends.onnxruntime.account import Account, NodeAccount, account
from ..backends.onnxruntime.config import SessionConfig
from ..backends.onnxruntime.session import OrtSession
from ..calibration.data import open_feeds
from ..graph_ir import Model, UsageError, load
from ..graph_ir.ops import label, walk_nodes
from .node_errors import node_errors

DRAWN_AT_RANDOM = "inputs were drawn at random, give real ones with --data"
DRAWN = 2  # feeds drawn where no data is given
OFFENDERS = 3
OFFENDING = 0.01  # of the time of all kernels


@dataclass(frozen=True, repr=False)
class Explanation:
    """What became of a model.

    Attributes:
        account: kernels, precisions, times and reasons of the original nodes.
        errors: closeness of each node's result to that of the original model; empty without one.
        feeds: how many were run, and where they are from.
        data: None when they were drawn at random.
    """

    account: Account
    errors: Mapping[str, Closeness] = field(default_factory=dict[str, Closeness])
    feeds: int = 0
    data: str | None = None

    def __repr__(self) -> str:
        found = self.account
        int8 = f"{found.audit.linear_int8} of {found.audit.linear_total} linear nodes int8"
        return (
            f"Explanation({len(found.rows)} nodes, {found.total_us:.0f} us, {int8}; see account, to_dict())"
        )

    @property
    def offenders(self) -> list[NodeAccount]:
        """The slowest nodes with a reason, of those that take a share of the time worth naming."""
        wrong = [row for row in self.account.rows if row.reason and row.share >= OFFENDING]
        return sorted(wrong, key=lambda row: -row.time_us)[:OFFENDERS]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; figures JSON has no numbers for are text."""
        found = self.account
        return {
            "data": self.data,
            "feeds": self.feeds,
            "runs": found.runs,
            "total_us": round(found.total_us, 3),
            "int8_time_share": round(found.int8_us / found.total_us, 6) if found.total_us else 0.0,
            "linear_nodes": found.audit.linear_total,
            "linear_int8": found.audit.linear_int8,
            "weights_dequantized_each_run": [
                {"initializer": left.initializer, "elements": left.elements, "readers": list(left.readers)}
                for left in found.audit.leftovers
            ],
            "added_us": {name: round(time, 3) for name, time in sorted(found.added.items())},
            "offenders": [row.node for row in self.offenders],
            "nodes": [
                {
                    "node": row.node,
                    "op_type": row.op_type,
                    "kernel": row.kernel,
                    "precision": row.precision,
                    "fused_into": row.fused_into,
                    "time_us": round(row.time_us, 3),
                    "share": round(row.share, 6),
                    "sqnr_db": self._sqnr(row.node),
                    "code": row.code,
                    "reason": row.reason,
                    "emitted": list(row.emitted),
                }
                for row in found.rows
            ],
        }

    def error(self, node: str) -> Closeness | None:
        """Of the node's result, or of that of the last node its kernel takes in; None when not known."""
        inside = [row.node for row in self.account.rows if row.fused_into == node]
        return next((self.errors[name] for name in (node, *inside[::-1]) if name in self.errors), None)

    def _sqnr(self, node: str) -> float | str | None:
        close = self.error(node)
        if close is None:
            return None
        return round(close.sqnr_db, 3) if math.isfinite(close.sqnr_db) else str(close.sqnr_db)


def explain(
    model: Path,
    original: Path | None = None,
    data: str | None = None,
    *,
    samples: int = 8,
    runs: int = 20,
    threads: int = 1,
) -> Explanation:
    """Explain what onnxruntime makes of a model, in terms of the original's nodes.

    Args:
        model: the model file; `session.json` beside it is honoured.
        original: what it was made from. Without it, the nodes are those its metadata name.
        data: see `calibration.open_feeds`; without it, feeds are drawn from the signature.
        samples: feeds used, at most.
        runs: timed runs.
        threads: intra-op threads; 0 for all cores.

    Raises:
        ModelError, DataError: wrong input.
        UsageError: no node of the model stands for one of the original, or it is the other way round.
        BackendError: onnxruntime refuses the model or a feed.
    """
    loaded = load(model)
    first = None if original is None else load(original)
    sources = None if first is None else _sources(first)
    if sources is not None and sources.keys().isdisjoint(by_origin(loaded)):
        raise UsageError(
            f"no node of {model} stands for one of {original}; --original takes the model it was made from"
        )
    if first is not None and _made_from(first, loaded) and not _made_from(loaded, first):
        raise UsageError(f"{original} was made from {model}: give them the other way round")
    feeds: list[Feed] = list(
        islice(open_feeds(f"random:0:{DRAWN}" if data is None else data, loaded, limit=samples), samples)
    )
    _must_run(model, feeds, "" if data is not None else f"; {DRAWN_AT_RANDOM}")
    found = account(
        model,
        feeds,
        SessionConfig.beside(model),
        sources=sources,
        runs=runs,
        threads=threads,
    )
    errors: dict[str, Closeness] = {}
    if first is not None and data is not None:
        infer_shapes(first)
        errors = node_errors(first, loaded, feeds, threads)
    return Explanation(found, errors, len(feeds), data)


def _must_run(model: Path, feeds: Sequence[Feed], mend: str) -> None:
    """Run all feeds once, so that what fails on them is called by the file's name and the model's own."""
    with OrtSession(model, SessionConfig.beside(model)) as session:
        try:
            for feed in feeds:
                session.run(feed)
        except BackendError as error:
            raise BackendError(f"{error}{mend}") from error


def _made_from(made: Model, source: Model) -> bool:
    """Whether nodes of one model stand for nodes of another that it has not itself."""
    own, theirs = ({label(node) for node in walk_nodes(model)} for model in (made, source))
    return not (by_origin(made).keys() - own).isdisjoint(theirs)


def _sources(model: Model) -> dict[str, str]:
    found = {label(node): node.op_type for node in walk_nodes(model) if node.op_type != "Constant"}
    if not found:
        raise UsageError("the original has no nodes")
    return found
