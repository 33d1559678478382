# SPDX-License-Identifier: Apache-2.0
"""How important a channel is: the table of criteria, loaded when named."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from ....graph_ir import UsageError
from .base import Criterion, Request, Samples, Scores, normalise

TABLE: dict[str, str] = {
    "l1": "l1:L1",
    "l2": "l2:L2",
    "bn-gamma": "bn_gamma:BnGamma",
    "lamp": "lamp:Lamp",
    "fpgm": "fpgm:Fpgm",
    "random": "chance:Random",
    "wanda": "wanda:Wanda",
    "reconstruction": "reconstruction:Reconstruction",
    "taylor": "taylor:Taylor",
    "hessian": "hessian:Hessian",
}

_LOSSES = frozenset({"reconstruction", "taylor", "hessian"})

DEFAULT_WITHOUT_DATA = "l2"
DEFAULT_WITH_DATA = "reconstruction"


def names() -> list[str]:
    """Names of all criteria, sorted."""
    return sorted(TABLE)


def predicts_loss(name: str) -> bool:
    """Whether the scores are shares of a loss, so that atoms of different groups compare as they are."""
    return name in _LOSSES


def get(name: str) -> Criterion:
    """A criterion by name, with its defaults.

    Raises:
        UsageError: for an unknown name (with the nearest ones).
    """
    from difflib import get_close_matches

    if name not in TABLE:
        near = get_close_matches(name, names(), 3)
        hint = f"; did you mean {', '.join(near)}?" if near else f"; there are {', '.join(names())}"
        raise UsageError(f"no criterion is called {name!r}{hint}")
    module, _, attribute = TABLE[name].partition(":")
    made: object = getattr(import_module(f".{module}", __package__), attribute)()
    return cast("Criterion", made)


__all__ = [
    "DEFAULT_WITHOUT_DATA",
    "DEFAULT_WITH_DATA",
    "TABLE",
    "Criterion",
    "Request",
    "Samples",
    "Scores",
    "get",
    "names",
    "normalise",
    "predicts_loss",
]
