"""`compare`: the gate's verdict on a candidate."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from escultor.cli import lookup
from escultor.cli.output import CommandResult, Shell
from escultor.cli.run_comparison import RunOptions, compare_runs, read_runs
from escultor.cli.sides import ROLES, Side, SideOptions, find_sides, is_url
from escultor.cli.verdicts import show_verdict
from escultor.cli.verification import verify_verdict
from escultor.config import Config, Gate, load_policy
from escultor.cycle.approval import KEY_ENV, approver
from escultor.errors import DataError, InputError
from escultor.evaluate.gate import reproduction
from escultor.evaluate.report.verdict_files import inputs_beside, write_pages
from escultor.types import GateContext, Scores

if TYPE_CHECKING:
    from escultor.evaluate.score_files.pairing import PairedRuns
    from escultor.evaluate.speed import LatencyBenchmark
    from escultor.skills.suites import EvaluationSuite

SideArgument = Annotated[
    str | None,
    Argument(
        help="Model folder, checkpoint id, alias, escultor-base, GGUF file, URL#MODEL, or file of scores."
    ),
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
        if self.card is None:
            return None
        from escultor.cycle.gate_service import card_figures

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
        if self.speed is None:
            return None
        from escultor.evaluate.speed import read_benchmark

        return read_benchmark(lookup.require_file(self.speed).read_text(encoding="utf-8", errors="replace"))


def compare(
    shell: Shell,
    options: GateOptions,
    runs: RunOptions,
    models: SideOptions,
    champion: SideArgument = None,
    candidate: SideArgument = None,
    suite: lookup.SuiteOption = None,
    out: Annotated[Path | None, Option(help="Folder for record and page; default: in the store.")] = None,
    replay: Annotated[Path | None, Option(help="Decide again from the inputs in a verdict's file.")] = None,
    verify: Annotated[
        Path | None, Option(help="Verdict's file: refuse it unless it is about these sides and policy.")
    ] = None,
) -> CommandResult:
    """Ask the gate whether a candidate is better than a champion; exit code 3 unless it is.

    Both are models, also behind servers, files of `evaluate --out`, or runs of another evaluation tool:
    sample logs of lm-eval, logs of Inspect, results of promptfoo, runs of Langfuse or MLflow, a CSV of item,
    cluster, metric, value.
    """
    if replay is not None:
        return _replay(shell, replay, out)
    if champion is None or candidate is None:
        raise InputError("two sides are compared", "one or none", "CHAMPION CANDIDATE, or --replay FILE")
    policy, names = options.read_policy(shell), (champion, candidate)
    files = {name: read for name in names if (read := _read_scores(name))}
    is_model = files or any(models.instructions()) or any(map(is_url, names))
    if not is_model and (pair := read_runs(names, runs)) is not None:
        return _compare_outside(shell, options, runs, pair, policy, names=names, out=out, verify=verify)
    if given := [o for o, v in vars(runs).items() if v]:
        raise InputError(
            f"--{given[0]} belongs to runs of other tools", "models or own scores", remedy="leave it out"
        )
    sides = find_sides(shell, names, models, {name: scores for name, (scores, _) in files.items()})
    if verify is not None:
        return _verify(shell, verify, _named_models(shell, sides, policy if options.policy else None, suite))
    unsealed = {name: scores for name, (scores, is_sealed) in files.items() if not is_sealed}
    return _compare_models(shell, options, policy, sides, unsealed=unsealed, suite=suite, out=out)


def _compare_outside(
    shell: Shell,
    options: GateOptions,
    runs: RunOptions,
    pair: PairedRuns,
    policy: Gate,
    *,
    names: tuple[str, str],
    out: Path | None,
    verify: Path | None,
) -> CommandResult:
    """The verdict on two runs of another tool, or the check of one against them."""
    if options.speed is not None:
        raise InputError("--speed belongs to models", "runs of another tool", remedy="leave it out")
    policy = pair.policy(policy, runs.metric or ())
    if verify is not None:
        return _verify(shell, verify, _named(pair.champion, pair.candidate, policy))
    context = GateContext(card=options.read_card(), signed_by=options.signed_by, void=options.read_void())
    return compare_runs(shell, pair, policy, names, context, out=out)


def _compare_models(
    shell: Shell,
    options: GateOptions,
    policy: Gate,
    sides: Sequence[Side],
    *,
    unsealed: Mapping[str, Scores],
    suite: str | None,
    out: Path | None,
) -> CommandResult:
    """The verdict on two models, measured where they are not given as scores."""
    from escultor.cycle import gate_service
    from escultor.cycle.evaluation_service import policy_on_scores, with_benchmarked_speed
    from escultor.cycle.preferences import with_preferences
    from escultor.evaluate.scores import check_seal

    speed, card, void = options.read_speed(), options.read_card(), options.read_void()
    champion, candidate = sides
    names, asked = (champion.name, candidate.name), any(not isinstance(s.source, Scores) for s in sides)
    only_answers = any(side.answers_only for side in sides)
    measured = _checked_suite(shell, suite, policy, only_answers) if asked else None
    config = _timed(shell.config, policy, measured)
    with lookup.open_or_create_store(shell) as store:
        signed_by = options.signed_by and approver(store, os.environ.get(KEY_ENV), options.signed_by)

        def scores_of(side: Side) -> Scores:
            scores = side.scores(shell, store, measured, config)
            return scores if speed is None else with_benchmarked_speed(store, scores, speed)

        for name, scores in unsealed.items():
            check_seal(Path(name), scores, store.log.get(Scores, scores.id))
        before, after = map(scores_of, sides)
        if measured is not None:
            before, after = with_preferences(
                store, measured, before, after, config=shell.config, note=shell.print
            )
        policy = policy_on_scores(store, before, shell.config, policy, measured)
        with gate_service.exclusive(store):
            context = gate_service.context_of(
                store, before, after, policy, card=card, signed_by=signed_by, void=void
            )
            record = gate_service.decide_from_store(
                store, before, after, policy, context=context, names=names, suite=measured
            )
            store.log.append(record.verdict)
            folder = gate_service.write_record(store, record, out)
    _show_figures(shell, list(zip(names, (before, after), strict=True)))
    shell.print(f"written: {folder}/verdict.html, verdict.md, verdict.json")
    return show_verdict(shell, record.verdict)


def _timed(config: Config, policy: Gate, suite: EvaluationSuite | None) -> Config:
    """The configuration, with timed requests where the policy on the suite needs them."""
    from escultor.cycle.evaluation_service import policy_of, timed_for

    return config if suite is None else timed_for(policy_of(suite.record, config, policy), config)


def _replay(shell: Shell, file: Path, out: Path | None) -> CommandResult:
    """Decide again, and report whether the file is the same, byte for byte."""
    text = lookup.require_file(file).read_bytes().decode("utf-8", errors="replace")
    if (beside := inputs_beside(file)) is not None:
        record, difference = reproduction.replay(beside, text)
    else:
        with lookup.existing_store(shell, "the inputs of a verdict are in its store") as store:
            record, difference = reproduction.replay(store.blobs.get_bytes, text)
    if out is not None:
        write_pages(out, record)
    if difference:
        what, remedy = (
            f"{file} is not what its inputs give",
            "it was changed, or is of another version",
        )
        raise DataError(what, "; ".join(difference[2:8]), "the same bytes", remedy)
    shell.print(f"{file}: the same, byte for byte", "bold")
    return CommandResult({"file": str(file), "identical": True})


def _verify(shell: Shell, file: Path, here: Mapping[str, str]) -> CommandResult:
    if (beside := inputs_beside(lookup.require_file(file))) is not None:
        return verify_verdict(shell, file, beside, here)
    with lookup.existing_store(shell, "the inputs of a verdict are in its store") as store:
        return verify_verdict(shell, file, store.blobs.get_bytes, here, store)


def _named(champion: Scores, candidate: Scores, policy: Gate) -> dict[str, str]:
    """What a verdict on these scores names."""
    scores = {"champion_scores": champion.id, "candidate_scores": candidate.id, "suite": champion.suite}
    return {**scores, "policy": reproduction.policy_hash(policy)}


def _named_models(
    shell: Shell, sides: Sequence[Side], policy: Gate | None, suite: str | None
) -> dict[str, str]:
    """What a verdict on these sides names: weights or scores, and suite and policy where they are given."""
    named = [(role, side.identity()) for role, side in zip(ROLES, sides, strict=True)]
    here = {f"{role}{key}": id for role, own in named for key, id in own.items()}
    if suite is not None:
        here["suite"] = lookup.find_suite(shell, suite).id
    if policy is not None:
        here["policy"] = reproduction.policy_hash(policy)
    return here


def _checked_suite(shell: Shell, name: str | None, policy: Gate, served: bool) -> EvaluationSuite:
    """The suite, with its metrics of answers alone where a side is `served`; what the policy needs of it is
    printed before anything is measured."""
    from escultor.cycle import gate_service
    from escultor.cycle.evaluation_service import of_answers, policy_of

    found = lookup.find_suite(shell, name)
    if served and (left := of_answers(found)) is not found:
        shell.print(f"measured by answers alone, as a server gives them: {', '.join(left.record.metrics)}")
        found = left
    policy = policy_of(found.record, shell.config, policy)
    shell.print(gate_service.needs_of(policy, found.record))
    gate_service.require_enough_items(policy, found.record)
    return found


def _read_scores(name: str) -> tuple[Scores, bool] | None:
    """The scores in a file of `evaluate --out`, and whether they are those of their id; None where there is
    no such JSON file."""
    from escultor.evaluate.scores import is_of_scores, read_scores

    path = Path(name)
    return read_scores(path) if path.suffix == ".json" and path.is_file() and is_of_scores(path) else None


def _show_figures(shell: Shell, versions: Sequence[tuple[str, Scores]]) -> None:
    """Print the versions side by side, one figure a row."""
    from escultor.cli.evaluate import mean_figures
    from escultor.evaluate.report.parts import MISSING, VersionRow, text_table

    rows = []
    for name, scores in versions:
        figures = {k: v for k, v in mean_figures(scores).items() if not k.endswith(("_low", "_high"))}
        parameters = figures.pop("parameters", None)
        rows.append(VersionRow(name, None if parameters is None else round(parameters), figures))
    heads, *lines = text_table(rows, transposed=True)
    shell.table(heads, [line for line in lines if set(line[1:]) != {MISSING}])
