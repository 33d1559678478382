# SPDX-License-Identifier: Apache-2.0
"""TOML recipes: what to run, on which data, and what to accept; checked as a whole before anything runs.

    recipe = 1
    [data.calib]
    source = "calib.npz"              # a .npz, a folder, module:function, or random by name
    samples = 256
    [[step]]
    preset = "lossless"
    [[step]]
    prune = { macs = 0.5, data = "calib" }
    [[step]]
    calibrate = { data = "calib", observer = "mse" }
    [[step]]
    passes = "insert-qdq"
    accept = { sqnr_db = 25, max_drop = "1%" }
    [target]
    backend = "onnxruntime-cpu"

Paths are relative to the recipe. Steps without `data` take what `--data` says on the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..calibration import Feeds, Preprocess, observer, open_feeds
from ..calibration.functions import names_function
from ..graph_ir import Model, UsageError, one_line
from ..passes.quantize.facts import CALIBRATED
from .manager import ensured_by
from .presets import preset
from .prune.step import PruneSpec, read_prune
from .recipe_fields import known, placed, read_accept, table_of, typed
from .spec import Pipeline, parse

if TYPE_CHECKING:
    from ..passes.base import Property

VERSION = 1
TARGETS = ("onnxruntime-cpu",)
SHIPPED = Path(__file__).resolve().parent.parent / "recipes"


@dataclass(frozen=True)
class DataSource:
    """A named section of data; `source` is absolute unless it is module:function or random."""

    name: str
    source: str
    samples: int | None = None
    preprocess: Preprocess | None = None

    def open(self, model: Model) -> Feeds:
        """The feeds for a model.

        Raises:
            DataError: they do not fit the model.
            UsageError: they need other settings.
        """
        where = f"data.{self.name}"
        return placed(
            where, lambda: open_feeds(self.source, model, preprocess=self.preprocess, limit=self.samples)
        )


@dataclass(frozen=True)
class Accept:
    """What a step must keep: least SQNR in dB of every output, largest share of the metric to lose."""

    sqnr_db: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True)
class PassesStep:
    """Run passes; `preset` is the name the pipeline came from, if any."""

    pipeline: Pipeline
    accept: Accept | None = None
    preset: str | None = None


@dataclass(frozen=True)
class CalibrateStep:
    """Measure ranges on the section `data` (None: what the command line gives) by the rule `observer`."""

    data: str | None = None
    observer: str = "mse"


@dataclass(frozen=True)
class PruneStep:
    """Remove channels; before anything is measured."""

    spec: PruneSpec
    accept: Accept | None = None


Step: TypeAlias = PassesStep | CalibrateStep | PruneStep


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; `text` is the file as read, for the lock file."""

    name: str
    steps: tuple[Step, ...]
    data: Mapping[str, DataSource]
    backend: str = TARGETS[0]
    text: str = ""

    @property
    def accept(self) -> Accept | None:
        """The tightest of what its steps accept; None where none says."""
        given = [s.accept for s in self.steps if not isinstance(s, CalibrateStep) and s.accept is not None]
        drops = [each.max_drop for each in given if each.max_drop is not None]
        levels = [each.sqnr_db for each in given if each.sqnr_db is not None]
        return Accept(max(levels, default=None), min(drops, default=None)) if given else None

    @property
    def needs_data(self) -> bool:
        """Whether a step wants data that the recipe itself does not name."""
        return any(isinstance(step, CalibrateStep) and step.data is None for step in self.steps)


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe file, or a shipped one by name (`lossless`, `int8`).

    Raises:
        UsageError: one line with the file, the step and what is wrong.
    """
    path = Path(name)
    if not path.exists() and path.name == str(name):
        shipped = SHIPPED / f"{path.name.removesuffix('.toml')}.toml"
        if shipped.exists():
            path = shipped
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        known = ", ".join(sorted(each.stem for each in SHIPPED.glob("*.toml")))
        raise UsageError(f"no recipe at {str(name)!r}; shipped ones are {known}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UsageError(f"cannot read recipe {str(name)!r}: {reason}") from error
    return parse_recipe(text, str(name), path.parent)


def parse_recipe(text: str, name: str = "recipe", folder: Path | None = None) -> Recipe:
    """Read a recipe's text; relative paths in it start from `folder`.

    Raises:
        UsageError: see `load_recipe`.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    where = f"recipe {name!r}"
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {one_line(error)}") from error
    known(where, table, ("recipe", "data", "step", "target"))
    version = table.get("recipe")
    if isinstance(version, bool) or version != VERSION:
        found = "" if version is None else f", not {version!r}"
        raise UsageError(f"{where} must begin with `recipe = {VERSION}`{found}")
    data = {
        key: _data(f"{where}, data.{key}", key, section, folder or Path())
        for key, section in typed(where, table, "data", dict, {}).items()
    }
    given = typed(where, table, "step", list, [])
    if not given:
        raise UsageError(f"{where} has no [[step]]")
    target = typed(where, table, "target", dict, {})
    known(f"{where}, target", target, ("backend",))
    backend = typed(f"{where}, target", target, "backend", str, TARGETS[0])
    if backend not in TARGETS:
        raise UsageError(f"{where}: no backend is called {backend!r}; there is {', '.join(TARGETS)}")
    read = _Reader(data, folder or Path(), backend)
    steps = tuple(read.step(f"{where}, step {i}", step) for i, step in enumerate(given, 1))
    check_order(steps, where)
    return Recipe(name, steps, data, backend, text)


