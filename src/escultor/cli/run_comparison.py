"""`compare` on runs of other evaluation tools: without a model, and where there is none without a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from escultor.cli.output import CommandResult, Shell
from escultor.cli.verdicts import show_verdict
from escultor.errors import InputError
from escultor.evaluate.gate.decision_record import DecisionInputs, DecisionRecord, record_decision
from escultor.evaluate.gate.reproduction import verdict_seed
from escultor.evaluate.report.verdict_files import write_inputs, write_pages
from escultor.evaluate.score_files.pairing import PairedRuns, pair_runs, read_run
from escultor.store import store_exists
from escultor.types import GateContext

if TYPE_CHECKING:
    from escultor.config import Gate
    from escultor.store import Store

DEFAULT_OUT = Path("verdict")  # where no store keeps the record


@dataclass(frozen=True)
class RunOptions:
    """The options that say what the metrics of other tools mean."""

    metric: Annotated[
        list[str] | None, Option("--metric", help="Primary metric of runs of other tools; repeatable.")
    ] = None
    lower: Annotated[
        list[str] | None,
        Option("--lower", help="Metric of these that is better when lower; repeatable."),
    ] = None
    higher: Annotated[
        list[str] | None,
        Option("--higher", help="Metric of these that is better when higher; repeatable."),
    ] = None


def read_runs(names: Sequence[str], options: RunOptions) -> PairedRuns | None:
    """The runs that two names mean, paired; None where neither is a file or folder of scores. Raises
    InputError where one alone is."""
    champion, candidate = map(read_run, names)
    if champion is None and candidate is None:
        return None
    if champion is None or candidate is None:
        other = names[0] if champion is None else names[1]
        raise InputError(f"`{other}` is no run of an evaluation tool", "the other side is one", "two runs")
    return pair_runs(champion, candidate, options.lower or (), options.higher or ())


def decide_runs(
    pair: PairedRuns,
    policy: Gate,
    names: tuple[str, str],
    context: GateContext,
    *,
    store: Store | None = None,
) -> DecisionRecord:
    """The gate's decision on two runs. A store counts it among the analyses of these items and records it."""
    if store is not None:
        from escultor.cycle import gate_service
        from escultor.cycle.approval import KEY_ENV, approver

        signed_by = context.signed_by and approver(store, os.environ.get(KEY_ENV), context.signed_by)
        given = {"card": context.card, "signed_by": signed_by, "void": context.void}
        context = gate_service.context_of(
            store, pair.champion, pair.candidate, policy, asked=pair.asked, **given
        )
    return record_decision(
        DecisionInputs(
            champion=pair.champion,
            candidate=pair.candidate,
            policy=policy,
            seed=verdict_seed(pair.champion, pair.candidate, policy),
            context=context,
            names=names,
            prompts=pair.prompts,
            answers=pair.answers,
        )
    )


def compare_runs(
    shell: Shell,
    pair: PairedRuns,
    policy: Gate,
    names: tuple[str, str],
    context: GateContext,
    out: Path | None,
) -> CommandResult:
    """Decide, write the record and its pages, and show the verdict."""
    if _has_store(shell):
        from escultor.cycle import gate_service
        from escultor.store import open_store

        with open_store(shell.store_url) as store, gate_service.exclusive(store):
            record = decide_runs(pair, policy, names, context, store=store)
            store.log.append(record.verdict)
            folder = gate_service.write_record(store, record, out)
    else:
        if context.signed_by:
            what, remedy = "a signature is checked by the keys in a store", "give --store, or leave it out"
            raise InputError(what, f"no store at {shell.store_url}", remedy=remedy)
        record = decide_runs(pair, policy, names, context)
        folder = out or DEFAULT_OUT
        write_inputs(folder, record)
        write_pages(folder, record)
    for note in pair.notes:
        shell.print(note)
    shell.print(f"written: {folder}/verdict.html, verdict.md, verdict.json")
    result = show_verdict(shell, record.verdict)
    return CommandResult({**result.data, "notes": list(pair.notes), "out": folder}, result.code)


def _has_store(shell: Shell) -> bool:
    from importlib.util import find_spec

    return find_spec("sqlalchemy") is not None and store_exists(shell.store_url)
