"""One run from items to a model folder: rows, stream, loop, weights, and a record of what was done."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from escultor.batching.preflight import Preflight, preflight
from escultor.batching.rows import BranchedRow, NllRow, PairRow, TokenRow
from escultor.config import Pretrain, Training
from escultor.errors import DataError, InputError, ModelError, NotFinite, StoreError
from escultor.ids import code_hash, hash_value
from escultor.model.adapters import (
    adapter_without_base,
    merge_adapter,
    save_adapter,
    untied_numbers,
    with_adapter,
)
from escultor.model.attention import refuse_beyond_window
from escultor.model.folders import save
from escultor.model.forward import unwrapped
from escultor.model.load import init_llama
from escultor.model.loaded import Loaded, count_parameters, folder_of, forget_folder, max_context_tokens
from escultor.rng import derive_seed
from escultor.text.tokenizer import train_tokenizer, vocabulary_hash
from escultor.train.device_setup import models_on_device, prepared_layers, with_activation_offload
from escultor.train.distributed import ALONE, World
from escultor.train.filenames import ADAPTER, LAST_GOOD, MODEL
from escultor.train.forecast import run_cost
from escultor.train.lock import held
from escultor.train.loop import Objective, StepReport, Stream, train
from escultor.train.methods import METHODS, Frozen
from escultor.train.readback import Beginning, check_saved, mean_loss, release, rows_to_read_back
from escultor.train.resume import RunFolder
from escultor.train.run_record import RunRecord, TrainingTask, dataset_hash, finished, run_key, write_record
from escultor.types import Document

OnStep = Callable[[StepReport], None]
OnPreflight = Callable[[Preflight], None]


def run(
    task: TrainingTask,
    out: Path,
    *,
    cache: Path | None = None,
    world: World = ALONE,
    on_step: OnStep = lambda report: None,
    on_preflight: OnPreflight = lambda report: None,
) -> RunRecord:
    """Run `task` and write model, tokenizer, metrics.jsonl and run.json to `out`; with LoRA also the adapter
    alone, where the base model lies in a folder.

    A run that was cut short goes on; the record of one that is done is returned. `cache` is the folder of the
    reference's log-probs, for other runs too (None: in memory). `on_preflight` receives the report on rows
    and cost before the first step. All processes of `world` call this alike; the first writes. Training is in
    place, and `task.start` is without weights afterwards: what was saved is read back, and must give the
    losses of the trained model, before the run is done.

    Raises InputError when `out` holds anything else, or another run is at work in it; DataError when no row
    is left to learn from; what `Preflight.raise_faults` raises; NotFinite, when the model of the last good
    step is kept in `out` under `last-good`; FaultError where what was saved is not what was trained.
    """
    world = world.on_device(task.settings.device)
    _check_task(task, world)
    dataset = dataset_hash(task.items)
    folder = RunFolder(out, run_key(task, dataset))
    record = finished(out, folder.key)
    if record is None:
        with held(out, world):
            record = finished(out, folder.key)  # another run may have been at work until now
            if record is None:
                (date, *_) = world.gather(folder.began() or _today())
                task = replace(task, start=replace(task.start, date=date))
                rows, counts = _rows(task)
                report = _preflight(task, rows, counts, world.device)
                on_preflight(report)
                report.raise_faults(documents=METHODS[task.method].kind == "document")
                frozen = Frozen((task.frozen or task.start).model, cache, counts, world)
                record = _train_and_save(task, dataset, rows, frozen, folder, on_step=on_step)
    if world.is_first:
        folder.finish()
    return record


def pretrain(
    documents: Sequence[Document],
    settings: Pretrain,
    out: Path,
    *,
    datasets: tuple[str, ...] = (),
    world: World = ALONE,
    on_step: OnStep = lambda report: None,
    on_preflight: OnPreflight = lambda report: None,
) -> RunRecord:
    """Train a tokenizer and a fresh model on documents. See `run` and `TrainingTask`."""
    # Every second document settles the vocabulary, in half the time.
    tokenizer = train_tokenizer((d.text for d in documents[::2]), settings.vocabulary, settings.context)
    torch.manual_seed(settings.seed)
    start = Loaded(init_llama(settings, tokenizer), tokenizer)
    task = TrainingTask("pretrain", start, documents, settings, datasets=datasets)
    return run(task, out, world=world, on_step=on_step, on_preflight=on_preflight)


def preview(task: TrainingTask, show: int = 3) -> Preflight:
    """What a run of `task`, whose `start` may be without weights, would learn from and cost, with the first
    `show` rows token by token."""
    return _preflight(task, *_rows(task), ALONE.on_device(task.settings.device).device, show)


def same_vocabulary(student: Loaded, teacher: Loaded) -> None:
    """Raise ModelError where the token ids of student and teacher mean different things."""
    ours, theirs = vocabulary_hash(student.tokenizer), vocabulary_hash(teacher.tokenizer)
    if ours != theirs:
        what = "student and teacher have different tokenizers"
        remedy = "distil into a student that was made from this teacher"
        raise ModelError(what, f"{ours[:8]} and {theirs[:8]}", "the same", remedy)


def _check_task(task: TrainingTask, world: World) -> None:
    """Raise InputError where the parts of a task do not go together."""
    world.check_settings(task.settings)
    if task.method not in METHODS:
        raise InputError("there is no such method", task.method, ", ".join(METHODS))
    needs_teacher = METHODS[task.method].frozen == "teacher"
    if needs_teacher and (task.frozen is None or task.frozen is task.start):
        raise InputError("distillation needs a teacher apart from the student", remedy="give a teacher")
    lora = task.settings.lora
    if lora and not lora.merge and folder_of(task.start.model) is None:
        raise adapter_without_base()


def _today() -> datetime.date:
    return datetime.datetime.now().astimezone().date()


def _rows(task: TrainingTask) -> tuple[Sequence[Any], Counter[str]]:
    """The items as rows of at most `max_length` tokens, or of the model's context where that is shorter."""
    counts: Counter[str] = Counter()
    max_length = task.settings.max_length
    limit = min(max_length, max_context_tokens(task.start.model))
    rows = METHODS[task.method].rows(task.items, task.start.chat, limit, counts, task.settings)
    if not rows:
        what = "max_length" if limit == max_length else "the model's context: take another model"
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in counts.items())
        remedy = f"shorten the rows, or raise {what} (now {limit:,} tokens)"
        raise DataError("no row is left to learn from", reasons, "at least one", remedy)
    branched = max((row.length for row in rows if isinstance(row, PairRow)), default=0)
    refuse_beyond_window(task.start.model.config, max(map(_sequence_length, rows)), branched)
    return rows, counts


