# SPDX-License-Identifier: Apache-2.0
"""What `tersor opt` and its batch mode do: read a model, run a pipeline, write the result, report."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..graph_ir import (
    Model,
    UnsupportedModelError,
    atomic_write,
    gc_paused,
    load,
    notes,
)
from ..graph_ir.ops import STANDARD_DOMAINS, walk_graphs
from ..graph_ir.protos import parts_of
from ..graph_ir.targets import (
    data_file,
    external_files,
    format_of,
    refuse_foreign_weights,
    refuse_name,
    refuse_own_weights,
)
from ..graph_ir.verify import operator_bounds
from ..passes.base import Context
from ..pipeline import manager
from ..pipeline.instrument import Instrument, Step
from ..pipeline.instruments import Dump, PrintIr, RoundError, Verify, When
from ..pipeline.measure import Statistics, Timing
from ..pipeline.outputs import (
    INPUT,
    made_folder,
    refuse_overwriting,
    refuse_unwritable,
    save_over,
)
from ..pipeline.presets import LOSSLESS
from ..pipeline.spec import Pipeline, parse

if TYPE_CHECKING:
    from ..pipeline.validate import Validate

FREEZE = "freeze-default-inputs"

Identifier = tuple[str, str, str]  # an operator's domain, type and overload


@dataclass(frozen=True)
class Settings:
    """How to optimise.

    Attributes:
        passes: pipeline text.
        freeze_default_inputs: first make initializers that are also inputs plain constants.
        verify: verify the IR, and name the pass that broke it.
        print_ir: print the model's text before or after passes, through `write`.
        write: where that text goes.
        dump: a folder for numbered models.
        validate: an instrument that checks numbers.
        external_data: store weights beside the model; None keeps them where they were.
        on_pass: told the name of each pass as it starts.
        untouched: what else is read, by how messages call it, and so never written over.
    """

    passes: str = LOSSLESS
    freeze_default_inputs: bool = False
    verify: bool = True
    print_ir: When | None = None
    write: Callable[[str], object] | None = None
    dump: Path | None = None
    validate: Validate | None = None
    external_data: bool | None = None
    on_pass: Callable[[str], object] | None = None
    untouched: Mapping[str, Path | None] = field(default_factory=dict[str, "Path | None"])


@dataclass(repr=False)
class Report:
    """What was done.

    Attributes:
        pipeline: as it ran.
        before: number of nodes by operator, of all graphs.
        after: the same of the result.
        bytes_before: size of the model with its external data, in bytes.
        bytes_after: the same of the result.
        seconds: spent in load, passes and save.
        notes: what was left alone and why, a line each.
        timing: see `pipeline.measure`.
        statistics: see `pipeline.measure`.
        validation: what was checked and how, see `pipeline.court.Check`.
        copied: the model could not be held and was copied through unchanged.
    """

    pipeline: str
    before: Counter[str] = field(default_factory=Counter[str])
    after: Counter[str] = field(default_factory=Counter[str])
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    notes: list[str] = field(default_factory=list[str])
    timing: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    statistics: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    validation: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    copied: bool = False

    def __repr__(self) -> str:
        nodes = f"nodes {self.before.total()} -> {self.after.total()}"
        sizes = f"bytes {self.bytes_before} -> {self.bytes_after}"
        return f"Report({nodes}, {sizes}; see before, after, notes, statistics, timing)"


def optimize_file(source: Path | str, target: Path | str, settings: Settings | None = None) -> Report:
    """Optimise a model file into another one.

    Args:
        source: read only.
        target: written beside and renamed at the end; nothing is left on an error.
        settings: the lossless pipeline when None.

    Raises:
        UsageError: the result would be written over what is read or over what is not tersor's, or the
            pipeline is wrong.
        ModelError: the model cannot be read or written.
        VerifyError, ClaimError: a pass is at fault.
    """
    chosen = Settings() if settings is None else settings
    source, target = Path(source), Path(target)
    dumped = [] if chosen.dump is None else [chosen.dump]
    refuse_overwriting([target, data_file(target), *dumped], {INPUT: source, **chosen.untouched})
    refuse_unwritable(target)
    refuse_name(target, chosen.external_data)
    text = f"{FREEZE},{chosen.passes}" if chosen.freeze_default_inputs else chosen.passes
    pipeline = parse(text)
    # One pause for all: switching the collector on again makes it walk the whole model once more.
    with gc_paused():
        return _optimize(source, target, chosen, pipeline)


def _optimize(source: Path, target: Path, chosen: Settings, pipeline: Pipeline) -> Report:
    report = Report(str(pipeline))
    start = time.perf_counter()
    try:
        model = load(source)
    except UnsupportedModelError as error:
        return _copy_through(source, target, report, str(error))
    files = external_files(model)
    refuse_own_weights(target, model)
    refuse_foreign_weights(target, model, chosen.external_data)
    report.bytes_before = sum(file.stat().st_size for file in (source, *files))
    operators = _operators(model)
    report.before = _by_title(operators)
    loaded = time.perf_counter()
    # Instruments that look at each pass are given what is verified.
    by_round = chosen.print_ir is None and chosen.dump is None and chosen.validate is None
    try:
        _run(pipeline, model, chosen, report, operators, by_round)
    except RoundError:
        # Passes do the same to the same model: verified after each change, this run names the one at fault.
        _run(pipeline, load(source), chosen, Report(report.pipeline), operators, False)
        raise
    passed = time.perf_counter()
    outside = save_over(model, target, chosen.external_data)
    report.bytes_after = target.stat().st_size + (data_file(target).stat().st_size if outside else 0)
    saved = time.perf_counter()
    report.seconds = {"load": loaded - start, "passes": passed - loaded, "save": saved - passed}
    return report


def _run(
    pipeline: Pipeline,
    model: Model,
    settings: Settings,
    report: Report,
    given: Counter[Identifier],
    by_round: bool,
) -> None:
    ctx = Context()
    timing, statistics = Timing(), Statistics()
    instruments: list[Instrument] = []
    if settings.on_pass is not None:
        instruments.append(_Announce(settings.on_pass))
    if settings.print_ir is not None and settings.write is not None:
        instruments.append(PrintIr(settings.print_ir, settings.write))
    if settings.dump is not None:
        instruments.append(Dump(settings.dump))
    if settings.validate is not None:
        instruments.append(settings.validate)
    if settings.verify:
        instruments.append(Verify(by_round=by_round))
    manager.run(pipeline, model, ctx, [*instruments, statistics, timing])
    operators = _operators(model)
    report.after = _by_title(operators)
    found = [*notes(model), *opaque_notes(model, operators & given), *default_notes(model), *ctx.notes]
    report.notes = found if model.graph.outputs else [*found, "the model has no outputs, so it needs no node"]
    if settings.validate is not None:
        report.validation = [vars(check).copy() for check in settings.validate.checks]
    report.timing = [vars(node).copy() for node in timing.tree()]
    report.statistics = [
        {
            "pass": entry.text,
            "runs": entry.runs,
            "changed": entry.changed,
            "counters": dict(sorted(entry.counters.items())),
            "misses": [
                {"rule": rule, "reason": reason, "count": count}
                for (rule, reason), count in sorted(entry.misses.items())
            ],
        }
        for entry in statistics.result()
    ]


class _Announce(Instrument):
    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell

    def before(self, step: Step, model: Model) -> None:
        self._tell(step.name)


def _copy_through(source: Path, target: Path, report: Report, reason: str) -> Report:
    import onnx

    proto = onnx.load_model(source, load_external_data=False)
    apart = target.parent.resolve() != source.parent.resolve()
    if apart and any(t.data_location == t.EXTERNAL for t in parts_of(proto).weights()):
        raise UnsupportedModelError(
            f"{reason}; its weights lie beside it, so only a copy in their folder works"
        )
    if (format_of(source) or "protobuf") != format_of(target):
        raise UnsupportedModelError(f"{reason}; only a copy of the same kind works: OUT{source.suffix}")
    with made_folder(target.parent), atomic_write(target) as beside:
        shutil.copyfile(source, beside)
    report.copied = True
    report.bytes_before = report.bytes_after = source.stat().st_size
    report.notes = [f"copied unchanged: {reason}"]
    return report


def count_ops(model: Model) -> Counter[str]:
    """Number of nodes by operator (`domain.Op` outside the standard domain), in bodies and functions, too."""
    return _by_title(_operators(model))


def _by_title(operators: Counter[Identifier]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (domain, op_type, _), count in operators.items():
        found[op_type if domain in STANDARD_DOMAINS else f"{domain}.{op_type}"] += count
    return found


def _operators(model: Model) -> Counter[Identifier]:
    """Number of nodes by operator."""
    return Counter([node.op_identifier() for graph in walk_graphs(model) for node in graph])


def default_notes(model: Model) -> list[str]:
    """A line on inputs that have a default, which older exporters make of every weight."""
    count = sum(value.is_initializer() for value in model.graph.inputs)
    if not count:
        return []
    what, them = ("1 input has a default", "it") if count == 1 else (f"{count} inputs have a default", "them")
    mend = f"`tersor opt --freeze-default-inputs` makes {them} constant"
    return [f"{what} and could be overridden, which stops many passes; {mend}"]


def opaque_notes(model: Model, operators: Counter[Identifier] | None = None) -> list[str]:
    """A line for each operator the passes know nothing about: other domains, and unknown standard ones."""
    found: Counter[str] = Counter()
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    for identifier, count in (_operators(model) if operators is None else operators).items():
        domain, op_type, _ = identifier
        if domain in STANDARD_DOMAINS:
            if operator_bounds(op_type, version) is None:
                found[f"operator {op_type} is not in ONNX opset {version}"] += count
        elif identifier not in model.functions:
            found[f"operator {domain}.{op_type} is of a custom domain"] += count
    return [f"{text}: {count} left untouched" for text, count in sorted(found.items())]
