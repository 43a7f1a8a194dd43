"""`compare`, `canary`: what the gate says of a candidate, and how it fares among people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from escultor.cli.evaluate import means, recorded_scores
from escultor.cli.lookup import WhichSuite, checked_model, existing_store, find_suite, need_file
from escultor.cli.output import NOT_PROMOTED, CommandResult, Shell
from escultor.errors import DataError, InputError

if TYPE_CHECKING:
    from escultor.config import Gate
    from escultor.evaluate.speed import LatencyBenchmark
    from escultor.skills.suites import EvaluationSuite
    from escultor.store import Store
    from escultor.types import Scores, Verdict

ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Model or run folder, checkpoint id, alias, escultor-base, or a file of scores."),
]


def compare(
    shell: Shell,
    champion: ModelArgument = None,
    candidate: ModelArgument = None,
    suite: WhichSuite = "trinity",
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="YAML file with the keys of `gate`; default: the config's."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="JSON of the candidate's dataset card, for its limits.")
    ] = None,
    signed_by: Annotated[str | None, typer.Option("--signed-by", help="Who signs the promotion off.")] = None,
    void: Annotated[
        Path | None, typer.Option("--void", help="Items erased or leaked: a line each, `ID reason`.")
    ] = None,
    speed: Annotated[
        Path | None, typer.Option("--speed", help="What `speed --out` wrote of both: the page takes it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for file and page; default: in the store.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", help="Decide again from the inputs of a verdict's file.")
    ] = None,
) -> CommandResult:
    """Ask the gate whether a candidate is better than a champion; leaves with 3 unless it is."""
    if replay is not None:
        return _replayed(shell, replay, out)
    if champion is None or candidate is None:
        raise InputError("two sides are compared", "one or none", "CHAMPION CANDIDATE, or --replay FILE")
    from escultor.cycle import gate_service
    from escultor.store import open_store

    benchmark, rules, figures, gone = _benchmark(speed), _policy(shell, policy), _card(card), _void(void)
    sides = [_file(name) or checked_model(shell, name) for name in (champion, candidate)]
    measured = _checked_suite(shell, suite, rules) if any(isinstance(side, Path) for side in sides) else None
    with open_store(shell.config.store.url) as store:
        before, after = (_scores(shell, store, side, measured, benchmark) for side in sides)
        with gate_service.exclusive(store):
            context = gate_service.context_of(
                store, before, after, rules, card=figures, signed_by=signed_by, void=gone
            )
            record = gate_service.decide_from_store(
                store, before, after, rules, context=context, names=(champion, candidate), suite=measured
            )
            store.log.append(record.verdict)
            where = gate_service.write_record(store, record, out)
    _figures(shell, [(champion, before), (candidate, after)])
    shell.say(f"written: {where}/verdict.html, verdict.md, verdict.json")
    return judged(shell, record.verdict)


def judged(shell: Shell, verdict: Verdict) -> CommandResult:
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
    return CommandResult(data, 0 if isinstance(verdict, Promote) else NOT_PROMOTED)


def canary(
    shell: Shell,
    order: Annotated[
        str, typer.Argument(metavar="start|watch|stop", help="Begin a trial, analyse it, or end it.")
    ],
    candidate: Annotated[str | None, typer.Argument(help="start: checkpoint id, alias or folder.")] = None,
    every: Annotated[
        float | None, typer.Option("--every", help="watch: seconds between analyses, until the trial ends.")
    ] = None,
) -> CommandResult:
    """Try a candidate among people: shadow, then a growing share, rolled back when harm is shown."""
    if order not in ("start", "watch", "stop"):
        raise InputError("there is no such order", order, "start, watch, stop")
    if (order == "start") != (candidate is not None):
        raise InputError(f"canary {order} takes {'a' if order == 'start' else 'no'} candidate", candidate)
    with existing_store(shell.config.store.url, "there is no champion to try a candidate against") as store:
        if order == "watch":
            return _watched(shell, store, every)
        return _ordered(shell, store, candidate)


def _ordered(shell: Shell, store: Store, candidate: str | None) -> CommandResult:
    """Begin or end a trial on a person's order."""
    from escultor.cycle import canary_service
    from escultor.cycle.checkpoints import keep_model
    from escultor.store import registry

    history = registry.read_deployments(store.log)
    if candidate is None:
        steps = canary_service.trial_stages(history)
        if not steps:
            raise InputError("no canary trial is in progress", remedy="there is nothing to stop")
        champion = steps[-1].aliases[registry.CHAMPION]
        deployment = registry.deployment_for("canary: stopped by a person", champion, steps[-1])
    else:
        checkpoint = keep_model(store, checked_model(shell, candidate))
        policy = shell.config.canary
        share = 0.0 if policy.shadow_requests else policy.shares[0]
        if share == 1.0:
            raise InputError(
                "a trial must not start with all subjects", policy.shares, "a first share below 1"
            )
        deployment = registry.trial(
            "canary: begun by a person", checkpoint.id, share, registry.current(history)
        )
    store.log.append(deployment)
    shell.say(f"{deployment.because}; shares {deployment.shares}", "bold")
    return CommandResult(
        {
            "deployment": deployment.id,
            "because": deployment.because,
            "shares": deployment.shares,
            **deployment.aliases,
        }
    )


