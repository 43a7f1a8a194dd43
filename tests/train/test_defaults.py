"""Defaults for real models, replay of earlier data, and what is refused before the first step."""

import json
from collections import Counter
from itertools import pairwise

import pytest
import tiny

from escultor.cli.train import method_lines
from escultor.config import Distillation, Dpo, Kto, Lora, Sft, load_config
from escultor.config.presets import PRESETS, with_preset
from escultor.config.training import Replay
from escultor.errors import DataError, InputError
from escultor.ids import hash_value
from escultor.train.methods import METHODS
from escultor.train.replay import REPLAYED, with_replay
from escultor.types import Message, Role, UnpairedExample

FULL = {Sft: 1e-5, Dpo: 5e-6, Kto: 5e-6, Distillation: 2e-5}


@pytest.mark.parametrize("section", FULL)
def test_an_adapter_learns_at_ten_times_the_rate_unless_one_is_given(section):
    assert section().learning_rate == FULL[section]
    assert section(lora=Lora()).learning_rate == pytest.approx(10 * FULL[section])
    assert section(lora=Lora(), learning_rate=3e-5).learning_rate == 3e-5
    adapted = section(lora={"rank": 4})
    assert section.model_validate(adapted.model_dump()) == adapted
    assert "ten" not in method_lines(section())[0]
    assert ", 10 times that of the whole model" in method_lines(section(lora=Lora()))[0]
    (_, warning) = method_lines(section(lora=Lora(), learning_rate=FULL[section]))
    assert warning.startswith("warning: ")
    assert f"{10 * FULL[section]:g}" in warning


def test_the_rate_follows_from_files_and_overrides_too():
    assert load_config(None, ("sft.lora={}",)).sft.learning_rate == pytest.approx(1e-4)
    assert load_config(None, ("sft.lora.rank=4", "sft.learning_rate=2e-5")).sft.learning_rate == 2e-5
    assert load_config(None, ("sft.lora=null",)).sft.learning_rate == 1e-5


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("section", FULL)
def test_a_preset_fills_in_what_nobody_set(section, name):
    made = with_preset(section(), name)
    assert made.learning_rate == pytest.approx(10 * FULL[section])
    assert made.lora.rank == PRESETS[name]["lora"]["rank"]
    assert made.lora.targets == ()
    own = with_preset(section(batch_size=7, learning_rate=1e-3, lora={"alpha": 8}, dtype="float32"), name)
    assert (own.batch_size, own.learning_rate, own.dtype) == (7, 1e-3, "float32")
    assert (own.lora.alpha, own.lora.rank) == (8, PRESETS[name]["lora"]["rank"])
    assert with_preset(section(lora=None), name).lora is None
    assert with_preset(section(), None) == section()


# --- replay -----------------------------------------------------------------------------------


def written(path, examples):
    rows = [{"prompt": e.prompt[0].content, "completion": e.response} for e in examples]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def earlier(count):
    return [tiny.example(i, f"earlier {i}", f"answer {i}") for i in range(count)]


def test_a_tenth_of_the_rows_is_earlier_data_spread_evenly_and_always_the_same(tmp_path):
    new = [tiny.example(i, f"new {i}", "yes") for i in range(90)]
    replay = Replay(data=str(written(tmp_path / "old.jsonl", earlier(50))))
    counts = Counter()
    mixed = with_replay(new, replay, "example", None, seed=3, counts=counts)
    assert len(mixed) == 100
    assert counts[REPLAYED] == 10
    assert [item for item in mixed if item in new] == new
    at = [i for i, item in enumerate(mixed) if item not in new]
    assert max(b - a for a, b in pairwise(at)) <= 11
    again = with_replay(new, replay, "example", None, seed=3, counts=Counter())
    other = with_replay(new, replay, "example", None, seed=4, counts=Counter())
    assert hash_value(mixed) == hash_value(again) != hash_value(other)
    written(tmp_path / "old.jsonl", earlier(50)[::-1])
    turned = with_replay(new, replay, "example", None, seed=3, counts=Counter())
    assert {item.response for item in turned} == {item.response for item in mixed}


def test_earlier_rows_that_are_new_ones_too_are_left_out_and_none_left_is_refused(tmp_path):
    replay = Replay(data=str(written(tmp_path / "old.jsonl", earlier(4))), share=0.5)
    counts = Counter()
    mixed = with_replay(earlier(4)[:3], replay, "example", None, seed=0, counts=counts)
    assert counts[REPLAYED] == 1
    assert len({item.response for item in mixed}) == 4
    with pytest.raises(DataError, match=r"no earlier row to replay; got: 0 rows"):
        with_replay(earlier(4), replay, "example", None, seed=0, counts=Counter())
    with pytest.raises(InputError, match="nowhere is no file"):
        with_replay(earlier(4), Replay(data="nowhere"), "example", None, seed=0, counts=Counter())
    assert with_replay(earlier(2), None, "example", None, seed=0, counts=Counter()) == earlier(2)


# --- refused before the first step --------------------------------------------------------------


@pytest.mark.parametrize("good", [True, False])
def test_ratings_of_one_kind_are_refused_with_the_remedy(good):
    items = [
        UnpairedExample(f"u{i}", (Message(Role.USER, f"cat {i}"),), "dog", good, origin=tiny.ORIGIN)
        for i in range(4)
    ]
    rows = METHODS["kto"].rows
    with pytest.raises(DataError, match=rf"all of one kind; got: {4 * good} good, {4 * (not good)} bad"):
        rows(items, tiny.llama().chat, 64, Counter(), Kto())
    both = [*items, UnpairedExample("v", items[0].prompt, "bird", not good, origin=tiny.ORIGIN)]
    assert len(rows(both, tiny.llama().chat, 64, Counter(), Kto())) == 5
