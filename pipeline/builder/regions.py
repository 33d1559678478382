# SPDX-License-Identifier: Apache-2.0
"""Sensitivity by itself: what `tersor sensitivity` measures, on the same float form and ranges as a build."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ...calibration.data import open_feeds
from ...calibration.sensitivity import Sensitivity
from ...calibration.switches import Per
from ...graph_ir import DataError, load
from ...passes.quantize.insert_qdq import InsertQdq
from ..tell import Tell
from .form import Form
from .model_facts import is_quantized, why_not_int8
from .settings import BuildSettings
from .workshop import Workshop

QUANTIZED = (
    "the model is quantized already: the figures are of what int8 would cost on top, in parts that are float "
    "or once more; give the float model for the whole"
)


def sensitivity_of(
    model: Path,
    data: str,
    per: Per = "region",
    *,
    observer: str = "mse",
    samples: int = 64,
    runs: int = 8,
    progress: Tell | None = None,
) -> Sensitivity:
    """What each part of a float model costs its outputs when it alone is int8, as `build` would have it.

    Args:
        model: the model file.
        data: see `calibration.open_feeds`.
        per: a part for each region (an int8 kernel and what it takes in), or for each tensor.
        observer: the rule ranges are chosen by, see `calibration.observers.observer`.
        samples: feeds the ranges are measured on, at most.
        runs: how many of them the parts are run on.
        progress: told how far it is.

    Raises:
        ModelError, DataError, UsageError: wrong input, or nothing in the model can be int8.
    """
    given = load(model)
    feeds = open_feeds(data, given, limit=samples)
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        settings = BuildSettings(model, Path(folder), data=data, samples=samples)
        if progress is not None:
            settings = replace(settings, progress=progress)
        workshop = Workshop(settings, Path(folder))
        workshop.calibrate_with(feeds)
        found = workshop.sensitivity(Form(observer, InsertQdq()), list(islice(feeds, runs)), per)
        if not found.losses:
            ready = workshop.int8_ready
            raise DataError(f"nothing can be int8: {why_not_int8(load(model if ready is None else ready))}")
    return replace(found, notes=(*feeds.notes, *((QUANTIZED,) if is_quantized(given) else ())))
