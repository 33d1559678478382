# SPDX-License-Identifier: Apache-2.0
"""The build from end to end: prepare, search, measure, choose, audit, write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ...backends.base import Feed
from ...backends.onnxruntime.cpu import host
from ...backends.onnxruntime.latency import Latency, in_later_rounds
from ...calibration.data import Feeds, open_feeds
from ...calibration.visit import UnobservableError
from ...graph_ir import Model, fingerprint, load, notes, signature_of, structure_fingerprint
from ..recipe import Recipe, load_recipe
from .accuracy import Judge
from .again import again
from .choose import contenders, distrust, in_doubt, pick, rivals, told, unasked
from .doubts import SEEN, doubts, failing, metric_doubts, voids
from .files import as_protobuf
from .float32 import explained
from .follow import follow, held, limits_of, recipe_feeds, unmet
from .lock import Lock, code_hash, read_lock
from .model_facts import bindings_in, drawn, facts_of, is_quantized, padding, sized, why_not_int8
from .proving import prove
from .result import BuildResult, Candidate, Judgement, Proof
from .search import Search
from .settings import BuildSettings
from .ship import check_out, ship
from .timing import Stopwatch, Times, disturbances, side_by_side, thread_counts, undisturbed
from .trial_log import TrialLog
from .workshop import Workshop

JUDGING_FEEDS = 32
LEAST_FLOAT_SQNR_DB = 40.0  # a lossless pipeline that moves an output further is not trusted
MOST_TIMED = 10
WITHOUT_DATA = "without data only the lossless part was done; data would add int8, often twice as fast"


def build(settings: BuildSettings) -> BuildResult:
    """Build the best form of a model for a target and write it with its proof.

    Writes `model.onnx`, `session.json`, `report.json` and `build.lock.json` into `settings.out`, all of
    them or none. What is written is never slower than the original and keeps within the accuracy limits, on
    this machine and this data; when nothing better is found it is the original.

    Raises:
        ModelError, DataError, UsageError: wrong input.
        BackendError: onnxruntime cannot run the original.
    """
    settings.check()
    model = load(settings.model)
    check_out(settings, model)
    feeds = None if settings.data is None else open_feeds(settings.data, model, limit=settings.samples)
    recipe = None if settings.recipe is None else load_recipe(settings.recipe)
    if recipe is not None:
        settings = limits_of(recipe, settings)
        feeds = recipe_feeds(recipe, feeds, model)
    lock = None if settings.lock is None else read_lock(settings.lock)
    if lock is not None:
        lock.check_inputs(settings, feeds)
    given = _Given(model, feeds, recipe, lock)
    with tempfile.TemporaryDirectory(prefix="tersor-build-") as folder:
        result = _search(settings, given, Path(folder))
        ship(result, settings, feeds)
    return result


@dataclass(frozen=True)
class _Given:
    """What is built, on which data, and what says how in place of a search."""

    model: Model
    feeds: Feeds | None
    recipe: Recipe | None
    lock: Lock | None


def _search(settings: BuildSettings, given: _Given, folder: Path) -> BuildResult:
    tell, model, feeds, lock = settings.progress, given.model, given.feeds, given.lock
    words = "the model as it came in"
    original = Candidate("original", as_protobuf(model, settings.model, folder), words=words)
    tell("opening the model", 0, None)
    signature = signature_of(model)
    with explained(model):
        if feeds is not None:
            judging = list(islice(feeds, JUDGING_FEEDS))
        else:
            judging = drawn(original.path, signature, settings.seed)
        judge = Judge(original, judging, settings)
    tell("lossless passes", 0, None)
    workshop = Workshop(settings, folder)
    lossless = workshop.float_candidate
    # Accepted, whatever a metric of chance says of it when it is asked once more.
    itself = replace(judge.judge(original), accepted=True, reason="")
    judged = {original.name: (original, itself), **_floats(workshop, model, judge)}
    notes_ = [*notes(model), *workshop.notes]
    if lossless.name not in judged:
        notes_.append("the lossless passes found nothing to rewrite")
    if is_quantized(model):
        notes_.append(
            "the model is quantized already; for int8 as tersor makes it start from the float model"
        )
    notes_ += [] if feeds is None else feeds.notes
    outputs = [*judge.doubts, *voids(itself.fidelity)]
    notes_ += _of_data(settings, judge, [] if feeds is None else judging, outputs)
    search = Search(
        workshop, judge, settings, Stopwatch(original, judging), _log(settings, model, feeds, judge)
    )
    notes_ += _tried(given, judged, search, workshop, judge, folder)
    scores = {name: judgement.metric for name, (_, judgement) in judged.items()}
    notes_ += metric_doubts(judge.reference, scores, judge.blank)
    times = _times(judged, judging, settings, search.times) if judging else {}
    notes_ += disturbances(times)
    bindings = bindings_in(signature, judging)
    if lock is None:
        winner, why, proof = _chosen(judged, undisturbed(times), judge, original, judging, bindings)
    else:
        winner, judgement = judged[lock.name]
        why = told(winner.name, undisturbed(times), original.name)
        proof = prove(winner, original, judging, bindings, settings, judgement)
        lock.check_stands("" if winner is original else proof.failure)
    if proof.failure:
        notes_.append(f"the original itself does not repeat its answers: {proof.failure}")
    if not judging:
        notes_.append("no feed could be drawn that the model runs on, so nothing was timed; give data")
        why = f"{winner.name}: nothing could be measured"
        if lock is None and lossless.name in judged and judged[lossless.name][1].accepted:
            winner, why = lossless, "float: the lossless passes only, nothing could be measured"
    notes_ += [note for note in workshop.notes if note not in notes_]
    feed = judging[0] if judging else None
    shown = {c.name: facts_of(c.path, bindings, feed) for c in (original, winner)}
    notes_ += sized(bindings)
    notes_ += padding(shown[original.name], shown[winner.name])
    others = [judgement for candidate, judgement in judged.values() if candidate is not original]
    notes_ += [SEEN] if winner.observer and judge.reference is None else []
    missed = failing(settings.metric, others) or unmet(given.recipe, judged)
    return BuildResult(winner, why, original, shown, judged, times, proof, notes_, search.sensitivity, missed)


def _tried(
    given: _Given,
    judged: dict[str, tuple[Candidate, Judgement]],
    search: Search,
    workshop: Workshop,
    judge: Judge,
    folder: Path,
) -> list[str]:
    """Add to the candidates what a recipe, a lock or the search makes; gives notes on it."""
    found: list[str] = []
    quantized = is_quantized(given.model)
    if given.feeds is not None:
        workshop.calibrate_with(given.feeds)
    if given.recipe is not None:
        made, found = follow(given.recipe, judge.settings, given.feeds, folder, judge)
        if _same(made, given.model):
            found = [*found, "the recipe changes nothing"]
        else:
            judged[made.name] = (made, held(given.recipe, judge.judge(made)))
    elif given.feeds is None:
        found = [] if quantized else [WITHOUT_DATA]
    elif given.lock is None and workshop.int8_ready is not None:
        try:
            search.run()
        except UnobservableError as error:  # outputs made of such values could not vouch for int8 either
            found.append(f"no int8: {error}")
        else:
            if not search.judged and not quantized:
                found.append(f"no int8: {why_not_int8(load(workshop.int8_ready))}")
        judged |= distrust(search.judged, judge.settings.max_drop)
        found += search.remembered
    if given.lock is not None:
        made = again(given.lock, judged, workshop, folder)
        if made.name not in judged:
            judged[made.name] = (made, judge.judge(made))
        given.lock.check_stands(judged[made.name][1].reason)
        since = given.lock.since()
        if since:
            found = [
                *found,
                f"{given.lock.name!r} has the same bytes as then, though others made it: {since}",
            ]
    return found


def _of_data(
    settings: BuildSettings, judge: Judge, feeds: Sequence[Feed], outputs: Sequence[str]
) -> list[str]:
    """Notes on the user's data, as far as it is judged on."""
    found = doubts(feeds, len(feeds) < JUDGING_FEEDS, judge.reference, outputs)
    if settings.data is not None and settings.data.partition(":")[0] == "random":
        found.append("ranges and closeness were measured on random data: for trying out, not for shipping")
    return found


