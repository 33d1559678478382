# SPDX-License-Identifier: Apache-2.0
"""Run a model, or look inside it, on the host.

onnxruntime with its graph optimizer off, so that every value keeps the name and the numbers the graph gives
it. Weights are lent to the session from where they lie (in memory or mapped from a file); only a proto
without them is serialised, so neither size nor number of sessions multiplies them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph_ir import (
    DataError,
    Model,
    ModelError,
    Signature,
    a_kind,
    constant,
    from_proto,
    load,
    signature_of,
)
from .input_types import check_dtype, input_dtype
from .lending import LENT, excerpt
from .runtime_words import explain
from .shapes import misfit

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession, OrtValue

Feed = Mapping[str, Any]


class Evaluator:
    """One onnxruntime session over a model.

    Args:
        model: an IR model, a ModelProto or the path of a model file. It is not changed, and must not be while
            the evaluator lives.
        outputs: names of the values to compute, in any order: model outputs, values inside the main graph,
            inputs or constants. None for the model's own outputs.
        threads: threads used inside operators.
        given: values inside the main graph that every feed brings, by name (any one of their arrays): what
            makes them is not run. A node that makes one of them may make nothing else that is needed.

    Raises:
        DataError: when a name in `outputs` is not a value of the main graph.
        ModelError: when onnxruntime cannot run the model.
    """

    def __init__(
        self,
        model: Model | onnx.ModelProto | str | os.PathLike[str],
        *,
        outputs: Sequence[str] | None = None,
        threads: int = 1,
        given: Feed | None = None,
    ) -> None:
        import onnxruntime as ort

        if isinstance(model, (str, os.PathLike)):
            model = load(model)
        elif not isinstance(model, Model):
            model = from_proto(model)
        self.signature = signature_of(model)
        declared = [value.name or "" for value in model.graph.outputs]
        wanted = declared if outputs is None else list(dict.fromkeys(outputs))
        known_inputs = {value.name for value in model.graph.inputs} | (given or {}).keys()
        self._given = [name for name in wanted if name in known_inputs]
        self._constants = _constants(model, wanted)
        self._computed = [name for name in wanted if name not in self._given and name not in self._constants]
        self.outputs = wanted
        extra = [name for name in self._computed if name not in declared]
        _check_inside(model, extra)
        # Only what was asked for: the rest need neither be kept nor computed.
        proto, self.lent = excerpt(model, None if outputs is None else self._computed, given or {})
        # Views, not copies. Neither the options nor the session keep them alive, so the evaluator must.
        self._views = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self.lent.items()}
        try:
            self._session = _open(proto, self._views, threads) if self._computed else None
        except ModelError as error:
            raise ModelError(misfit(model, str(error))) from error

    def run(self, feed: Feed, *, index: int | None = None, check: bool = True) -> dict[str, NDArray[Any]]:
        """Compute the outputs for one feed: input name to array, as the signature says.

        Args:
            feed: the inputs; those with a default may be left out.
            index: which sample this is, for messages.
            check: check the feed first (`check_feed`).

        Returns:
            Name to array, in the order of `outputs`. Sequence outputs are lists, as onnxruntime gives them.

        Raises:
            DataError: when the feed does not fit the model, or the model fails on it.
        """
        if check:
            check_feed(self.signature, feed, index)
        found: dict[str, Any] = dict(self._constants)
        if self._session is not None:
            errors = _runtime_errors()
            try:
                computed = self._session.run(self._computed, dict(feed))
            except errors as error:
                raise DataError(f"onnxruntime failed on {_sample(index)}: {explain(str(error))}") from error
            found.update(zip(self._computed, computed, strict=True))
        for name in self._given:
            if name not in feed:
                raise DataError(f"{_sample(index)} leaves out {name!r}, whose value was asked for; give it")
            found[name] = np.asarray(feed[name])
        return {name: found[name] for name in self.outputs}


def check_feed(signature: Signature, feed: Feed, index: int | None = None, *, finite: bool = True) -> None:
    """Refuse a feed that does not fit a model's signature, naming the input and the sample.

    Args:
        signature: of the model (`signature_of`).
        feed: input name to array.
        index: which sample this is, counted from 0; None when there is only one.
        finite: whether NaN and infinities are refused, too.

    Raises:
        DataError: input missing or unknown, not an array, wrong type, rank or fixed dimension, NaN or Inf.
    """
    where = _sample(index)
    names = [name for name, _, _ in signature.inputs]
    for name in names:
        if name not in feed:
            raise DataError(f"{where} misses input {name!r}; the model needs {', '.join(names)}")
    for name in feed:
        if name not in names and name not in signature.optional:
            raise DataError(
                f"{where} has {name!r}, which is no input of the model; it takes {', '.join(names)}"
            )
    for name, kind, dims in signature.inputs:
        given: object = feed[name]
        if input_dtype(kind) is None:
            raise DataError(f"input {name!r} is a {kind}; tersor runs models on arrays only")
        if not isinstance(given, np.ndarray):
            raise DataError(f"{where}, input {name!r}: {a_kind(given)}, not a numpy array")
        _check_array(f"{where}, input {name!r}", feed[name], kind, dims, finite=finite)


def _check_array(
    where: str, array: NDArray[Any], kind: str, dims: tuple[int | str | None, ...] | None, *, finite: bool
) -> None:
    check_dtype(where, array.dtype, kind)
    if dims is not None:
        shape = list(array.shape)
        fits = len(shape) == len(dims) and all(
            d == s for d, s in zip(dims, shape, strict=True) if isinstance(d, int)
        )
        if not fits:
            wanted = ", ".join("?" if d is None else str(d) for d in dims)
            raise DataError(f"{where}: shape {shape}, the model takes [{wanted}]")
    is_float = str(array.dtype).startswith(("float", "bfloat"))
    if finite and is_float and not np.isfinite(array).all():
        what = "NaN" if np.isnan(array).any() else "infinite values"
        raise DataError(f"{where}: holds {what}; mend the data or its preprocessing")


def _sample(index: int | None) -> str:
    return "the feed" if index is None else f"sample {index}"


def _constants(model: Model, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name in wanted:
        value = model.graph.initializers.get(name)
        array = None if value is None else constant(value)
        if array is not None:
            found[name] = array
    return found


def _check_inside(model: Model, names: Sequence[str]) -> None:
    if not names:
        return
    inside = {output.name for node in model.graph for output in node.outputs}
    for name in names:
        if not name or name not in inside:
            raise DataError(f"{name!r} is no value of the model's main graph; it cannot be looked at")


def _open(proto: onnx.ModelProto, lent: Mapping[str, OrtValue], threads: int) -> InferenceSession:
    import onnxruntime as ort
    from google.protobuf.message import EncodeError

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        # Lent weights are external data whose file onnxruntime wants to exist, though it never reads it.
        (Path(folder) / LENT).touch()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        for name, value in lent.items():
            options.add_initializer(name, value)
        try:
            return ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except EncodeError as error:
            raise ModelError("over 2 GB lie outside the main graph's initializers; cannot run it") from error
        except _runtime_errors() as error:
            raise ModelError(f"onnxruntime cannot run this model: {explain(str(error))}") from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    """The exceptions onnxruntime raises; they share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        ValueError,
        RuntimeError,
    )
