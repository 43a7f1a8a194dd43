"""`evaluate`, `compare`, `cycle`: what a model scores, and what the gate says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.finding import corpus_cache, existing_store, find_model, load_model
from escultor.cli.output import NOT_PROMOTED, Done, Shell, write_text
from escultor.ids import plain

if TYPE_CHECKING:
    from escultor.evaluate.suites import TrinitySuite
    from escultor.store import Store
    from escultor.types import Scores, Verdict

Which = Annotated[str, typer.Argument(help="Model or run folder, checkpoint id, alias, or escultor-base.")]


def evaluate(
    shell: Shell,
    model: Which,
    out: Annotated[Path | None, typer.Option("--out", help="Write the scores as JSON too.")] = None,
    keep: Annotated[
        bool, typer.Option("--store-scores/--no-store", help="Whether to record the scores in the store.")
    ] = True,
) -> Done:
    """Score a model on documents of packages that no model is trained on."""
    folder, url = _checked(shell, model), shell.config.store.url
    scores = _measure(shell, folder, _suite(shell))
    if out is not None:
        write_text(out, json.dumps(plain(scores), indent=1) + "\n")
    if keep:
        from escultor.store import open_store

        with open_store(url) as store:
            store.log.append(scores)
    _figures(shell, [(model, scores)])
    return Done({"scores": scores.id, "checkpoint": scores.checkpoint, **_means(scores), "out": out})


def compare(
    shell: Shell,
    champion: Which,
    candidate: Which,
) -> Done:
    """Ask the gate whether a candidate is better than a champion; leaves with 3 unless it is."""
    from escultor.cycle import api
    from escultor.store import open_store

    folders = [_checked(shell, name) for name in (champion, candidate)]
    suite = _suite(shell)
    with open_store(shell.config.store.url) as store:
        before, after = (_scores(shell, store, folder, suite) for folder in folders)
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


def _checked(shell: Shell, name: str) -> Path:
    """The model's folder; a model that cannot be loaded is refused before anything slow begins."""
    folder = find_model(name, shell.config.store.url)
    load_model(folder)
    return folder


def _suite(shell: Shell) -> TrinitySuite:
    from escultor.cycle import api

    return api.held_out_suite(shell.config, corpus_cache(shell.config.store.url))


def _scores(shell: Shell, store: Store, folder: Path, suite: TrinitySuite) -> Scores:
    """Recorded scores of these weights on this suite, or new ones, recorded."""
    from escultor.cycle import api

    found = api.stored_scores(store, api.checkpoint_id(folder), suite.hash)
    if found is None:
        found = _measure(shell, folder, suite)
        store.log.append(found)
    return found


def _measure(shell: Shell, folder: Path, suite: TrinitySuite) -> Scores:
    from escultor.cli.live import Live
    from escultor.cycle import api

    with Live() as live:
        live.phase(f"evaluate {folder}")
        return api.evaluate_model(folder, suite, shell.config, live.note)


def _means(scores: Scores) -> dict[str, float]:
    """The mean of every metric, and the figures that are not per item."""
    means = {name: sum(values) / len(values) for name, values in scores.metrics.items() if values}
    return means | scores.summary


def _figures(shell: Shell, scored: Sequence[tuple[str, Scores]]) -> None:
    """Versions side by side, figures from top to bottom."""
    from escultor.evaluate.report_parts import VersionRow, text_table

    rows = []
    for name, scores in scored:
        figures = dict(_means(scores))
        rows.append(VersionRow(name, round(figures.pop("parameters")), figures))
    heads, *lines = text_table(rows, turned=True)
    shell.table(heads, [line for line in lines if set(line[1:]) != {"–"}])
