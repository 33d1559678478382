# SPDX-License-Identifier: Apache-2.0
"""Makes the candidates: each is the original taken through a pipeline, written to a working folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...analysis.evaluate import Feed
from ...calibration.collect import Histograms, channel_means, choose, collect
from ...calibration.data import Feeds
from ...calibration.sensitivity import Sensitivity, sensitivity
from ...calibration.switches import Per
from ...graph_ir import Model, UsageError, load, save
from ...graph_ir.ops import is_op
from ...passes.base import Context
from ...passes.quantize.bias_correction import values_for_means
from ...passes.quantize.dynamic import QuantizeDynamic
from ...passes.quantize.insert_qdq import MEANS, RANGES, InsertQdq
from ...passes.quantize.plan import QuantPlan, plan, tensors_to_observe
from .. import manager
from ..instruments import Verify
from ..presets import FREEZE, INT8_READY, LOSSLESS
from ..spec import Pipeline, parse, spec_of
from .result import Candidate
from .settings import BuildSettings


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
        self._histograms: Histograms | None = None
        self._means: Mapping[str, Any] | None = None

    def calibrate_with(self, feeds: Feeds) -> None:
        """Use these feeds for whatever needs data."""
        self._feeds = feeds

    @cached_property
    def lossless(self) -> Pipeline:
        """The passes every candidate but the original has been through."""
        wanted = LOSSLESS if self.settings.passes is None else self.settings.passes
        return Pipeline((*parse(FREEZE).elements, *parse(wanted).elements))

    @cached_property
    def float_candidate(self) -> Candidate:
        """The original after the lossless passes."""
        return self._make("float", self.settings.model, self.lossless, Context(seed=self.settings.seed))

    @cached_property
    def int8_ready(self) -> Path | None:
        """The float model in the form quantization starts from; None when its opset cannot be raised."""
        text = str(parse(INT8_READY))
        context = Context(seed=self.settings.seed)
        model = load(self.float_candidate.path)
        manager.run(parse(text), model, context, [Verify()])
        version = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
        if version < 13:
            self.notes += context.notes
            self.notes.append(
                f"no int8: Q/DQ per channel needs opset 13, and opset {version} cannot be raised"
            )
            return None
        path = self.work / "int8-ready.onnx"
        save(model, path, provenance=True)
        return path

    def ready_model(self) -> Model:
        """A fresh copy of the model quantization starts from, shapes inferred."""
        if self.int8_ready is None:
            raise UsageError("the model cannot be quantized")
        model = load(self.int8_ready)
        manager.run(parse("infer-shapes"), model)
        return model

    def static(self, name: str, observer: str, options: InsertQdq) -> Candidate | None:
        """Static int8: Q/DQ with ranges chosen by one rule, biases corrected by the means of the data.

        None when there is nothing to quantize.

        Args:
            name: of the candidate.
            observer: see `calibration.observers.observer`.
            options: the pass with its options.
        """
        facts = {RANGES: self._ranges(observer), MEANS: self._channel_means()}
        context = Context(seed=self.settings.seed, facts=facts)
        pipeline = Pipeline((spec_of(options),))
        model = self.ready_model()
        if not manager.run(pipeline, model, context, [Verify()]).changed:
            return None
        self.notes += [note for note in context.notes if note not in self.notes]
        path = self._path(name)
        save(model, path, provenance=True)
        return Candidate(name, path, self._whole(pipeline), observer, quantized=True)

    def regions(self, observer: str, options: InsertQdq) -> int:
        """How many nodes of a static int8 form are int8."""
        return len(self._plan(self.ready_model(), observer, options).nodes)

    def _plan(self, model: Model, observer: str, options: InsertQdq) -> QuantPlan:
        return plan(model, self._ranges(observer), options.plan_options)

    def sensitivity(
        self, observer: str, options: InsertQdq, feeds: Sequence[Feed], per: Per = "region"
    ) -> Sensitivity:
        """What each region or tensor of a static int8 form costs the model's outputs, the costliest first.

        Args:
            observer: as `static` takes it.
            options: as `static` takes them.
            feeds: see `calibration.sensitivity`.
            per: region or tensor.
        """
        tell = self.settings.progress
        model = self.ready_model()
        planned = self._plan(model, observer, options)
        return sensitivity(
            model,
            planned,
            feeds,
            per,
            bits=options.bits,
            mse=options.mse_weights,
            means=self._channel_means(),
            threads=0,
            progress=lambda done, total: tell("measuring sensitivity", done, total),
        )

    def dynamic(self, name: str) -> Candidate | None:
        """Dynamic int8 of the linear layers; None when there are none worth it."""
        if self.int8_ready is None:
            return None
        model = self.ready_model()
        if not any(is_op(node, "MatMul", "Gemm") for node in model.graph):
            return None
        pipeline = Pipeline((spec_of(QuantizeDynamic()),))
        context = Context(seed=self.settings.seed)
        result = manager.run(pipeline, model, context, [Verify()])
        if not result.changed:
            return None
        path = self._path(name)
        save(model, path, provenance=True)
        return Candidate(name, path, self._whole(pipeline), quantized=True)

    def _whole(self, last: Pipeline) -> str:
        return f"{self.lossless},{parse(INT8_READY)},infer-shapes,{last}"

    def _ready_path(self) -> Path:
        if self.int8_ready is None:
            raise UsageError("the model cannot be quantized")
        return self.int8_ready

    def _ranges(self, observer: str) -> Mapping[str, Any]:
        return choose(self._measured(), observer).values

    def _measured(self) -> Histograms:
        if self._histograms is None:
            model = self.ready_model()
            names = tensors_to_observe(model)
            tell = self.settings.progress
            self._histograms = collect(
                load(self._ready_path()),
                self._data(),
                names,
                threads=0,
                progress=lambda done, total: tell("calibrating", done, total),
            )
        return self._histograms

    def _channel_means(self) -> Mapping[str, Any]:
        if self._means is None:
            model = self.ready_model()
            names = values_for_means(model)
            self._means = channel_means(load(self._ready_path()), self._data(), names, threads=0)
        return self._means

    def _data(self) -> Iterable[Any]:
        if self._feeds is None:
            raise UsageError("static quantization needs calibration data; give --data")
        return self._feeds

    def _path(self, name: str) -> Path:
        return self.work / (name.replace(" ", "-").replace("/", "-") + ".onnx")

    def _make(self, name: str, source: Path, pipeline: Pipeline, context: Context) -> Candidate:
        model = load(source)
        manager.run(pipeline, model, context, [Verify()])
        self.notes += [note for note in context.notes if note not in self.notes]
        path = self._path(name)
        save(model, path, provenance=True)
        return Candidate(name, path, str(pipeline))
