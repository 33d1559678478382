# SPDX-License-Identifier: Apache-2.0
"""Recipes are checked as a whole before anything runs; a refusal names file, step and mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import UsageError, parse
from tersor.passes import catalog
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.job import Job
from tersor.pipeline.prune.select import Limits
from tersor.pipeline.prune.step import PruneSpec
from tersor.pipeline.recipe import (
    SHIPPED,
    Accept,
    CalibrateStep,
    PassesStep,
    PruneStep,
    check_order,
    load_recipe,
    parse_recipe,
)
from tests.support.passes import NeedsInlined, NeedsRanges

FULL = """
recipe = 1

[data.calib]
source = "calib.npz"
samples = 2

[[step]]
passes = "inline,(cse)!3"
accept = { sqnr_db = 25, max_drop = "1%" }

[[step]]
calibrate = { data = "calib", observer = "percentile:99.9" }

[[step]]
calibrate = {}

[[step]]
preset = "lossless"

[target]
backend = "onnxruntime-cpu"
"""


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes with requirements, found as plug-ins."""

    def found() -> dict[str, str]:
        return {p.name: f"{p.__module__}:{p.__name__}" for p in (NeedsInlined, NeedsRanges)}

    monkeypatch.setattr(catalog, "_plugins", found)


def test_a_recipe_is_read_into_plain_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=np.zeros((4, 2, 3), np.float32))
    (tmp_path / "r.toml").write_text(FULL)
    recipe = load_recipe(tmp_path / "r.toml")
    passes, measured, given, lossless = recipe.steps
    assert isinstance(passes, PassesStep)
    assert (str(passes.pipeline), passes.accept) == ("inline,(cse)!3", Accept(25.0, 0.01))
    assert measured == CalibrateStep("calib", "percentile:99.9")
    assert given == CalibrateStep(None, "mse")
    assert recipe.needs_data
    assert isinstance(lossless, PassesStep)
    assert lossless.preset == "lossless"
    assert recipe.backend == "onnxruntime-cpu"
    assert recipe.text == FULL
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2,3] x) => (float[1,2,3] y) {y = Relu(x)}'
    )
    assert len(list(recipe.data["calib"].open(model))) == 2


def test_every_shipped_recipe_is_valid() -> None:
    shipped = sorted(SHIPPED.glob("*.toml"))
    assert [path.stem for path in shipped if path.stem == "lossless"]
    for path in shipped:
        assert load_recipe(path.stem).steps == load_recipe(path).steps


