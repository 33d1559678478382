# SPDX-License-Identifier: Apache-2.0
"""`tersor prune`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import typer

from ..analysis.cores import MOST_THREADS

_KEEP = (
    "Least share of its channels each group keeps: 0.25, or 'GLOB=0.5' for groups of that name; repeatable."
)


_HOW_MUCH = "How much goes (give one budget)"
_WHICH = "Which channels go, and which widths may come of it"
_DATA = "Data"
_ROUNDS = "Rounds, and when to stop"
_PLANS = "Plans, to keep, edit and replay"
_ZEROS = "Single weights instead of channels"
_SHOWN = "What is written and shown"
_MEASURED = "Measuring and chance"


class Attention(str, Enum):
    """What a decomposed attention loses."""

    HEADS = "heads"
    WIDTHS = "widths"


class Aim(str, Enum):
    """What a MACs budget is to buy."""

    TIME = "time"
    IMPORTANCE = "importance"


def command(
    model: Path = typer.Argument(
        ..., exists=True, metavar="MODEL", help="The model file; it is never touched."
    ),
    out: Path | None = typer.Option(
        None, "-o", "--out", metavar="OUT", help="Where the result goes.", rich_help_panel=_SHOWN
    ),
    *,
    ratio: str | None = typer.Option(
        None, metavar="F", help="Share of the channels to remove: 0.3, 30%.", rich_help_panel=_HOW_MUCH
    ),
    params: str | None = typer.Option(
        None, metavar="F", help="Share of the parameters to keep.", rich_help_panel=_HOW_MUCH
    ),
    macs: str | None = typer.Option(
        None, metavar="F", help="Share of the multiply-accumulates to keep.", rich_help_panel=_HOW_MUCH
    ),
    size: str | None = typer.Option(
        None, metavar="F", help="Share of the bytes on disk to keep.", rich_help_panel=_HOW_MUCH
    ),
    latency: str | None = typer.Option(
        None, metavar="F", help="Share of the time to keep, as measured here.", rich_help_panel=_HOW_MUCH
    ),
    aim: Aim | None = typer.Option(
        None,
        help="What --macs buys: time, or the least loss of importance alone.",
        show_default="time",
        rich_help_panel=_HOW_MUCH,
    ),
    criterion: str | None = typer.Option(
        None,
        metavar="NAME",
        help="What makes a channel important; by default reconstruction with data, else l2.",
        rich_help_panel=_WHICH,
    ),
    whole_model: bool = typer.Option(
        False,
        "--global/--per-group",
        help="Compare channels across groups, or cut each group alike.",
        rich_help_panel=_WHICH,
    ),
    exclude: list[str] | None = typer.Option(
        None,
        metavar="PATTERN",
        help="Leave alone by name (glob), operator (op:LSTM) or chain (Conv>Sigmoid); repeatable.",
        rich_help_panel=_WHICH,
    ),
    min_keep: list[str] | None = typer.Option(
        None, metavar="F", help=_KEEP, show_default="0.1", rich_help_panel=_WHICH
    ),
    max_keep: list[str] | None = typer.Option(
        None, metavar="F", help="The largest share, written alike.", show_default="1", rich_help_panel=_WHICH
    ),
    attention: Attention = typer.Option(
        Attention.HEADS, help="Remove whole heads, or the same of every head's width.", rich_help_panel=_WHICH
    ),
    align: int | None = typer.Option(
        None,
        metavar="N",
        help="Keep widths multiples of N; 1 allows any.",
        show_default="what the target likes",
        rich_help_panel=_WHICH,
    ),
    target: str = typer.Option(
        "onnxruntime-cpu",
        metavar="TARGET",
        help="Where it will run: onnxruntime-cpu, tensorrt.",
        rich_help_panel=_WHICH,
    ),
    data: str | None = typer.Option(
        None,
        metavar="DATA",
        help="Inputs: .npz, a folder of .npz or .npy, module:function, or random by name.",
        rich_help_panel=_DATA,
    ),
    samples: int = typer.Option(64, help="Use at most so many of the inputs.", rich_help_panel=_DATA),
    refit: bool = typer.Option(True, help="Refit the remaining weights on the data.", rich_help_panel=_DATA),
    rounds: int | None = typer.Option(
        None, help="Get there in so many rounds.", show_default="1", rich_help_panel=_ROUNDS
    ),
    metric: str | None = typer.Option(
        None,
        metavar="MODULE:FUNCTION",
        help="metric(run) -> float, higher is better; after every round.",
        rich_help_panel=_ROUNDS,
    ),
    max_drop: str | None = typer.Option(
        None,
        metavar="SHARE",
        help="How much of the metric may be lost, relative: 1%, 0.01.",
        show_default="1%",
        rich_help_panel=_ROUNDS,
    ),
    plan: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Replay a plan; with a budget and --rounds, go on from it.",
        rich_help_panel=_PLANS,
    ),
    save_plan: Path | None = typer.Option(
        None, metavar="FILE", help="Write the plan, after every round.", rich_help_panel=_PLANS
    ),
    sparsity: str | None = typer.Option(
        None, metavar="F", help="Set this share of single weights to zero instead.", rich_help_panel=_ZEROS
    ),
    pattern: str | None = typer.Option(
        None, metavar="N:M", help="Or leave at most N of each M weights.", rich_help_panel=_ZEROS
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Write no model; show what would become of it.", rich_help_panel=_SHOWN
    ),
    explain: bool = typer.Option(
        False, "--explain", help="Also list what cannot be pruned, and why.", rich_help_panel=_SHOWN
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON.", rich_help_panel=_SHOWN),
    threads: int = typer.Option(
        1,
        min=0,
        max=MOST_THREADS,
        help="Threads of the measured runs; 0 for all cores.",
        rich_help_panel=_MEASURED,
    ),
    cache: Path | None = typer.Option(
        None,
        metavar="DIR",
        help="For measured tables.",
        show_default="tersor in the user's cache folder",
        rich_help_panel=_MEASURED,
    ),
    seed: int = typer.Option(0, help="For whatever draws numbers.", rich_help_panel=_MEASURED),
) -> None:
    r"""Remove whole channels, so that the model runs faster everywhere.

    For example:

    \b
      tersor prune model.onnx -o small.onnx --ratio 0.3
      tersor prune model.onnx -o small.onnx --data calib.npz --macs 50% --rounds 3
      tersor prune model.onnx -o small.onnx --data calib.npz --latency 0.6 --metric score:accuracy
      tersor prune model.onnx --ratio 0.5 --dry-run --explain
      tersor prune model.onnx -o small.onnx --ratio 0.5 --exclude 'head*' --save-plan plan.json
      tersor prune model.onnx -o small.onnx --data calib.npz --plan plan.json
      tersor prune model.onnx -o sparse.onnx --pattern 2:4

    Channels that hang together (through residuals, concatenations, reshapes, heads) go together; widths stay
    multiples of what the target likes. With --data the remaining weights are refitted, without any training.
    With --metric it stops before the round that loses more than --max-drop. A plan can be read, edited and
    replayed. Exit code 1: the first round, or what --sparsity does, loses too much, and nothing is written.
    """
    from ..pipeline.amounts import share
    from ..pipeline.prune.job import Job
    from ..pipeline.prune.steps import NothingToPruneError
    from ..pipeline.recipe_fields import placed
    from .progress import Progress
    from .prune_options import aim_of, budget_of, limits_of, refuse_mixtures, sparsity_of
    from .prune_print import print_pinned, print_report
    from .pruning import Settings, prune_file
    from .render import print_json

    budget = budget_of(ratio=ratio, params=params, macs=macs, size=size, latency=latency)
    refuse_mixtures(
        budget=budget is not None,
        sparsity=sparsity,
        pattern=pattern,
        plan=plan,
        rounds=rounds,
        save_plan=save_plan,
        written=out is not None or dry_run,
        ignored={
            "--align": align is not None,
            "--criterion": criterion,
            "--global": whole_model,
            "--min-keep": min_keep,
            "--max-keep": max_keep,
            "--exclude": exclude,
            "--attention": attention is not Attention.HEADS,
        },
    )
    left_alone = tuple(exclude or ())
    masks = sparsity_of(
        sparsity, pattern, criterion, target=target, exclude=left_alone, whole_model=whole_model, seed=seed
    )
    limits = limits_of(
        align,
        target,
        min_keep or [],
        max_keep or [],
        whole_model=whole_model,
        aim=aim_of(None if aim is None else aim.value, budget),
    )
    job = (
        None
        if budget is None
        else Job(
            budget,
            criterion,
            limits,
            left_alone,
            rounds=1 if rounds is None else rounds,
            refit=refit,
            seed=seed,
            attention=attention.value,
        )
    )
    with Progress(f"pruning {model.name}") as progress:
        settings = Settings(
            model=model,
            out=None if dry_run else out,
            job=job,
            plan=plan,
            save_plan=save_plan,
            sparsity=masks,
            refit=refit,
            data=data,
            samples=samples,
            metric=metric,
            max_drop=None if max_drop is None else placed("--max-drop", share, max_drop),
            cache=cache,
            threads=threads,
            seed=seed,
            tell=progress.tell,
        )
        try:
            report = prune_file(settings)
        except NothingToPruneError as error:
            if explain and not as_json:
                print_pinned(error.pinned)
            raise
    if as_json:
        print_json({"in": str(model), "out": None if settings.out is None else str(out), **report.to_dict()})
    else:
        print_report(report, settings.out, explain=explain)
    if not report.held:
        raise typer.Exit(1)
