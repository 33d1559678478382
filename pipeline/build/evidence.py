# SPDX-License-Identifier: Apache-2.0
"""Whether a metric of few samples can vouch for a quantized form: its error is made larger on purpose.

A metric of n samples sees no drop below 1/n. How often an error tips an answer over grows about as the error
does, so long as it is small: a metric that moves by no more than k times its limit under k times the error
says as much about the error itself as k times the samples would. So the metric is given

    y' = y + k (y_candidate - y),

y and y_candidate the outputs of the original and of the candidate. A metric that rises counts as one that
falls: both are answers tipped over. Nothing is known of outputs that are not floats of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import DataError

Feed = Mapping[str, NDArray[Any]]
Run = Callable[[Feed], list[Any]]

ONE_SAMPLE_DB = 45.0  # how close a form must be for one sample to do; 10 dB less for each tenfold
AMPLIFIED = (2, 4, 8)


def needed_db(samples: float) -> float:
    """How close outputs must be for a metric of so many samples to vouch for them, in dB."""
    return ONE_SAMPLE_DB - 10 * math.log10(max(1.0, samples))


def enough(samples: int, closeness_db: float) -> int | None:
    """The smallest factor on the error at which a kept metric would be evidence enough.

    1 where the samples do as they are, None where no factor of `AMPLIFIED` would do.
    """
    return next((k for k in (1, *AMPLIFIED) if closeness_db >= needed_db(samples * k)), None)


def amplified(original: Run, candidate: Run, factor: float) -> Run:
    """A run whose outputs are off by `factor` times what the candidate's are.

    The run raises DataError where an output is not of floating point, or of another shape.
    """

    def run(feed: Feed) -> list[Any]:
        return [_beyond(a, b, factor) for a, b in zip(original(feed), candidate(feed), strict=True)]

    return run


def _beyond(want: object, got: object, factor: float) -> NDArray[Any]:
    if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):
        raise DataError("an output is no tensor, and its error cannot be scaled")
    left, right = cast("NDArray[Any]", want), cast("NDArray[Any]", got)
    if left.dtype.kind != "f" or left.shape != right.shape:
        raise DataError("an output is not of floats, or of another shape, and its error cannot be scaled")
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values stay so, or become NaN
        wide = left.astype(np.float64) + factor * (right.astype(np.float64) - left)
        return np.where(left == right, left, wide).astype(left.dtype)
