# SPDX-License-Identifier: Apache-2.0
"""onnxruntime on CPU behind the protocol that all backends share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...graph_ir import Model, Node, fingerprint, save
from ..base import Artifact, BackendError, Feed, Missing, Profile, Support
from .config import SESSION_FILE, SessionConfig
from .cpu import host, runtime_version
from .profile import profile
from .runtime import runtime
from .session import OrtSession
from .supports import refusals, supports

_DEFAULT = SessionConfig()


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """Models for `onnxruntime.InferenceSession` on CPU: an ONNX file, and `session.json` beside it."""

    name: str = "onnxruntime-cpu"
    # The runtime takes any standard model and does its own lowering; nothing has to be rewritten first.
    legalize: str = ""

    def available(self) -> Missing | None:
        """None when onnxruntime can be imported."""
        try:
            runtime()
        except BackendError:
            return Missing("onnxruntime", "pip install onnxruntime")
        return None

    def supports(self, node: Node) -> Support:
        """Whether the runtime has a CPU kernel for the node, or why not."""
        return supports(node)

    def refusals(self, model: Model) -> list[tuple[str, str]]:
        """All nodes that the runtime cannot run, as (label, reason)."""
        return refusals(model)

    def emit(
        self, model: Model, path: Path, config: SessionConfig = _DEFAULT, *, pipeline: str = ""
    ) -> Artifact:
        """Write the model, and `session.json` beside it (also when a default session is best).

        Args:
            model: left unchanged.
            path: the model file; one folder holds one artifact, as `session.json` has a fixed name.
            config: session options.
            pipeline: what made the model, for the record.

        Raises:
            ModelError: when the folder cannot be written; files are written beside and renamed.
        """
        save(model, path)
        settings = path.parent / SESSION_FILE
        config.save(settings)
        weights = path.with_name(path.name + ".data")
        return Artifact(
            backend=self.name,
            model=path,
            files=(path, settings, *([weights] if weights.is_file() else [])),
            fingerprint=fingerprint(model),
            pipeline=pipeline,
            versions={"onnxruntime": runtime_version()},
            flags=host().flags,
        )

    def open(self, artifact: Artifact, *, threads: int = 0) -> OrtSession:
        """Open what `emit` wrote, with the options that lie beside it.

        Raises:
            BackendError: when the runtime refuses it.
        """
        return OrtSession(artifact.model, SessionConfig.beside(artifact.model), threads=threads)

    def profile(self, artifact: Artifact, feeds: Sequence[Feed]) -> Profile:
        """Time per source node on these feeds, on one thread."""
        return profile(artifact.model, feeds, SessionConfig.beside(artifact.model))
