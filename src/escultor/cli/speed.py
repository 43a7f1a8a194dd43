"""`speed`: how fast models answer beside one another, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.lookup import WhichSuite, checked_model, find_suite
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.errors import InputError
from escultor.ids import plain

if TYPE_CHECKING:
    from escultor.evaluate.speed import LatencyBenchmark

_TIMES = (("First token", "ttft"), ("Whole answer", "latency"), ("Each token after", "per_token"))


def speed(
    shell: Shell,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="One, or several to compare.")],
    suite: WhichSuite = "trinity",
    requests: Annotated[
        int | None, typer.Option("--requests", min=1, help="Of each model; default: the config's, else 40.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write it as JSON, for `compare --speed FILE`.")
    ] = None,
) -> CommandResult:
    """Time models on the same requests, in turns (A B, B A), on this machine: latency, throughput, price."""
    from escultor.cli.progress import LiveProgress
    from escultor.cycle import evaluation_service
    from escultor.store.blobs import tree_hash

    folders = [checked_model(shell, name) for name in models]
    if len(set(map(tree_hash, folders))) < len(models):
        raise InputError("each model is timed once", "one of them twice", "different models")
    timed = find_suite(shell, suite)
    config = shell.config
    if requests is not None:
        evaluation = config.evaluation.model_copy(update={"speed_requests": requests})
        config = config.model_copy(update={"evaluation": evaluation})
    with LiveProgress() as live:
        live.phase(f"timing {', '.join(models)} on the prompts of {timed.record.name}")
        benchmark = evaluation_service.benchmark_latency(folders, timed, config, live.note)
    if out is not None:
        write_text(out, benchmark.to_json())
    named = dict(zip(models, benchmark.speeds, strict=True))
    figures = {name: benchmark.speeds[id].figures(benchmark.hourly_price_usd) for name, id in named.items()}
    show_speeds(shell, figures)
    ratios = _ratios(shell, benchmark, list(named.items()))
    told = {name: {"checkpoint": named[name], **found} for name, found in figures.items()}
    return CommandResult({"suite": benchmark.suite, "models": told, "times": ratios, "out": out})


def show_speeds(shell: Shell, by_model: Mapping[str, Mapping[str, float]]) -> None:
    """Latencies with their intervals, then throughput and what it costs at the price of an hour."""
    from escultor.evaluate.report.parts import count, dollars
    from escultor.evaluate.speed import doubt_about_p99

    rows = [
        (f"{model}: {name.lower()}" if model else name, *(_latency(f, f"{key}_p{q}_ms") for q in (50, 99)))
        for name, key in _TIMES
        for model, f in by_model.items()
    ]
    shell.table(["Latency, ms", "p50 [95 %]", "p99 [95 %]"], rows)
    for model, f in by_model.items():
        shell.say(
            f"{f'{model}: ' if model else ''}{count(f['parameters'])} parameters, {f['tokens_per_s']:,.0f} "
            f"tokens/s in batches{_size(f)}. At {dollars(f['hourly_price_usd'])} an hour "
            f"(serve.hourly_price_usd) that is {dollars(f['cost_usd_per_1k_tokens'])} per 1k tokens and "
            f"{dollars(f['cost_usd_per_request'])} per request."
        )
    requests = [f["speed_requests"] for f in by_model.values() if "latency_p99_ms" in f]
    if requests and (doubt := doubt_about_p99(min(requests))):
        shell.say(doubt, "dim")


def _size(figures: Mapping[str, float]) -> str:
    size = figures.get("speed_batch_size")
    return "" if size is None else f" of {size:.0f}"


def _latency(figures: Mapping[str, float], key: str) -> str:
    low, high = (f"{b:.1f}" if (b := figures.get(f"{key}_{side}")) else "?" for side in ("low", "high"))
    return f"{figures[key]:.1f} [{low}, {high}]" if key in figures else "–"


def _ratios(shell: Shell, benchmark: LatencyBenchmark, named: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Every model beside the one named before it."""
    from escultor.evaluate.speed import time_ratio

    found = []
    for (one, first), (other, second) in pairwise(named):
        a, b = benchmark.speeds[first], benchmark.speeds[second]
        ratio = time_ratio(a, b, benchmark.prompts)
        low, high = ("?" if bound is None else f"{bound:.3g}" for bound in (ratio.low, ratio.high))
        shell.say(
            f"{other} takes {ratio.value:.3g} times as long for an answer as {one}, 95 % interval "
            f"[{low}, {high}]; in batches it makes {b.tokens_per_s / a.tokens_per_s:.3g} times the tokens/s.",
            "bold",
        )
        found.append({"of": other, "over": one, **plain(ratio._asdict())})
    return found
