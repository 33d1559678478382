# SPDX-License-Identifier: Apache-2.0
"""Words that all backends share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..graph_ir.errors import TersorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Feed: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Input arrays by input name, with the dtypes and shapes of the model's signature."""


class BackendError(TersorError):
    """A runtime refused a model or failed while it ran; the message names the node and the reason."""


@dataclass(frozen=True)
class Support:
    """Whether a backend can run a node; a refusal has its reason in one line."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True)
class Port:
    """An input or output of a model; `shape` is None when unknown, symbols and None in it are free."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None
