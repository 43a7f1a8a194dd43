"""The mean of two models' weights: the ends are the models, and unlike models are refused."""

import json

import pytest
import tiny
import torch

from escultor.errors import ModelError
from escultor.model.average import average
from escultor.model.folders import save, stored_dtype
from escultor.model.load import load


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    place = tmp_path_factory.mktemp("two")
    save(tiny.llama(), place / "first")
    save(tiny.llama(seed=1), place / "second", ends_turns=True)
    return place / "first", place / "second"


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_every_weight_is_the_mean_of_the_two(two, tmp_path, weight):
    average(*two, weight, tmp_path / "out")
    first, second, made = (load(str(folder)).model.state_dict() for folder in (*two, tmp_path / "out"))
    assert made.keys() == second.keys()
    for name, value in made.items():
        torch.testing.assert_close(value, (1 - weight) * first[name] + weight * second[name])
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert kept == {path.name for path in two[1].iterdir()}


def test_models_in_other_dtypes_and_shards_are_averaged_tensor_by_tensor(two, tmp_path, monkeypatch):
    own = tiny.llama(seed=1)
    whole = own.model.save_pretrained
    monkeypatch.setattr(own.model, "save_pretrained", lambda *a, **k: whole(*a, max_shard_size="20KB", **k))
    save(own, tmp_path / "sharded", "bfloat16")
    average(two[0], tmp_path / "sharded", 0.5, tmp_path / "out")
    assert stored_dtype(tmp_path / "out") == "bfloat16"
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    first, second, made = (
        load(str(folder)).model.state_dict() for folder in (two[0], tmp_path / "sharded", tmp_path / "out")
    )
    for name, value in made.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2, atol=1e-3, rtol=1e-2)


def test_models_of_other_shapes_or_vocabularies_are_refused_and_nothing_is_written(two, tmp_path):
    save(tiny.llama(context=128), tmp_path / "short")
    with pytest.raises(ModelError, match="differ in their configuration"):
        average(two[0], tmp_path / "short", 0.5, tmp_path / "out")
    tokens = json.loads((two[1] / "tokenizer.json").read_text())
    tokens["model"]["merges"].pop()
    save(tiny.llama(), tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(ModelError, match="differ in their vocabulary"):
        average(two[0], tmp_path / "other", 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()
