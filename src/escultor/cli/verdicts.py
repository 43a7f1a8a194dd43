"""How the command line shows a verdict."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from escultor.cli.output import NOT_PROMOTED, CommandResult, Shell
from escultor.types import Effect, Hold, Promote, Verdict


def show_verdict(shell: Shell, verdict: Verdict) -> CommandResult:
    """Print a verdict with the effects it rests on; the exit code is 0 only for a promotion."""
    because = verdict.because
    shell.table(
        ["Metric", "Role", "Champion", "Candidate", "Difference", "95 % interval", "p", "Margin", "Items"],
        [_effect_row(effect) for effect in because.effects],
        left=(0, 1),
    )
    shell.print(because.reason, "bold")
    data: dict[str, Any] = {"verdict": type(verdict).__name__.lower(), **asdict(because)}
    if isinstance(verdict, Hold):
        data["n_needed"] = verdict.n_needed
    return CommandResult(data, 0 if isinstance(verdict, Promote) else NOT_PROMOTED)


def _effect_row(e: Effect) -> tuple[object, ...]:
    interval = f"[{e.low:+.4f}, {e.high:+.4f}]"
    margin = f"{e.margin:g}" if e.role == "guard" else ""
    p = "" if e.role == "info" else f"{e.p_value:.2g}"
    figures = (f"{e.champion:.4f}", f"{e.candidate:.4f}", f"{e.difference:+.4f}")
    return (e.metric, e.role, *figures, interval, p, margin, e.n)
