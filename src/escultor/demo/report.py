"""The demo's figures, once: for the table, the page and the JSON line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from escultor import stats
from escultor.cycle.steps import answers_of
from escultor.demo.run import STUDENT, DemoResult, DemoVersion
from escultor.demo.suite import lead_baseline
from escultor.demo.users import TASTE
from escultor.errors import DataError
from escultor.evaluate.report.parts import (
    BeforeAfter,
    Curve,
    CycleTurn,
    LoopGain,
    LoopStep,
    Report,
    ReportSample,
    SampleAnswer,
    VersionRow,
    share,
)
from escultor.ids import plain
from escultor.skills.trinity import document_in, parse_trinity, score_trinity
from escultor.store import registry
from escultor.types import Hold, Promote, Scores, Step, Verdict

PER_ITEM = ("brief", "valid", "field_accuracy", "entity", "rouge_l", "bits_per_byte")
SAMPLES, SHOWN = 5, 3


def win_rate(scores: Scores, predecessor: Scores | None) -> stats.WinRate | None:
    """How often people like an item's answer better than the predecessor's, ties apart, with its 95 %
    interval."""
    if predecessor is None:
        return None
    outcomes = _differences(scores, predecessor)
    return stats.win_rate(outcomes, scores.clusters) if any(outcomes) else None


def figures(version: DemoVersion) -> dict[str, float | None]:
    """The columns of the table for one version; what was not measured is None."""
    scores = version.scores
    columns: dict[str, float | None] = {
        name: sum(scores.metrics[name]) / len(scores.items) for name in (*PER_ITEM, "quality")
    }
    won = win_rate(scores, version.predecessor)
    columns |= {
        "win_rate": won.value if won else None,
        "win_rate_low": won.low if won else None,
        "win_rate_high": won.high if won else None,
    }
    for name in ("latency_p50_ms", "latency_p99_ms", "tokens_per_s", "cost_usd_per_1k_tokens"):
        columns[name] = scores.summary.get(name)
    return columns


def rows(result: DemoResult) -> tuple[VersionRow, ...]:
    """One row per version."""
    champion = registry.champion(registry.read_deployments(result.cycle.store.log))
    table = []
    for version in result.versions:
        because = version.verdict.because if version.verdict else None
        shown = {k: v for k, v in figures(version).items() if k != "quality"}
        table.append(
            VersionRow(
                version.name,
                int(version.scores.summary["parameters"]),
                shown,
                verdict=_verdict_text(version),
                reason=_reason(version),
                deployed=version.checkpoint == champion,
                effects=tuple(e for e in because.effects if e.role != "info") if because else (),
            )
        )
    return tuple(table)


def _verdict_text(version: DemoVersion) -> str:
    """The verdict as the table shows it: a student's is about what a student promises."""
    if version.trade_off is not None:
        is_met = all(check.outcome == "met" for check in version.trade_off.checks)
        return "Trade-off met" if is_met else "Trade-off missed"
    return type(version.verdict).__name__ if version.verdict else ""


def _reason(version: DemoVersion) -> str:
    if version.verdict is None:
        return "the first model: nothing to compare it with"
    trade, because = version.trade_off, version.verdict.because.reason
    return because if trade is None else f"{trade.recommendation} As a champion: {because}"


def as_json(result: DemoResult) -> dict[str, Any]:
    """All figures as one JSON object."""
    versions = []
    for version, row in zip(result.versions, rows(result), strict=True):
        verdict = version.verdict
        versions.append(
            {
                "name": row.name,
                "checkpoint": version.checkpoint,
                "parameters": row.parameters,
                **figures(version),
                "training": {
                    k: version.training[k]
                    for k in ("steps", "tokens", "loss", "rows")
                    if k in version.training
                },
                "verdict": type(verdict).__name__ if verdict else None,
                "is_control": version.is_control,
                "trade_off": plain(version.trade_off) if version.trade_off else None,
                "reason": row.reason,
                "n_needed": verdict.n_needed if isinstance(verdict, Hold) else None,
                "deployed": row.deployed,
            }
        )
    suite = result.cycle.suite
    return {
        "suite": {
            "hash": suite.id,
            "items": len(suite.items),
            "rouge_l_lead_sentence": lead_baseline(suite),
        },
        "corpus": result.corpus.counts | {"entries": len(result.corpus.entries)},
        "versions": versions,
        "student_share_of_quality": _student_share(result.versions),
        "feedback": result.feedback | {"raters": "simulated"},
        "alert": {"state": result.alert.state, "message": result.alert.message},
        "plan": result.plan.reason if result.plan else None,
        "steps": [
            {"name": step.name, "seconds": step.seconds, "reused": reused}
            for step, reused in result.cycle.workflow.steps
        ],
        "champion": registry.champion(registry.read_deployments(result.cycle.store.log)),
        "store": str(result.cycle.store.root),
    }


