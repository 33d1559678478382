# SPDX-License-Identifier: Apache-2.0
"""The words of `tersor prune` turned into what the pruner takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..graph_ir import UsageError
from ..pipeline.amounts import in_percent, share
from ..pipeline.prune.budget import KINDS, Budget
from ..pipeline.prune.choice import Aim
from ..pipeline.prune.select import Limits
from ..pipeline.prune.sparsify import CRITERIA, SparsityOptions
from ..pipeline.prune.widths import ALIGN
from ..pipeline.recipe_fields import placed


def budget_of(**given: str | None) -> Budget | None:
    """The one budget that was given, by kind; None without any.

    Raises:
        UsageError: several are given, or one is no share between 0 and 1.
    """
    named = {kind: text for kind, text in given.items() if text is not None}
    if len(named) > 1:
        raise UsageError(f"give one budget, not {' and '.join(f'--{kind}' for kind in named)}")
    return next((Budget(kind, placed(f"--{kind}", share, text)) for kind, text in named.items()), None)


def aim_of(aim: Aim | None, budget: Budget | None) -> Aim:
    """What a MACs budget is to buy.

    Raises:
        UsageError: it is said, and the budget counts no MACs.
    """
    if aim is not None and (budget is None or budget.kind != "macs"):
        raise UsageError("--aim says what a budget of MACs buys; give it with --macs")
    return aim or Limits.aim


def refuse_mixtures(
    *,
    budget: bool,
    sparsity: str | None,
    pattern: str | None,
    plan: Path | None,
    rounds: int | None,
    save_plan: Path | None,
    written: bool,
    ignored: Mapping[str, object],
) -> None:
    """Refuse options that have nothing to say to each other, and a result that goes nowhere.

    `ignored` holds, by option, what says how a budget is met: a plan that is replayed has no use for it.

    Raises:
        UsageError: naming them, and what to give instead.
    """
    masks = sparsity is not None or pattern is not None
    if masks and (budget or plan is not None):
        raise UsageError(
            "--sparsity and --pattern set single weights to zero; give no budget and no plan with them"
        )
    if masks and save_plan is not None:
        raise UsageError("--save-plan is for channels; single weights have no plan")
    if rounds is not None and not budget:
        kinds = ", ".join(f"--{kind}" for kind in KINDS)
        raise UsageError(f"--rounds needs a budget to share out: one of {kinds}")
    said = [option for option, value in ignored.items() if value]
    if plan is not None and not budget and said:
        raise UsageError(
            f"a plan alone is replayed as it is, and {said[0]} would be ignored; leave it out or add a budget"
        )
    if not written:
        raise UsageError("give -o OUT for the result, or --dry-run to write no model")


def sparsity_of(
    sparsity: str | None,
    pattern: str | None,
    criterion: str | None,
    *,
    target: str,
    exclude: tuple[str, ...],
    whole_model: bool,
    seed: int,
) -> SparsityOptions | None:
    """What to do with single weights; None without --sparsity and --pattern.

    Raises:
        UsageError: see `SparsityOptions`.
    """
    if sparsity is None and pattern is None:
        return None
    return SparsityOptions(
        sparsity=None if sparsity is None else placed("--sparsity", share, sparsity),
        pattern=pattern,
        criterion=criterion or CRITERIA[0],
        scope="global" if whole_model else "layer",
        exclude=exclude,
        target=target.removesuffix("-cpu"),
        seed=seed,
    )


def limits_of(
    align: int | None,
    target: str,
    min_keep: Sequence[str],
    max_keep: Sequence[str],
    *,
    whole_model: bool,
    aim: Aim,
) -> Limits:
    """Alignment and bounds.

    Raises:
        UsageError: an unknown target, an alignment below 1, or bounds that leave no range.
    """
    if target not in ALIGN:
        raise UsageError(f"no target is called {target!r}; there is {', '.join(ALIGN)}")
    if align is not None and align < 1:
        raise UsageError(f"--align must be at least 1, not {align}")
    least, of_least = _bounds("--min-keep", min_keep)
    most, of_most = _bounds("--max-keep", max_keep)
    low = Limits.min_keep if least is None else least
    high = Limits.max_keep if most is None else most
    single = tuple((glob, of_least.get(glob), of_most.get(glob)) for glob in {**of_least, **of_most})
    for name, least_of, most_of in (("every group", low, high), *single):
        down, up = low if least_of is None else least_of, high if most_of is None else most_of
        if down > up:
            raise UsageError(f"{name}: --min-keep {down:g} is above --max-keep {up:g}")
    return Limits(ALIGN[target] if align is None else align, low, high, single, whole_model, aim=aim)


def _bounds(option: str, given: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """The bound for all groups, and those for groups of some names."""
    general: float | None = None
    single: dict[str, float] = {}
    for text in given:
        glob, mark, number = text.rpartition("=")
        value = placed(option, share, number)
        if not 0 <= value <= 1:
            raise UsageError(
                f"{option} is a share of a group's channels from 0 to 1, not {number}{in_percent(value)}"
            )
        if glob in single if mark else general is not None:
            whose = repr(glob) if mark else "every group"
            raise UsageError(f"{option} {text!r}: the share of {whose} is given already")
        if mark:
            single[glob] = value
        else:
            general = value
    return general, single