def _chosen(
    judged: dict[str, tuple[Candidate, Judgement]],
    times: Times,
    judge: Judge,
    original: Candidate,
    feeds: Sequence[Feed],
    bindings: Mapping[str, int],
) -> tuple[Candidate, str, Proof]:
    """The best candidate that is vouched for and proved, and why; others are refused on the way."""
    while True:
        winner, why = pick(judged, times, original.name)
        name = unasked(judged, times, winner.name, original.name)
        if name is not None:
            candidate, judgement = judged[name]
            judged[name] = (candidate, judge.vouch(candidate, judgement))
            judged.update(distrust(judged, judge.settings.max_drop))
            continue
        proof = prove(winner, original, feeds, bindings, judge.settings, judged[winner.name][1])
        if not proof.failure or winner is original:
            return winner, why, proof
        judgement = judged[winner.name][1]
        judged[winner.name] = (winner, replace(judgement, accepted=False, reason=proof.failure))


def _floats(workshop: Workshop, model: Model, judge: Judge) -> dict[str, tuple[Candidate, Judgement]]:
    """The float candidates, judged; without the lossless one where it is what came in."""
    lossless, single = workshop.float_candidate, workshop.float32_candidate
    same = _same(lossless, model)
    found = {} if same else {lossless.name: (lossless, _strict(judge.judge(lossless)))}
    return found if single is None else {**found, single.name: (single, judge.judge(single))}


