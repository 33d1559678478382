# SPDX-License-Identifier: Apache-2.0
"""What a build found: candidates, their judgement and the figures that are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ...analysis.fidelity import Closeness
from ...backends.onnxruntime.audit import Audit
from ...backends.onnxruntime.config import SessionConfig
from ...backends.onnxruntime.latency import Latency, over
from ...backends.onnxruntime.runtime_check import Concurrency
from ...calibration.sensitivity import Sensitivity
from ...graph_ir import UsageError
from .form import Dynamic, Form

Composition: TypeAlias = "tuple[tuple[str, int], ...]"


@dataclass(frozen=True)
class Candidate:
    """One form of the model that may be shipped.

    Attributes:
        name: for people ("original", "float", "int8 mse").
        path: the model file.
        pipeline: the passes that made it from the original, as text; empty for the original.
        observer: the rule its ranges were chosen by; empty when it needs none.
        config: the session it wants.
        quantized: whether it computes in int8.
        composition: equal for those that take equal time; see `model_facts.composition`.
        words: what the name stands for.
        form: what it is made of; None for those that are no int8 form of the search.
    """

    name: str
    path: Path
    pipeline: str = field(default="", repr=False)
    observer: str = ""
    config: SessionConfig = field(default_factory=SessionConfig)
    quantized: bool = False
    composition: Composition = field(default=(), repr=False)
    words: str = ""
    form: Form | Dynamic | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Judgement:
    """How accurate a candidate is against the original.

    Attributes:
        accepted: whether it keeps within the limits asked for.
        reason: why not; empty when accepted.
        metric: the user's figure, None without one.
        drop: relative loss of the metric, None without one.
        fidelity: closeness of each output over the feeds.
        constant_db: by output, how far the power of its part that is the same for every feed lifts the
            signal-to-noise ratio, in dB.
        failed: whether it could not be run or scored at all; it is not accepted then.
        vouched: whether it was asked what is to be expected on other data (see `evidence`).
        expected: that drop, by this candidate alone; None where nothing needed to be run for it.
        at_most: the upper end of that estimate.
        before: closeness of what outputs are decided by, and of outputs of no decision (see `decisions`);
            empty where outputs have errors as they are.
    """

    accepted: bool
    reason: str
    metric: float | None
    drop: float | None
    fidelity: Mapping[str, Closeness]
    constant_db: Mapping[str, float] = field(default_factory=dict[str, float])
    failed: bool = False
    vouched: bool = False
    expected: float | None = None
    at_most: float | None = None
    before: Mapping[str, Closeness] = field(default_factory=dict[str, Closeness])

    def varying_db(self, output: str) -> float:
        """An output's signal-to-noise ratio in dB, of the part of it that depends on the input."""
        return self.fidelity[output].sqnr_db - self.constant_db.get(output, 0.0)

    @property
    def closeness_db(self) -> float:
        """The worst output's signal-to-noise ratio in dB, of the part of it that depends on the input.

        Outputs that are much the same for every input look close however little of what tells the inputs
        apart is left; this is what candidates are compared by.
        """
        default = float("inf" if self.accepted else "-inf")
        if self.before:
            return min(c.sqnr_db - self.constant_db.get(name, 0.0) for name, c in self.before.items())
        return min(map(self.varying_db, self.fidelity), default=default)

    @property
    def sqnr_db(self) -> float:
        """The worst output's signal-to-noise ratio in dB; where there is none, inf, or -inf when refused."""
        default = float("inf" if self.accepted else "-inf")
        return min((c.sqnr_db for c in self.fidelity.values()), default=default)


@dataclass(frozen=True)
class Facts:
    """Size and cost of one model.

    Attributes:
        parameters: elements of all weights.
        macs: multiply-accumulates of one run.
        size: bytes on disk, with weights beside the file.
        nodes: of all graphs.
        uncounted: nodes whose MACs are not known, for want of shapes or of a count, and not in the sum.
    """

    parameters: int
    macs: int
    size: int
    nodes: int
    uncounted: int = 0


@dataclass(frozen=True)
class Proof:
    """What was checked of the winner once it was chosen.

    Attributes:
        audit: what onnxruntime made of each node; None when it is not quantized.
        concurrency: throughput and latency under concurrent callers, whose answers all agreed.
        failure: why it must not be shipped; empty when all is well.
    """

    audit: Audit | None
    concurrency: Sequence[Concurrency]
    failure: str


@dataclass(repr=False)
class BuildResult:
    """Everything the report says.

    Attributes:
        winner: what was shipped.
        why: one sentence on how it was chosen.
        before: the original.
        facts: size and cost by candidate name, of the original and the winner.
        judged: candidates by name with their judgement, in the order they were tried.
        latency: by number of threads (1 and all), by candidate name.
        proof: what was checked of the winner.
        notes: what was left alone, frozen or skipped, and what more data would add.
        sensitivity: what each region of static int8 costs the outputs; None where that was not measured.
        unmet: why what a recipe made is not what it says to `accept`, or what the metric says where it fails
            on every candidate; empty otherwise.
    """

    winner: Candidate
    why: str
    before: Candidate
    facts: Mapping[str, Facts]
    judged: Mapping[str, tuple[Candidate, Judgement]]
    latency: Mapping[int, Mapping[str, Latency]]
    proof: Proof
    notes: list[str] = field(default_factory=list[str])
    sensitivity: Sensitivity | None = None
    unmet: str = ""

    def __repr__(self) -> str:
        speeds = [f"{self.speedup(threads):.2f}x on {threads}" for threads in self.latency]
        timed = f", {', '.join(speeds)} thread(s)" if speeds else ""
        where = f"{self.winner.name!r} in {str(self.winner.path)!r}"
        return f"BuildResult({where}{timed}; see why, judged, facts, notes)"

    def speedup(self, threads: int) -> float:
        """How many times faster the winner is than the original, with so many threads.

        Raises:
            UsageError: nothing was timed with so many.
        """
        if self.latency and threads not in self.latency:
            timed = " and ".join(map(str, self.latency))
            raise UsageError(f"nothing was timed on {threads} threads, but on {timed}")
        times = self.latency.get(threads, {})
        if self.winner.name not in times or self.before.name not in times:
            return 1.0
        return 1 / over(times, self.winner.name, self.before.name)  # as the choice saw it