def _sequence_length(row: TokenRow) -> int:
    """The tokens of a row's longest sequence: of one branch after its prompt."""
    return len(row.prompt) + max(map(len, row.branches)) if isinstance(row, BranchedRow) else row.length


def _preflight(
    task: TrainingTask, rows: Sequence[Any], counts: Counter[str], device: torch.device, show: int = 3
) -> Preflight:
    method, start = METHODS[task.method], task.start
    teacher = (task.frozen or start).model if method.frozen == "teacher" else None
    cost = run_cost(method, rows, start.model, task.settings, teacher, device=device)
    documents = method.kind == "document"
    report = preflight(rows, counts, start.chat, start.model, cost, documents=documents, show=show)
    lora = task.settings.lora
    if lora and (gained := untied_numbers(start.model, lora)):
        text = (
            "embedding and head of this model are one weight, and the adapter changes them: "
            f"the model that is saved has two, {gained:,} parameters more"
        )
        report = replace(report, warnings=(*report.warnings, text))
    return report


def _train_and_save(
    task: TrainingTask, dataset: str, rows: Sequence[Any], frozen: Frozen, folder: RunFolder, on_step: OnStep
) -> RunRecord:
    """Train, and write the model and its record."""
    settings, start, method, world = task.settings, task.start, METHODS[task.method], frozen.world
    torch.manual_seed(derive_seed(settings.seed, task.method))
    probe = rows_to_read_back(rows)
    began = Beginning(start, probe) if world.is_first and method.kind != "document" else None
    models = list({id(model): model for model in (start.model, frozen.model)}.values())
    with models_on_device(models, settings, world, max(map(_sequence_length, rows))):
        stream = method.stream(rows, frozen, settings)
        student = with_adapter(start, settings.lora)
        if world.size > 1:  # what is drawn from here on is each process's own
            torch.manual_seed(derive_seed(settings.seed, task.method, "rank", world.rank))
        objective = with_activation_offload(method.objective(settings), settings)
        if world.is_first and start.date:
            folder.begin(start.date)
        report = _train_student(student, stream, objective, settings, folder, on_step=on_step, world=world)
    last = folder.read_metrics()[-1] if report is None else report.row()
    made = _save_and_read_back(student, probe, task, folder, began) if world.is_first else {}
    (made, *_) = world.gather(made)
    record = RunRecord(
        key=folder.key,
        method=task.method,
        parents=task.parents,
        datasets=task.datasets,
        dataset_hash=dataset,
        config_hash=hash_value(settings.model_dump()),
        code_version=code_hash(),
        seed=settings.seed,
        counts=dict(frozen.counts),
        steps=stream.steps,
        tokens=last["tokens"],
        seconds=last["seconds"],
        loss=last["loss"],
        **made,
    )
    if world.is_first:
        write_record(folder.path, record)
    world.barrier()
    return record


