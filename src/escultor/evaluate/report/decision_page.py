"""The content of the page of a verdict, for HTML and Markdown alike: titled sections of tables and plots."""

from __future__ import annotations

from typing import NamedTuple

from escultor.evaluate.gate.alpha_spending import alpha_at
from escultor.evaluate.gate.decision_record import DecisionInputs, DecisionRecord, Regression
from escultor.evaluate.gate.text import number, signed
from escultor.evaluate.gate.trade_off import TradeOff
from escultor.evaluate.report.parts import MISSING, dollars, milliseconds, share, shown
from escultor.types import Comparison, Effect, Hold, Promote, Slice, Verdict, Veto


class PageTable(NamedTuple):
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Plot(NamedTuple):
    """Effects with interval and margin."""

    effects: tuple[Effect, ...]


class Latencies(NamedTuple):
    """Latencies of both versions in milliseconds, drawn as the share of requests answered in time."""

    names: tuple[str, str]
    values: tuple[tuple[float, ...], tuple[float, ...]]


class PagePart(NamedTuple):
    """One section of the page."""

    anchor: str
    title: str
    lead: str
    body: tuple[PageTable | Plot | Latencies | Regression | str, ...]


class VerdictPage(NamedTuple):
    word: str  # Promote, Hold, Reject
    title: str
    summary: tuple[str, ...]  # sentences that need no statistics
    parts: tuple[PagePart, ...]
    names: tuple[str, str]


def page_of(record: DecisionRecord) -> VerdictPage:
    """The page of a verdict; a section without content is left out."""
    verdict, trade, inputs = record.verdict, record.trade_off, record.inputs
    because, names = verdict.because, inputs.names
    deciding = tuple(e for e in because.effects if e.role != "info")
    info = tuple(e for e in because.effects if e.role == "info")
    decided = (Plot(deciding), _effects(deciding)) if deciding else ()
    parts = (
        PagePart("effects", "What decides", _EFFECTS, decided),
        PagePart("vetoes", "Vetoes", _VETOES, _vetoes(because.vetoes)),
        PagePart("trade", "What the student keeps and gains", "", _trade(trade)),
        PagePart("slices", "By slice", _SLICES, _slices(because.slices)),
        PagePart("regressions", "Where it got worse", _WORST, record.regressions),
        PagePart("speed", "Speed and cost", _SPEED, _speed(inputs)),
        PagePart("told", "Also measured", _INFO, (_effects(info),) if info else ()),
        PagePart("method", "How it was decided", "", (_method(inputs, because),)),
    )
    return VerdictPage(
        word=type(verdict).__name__,
        title=f"{names[1]} against {names[0]}",
        summary=_summary(verdict, names, trade),
        parts=tuple(part for part in parts if part.body),
        names=names,
    )


_EFFECTS = (
    "Candidate minus champion, in the direction in which more is better, with 95 % intervals. The grey band "
    "is the loss that a guard allows; the small dot below it the worst that its bound leaves possible. A "
    "filled point: shown better, or shown within the margin."
)
_VETOES = "Limits that no gain can outweigh, with the observed values."
_SLICES = (
    "Primary metrics on parts of the suite of at least ten items, with 95 % intervals. Nothing is decided "
    "here: of twenty slices one lies outside by chance."
)
_WORST = "The items on which the candidate loses most, with both answers."
_SPEED = "Measured on one machine; costs follow from its hourly price."
_INFO = "Metrics that the policy does not name. They decide nothing."


# --- summary ----------------------------------------------------------------------------------


def _summary(verdict: Verdict, names: tuple[str, str], trade: TradeOff | None) -> tuple[str, ...]:
    because = verdict.because
    better = [e for e in because.effects if e.state == "better"]
    advice = {
        "Promote": f"Deploy {names[1]}: it is shown to be better, and nothing that must hold got worse.",
        "Reject": f"Do not deploy {names[1]}.",
        "Hold": f"Keep {names[0]} for now: the comparison does not show enough to replace it.",
    }[type(verdict).__name__]
    sentences = [advice]
    sentences += [
        f"{e.metric} goes from {number(e.champion)} to {number(e.candidate)}: {signed(e.difference)}, "
        f"95 % interval {number(e.low)} to {number(e.high)}, on {e.n:,} items."
        for e in better
    ]
    if not isinstance(verdict, Promote):
        sentences += [
            f"{e.metric} is shown to be worse: {signed(e.difference)}."
            for e in because.effects
            if e.state in ("worse", "broken")
        ]
        sentences += [
            f"Veto: {v.name} is {shown(v.seen, number)}, {v.limit}."
            for v in because.vetoes
            if v.state != "kept"
        ]
    if isinstance(verdict, Hold) and verdict.n_needed is not None:
        sentences.append(
            f"About {verdict.n_needed:,} items would be enough, four times in five, if it is so at all."
        )
    if isinstance(verdict, Hold) and not better and not because.effects:
        sentences.append(because.reason)
    if trade is not None:
        sentences.append(f"As a smaller model: {trade.recommendation}")
    return tuple(sentences)


# --- tables -----------------------------------------------------------------------------------

