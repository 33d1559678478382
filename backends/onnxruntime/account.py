# SPDX-License-Identifier: Apache-2.0
"""What became of every node of a model in onnxruntime: kernel, precision, time, and why it is not int8.

Nodes are those of the source model: where the file carries provenance (`tersor.origins`), a node of the file
is accounted to the nodes it stands for; otherwise each stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

from ..base import Feed
from .audit import Audit, AuditRow, audit_of
from .charge import LINEAR, Kernel, SourceNode
from .config import SessionConfig
from .graph_view import DQ, Q, label
from .layout import BLOCKED, layout_verdict
from .optimized import Optimized, optimized_with_sources
from .precision import BOUNDARY, LAYOUT, integer_tensors, kernel_precision
from .profile import CONTAINERS, run_times
from .source import ModelSource

Computed: TypeAlias = Literal["int8", "float", "dynamic", "mixed", "gone"]
"""As `precision.Precision`; mixed: its kernels are of more than one kind."""

_DEFAULT = SessionConfig()
_WARMUP = 2  # runs that do not count
_SILENT = frozenset({Q, DQ, "Constant"})


@dataclass(frozen=True)
class NodeAccount:
    """What became of one node of the source model.

    Attributes:
        node: its label.
        op_type: its operator; empty when only its name is known.
        kernel: the runtime's operators it ended in, joined by `+`; empty when it has none of its own.
        precision: see `Computed`.
        fused_into: the node whose kernel does its work; empty when it has its own or is gone.
        time_us: of one run, median; that of a kernel that does the work of several nodes is with one of them.
        share: of the whole run.
        code: short code of the reason.
        reason: why it is not int8, or what makes it slow; empty when all is well.
        emitted: names of the file's nodes that stand for it.
    """

    node: str
    op_type: str
    kernel: str
    precision: Computed
    fused_into: str
    time_us: float
    share: float
    code: str
    reason: str
    emitted: tuple[str, ...]


@dataclass(frozen=True)
class Account:
    """Rows in graph order.

    Attributes:
        rows: one for each node of the source model that is known of.
        added: time in microseconds of kernels the runtime added, by operator.
        total_us: sum of all kernels.
        int8_us: time of those that compute on integers, dynamic ones included, Q and DQ not.
        audit: of the file's own nodes.
        runs: over which the medians were taken.
    """

    rows: tuple[NodeAccount, ...]
    added: Mapping[str, float]
    total_us: float
    int8_us: float
    audit: Audit
    runs: int


def account(
    model: ModelSource,
    feeds: Sequence[Feed],
    config: SessionConfig = _DEFAULT,
    *,
    sources: Mapping[str, str] | None = None,
    runs: int = 20,
    threads: int = 1,
) -> Account:
    """Optimize and profile a model, and account its kernels to the nodes of the source model.

    Args:
        model: path, bytes or proto; left unchanged.
        feeds: cycled through, one per run.
        config: the session's options.
        sources: operator by label, of the nodes of the source model in graph order; those that nothing stands
            for any more get a row that says so.
        runs: measured runs.
        threads: intra-op threads; 0 for all cores.

    Raises:
        DataError: no feeds.
        BackendError: onnxruntime refuses the model or a feed.
    """
    with optimized_with_sources(model, config) as optimized:
        found = audit_of(optimized, {})
        measured = run_times(optimized, feeds, config, runs=runs, warmup=_WARMUP, threads=threads)
        times = {
            number: median(sum(run.get(number, ())) for run in measured)
            for number, kernel in enumerate(optimized.kernels)
            if kernel.node.op_type not in CONTAINERS
        }
        return _Accountant(optimized, found, times, sources).account(len(measured))


class _Accountant:
    def __init__(
        self,
        optimized: Optimized,
        audit: Audit,
        times: Mapping[int, float],
        sources: Mapping[str, str] | None,
    ) -> None:
        self._optimized, self._audit, self._times = optimized, audit, times
        self._items = optimized.sources
        self._integers = integer_tensors(optimized.kernels)
        self._total = sum(times.values())
        self._sources = dict(sources or {})
        self._emitted: dict[str, list[SourceNode]] = {}
        for item in self._items:
            for name in self._names(item):
                self._emitted.setdefault(name, []).append(item)
        if sources is None:
            known = (i for i in self._items if i.node.op_type not in _SILENT)
            for item in known:
                for name, op_type in self._names(item).items():
                    self._sources.setdefault(name, op_type)
        self._own: dict[str, list[int]] = {}  # kernels by the node they are accounted to
        self._within: dict[str, str] = {}  # by node, the one whose kernel does its work
        self._added: dict[str, float] = {}
        for number, kernel in enumerate(optimized.kernels):
            self._assign(number, kernel)

    def _names(self, item: SourceNode) -> Mapping[str, str]:
        """The nodes an item stands for, and their operators."""
        return self._optimized.origins.get(item.label, {item.label: item.node.op_type})

    def _assign(self, number: int, kernel: Kernel) -> None:
        items = [self._items[index] for index in kernel.sources]
        core = [item for item in items if item.node.op_type not in _SILENT] or items
        names = [name for item in core for name in self._names(item) if name in self._sources]
        if not names:
            title = kernel.node.op_type
            self._added[title] = self._added.get(title, 0.0) + self._times.get(number, 0.0)
            return
        head = self._head(core, names)
        self._own.setdefault(head, []).append(number)
        if kernel.node.op_type not in BOUNDARY | LAYOUT:
            for name in names:
                self._within.setdefault(name, head)

    def _head(self, core: Sequence[SourceNode], names: Sequence[str]) -> str:
        """The node a kernel is accounted to: the linear one, else one whose name it kept, else the last."""
        linear = [name for name in names if self._sources.get(name) in LINEAR]
        kept = [item.label for item in core if item.label in names]
        leading = [item.label for item in core if item.node.op_type in LINEAR and item.label in names]
        return (linear or leading or kept[::-1] or names[::-1])[0]

    def account(self, runs: int) -> Account:
        verdicts = {row.node: row for row in self._audit.rows}
        rows = tuple(self._row(name, op_type, verdicts) for name, op_type in self._sources.items())
        narrow = sum(
            time
            for number, time in self._times.items()
            if self._precision(number) in ("int8", "dynamic")
            and self._optimized.kernels[number].node.op_type not in BOUNDARY
        )
        return Account(rows, self._added, self._total, narrow, self._audit, runs)

    def _precision(self, number: int) -> str:
        return kernel_precision(self._optimized.kernels[number], self._integers)

    def _row(self, name: str, op_type: str, verdicts: Mapping[str, AuditRow]) -> NodeAccount:
        numbers = self._own.get(name, [])
        kernels = self._optimized.kernels
        own = [n for n in numbers if kernels[n].node.op_type not in BOUNDARY | LAYOUT]
        title = "+".join(dict.fromkeys(_title(kernels[n]) for n in own or numbers))
        time = sum(self._times.get(n, 0.0) for n in numbers)
        emitted = tuple(dict.fromkeys(item.label for item in self._emitted.get(name, [])))
        head = self._within.get(name, "")
        into = head if head != name and not own else ""
        kinds = {self._precision(n) for n in own or numbers or self._own.get(into, [])}
        precision: Computed = "gone"
        if len(kinds) > 1:
            precision = "mixed"
        elif kinds:
            precision = "int8" if "int8" in kinds else "dynamic" if "dynamic" in kinds else "float"
        code, reason = self._reason(name, own, precision, verdicts)
        share = time / self._total if self._total else 0.0
        return NodeAccount(name, op_type, title, precision, into, time, share, code, reason, emitted)

    def _reason(
        self, name: str, own: Sequence[int], precision: Computed, verdicts: Mapping[str, AuditRow]
    ) -> tuple[str, str]:
        if precision in ("int8", "dynamic", "gone") or not own:
            wrong = [verdicts[i.label] for i in self._emitted.get(name, []) if i.label in verdicts]
            return next(((row.code, row.reason) for row in wrong if row.misread), ("", ""))
        found: list[tuple[str, str]] = []
        unquantized: list[tuple[str, str]] = []  # says something only where other nodes are int8
        for item in self._emitted.get(name, []):
            row = verdicts.get(item.label)
            if row is not None and row.precision == "float" and row.code:
                (unquantized if row.code == "not-quantized" else found).append((row.code, row.reason))
            for number in own:
                kernel = self._optimized.kernels[number]
                verdict = layout_verdict(item, kernel) if item.index in kernel.sources else None
                if verdict is not None:
                    found.append((verdict.code, verdict.text))
        if self._audit.linear_int8:
            found += unquantized
        return found[0] if found else ("", "")


def _title(kernel: Kernel) -> str:
    node = kernel.node
    prefix = "nchwc." if node.domain == BLOCKED else ""
    return prefix + (node.op_type or label(node))