def _student_share(versions: Sequence[DemoVersion]) -> dict[str, float] | None:
    """What the student keeps of its teacher's quality, and how much faster and smaller it is."""
    student = next((v for v in versions if v.name == STUDENT), None)
    if student is None or student.predecessor is None:
        return None
    ours, theirs = student.scores, student.predecessor
    teacher = sum(theirs.metrics["quality"])
    quality = sum(ours.metrics["quality"]) / teacher if teacher else 0.0
    liked = sum(ours.metrics["brief"]) / max(sum(theirs.metrics["brief"]), 1.0)
    share = {name: ours.summary[name] / theirs.summary[name] for name in ("tokens_per_s", "parameters")}
    return {
        "liked_kept": liked,
        "quality_kept": quality,
        "speed_ratio": share["tokens_per_s"],
        "latency_ratio": theirs.summary["latency_p50_ms"] / ours.summary["latency_p50_ms"],
        "size_ratio": share["parameters"],
    }


def as_report(result: DemoResult, folder: Path) -> Report:
    """The report page, to be written into `folder`: curves, table, verdicts with links to their pages, and
    five documents with every version's answer side by side."""
    return Report(
        "Escultor: three cycles",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by escultor demo",
        tuple(
            replace(row, page=_page(result, version.verdict, folder))
            for row, version in zip(rows(result), result.versions, strict=True)
        ),
        curves=_curves(result),
        samples=_samples(result),
        notes=_notes(result),
        loop=_loop(result),
        gain=_gain(result),
    )


