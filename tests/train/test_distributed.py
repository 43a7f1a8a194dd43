"""Several processes train as one: two real ones over gloo, against one alone."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from dataclasses import replace
from unittest.mock import patch

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from several import together

from escultor.batching.batches import nll_batch, split_evenly
from escultor.batching.rows import UnpairedRow
from escultor.config import Distillation, Dpo, Kto, Lora, Training
from escultor.errors import ConfigError, StoreError, TrainingError
from escultor.model.adapters import merge_adapter, with_adapter
from escultor.train import loop, optim, state
from escultor.train.distributed import ALONE, World
from escultor.train.loop import Objective, train
from escultor.train.methods import METHODS, Frozen
from escultor.train.resume import RunFolder
from escultor.train.state import restore_state
from escultor.train.streams import PackedStream, RowStream

ROWS, BATCH = 11, 5  # three steps, the last with a single row: one of two processes has none


def judged(count):
    pairs = tiny.pair_rows(count)
    return [
        UnpairedRow(row.id, row.prompt, row.chosen, row.rejected, i % 2 == 0) for i, row in enumerate(pairs)
    ]


def own(kind=Training, **changes):
    base = tiny.TRAINING.model_dump() | {
        "batch_size": BATCH,
        "micro_batch_size": 2,
        "weight_decay": 0.1,
        "learning_rate": 2e-4,
    }
    return kind.model_validate(base | changes)


CASES = {
    "sft": ("sft", own()),
    "sft, muon": ("sft", own(optimizer="muon")),
    "sft, lora": ("sft", own(lora=Lora(rank=4))),
    "pretrain": ("pretrain", own(max_length=40, batch_size=3)),
    "dpo": ("dpo", own(Dpo)),
    "kto": ("kto", own(Kto)),
    "distill": ("distill", own(Distillation)),
}
ROWS_OF = {
    "distill": tiny.nll_rows,
    "sft": tiny.nll_rows,
    "pretrain": tiny.nll_rows,
    "dpo": tiny.pair_rows,
    "kto": judged,
}
SPREAD = [
    (name, strategy)
    for name in CASES
    for strategy in ("ddp", "fsdp")
    if (name, strategy) != ("sft, muon", "fsdp")
]


def learn(world, name, run=None, on_step=lambda report: None):
    """Reports and final weights of one case (None but in the first process), and the model's own."""
    phase, settings = CASES[name]
    start = tiny.llama()
    method = METHODS[phase]
    torch.manual_seed(7)
    teacher = tiny.llama(seed=1) if phase == "distill" else start
    frozen = Frozen(teacher.model, None, Counter(), world)
    stream = method.stream(ROWS_OF[phase](ROWS), frozen, settings)
    student = with_adapter(start, settings.lora)
    reports = []

    def seen(report):
        reports.append((report.loss, report.grad_norm, report.tokens, *report.more.values()))
        on_step(report)

    with patch.object(
        optim, "fast_bfloat16", lambda device: False
    ):  # Muon's products, else equal to 1e-5 only
        train(student.model, stream, method.objective(settings), settings, run, seen, world)
    world.unshard(student.model)
    weights = merge_adapter(student).model.state_dict() if world.is_first or not world.is_sharded else {}
    return reports, {name: value.numpy() for name, value in weights.items()}, dict(frozen.counts)


def all_at_once(world, folder):
    """Every case, and the ways to stop; one launch for all."""
    learnt = {case: learn(replace(world, strategy=case[1]), case[0]) for case in SPREAD}
    stopped = {
        (name, strategy): stop(replace(world, strategy=strategy))
        for name, stop in (("loss", stopped_by_loss), ("gradient", stopped_by_gradient))
        for strategy in ("ddp", "fsdp")
    }
    return learnt, stopped | {"disk": stopped_by_a_full_disk(world, folder)}


def stopped_by_a_full_disk(world, folder):
    """What a process says, and what is left, where the second state of a run does not fit."""
    write = state.save

    def full(values, checkpoint_id):
        write(values, checkpoint_id=checkpoint_id)
        if checkpoint_id.name == ".state-000000002.tmp":
            raise OSError(28, "No space left on device")

    with patch.object(state, "save", full), pytest.raises(StoreError) as caught:
        kept(world, "fsdp", folder)
    world.barrier()
    return str(caught.value), sorted(path.name for path in folder.iterdir())


def stopped_by_loss(world):
    """What a process says where one row of the second step is broken; the other process has it, or this."""
    rows = [replace(r, weight=float("inf")) if i == 6 else r for i, r in enumerate(tiny.nll_rows(8))]
    stream = RowStream(rows, own(shuffle=False, batch_size=4), nll_batch, world)
    return message(world, stream, METHODS["sft"].objective(stream.settings))


def stopped_by_gradient(world):
    """The same where the gradient of a single process is broken, and its loss is not."""
    stream = RowStream(tiny.nll_rows(8), own(), nll_batch, world)
    nll = METHODS["sft"].objective(stream.settings)

    def steep(model, batch, before):
        loss = nll.loss(model, batch, before)
        head = model.get_output_embeddings().weight
        return replace(loss, total=loss.total + torch.sqrt(head * 0).sum()) if world.rank else loss

    return message(world, stream, Objective(steep))


