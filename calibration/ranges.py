# SPDX-License-Identifier: Apache-2.0
"""Measured ranges: a plain fact about one model, kept in a file of its own or inside the model.

In a model, each value carries its range in `metadata_props` under ``tersor.range`` and the model a header
under ``tersor.ranges``, so that a calibrated model is one file. The fingerprint does not cover metadata:
storing ranges does not make them stale.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..graph_ir import DataError, Model, Value, atomic_write, fingerprint
from ..graph_ir.json_text import parse_object, read_object

RANGE = "tersor.range"
RANGES = "tersor.ranges"
_FORMAT = 1


@dataclass(frozen=True)
class TensorRange:
    """The range of one value.

    Attributes:
        lo: lower end to quantise, at most 0.
        hi: upper end to quantise, at least 0; equal to `lo` only when all values seen were 0.
        min: smallest finite value seen.
        max: largest finite value seen.
        count: number of finite values seen.
        observer: rule that chose `lo` and `hi`.
        mean: of the finite values, to within half a cell of the histogram; None when not measured.
        std: likewise.
        unsafe: why the value should not be quantised; empty when it may be.
    """

    lo: float
    hi: float
    min: float
    max: float
    count: int
    observer: str
    mean: float | None = None
    std: float | None = None
    unsafe: str = ""


@dataclass(frozen=True)
class Ranges:
    """Ranges by value name, for the one model with this fingerprint.

    Attributes:
        fingerprint: of the model they were measured on (`graph_ir.fingerprint`).
        values: value name to range.
        scheme: the grid they were chosen for, as text.
        samples: number of feeds they were measured on.
        data: what the feeds were.
    """

    fingerprint: str
    values: Mapping[str, TensorRange]
    scheme: str = ""
    samples: int = 0
    data: str = ""

    def get(self, name: str) -> TensorRange | None:
        """The range of a value, None when it was not measured."""
        return self.values.get(name)

    def check(self, model: Model) -> None:
        """Refuse a model other than the one measured.

        Raises:
            DataError: naming both fingerprints, or a value that the model lacks (its values were renamed).
        """
        now = fingerprint(model)
        if now != self.fingerprint:
            raise DataError(
                f"these ranges were measured on model {self.fingerprint}, this is {now}; calibrate it again"
            )
        values = _values(model)
        for name in self.values:
            if name not in values:
                raise DataError(f"these ranges name {name!r}, which this model lacks; calibrate it again")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, all or nothing."""
        body = {name: dataclasses.asdict(self.values[name]) for name in sorted(self.values)}
        text = json.dumps({**self._header(), "values": body}, indent=1, allow_nan=False)
        with atomic_write(path) as beside:
            beside.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ranges:
        """Read what `save` wrote. Raises DataError when the file is missing or holds something else."""
        where = f"the file of ranges {str(path)!r}"
        header = read_object(path, where)
        values = _table(header.get("values"), where)
        return _assemble(header, {name: _range(entry, where) for name, entry in values.items()}, where)

    def store(self, model: Model) -> None:
        """Write the ranges into the model's values, after `check`; ranges stored before are replaced."""
        self.check(model)
        for name, value in _values(model).items():
            value.metadata_props.pop(RANGE, None)
            if name in self.values:
                value.metadata_props[RANGE] = json.dumps(
                    dataclasses.asdict(self.values[name]), allow_nan=False
                )
        model.metadata_props[RANGES] = json.dumps(self._header())

    @classmethod
    def stored(cls, model: Model) -> Ranges | None:
        """The ranges stored in a model; None when it has none.

        Raises:
            DataError: when they are not readable, or were measured on another model.
        """
        if RANGES not in model.metadata_props:
            return None
        where = "the model's stored ranges"
        header = parse_object(model.metadata_props[RANGES], where)
        found = {
            name: _range(parse_object(value.metadata_props[RANGE], where), where)
            for name, value in _values(model).items()
            if RANGE in value.metadata_props
        }
        ranges = _assemble(header, found, where)
        ranges.check(model)
        return ranges

    def _header(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "scheme": self.scheme,
            "samples": self.samples,
            "data": self.data,
        }


def _values(model: Model) -> dict[str, Value]:
    """Values of the main graph by name: inputs, initializers, node outputs."""
    graph = model.graph
    found = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    found.update((output.name, output) for node in graph for output in node.outputs)
    return {name: value for name, value in found.items() if name}


def _table(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise DataError(f"{where} holds none; calibrate again")
    return found  # pyright: ignore[reportUnknownVariableType]


def _assemble(header: dict[str, Any], values: dict[str, TensorRange], where: str) -> Ranges:
    if header.get("format") != _FORMAT or not isinstance(header.get("fingerprint"), str):
        raise DataError(f"{where} holds none, or those of another version; calibrate again")
    return Ranges(
        header["fingerprint"],
        values,
        str(header.get("scheme", "")),
        int(header.get("samples", 0)),
        str(header.get("data", "")),
    )


def _range(found: Any, where: str) -> TensorRange:
    entry = _table(found, where)
    try:
        made = TensorRange(**entry)
        sound = made.lo <= 0 <= made.hi and math.isfinite(made.lo) and math.isfinite(made.hi)
    except TypeError as error:
        raise DataError(f"{where}: {error}") from error
    if not sound:
        raise DataError(f"{where}: a range from {made.lo} to {made.hi} does not hold zero")
    return made