def _gain(result: DemoResult) -> LoopGain | None:
    """What use has taught the champion: how many of its answers people like, before and after. None where
    nothing that learnt from use was promoted."""
    turns = [v for v in result.versions[1:] if not v.is_control and v.name != STUDENT]
    kept = [v for v in turns if isinstance(v.verdict, Promote)]
    if len(kept) < 2:
        return None
    first, last = kept[0], kept[-1]
    differences = _differences(last.scores, first.scores)
    low, high = stats.bootstrap_mean(differences, last.scores.clusters, 0.025, 0, floor=-1.0, ceiling=1.0)[
        1:3
    ]
    control = next((v for v in result.versions if v.is_control), None)
    shuffled = f" Taught by the same thumbs, shuffled: {_liked(control)}." if control else ""
    taste = TASTE.replace("They", "Simulated people", 1)
    return LoopGain(
        measure=f"{taste}, which no data of the first cycle teach.{shuffled}",
        before=_liked(first),
        after=_liked(last),
        change=f"{100 * _mean(differences):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]",
        names=(first.name, last.name),
        turns=tuple(_turn(version) for version in turns),
        answers=_before_after(result, first.name, last.name),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _differences(scores: Scores, predecessor: Scores) -> list[float]:
    pairs = zip(scores.metrics["brief"], predecessor.metrics["brief"], strict=True)
    return [new - old for new, old in pairs]


def _liked(version: DemoVersion) -> str:
    return share(_mean(version.scores.metrics["brief"]))


def _turn(version: DemoVersion) -> CycleTurn:
    before = version.predecessor
    points = 100 * _mean(_differences(version.scores, before)) if before else 0.0
    verdict = type(version.verdict).__name__.lower() if version.verdict else ""
    text = f"{version.training.get('rows', 0):,} rows, {verdict}"
    return CycleTurn(version.name, f"{points:+.1f} points", text, isinstance(version.verdict, Promote))


def _before_after(result: DemoResult, first: str, last: str) -> tuple[BeforeAfter, ...]:
    """The summaries of the first documents of the suite that both versions answer in the right form."""
    found: list[BeforeAfter] = []
    before, after = answers_of(result.cycle, first), answers_of(result.cycle, last)
    for item, old, new in zip(result.cycle.suite.items, before, after, strict=True):
        with suppress(DataError):
            found.append(
                BeforeAfter(
                    parse_trinity(item.references[0]).entity,
                    parse_trinity(old).summary,
                    parse_trinity(new).summary,
                )
            )
        if len(found) == SHOWN:
            break
    return tuple(found)


def _page(result: DemoResult, verdict: Verdict | None, folder: Path) -> str:
    """The relative path from a folder to a verdict's page; empty where there is none."""
    if verdict is None:
        return ""
    page = result.cycle.store.root / "verdicts" / verdict.because.id / "verdict.html"
    return Path(os.path.relpath(page.resolve(), folder.resolve())).as_posix() if page.is_file() else ""


def _notes(result: DemoResult) -> tuple[str, ...]:
    suite, counts, share = result.cycle.suite, result.feedback, _student_share(result.versions)
    packages = len({item.labels["package"] for item in suite.items})
    plan, alert = result.plan, result.alert
    cause = f"{plan.reason}. A cycle run was planned" if plan else f"{alert.message}. No plan followed"
    notes = [
        f"{len(suite.items)} held-out documents from {packages} packages that no version was trained on. "
        f"The lead sentence taken as the summary has ROUGE-L {lead_baseline(suite):.3f}.",
        f"People are simulated. {TASTE}, which the documents' authors do not write: no training data of the "
        "first cycle say so. They rate four answers in five, one in ten thumbs errs, one person in ten does "
        "not read, and a few mend an answer or write a remark. `Liked` is the share of held-out answers that "
        "they like. The control learnt from the same thumbs, shuffled. No person rated anything here.",
        f"Feedback of the second cycle: {counts['events']} simulated events, {counts['usable pairs']} usable "
        f"pairs. Alert ({alert.state}): {cause}.",
    ]
    if share:
        notes.append(
            f"The student keeps {share['liked_kept']:.0%} of what people liked of its teacher and "
            f"{share['quality_kept']:.0%} of its quality with "
            f"{share['size_ratio']:.0%} of its parameters, at {share['speed_ratio']:.1f} times its speed in "
            f"batches and {share['latency_ratio']:.1f} times for one request."
        )
    return tuple(notes)


def _loop(result: DemoResult) -> tuple[LoopStep, ...]:
    """The demo's stages in order; the steps of one stage are summed."""
    stages: dict[str, list[tuple[Step, bool]]] = {}
    named = {"import base": "base", "deploy base": "base", "pretrain": "base"}
    named |= {"answers of the champion": STUDENT}
    for step, reused in result.cycle.workflow.steps:
        plain = step.name.removeprefix("evaluate ").removeprefix("gate ")
        stages.setdefault(named.get(step.name, plain), []).append((step, reused))
    return tuple(_stage(name, steps) for name, steps in stages.items())


def _stage(name: str, steps: Sequence[tuple[Step, bool]]) -> LoopStep:
    outcomes = []
    for step, _ in steps:
        if "rows" in step.result:
            outcomes.append(f"{step.result['rows']} rows")
        if "feedback" in step.result:
            outcomes.append(f"{len(cast('list[str]', step.result['feedback']))} simulated thumbs")
        if "verdict" in step.result:
            outcomes.append(str(step.result["verdict"]).lower())
    seconds = sum(step.seconds for step, reused in steps if not reused)
    again = all(reused for _, reused in steps)
    return LoopStep(name, ", ".join(outcomes), None if again else seconds, again)


def _curves(result: DemoResult) -> tuple[Curve, ...]:
    curves = []
    for version in result.versions:
        if "metrics" not in version.training:
            continue
        text = result.cycle.store.blobs.get_bytes(str(version.training["metrics"])).decode()
        steps = [json.loads(line) for line in text.splitlines()]
        xs = tuple(float(row["step"]) for row in steps)
        curves.append(
            Curve(f"{version.name}: training loss", "nats", "step", xs, tuple(r["loss"] for r in steps))
        )
    return tuple(curves)


def _samples(result: DemoResult) -> tuple[ReportSample, ...]:
    items = result.cycle.suite.items
    step = max(1, len(items) // SAMPLES)
    answers_by_version = {v.name: answers_of(result.cycle, v.name) for v in result.versions}
    samples = []
    for at in range(0, step * min(SAMPLES, len(items)), step):
        gold = parse_trinity(items[at].references[0])
        answers = []
        for name, texts in answers_by_version.items():
            score = score_trinity(texts[at], gold)
            answers.append(SampleAnswer(name, texts[at], score["valid"] == 1.0, score["quality"]))
        samples.append(ReportSample(document_in(items[at].prompt), gold.to_json(), tuple(answers)))
    return tuple(samples)
