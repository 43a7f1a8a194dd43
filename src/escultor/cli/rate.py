"""`rate`: two models' answers side by side, blind; and what the raters' choices come to."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from escultor.cli.evaluate import recorded_scores
from escultor.cli.lookup import Which, WhichSuite, checked_model, find_suite
from escultor.cli.output import CommandResult, Shell
from escultor.errors import InputError

if TYPE_CHECKING:
    from escultor.evaluate.raters.preference import Preference
    from escultor.evaluate.raters.session import ComparisonTask, RatingSession, RecordedChoices
    from escultor.skills.suites import EvaluationSuite
    from escultor.store import Store

KEYS = "1: the first is better   2: the second   t: neither   q: stop here"
_NAME = re.compile(r"[^\s:/][^:/\n]{0,79}")
RatingPick = Literal[1, 2] | None


def rate(
    shell: Shell,
    a: Which,
    b: Which,
    suite: WhichSuite = "trinity",
    rater: Annotated[
        str | None,
        typer.Option("--rater", metavar="NAME", help="Who rates; kept with every choice in the store."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Show what the choices so far come to, and ask nothing.")
    ] = False,
) -> CommandResult:
    """Compare two models' answers, blind, by the keyboard; or --report what everybody chose.

    Choices are kept one by one: stop whenever you like and go on later. Several raters may rate at once.
    """
    from escultor.evaluate.raters.session import RecordedChoices
    from escultor.store import open_store

    name = _who(rater, report)
    folders = [checked_model(shell, model) for model in (a, b)]
    rated = find_suite(shell, suite)
    with open_store(shell.config.store.url) as store:
        session, swapped = session_between(shell, store, folders, rated)
        choices = RecordedChoices(store.log, session)
        if name is None:
            return _report(shell, session, choices, swapped)
        return _ask(shell, store, session, choices, name)


def _who(rater: str | None, report: bool) -> str | None:
    if report == (rater is not None):
        got = "both" if report else "neither"
        raise InputError("who rates, or a report?", got, "one of --rater NAME and --report")
    if rater is not None and not _NAME.fullmatch(rater):
        raise InputError("this is no rater's name", repr(rater), "1 to 80 characters without `:` and `/`")
    return rater


def session_between(
    shell: Shell, store: Store, folders: list[Path], suite: EvaluationSuite
) -> tuple[RatingSession, bool]:
    """The session of two models, whose answers are made where they are not there yet; and whether its
    side b is the model named first."""
    from escultor.evaluate.predictions import Predictions
    from escultor.evaluate.raters.session import session_of

    sides = []
    for folder in folders:
        scores = recorded_scores(shell, store, folder, suite)
        sides.append((scores, Predictions.from_bytes(store.blobs.get_bytes(str(scores.answers)))))
    settings = shell.config.evaluation
    session = session_of(suite, sides[0], sides[1], settings.n_raters, settings.seed)
    return session, session.checkpoints[1] == sides[0][0].checkpoint


def _ask(
    shell: Shell, store: Store, session: RatingSession, choices: RecordedChoices, rater: str
) -> CommandResult:
    """Tasks until none is left, the rater stops, or the input ends."""
    from escultor.evaluate.raters.preference import rater_records
    from escultor.evaluate.raters.session import make_choice, next_task

    made = 0
    shell.say(KEYS, "dim")
    while True:
        choices.refresh()
        out = frozenset(r.name for r in rater_records(session, choices) if r.left_out)
        task = next_task(session, rater, choices, out)
        if task is None:
            shell.say("Nothing is left to rate here. Thank you.", "bold")
            break
        _show(shell, task, choices.counts(rater)[0] + 1)
        pick = _key()
        if pick == "q":
            break
        store.log.append(make_choice(session, rater, task, pick))
        made += 1
    choices.refresh()
    done, checks = choices.counts(rater)
    shell.say(f"{done} items rated by {rater} so far.")
    return CommandResult(
        {"session": session.id, "rater": rater, "made": made, "rated": done, "checks": checks}
    )


def _show(shell: Shell, task: ComparisonTask, number: int) -> None:
    shell.say(f"\n--- {number} " + "-" * 60, "dim")
    for message in task.item.prompt:
        shell.say(message.content)
    for at, text in enumerate(task.texts, 1):
        shell.say(f"\n[{at}]", "bold")
        shell.say(text if text.strip() else "(an empty answer)")


def _key() -> RatingPick | Literal["q"]:
    """A choice; asked again until it is one. The end of the input is a stop."""
    picks: dict[str, RatingPick | Literal["q"]] = {"1": 1, "2": 2, "t": None, "q": "q"}
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return "q"
        if (key := line.strip().lower()) in picks:
            return picks[key]
        print(KEYS, file=sys.stderr)


# --- the report -------------------------------------------------------------------------------


def _report(shell: Shell, session: RatingSession, choices: RecordedChoices, swapped: bool) -> CommandResult:
    from escultor.evaluate.raters.preference import preference
    from escultor.evaluate.raters.preference import swapped as swapped_sides

    choices.refresh()
    found = preference(session, choices, session.seed)
    found = swapped_sides(found) if swapped else found
    shell.table(
        ["Rater", "Votes", "Ties", "First side", "Checks failed", ""],
        [
            (
                r.name,
                str(r.votes),
                str(r.ties),
                f"{r.first_chosen}/{r.votes - r.ties}",
                f"{r.checks_failed}/{r.checks}",
                f"left out: {r.left_out}" if r.left_out else "",
            )
            for r in found.raters
        ],
        left=(0, 5),
    )
    for line in _words(found):
        shell.say(line)
    named = session.checkpoints[::-1] if swapped else session.checkpoints
    return CommandResult({"session": session.id, "checkpoints": named, **asdict(found)})


def _words(found: Preference) -> list[str]:
    """The report in sentences; b is the model named second."""
    lines = [f"{found.items_rated} of {found.items} items rated; {found.items_alike} have equal answers."]
    if found.win_rate is None or found.strength is None:
        return [*lines, "No choice counts yet."]
    won, s = found.win_rate, found.strength
    lines.append(
        f"B wins {won.value:.1%} of the decided votes, 95 % interval [{won.low:.1%}, {won.high:.1%}], "
        f"{won.ties} of {won.n} votes are ties."
    )
    lines.append(
        f"Bradley-Terry log-odds of B over A, net of raters: {s.value:+.2f} [{s.low:+.2f}, {s.high:+.2f}]; "
        f"the first side's pull: {s.first_side:+.2f}."
    )
    alpha = "not defined yet" if found.alpha is None else f"{found.alpha:.2f}"
    lines.append(f"Krippendorff's alpha: {alpha} (0.8: reliable; below 0.67: mend the instructions).")
    if found.items_needed == 0:
        lines.append("It is settled: the interval leaves one half out.")
    elif found.items_needed is None:
        lines.append("No number of items would settle it at the preference seen.")
    else:
        lines.append(
            f"About {found.items_needed:,} more items with differing answers would settle it (80 % power)."
        )
    return lines