def _watched(shell: Shell, store: Store, every: float | None) -> CommandResult:
    """Look once, or until the trial has ended."""
    import time

    from escultor.cycle.canary_service import CanaryService
    from escultor.evaluate.gate.canary import figure

    service = CanaryService(store, shell.config.canary)
    while True:
        move = service.analyse()
        shell.say(f"{move.kind}: {move.reason}", "bold")
        for name, harm in move.guards.items():
            shell.say(f"  {figure(name, harm)}")
        if every is None or move.kind in ("rollback", "complete"):
            break
        time.sleep(every)
    bounds = {
        name: {"difference": h.difference, "low": h.low, "high": h.high} for name, h in move.guards.items()
    }
    data = {"move": move.kind, "share": move.share, "reason": move.reason, "guards": bounds}
    return CommandResult(data, NOT_PROMOTED if move.kind == "rollback" else 0)


# --- what is given -----------------------------------------------------------------------------


def _replayed(shell: Shell, file: Path, out: Path | None) -> CommandResult:
    """Decide again and say whether the file is the same, byte for byte."""
    from escultor.cycle import gate_service

    text = need_file(file).read_bytes().decode("utf-8", errors="replace")
    with existing_store(shell.config.store.url, "the inputs of a verdict lie in its store") as store:
        record, differ = gate_service.replay(store, text)
    if out is not None:
        gate_service.write_pages(out, record)
    if differ:
        raise DataError(
            f"{file} is not what its inputs give",
            "; ".join(differ[2:8]),
            "the same bytes",
            "it was changed, or made by another version of escultor",
        )
    shell.say(f"{file}: the same, byte for byte", "bold")
    return CommandResult({"file": str(file), "identical": True})


def _checked_suite(shell: Shell, name: str, policy: Gate) -> EvaluationSuite:
    """The suite, with what the policy needs of it said before anything is measured."""
    from escultor.cycle import gate_service

    suite = find_suite(shell, name)
    shell.say(gate_service.needs_of(policy, suite.record))
    if shortfall := gate_service.check_policy(policy, suite.record):
        shell.say(shortfall, "bold")
    return suite


def _policy(shell: Shell, file: Path | None) -> Gate:
    from escultor.config import load_policy

    return shell.config.gate if file is None else load_policy(need_file(file))


def _card(file: Path | None) -> dict[str, float] | None:
    """The figures of a dataset card."""
    if file is None:
        return None
    from escultor.cycle import gate_service

    try:
        data = json.loads(need_file(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON", str(error)) from error
    if not isinstance(data, dict):
        raise DataError(f"{file} is not a dataset card", type(data).__name__, "a JSON object")
    return gate_service.card_figures(data)


def _benchmark(file: Path | None) -> LatencyBenchmark | None:
    from escultor.evaluate.speed import read_benchmark

    return (
        None
        if file is None
        else read_benchmark(need_file(file).read_text(encoding="utf-8", errors="replace"))
    )


def _void(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    lines = [line.split(maxsplit=1) for line in need_file(file).read_text(encoding="utf-8").splitlines()]
    return {line[0]: line[1] if len(line) > 1 else "no reason given" for line in lines if line}


def _file(name: str) -> Scores | None:
    """The scores in a file, where the name is that of one."""
    from pydantic import TypeAdapter, ValidationError

    from escultor.types import Scores

    path = Path(name)
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        return TypeAdapter(Scores).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        remedy = "write them: escultor evaluate MODEL --out FILE"
        raise DataError(f"{path} holds no scores", str(error).splitlines()[0], remedy=remedy) from error


def _scores(
    shell: Shell,
    store: Store,
    side: Scores | Path,
    suite: EvaluationSuite | None,
    speed: LatencyBenchmark | None,
) -> Scores:
    """The scores of one side, with its speed from a benchmark where one is given."""
    from escultor.cycle.evaluation_service import with_benchmarked_speed

    if isinstance(side, Path):
        assert suite is not None
        side = recorded_scores(shell, store, side, suite)
    return side if speed is None else with_benchmarked_speed(store, side, speed)


def _effect(e: Any) -> Sequence[str]:
    interval = f"[{e.low:+.4f}, {e.high:+.4f}]"
    margin = f"{e.margin:g}" if e.role == "guard" else ""
    p = "" if e.role == "info" else f"{e.p_value:.2g}"
    figures = (f"{e.champion:.4f}", f"{e.candidate:.4f}", f"{e.difference:+.4f}")
    return (e.metric, e.role, *figures, interval, p, margin, f"{e.n:,}")


def _figures(shell: Shell, scored: Sequence[tuple[str, Scores]]) -> None:
    """Versions side by side, figures from top to bottom."""
    from escultor.evaluate.report.parts import VersionRow, text_table

    rows = []
    for name, scores in scored:
        figures = {k: v for k, v in means(scores).items() if not k.endswith(("_low", "_high"))}
        parameters = figures.pop("parameters", None)
        rows.append(VersionRow(name, None if parameters is None else round(parameters), figures))
    heads, *lines = text_table(rows, transposed=True)
    shell.table(heads, [line for line in lines if set(line[1:]) != {"–"}])
