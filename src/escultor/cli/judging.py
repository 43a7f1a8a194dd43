"""`compare`, `cycle`: what the gate says of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.evaluating import Which, WhichSuite, checked_model, exam_of, means, recorded_scores
from escultor.cli.finding import existing_store
from escultor.cli.output import NOT_PROMOTED, Done, Shell

if TYPE_CHECKING:
    from escultor.types import Scores, Verdict


def compare(
    shell: Shell,
    champion: Which,
    candidate: Which,
    suite: WhichSuite = "trinity",
) -> Done:
    """Ask the gate whether a candidate is better than a champion; leaves with 3 unless it is."""
    from escultor.cycle import api
    from escultor.store import open_store

    folders = [checked_model(shell, name) for name in (champion, candidate)]
    exam = exam_of(shell, suite)
    with open_store(shell.config.store.url) as store:
        before, after = (recorded_scores(shell, store, folder, exam) for folder in folders)
        verdict = api.compare(before, after, shell.config.gate, shell.config.evaluation.seed)
        store.log.append(verdict)
    _figures(shell, [(champion, before), (candidate, after)])
    return judged(shell, verdict)


def cycle(
    shell: Shell,
    since: Annotated[
        str | None,
        typer.Option("--since", help="daily, weekly, monthly or a date; default: from the beginning."),
    ] = None,
) -> Done:
    """Turn feedback into the next model, and deploy it if the gate promotes it; leaves with 3 if not."""
    from escultor.cli.live import Live
    from escultor.cycle.api import EvolutionCycle, moment

    begin = moment(since)
    existing_store(shell.config.store.url, "there is no feedback to learn from").close()
    with Live() as live:
        verdict = EvolutionCycle(shell.config, live).run(begin)
    return judged(shell, verdict)


def judged(shell: Shell, verdict: Verdict) -> Done:
    """Show a verdict with what it rests on; only a promotion is exit code 0."""
    from escultor.types import Hold, Promote

    because = verdict.because
    shell.table(
        ["Metric", "Role", "Champion", "Candidate", "Difference", "95 % interval", "p", "Margin", "Items"],
        [_effect(effect) for effect in because.effects],
        left=(0, 1),
    )
    shell.say(because.reason, "bold")
    data: dict[str, Any] = {"verdict": type(verdict).__name__.lower(), **asdict(because)}
    if isinstance(verdict, Hold):
        data["n_needed"] = verdict.n_needed
    return Done(data, 0 if isinstance(verdict, Promote) else NOT_PROMOTED)


def _effect(e: Any) -> Sequence[str]:
    interval = f"[{e.low:+.4f}, {e.high:+.4f}]"
    margin = f"{e.margin:g}" if e.role == "guard" else ""
    figures = (f"{e.champion:.4f}", f"{e.candidate:.4f}", f"{e.difference:+.4f}")
    return (e.metric, e.role, *figures, interval, f"{e.p_value:.2g}", margin, f"{e.n:,}")


def _figures(shell: Shell, scored: Sequence[tuple[str, Scores]]) -> None:
    """Versions side by side, figures from top to bottom."""
    from escultor.evaluate.report_parts import VersionRow, text_table

    rows = []
    for name, scores in scored:
        figures = {k: v for k, v in means(scores).items() if not k.endswith(("_low", "_high"))}
        rows.append(VersionRow(name, round(figures.pop("parameters")), figures))
    heads, *lines = text_table(rows, turned=True)
    shell.table(heads, [line for line in lines if set(line[1:]) != {"–"}])
