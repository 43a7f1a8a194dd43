"""One run from items to a model folder: rows, stream, loop, weights, and a record of what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from escultor.batching.preflight import Preflight
from escultor.config import Pretrain, Training
from escultor.errors import DataError, InputError, ModelError, NotFinite, StoreError
from escultor.ids import code_hash, hash_value
from escultor.model.adapters import adapter_without_base, merge_adapter, save_adapter, with_adapter
from escultor.model.folders import save
from escultor.model.forward import unwrapped
from escultor.model.load import init_llama
from escultor.model.loaded import Loaded, count_parameters, folder_of, forget_folder
from escultor.rng import derive_seed
from escultor.text.tokenizer import tokenizer_hash, train_tokenizer
from escultor.train.device_setup import placed, prepared, sparing
from escultor.train.distributed import ALONE, World
from escultor.train.filenames import ADAPTER, LAST_GOOD, MODEL
from escultor.train.forecast import look
from escultor.train.lock import held
from escultor.train.loop import Objective, StepReport, Stream, train
from escultor.train.methods import METHODS, Frozen, Method
from escultor.train.resume import RunFolder
from escultor.train.run_record import RunRecord, dataset_hash, finished, run_key, write_record
from escultor.types import Document

OnStep = Callable[[StepReport], None]
OnPreflight = Callable[[Preflight], None]


@dataclass(frozen=True, slots=True)
class _Task:
    """What decides the result of a run."""

    phase: str
    start: Loaded
    items: Sequence[Any]
    settings: Training
    frozen: Loaded | None
    parents: tuple[str, ...]

    @property
    def method(self) -> Method:
        return METHODS[self.phase]

    def refuse(self, world: World) -> None:
        """Raise InputError where its parts do not go together."""
        world.refuse(self.settings)
        if self.phase not in METHODS:
            raise InputError("there is no such phase", self.phase, ", ".join(METHODS))
        if self.method.frozen == "teacher" and (self.frozen is None or self.frozen is self.start):
            raise InputError("distillation needs a teacher apart from the student", remedy="give a teacher")
        lora = self.settings.lora
        if lora and not lora.merge and folder_of(self.start.model) is None:
            raise adapter_without_base()


def run(
    phase: str,
    start: Loaded,
    items: Sequence[Any],
    settings: Training,
    out: Path,
    frozen: Loaded | None = None,
    parents: tuple[str, ...] = (),
    *,
    on_step: OnStep = lambda report: None,
    cache: Path | None = None,
    world: World = ALONE,
    on_preflight: OnPreflight = lambda report: None,
) -> RunRecord:
    """Train `start` on `items` and write model, tokenizer, metrics.jsonl and run.json to `out`; with LoRA
    also the adapter alone, where the base lies in a folder.

    `frozen` is the reference (default: `start` before its first step) or the teacher; what the reference
    says is kept in the folder `cache` (None: in memory), for other runs too; `parents` are names for the
    record. A run that was cut short goes on; one that is done is returned as it is; a folder that holds
    anything else, or in which another run is at work, is refused with InputError. What the rows are and what
    the run will take is told to `on_preflight` before it begins. Of several processes (`world`) each calls
    this alike, and the first writes. Raises DataError when no row is left to learn from, what
    `Preflight.refuse` does, and NotFinite, when the model of the last good step is kept in `out` under
    `last-good`.
    """
    world = world.at(settings.device)
    task = _Task(phase, start, items, settings, frozen, parents)
    task.refuse(world)
    dataset = dataset_hash(items)
    folder = RunFolder(out, run_key(phase, start, frozen, dataset, settings, parents))
    record = finished(out, folder.key)
    if record is None:
        with held(out, world):  # another run may have been at work until now
            record = finished(out, folder.key) or _made(
                task, dataset, folder, cache, on_step, on_preflight, world
            )
    if world.first:
        folder.finish()
    return record


def _made(
    task: _Task,
    dataset: str,
    folder: RunFolder,
    cache: Path | None,
    on_step: OnStep,
    on_preflight: OnPreflight,
    world: World,
) -> RunRecord:
    """Look, train, and write the model and its record."""
    settings, start = task.settings, task.start
    rows, counts = _looked_at(task, on_preflight, world)
    torch.manual_seed(derive_seed(settings.seed, task.phase))
    other = task.frozen or start
    with placed([start.model] if other is start else [start.model, other.model], settings, world):
        stream = task.method.stream(rows, Frozen(other.model, cache, counts, world), settings)
        student = with_adapter(start, settings.lora)
        if world.size > 1:  # what is drawn from here on is each process's own
            torch.manual_seed(derive_seed(settings.seed, task.phase, "rank", world.rank))
        objective = sparing(task.method.objective(settings), settings)
        report = _trained(student, stream, objective, settings, folder, on_step, world)
    last = folder.read_metrics()[-1] if report is None else report.row()
    made_of = (dataset, hash_value(settings.model_dump()), code_hash(), settings.seed)
    figures = (stream.steps, last["tokens"], last["seconds"], last["loss"])
    parameters = _saved(student, settings, folder) if world.first else 0
    (parameters, *_) = world.gather(parameters)
    record = RunRecord(folder.key, task.phase, task.parents, *made_of, dict(counts), *figures, parameters)
    if world.first:
        write_record(folder.path, record)
    world.wait()
    return record


def pretrain(
    documents: Sequence[Document],
    settings: Pretrain,
    out: Path,
    on_step: OnStep = lambda report: None,
    world: World = ALONE,
    on_preflight: OnPreflight = lambda report: None,
) -> RunRecord:
    """Train a tokenizer and a fresh model on documents. See `run`."""
    # Every second document settles the vocabulary, in half the time.
    tokenizer = train_tokenizer((d.text for d in documents[::2]), settings.vocabulary, settings.context)
    torch.manual_seed(settings.seed)
    start = Loaded(init_llama(settings, tokenizer), tokenizer)
    more: dict[str, Any] = {"on_step": on_step, "world": world, "on_preflight": on_preflight}
    return run("pretrain", start, documents, settings, out, **more)


def preview(
    phase: str,
    start: Loaded,
    items: Sequence[Any],
    settings: Training,
    teacher: Loaded | None = None,
    show: int = 3,
) -> Preflight:
    """What a run on `items` would learn from and take; `start` may be without weights. See `run`."""
    rows, counts = _rows(phase, start, items, settings)
    method = METHODS[phase]
    other = (teacher or start).model if method.frozen == "teacher" else None
    device = ALONE.at(settings.device).device
    return look(method, rows, counts, start.chat, start.model, settings, other, show, device)


def same_vocabulary(student: Loaded, teacher: Loaded) -> None:
    """Refuse a teacher whose token ids mean something else."""
    ours, theirs = tokenizer_hash(student.tokenizer), tokenizer_hash(teacher.tokenizer)
    if ours != theirs:
        raise ModelError(
            "student and teacher have different tokenizers",
            f"{ours[:8]} and {theirs[:8]}",
            "the same",
            "distil into a student that was made from this teacher",
        )


def _looked_at(task: _Task, on_preflight: OnPreflight, world: World) -> tuple[Sequence[Any], Counter[str]]:
    """The rows of a run and their counts, after its pre-flight."""
    rows, counts = _rows(task.phase, task.start, task.items, task.settings)
    seen = look(
        task.method,
        rows,
        counts,
        task.start.chat,
        task.start.model,
        task.settings,
        task.frozen.model if task.frozen and task.method.frozen == "teacher" else None,
        device=world.device,
    )
    on_preflight(seen)
    seen.refuse(documents=task.method.kind == "document")
    return rows, counts


def _rows(
    phase: str, start: Loaded, items: Sequence[Any], settings: Training
) -> tuple[Sequence[Any], Counter[str]]:
    counts: Counter[str] = Counter()
    rows = METHODS[phase].rows(items, start.chat, _room(start, settings), counts, settings)
    if not rows:
        room = _room(start, settings)
        limit = "max_length" if room == settings.max_length else "the model's context: take another model"
        remedy = f"shorten the rows, or raise {limit} (now {room:,} tokens)"
        told = ", ".join(f"{reason}: {n:,}" for reason, n in counts.items())
        raise DataError("no row is left to learn from", told, "at least one", remedy)
    return rows, counts


def _room(start: Loaded, settings: Training) -> int:
    """max_length, but never more than the model's context."""
    return min(settings.max_length, int(getattr(start.model.config, "max_position_embeddings", 1 << 30)))


