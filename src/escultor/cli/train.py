"""`pretrain`, `sft`, `dpo`, `kto`, `distill`: from a file to a model folder and a record of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from escultor.cli.lookup import find_model, load_model, made, reference_cache
from escultor.cli.output import CommandResult, Shell
from escultor.cli.processes import Processes
from escultor.cli.training_rows import read_documentation, read_training
from escultor.errors import ConfigError
from escultor.train.filenames import RECORD

if TYPE_CHECKING:
    from escultor.batching.preflight import Preflight
    from escultor.train.run_record import RunRecord

RunOut = Annotated[
    Path, typer.Option("--out", help="Folder for the model, metrics.jsonl and run.json; new or empty.")
]
DataArgument = Annotated[Path, typer.Option("--data", help="JSONL file, or a dataset of the store.")]
StartModel = Annotated[
    str, typer.Option("--model", help="Model or run folder, checkpoint id, champion, or escultor-base.")
]


def pretrain(
    shell: Shell,
    processes: Processes,
    out: RunOut,
    data: Annotated[
        Path | None, typer.Option("--data", help='JSONL of {"text": …}; default: installed documentation.')
    ] = None,
) -> CommandResult:
    """Train a tokenizer and a fresh model on plain text."""
    from escultor.train.runs import pretrain as train

    settings, url = shell.config.pretrain, shell.config.store.url
    found = read_documentation(url) if data is None else read_training(data, "document", url)
    return _run(
        shell,
        processes,
        "pretrain",
        out,
        found.counts,
        lambda out, **watch: train(found.items, settings, out, **watch),
    )


def sft(
    shell: Shell, processes: Processes, model: StartModel, data: DataArgument, out: RunOut
) -> CommandResult:
    """Teach a model to answer as examples do (supervised fine-tuning)."""
    return _tune(shell, processes, "sft", "example", shell.config.sft, model, data, out)


def dpo(
    shell: Shell, processes: Processes, model: StartModel, data: DataArgument, out: RunOut
) -> CommandResult:
    """Make a model prefer the chosen over the rejected answers (direct preference optimisation)."""
    return _tune(shell, processes, "dpo", "pair", shell.config.dpo, model, data, out)


def kto(
    shell: Shell, processes: Processes, model: StartModel, data: DataArgument, out: RunOut
) -> CommandResult:
    """Learn from answers judged one by one, good or bad (Kahneman-Tversky optimisation)."""
    return _tune(shell, processes, "kto", "unpaired", shell.config.kto, model, data, out)


def distill(
    shell: Shell,
    processes: Processes,
    teacher: Annotated[str, typer.Option("--teacher", help="The model to learn from; named as --model is.")],
    data: DataArgument,
    out: RunOut,
    student: Annotated[
        str | None,
        typer.Option("--student", help="The model that learns; default: cut out of the teacher."),
    ] = None,
) -> CommandResult:
    """Teach a small model to answer with the probabilities of a larger one (distillation)."""
    from escultor.model.student import cut_student
    from escultor.store.blobs import tree_hash
    from escultor.train.run_record import TrainingTask
    from escultor.train.runs import run, same_vocabulary

    settings, url = shell.config.distillation, shell.config.store.url
    if student is not None and (settings.layers or settings.intermediate_size):
        raise ConfigError(
            "`distillation.layers` and `distillation.intermediate_size` say how to cut a student",
            f"--student {student}",
            "one of both",
            "remove these keys, or --student",
        )
    folder = find_model(teacher, url)
    own = find_model(student, url) if student is not None else None
    imported = read_training(data, "example", url)
    frozen = load_model(folder)
    if own is None:
        start = cut_student(frozen, settings.layers, settings.intermediate_size)
    else:
        start = load_model(own)
        same_vocabulary(start, frozen)
    parents = tuple(tree_hash(each) for each in (own, folder) if each is not None)
    task = TrainingTask("distill", start, imported.items, settings, frozen, parents)
    return _run(shell, processes, "distill", out, imported.counts, partial(run, task))


def _tune(
    shell: Shell,
    processes: Processes,
    method: str,
    kind: Literal["example", "pair", "unpaired"],
    settings: Any,
    model: str,
    data: Path,
    out: Path,
) -> CommandResult:
    """A method that starts from a model; `settings` is its section of the configuration."""
    from escultor.store.blobs import tree_hash
    from escultor.train.run_record import TrainingTask
    from escultor.train.runs import run

    url = shell.config.store.url
    folder = find_model(model, url)
    imported = read_training(data, kind, url)
    task = TrainingTask(method, load_model(folder), imported.items, settings, parents=(tree_hash(folder),))
    return _run(
        shell, processes, method, out, imported.counts, partial(run, task, cache=reference_cache(url))
    )


def _run(
    shell: Shell,
    processes: Processes,
    method: str,
    out: Path,
    read: Mapping[str, int],
    train: Callable[..., RunRecord],
) -> CommandResult:
    """Call `train(out, world=…, on_step=…, on_preflight=…)` with the pre-flight and progress shown; then
    print what was made and what was left out."""
    from escultor.cli.preview import as_data, summary
    from escultor.cli.progress import LiveProgress
    from escultor.evaluate.report.parts import count, duration

    reused = (out / RECORD).is_file()
    looked: list[Preflight] = []
    with processes.joined() as world, LiveProgress() as live:
        live.phase(method)

        def look(found: Preflight) -> None:
            looked.append(found)
            for line in summary(found):
                live.note(line)

        record = train(out, world=world, on_step=live.training, on_preflight=look)
    left_out = {reason: n for reason, n in read.items() if reason != "kept" and n}
    used = {reason: n for reason, n in record.counts.items() if n}
    word = "reused, it was done already" if reused else "done"
    shell.say(f"{method}: {word}; {made(out)}", "bold")
    figures = (f"{record.steps:,} steps", f"{count(record.tokens)} tokens", f"loss {record.loss:.4f}")
    shell.say("  ".join((*figures, duration(record.seconds))))
    shell.table(["Rows", "Count"], [(k, f"{n:,}") for k, n in (used | left_out).items()])
    data = {"out": out, "model": made(out), "reused": reused, "read": dict(read), **asdict(record)}
    return CommandResult(data | {"preflight": as_data(looked[0]) if looked else None})
