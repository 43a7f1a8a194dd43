"""The month's table and picture, from the figures of its arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from learning import ARMS, NO_LOOP
from people import ABOUT, AFTER_DRIFT, AT_FIRST, CALENDAR, DAYS, PEOPLE, POISONER_VOTES, UPSTREAM_SHARE
from scipy.stats import t as student_t

Results = Sequence[dict[str, Any]]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 400, 56, 220, 58, 40
COLOURS = ("#0f766e", "#b45309", "#b91c1c", "#64748b")  # of ARMS
STEP = 0.25  # days
LEAST_GAIN, MOST_POISONED, MOST_RATED = 0.08, 0.05, 60
GREY, PALE = "#475569", "#94a3b8"


def write_documents(results: Results, docs: Path) -> None:
    """`experiments/month.md` and `month.svg` in the folder."""
    (docs / "experiments").mkdir(exist_ok=True)
    (docs / "experiments" / "month.md").write_text(page(results), encoding="utf-8")
    (docs / "month.svg").write_text(picture(results), encoding="utf-8")


def over_seeds(results: Results, read: Callable[[dict[str, Any]], float], unit: float = 100.0) -> str:
    """Mean over the seeds with its 95 % interval (Student's t); of one seed the value alone."""
    values = [unit * read(each) for each in results]
    mean, n = sum(values) / len(values), len(values)
    if n < 2:
        return f"{mean:.1f}"
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = float(student_t.ppf(0.975, n - 1)) * error
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def of_arm(results: Results, arm: str) -> list[dict[str, Any]]:
    return sorted((each for each in results if each["arm"] == arm), key=lambda each: each["seed"])


# --- the page -------------------------------------------------------------------------------------

PAGE = """# A month in minutes

`make month`: {calls:,} calls in four weeks of an accelerated clock, {seeds}. Gateway, log, cycle,
gate, canary and monitor are those of the command line; only the clock is moved by hand. No person took
part: {people} simulated people ask a model of four million parameters about documentation, give thumbs
with errors, and ask again where they dislike an answer.

![True approval of what each arm deploys, by day](../month.svg)

* Tastes: {about}. At first {at_first}; from day {drift:g} on {after_drift}, and people ask about other
  packages, too.
* Days {poison[0]:g} to {poison[1]:g}: one person gives {votes:.0%} of all votes, for what the others like
  least.
* Day {broken:g}: broken weights are put into a trial by hand, past the gate. The other arms have no
  trial: there the weights go through their own rule.
* From day {outage[0]:g} the hosted model that answers {hosted:.0%} of the calls fails for {hours:.0f}
  hours, over the hour of a scheduled cycle.

Approval is the share of people, by the mix at the end, who truly like an answer on held-out prompts that
no gate looks at: percent, {over}. All arms train by the same method, with
the same settings, at the same hours. "Both thumbs, five points" makes a pair of the best and the worst
answer to each prompt with thumbs both ways, and deploys what is not more than five points worse;
"everything, always" makes every pair there is and deploys what comes out.

{table}

What Escultor made of the faults:

{faults}

Reached:

{reached}
"""


def page(results: Results) -> str:
    own = of_arm(results, ARMS[0])

    def mix(shares: Mapping[str, float]) -> str:
        return ", ".join(f"{share:.0%} {name}" for name, share in shares.items())

    return PAGE.format(
        calls=max((each.get("calls", 0) for each in results), default=0),
        seeds="1 seed" if len(own) == 1 else f"{len(own)} seeds",
        over="of one seed, with the 95 % interval of the gain over prompts"
        if len(own) == 1
        else "mean over seeds with its 95 % interval",
        people=PEOPLE,
        about=ABOUT,
        at_first=mix(AT_FIRST),
        after_drift=mix(AFTER_DRIFT),
        drift=CALENDAR.drift,
        poison=CALENDAR.poisoner,
        votes=POISONER_VOTES,
        broken=CALENDAR.broken_candidate,
        outage=CALENDAR.outage,
        hosted=UPSTREAM_SHARE,
        hours=24 * (CALENDAR.outage[1] - CALENDAR.outage[0]),
        table="\n".join(_table(results)),
        faults="\n".join(map(_faults, own)),
        reached="\n".join(
            f"* {what}: {'yes' if is_met else '**no**'}" for what, is_met in reached(own).items()
        ),
    )


def _table(results: Results) -> list[str]:
    heads = ["arm", "start", "after week 3", "end", "gain", "rows from the poisoner, %", "broken weights"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm in ARMS:
        if not (each := of_arm(results, arm)):
            lines.append(f"| {arm} | not run{' |' * (len(heads) - 1)}")
            continue
        cells = [
            arm,
            over_seeds(each, lambda r: r["start"]["value"]),
            over_seeds(each, lambda r: r["weeks"][2]),
            over_seeds(each, lambda r: r["end"]["value"]),
        ]
        if arm == NO_LOOP:
            cells += ["–"] * 3
        else:
            cells += [_gain(each), over_seeds(each, _poisoned_share)]
            cells.append("; ".join(map(_broken, each)))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _gain(results: Results) -> str:
    if len(results) > 1:
        return over_seeds(results, lambda r: r["gain"]["value"])
    value, low, high = (100 * results[0]["gain"][name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _poisoned_share(result: dict[str, Any]) -> float:
    rows = result["training"]
    return rows["poisoned"] / max(rows["rows"], 1)


def _broken(result: dict[str, Any]) -> str:
    found = result["broken"]
    if not found["answers"]:
        return "never served"
    end = "rolled back" if found["rolled back"] else f"served to {found['largest share']:.0%}"
    return f"{found['rated']} rated, {end}"


def _faults(each: dict[str, Any]) -> str:
    outage, rows = each["outage"], each["training"]
    return (
        f"* Seed {each['seed']}: {each['kills']} × `kill -9`, {each['lost']} of "
        f"{each['answers'] + each['feedback']:,} acknowledged rows lost. The outage paged after "
        f"{outage['paged after minutes']} minutes; {each['failed calls']} calls failed, and "
        f"{rows['of failed answers']} of {rows['rows']:,} training rows rest on them. "
        f"{each['votes of the poisoner']:,} votes of the poisoner."
    )


def reached(own: Results) -> dict[str, bool]:
    """Whether each figure that the month is about is met in every seed."""

    def in_all(is_met: Callable[[dict[str, Any]], bool]) -> bool:
        return bool(own) and all(map(is_met, own))

    def is_paged(r: dict[str, Any]) -> bool:
        return r["outage"]["paged after minutes"] is not None and not r["training"]["of failed answers"]

    def is_rolled_back(r: dict[str, Any]) -> bool:
        return r["broken"]["rolled back"] and r["broken"]["rated"] <= MOST_RATED

    return {
        "approval at least 8 points above the start, its interval above 0": in_all(
            lambda r: r["gain"]["value"] >= LEAST_GAIN and r["gain"]["low"] > 0
        ),
        "at most 5 % of the training rows rest on a vote of the poisoner": in_all(
            lambda r: _poisoned_share(r) <= MOST_POISONED
        ),
        "the outage paged, and no failed answer trained on": in_all(is_paged),
        f"broken weights rolled back after at most {MOST_RATED} rated answers": in_all(is_rolled_back),
        "no acknowledged row lost": in_all(lambda r: not r["lost"]),
    }


# --- the picture ----------------------------------------------------------------------------------


def picture(results: Results) -> str:
    """An SVG of the approval of what each arm has deployed, by day: means over seeds, and for the first arm
    the lowest and the highest of them."""
    lines = {arm: _by_day(of_arm(results, arm)) for arm in ARMS if of_arm(results, arm)}
    top = max(v for values in lines.values() for seed in values for v in seed)
    scale = min(1.0, math.ceil(10 * (top + 0.05)) / 10)

    def x(day: float) -> float:
        return LEFT + day / DAYS * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / scale * (HEIGHT - TOP - BOTTOM)

    parts = [*_frame(x, y, scale), *_events(x)]
    ends: list[tuple[float, str]] = []
    for (arm, seeds), colour in zip(lines.items(), COLOURS, strict=False):
        days = [STEP * i for i in range(len(seeds[0]))]
        columns = list(zip(*seeds, strict=True))
        if arm == ARMS[0] and len(seeds) > 1:
            band = [f"{x(d):.1f},{y(max(c)):.1f}" for d, c in zip(days, columns, strict=True)]
            band += [
                f"{x(d):.1f},{y(min(c)):.1f}" for d, c in reversed(list(zip(days, columns, strict=True)))
            ]
            parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity="0.15"/>')
        means = [sum(c) / len(c) for c in columns]
        points = " ".join(f"{x(d):.1f},{y(m):.1f}" for d, m in zip(days, means, strict=True))
        width = 3 if arm == ARMS[0] else 1.8
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        label = f'<tspan fill="{colour}">{escape(arm)}</tspan> {means[-1]:.0%}'
        ends.append((y(means[-1]), label))
    parts += _labels(ends)
    style = "font-family:system-ui,sans-serif;font-size:13px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{style}">'
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    return "\n".join([head, back, *parts, "</svg>", ""])


def _by_day(results: Results) -> list[list[float]]:
    """The approval in force at every quarter of a day, by seed."""
    found = []
    for each in results:
        steps = each.get("deployments") or [[0.0, "", each["start"]["value"], ""]]
        days = [STEP * i for i in range(round(DAYS / STEP) + 1)]
        found.append(
            [next(v for day, _, v, _ in reversed(steps) if day <= max(d, steps[0][0])) for d in days]
        )
    return found


def _text(x: float, y: float, words: str, **more: object) -> str:
    given = {"fill": GREY, **more}
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in given.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{words}</text>'


def _frame(x: Callable[[float], float], y: Callable[[float], float], scale: float) -> list[str]:
    title = "A month in minutes: the share of people who like what is deployed, on held-out prompts"
    parts = [_text(LEFT, 20, title, font_size=16, fill="#0f172a")]
    for tenth in range(0, round(10 * scale) + 1, 2):
        at = y(tenth / 10)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{x(DAYS):.0f}" stroke="#e2e8f0"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{10 * tenth} %", text_anchor="end"))
    weeks = range(DAYS // 7)
    return parts + [
        _text(x(7 * week + 3.5), HEIGHT - 14, f"week {week + 1}", text_anchor="middle") for week in weeks
    ]


def _events(x: Callable[[float], float]) -> list[str]:
    """The four things that happen: a band or a line each, with its name above."""
    bottom, parts = HEIGHT - BOTTOM, []
    for (first, last), fill in ((CALENDAR.poisoner, "#fee2e2"), (CALENDAR.outage, "#cbd5e1")):
        path = f"M{x(first):.1f} {TOP}H{x(last):.1f}V{bottom}H{x(first):.1f}Z"
        parts.append(f'<path d="{path}" fill="{fill}" opacity="0.6"/>')
    for day in (CALENDAR.drift, CALENDAR.broken_candidate):
        path = f"M{x(day):.1f} {TOP}V{bottom}"
        parts.append(f'<path d="{path}" stroke="{PALE}" stroke-dasharray="4 3"/>')
    names = (
        (CALENDAR.drift, 0, "start", "tastes and topics drift"),
        (CALENDAR.poisoner[0], 0, "start", f"a poisoner: {POISONER_VOTES:.0%} of the votes"),
        (CALENDAR.broken_candidate, 13, "middle", "broken weights"),
        (CALENDAR.outage[0], 0, "start", "outage"),
    )
    return parts + [
        _text(x(day), TOP - 6 - up, name, text_anchor=anchor, font_size=11) for day, up, anchor, name in names
    ]


def _labels(ends: list[tuple[float, str]]) -> list[str]:
    """The lines' names at their ends, moved apart."""
    parts, before = [], -math.inf
    for at, label in sorted(ends):
        before = max(at, before + 16)
        parts.append(_text(WIDTH - RIGHT + 8, before + 4, label, fill="#0f172a"))
    return parts
