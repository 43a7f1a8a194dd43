"""Two runs of another evaluation tool as the gate compares them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from escultor.config import Gate
from escultor.errors import DataError, InputError
from escultor.evaluate.score_files.csv_scores import read_csv
from escultor.evaluate.score_files.inspect_logs import read_inspect
from escultor.evaluate.score_files.langfuse_runs import read_langfuse
from escultor.evaluate.score_files.lm_eval_samples import read_lm_eval
from escultor.evaluate.score_files.mlflow_runs import read_mlflow
from escultor.evaluate.score_files.promptfoo_results import read_promptfoo
from escultor.evaluate.score_files.scored_run import Better, ScoredItem, ScoredRun
from escultor.evaluate.scores import seal_scores
from escultor.ids import hash_value
from escultor.types import Scale, Scores

FORMAT = "score-files/1"  # part of every suite id: what is compared
READERS: dict[str, Callable[[Path, str | None], ScoredRun | None]] = {
    "lm-eval": read_lm_eval,
    "inspect": read_inspect,
    "promptfoo": read_promptfoo,
    "langfuse": read_langfuse,
    "mlflow": read_mlflow,
    "csv": read_csv,
}
FILES = (
    "samples_*.jsonl or an output folder of lm-eval, a log of Inspect (.eval, .json), results.json of "
    "promptfoo, a dataset run of Langfuse, eval_results_table.json or mlflow.db of MLflow, a CSV of item, "
    "cluster, metric, value"
)
SUFFIXES = (".jsonl", ".eval", ".json", ".csv", ".tsv", ".db", ".sqlite", ".sqlite3")
# Names of metrics that are better when lower, wherever nothing states their direction.
_LOWER = re.compile(
    r"(?:^|[^a-z])(?:loss|error|errors|perplexity|ppl|nll|wer|cer|latency|cost|toxicity|hallucination|bits_per_byte"
    r"|word_perplexity|byte_perplexity|brier|ece|refusals?|violations?|edit_distance|time|seconds|tokens)(?:[^a-z]|$)"
)


def read_run(name: str) -> ScoredRun | None:
    """The run in a file or folder, `PATH` or `PATH#CHOICE` where it holds several; None where there is no
    such path, or a folder of another kind.

    Raises InputError for a choice that is missing or unknown, DataError for a file that no reader knows, and
    for damaged ones.
    """
    path, choice = (Path(name), None) if Path(name).exists() else _split(name)
    if not path.exists() or (path.is_file() and path.suffix.lower() not in SUFFIXES):
        return None
    for read in READERS.values():
        if (run := read(path, choice)) is not None:
            if not run.metrics:
                raise DataError(
                    f"{path} holds no scores", f"{len(run.items)} items", "a metric for each item"
                )
            return run
    if path.is_dir():
        return None
    raise DataError(f"{path} holds no scores that are known", path.suffix, FILES)


def _split(name: str) -> tuple[Path, str | None]:
    path, _, choice = name.rpartition("#")
    return Path(path or name), choice or None


@dataclass(frozen=True, slots=True)
class PairedRuns:
    """Two runs as scores of one suite, with what a page shows of them; `notes` say what was left out or
    assumed."""

    champion: Scores
    candidate: Scores
    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], tuple[str, ...]]
    notes: tuple[str, ...]

    @property
    def asked(self) -> tuple[str, ...]:
        """What each item asks, by its id where the tool kept no prompt."""
        return tuple(
            prompt if prompt.strip() else f"item {id}"
            for prompt, id in zip(self.prompts, self.champion.items, strict=True)
        )

    def policy(self, configured: Gate, primary: Collection[str] = ()) -> Gate:
        """The policy with these primaries; without any, those that it states, else each metric that has a
        direction, corrected for their number. Default guards on what was not measured are left out.

        Raises InputError for a primary that cannot decide."""
        deciding = [n for n, scale in self.champion.scales.items() if scale.better != "neither"]
        stated = configured.primary if "primary" in configured.model_fields_set else ()
        chosen = tuple(primary) or stated or tuple(deciding)
        if unknown := [name for name in chosen if name not in deciding]:
            got = "not in both runs, or neither direction is better"
            raise InputError(f"{', '.join(unknown)} cannot decide", got, ", ".join(deciding) or "none")
        if not chosen:
            remedy = "--lower METRIC or --higher METRIC"
            raise InputError("none of the metrics can decide", "; ".join(self.notes), remedy=remedy)
        guards = configured.guards
        if "guards" not in configured.model_fields_set:
            measured = self.champion.metrics.keys() - set(chosen)
            guards = {name: margin for name, margin in guards.items() if name in measured}
        return Gate.model_validate(configured.model_dump() | {"primary": chosen, "guards": guards})


def pair_runs(
    champion: ScoredRun, candidate: ScoredRun, lower: Collection[str] = (), higher: Collection[str] = ()
) -> PairedRuns:
    """Two runs as scores that the gate compares. Values of repetitions of an item are averaged, and an item
    without an answer has the worst of each metric.

    Items belong to the cluster that the tool states, else to that of their prompt, so that equal prompts are
    one. `lower` and `higher` say in which direction metrics are better where the tool does not. Raises
    DataError for runs of different tools, tasks or items, and for items without a score.
    """
    notes = [*dict.fromkeys((*champion.notes, *candidate.notes))]
    if (champion.tool, champion.task) != (candidate.tool, candidate.task):
        ours, theirs = (f"{run.tool} {run.task}".strip() for run in (champion, candidate))
        raise DataError("the runs are of different tools or tasks", f"{ours} and {theirs}", "one task")
    metrics = [name for name in champion.metrics if name in candidate.metrics]
    if left_out := sorted({*champion.metrics, *candidate.metrics} - set(metrics)):
        notes.append(f"left out, since one run alone has it: {', '.join(left_out)}")
    _check_items(champion, candidate, metrics)
    better: dict[str, Better] = {
        name: _direction(name, (champion, candidate), lower, higher, notes=notes) for name in metrics
    }
    scales = {name: _scale(name, (champion, candidate), better[name]) for name in metrics}
    ids, clusters = list(champion.items), _clusters(champion)
    suite = hash_value([FORMAT, champion.tool, champion.task, ids, clusters, metrics])
    scores = [
        _scores(run, ids, clusters, scales=scales, suite=suite, notes=notes) for run in (champion, candidate)
    ]
    return PairedRuns(
        champion=scores[0],
        candidate=scores[1],
        prompts=tuple(champion.items[id].prompt for id in ids),
        answers=(_answers(champion, ids), _answers(candidate, ids)),
        notes=tuple(notes),
    )


def _check_items(champion: ScoredRun, candidate: ScoredRun, metrics: list[str]) -> None:
    ours, theirs = (
        champion.items.keys() - candidate.items.keys(),
        candidate.items.keys() - champion.items.keys(),
    )
    if ours or theirs:
        raise DataError(
            "the runs have different items",
            f"{len(ours)} only of the champion, {len(theirs)} only of the candidate, such as "
            f"{min(ours or theirs)!r}",
            "the same items in both",
            "run both on the same set",
        )
    if not metrics:
        raise DataError(
            "the runs have no metric in common", ", ".join(champion.metrics), ", ".join(candidate.metrics)
        )
    for run in (champion, candidate):
        for name in metrics:
            lacking = [id for id, item in run.items.items() if not item.failed and name not in item.values]
            if lacking:
                raise DataError(
                    f"{run.path} has no {name} for {len(lacking)} of {len(run.items)} items",
                    f"such as {lacking[0]!r}",
                    "a score for each item, or an error in its place",
                )


def _direction(
    name: str,
    runs: tuple[ScoredRun, ScoredRun],
    lower: Collection[str],
    higher: Collection[str],
    *,
    notes: list[str],
) -> Better:
    stated = {run.better[name] for run in runs if name in run.better}
    asked = cast(Better | None, "lower" if name in lower else "higher" if name in higher else None)
    if len(stated) > 1 or (asked and stated and stated != {asked}):
        says = ", ".join(sorted({*stated, *([asked] if asked else [])}))
        raise DataError(f"the runs and options disagree on the direction of {name}", says, "one direction")
    if asked or stated:
        return cast(Better, asked or next(iter(stated)))
    if _LOWER.search(name.lower()):
        notes.append(
            f"{name} decides nothing: nothing says in which direction it is better (--lower, --higher)"
        )
        return "neither"
    notes.append(f"{name}: higher is taken to be better, since nothing says otherwise (--lower {name})")
    return "higher"


def _scale(name: str, runs: tuple[ScoredRun, ScoredRun], better: Better) -> Scale:
    """The scale that holds the values of both runs: 0 or 1, between them, or without limits."""
    values = [v for run in runs for item in run.items.values() for v in item.values.get(name, ())]
    if set(values) <= {0.0, 1.0}:
        repeated = any(len(item.values.get(name, ())) > 1 for run in runs for item in run.items.values())
        return Scale(better) if repeated else Scale(better, "binary")
    if min(values) >= 0 and max(values) <= 1:
        return Scale(better)
    return Scale(better, "continuous", 0.0 if min(values) >= 0 else None, None)


def _clusters(run: ScoredRun) -> tuple[str, ...]:
    """The cluster of each item: as stated, else of its prompt, else its own. Clusters that share a prompt are
    one, whatever the tool states."""
    prompts = [hash_value(_bare(item.prompt)) if item.prompt.strip() else "" for item in run.items.values()]
    named = zip(run.items.items(), prompts, strict=True)
    names = [item.cluster or prompt or id for (id, item), prompt in named]
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while name in joined:
            joined[name] = joined.get(joined[name], joined[name])
            name = joined[name]
        return name

    first: dict[str, str] = {}
    for name, prompt in zip(names, prompts, strict=True):
        if prompt and (one := root(first.setdefault(prompt, name))) != (other := root(name)):
            joined[other] = one
    return tuple(map(root, names))


def _bare(prompt: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _scores(
    run: ScoredRun,
    ids: list[str],
    clusters: tuple[str, ...],
    *,
    scales: dict[str, Scale],
    suite: str,
    notes: list[str],
) -> Scores:
    if failed := sum(item.failed for item in run.items.values()):
        notes.append(f"{run.model}: {failed} of {len(ids)} items have no answer and count as the worst")
    metrics = {name: tuple(_mean(run.items[id], name, scale) for id in ids) for name, scale in scales.items()}
    checkpoint = hash_value([run.tool, run.model, metrics, _answers(run, ids)])
    summary = {"failed_share": failed / len(ids)} if failed else {}
    return seal_scores(
        Scores(
            id="",
            checkpoint=checkpoint,
            suite=suite,
            items=tuple(ids),
            clusters=clusters,
            metrics=metrics,
            summary=summary,
            scales=scales,
        )
    )


def _answers(run: ScoredRun, ids: list[str]) -> tuple[str, ...]:
    return tuple(run.items[id].answer for id in ids)


def _mean(item: ScoredItem, name: str, scale: Scale) -> float:
    if item.failed:
        worst = scale.most if scale.better == "lower" else scale.least
        if worst is None:
            allowed = "a metric between two limits, so that a missing answer can count as the worst"
            raise DataError(f"{name} has no worst value for an item without an answer", scale, allowed)
        return worst
    values = item.values[name]
    return math.fsum(values) / len(values)
