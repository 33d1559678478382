# SPDX-License-Identifier: Apache-2.0
"""Makes the candidates: each is the original taken through a pipeline, written to a working folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from ...analysis.evaluate import Feed
from ...backends.onnxruntime.cpu import host, saturates
from ...calibration.data import Feeds
from ...calibration.sensitivity import Sensitivity, sensitivity
from ...calibration.switches import Per
from ...calibration.visit import UnobservableError
from ...graph_ir import Model, UsageError, load, save, signature_of
from ...graph_ir.ops import opset_of
from ...passes.base import Context
from ...passes.quantize.dynamic import KINDS as DYNAMIC
from ...passes.quantize.dynamic import QuantizeDynamic
from ...passes.quantize.facts import GRIDS, MEANS, RANGES
from .. import manager
from ..instruments import Verify
from ..presets import FINISH, FREEZE, INT8_READY, RAISED
from ..spec import Pipeline, parse, spec_of
from . import float32
from .form import Dynamic, Form
from .ground import Ground
from .model_facts import bindings_in, composition
from .placement import Region, regions_of, share_of
from .result import Candidate
from .settings import BuildSettings

FLOAT_WORDS = "the lossless passes, and what suits the runtime"
LEAST_DYNAMIC = 0.03  # of the work of linear layers; with less to do, dynamic int8 gains nothing

_Start: TypeAlias = "tuple[Path, Pipeline]"  # a float model, and the passes that made it of the original


def _nothing() -> None:
    """Watch nothing."""


class Workshop:
    """Makes candidates for one build.

    Args:
        settings: of the build.
        work: a folder of its own; the caller removes it.
    """

    def __init__(self, settings: BuildSettings, work: Path) -> None:
        self.settings = settings
        self.work = work
        self.notes: list[str] = []
        self._feeds: Feeds | None = None
        self._grounds: dict[tuple[str, ...], Ground | None] = {}

    def calibrate_with(self, feeds: Feeds) -> None:
        """Use these feeds for whatever needs data."""
        self._feeds = feeds

    @cached_property
    def lossless(self) -> Pipeline:
        """The passes every candidate but the original has been through."""
        wanted = RAISED if self.settings.passes is None else self.settings.passes
        return Pipeline((*parse(FREEZE).elements, *parse(wanted).elements))

    @cached_property
    def float_candidate(self) -> Candidate:
        """The original after the lossless passes and what suits the runtime."""
        return self._finished("float", (self._lossless_path, self.lossless), FLOAT_WORDS)

    @cached_property
    def float32_candidate(self) -> Candidate | None:
        """The same computing in float32; None for a model that computes in nothing else."""
        words = f"float32 throughout; {FLOAT_WORDS}"
        return None if self._single is None else self._finished("float32", self._single, words)

    def _finished(self, name: str, start: _Start, words: str) -> Candidate:
        source, before = start
        finish, model = self._finish, load(source)
        manager.run(finish, model, Context(seed=self.settings.seed), [Verify()])
        path = self._path(name)
        save(model, path, provenance=True)
        return Candidate(name, path, str(Pipeline((*before.elements, *finish.elements))), words=words)

    @cached_property
    def _finish(self) -> Pipeline:
        """What every candidate ends with; nothing when the user gave the passes."""
        if self.settings.passes is not None:
            return Pipeline(())
        return parse(FINISH if self._single is None else f"{FINISH},store-half")

    @cached_property
    def _lossless_path(self) -> Path:
        model, context = load(self.settings.model), Context(seed=self.settings.seed)
        manager.run(self.lossless, model, context, [Verify()])
        self.notes += [note for note in context.notes if note not in self.notes]
        path = self._path("lossless")
        save(model, path, provenance=True)
        return path

    @cached_property
    def _single(self) -> _Start | None:
        """The original in float32, after the lossless passes; None where it computes in nothing else."""
        path = self._path("lossless-float32")
        made = float32.write(self.settings, path, self.notes)
        return (path, float32.to_float32(self.settings)) if made else None

    @property
    def _start(self) -> _Start:
        """The float32 model that int8 is made of."""
        return self._single or (self._lossless_path, self.lossless)

    @cached_property
    def int8_ready(self) -> Path | None:
        """The float32 model in the form quantization starts from; None when its opset cannot be raised."""
        model, context = load(self._start[0]), Context(seed=self.settings.seed)
        manager.run(parse(INT8_READY), model, context, [Verify()])
        version = opset_of(model)
        if version < 13:
            self.notes += context.notes
            self.notes.append(
                f"no int8: Q/DQ per channel needs opset 13, and opset {version} cannot be raised"
            )
            return None
        path = self.work / "int8-ready.onnx"
        save(model, path, provenance=True)
        return path

    @cached_property
    def reduced(self) -> bool:
        """Whether this processor needs 7-bit weights."""
        return saturates(host())

    def ground(self, methods: tuple[str, ...] = ()) -> Ground | None:
        """The model quantization starts from, with what was measured on it.

        None when one of the methods changes nothing or would take too long.

        Args:
            methods: accuracy methods to run first, in order, each measured for behind the one before.

        Raises:
            UsageError: the model cannot be quantized.
        """
        if methods not in self._grounds:
            self._grounds[methods] = self._after(methods) if methods else self._plain()
        return self._grounds[methods]

    def _plain(self) -> Ground:
        if self.int8_ready is None:
            raise UsageError("the model cannot be quantized")
        return Ground(self.int8_ready, self._feeds, self.settings)

    def _after(self, methods: tuple[str, ...]) -> Ground | None:
        before = self.ground(methods[:-1])
        try:
            path = self._path(f"ground {len(self._grounds)}")
            return None if before is None else before.after(parse(methods[-1]), path)
        except UnobservableError as error:
            self.notes.append(f"{methods[-1]} was not tried: {error}")
            return None

    def static(self, form: Form) -> Candidate | None:
        """Static int8, with ranges chosen by one rule from the data.

        None when there is nothing to quantize, or nothing for a method or for `form.rest` to do.

        Args:
            form: what it is made of; see there.
        """
        form = self._fitted(form)
        ground = self.ground(form.methods)
        if ground is None:
            return None
        facts: dict[str, Any] = {RANGES: ground.ranges(form)}
        if form.corrected:
            facts |= {MEANS: ground.means, GRIDS: ground.grids(form.options)}
        context = Context(seed=self.settings.seed, facts=facts)
        pipeline = Pipeline((spec_of(form.options),))
        model = ground.model()
        if not manager.run(pipeline, model, context, [Verify()]).changed:
            return None
        if form.rest:
            rest = parse(form.rest)
            if not manager.run(rest, model, context, [Verify()]).changed:
                return None
            pipeline = Pipeline((*pipeline.elements, *rest.elements))
        manager.run(self._finish, model, context, [Verify()])
        self.notes += [note for note in context.notes if note not in self.notes]
        return self._written(form, model, pipeline)

    def _fitted(self, form: Form) -> Form:
        """The form with methods that fit what it leaves float; see `Ground.fitted`."""
        methods: tuple[str, ...] = ()
        for method in form.methods:
            ground = self.ground(methods)
            methods = (*methods, method if ground is None else ground.fitted(method, form))
        return replace(form, methods=methods)

    def range_of(self, form: Form, value: str) -> tuple[float, float]:
        """The range that a form has for a value, by name."""
        found = self._sure(form).ranges(form)[value]
        return found.lo, found.hi

    def regions(self, form: Form) -> int:
        """How many nodes of a static int8 form are int8."""
        ground = self._sure(form)
        return len(ground.plan(ground.model(), form).nodes)

    def priced(self, form: Form, found: Sensitivity, feed: Feed) -> list[Region]:
        """The linear regions of a form with what each costs; see `placement.regions_of`.

        Args:
            form: whose regions were measured.
            found: the measurements.
            feed: gives the sizes of symbolic dimensions.
        """
        model = self._sure(form).model()
        return regions_of(model, found, bindings_in(signature_of(model), [feed]))

    def _sure(self, form: Form) -> Ground:
        ground = self.ground(self._fitted(form).methods)
        if ground is None:
            raise UsageError(f"{', '.join(form.methods)} has nothing to do here")
        return ground

    def sensitivity(
        self,
        form: Form,
        feeds: Sequence[Feed],
        per: Per = "region",
        *,
        outputs: Sequence[str] = (),
        watch: Callable[[], None] = _nothing,
    ) -> Sensitivity:
        """What each region or tensor of a static int8 form costs the model's outputs, the costliest first.

        Args:
            form: what it is made of.
            feeds: see `calibration.sensitivity`.
            per: see `calibration.switches.split`.
            outputs: see `calibration.sensitivity`.
            watch: called after each run; what it raises ends the measuring.
        """
        tell, ground, options = self.settings.progress, self._sure(form), form.options
        model = ground.model()

        def watched(done: int, total: int | None) -> None:
            tell("measuring sensitivity", done, total)
            watch()

        found = sensitivity(
            model,
            ground.plan(model, form),
            feeds,
            per,
            outputs=outputs,
            bits=options.bits,
            mse=options.mse_weights,
            means=ground.means,
            grids=ground.grids(options),
            original=load(self.settings.model),
            threads=0,
            progress=watched,
        )
        return replace(found, observer=form.rules, form=form.name)

    def dynamic(self, form: Dynamic) -> Candidate | None:
        """Dynamic int8 of the linear layers; None when there are none worth it, or a method does nothing."""
        ground = None if self.int8_ready is None else self.ground(form.methods)
        model = None if ground is None else ground.model()
        if model is None or share_of(model, DYNAMIC) < LEAST_DYNAMIC:
            return None
        pipeline = Pipeline((spec_of(QuantizeDynamic(bits=form.bits, per_tensor=form.per_tensor)),))
        context = Context(seed=self.settings.seed)
        if not manager.run(pipeline, model, context, [Verify()]).changed:
            return None
        manager.run(self._finish, model, context, [Verify()])
        return self._written(form, model, pipeline)

    def _written(self, form: Form | Dynamic, model: Model, last: Pipeline) -> Candidate:
        path, kind = self._path(form.name), composition(model)
        save(model, path, provenance=True)
        made = self._whole(last, form.methods)
        return Candidate(
            form.name, path, made, form.rules, quantized=True, composition=kind, words=form.words, form=form
        )

    def _whole(self, last: Pipeline, methods: tuple[str, ...]) -> str:
        between = "".join(f"{parse(method)},infer-shapes," for method in methods)
        passes = f"{self._start[1]},{parse(INT8_READY)},infer-shapes,{between}{last}"
        return f"{passes},{self._finish}" if self._finish.elements else passes

    def _path(self, name: str) -> Path:
        return self.work / (name.replace(" ", "-").replace("/", "-") + ".onnx")
