# SPDX-License-Identifier: Apache-2.0
"""What onnxruntime makes of a model: the optimized graph, charged to its source nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...graph_ir.provenance import left_float, stored_origins
from ..base import BackendError
from .charge import Kernel, SourceNode, charge, mark, unmarked
from .config import SessionConfig
from .graph_view import label, scopes_of
from .session import make_session, session_options
from .source import ModelSource, graph_proto, loadable

if TYPE_CHECKING:
    import onnx

_DEFAULT = SessionConfig()
_MODEL, _WEIGHTS = "optimized.onnx", "optimized.bin"
_WEIGHTS_FILE = "session.optimized_model_external_initializers_file_name"
_WEIGHTS_MIN = "session.optimized_model_external_initializers_min_size_in_bytes"
_SMALL = 1024  # bytes of an initializer that stays within the proto: scales, zero points, shapes


@dataclass(frozen=True, eq=False)
class Optimized:
    """The two graphs side by side; weights of over 1 KiB stay in files, which live within the block only.

    `origins`, each with its operator, and `left_float`, why a node was not quantized, are from the model's
    metadata, by label of the source node.
    """

    sources: Sequence[SourceNode]
    kernels: Sequence[Kernel]
    proto: onnx.ModelProto
    path: Path
    origins: Mapping[str, Mapping[str, str]]
    left_float: Mapping[str, str]


@contextmanager
def optimized_with_sources(source: ModelSource, config: SessionConfig = _DEFAULT) -> Generator[Optimized]:
    """The optimized graph with each kernel charged to its source nodes; files vanish after the block.

    Raises:
        ModelError: no such file, or no ONNX model.
        BackendError: onnxruntime refuses the model.
    """
    import onnx

    proto, folder = graph_proto(source)
    scopes = scopes_of(proto, folder)
    origins, reasons = stored_origins(proto), left_float(proto)
    sources = [
        SourceNode(index, label(node), node, scope)
        for index, (scope, node) in enumerate((s, n) for s in scopes for n in s.graph.node)
    ]
    for item in sources:  # a node made anew in another's place stays float for the same reason
        for name, op_type in origins.get(item.label, {}).items():
            if name in reasons and op_type == item.node.op_type:
                reasons.setdefault(item.label, reasons[name])
    with tempfile.TemporaryDirectory(prefix="tersor-") as name:
        for item in sources:
            item.node.name = mark(item.index)
        try:
            path = _write_optimized(proto, config, Path(name), folder)
        except BackendError as error:
            raise BackendError(unmarked(str(error), sources)) from error
        for item in sources:
            item.node.name = item.label
        result = onnx.load(str(path), load_external_data=False)
        yield Optimized(sources, charge(result, sources, path.parent), result, path, origins, reasons)


def _write_optimized(source: ModelSource, config: SessionConfig, into: Path, folder: Path | None) -> Path:
    target = into / _MODEL
    entries = {**config.config, _WEIGHTS_FILE: _WEIGHTS, _WEIGHTS_MIN: str(_SMALL)}
    options = session_options(SessionConfig(entries, config.disabled_optimizers), threads=1)
    options.optimized_model_filepath = str(target)
    make_session(loadable(source, folder), options, config)
    if not target.is_file():
        raise BackendError("onnxruntime did not write its optimized graph; is the temporary folder full?")
    return target