_STATES = {
    "better": "shown better",
    "worse": "shown worse",
    "kept": "shown within its margin",
    "broken": "shown beyond its margin",
    "open": "not shown",
    "told": "",
}


def _effects(effects: tuple[Effect, ...]) -> PageTable:
    heads = ("Metric", "Role", "Champion", "Candidate", "Difference", "95 % interval", "p", "Shown")
    rows = []
    for e in effects:
        role = f"guard, margin {e.margin:g}" if e.role == "guard" else e.role
        name = f"{e.metric} (lower is better)" if e.lower_is_better else e.metric
        p = MISSING if e.state == "told" else f"{e.p_value:.2g} (alpha {e.level:.2g})"
        interval = f"{number(e.low)} to {number(e.high)}"
        figures = (number(e.champion), number(e.candidate), signed(e.difference), interval, p)
        rows.append((name, role, *figures, _STATES[e.state] or MISSING))
    return PageTable(heads, tuple(rows))


def _vetoes(vetoes: tuple[Veto, ...]) -> tuple[PageTable, ...]:
    rows = tuple((v.name, v.limit, shown(v.seen, number), v.state) for v in vetoes)
    return (PageTable(("Limit on", "Allowed", "Seen", "State"), rows),) if rows else ()


def _trade(trade: TradeOff | None) -> tuple[PageTable | str, ...]:
    if trade is None:
        return ()
    rows = []
    for h in trade.checks:
        value = MISSING if h.value is None else f"{h.value:.1%}" if h.value < 2 else f"{h.value:.1f} times"
        interval = "" if h.low is None or h.high is None else f"{h.low:.1%} to {h.high:.1%}"
        rows.append((h.name, h.wanted, value, interval or MISSING, h.outcome))
    table = PageTable(("Of the teacher", "Target", "Measured", "95 % interval", "Outcome"), tuple(rows))
    return (trade.recommendation, table)


def _slices(slices: tuple[Slice, ...]) -> tuple[PageTable, ...]:
    heads = ("Slice", "Metric", "Items", "Champion", "Candidate", "Difference", "95 % interval")
    rows = tuple(
        (
            f"{s.way}: {s.name}",
            s.metric,
            f"{s.n:,}",
            number(s.champion),
            number(s.candidate),
            signed(s.difference),
            f"{number(s.low)} to {number(s.high)}",
        )
        for s in slices
    )
    return (PageTable(heads, rows),) if rows else ()


_SUMMARY = {
    "parameters": ("Parameters", lambda v: f"{v:,.0f}"),
    "ttft_p50_ms": ("First token, median", milliseconds),
    "latency_p50_ms": ("Latency, median", milliseconds),
    "latency_p99_ms": ("Latency, p99", milliseconds),
    "tokens_per_s": ("Speed, tokens/s", lambda v: f"{v:,.1f}"),
    "cost_usd_per_1k_tokens": ("Cost of 1,000 tokens", dollars),
    "cost_usd_per_request": ("Cost of a request", dollars),
    "hourly_price_usd": ("Price of an hour", dollars),
    "speed_requests": ("Requests timed", lambda v: f"{v:,.0f}"),
    "cut_share": ("Answers cut", share),
}


def _speed(inputs: DecisionInputs) -> tuple[PageTable | Latencies, ...]:
    old, new = inputs.champion.summary, inputs.candidate.summary
    rows = []
    for key, (name, write) in _SUMMARY.items():
        if key in old or key in new:
            before, after = old.get(key), new.get(key)
            ratio = f"{after / before:.2f} ×" if before and after is not None else MISSING
            rows.append((name, shown(before, write), shown(after, write), ratio))
    drawing = (Latencies(inputs.names, inputs.latencies),) if all(inputs.latencies) else ()
    table = (PageTable(("Figure", *inputs.names, "Ratio"), tuple(rows)),) if rows else ()
    return *drawing, *table


def _method(inputs: DecisionInputs, because: Comparison) -> PageTable:
    policy, context = inputs.policy, inputs.context
    alpha = alpha_at(context.look, policy, context.promotions)
    clusters = len(set(inputs.champion.clusters))
    rule = "its share of alpha" if policy.alpha_spending == "shared" else "the full alpha each time"
    rows = (
        ("Policy", f"{policy.name} ({because.policy})"),
        ("Suite", because.suite),
        ("Items", f"{because.n:,} in {clusters:,} clusters, the same for both sides"),
        (
            "Primary metrics",
            f"{', '.join(policy.primary)}: paired permutation test by cluster, one-sided, Holm, and a "
            "distribution-free bound above 0 (0/1 scores: exact McNemar)",
        ),
        ("Guards", f"distribution-free one-sided bound (Gaffke) at alpha {policy.alpha:g}, each by itself"),
        ("Analysis", f"{context.look} of this suite, tested at {alpha:.3g}; the k-th analysis has {rule}"),
        ("Intervals", "95 %, studentised cluster bootstrap"),
        ("Signed off by", context.signed_by or MISSING),
        ("Champion", f"{because.champion}, scores {because.champion_scores}"),
        ("Candidate", f"{because.candidate}, scores {because.candidate_scores}"),
        ("Reason in full", because.reason),
    )
    return PageTable(("What", "Which"), rows)
