# SPDX-License-Identifier: Apache-2.0
"""What became zero, what did not and why, and what it is good for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ....graph_ir import ExternalTensor, Model, to_proto
from ....graph_ir.ops import walk_graphs
from ....passes.prune.sparse_layers import Left

TENSORRT_PATTERN = "2:4"
_CHUNK = 1 << 24  # bytes compressed at once
_GZIP = 31  # window bits that make zlib write gzip's format


@dataclass(frozen=True)
class LayerZeros:
    """One constant.

    Attributes:
        weight: its name.
        nodes: labels of the nodes that read it.
        size: number of weights.
        before: zeros it had.
        zeros: zeros it has.
        error: squared error of its outputs over the data, as a share of their squares; None: not measured.
    """

    weight: str
    nodes: tuple[str, ...]
    size: int
    before: int
    zeros: int
    error: float | None = None


@dataclass(frozen=True)
class SparsityReport:
    """What `sparsify` did.

    Attributes:
        criterion: magnitude, wanda or sparsegpt.
        asked: the share or pattern, and the scope.
        layers: the constants that were masked.
        left: the ones that stayed dense, with the reasons.
        note: what the target gains from the zeros.
        gzip_before: bytes of the model compressed by gzip before; None when not asked for.
        gzip_after: the same after.
    """

    criterion: str
    asked: str
    layers: tuple[LayerZeros, ...]
    left: tuple[Left, ...]
    note: str
    gzip_before: int | None = None
    gzip_after: int | None = None

    @property
    def weights(self) -> int:
        """Number of weights in the masked constants."""
        return sum(layer.size for layer in self.layers)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """The share of zeros among the weights of the masked constants."""
        return self.zeros / self.weights if self.weights else 0.0

    def lines(self) -> list[str]:
        """For people: the total, the file, the target, then what was left dense, by reason."""
        total = (
            f"{self.criterion}, {self.asked}: {self.zeros:,} of {self.weights:,} weights in "
            f"{len(self.layers)} layers are zero ({self.sparsity:.1%})"
        )
        found = [total]
        if self.gzip_before is not None and self.gzip_after is not None:
            share = self.gzip_after / max(self.gzip_before, 1)
            found.append(
                f"the file keeps its size; compressed by gzip it takes {self.gzip_after:,} bytes instead of "
                f"{self.gzip_before:,} ({share:.0%})"
            )
        found.append(self.note)
        by_reason: dict[str, list[Left]] = {}
        for one in self.left:
            by_reason.setdefault(one.reason, []).append(one)
        for reason, those in by_reason.items():
            more = f" and {len(those) - 1} more" if len(those) > 1 else ""
            stay = "stay" if more else "stays"
            found.append(f"{those[0].weight!r} of {those[0].node!r}{more} {stay} dense: {reason}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data for a report file."""
        return {
            "criterion": self.criterion,
            "asked": self.asked,
            "weights": self.weights,
            "zeros": self.zeros,
            "gzip_before": self.gzip_before,
            "gzip_after": self.gzip_after,
            "note": self.note,
            "layers": [
                {
                    "weight": layer.weight,
                    "nodes": list(layer.nodes),
                    "size": layer.size,
                    "zeros_before": layer.before,
                    "zeros": layer.zeros,
                    "error": layer.error,
                }
                for layer in self.layers
            ],
            "left": [{"node": one.node, "weight": one.weight, "reason": one.reason} for one in self.left],
        }


def gain(target: str, pattern: str | None) -> str:
    """What a runtime gains from the zeros, said plainly.

    Args:
        target: a backend's name.
        pattern: N:M, or None for zeros anywhere.
    """
    if target.startswith("tensorrt"):
        if pattern == TENSORRT_PATTERN:
            return (
                f"{target} may run layers of 2:4 weights faster, on GPUs with sparse tensor cores (Ampere "
                "and later) in half precision or int8, when the engine is built with sparse weights allowed; "
                "it keeps dense kernels where they are quicker"
            )
        return f"{target} gains nothing from these zeros: it has sparse kernels for 2:4 only"
    if target == "onnxruntime":
        return (
            "onnxruntime gains nothing from zeros: its CPU kernels multiply them like any number, so neither "
            "time nor memory falls; cut whole channels for that"
        )
    return f"nothing is known of {target} gaining from zeros"


def gzip_size(model: Model) -> int:
    """Bytes the model, with its weights, takes when compressed by gzip at its default level."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    total = 0
    for piece in _pieces(model):
        view = memoryview(piece)
        for start in range(0, len(view), _CHUNK):
            total += len(packer.compress(view[start : start + _CHUNK]))
    return total + len(packer.flush())


def _pieces(model: Model) -> Iterator[bytes]:
    yield to_proto(model).SerializeToString(deterministic=True)
    for graph in walk_graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ExternalTensor):
                yield value.const_value.tobytes()
