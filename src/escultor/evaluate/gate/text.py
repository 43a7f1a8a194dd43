"""The gate's figures in words; differences are positive where the candidate is better."""

from __future__ import annotations

from collections.abc import Sequence

from escultor.types import Effect, Veto

FIRST_BY_ASSUMPTION = (
    "By assumption this is the first analysis of these items: nothing here would know of an earlier one."
)


def figures(effects: Sequence[Effect], analysis: int) -> str:
    """All effects that decide, in one line."""
    line = "; ".join(figure(e) for e in effects if e.role != "info")
    levels = [e.level for e in effects if e.role == "primary"]
    if analysis == 1 or not levels:
        return line
    return f"{line}; analysis {analysis} of this suite, tested at alpha {levels[0]:.2g}"


def figure(e: Effect) -> str:
    """One effect."""
    name = f"{e.metric} (lower is better)" if e.lower_is_better else e.metric
    path = f"{number(e.champion)} to {number(e.candidate)}"
    if e.role == "guard":
        if e.state == "broken":
            return f"{name} worse by more than {e.margin:g} ({path}, {signed(e.difference)})"
        worst = "" if e.bound is None else f", at worst {signed(e.bound)}"
        shown = "within" if e.state == "kept" else "not shown to be within"
        return f"{name} {shown} {e.margin:g} ({path}{worst}{_over_items(e)})"
    shown = e.state if e.state in ("better", "worse") else "not shown to be better"
    if e.state == "open" and e.p_value <= e.level and e.bound is not None and e.bound <= 0:
        shown += f": rare losses, not among these items, may leave {signed(e.bound)}"
    clusters = "" if e.clusters == e.n else f" in {e.clusters} clusters"
    return (
        f"{name} {signed(e.difference)} [{number(e.low)}, {number(e.high)}] on {e.n} items{clusters}, "
        f"{shown} ({path}, p = {e.p_value:.2g}{_over_items(e) if e.p_value <= e.level else ''})"
    )


def _over_items(e: Effect) -> str:
    """What is shown of the mean over items, where clusters have several."""
    if e.clusters == e.n or e.largest_cluster is None:
        return ""
    if e.largest_cluster == 0:
        return ", not shown over items"
    return f", over items too if no cluster has more than {e.largest_cluster}"


def limits(vetoes: Sequence[Veto]) -> str:
    """Vetoes: the measured value, where there is one, and the limit."""
    return ", ".join(
        f"{v.name} {v.limit}" if v.seen is None else f"{v.name} {number(v.seen)}, {v.limit}" for v in vetoes
    )


def number(value: float) -> str:
    """A value with three decimals; from 100 on with none."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def signed(value: float) -> str:
    """A value with its sign."""
    return ("+" if value >= 0 else "") + number(value)
