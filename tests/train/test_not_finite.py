"""A run that meets a loss that is no number: what is said, what is kept, how to go on."""

import json
from dataclasses import replace

import pytest
import tiny

from escultor.errors import NotFinite, StoreError
from escultor.model.load import load
from escultor.train import loop, runs
from escultor.train.filenames import RECORD
from escultor.train.resume import LAST_GOOD
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run

SETTINGS = tiny.settings(shuffle=False, batch_size=2)
GOOD = tiny.examples(8)
BAD = [replace(each, weight=1e38) if i == 5 else each for i, each in enumerate(GOOD)]  # its loss overflows


def sft(items, out, start=None, settings=SETTINGS):
    return run(TrainingTask("sft", start or tiny.llama(), items, settings), out)


def same(folder, other):
    return tiny.same_weights(load(str(folder)).model, load(str(other)).model)


def test_the_run_stops_with_step_and_rows_and_keeps_the_model_of_the_step_before(tmp_path):
    with pytest.raises(
        NotFinite, match=r"loss of step 3 is not finite; .* rows .*example5.*start from"
    ) as info:
        sft(BAD, tmp_path / "run")
    assert str(tmp_path / "run" / LAST_GOOD) in info.value.remedy
    sft(
        GOOD,
        tmp_path / "two",
        settings=tiny.settings(shuffle=False, batch_size=2, max_steps=2, schedule="constant"),
    )
    with pytest.raises(NotFinite):
        sft(
            BAD,
            tmp_path / "constant",
            settings=tiny.settings(shuffle=False, batch_size=2, schedule="constant"),
        )
    assert same(tmp_path / "constant" / LAST_GOOD, tmp_path / "two" / "model")


def test_a_new_run_goes_on_from_the_last_good_model_with_mended_rows_or_a_lower_rate(tmp_path):
    with pytest.raises(NotFinite):
        sft(BAD, tmp_path / "run")
    start = load(str(tmp_path / "run" / LAST_GOOD))
    lower = tiny.settings(shuffle=False, batch_size=2, learning_rate=1e-4)
    assert sft(GOOD, tmp_path / "next", start, lower).steps == 4


def test_mended_rows_in_the_same_folder_begin_again_where_no_state_was_saved(tmp_path):
    with pytest.raises(NotFinite):
        sft(BAD, tmp_path / "run")
    sft(GOOD, tmp_path / "run")
    sft(GOOD, tmp_path / "fresh")
    assert same(tmp_path / "run" / "model", tmp_path / "fresh" / "model")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"model", "metrics.jsonl", RECORD}
    assert json.loads((tmp_path / "run" / RECORD).read_text())["steps"] == 4


def test_the_same_command_again_stops_at_the_same_step(tmp_path, monkeypatch):
    for save_every in (1e9, -1.0):
        monkeypatch.setattr(loop, "SAVE_EVERY_S", save_every)
        for _ in range(2):
            with pytest.raises(NotFinite, match="step 3"):
                sft(BAD, tmp_path / str(save_every))
    assert same(tmp_path / "-1.0" / LAST_GOOD, tmp_path / "1000000000.0" / LAST_GOOD)


def test_a_first_step_that_fails_leaves_nothing_to_keep(tmp_path):
    with pytest.raises(NotFinite, match="step 1"):
        sft(BAD[4:], tmp_path / "run", settings=tiny.settings(shuffle=False, batch_size=2))
    assert not (tmp_path / "run" / LAST_GOOD).exists()


def test_a_full_disk_does_not_hide_which_rows_it_was(tmp_path, monkeypatch):
    def full(loaded, folder):
        raise StoreError("the model could not be written")

    monkeypatch.setattr(runs, "save", full)
    with pytest.raises(NotFinite, match="example5"):
        sft(BAD, tmp_path / "run")
