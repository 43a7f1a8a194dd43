"""A run's folder: one run at a time, whoever was killed in it, and nothing left over when it is done."""

import fcntl
import json
import os
import signal
import threading

import pytest
import tiny
from forked import FORKED
from several import together

from escultor.config import Dpo
from escultor.errors import EscultorError, InputError, StoreError
from escultor.train import runs
from escultor.train.distributed import ALONE
from escultor.train.filenames import LOCK, LOCK_OWNER, RECORD
from escultor.train.lock import held
from escultor.train.resume import RunFolder
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Message, Pair, Role

ITEMS = tiny.examples(8)
DONE = ["metrics.jsonl", "model", "run.json"]


class Stop(Exception):
    pass


def sft(out, start=None, items=ITEMS, **how):
    return run(TrainingTask("sft", start or tiny.llama(), items, tiny.settings(max_steps=2)), out, **how)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- one at a time ----------------------------------------------------------------------------


def test_a_second_run_into_a_folder_is_refused_with_who_is_there_and_the_first_goes_on(tmp_path):
    refused = []

    def begin_another(report):
        with pytest.raises(InputError, match=r"another run is at work in .*one run at a time.*--out") as info:
            sft(tmp_path / "run")
        refused.append(info.value.got)

    record = sft(tmp_path / "run", on_step=begin_another)
    assert len(refused) == record.steps == 2
    assert all(f"process {os.getpid()} on " in who for who in refused)
    assert names(tmp_path / "run") == DONE
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def hold_and_die(folder, ready):
    with held(folder, ALONE):
        ready.set()
        signal.pause()


def test_a_killed_process_holds_nothing_and_a_living_one_all(tmp_path):
    ready = FORKED.Event()
    child = FORKED.Process(target=hold_and_die, args=(tmp_path / "run", ready))
    child.start()
    assert ready.wait(60)
    with pytest.raises(InputError) as info:
        sft(tmp_path / "run")
    assert f"process {child.pid} on " in info.value.got
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert names(tmp_path / "run") == [LOCK, LOCK_OWNER]
    sft(tmp_path / "run")
    assert names(tmp_path / "run") == DONE


def test_of_many_that_come_at_once_one_holds_the_folder_at_a_time(tmp_path):
    inside, most, done, turned_away = [], [], [], []
    together_now = threading.Barrier(8)

    def come():
        together_now.wait()
        for _ in range(50):
            try:
                with held(tmp_path / "a" / "run", ALONE):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    done.append(1)
            except InputError:
                turned_away.append(1)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(done) + len(turned_away) == 400
    assert not (tmp_path / "a" / "run" / LOCK).exists()


def test_folders_made_for_a_run_that_is_refused_are_removed_and_others_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(EscultorError, match="at least one"):
        sft(tmp_path / "mine" / "a" / "b", items=[])
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == []


def test_a_disk_that_knows_no_locks_is_said(tmp_path, monkeypatch):
    def none(handle, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StoreError, match=r"could not lock .*run\.lock.*Function not implemented"):
        sft(tmp_path / "run")


def hold_together(world, folder):
    """What each process of one run sees of a folder that is free, and of one that is not."""
    with held(folder / "free", world):
        world.barrier()
    try:
        with held(folder / "taken", world):
            return "held"
    except InputError as error:
        return error.got


def test_processes_of_one_run_share_its_folder_and_are_refused_together(tmp_path):
    with held(tmp_path / "taken", ALONE):
        found = together(hold_together, tmp_path)
    assert found[0] == found[1]
    assert f"process {os.getpid()} on " in found[0]
    assert not (tmp_path / "free").exists()


# --- and what is left -------------------------------------------------------------------------


def test_what_a_run_left_that_was_killed_after_its_record_is_removed_by_the_next_call(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "finish", lambda folder: None)  # as if killed before it
        first = sft(out)
    assert names(out) == ["begun.json", "metrics.jsonl", "model", "run.json", "state.pt"]
    (out / LOCK).touch()
    (out / ".model.7.tmp").mkdir()
    (out / "last-good").mkdir()
    (out / "state-000000002").mkdir()
    assert sft(out) == first
    assert names(out) == DONE


def test_a_run_killed_between_weights_and_record_takes_no_step_again_and_writes_both(tmp_path, monkeypatch):
    out = tmp_path / "run"

    def killed(folder, record):
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_record", killed)
        with pytest.raises(Stop):
            sft(out)
    assert names(out) == ["begun.json", "metrics.jsonl", "model", "state.pt"]
    steps = []
    assert sft(out, on_step=steps.append).steps == 2
    assert steps == []
    assert names(out) == DONE


def test_a_run_that_ended_while_another_waited_to_begin_is_taken_as_it_is(tmp_path, monkeypatch):
    out = tmp_path / "run"
    first = sft(out)
    seen = iter([None, first])
    monkeypatch.setattr(runs, "finished", lambda out, key: next(seen))
    assert sft(out) == first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "theirs"}'])
def test_a_record_of_another_kind_is_other_files(tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(InputError, match="already holds something else"):
        sft(tmp_path)
    assert (tmp_path / RECORD).read_text() == content


# --- what a run is ----------------------------------------------------------------------------


def test_another_start_model_is_another_run_whatever_its_parents_are_called(tmp_path):
    first = sft(tmp_path / "one")
    with pytest.raises(InputError, match="already holds something else"):
        sft(tmp_path / "one", tiny.llama(seed=1))
    assert sft(tmp_path / "two", tiny.llama(seed=1)).key != first.key
    assert sft(tmp_path / "three").key == first.key


def test_another_reference_is_another_run(tmp_path):
    words = [("cat", "dog"), ("bird", "cat")]
    items = [
        Pair(f"p{i}", (Message(Role.USER, tiny.WORDS[i]),), *said, tiny.ORIGIN)
        for i, said in enumerate(words)
    ]
    own = Dpo(max_steps=1)
    keys = {
        run(TrainingTask("dpo", tiny.llama(), items, own, frozen=frozen), tmp_path / str(seed)).key
        for seed, frozen in enumerate([None, tiny.llama(seed=1), tiny.llama(seed=2)])
    }
    assert len(keys) == 3


def test_the_record_counts_the_models_numbers(tmp_path):
    record = sft(tmp_path)
    assert record.parameters == sum(p.numel() for p in tiny.llama().model.parameters())
    assert json.loads((tmp_path / RECORD).read_text())["parameters"] == record.parameters
