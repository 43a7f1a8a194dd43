"""Two runs of another evaluation tool as the gate compares them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
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
from escultor.text.normalization import question_key
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
# Names of metrics that are better when lower, or in neither direction, wherever nothing states it.
_LOWER = re.compile(
    r"(?:^|[^a-z])(?:loss|err|error|perplexity|ppl|nll|wer|cer|ter|mae|mse|rmse|latency|duration|cost|price|brier|ece"
    r"|toxicity|toxic|bias|harm|harmful|unsafe|hallucinations?|hallucinated|bits_per_byte|refusals?|violations?|distance"
    r"|divergence|penalty|regret|attacks?|jailbreaks?|fail|failed|failures?|wrong|incorrect|invalid|missing|errors|losses"
    r"|costs|latencies|time|seconds|ms|tokens?|words|chars|characters|bytes|counts?|lengths?|len|verbosity|grade_level"
    r"|steps|turns|retries|ranks?|levenshtein|edits?|hamming|kld?|entropy|surprisal|repetitions?|p\d\d|ttft|memory)"
    r"(?:[^a-z0-9]|$)"
)
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What is a share on one side, and above this, or above 1 in the mean, on the other, has two units.
OTHER_UNIT = 20.0


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
    that the candidate did not answer has the worst of each metric.

    Items belong to the cluster that either run states, else to that of their prompt, so that equal prompts
    are one. Where the champion alone has no answer, the item is a tie: a run that broke must not make its
    candidate look better. `lower` and `higher` say in which direction metrics are better where the tool does
    not. Raises DataError for runs of different tools, tasks, settings or items, for a metric in different
    units, and for items without a score.
    """
    notes = [*dict.fromkeys((*champion.notes, *candidate.notes))]
    if (champion.tool, champion.task) != (candidate.tool, candidate.task):
        ours, theirs = (f"{run.tool} {run.task}".strip() for run in (champion, candidate))
        raise DataError("the runs are of different tools or tasks", f"{ours} and {theirs}", "one task")
    for name in sorted(champion.conditions.keys() | candidate.conditions.keys()):
        ours, theirs = (run.conditions.get(name, "none") for run in (champion, candidate))
        if ours != theirs:
            notes.append(f"the sides differ in {name}: {ours[:80]} and {theirs[:80]}")
    for name in champion.settings.keys() & candidate.settings.keys():
        if len(each := {champion.settings[name], candidate.settings[name]}) > 1:
            raise DataError(
                f"the runs differ in the {name}", " and ".join(sorted(each)), "the same", "run one side again"
            )
    metrics = [name for name in champion.metrics if name in candidate.metrics]
    if left_out := sorted({*champion.metrics, *candidate.metrics} - set(metrics)):
        notes.append(f"left out, since one run alone has it: {', '.join(left_out)}")
    _check_items(champion, candidate, metrics)
    better: dict[str, Better] = {
        name: _direction(name, (champion, candidate), lower, higher, notes=notes) for name in metrics
    }
    scales = {name: _scale(name, (champion, candidate), better[name]) for name in metrics}
    ids, clusters = list(champion.items), _clusters(champion, candidate)
    suite = hash_value([FORMAT, champion.tool, champion.task, ids, clusters, metrics])
    _note_prompts(champion, candidate, notes)
    ties = {id for id, item in champion.items.items() if item.failed and not candidate.items[id].failed}
    scores = [
        _scores(run, ids, clusters, other=other, ties=ties, scales=scales, suite=suite, notes=notes)
        for run, other in ((champion, candidate), (candidate, None))
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


def _note_prompts(champion: ScoredRun, candidate: ScoredRun, notes: list[str]) -> None:
    """Say where the sides were not asked, or items not repeated, alike."""
    pairs = [(item, candidate.items[id]) for id, item in champion.items.items()]
    if other := sum(a.prompt != b.prompt for a, b in pairs if a.prompt and b.prompt):
        notes.append(f"the sides were asked in other words on {other} of {len(pairs)} items")
    for run in (champion, candidate):
        for name in run.metrics:
            fewest, most = _repetitions(run, name)
            if fewest < most:
                notes.append(
                    f"{run.path.name}: items have {fewest} to {most} values of {name}, of which the first "
                    f"{fewest} count: repeating the bad ones alone must not help"
                )


def _repetitions(run: ScoredRun, name: str) -> tuple[int, int]:
    """The fewest and the most values of a metric that an item has."""
    counts = [
        len(item.values[name]) for item in run.items.values() if name in item.values and not item.failed
    ]
    return min(counts, default=1), max(counts, default=1)


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
    if asked:
        return asked
    # lm-eval states the direction of its own metrics, and repeats what a task says of others.
    is_lm_eval, sounds_lower = runs[0].tool == "lm-eval", _LOWER.search(_CAPITAL.sub("_", name).lower())
    if (is_lm_eval or sounds_lower) and not stated:
        notes.append(
            f"{name} decides nothing: nothing says in which direction it is better (--lower, --higher)"
        )
        return "neither"
    if is_lm_eval and sounds_lower and stated == {"higher"}:
        notes.append(f"{name} decides nothing: its task says that higher is better (--higher {name})")
        return "neither"
    if stated:
        return cast(Better, next(iter(stated)))
    notes.append(f"{name}: higher is taken to be better, since nothing says otherwise (--lower {name})")
    return "higher"


def _scale(name: str, runs: tuple[ScoredRun, ScoredRun], better: Better) -> Scale:
    """The scale that holds the values of both runs: 0 or 1, between them, or without limits."""
    sides = [[v for item in run.items.values() for v in item.values.get(name, ())] for run in runs]
    values = [v for side in sides for v in side]
    is_share = better != "neither" and min(map(max, sides)) <= 1 and min(values) >= 0
    if is_share and (max(values) > OTHER_UNIT or max(map(fmean, sides)) > 1):
        got = " and ".join(f"up to {max(side):g}" for side in sides)
        raise DataError(
            f"{name} has another unit on either side", got, "one unit", "convert one of the files"
        )
    if set(values) <= {0.0, 1.0}:
        repeated = any(len(item.values.get(name, ())) > 1 for run in runs for item in run.items.values())
        return Scale(better) if repeated else Scale(better, "binary")
    if min(values) >= 0 and max(values) <= 1:
        return Scale(better)
    return Scale(better, "continuous", 0.0 if min(values) >= 0 else None, None)


def _clusters(champion: ScoredRun, candidate: ScoredRun) -> tuple[str, ...]:
    """The cluster of each item: as stated, else of its prompt, else its own. Clusters that share a prompt but
    for its punctuation are one, whatever a tool states; so are those that the other run takes for one."""
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while name in joined:
            joined[name] = joined.get(joined[name], joined[name])
            name = joined[name]
        return name

    first: dict[tuple[str, str], str] = {}
    names = []
    for id, item in champion.items.items():
        bare, stated = _bare(item.prompt), candidate.items[id].cluster
        name = item.cluster or (hash_value(bare) if bare else stated or id)
        names.append(name)
        for kind, key in (("prompt", question_key(item.prompt)), ("other side", stated)):
            if key and (one := root(first.setdefault((kind, key), name))) != (own := root(name)):
                joined[own] = one
    return tuple(map(root, names))


def _bare(prompt: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _scores(
    run: ScoredRun,
    ids: list[str],
    clusters: tuple[str, ...],
    *,
    other: ScoredRun | None,
    ties: set[str],
    scales: dict[str, Scale],
    suite: str,
    notes: list[str],
) -> Scores:
    """One side; where the champion alone has no answer, it has the values of the `other` side."""
    if failed := sum(item.failed for item in run.items.values()):
        tied = f"; {len(ties)} that the candidate answered are ties" if other and ties else ""
        notes.append(f"{run.model}: {failed} of {len(ids)} items have no answer and count as the worst{tied}")
    metrics = {}
    for name, scale in scales.items():
        count, of_other = _repetitions(run, name)[0], _repetitions(other, name)[0] if other else 1
        metrics[name] = tuple(
            _mean(other.items[id], name, scale, of_other)
            if other and id in ties
            else _mean(run.items[id], name, scale, count)
            for id in ids
        )
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


def _mean(item: ScoredItem, name: str, scale: Scale, count: int) -> float:
    """The mean of an item's first values, or the worst where it has no answer."""
    if item.failed:
        worst = scale.most if scale.better == "lower" else scale.least
        if worst is None:
            allowed = "a metric between two limits, so that a missing answer can count as the worst"
            raise DataError(f"{name} has no worst value for an item without an answer", scale, allowed)
        return worst
    return math.fsum(item.values[name][:count]) / count
