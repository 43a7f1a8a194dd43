"""`compare`: the gate's verdict on a candidate."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from escultor.cli import lookup
from escultor.cli.evaluate import mean_figures, recorded_scores
from escultor.cli.output import NOT_PROMOTED, CommandResult, Shell
from escultor.config import Gate, load_policy
from escultor.cycle.approval import KEY_ENV, approver
from escultor.cycle.evaluation_service import policy_of, policy_on_scores, with_benchmarked_speed
from escultor.errors import DataError, InputError
from escultor.evaluate.report.parts import MISSING, VersionRow, text_table
from escultor.evaluate.scores import check_seal, read_scores
from escultor.skills.suites import EvaluationSuite
from escultor.types import Effect, Hold, Promote, Scores, Verdict

if TYPE_CHECKING:
    from escultor.evaluate.speed import LatencyBenchmark

SideArgument = Annotated[
    str | None,
    Argument(help="Model or run folder, checkpoint id, alias, escultor-base, GGUF file, or file of scores."),
]


@dataclass(frozen=True)
class GateOptions:
    """The options with what the gate decides by, besides the scores."""

    policy: Annotated[Path | None, Option(help="YAML file with keys of `gate`; default: the config.")] = None
    card: Annotated[Path | None, Option(help="JSON of the candidate's dataset card, for its limits.")] = None
    signed_by: Annotated[str | None, Option(help=f"Who signs off; their key is in {KEY_ENV}.")] = None
    void: Annotated[Path | None, Option(help="File of void items, `ID reason` in each line.")] = None
    speed: Annotated[Path | None, Option(help="File from `speed --out`, to show on the page.")] = None

    def read_policy(self, shell: Shell) -> Gate:
        return shell.config.gate if self.policy is None else load_policy(lookup.require_file(self.policy))

    def read_card(self) -> dict[str, float] | None:
        """The figures of the dataset card."""
        from escultor.cycle.gate_service import card_figures

        if self.card is None:
            return None
        try:
            card = json.loads(lookup.require_file(self.card).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{self.card} is not JSON", str(error)) from error
        if not isinstance(card, dict):
            raise DataError(f"{self.card} is not a dataset card", type(card).__name__, "a JSON object")
        return card_figures(card)

    def read_void(self) -> dict[str, str]:
        """The reason for each void item by its id."""
        text = "" if self.void is None else lookup.require_file(self.void).read_text(encoding="utf-8")
        items = (line.split(maxsplit=1) for line in text.splitlines())
        return {item[0]: item[1] if len(item) > 1 else "no reason given" for item in items if item}

    def read_speed(self) -> LatencyBenchmark | None:
        from escultor.evaluate.speed import read_benchmark

        if self.speed is None:
            return None
        return read_benchmark(lookup.require_file(self.speed).read_text(encoding="utf-8", errors="replace"))


def compare(
    shell: Shell,
    options: GateOptions,
    champion: SideArgument = None,
    candidate: SideArgument = None,
    suite: lookup.SuiteOption = None,
    out: Annotated[Path | None, Option(help="Folder for record and page; default: in the store.")] = None,
    replay: Annotated[Path | None, Option(help="Decide again from the inputs in a verdict's file.")] = None,
) -> CommandResult:
    """Ask the gate whether a candidate is better than a champion; exit code 3 unless it is."""
    from escultor.cycle import gate_service

    if replay is not None:
        return _replay(shell, replay, out)
    if champion is None or candidate is None:
        raise InputError("two sides are compared", "one or none", "CHAMPION CANDIDATE, or --replay FILE")
    speed, policy = options.read_speed(), options.read_policy(shell)
    card, void = options.read_card(), options.read_void()
    files = {name: read for name in (champion, candidate) if (read := _read_scores(name))}
    sides = [
        files.get(name, (None,))[0] or lookup.find_gguf(name) or lookup.checked_model(shell, name)
        for name in (champion, candidate)
    ]
    folders = [side for side in sides if isinstance(side, Path)]
    served = any(side.is_file() for side in folders)
    measured = _checked_suite(shell, suite, policy, served) if folders else None
    with lookup.open_or_create_store(shell) as store:
        signed_by = options.signed_by and approver(store, os.environ.get(KEY_ENV), options.signed_by)

        def scores_of(side: Scores | Path) -> Scores:
            if isinstance(side, Path):
                assert measured is not None
                side = recorded_scores(shell, store, side, measured)
            return side if speed is None else with_benchmarked_speed(store, side, speed)

        for name, (scores, is_sealed) in files.items():
            if not is_sealed:
                check_seal(Path(name), scores, store.log.get(Scores, scores.id))
        before, after = map(scores_of, sides)
        if measured is not None:
            policy = policy_of(measured.record, shell.config, policy)
        else:
            policy = policy_on_scores(store, before, shell.config, policy)
        with gate_service.exclusive(store):
            context = gate_service.context_of(
                store, before, after, policy, card=card, signed_by=signed_by, void=void
            )
            record = gate_service.decide_from_store(
                store, before, after, policy, context=context, names=(champion, candidate), suite=measured
            )
            store.log.append(record.verdict)
            folder = gate_service.write_record(store, record, out)
    _show_figures(shell, [(champion, before), (candidate, after)])
    shell.print(f"written: {folder}/verdict.html, verdict.md, verdict.json")
    return show_verdict(shell, record.verdict)


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


def _replay(shell: Shell, file: Path, out: Path | None) -> CommandResult:
    """Decide again, and report whether the file is the same, byte for byte."""
    from escultor.cycle import gate_service

    text = lookup.require_file(file).read_bytes().decode("utf-8", errors="replace")
    with lookup.existing_store(shell, "the inputs of a verdict are in its store") as store:
        record, difference = gate_service.replay(store, text)
    if out is not None:
        gate_service.write_pages(out, record)
    if difference:
        what, remedy = (
            f"{file} is not what its inputs give",
            "it was changed, or is of another version",
        )
        raise DataError(what, "; ".join(difference[2:8]), "the same bytes", remedy)
    shell.print(f"{file}: the same, byte for byte", "bold")
    return CommandResult({"file": str(file), "identical": True})


def _checked_suite(shell: Shell, name: str | None, policy: Gate, served: bool) -> EvaluationSuite:
    """The suite, with its metrics of answers alone where a side is `served`; what the policy needs of it is
    printed before anything is measured."""
    from escultor.cycle import gate_service
    from escultor.cycle.evaluation_service import of_answers

    found = lookup.find_suite(shell, name)
    if served and (left := of_answers(found)) is not found:
        shell.print(f"measured by answers alone, as a GGUF file is: {', '.join(left.record.metrics)}")
        found = left
    policy = policy_of(found.record, shell.config, policy)
    shell.print(gate_service.needs_of(policy, found.record))
    if shortfall := gate_service.check_policy(policy, found.record):
        shell.print(shortfall, "bold")
    return found


def _read_scores(name: str) -> tuple[Scores, bool] | None:
    """The scores in a file of this name, and whether they are those of their id; None where there is no such
    JSON file."""
    path = Path(name)
    return read_scores(path) if path.suffix == ".json" and path.is_file() else None


def _effect_row(e: Effect) -> tuple[object, ...]:
    interval = f"[{e.low:+.4f}, {e.high:+.4f}]"
    margin = f"{e.margin:g}" if e.role == "guard" else ""
    p = "" if e.role == "info" else f"{e.p_value:.2g}"
    figures = (f"{e.champion:.4f}", f"{e.candidate:.4f}", f"{e.difference:+.4f}")
    return (e.metric, e.role, *figures, interval, p, margin, e.n)


def _show_figures(shell: Shell, versions: Sequence[tuple[str, Scores]]) -> None:
    """Print the versions side by side, one figure a row."""
    rows = []
    for name, scores in versions:
        figures = {k: v for k, v in mean_figures(scores).items() if not k.endswith(("_low", "_high"))}
        parameters = figures.pop("parameters", None)
        rows.append(VersionRow(name, None if parameters is None else round(parameters), figures))
    heads, *lines = text_table(rows, transposed=True)
    shell.table(heads, [line for line in lines if set(line[1:]) != {MISSING}])