def check_order(steps: Iterable[Step], where: str, model: Model | None = None) -> None:
    """Check that what each pass requires is ensured, and what it reads is measured, by an earlier step.

    Args:
        steps: of a recipe.
        where: how errors begin.
        model: when given, what it already fulfils need not be ensured by a pass.

    Raises:
        UsageError: naming the step, the pass and what would mend it.
    """
    ensured: set[Property] = set()
    facts: set[str] = set()
    dropped = ""
    for number, step in enumerate(steps, 1):
        if isinstance(step, CalibrateStep):
            facts.update(CALIBRATED)
            continue
        if isinstance(step, PruneStep):
            if facts:
                raise UsageError(
                    f"{where}, step {number}: `prune` changes what was measured; put it before `calibrate`"
                )
            continue
        for spec in step.pipeline.passes():
            for wanted in spec.pass_.requires:
                if wanted not in ensured and (model is None or not wanted.holds(model)):
                    advice = ensured_by(wanted)
                    raise UsageError(
                        f"{where}, step {number}: {spec.name!r} requires {wanted.name!r}; {advice}"
                    )
            missing = next((fact for fact in spec.pass_.needs_facts if fact not in facts), None)
            if missing is not None:
                advice = f"put a `calibrate` step before it{dropped}"
                raise UsageError(f"{where}, step {number}: {spec.name!r} needs {missing!r}; {advice}")
            ensured.update(spec.pass_.ensures)
            if spec.pass_.drops_facts and facts:
                facts.clear()
                dropped = f" and behind {spec.name!r}, which changes what was measured"


def _data(where: str, name: str, section: Any, folder: Path) -> DataSource:
    table = table_of(where, section)
    known(where, table, ("source", "samples", "preprocess"))
    source = typed(where, table, "source", str, "")
    if not source:
        raise UsageError(f"{where} needs `source`: a .npz, a folder, module:function, or random by name")
    samples = typed(where, table, "samples", int, None)
    if samples is not None and samples < 1:
        raise UsageError(f"{where}: samples is {samples}; at least 1 is needed")
    by_name = source == "random" or source.startswith("random:")
    path = folder / source
    if path.exists():
        source = str(path.resolve())
    elif not by_name and not names_function(source):
        raise UsageError(f"{where}: no data at {str(path)!r}")
    given = table.get("preprocess")
    preprocess = (
        None if given is None else placed(where, lambda: Preprocess.of(table_of("preprocess", given)))
    )
    return DataSource(name, source, samples, preprocess)


@dataclass(frozen=True)
class _Reader:
    """Reads steps: which data there is, where relative paths start, and what widths are aligned to."""

    data: Mapping[str, DataSource]
    folder: Path
    backend: str

    def step(self, where: str, section: Any) -> Step:
        table = table_of(where, section)
        known(where, table, ("passes", "preset", "calibrate", "prune", "accept"))
        kinds = [kind for kind in ("passes", "preset", "calibrate", "prune") if kind in table]
        if len(kinds) != 1:
            found = ", ".join(kinds) or "none"
            raise UsageError(
                f"{where} must have one of `passes`, `preset`, `calibrate`, `prune`; it has {found}"
            )
        if kinds == ["calibrate"]:
            if "accept" in table:
                raise UsageError(f"{where}: `accept` belongs to a step with passes")
            return self.calibrate(where, table_of(f"{where}, calibrate", table["calibrate"]))
        accept = None if "accept" not in table else Accept(*read_accept(f"{where}, accept", table["accept"]))
        if kinds == ["prune"]:
            spec = read_prune(f"{where}, prune", table["prune"], list(self.data), self.folder, self.backend)
            return PruneStep(spec, accept)
        if kinds == ["passes"]:
            text = typed(where, table, "passes", str, "")
            return PassesStep(placed(where, parse, text), accept)
        name = typed(where, table, "preset", str, "")
        return PassesStep(placed(where, lambda: parse(preset(name))), accept, name)

    def calibrate(self, where: str, table: Mapping[str, Any]) -> CalibrateStep:
        known(f"{where}, calibrate", table, ("data", "observer"))
        name = typed(where, table, "data", str, None)
        if name is not None and name not in self.data:
            there = f"there is {', '.join(self.data)}" if self.data else "the recipe has no [data] section"
            raise UsageError(f"{where}: no data is called {name!r}; {there}")
        rule = typed(where, table, "observer", str, CalibrateStep.observer)
        placed(where, observer, rule)
        return CalibrateStep(name, rule)
