"""`rate`: two models' answers compared blind by people, and the report of their choices."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from escultor.cli.evaluate import recorded_scores
from escultor.cli.lookup import ModelArgument, SuiteOption, checked_model, find_suite, open_or_create_store
from escultor.cli.output import CommandResult, Shell
from escultor.cycle.evaluation_service import skill_of
from escultor.errors import InputError
from escultor.skills.suites import EvaluationSuite
from escultor.store import Store

if TYPE_CHECKING:
    from escultor.evaluate.raters.preference import Preference
    from escultor.evaluate.raters.session import ComparisonTask, RatingSession, RecordedChoices

KEYS = "1: the first is better   2: the second   t: neither   q: stop here"
PICKS: dict[str, Literal[1, 2, "q"] | None] = {"1": 1, "2": 2, "t": None, "q": "q"}
_RATER_NAME = re.compile(r"[^\s:/][^:/\n]{0,79}")


def rate(
    shell: Shell,
    a: ModelArgument,
    b: ModelArgument,
    suite: SuiteOption = None,
    rater: Annotated[str | None, Option(metavar="NAME", help="Your name; kept with every choice.")] = None,
    report: Annotated[bool, Option("--report", help="Show the result of the choices so far.")] = False,
) -> CommandResult:
    """Compare two models' answers, blind, by the keyboard; or --report what everybody chose.

    Choices are kept one by one: stop whenever you like and continue later. Several raters may rate at once.
    """
    from escultor.evaluate.raters.session import RecordedChoices

    if report == (rater is not None):
        got = "both" if report else "neither"
        raise InputError("who rates, or a report?", got, "one of --rater NAME and --report")
    if rater is not None and not _RATER_NAME.fullmatch(rater):
        raise InputError("this is no rater's name", repr(rater), "1 to 80 characters without `:` and `/`")
    folders = [checked_model(shell, model) for model in (a, b)]
    chosen = find_suite(shell, suite)
    with open_or_create_store(shell) as store:
        session, swapped = session_between(shell, store, folders, chosen)
        recorded = RecordedChoices(store.log, session)
        if rater is None:
            return _report(shell, session, recorded, swapped)
        return _ask(shell, store, session, recorded, rater)


def session_between(
    shell: Shell, store: Store, folders: list[Path], suite: EvaluationSuite
) -> tuple[RatingSession, bool]:
    """The session of two models, whose answers are generated if they are missing; and whether the session's
    side b is the first of the two models."""
    from escultor.evaluate.predictions import Predictions
    from escultor.evaluate.raters.session import session_of

    sides = []
    for folder in folders:
        scores = recorded_scores(shell, store, folder, suite, shell.config)
        sides.append((scores, Predictions.from_bytes(store.blobs.get_bytes(str(scores.answers)))))
    settings = shell.config.evaluation
    session = session_of(suite, sides[0], sides[1], settings.n_raters, settings.seed)
    return session, session.checkpoints[1] == sides[0][0].checkpoint


def _ask(
    shell: Shell, store: Store, session: RatingSession, recorded: RecordedChoices, rater: str
) -> CommandResult:
    """Ask for choices until no task is left, the rater stops, or the input ends."""
    from escultor.evaluate.raters.preference import rater_records
    from escultor.evaluate.raters.session import make_choice, next_task

    made = 0
    if rubric := skill_of(session.suite.record, shell.config).rubric:
        shell.print(rubric, "bold")
    shell.print(KEYS, "dim")
    while True:
        recorded.refresh()
        excluded = frozenset(r.name for r in rater_records(session, recorded) if r.left_out)
        task = next_task(session, rater, recorded, excluded)
        if task is None:
            shell.print("Nothing is left to rate here. Thank you.", "bold")
            break
        _show_task(shell, task, recorded.counts(rater)[0] + 1)
        pick = _read_pick()
        if pick == "q":
            break
        store.log.append(make_choice(session, rater, task, pick))
        made += 1
    recorded.refresh()
    rated, checks = recorded.counts(rater)
    shell.print(f"{rated} items rated by {rater} so far.")
    counts = {"made": made, "rated": rated, "checks": checks}
    return CommandResult({"session": session.id, "rater": rater, **counts})


def _show_task(shell: Shell, task: ComparisonTask, number: int) -> None:
    shell.print(f"\n--- {number} " + "-" * 60, "dim")
    for message in task.item.prompt:
        shell.print(message.content)
    for side, text in enumerate(task.texts, 1):
        shell.print(f"\n[{side}]", "bold")
        shell.print(text if text.strip() else "(an empty answer)")


def _read_pick() -> Literal[1, 2, "q"] | None:
    """A choice from stdin, asked for until it is valid; the end of the input counts as `q`."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return "q"
        if (key := line.strip().lower()) in PICKS:
            return PICKS[key]
        print(KEYS, file=sys.stderr)


def _report(shell: Shell, session: RatingSession, recorded: RecordedChoices, swapped: bool) -> CommandResult:
    from escultor.evaluate.raters.preference import preference
    from escultor.evaluate.raters.preference import swapped as swapped_sides

    recorded.refresh()
    result = preference(session, recorded, session.seed)
    result = swapped_sides(result) if swapped else result
    rows = [
        (
            r.name,
            r.votes,
            r.ties,
            f"{r.first_chosen}/{r.votes - r.ties}",
            f"{r.checks_failed}/{r.checks}",
            f"left out: {r.left_out}" if r.left_out else "",
        )
        for r in result.raters
    ]
    shell.table(["Rater", "Votes", "Ties", "First side", "Checks failed", ""], rows, left=(0, 5))
    for line in _sentences(result):
        shell.print(line)
    checkpoints = session.checkpoints[::-1] if swapped else session.checkpoints
    return CommandResult({"session": session.id, "checkpoints": checkpoints, **asdict(result)})


def _sentences(result: Preference) -> list[str]:
    """The report in sentences; B is the second of the two models."""
    rated = f"{result.items_rated} of {result.items} items rated; {result.items_alike} have equal answers."
    if result.win_rate is None or result.strength is None:
        return [rated, "No choice counts yet."]
    wins, s = result.win_rate, result.strength
    alpha = "not defined yet" if result.alpha is None else f"{result.alpha:.2f}"
    if result.items_needed == 0:
        needed = "It is settled: the interval excludes one half."
    elif result.items_needed is None:
        needed = "No number of items would settle it at this preference."
    else:
        needed = (
            f"About {result.items_needed:,} more items with differing answers would settle it (80 % power)."
        )
    return [
        rated,
        f"B wins {wins.value:.1%} of the decided votes, 95 % interval [{wins.low:.1%}, {wins.high:.1%}], "
        f"{wins.ties} of {wins.n} votes are ties.",
        f"Bradley-Terry log-odds of B over A, net of raters: {s.value:+.2f} [{s.low:+.2f}, {s.high:+.2f}]; "
        f"bias towards the first side: {s.first_side:+.2f}.",
        f"Krippendorff's alpha: {alpha} (0.8: reliable; below 0.67: improve the instructions).",
        needed,
    ]
