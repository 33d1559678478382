# SPDX-License-Identifier: Apache-2.0
"""What `tersor build` asks for: the score of a model on the test pictures, and the feeds themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
BATCH = 50

Feed = dict[str, NDArray[Any]]


def feeds() -> Iterator[Feed]:
    """The 450 test pictures, in batches of 50: `image` is float32 [50, 1, 32, 32] with values 0 to 16."""
    with np.load(HERE / "test.npz") as arrays:
        images = arrays["image"]
    for start in range(0, len(images), BATCH):
        yield {"image": images[start : start + BATCH]}


def metric(run: Callable[[Feed], list[NDArray[Any]]]) -> float:
    """Share of the test pictures whose digit `run` gets right, from 0 to 1; higher is better."""
    guesses = np.concatenate([run(feed)[0].argmax(axis=1) for feed in feeds()])
    with np.load(HERE / "labels.npz") as arrays:
        return float(np.mean(guesses == arrays["test"]))
