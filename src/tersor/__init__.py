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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .backends.base import BackendError
    from .graph_ir import (
        CheckError,
        DataError,
        Model,
        ModelError,
        TersorError,
        UsageError,
        VerifyError,
        load,
        save,
        verify,
    )
    from .passes.base import Context
    from .pipeline.builder import BuildResult
    from .pipeline.prune.report import PruneReport
    from .tools.optimize import Report

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "CheckError",
    "Context",
    "DataError",
    "Model",
    "ModelError",
    "TersorError",
    "UsageError",
    "VerifyError",
    "__version__",
    "build",
    "load",
    "optimize",
    "prune",
    "run",
    "save",
    "verify",
]

_HOMES = {"BackendError": "backends.base", "Context": "passes.base"}  # of names that graph_ir does not hold


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'graph_ir')}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


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
        UsageError: the text is wrong, a pass lacks what it requires, or `model` is none.
        VerifyError: a pass broke the graph.
    """
    from .graph_ir.given import given_model
    from .pipeline import manager
    from .pipeline.instruments import Verify
    from .pipeline.presets import LOSSLESS
    from .pipeline.spec import parse
    from .tools.arguments import pipeline_text

    given_model("model", model)
    pipeline = parse(pipeline_text("passes", passes, LOSSLESS))
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
    from .graph_ir.given import given_path
    from .pipeline.presets import LOSSLESS
    from .tools.arguments import pipeline_text
    from .tools.optimize import Settings, optimize_file

    settings = Settings(
        passes=pipeline_text("passes", passes, LOSSLESS), freeze_default_inputs=freeze_default_inputs
    )
    return optimize_file(given_path("source", source), given_path("target", target), settings)


def build(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    max_drop: float | str | None = None,
    min_sqnr_db: float | None = None,
    passes: str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    samples: int | None = 256,
    rounds: int = 25,
    budget: float | str | None = None,
    lock: str | os.PathLike[str] | None = None,
    trials: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> BuildResult:
    """Build the best form of a model and write it with its proof, as `tersor build` does.

    Where a recipe made other than it says to `accept`, or the metric fails on all candidates, see `unmet`.

    Args:
        model: the model file; never touched.
        out: folder for model.onnx, session.json, report.json and build.lock.json.
        data: calibration inputs: .npz, a folder, `module:function` or `random`; None for the lossless part.
        metric: `module:function`, called as `metric(run) -> float`, higher is better.
        max_drop: with a metric, the share of it that may be lost; 0.01 or "1%", one per cent, when left out.
        min_sqnr_db: without one, the least signal-to-noise ratio of any output, in dB; 20 when left out.
        passes: a pipeline in place of the lossless one.
        recipe: a recipe file, or the name of a shipped one, to follow in place of the search.
        samples: how many of the inputs are used at most.
        rounds: rounds of the closing latency measurement.
        budget: begin no further trial after so many seconds, or after "90s" or "2m"; "5m" when left out.
        lock: an earlier build.lock.json, to make again what that shipped.
        trials: a log of trials to go on from and to add to.
        seed: of inputs drawn from the signature where no data is given.

    Raises:
        UsageError, ModelError, DataError: wrong input.
        CheckError: what `lock` says was shipped cannot be made again, or does not hold here.
        BackendError: onnxruntime cannot run the model.
    """
    from .graph_ir.given import given_path
    from .pipeline.builder import BuildSettings
    from .pipeline.builder import build as build_as_set
    from .pipeline.builder.settings import BUDGET_S, MAX_DROP, MIN_SQNR_DB
    from .tools import arguments
    from .tools.build_cmd import refuse_idle

    with arguments.called_from(build):
        refuse_idle(metric=metric, max_drop=max_drop, min_sqnr=min_sqnr_db)
        return build_as_set(
            BuildSettings(
                model=given_path("model", model),
                out=given_path("out", out),
                data=arguments.source("data", data),
                metric=arguments.source("metric", metric),
                max_drop=MAX_DROP if max_drop is None else arguments.part("max_drop", max_drop),
                min_sqnr_db=arguments.level("min_sqnr_db", min_sqnr_db, MIN_SQNR_DB),
                passes=None if passes is None else arguments.pipeline_text("passes", passes),
                recipe=None if recipe is None else str(given_path("recipe", recipe)),
                samples=None if samples is None else arguments.count("samples", samples),
                rounds=arguments.count("rounds", rounds),
                budget_s=BUDGET_S if budget is None else arguments.time("budget", budget),
                lock=None if lock is None else given_path("lock", lock),
                trials=None if trials is None else given_path("trials", trials),
                seed=arguments.count("seed", seed),
            )
        )


def prune(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    *,
    ratio: float | str | None = None,
    params: float | str | None = None,
    macs: float | str | None = None,
    size: float | str | None = None,
    latency: float | str | None = None,
    aim: str | None = None,
    criterion: str | None = None,
    whole_model: bool = False,
    exclude: Sequence[str] = (),
    min_keep: float | str | Mapping[str, float] | None = None,
    max_keep: float | str | Mapping[str, float] | None = None,
    align: int | None = None,
    data: str | os.PathLike[str] | None = None,
    samples: int = 64,
    refit: bool = True,
    rounds: int = 1,
    metric: str | None = None,
    max_drop: float | str | None = None,
    plan: str | os.PathLike[str] | None = None,
    save_plan: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> PruneReport:
    """Remove whole channels from a model file into another file, as `tersor prune` does.

    Give one budget, of which shares are written 0.3 or "30%".

    Args:
        model: the model file; never touched.
        out: written beside and renamed; None only reports.
        ratio: the budget as the share of the channels to remove.
        params: the budget as the share of the parameters that may be left.
        macs: the same of the multiply-accumulates.
        size: the same of the bytes on disk.
        latency: the same of the time, as measured here.
        aim: what a `macs` budget buys: `time`, the default, or `importance`, the least loss of it alone.
        criterion: what makes a channel important (docs/prune.md); `reconstruction` with data, else `l2`.
        whole_model: compare channels across groups (`--global`) instead of cutting each group alike.
        exclude: what to leave alone: names (globs), `op:LSTM` or chains `Conv>Sigmoid`.
        min_keep: the least share of its channels each group keeps, or a dict of shares by glob.
        max_keep: the largest share, written alike.
        align: keep widths multiples of it; None takes what the target likes.
        data: inputs for criteria and the refit: .npz, a folder, `module:function` or `random`.
        samples: how many of them are used at most.
        refit: refit the remaining weights on the data.
        rounds: how many steps the budget is reached in.
        metric: `module:function`, called as `metric(run) -> float` after every round, higher is better.
        max_drop: the share of the metric that may be lost; 0.01, one per cent, when left out.
        plan: a plan to replay, or with a budget to go on from.
        save_plan: where the plan goes.
        seed: of criteria, the refit and drawn inputs.

    Raises:
        UsageError, ModelError, DataError: wrong input, or nothing can be pruned.
        BackendError: onnxruntime cannot run the model.
    """
    from .tools.arguments import called_from, prune_settings
    from .tools.pruning import prune_file

    budgets = {"ratio": ratio, "params": params, "macs": macs, "size": size, "latency": latency}
    with called_from(prune):
        settings = prune_settings(
            model,
            out,
            budgets=budgets,
            aim=aim,
            criterion=criterion,
            whole_model=whole_model,
            exclude=exclude,
            min_keep=min_keep,
            max_keep=max_keep,
            align=align,
            data=data,
            samples=samples,
            refit=refit,
            rounds=rounds,
            metric=metric,
            max_drop=max_drop,
            plan=plan,
            save_plan=save_plan,
            seed=seed,
        )
        return prune_file(settings)
