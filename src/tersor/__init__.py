# SPDX-License-Identifier: Apache-2.0
"""tersor: ONNX graph-level compiler passes that make deployed models smaller and faster.

The names below are all a script needs; each loads what it stands on when it is first used, so that
`import tersor` costs nothing.

    model = tersor.load("model.onnx")
    tersor.run(model, "inline,(fold-constants,cse)!")
    tersor.save(model, "smaller.onnx")

    tersor.build("model.onnx", "out", data="calib.npz", metric="score:accuracy")
    tersor.prune("model.onnx", "smaller.onnx", macs=0.5, data="calib.npz")
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from .graph_ir import Model, TersorError, load, save, verify
    from .passes.base import Context
    from .pipeline.build import BuildResult
    from .pipeline.prune.report import PruneReport
    from .tools.optimize import Report

__version__ = "0.1.0"

__all__ = [
    "Context",
    "Model",
    "TersorError",
    "__version__",
    "build",
    "load",
    "optimize",
    "prune",
    "run",
    "save",
    "verify",
]

_HOMES = {
    "Context": "passes.base",
    "Model": "graph_ir",
    "TersorError": "graph_ir",
    "load": "graph_ir",
    "save": "graph_ir",
    "verify": "graph_ir",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def run(
    model: Model, passes: str | None = None, *, context: Context | None = None, check: bool = True
) -> bool:
    """Run a pipeline over a model, in place; True if anything changed.

    Args:
        model: from `load`.
        passes: pipeline text (docs/pipeline.md); the lossless preset when None.
        context: carries the seed and measured facts in, counters and notes out.
        check: verify the graph after each pass that changed it.

    Raises:
        UsageError: the text is wrong, or a pass lacks what it requires.
        VerifyError: a pass broke the graph.
    """
    from .pipeline import manager
    from .pipeline.instruments import Verify
    from .pipeline.presets import LOSSLESS
    from .pipeline.spec import parse

    pipeline = parse(LOSSLESS if passes is None else passes)
    return manager.run(pipeline, model, context, [Verify()] if check else []).changed > 0


def optimize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    passes: str | None = None,
    freeze_default_inputs: bool = False,
) -> Report:
    """Run a pipeline over a model file into another file, as `tersor opt` does.

    Args:
        source: the model file; never touched.
        target: written beside and renamed.
        passes: pipeline text; the lossless preset when None.
        freeze_default_inputs: make initializers that are also inputs plain constants first.

    Raises:
        UsageError, ModelError: wrong input.
        VerifyError: a pass broke the graph.
    """
    from .pipeline.presets import LOSSLESS
    from .tools.optimize import Settings, optimize_file

    settings = Settings(
        passes=LOSSLESS if passes is None else passes, freeze_default_inputs=freeze_default_inputs
    )
    return optimize_file(Path(source), Path(target), settings)


def build(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | None = None,
    metric: str | None = None,
    max_drop: float = 0.01,
    min_sqnr_db: float = 20.0,
    recipe: str | None = None,
    samples: int | None = 256,
    rounds: int = 25,
) -> BuildResult:
    """Build the best form of a model and write it with its proof, as `tersor build` does.

    Args:
        model: the model file; never touched.
        out: folder for model.onnx, session.json, report.json and build.lock.json.
        data: calibration inputs: .npz, a folder, `module:function` or `random`; None for the lossless part.
        metric: `module:function`, called as `metric(run) -> float`, higher is better.
        max_drop: the share of the metric that may be lost (0.01 is one per cent).
        min_sqnr_db: without a metric, the least signal-to-noise ratio of any output, in dB.
        recipe: a recipe file, or the name of a shipped one, to follow in place of the search.
        samples: how many of the inputs are used at most.
        rounds: rounds of the closing latency measurement.

    Raises:
        UsageError, ModelError, DataError: wrong input.
        BackendError: onnxruntime cannot run the model.
    """
    from .pipeline.build import BuildSettings
    from .pipeline.build import build as build_as_set

    return build_as_set(
        BuildSettings(
            model=Path(model),
            out=Path(out),
            data=data,
            metric=metric,
            max_drop=max_drop,
            min_sqnr_db=min_sqnr_db,
            recipe=recipe,
            samples=samples,
            rounds=rounds,
        )
    )


def prune(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    *,
    data: str | None = None,
    criterion: str | None = None,
    rounds: int = 1,
    metric: str | None = None,
    max_drop: float | None = None,
    plan: str | os.PathLike[str] | None = None,
    save_plan: str | os.PathLike[str] | None = None,
    aim: str | None = None,
    seed: int = 0,
    **budget: float,
) -> PruneReport:
    """Remove whole channels from a model file into another file, as `tersor prune` does.

    Args:
        model: the model file; never touched.
        out: written beside and renamed; None only reports.
        data: inputs for criteria and the refit: .npz, a folder, `module:function` or `random`.
        criterion: what makes a channel important (docs/prune.md); `reconstruction` with data, else `l2`.
        rounds: how many steps the budget is reached in.
        metric: `module:function`, called as `metric(run) -> float` after every round, higher is better.
        max_drop: the share of the metric that may be lost; 0.01, one per cent, when left out.
        plan: a plan to replay, or with a budget to go on from.
        save_plan: where the plan goes.
        aim: what a `macs` budget buys: `time`, the default, or `importance`, the least loss of it alone.
        seed: of criteria, the refit and drawn inputs.
        budget: one of `ratio`, the share of channels to remove, and `params`, `macs`, `size` and `latency`,
            the share that may be left.

    Raises:
        UsageError, ModelError, DataError: wrong input, or nothing can be pruned.
        BackendError: onnxruntime cannot run the model.
    """
    from .graph_ir import UsageError
    from .pipeline.prune.budget import Budget
    from .pipeline.prune.choice import AIMS, Limits, aim_called
    from .pipeline.prune.job import Job
    from .tools.pruning import Settings, prune_file

    if len(budget) > 1:
        raise UsageError(f"give one budget, not {' and '.join(budget)}")
    if aim is not None and "macs" not in budget:
        raise UsageError("aim says what a budget of MACs buys; give it with macs")
    wanted = Limits.aim if aim is None else aim_called(aim)
    if wanted is None:
        raise UsageError(f"aim is {' or '.join(AIMS)}, not {aim!r}")
    jobs = [
        Job(Budget(kind, share), criterion, Limits(aim=wanted), rounds=rounds, seed=seed)
        for kind, share in budget.items()
    ]
    return prune_file(
        Settings(
            model=Path(model),
            out=None if out is None else Path(out),
            job=jobs[0] if jobs else None,
            plan=None if plan is None else Path(plan),
            save_plan=None if save_plan is None else Path(save_plan),
            data=data,
            metric=metric,
            max_drop=max_drop,
            seed=seed,
        )
    )