STEP = "recipe = 1\n[[step]]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = ", "recipe 'r' is not TOML: "),
        ("", "must begin with `recipe = 1`"),
        ("recipe = true", "must begin with `recipe = 1`, not True"),
        ("recipe = 2", "must begin with `recipe = 1`, not 2"),
        ("recipe = 1", "has no [[step]]"),
        ("recipe = 1\nsteps = 3", "'steps' is not known; did you mean step?"),
        ("recipe = 1\nstep = 3", "`step` must be a list, not 3"),
        ("recipe = 1\nstep = [3]", "step 1 must be a table, not 3"),
        (STEP, "step 1 must have one of `passes`, `preset`, `calibrate`, `prune`; it has none"),
        (STEP + 'passes = "cse"\npreset = "lossless"', "it has passes, preset"),
        (
            STEP + 'passes = "cse,csee"',
            "step 1: pipeline, column 5: no pass is called 'csee'; did you mean cse?",
        ),
        (STEP + 'passes = "fold-constants{budget-kib=x}"', "'budget-kib' takes int, not 'x'"),
        (STEP + "passes = 3", "`passes` must be text, not 3"),
        (STEP + 'preset = "losless"', "no preset is called 'losless'; did you mean lossless?"),
        (STEP + 'pases = "cse"', "'pases' is not known; did you mean passes?"),
        (STEP + 'passes = "cse"\naccept = {sqnr = 3}', "'sqnr' is not known; did you mean sqnr_db?"),
        (STEP + 'passes = "cse"\naccept = {sqnr_db = nan}', "accept: `sqnr_db` is a number of dB, not nan"),
        (STEP + 'passes = "cse"\naccept = {sqnr_db = "x"}', "accept: `sqnr_db`: 'x' is no number"),
        (
            STEP + 'passes = "cse"\naccept = {max_drop = "x"}',
            "accept: `max_drop`: 'x' is no share; write 1% or 0.01",
        ),
        (STEP + 'passes = "cse"\naccept = {max_drop = true}', "accept: `max_drop`: True is no share"),
        (STEP + 'passes = "cse"\naccept = {max_drop = 3}', "`max_drop` is a share from 0 to 1, not 3"),
        (STEP + 'passes = "cse"\naccept = {max_drop = "-1%"}', "is a share from 0 to 1, not '-1%'"),
        (STEP + 'calibrate = {data = "c"}', "no data is called 'c'; the recipe has no [data] section"),
        (STEP + 'calibrate = {observer = "best"}', "no observer is called 'best'"),
        (STEP + "calibrate = {}\naccept = {sqnr_db = 3}", "`accept` belongs to a step with passes"),
        ("recipe = 1\n[data.c]\n[[step]]\ncalibrate={}", "data.c needs `source`"),
        ('recipe = 1\n[data.c]\nsource="gone.npz"\n[[step]]\ncalibrate={}', "data.c: no data at "),
        ('recipe = 1\n[data.c]\nsource="random"\nsamples=0\n[[step]]\ncalibrate={}', "samples is 0"),
        (
            'recipe = 1\n[data.c]\nsource="random"\npreprocess={a=1}\n[[step]]\ncalibrate={}',
            "preprocess: 'a'",
        ),
        (STEP + 'passes = "cse"\n[target]\nbackend = "abacus"', "no backend is called 'abacus'"),
        (STEP + 'passes = "needs-ranges"', "step 1: 'needs-ranges' needs 'ranges'; put a `calibrate` step"),
        (
            STEP + 'calibrate = {}\n[[step]]\npasses = "equalize"\n[[step]]\npasses = "insert-qdq"',
            "step 3: 'insert-qdq' needs 'ranges'; put a `calibrate` step before it and behind 'equalize'",
        ),
        (
            STEP + 'calibrate = {}\n[[step]]\npasses = "sparsify, insert-qdq"',
            "'insert-qdq' needs 'ranges'; put a `calibrate` step before it and behind 'sparsify'",
        ),
        (
            STEP + 'calibrate = {}\n[[step]]\npasses = "apply-plan{plan=p.json}, insert-qdq"',
            "'insert-qdq' needs 'ranges'; put a `calibrate` step before it and behind 'apply-plan'",
        ),
        (
            STEP + 'passes = "needs-inlined"',
            "step 1: 'needs-inlined' requires 'no-functions'; no pass ensures it",
        ),
    ],
)
@pytest.mark.usefixtures("plugins")
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "r")
    assert message in str(caught.value)
    assert str(caught.value).startswith("recipe 'r'")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("plugins")
def test_calibration_provides_the_facts() -> None:
    recipe = parse_recipe(STEP + 'calibrate = {}\n[[step]]\npasses = "needs-ranges"')
    assert len(recipe.steps) == 2


@pytest.mark.usefixtures("plugins")
def test_what_the_model_fulfils_need_not_be_ensured() -> None:
    recipe = parse_recipe(STEP + 'passes = "cse"')
    (step,) = recipe.steps
    assert isinstance(step, PassesStep)
    from tersor.pipeline.spec import parse as parse_pipeline

    steps = [PassesStep(parse_pipeline("needs-inlined"))]
    model = parse('<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) {y = Relu(x)}')
    check_order(steps, "r", model)
    with pytest.raises(UsageError, match="requires 'no-functions'"):
        check_order(steps, "r")