def _train_student(
    student: Loaded,
    stream: Stream,
    objective: Objective,
    settings: Training,
    folder: RunFolder,
    on_step: OnStep,
    world: World,
) -> StepReport | None:
    """Train in place; afterwards the first process holds the student's whole weights."""
    with prepared_layers(student.model, settings):
        try:
            report = train(student.model, stream, objective, settings, folder, on_step=on_step, world=world)
        except NotFinite as error:
            world.unshard(student.model)
            raise (_with_last_good(error, student, folder) if world.is_first else error) from error
        world.unshard(student.model)
    return report


def _with_last_good(error: NotFinite, student: Loaded, folder: RunFolder) -> NotFinite:
    """Keep the model as it was before the step that failed, if any step was taken and its weights are finite,
    and say how to go on."""
    path = folder.path / LAST_GOOD
    if not all(bool(torch.isfinite(weight).all()) for weight in student.model.parameters()):
        remedy = "lower the learning rate: the step before left weights that are not finite"
        return NotFinite(error.what, error.got, error.allowed, remedy)
    try:
        if folder.read_metrics():
            save(merge_adapter(student), path)
            remedy = "mend these rows, or lower the learning rate; to go on from the step before, start from"
            return NotFinite(error.what, error.got, error.allowed, f"{remedy} {path}")
    except StoreError:  # the failed step and its rows matter more than the copy
        pass
    return error


def _save_and_read_back(
    student: Loaded,
    probe: Sequence[NllRow],
    task: TrainingTask,
    folder: RunFolder,
    began: Beginning | None,
) -> dict[str, Any]:
    """Write the weights and read them back; the student's own are let go of. Returns the record's fields that
    tell of it. Raises FaultError where what was saved is not what was trained."""
    settings = task.settings
    trained = mean_loss(student.model, probe)
    figures = {"trained": trained}
    moved = None
    if began is not None:
        figures |= {"start": began.loss} if began.loss is not None else {}
        moved = began.divergence(student.model)
    dtype = student.dtype if settings.save_dtype == "base" else settings.save_dtype
    saved = []
    if settings.lora and folder_of(unwrapped(student.model)):
        saved.append(folder.path / ADAPTER)
        save_adapter(student, folder.path / ADAPTER)
    merged_student = merge_adapter(student)
    forget_folder(merged_student.model)
    if not settings.lora or settings.lora.merge:
        saved.append(folder.path / MODEL)
        save(merged_student, saved[-1], dtype, ends_turns=METHODS[task.method].kind != "document")
    parameters = count_parameters(merged_student.model)
    release(merged_student.model)
    remedy = (
        f"the state is kept in {folder.path}: repeat the command to save again, or set save_dtype=float32"
    )
    figures |= {path.name: check_saved(path, probe, trained, remedy) for path in saved}
    made = {"parameters": parameters, "dtype": dtype, "read_back": figures, "drift": moved}
    return made | {"date": task.start.date.isoformat() if task.start.date else ""}
