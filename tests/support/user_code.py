# SPDX-License-Identifier: Apache-2.0
"""Metrics and data functions as users write them, good and bad; named to the build as `module:function`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feed = dict[str, NDArray[Any]]
Run = Callable[[Feed], list[Any]]

HERE = "tests.support.user_code"
X: NDArray[np.float32] = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def mean(run: Run) -> float:
    """Mean of the first output on `X`."""
    return float(run({"x": X})[0].mean())


def array(run: Run) -> NDArray[Any]:
    return np.array([[mean(run)]], np.float32)


def yes(run: Run) -> bool:
    return mean(run) > -1e9


def text(run: Run) -> str:
    return "0.5"


def nothing(run: Run) -> None:
    return None


def several(run: Run) -> list[float]:
    return [0.5, 0.5]


def nan(run: Run) -> float:
    return float("nan")


def dice(run: Run) -> float:
    """Another number each time."""
    return mean(run) * float(np.random.default_rng().uniform(0.5, 1))


def nan_below_two(run: Run) -> float:
    """As `mean`, undefined for a model that answers less than 2."""
    found = mean(run)
    return found if found >= 2 else float("nan")


def above(run: Run) -> float:
    """1 for a model that answers more than 2.99 on average, else half of it."""
    return 1.0 if mean(run) > 2.99 else 0.5


def fails(run: Run) -> float:
    raise RuntimeError("no such\n  score")


def leaves(run: Run) -> float:
    raise SystemExit(0)


def wrong_feed(run: Run) -> float:
    return float(run({"z": X})[0].mean())


def wrong_dtype(run: Run) -> float:
    return float(run({"x": X.astype(np.float64)})[0].mean())


def flat(run: Run) -> float:
    return float(run({"x": X.reshape(-1)[:1]})[0].mean())


def wrong_array(run: Any) -> float:
    return float(run({"x": X.tolist()})[0].mean())


def no_dict(run: Any) -> float:
    return float(run(X)[0].mean())


def once(run: Run) -> float:
    """Works the first time that it is asked after `again`."""
    return mean(run) and next(_spent[0])


_spent = [iter([0.5])]


def again() -> None:
    _spent[0] = iter([0.5])


def as_it_was(run: Run) -> float:
    """Punishes any change of an output, however small: 1 for the first model that is asked, 0 for others."""
    found = run({"image": np.arange(1024, dtype=np.float32).reshape(1, 1, 32, 32) % 17})[0]
    return float(_FIRST.setdefault("digits", found.tobytes()) == found.tobytes())


_FIRST: dict[str, bytes] = {}


def texts_as_they_were_once(run: Run) -> float:
    """For a model with texts: 1 for the original, which is asked first and second, 0 for what comes later."""
    run({"x": np.zeros((4, 8), np.float32), "names": np.array(["a", "b"], object)})
    return _first_two()


def picture_as_it_was_once(run: Run) -> float:
    """The same for a model that reads a picture."""
    run({"x": np.zeros((1, 3, 12, 12), np.float32)})
    return _first_two()


def _first_two() -> float:
    _ASKED.append(1)
    return float(len(_ASKED) % 3 != 0)


_ASKED: list[int] = []


def never_runs(run: Run) -> float:
    return 0.5


# Data functions, for models with an input `x` of shape [2, 3].


def feeds() -> Iterator[Feed]:
    for scale in (1, 2, 3, 4):
        yield {"x": X * np.float32(scale)}


def growing() -> Iterator[Feed]:
    """Ids for a model with `ids` and `types`, longer from feed to feed."""
    for length in (3, 4, 5, 6):
        yield {
            "ids": np.arange(2 * length, dtype=np.int64).reshape(2, length),
            "types": np.zeros((2, length), np.int64),
        }


def raises() -> Iterator[Feed]:
    raise ZeroDivisionError("at once")


def raises_later() -> Iterator[Feed]:
    yield {"x": X}
    raise ZeroDivisionError("after one")


_generator = feeds()


def spent() -> Iterator[Feed]:
    """Hands out one generator again and again."""
    return _generator


def none_at_all() -> list[Feed]:
    return []


def no_iterable() -> int:
    return 3


def no_dicts() -> list[NDArray[Any]]:
    return [X]


def wrong_shape() -> list[Feed]:
    return [{"x": X[:, :2]}]


def wrong_type() -> list[Feed]:
    return [{"x": X.astype(np.int64)}]


def wrong_name() -> list[Feed]:
    return [{"z": X}]


def extra() -> list[Feed]:
    return [{"x": X, "z": X}]


def with_nan() -> list[Feed]:
    return [{"x": X}, {"x": np.where(X > 0, np.float32(np.nan), X)}]


def lists() -> list[Any]:
    return [{"x": X.tolist()}]


not_callable = 3


def squares(outputs: list[Any], feed: Feed) -> Any:
    """A loss over the outputs, which are tensors of torch."""
    assert sorted(feed) == ["x"]
    return (outputs[0] ** 2).sum()


def broken_loss(outputs: list[Any], feed: Feed) -> Any:
    return outputs[len(feed) + 10]
