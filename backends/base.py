# SPDX-License-Identifier: Apache-2.0
"""What every backend offers: legalize (pipeline text), supports, emit, open, run, profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from ..graph_ir.errors import TersorError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from ..graph_ir import Model, Node

Feed: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Input arrays by input name, with the dtypes and shapes of the model's signature."""


class BackendError(TersorError):
    """A runtime refused a model or failed while it ran; the message names the node and the reason."""


@dataclass(frozen=True)
class Missing:
    """A backend cannot be used here: which package is missing, and what would mend it."""

    package: str
    mend: str


@dataclass(frozen=True)
class Support:
    """Whether a backend can run a node; a refusal has its reason in one line."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True)
class Artifact:
    """What `emit` wrote: the model file, what lies beside it, and what it was made from and with."""

    backend: str
    model: Path
    files: tuple[Path, ...]
    fingerprint: str
    pipeline: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Port:
    """An input or output of an artifact; `shape` is None when unknown, symbols and None in it are free."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class ProfileRow:
    """Time of one engine kernel, charged to the source nodes it stands for (none: the engine added it)."""

    sources: tuple[str, ...]
    kernel: str
    time_us: float
    share: float
    calls: int


@dataclass(frozen=True)
class Profile:
    """Kernel times of one run; `total_us` is the sum of the rows, the medians over `runs` runs."""

    rows: tuple[ProfileRow, ...]
    total_us: float
    runs: int


class Session(Protocol):
    """An opened artifact."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What a feed must hold."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What `run` returns, in order."""
        ...

    def run(self, feed: Feed) -> list[NDArray[Any]]:
        """The outputs in signature order."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Backend(Protocol):
    """Where a model goes. Heavy packages load inside the methods, never when the class is imported."""

    @property
    def name(self) -> str:
        """What a command line calls it."""
        ...

    @property
    def legalize(self) -> str:
        """Pipeline text that a model needs before `emit`; may be empty."""
        ...

    def available(self) -> Missing | None:
        """None when it can be used here."""
        ...

    def supports(self, node: Node) -> Support:
        """Whether the engine has a kernel for the node, or why not."""
        ...

    def emit(self, model: Model, path: Path) -> Artifact:
        """Write the artifact of a legalized model."""
        ...

    def open(self, artifact: Artifact) -> Session:
        """Load an artifact to run it."""
        ...

    def profile(self, artifact: Artifact, feeds: Sequence[Feed]) -> Profile:
        """Time per source node."""
        ...
