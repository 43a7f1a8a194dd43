"""`judge`: two models' answers compared by a language model, corrected by people where they rated."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.evaluate import KEY_ENV, KeyEnv
from escultor.cli.lookup import Which, WhichSuite, checked_model, find_suite
from escultor.cli.output import CommandResult, Shell
from escultor.cli.rate import session_between
from escultor.errors import InputError

if TYPE_CHECKING:
    from escultor.evaluate.raters.judge import Judge, JudgedItem
    from escultor.evaluate.raters.judge_calibration import CorrectedMean
    from escultor.evaluate.raters.session import RatingSession, RecordedChoices


def judge(
    shell: Shell,
    a: Which,
    b: Which,
    suite: WhichSuite = "trinity",
    model: Annotated[
        str | None,
        typer.Option("--judge", metavar="MODEL", help="A model folder; with --url its name there."),
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="An OpenAI-compatible server, up to /v1.")] = None,
    key_env: KeyEnv = KEY_ENV,
) -> CommandResult:
    """Let a language model compare two models' answers, in both orders; people's ratings correct it."""
    from escultor.cli.progress import LiveProgress
    from escultor.evaluate.cache import EvaluationCache
    from escultor.evaluate.raters.judge import judge_choices, judge_session
    from escultor.evaluate.raters.session import RecordedChoices
    from escultor.store import open_store
    from escultor.types import Feedback

    if model is None:
        raise InputError("who judges?", "no --judge", "--judge MODEL, and --url for one behind a server")
    own = _judge(shell, model, url, key_env)
    folders = [checked_model(shell, name) for name in (a, b)]
    judged = find_suite(shell, suite)
    with open_store(shell.config.store.url) as store:
        session, swapped = session_between(shell, store, folders, judged)
        memo = EvaluationCache(store.root / "cache" / "judge.jsonl")
        with LiveProgress() as live:
            live.phase(f"{own.name} compares {judged.record.items} items")
            found = judge_session(session, own, memo, live.note)
        made = judge_choices(session, own, found)
        store.log.append(*(choice for choice in made if store.log.get(Feedback, choice.id) is None))
        choices = RecordedChoices(store.log, session)
        choices.refresh()
        return _report(shell, session, choices, found, -1.0 if swapped else 1.0)


def _judge(shell: Shell, model: str, url: str | None, key_env: str) -> Judge:
    from escultor.evaluate.raters.judge import EndpointJudge, LocalJudge
    from escultor.evaluate.served_model import Endpoint
    from escultor.model.load import load
    from escultor.store.blobs import tree_hash

    if url is not None:
        return EndpointJudge(Endpoint(url, os.environ.get(key_env)), model)
    folder: Path = checked_model(shell, model)
    return LocalJudge(load(str(folder)), tree_hash(folder), shell.config.evaluation.batch_size)


def _report(
    shell: Shell, session: RatingSession, choices: RecordedChoices, found: list[JudgedItem], sign: float
) -> CommandResult:
    from escultor.evaluate.raters.judge_calibration import correct_judge
    from escultor.evaluate.raters.preference import counted_votes, item_means
    from escultor.stats import win_rate

    sure = {j.item: sign * j.value for j in found if j.value is not None}
    clusters = {j.item: j.cluster for j in found}
    won = win_rate(list(sure.values()), [clusters[item] for item in sure])
    people = {item: sign * value for item, value in item_means(counted_votes(session, choices)).items()}
    corrected = correct_judge(sure, people, clusters)
    counts = {
        "judged": len(found),
        "no_verdict": sum(j.value is None for j in found),
        "changed_with_order": sum(j.inconsistent for j in found),
        "ties": sum(v == 0 for v in sure.values()),
    }
    shell.say(
        f"B wins {won.value:.1%} of what the judge decided, 95 % interval [{won.low:.1%}, {won.high:.1%}]. "
        f"{counts['ties']} of {counts['judged']} are ties, {counts['changed_with_order']} of them because "
        f"the verdict changed with the order; {counts['no_verdict']} replies named no verdict."
    )
    shell.say(_corrected(corrected))
    data: dict[str, Any] = {"session": session.id, **counts, "win_rate": won._asdict()}
    return CommandResult(data | {"corrected": asdict(corrected) if corrected else None})


def _corrected(found: CorrectedMean | None) -> str:
    if found is None:
        return (
            "No person rated two clusters of these items, so nothing tells how far this judge can be "
            "trusted: `escultor rate`."
        )
    return (
        f"Corrected by people's ratings of {found.labelled} items: B is preferred by {found.value:+.3f} "
        f"[{found.low:+.3f}, {found.high:+.3f}] (from -1 to 1, 95 %); the judge's weight is "
        f"{found.power:.2f}. Those ratings alone say [{found.people_low:+.3f}, {found.people_high:+.3f}]."
    )