def test_unknown_and_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe at 'nope'; shipped ones are .*lossless"):
        load_recipe("nope")
    with pytest.raises(UsageError, match="cannot read recipe"):
        load_recipe(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot read recipe"):
        load_recipe(tmp_path / "b.toml")


def test_a_prune_step_is_read_with_its_limits(tmp_path: Path) -> None:
    text = """
    recipe = 1
    [[step]]
    prune = { macs = "50%", rounds = 3, criterion = "l1", align = 8, min_keep = 0.25, exclude = ["head*"] }
    accept = { max_drop = "1%" }
    [[step]]
    prune = { plan = "plan.json", refit = false }
    [[step]]
    prune = { ratio = 0.3, min_keep = { "*" = "20%", "head*" = 0.5 }, max_keep = { "body*" = 0.9 } }
    """
    wanted, replayed, bounded = parse_recipe(text, folder=tmp_path).steps
    assert isinstance(wanted, PruneStep)
    assert wanted.accept == Accept(None, 0.01)
    limits = Limits(align=8, min_keep=0.25)
    assert wanted.spec == PruneSpec(Job(Budget("macs", 0.5), "l1", limits, ("head*",), 3))
    assert isinstance(replayed, PruneStep)
    assert replayed.spec == PruneSpec(None, tmp_path / "plan.json", None, refit=False)
    assert isinstance(bounded, PruneStep)
    single = (("*", 0.2, None), ("head*", 0.5, None), ("body*", None, 0.9))
    assert bounded.spec == PruneSpec(Job(Budget("ratio", 0.3), None, Limits(keep=single)))


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ("3", "step 1, prune must be a table, not 3"),
        ("{}", "step 1, prune needs one of ratio, params, macs, size, latency or plan"),
        ("{ ratio = 0.3, macs = 0.5 }", "step 1, prune needs one of ratio"),
        ("{ ratio = 30 }", "step 1, prune: `ratio` is the share of channels to remove, above 0 and below 1"),
        ("{ ratio = 'half' }", "step 1, prune: `ratio`: 'half' is no share; write 1% or 0.01"),
        ("{ macs = true }", "step 1, prune: `macs`: True is no share"),
        ("{ ratio = 0.3, rounds = true }", "step 1, prune: `rounds` must be a whole number, not True"),
        ("{ ratio = 0.3, rounds = 0 }", "step 1, prune: `rounds` must be at least 1, not 0"),
        ("{ ratio = 0.3, round = 2 }", "step 1, prune: 'round' is not known; did you mean rounds?"),
        ("{ ratio = 0.3, criterion = 'l22' }", "step 1, prune: no criterion is called 'l22'"),
        ("{ ratio = 0.3, data = 'calib' }", "step 1, prune: no data is called 'calib'; the recipe has no"),
        ("{ ratio = 0.3, min_keep = 2 }", "step 1, prune: `min_keep` is a share from 0 to 1, not 2"),
        ('{ ratio = 0.3, min_keep = { "a*" = 2 } }', "`min_keep.a*` is a share from 0 to 1, not 2"),
        ("{ ratio = 0.3, min_keep = [1] }", "`min_keep`: a list is no share; write 1% or 0.01"),
        ("{ ratio = 0.3, align = 0 }", "step 1, prune: `align` must be at least 1"),
        (
            '{ macs = 0.3, aim = "speed" }',
            "step 1, prune: `aim` is time or importance, for a budget of `macs`",
        ),
        (
            '{ params = 0.3, aim = "time" }',
            "step 1, prune: `aim` is time or importance, for a budget of `macs`",
        ),
        ("{ ratio = 0.3, exclude = [3] }", "step 1, prune: `exclude` is a list of names, not [3]"),
    ],
)
def test_prune_steps_that_make_no_sense(prune: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(f"recipe = 1\n[[step]]\nprune = {prune}\n", "r")
    assert message in str(caught.value)


def test_pruning_comes_before_measuring() -> None:
    text = "recipe = 1\n[[step]]\ncalibrate = {}\n[[step]]\nprune = { ratio = 0.3 }\n"
    with pytest.raises(UsageError, match="step 2: `prune` changes what was measured; put it before `calib"):
        parse_recipe(text, "r")