def _same(candidate: Candidate, model: Model) -> bool:
    """Whether a candidate is the model as it came in."""
    made = load(candidate.path)  # weights are hashed only where that can tell the two apart
    return structure_fingerprint(made) == structure_fingerprint(model) and (
        fingerprint(made) == fingerprint(model)
    )


def _strict(judgement: Judgement) -> Judgement:
    """Hold the float candidate to what lossless means, whatever the user allows for int8."""
    if judgement.accepted and judgement.sqnr_db < LEAST_FLOAT_SQNR_DB:
        reason = f"the lossless passes moved an output to {judgement.sqnr_db:.1f} dB"
        return Judgement(False, reason, judgement.metric, judgement.drop, judgement.fidelity)
    return judgement


def _log(settings: BuildSettings, model: Model, feeds: Feeds | None, judge: Judge) -> TrialLog:
    """The log of the trials, if one is wanted."""
    if settings.trials is None or feeds is None:
        return TrialLog(None, {})
    facts = {
        "model": fingerprint(model),
        "data": feeds.digest(),
        "limits": [settings.max_drop, settings.min_sqnr_db, settings.samples],
        "metric": [settings.metric, judge.reference],
        "code": code_hash(),
        "host": host().to_dict(),
    }
    return TrialLog(settings.trials, facts)


def _times(
    judged: Mapping[str, tuple[Candidate, Judgement]],
    feeds: Sequence[Feed],
    settings: BuildSettings,
    guesses: Mapping[str, float],
) -> dict[int, Mapping[str, Latency]]:
    """Latency of the contenders, one thread and all; of those that may be the best once more."""
    original = next(iter(judged))
    timed = contenders(judged, MOST_TIMED, guesses)
    lead = min((c.name for c in timed), key=lambda name: guesses.get(name, 1.0))
    times: dict[int, Mapping[str, Latency]] = {
        threads: side_by_side(timed, lead, feeds, settings, threads) for threads in thread_counts()
    }
    left = rivals(judged, undisturbed(times), original)
    again = timed if not left else [c for c in timed if c.name in {original, lead, *left}]
    for threads in undisturbed(times) if left else in_doubt(judged, undisturbed(times), original):
        more = side_by_side(again, lead, feeds, settings, threads)
        times[threads] = in_later_rounds(times[threads], more)
    return times
