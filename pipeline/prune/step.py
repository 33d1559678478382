# SPDX-License-Identifier: Apache-2.0
"""The `prune` step of a recipe.

[[step]]
prune = { macs = 0.5, rounds = 3, data = "calib", exclude = ["head*"] }
accept = { max_drop = "1%" }
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...analysis.coupling import attention_of
from ...graph_ir import UsageError
from ..amounts import in_percent, share
from ..recipe_fields import known, placed, table_of, typed
from .budget import KINDS, Budget
from .choice import AIMS, aim_called
from .job import Job
from .select import Limits
from .widths import ALIGN

_WITH_PLAN = ("plan", "data", "refit", "seed")
_OTHERS = (
    "plan", "data", "criterion", "rounds", "global", "align", "min_keep", "max_keep", "exclude", "refit",
    "seed", "attention", "aim",
)  # fmt: skip


@dataclass(frozen=True)
class PruneSpec:
    """What the step says.

    Attributes:
        job: what to prune; None replays `plan`.
        plan: a plan for the model as it is at this step.
        data: a section of data; None takes the command line's, if any.
        refit: whether weights are refitted on the data.
        seed: of the refit of a plan that is replayed.
    """

    job: Job | None
    plan: Path | None = None
    data: str | None = None
    refit: bool = True
    seed: int = 0


def read_prune(where: str, section: Any, data: Collection[str], folder: Path, backend: str) -> PruneSpec:
    """Check the step's table.

    Args:
        where: how errors begin.
        section: the step's table.
        data: names of the sections of data.
        folder: where relative paths start.
        backend: the recipe's target, which widths are aligned to.

    Raises:
        UsageError: with the place and the mend.
    """
    table = table_of(where, section)
    known(where, table, (*KINDS, *_OTHERS))
    named = typed(where, table, "data", str, None)
    if named is not None and named not in data:
        hint = f"there is {', '.join(data)}" if data else "the recipe has no [data] section"
        raise UsageError(f"{where}: no data is called {named!r}; {hint}")
    refit = typed(where, table, "refit", bool, True)
    budgets = [kind for kind in KINDS if kind in table]
    plan = typed(where, table, "plan", str, None)
    if len(budgets) + (plan is not None) != 1:
        raise UsageError(f"{where} needs one of {', '.join(KINDS)} or plan")
    if plan is not None:
        idle = [key for key in table if key not in _WITH_PLAN]
        if idle:
            raise UsageError(
                f"{where}: a plan alone is replayed as it is, and `{idle[0]}` would be ignored; leave it out"
            )
        return PruneSpec(None, folder / plan, named, refit, typed(where, table, "seed", int, 0))
    part = _share(where, budgets[0], table[budgets[0]])
    budget = placed(where, Budget, budgets[0], part)
    aim = aim_called(typed(where, table, "aim", str, Limits.aim))
    if aim is None or ("aim" in table and budget.kind != "macs"):
        raise UsageError(f"{where}: `aim` is {' or '.join(AIMS)}, for a budget of `macs`")
    least, of_least = _bounds(where, table, "min_keep", Limits.min_keep)
    most, of_most = _bounds(where, table, "max_keep", Limits.max_keep)
    limits = Limits(
        align=typed(where, table, "align", int, ALIGN[backend]),
        min_keep=least,
        max_keep=most,
        keep=tuple((glob, of_least.get(glob), of_most.get(glob)) for glob in {**of_least, **of_most}),
        whole_model=typed(where, table, "global", bool, False),
        aim=aim,
    )
    if limits.align < 1 or limits.min_keep > limits.max_keep:
        raise UsageError(f"{where}: `align` must be at least 1 and `min_keep` not above `max_keep`")
    criterion = typed(where, table, "criterion", str, None)
    if criterion is not None:
        from .criteria import get

        placed(where, get, criterion)
    rounds, seed = typed(where, table, "rounds", int, 1), typed(where, table, "seed", int, 0)
    excluded = _names(where, table)
    named_attention = typed(where, table, "attention", str, "heads")
    attention = attention_of(named_attention)
    if attention is None:
        raise UsageError(f"{where}: `attention` is heads or widths, not {named_attention!r}")
    job = placed(where, lambda: Job(budget, criterion, limits, excluded, rounds, refit, seed, attention))
    return PruneSpec(job, None, named, refit, seed)


def _bounds(where: str, table: Mapping[str, Any], key: str, default: float) -> tuple[float, dict[str, float]]:
    """The bound for all groups, and those for groups of some names: a share, or a table of them by glob."""
    given: object = table.get(key, default)
    if not isinstance(given, dict):
        return _kept(where, key, given), {}
    shares = cast("dict[str, object]", given)
    return default, {glob: _kept(where, f"{key}.{glob}", value) for glob, value in shares.items()}


def _share(where: str, key: str, given: object) -> float:
    return placed(f"{where}: `{key}`", share, given)


def _kept(where: str, key: str, given: object) -> float:
    value = _share(where, key, given)
    if not 0 <= value <= 1:
        raise UsageError(f"{where}: `{key}` is a share from 0 to 1, not {value:g}{in_percent(value)}")
    return value


def _names(where: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    given = typed(where, table, "exclude", list, [])
    if not all(isinstance(item, str) for item in given):
        raise UsageError(f"{where}: `exclude` is a list of names, not {given!r}")
    return tuple(cast("list[str]", given))