def _with_last_good(error: NotFinite, student: Loaded, folder: RunFolder) -> NotFinite:
    """Keep the model as it was before the step that failed, if it took any, and say how to go on."""
    path = folder.path / LAST_GOOD
    if not folder.read_metrics():
        return error
    try:
        save(merge_adapter(student), path)
    except StoreError:  # the step and its rows are the more important news
        return error
    remedy = f"mend these rows, or lower the learning rate; to go on from the step before, start from {path}"
    return NotFinite(error.what, error.got, error.allowed, remedy)


def _trained(
    student: Loaded,
    stream: Stream,
    objective: Objective,
    settings: Training,
    folder: RunFolder,
    on_step: OnStep,
    world: World,
) -> StepReport | None:
    """Train in place; the weights of the student are whole afterwards in the first process."""
    with prepared(student.model, settings):
        try:
            report = train(student.model, stream, objective, settings, folder, on_step, world)
        except NotFinite as error:
            world.gathered(student.model)
            raise (_with_last_good(error, student, folder) if world.first else error) from error
        world.gathered(student.model)
    return report


def _saved(student: Loaded, settings: Training, folder: RunFolder) -> int:
    """Write the weights, and say how many numbers the whole model has."""
    if settings.lora and folder_of(unwrapped(student.model)):
        save_adapter(student, folder.path / ADAPTER)
    whole = merge_adapter(student)
    forget_folder(whole.model)
    if not settings.lora or settings.lora.merge:
        save(whole, folder.path / MODEL)
    return count_parameters(whole.model)
