# SPDX-License-Identifier: Apache-2.0
"""The dtypes of arrays that a model takes, by the types of its signature."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph_ir import DataError, DataType


def input_dtype(kind: str) -> np.dtype[Any] | None:
    """The numpy dtype of a signature type such as ``FLOAT``; None for what is not a tensor."""
    if kind not in DataType.__members__:
        return None
    return np.dtype(object) if kind == "STRING" else DataType[kind].numpy()


def check_dtype(where: str, dtype: np.dtype[Any], kind: str) -> None:
    """Refuse arrays of another dtype than a signature type's; texts may come in any of numpy's.

    Raises:
        DataError: beginning with `where`.
    """
    wanted = input_dtype(kind)
    if wanted is None or dtype == wanted or (wanted.hasobject and dtype.kind in "UST"):
        return
    named = "str" if wanted.hasobject else wanted
    raise DataError(f"{where}: type {dtype}, the model takes {named}; convert it with .astype")
