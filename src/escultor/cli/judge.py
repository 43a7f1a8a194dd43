"""`judge`: two models' answers compared by a language model, corrected by people's ratings."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from typer import Option

from escultor.cli import lookup
from escultor.cli.output import CommandResult, Shell
from escultor.cli.progress import LiveProgress
from escultor.cli.rate import session_between
from escultor.cycle.evaluation_service import skill_of
from escultor.errors import InputError
from escultor.evaluate.cache import EvaluationCache
from escultor.evaluate.raters.judge_calibration import CorrectedMean, correct_judge
from escultor.stats import win_rate
from escultor.types import Feedback

if TYPE_CHECKING:
    from escultor.evaluate.raters.judge import JudgedItem
    from escultor.evaluate.raters.session import RatingSession, RecordedChoices


def judge(
    shell: Shell,
    a: lookup.ModelArgument,
    b: lookup.ModelArgument,
    suite: lookup.SuiteOption = None,
    model: Annotated[
        str | None, Option("--judge", metavar="MODEL", help="With --url: its name there.")
    ] = None,
    url: Annotated[str | None, Option(help="An OpenAI-compatible server; ends in /v1.")] = None,
    key_env: lookup.KeyEnvOption = lookup.KEY_ENV,
) -> CommandResult:
    """Let a language model compare two models' answers, in both orders; people's ratings correct it."""
    from escultor.evaluate.raters.judge import judge_choices, judge_session, open_judge
    from escultor.evaluate.raters.session import RecordedChoices

    if model is None:
        raise InputError("who judges?", "no --judge", "--judge MODEL, and --url for one behind a server")
    named = model if url is not None else str(lookup.checked_model(shell, model))
    judge = open_judge(named, url, key_env, shell.config.evaluation.batch_size)
    folders = [lookup.checked_model(shell, name) for name in (a, b)]
    chosen = lookup.find_suite(shell, suite)
    rubric = skill_of(chosen.record, shell.config).rubric
    with lookup.open_or_create_store(shell) as store:
        session, swapped = session_between(shell, store, folders, chosen)
        cache = EvaluationCache(store.root / "cache" / "judge.jsonl")
        with LiveProgress() as live:
            live.phase(f"{judge.name} compares {chosen.record.items} items")
            items = judge_session(session, judge, cache, live.note, rubric=rubric)
        choices = judge_choices(session, judge, items)
        store.log.append(*(choice for choice in choices if store.log.get(Feedback, choice.id) is None))
        recorded = RecordedChoices(store.log, session)
        recorded.refresh()
        return _report(shell, session, recorded, items, sign=-1.0 if swapped else 1.0)


def _report(
    shell: Shell, session: RatingSession, recorded: RecordedChoices, items: list[JudgedItem], sign: float
) -> CommandResult:
    """Print and return the judge's win rate of B and its correction; `sign` is -1 where the session's sides
    are swapped."""
    from escultor.evaluate.raters.preference import counted_votes, item_means

    decided = {item.item: sign * item.value for item in items if item.value is not None}
    clusters = {item.item: item.cluster for item in items}
    wins = win_rate(list(decided.values()), [clusters[item] for item in decided])
    people = {item: sign * value for item, value in item_means(counted_votes(session, recorded)).items()}
    corrected = correct_judge(decided, people, clusters)
    counts = {
        "judged": len(items),
        "no_verdict": sum(item.value is None for item in items),
        "changed_with_order": sum(item.inconsistent for item in items),
        "ties": sum(value == 0 for value in decided.values()),
    }
    shell.print(
        f"B wins {wins.value:.1%} of what the judge decided, "
        f"95 % interval [{wins.low:.1%}, {wins.high:.1%}]. "
        f"{counts['ties']} of {counts['judged']} are ties, {counts['changed_with_order']} of them because "
        f"the verdict changed with the order; {counts['no_verdict']} replies named no verdict."
    )
    shell.print(_correction(corrected))
    data = {"session": session.id, **counts, "win_rate": wins._asdict()}
    return CommandResult(data | {"corrected": asdict(corrected) if corrected else None})


def _correction(corrected: CorrectedMean | None) -> str:
    if corrected is None:
        reason = "No person rated two clusters of these items"
        return f"{reason}, so this judge's accuracy is unknown: `escultor rate`."
    return (
        f"Corrected by people's ratings of {corrected.labelled} items: "
        f"B is preferred by {corrected.value:+.3f} [{corrected.low:+.3f}, {corrected.high:+.3f}] "
        f"(from -1 to 1, 95 %); the judge's weight is {corrected.power:.2f}. "
        f"The people's ratings alone give [{corrected.people_low:+.3f}, "
        f"{corrected.people_high:+.3f}]."
    )
