"""`pretrain`, `sft`, `dpo`, `kto`, `distill`: train a model folder from a file or a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isclose
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from escultor.cli import lookup
from escultor.cli.data.preview import preflight_data, preflight_lines
from escultor.cli.output import CommandResult, Shell
from escultor.cli.processes import Processes
from escultor.cli.progress import LiveProgress
from escultor.cli.skills import named_skill
from escultor.config import Training
from escultor.config.presets import PresetName, with_preset
from escultor.config.training import LORA_RATE
from escultor.data.jsonl import JsonlContents, write_jsonl
from escultor.datasets.held_out import load_guard
from escultor.datasets.reading import read_training_rows, versions_read
from escultor.errors import ConfigError, DataError, InputError
from escultor.evaluate.report.parts import count, duration
from escultor.store.blobs import tree_hash
from escultor.train.filenames import RECORD
from escultor.train.replay import with_replay

if TYPE_CHECKING:
    from escultor.batching.preflight import Preflight
    from escultor.train.run_record import RunRecord

RunOut = Annotated[Path, Option(help="Folder for the model, metrics.jsonl and run.json; new or empty.")]
ModelOption = Annotated[str, Option(help="Model or run folder, checkpoint id, champion, or escultor-base.")]
DataOption = Annotated[Path, Option(help="A file of rows, or a dataset of the store.")]

LOST = 0.2  # share of a run's gain that rounding its weights may undo before it is said
PresetOption = Annotated[
    PresetName | None,
    Option(help="Defaults for models of a size: LoRA, batch and memory; keys of the configuration go first."),
]


@dataclass(frozen=True)
class TuneOptions:
    """The options of a method that starts from a model."""

    model: ModelOption
    data: DataOption
    out: RunOut
    preset: PresetOption = None


def pretrain(
    shell: Shell,
    processes: Processes,
    out: RunOut,
    data: Annotated[Path, Option(help='JSONL of {"text": …}, or a dataset of the store.')],
) -> CommandResult:
    """Train a tokenizer and a new model on plain text."""
    from escultor.train.runs import pretrain as train

    contents = read_training(shell, data, "document")
    start = partial(train, contents.items, shell.config.pretrain, datasets=contents.datasets)
    return _run(shell, processes, "pretrain", out, contents, settings=shell.config.pretrain, train=start)


def sft(
    shell: Shell,
    processes: Processes,
    model: ModelOption,
    out: RunOut,
    data: Annotated[Path | None, Option(help="A file of rows, or a dataset of the store.")] = None,
    skill: Annotated[
        str | None,
        Option(metavar="NAME|FILE", help="Learn the `examples` of a skill, not --data."),
    ] = None,
    preset: PresetOption = None,
) -> CommandResult:
    """Teach a model to answer as examples do (supervised fine-tuning)."""
    if (data is None) == (skill is None):
        got = "neither" if data is None else "both"
        raise InputError("what is to be learnt?", got, "one of --data and --skill")
    if skill is None:
        assert data is not None
        return _tune(shell, processes, "sft", TuneOptions(model, data, out, preset))
    with TemporaryDirectory(prefix="escultor-examples-") as folder:
        rows = _example_rows(shell, skill, Path(folder))
        return _tune(shell, processes, "sft", TuneOptions(model, rows, out, preset))


def _example_rows(shell: Shell, name: str, folder: Path) -> Path:
    """A file of the examples of a skill but those that ask what an item of its suite asks, which is said."""
    from escultor.datasets.held_out import HeldOutGuard
    from escultor.skills.suite_files import skill_examples, skill_suite

    skill = named_skill(shell, name)
    examples = skill_examples(skill)
    suite = skill_suite(skill, shell.config.evaluation)
    items = () if suite is None else suite.items
    counts: Counter[str] = Counter()
    kept = HeldOutGuard.of(item.prompt for item in items).allowed(examples, counts)
    for reason, n in counts.items():
        shell.print(f"{n:,} examples: {reason}")
    if not kept:
        what, remedy = f"the skill `{skill.name}` has no examples to learn", "list rows {input, output}"
        raise DataError(what, dict(counts) or "none under `examples`", "at least one", remedy)
    file = folder / f"{skill.name}.examples.jsonl"
    write_jsonl(file, kept)
    return file


def dpo(shell: Shell, processes: Processes, options: TuneOptions) -> CommandResult:
    """Make a model prefer the chosen over the rejected answers (direct preference optimisation)."""
    return _tune(shell, processes, "dpo", options)


def kto(shell: Shell, processes: Processes, options: TuneOptions) -> CommandResult:
    """Learn from unpaired answers, each rated good or bad (Kahneman-Tversky optimisation)."""
    return _tune(shell, processes, "kto", options)


def distill(
    shell: Shell,
    processes: Processes,
    teacher: Annotated[str, Option(help="The model to learn from; named as for --model of `sft`.")],
    data: DataOption,
    out: RunOut,
    student: Annotated[str | None, Option(help="The model to train; default: cut from the teacher.")] = None,
    preset: PresetOption = None,
) -> CommandResult:
    """Teach a small model to answer with the probabilities of a larger one (distillation)."""
    from escultor.model.student import cut_student
    from escultor.train.run_record import TrainingTask
    from escultor.train.runs import run, same_vocabulary

    settings = with_preset(shell.config.distillation, preset)
    if student is not None and (settings.layers or settings.intermediate_size):
        what = "`distillation.layers` and `distillation.intermediate_size` say how to cut a student"
        raise ConfigError(what, f"--student {student}", "one of both", "remove these keys, or --student")
    teacher_folder = lookup.find_model(shell, teacher)
    student_folder = lookup.find_model(shell, student) if student is not None else None
    contents = read_training(shell, data, "example", settings)
    frozen = lookup.load_model(teacher_folder)
    if student_folder is None:
        start = cut_student(frozen, settings.layers, settings.intermediate_size)
    else:
        start = lookup.load_model(student_folder)
        same_vocabulary(start, frozen)
    parents = tuple(tree_hash(folder) for folder in (student_folder, teacher_folder) if folder is not None)
    task = TrainingTask(
        "distill", start, contents.items, settings, frozen, parents=parents, datasets=contents.datasets
    )
    return _run(shell, processes, "distill", out, contents, settings=settings, train=partial(run, task))


def _tune(shell: Shell, processes: Processes, method: str, options: TuneOptions) -> CommandResult:
    """Run a method that has a section of its name in the configuration."""
    from escultor.train.methods import METHODS
    from escultor.train.run_record import TrainingTask
    from escultor.train.runs import run

    folder = lookup.find_model(shell, options.model)
    settings = with_preset(getattr(shell.config, method), options.preset)
    contents = read_training(shell, options.data, METHODS[method].kind, settings)
    start, parents = lookup.load_model(folder), (tree_hash(folder),)
    task = TrainingTask(method, start, contents.items, settings, parents=parents, datasets=contents.datasets)
    train = partial(run, task, cache=lookup.reference_cache(shell))
    return _run(shell, processes, method, options.out, contents, settings=settings, train=train)


def _run(
    shell: Shell,
    processes: Processes,
    method: str,
    out: Path,
    contents: JsonlContents,
    settings: Training,
    train: Callable[..., RunRecord],
) -> CommandResult:
    """Call `train(out, world=…, on_step=…, on_preflight=…)` with the pre-flight report and progress shown;
    then print what was made and what was left out."""
    reused = (out / RECORD).is_file()
    preflight: dict[str, Any] | None = None
    with processes.joined() as world, LiveProgress() as live:
        live.phase(method)

        def on_preflight(report: Preflight) -> None:
            nonlocal preflight
            preflight = preflight_data(report)
            for line in (*method_lines(settings), *preflight_lines(report)):
                live.note(line)

        record = train(out, world=world, on_step=live.training, on_preflight=on_preflight)
    model = lookup.output_folder(out)
    shell.print(f"{method}: {'reused, it was done already' if reused else 'done'}; {model}", "bold")
    figures = (f"{record.steps:,} steps", f"{count(record.tokens)} tokens", f"loss {record.loss:.4f}")
    shell.print("  ".join((*figures, duration(record.seconds))))
    for line in saved_lines(record):
        shell.print(line)
    left_out = {reason: n for reason, n in contents.counts.items() if reason != "kept"}
    shell.table(["Rows", "Count"], [(reason, n) for reason, n in (record.counts | left_out).items() if n])
    data = {"out": out, "model": model, "reused": reused, "read": contents.counts, **asdict(record)}
    return CommandResult(data | {"preflight": preflight})


def method_lines(settings: Training) -> list[str]:
    """How the model is trained, and a warning where an adapter learns at the rate of a whole model."""
    rate, full = settings.learning_rate, type(settings).model_fields["learning_rate"].default
    lora = settings.lora
    if lora is None:
        return [f"the whole model is trained, at learning rate {rate:g}"]
    where = ", ".join(lora.targets) or "all linear layers but the head"
    times = f", {LORA_RATE:g} times that of the whole model" if isclose(rate, LORA_RATE * full) else ""
    lines = [f"LoRA of rank {lora.rank} on {where}, at learning rate {rate:g}{times}"]
    if isclose(rate, full):
        lines.append(
            f"warning: {rate:g} is the rate for a whole model; an adapter usually needs {LORA_RATE * full:g}"
        )
    return lines


def saved_lines(record: RunRecord) -> list[str]:
    """What was read back of what was saved, and how far the model has moved; nothing for older records."""
    lines = []
    if record.read_back:
        read = {name: loss for name, loss in record.read_back.items() if name not in ("trained", "start")}
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in read.items())
        trained = record.read_back["trained"]
        lines.append(f"read back, in {record.dtype}: loss {losses}, as trained {trained:.4f} on a few rows")
        gained = record.read_back.get("start", trained) - trained
        lost = max(read.values()) - trained
        if lost > LOST * gained > 0:
            lines.append(
                f"warning: writing {record.dtype} undid {lost / gained:.0%} of what the run gained on them; "
                "train at a higher rate, or set save_dtype=float32"
            )
    if record.drift is not None:
        lines.append(f"distance from the start on general questions: {record.drift:.3g} nats per token (KL)")
    return lines


# --- rows to train on -------------------------------------------------------------------------


def read_training(shell: Shell, data: Path, kind: Any, settings: Training | None = None) -> JsonlContents:
    """The rows of a file or of the dataset of that name, with the earlier rows that `settings.replay` asks
    for. Rows that are held out in the store are left out and counted.

    Raises DataError when nothing is left, InputError where there is neither file nor dataset.
    """
    with lookup.store_if_any(shell) as store:
        _, contents = read_training_rows(data, kind, store)
        counts, items = Counter(contents.counts), contents.items
        if store is not None:
            items = load_guard(store).allowed(items, counts)
            if not items:
                what = f"{data} holds nothing that may be learnt"
                raise DataError(what, dict(counts), "a prompt that is not held out")
            counts["kept"] = len(items)
        if settings is not None:
            seed = settings.seed
            items = with_replay(items, settings.replay, kind, store, seed=seed, counts=counts)
        replayed = versions_read(settings and settings.replay and settings.replay.data, store)
        datasets = tuple(dict.fromkeys((*versions_read(data, store), *replayed)))
    return replace(contents, items=tuple(items), counts=dict(counts), datasets=datasets)