def message(world, stream, objective):
    with pytest.raises(TrainingError) as caught:
        train(tiny.llama().model, stream, objective, stream.settings, world=world)
    return str(caught.value)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes saw of every case, and how it was stopped."""
    return together(all_at_once, tmp_path_factory.mktemp("run"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("case", SPREAD, ids=" ".join)
def test_two_processes_learn_what_one_learns(two, case):
    reports, weights, counts = learn(ALONE, case[0])
    for learnt, _ in two:
        seen, theirs, counted = learnt[case]
        assert counted == counts
        assert [row[2] for row in seen] == [row[2] for row in reports]  # tokens
        for ours, alone in zip(seen, reports, strict=True):
            assert ours == pytest.approx(alone, abs=1e-6, rel=1e-6)
        for name, value in theirs.items():
            assert abs(value - weights[name]).max() < 1e-6, name
    assert two[0][0][case][1].keys() == weights.keys()


def test_replicas_stay_the_same_bit_for_bit(two):
    for case in SPREAD:
        if case[1] == "ddp":
            one, other = (learnt[case][1] for learnt, _ in two)
            assert all((one[name] == other[name]).all() for name in one)


def test_what_is_not_finite_in_one_process_stops_all_with_its_rows(two):
    for strategy in ("ddp", "fsdp"):
        one, other = (stopped["loss", strategy] for _, stopped in two)
        assert one == other
        assert "the loss of step 2 is not finite" in one
        assert "row6" in one
        one, other = (stopped["gradient", strategy] for _, stopped in two)
        assert one == other
        assert "the gradient norm of step 1 is not finite; got: nan on rows row" in one


def test_a_full_disk_leaves_the_old_state_in_shares(two):
    for _, stopped in two:
        said, left = stopped["disk"]
        assert "state could not be written" in said
        assert "remedy: free disk space" in said
        assert left == ["metrics.jsonl", "state-000000001"]


# --- resuming ---------------------------------------------------------------------------------


def kept(world, strategy, folder, dies_at=None):
    """The final weights of a run whose state is kept at every step; at `dies_at` the second process dies
    before the state is whole."""
    save = loop.save_state

    def save_or_die(run, progress, *rest):
        if progress[0] == dies_at and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        save(run, progress, *rest)

    with patch.object(loop, "SAVE_EVERY_S", -1.0), patch.object(loop, "save_state", save_or_die):
        return learn(replace(world, strategy=strategy), "sft", RunFolder(folder, "key"))[1]


@pytest.mark.parametrize(("strategy", "last"), [("ddp", "state.pt"), ("fsdp", "state-000000003")])
def test_a_killed_run_goes_on_bit_for_bit_and_with_other_processes_too(tmp_path, strategy, last):
    cut, other = RunFolder(tmp_path / "cut", "key"), tmp_path / "other"
    lost, nothing = together(kept, strategy, cut.path, 3, failures=True)
    assert nothing is None
    assert "another process of this run is gone" in lost
    assert cut.begun
    shutil.copytree(cut.path, other)
    whole, _ = together(kept, strategy, tmp_path / "whole")
    resumed, _ = together(kept, strategy, cut.path)
    assert all((whole[name] == resumed[name]).all() for name in whole)
    assert [row["step"] for row in cut.read_metrics()] == [1, 2, 3]
    assert {path.name for path in cut.path.iterdir()} == {"metrics.jsonl", last}
    three, _, _ = together(kept, strategy, other, size=3)
    assert all(abs(whole[name] - three[name]).max() < 1e-6 for name in whole)
    cut.finish()
    assert [path.name for path in cut.path.iterdir()] == ["metrics.jsonl"]


def test_the_state_of_another_strategy_is_refused(tmp_path):
    run = RunFolder(tmp_path / "shares", "key")
    (run.path / "state-000000002").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"holds a run of another strategy.*--strategy fsdp"):
        run.load()
    run = RunFolder(tmp_path / "whole", "key")
    run.save({"step": 1})
    model, world = tiny.llama().model, replace(ALONE, strategy="fsdp")
    optimizers = optim.Optimizers(model, own())
    with pytest.raises(TrainingError, match=r"holds a run of another strategy.*--strategy ddp"):
        restore_state(run, model, optimizers, world)


def test_muon_and_fsdp_are_refused():
    with pytest.raises(ConfigError, match=r"optimizer muon under strategy fsdp; allowed: .*remedy: "):
        replace(ALONE, strategy="fsdp").check_settings(own(optimizer="muon"))


# --- shares of a step -------------------------------------------------------------------------


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 6))
def test_an_even_split_holds_every_index_once_and_parts_differ_by_one_row_at_most(lengths, parts):
    split = split_evenly(lengths, parts)
    assert sorted(i for part in split for i in part) == list(range(len(lengths)))
    tokens = [sum(lengths[i] for i in part) for part in split]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["rows", "packed"])
def test_shares_make_up_the_step_and_keep_pace(kind, size):
    rows, settings = tiny.nll_rows(ROWS), own(max_length=40)

    def made(world):
        args = (nll_batch, world) if kind == "rows" else (world,)
        return (RowStream if kind == "rows" else PackedStream)(rows, settings, *args)

    def named(batches):
        return sorted(row for batch in batches for row in batch.rows)

    for step in range(made(ALONE).steps):
        shares = [list(made(World(rank, size)).micro_batches(step)) for rank in range(size)]
        assert named(batch for share in shares for batch in share) == named(made(ALONE).micro_batches(step))
        assert len({len(share) for share in shares}) == 1
