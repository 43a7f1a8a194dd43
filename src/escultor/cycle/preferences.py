"""What people prefer, as metrics of a suite: their own comparisons, a judge that is measured by them, and a
reward model that is fitted to the feedback of the store.

The first two are of two answers: they are scored where two models are compared, from 0 to 1 for each side,
which add up to 1.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from escultor.config import Config
from escultor.cycle.evaluation_service import policy_of, skill_of
from escultor.datasets.held_out import HeldOutGuard
from escultor.errors import DataError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.gate.requirements import ALL_RATED
from escultor.evaluate.predictions import load_predictions
from escultor.evaluate.raters.judge import Judge, judge_pairs, judge_session, open_judge, preference_of
from escultor.evaluate.raters.preference import counted_votes, item_means
from escultor.evaluate.raters.session import RatingSession, RecordedChoices, session_of
from escultor.evaluate.scores import seal_scores
from escultor.feedback.conversion import convert, read_items
from escultor.feedback.selection import SelectionQuery
from escultor.rng import unit
from escultor.skills.catalog import answer_schemas
from escultor.skills.own_metrics import JudgeDeclaration
from escultor.skills.reward import MIN_PAIRS, MIN_SIDE, RewardModel, fit_reward
from escultor.skills.suites import EvaluationSuite
from escultor.skills.table import PEOPLE
from escultor.stats import WinRate, win_rate
from escultor.store import Store
from escultor.types import Pair, Scores, UnpairedExample

JUDGE_CACHE = Path("cache") / "judge.jsonl"
MOST_CHECKS, MIN_CHECKS = 100, 20  # pairs of people's that a judge is asked about
Note = Callable[[str], None]


def with_preferences(
    store: Store, suite: EvaluationSuite, champion: Scores, candidate: Scores, *, config: Config, note: Note
) -> tuple[Scores, Scores]:
    """Both scores with the suite's metrics of two answers. Raises DataError where the answers are not in the
    store, and as `measured_judge`."""
    names = suite.of_two_answers()
    if not names or champion.suite != suite.id:
        return champion, candidate
    figures: dict[str, float] = {}
    gains: dict[str, Mapping[str, float]] = {name: {} for name in names}  # of the candidate, by item
    if champion.checkpoint != candidate.checkpoint:
        session = _session(store, suite, champion, candidate, config)
        sign = 1.0 if session.checkpoints[1] == candidate.checkpoint else -1.0
        for name in names:
            if name == PEOPLE:
                values, figures = _by_people(store, session, note)
            else:
                values = _by_judge(store, session, name, config, note)
            gains[name] = {item: sign * value for item, value in values.items()}
    sides = []
    for scores, sign in ((champion, -1.0), (candidate, 1.0)):
        own = {
            name: tuple((1 + sign * gains[name].get(item, 0.0)) / 2 for item in scores.items)
            for name in names
        }
        added = replace(scores, metrics={**scores.metrics, **own}, summary={**scores.summary, **figures})
        sides.append(seal_scores(added))
    return sides[0], sides[1]


def _session(
    store: Store, suite: EvaluationSuite, champion: Scores, candidate: Scores, config: Config
) -> RatingSession:
    sides = []
    for scores in (champion, candidate):
        if (predictions := load_predictions(store.blobs, scores)) is None:
            what, remedy = (
                "the answers that are to be compared are not in the store",
                "measure the model again",
            )
            raise DataError(what, scores.checkpoint, remedy=f"{remedy}: escultor evaluate --again")
        sides.append((scores, predictions))
    return session_of(suite, sides[0], sides[1], config.evaluation.n_raters, config.evaluation.seed)


def _by_people(store: Store, session: RatingSession, note: Note) -> tuple[dict[str, float], dict[str, float]]:
    """The mean vote of people on each item, from -1 (side a) to 1, and whether every item was rated."""
    recorded = RecordedChoices(store.log, session)
    recorded.refresh()
    means = item_means(counted_votes(session, recorded))
    left = sum(session.suite.items[i].id not in means for i in session.open_items)
    note(
        f"people rated {len(means)} of {len(session.open_items)} items on which the answers differ"
        + (
            "; nothing is promoted before all are: `escultor rate CHAMPION CANDIDATE --rater NAME`"
            if left
            else ""
        )
    )
    return means, {} if left else {ALL_RATED: 1.0}


def _by_judge(
    store: Store, session: RatingSession, name: str, config: Config, note: Note
) -> dict[str, float]:
    """The judge's verdict on each item, from -1 (side a) to 1, times what it tells of people's."""
    skill = skill_of(session.suite.record, config)
    judge, weight = measured_judge(store, session.suite, name, config, note)
    cache = EvaluationCache(store.root / JUDGE_CACHE)
    judged = judge_session(session, judge, cache, note, rubric=skill.rubric)
    missing = sum(each.value is None for each in judged)
    if missing:
        note(f"{name}: {missing} of {len(judged)} items are ties, since a reply named no verdict")
    return {each.item: weight * (each.value or 0.0) for each in judged}


def measured_judge(
    store: Store, suite: EvaluationSuite, name: str, config: Config, note: Note
) -> tuple[Judge, float]:
    """The judge of a metric, and what its verdict tells of people's: twice its agreement with them less 1.
    Raises DataError where that is unknown, and where it is a primary and may agree by chance."""
    skill = skill_of(suite.record, config)
    judge = _judge_of(json.loads(suite.record.definitions)[name]["judge"], config)
    cache = EvaluationCache(store.root / JUDGE_CACHE)
    pairs, _ = preferences_in(store, config, skill.name)
    agreement = judge_agreement(judge, pairs, cache, note, skill.rubric)
    shown = f"{agreement.value:.2f} [{agreement.low:.2f}, {agreement.high:.2f}]"
    decided = agreement.n - agreement.ties
    note(f"{name}: the judge agrees with people on {shown} of the {decided} pairs that it decides")
    if agreement.low <= 0.5 and name in policy_of(suite.record, config).primary:
        what = (
            f"the judge of `{name}` is not shown to agree with people more than by chance: it is no primary"
        )
        raise DataError(what, shown, "a lower bound above 0.5", "take a stronger judge, or write a rubric")
    return judge, max(0.0, 2 * agreement.value - 1)


def require_judges(store: Store, suite: EvaluationSuite, config: Config, note: Note) -> None:
    """Raises DataError, as `measured_judge`, where a judge of the suite cannot be used."""
    for name in suite.of_two_answers():
        if name != PEOPLE:
            measured_judge(store, suite, name, config, note)


def _judge_of(given: Any, config: Config) -> Judge:
    named = JudgeDeclaration.model_validate({"model": given} if isinstance(given, str) else given)
    return open_judge(named.model, named.url, named.key_env, config.evaluation.batch_size)


def judge_agreement(
    judge: Judge, pairs: Sequence[Pair], cache: EvaluationCache, note: Note, rubric: str = ""
) -> WinRate:
    """How often a judge prefers what people preferred, of up to 100 of their pairs that it decides. Raises
    DataError where there are fewer than 20."""
    some = sorted(pairs, key=lambda p: (unit(0, "judge", p.id), p.id))[:MOST_CHECKS]
    if len(some) < MIN_CHECKS:
        what = "how far the judge agrees with people is unknown"
        remedy = "collect choices, corrections and verdicts: `escultor feedback count`"
        raise DataError(what, f"{len(some)} pairs of people's", f"at least {MIN_CHECKS}", remedy)
    asked = [(p.prompt, p.rejected, p.chosen) for p in some]
    verdicts = judge_pairs(judge, asked, cache, note, rubric=rubric)
    outcomes = [preference_of(*each) or 0.0 for each in verdicts]
    return win_rate(outcomes, [p.prompt[-1].content for p in some])


# --- reward models ----------------------------------------------------------------------------


def preferences_in(
    store: Store, config: Config, skill: str | None, guard: HeldOutGuard | None = None
) -> tuple[list[Pair], list[UnpairedExample]]:
    """The pairs and the single verdicts that the store's feedback makes on a skill's answers (None: on all),
    but for prompts that are held out in the store or by `guard`."""
    schemas = answer_schemas(config.skills)
    made = convert(store, config.feedback, SelectionQuery(time.time(), skill=skill, schemas=schemas))
    pairs, thumbs = (read_items(store, made, kind) for kind in ("pair", "unpaired"))
    if guard is not None:
        pairs, thumbs = (guard.allowed(items, Counter()) for items in (pairs, thumbs))
    return cast("list[Pair]", pairs), cast("list[UnpairedExample]", thumbs)


def reward_of_store(
    store: Store, config: Config, skill: str | None, guard: HeldOutGuard
) -> tuple[RewardModel | None, str]:
    """The reward model of a skill's feedback without what `guard` holds out, and what to know of it; None
    where there is too little."""
    pairs, thumbs = preferences_in(store, config, skill, guard)
    model = fit_reward(pairs, thumbs)
    if model is None:
        up = sum(t.desirable for t in thumbs)
        return None, (
            f"no reward model: {len(pairs)} pairs, {up} thumbs up and {len(thumbs) - up} down; "
            f"it takes {MIN_PAIRS} pairs, or {MIN_SIDE} of each thumb (`escultor feedback advise` says more)"
        )
    chance = "" if model.is_better_than_chance else ": not shown to be better than chance, and no primary"
    return model, f"reward model {model.about}{chance}"
