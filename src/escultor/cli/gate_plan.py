"""`compare plan`: how many items a comparison needs, before anything is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from escultor.cli import lookup
from escultor.cli.output import CommandResult, Shell
from escultor.config import load_policy
from escultor.cycle.evaluation_service import policy_of
from escultor.evaluate.gate.plan import ExpectedComparison
from escultor.evaluate.gate.plan import plan as plan_of


@dataclass(frozen=True)
class ExpectedOptions:
    """The options with what is expected of the comparison."""

    effect: Annotated[float, Option(help="Wished gain on a primary metric from 0 to 1: 0.1 for 10 points.")]
    differing: Annotated[
        float | None, Option(help="Of 0/1 scores: share of items that one side alone gets right.")
    ] = None
    spread: Annotated[
        float | None, Option(help="Of other scores: standard deviation of the difference on one item.")
    ] = None
    decodings: Annotated[int, Option(min=1, help="Answers of either side to an item, averaged.")] = 1
    noise: Annotated[
        float, Option(min=0, max=1, help="Share of the variance that another decoding draws anew.")
    ] = 0.0
    cluster_size: Annotated[int, Option(min=1, help="Items of a cluster.")] = 1
    correlation: Annotated[float, Option(min=0, max=1, help="Of two items of a cluster.")] = 0.0
    failing: Annotated[
        float, Option(min=0, max=1, help="Share of items on which either side fails a guard, by itself.")
    ] = 0.0


def plan(
    shell: Shell,
    expected: ExpectedOptions,
    policy: Annotated[Path | None, Option(help="YAML file with keys of `gate`; default: the config.")] = None,
    suite: lookup.SuiteOption = None,
) -> CommandResult:
    """Say how many items a policy and a wished effect need, before anything is measured.

    Without --suite the policy is taken as it stands, with one primary where it names none.
    """
    chosen = shell.config.gate if policy is None else load_policy(lookup.require_file(policy))
    scales = None
    if suite is not None:
        record = lookup.find_suite(shell, suite).record
        chosen, scales = policy_of(record, shell.config, chosen), record.metrics
    made = plan_of(chosen, ExpectedComparison(**asdict(expected)), scales)
    rows = [(need.metric, need.role, need.clusters or "no number") for need in made.metrics]
    shell.table(["Metric", "Role", "Clusters by itself"], rows, left=(0, 1))
    if made.items is None:
        shell.print("No number of items is enough.", "bold")
    else:
        where = "" if made.clusters == made.items else f" in {made.clusters:,} clusters"
        shell.print(
            f"About {made.items:,} items{where}: if all is as expected, promoted with probability "
            f"{chosen.power:g}.",
            "bold",
        )
    metrics = [need._asdict() for need in made.metrics]
    return CommandResult({**made._asdict(), "metrics": metrics, "expected": asdict(expected)})
