"""`speed`: latency, throughput and cost of models, measured with interleaved requests."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from escultor.cli.lookup import SuiteOption, checked_model, find_suite
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.cli.progress import LiveProgress
from escultor.cycle import evaluation_service
from escultor.errors import InputError
from escultor.evaluate.report.parts import count, dollars
from escultor.ids import plain
from escultor.store.blobs import tree_hash

if TYPE_CHECKING:
    from escultor.evaluate.speed import LatencyBenchmark

_TIMES = (("First token", "ttft"), ("Whole answer", "latency"), ("Each token after", "per_token"))


def speed(
    shell: Shell,
    models: Annotated[list[str], Argument(metavar="MODEL...", help="One, or several to compare.")],
    suite: SuiteOption = None,
    requests: Annotated[int | None, Option(min=1, help="Per model; default: the config, else 40.")] = None,
    out: Annotated[Path | None, Option(help="Write the times as JSON, for `compare --speed FILE`.")] = None,
) -> CommandResult:
    """Time models on the same requests, interleaved (A B, B A): latency, throughput, cost."""
    folders = [checked_model(shell, name) for name in models]
    if len(set(map(tree_hash, folders))) < len(models):
        raise InputError("each model is timed once", "one of them twice", "different models")
    prompts = find_suite(shell, suite)
    config = shell.config
    if requests is not None:
        evaluation = config.evaluation.model_copy(update={"speed_requests": requests})
        config = config.model_copy(update={"evaluation": evaluation})
    with LiveProgress() as live:
        live.phase(f"timing {', '.join(models)} on the prompts of {prompts.record.name}")
        benchmark = evaluation_service.benchmark_latency(folders, prompts, config, live.note)
    if out is not None:
        write_text(out, benchmark.to_json())
    ids = dict(zip(models, benchmark.speeds, strict=True))
    figures = {name: benchmark.speeds[id].figures(benchmark.hourly_price_usd) for name, id in ids.items()}
    show_speeds(shell, figures)
    times = _compare_times(shell, benchmark, ids)
    by_model = {name: {"checkpoint": ids[name], **values} for name, values in figures.items()}
    return CommandResult({"suite": benchmark.suite, "models": by_model, "times": times, "out": out})


def show_speeds(shell: Shell, by_model: Mapping[str, Mapping[str, float]]) -> None:
    """Print latencies with their intervals, then throughput and the cost at the price of an hour. A single
    model may have the empty name."""
    from escultor.evaluate.speed import doubt_about_p99

    rows = [
        (f"{model}: {name.lower()}" if model else name, *(_latency(f, f"{key}_p{q}_ms") for q in (50, 99)))
        for name, key in _TIMES
        for model, f in by_model.items()
    ]
    shell.table(["Latency, ms", "p50 [95 %]", "p99 [95 %]"], rows)
    for model, f in by_model.items():
        size = f" of {f['speed_batch_size']:.0f}" if f.get("speed_batch_size") is not None else ""
        shell.print(
            f"{f'{model}: ' if model else ''}{count(f['parameters'])} parameters, {f['tokens_per_s']:,.0f} "
            f"tokens/s in batches{size}. At {dollars(f['hourly_price_usd'])} an hour "
            f"(serve.hourly_price_usd) that is {dollars(f['cost_usd_per_1k_tokens'])} per 1k tokens and "
            f"{dollars(f['cost_usd_per_request'])} per request."
        )
    requests = [f["speed_requests"] for f in by_model.values() if "latency_p99_ms" in f]
    if requests and (doubt := doubt_about_p99(min(requests))):
        shell.print(doubt, "dim")


def _latency(figures: Mapping[str, float], key: str) -> str | None:
    if key not in figures:
        return None
    low, high = (f"{b:.1f}" if (b := figures.get(f"{key}_{side}")) else "?" for side in ("low", "high"))
    return f"{figures[key]:.1f} [{low}, {high}]"


def _compare_times(shell: Shell, benchmark: LatencyBenchmark, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """The time ratio of every model to the one before it, printed and as data."""
    from escultor.evaluate.speed import time_ratio

    ratios = []
    for before, after in pairwise(ids):
        a, b = benchmark.speeds[ids[before]], benchmark.speeds[ids[after]]
        ratio = time_ratio(a, b, benchmark.prompts)
        low, high = ("?" if bound is None else f"{bound:.3g}" for bound in (ratio.low, ratio.high))
        shell.print(
            f"{after} takes {ratio.value:.3g} times as long for an answer as {before}, 95 % interval "
            f"[{low}, {high}]; in batches it makes {b.tokens_per_s / a.tokens_per_s:.3g} times the tokens/s.",
            "bold",
        )
        ratios.append({"of": after, "over": before, **plain(ratio._asdict())})
    return ratios
