import json
import logging
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from escultor.errors import ModelError, StoreError
from escultor.model.folders import resolve, save
from escultor.model.load import init_llama, load, load_tokenizer
from escultor.model.loaded import Loaded, count_parameters
from escultor.model.messages import plain_messages
from escultor.text.tokenizer import tokenizer_hash


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder; copy it before changing it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(tiny.llama(), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- there and back ---------------------------------------------------------------------------


def test_a_model_comes_back_bit_for_bit_with_its_tokenizer(saved):
    original, again = tiny.llama(), load(str(saved))
    assert tiny.same_weights(original.model, again.model)
    assert tokenizer_hash(original.tokenizer) == tokenizer_hash(again.tokenizer)
    assert again.tokenizer.model_max_length == 256
    assert next(again.model.parameters()).dtype == torch.float32


def test_the_same_model_is_written_the_same(saved, tmp_path):
    save(tiny.llama(), tmp_path / "again")
    names = sorted(path.name for path in saved.iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    assert "model.safetensors" in names
    for name in names:
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_weights_in_half_the_bytes_come_back_rounded_and_tied(tmp_path):
    original = tiny.llama()
    save(original, tmp_path / "half", torch.bfloat16)
    again = load(str(tmp_path / "half")).model
    for name, value in original.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.to(torch.bfloat16).float()), name
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size < 2 * count_parameters(original.model) + 5000


def test_saving_replaces_what_was_there(folder):
    (folder / "old.txt").write_text("old")
    save(tiny.llama(seed=1), folder)
    assert tiny.same_weights(load(str(folder)).model, tiny.llama(seed=1).model)
    assert not (folder / "old.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_fresh_model_has_the_shape_asked_for_and_follows_the_seed():
    one, same, other = tiny.llama(), tiny.llama(), tiny.llama(seed=1)
    assert one.model.get_input_embeddings().weight.shape == (tiny.VOCABULARY, 32)
    assert one.model.config.num_hidden_layers == 2
    assert tiny.same_weights(one.model, same.model)
    assert not tiny.same_weights(one.model, other.model)
    assert count_parameters(one.model) == sum(p.numel() for p in set(one.model.parameters()))


@pytest.mark.parametrize("stage", ["weights", "tokenizer"])
def test_a_failed_write_leaves_the_old_model_and_nothing_else(folder, monkeypatch, stage):
    loaded = tiny.llama(seed=1)
    part = loaded.model if stage == "weights" else loaded.tokenizer

    def fail(path, **how):
        Path(path).mkdir(exist_ok=True)
        (Path(path) / "half").write_text("half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(part, "save_pretrained", fail)
    with pytest.raises(StoreError, match=r"could not be written to .*No space left.*free disk space"):
        save(loaded, folder)
    assert tiny.same_weights(load(str(folder)).model, tiny.llama().model)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failed_first_write_leaves_nothing(tmp_path, monkeypatch):
    loaded = tiny.llama()
    monkeypatch.setattr(loaded.tokenizer, "save_pretrained", lambda path: 1 / 0)
    with pytest.raises(StoreError):
        save(loaded, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# --- refusals ---------------------------------------------------------------------------------


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name, got in (("absent", "nothing is there"), ("file", "a file")):
        with pytest.raises(ModelError, match=f"is no model folder; got: {got}; remedy: .*escultor-base"):
            resolve(str(tmp_path / name))


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(str(folder))


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        load(str(folder))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_and_never_opened(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=r"pickled weights, which can run code; remedy: convert it"):
        load(str(folder))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 4096, None])
def test_weights_that_are_no_safetensors_are_refused(folder, content):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        load(str(folder))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"model_type": "no-such-model"}', '{"model_type": "t5"}']
)
def test_a_config_of_no_causal_language_model_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        load(str(folder))


def test_a_model_that_wants_to_run_its_own_code_is_refused(folder):
    (folder / "own.py").write_text("raise SystemExit('ran')")
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        load(str(folder))


def test_a_folder_without_tokenizer_is_refused(folder):
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded as .*tokenizer.*remedy: .*tokenizer's files"):
        load(str(folder))


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    loaded = tiny.llama()
    loaded.tokenizer.add_tokens(["one_more", "two_more"])
    save(loaded, tmp_path / "model")
    with pytest.raises(ModelError, match=r"302 tokens, 300 rows; remedy: use the tokenizer"):
        load(str(tmp_path / "model"))


@pytest.mark.parametrize("change", ["missing", "renamed", "shape"])
def test_weights_that_are_not_the_models_are_refused_and_not_made_up(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    value = weights.pop(name)
    if change == "renamed":
        weights["something.else"] = value
    if change == "shape":
        weights[name] = torch.zeros(3, 3)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"q_proj\.weight|mismatch"):
        load(str(folder))


def test_a_saved_model_loads_from_a_relative_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert isinstance(load("model"), Loaded)
    save(Loaded(init_llama(tiny.shape(), tiny.tokenizer()), tiny.tokenizer()), Path("other"))
    assert resolve("other") == Path("other")


def test_a_published_generation_config_that_contradicts_itself_is_loaded_and_saved_in_silence(
    tmp_path, capfd
):
    folder = tmp_path / "odd"
    save(tiny.llama(), folder)
    odd = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": [2, 3]}
    (folder / "generation_config.json").write_text(json.dumps(odd))
    loaded = load(str(folder))
    assert {2, 3} <= loaded.stops
    save(loaded, tmp_path / "again")
    kept = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert odd.items() <= kept.items()
    assert capfd.readouterr() == ("", "")


def test_other_messages_of_transformers_are_warnings_of_one_line():
    from transformers.utils import logging as library

    plain_messages()
    handlers = library.get_logger("transformers").handlers
    (handler,) = [handler for handler in handlers if type(handler) is logging.StreamHandler]

    def shown(text):
        record = logging.makeLogRecord({"name": "transformers.models.llama", "msg": text})
        return handler.filter(record) and handler.format(record)

    assert shown("This\nmatters") == "warning: This matters (transformers)"
    assert not shown("The following generation flags are not valid and may be ignored: []")


def test_a_gguf_file_is_to_be_imported(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="escultor models import"):
        load(str(tmp_path / "x.gguf"))


# --- folders made by others -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.bin", "../o.safetensors", "/o.safetensors", "a/b.safetensors"])
def test_an_index_that_names_other_weights_is_refused(folder, name):
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="names other files than safetensors beside it"):
        load(str(folder))


def test_an_adapter_with_pickled_weights_is_refused_though_other_safetensors_lie_beside_it(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="has no safetensors"):
        load(str(folder))


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": 1}', "[" * 100_000], ids=range(4))
def test_a_broken_index_is_refused(folder, index):
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"is damaged|cannot be read"):
        load(str(folder))


def test_more_layers_than_weights_are_refused_before_they_are_built(folder):
    edit_config(folder, num_hidden_layers=1_000_000)
    with pytest.raises(ModelError, match="num_hidden_layers` that no model of these weights has"):
        load(str(folder))


# --- tokenizers of folders whose model's type names another -------------------------------------


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
def test_a_tokenizer_splits_texts_as_its_file_says_whatever_the_models_type_is(tmp_path, kind):
    from tokenizers import Tokenizer

    source = Path(str(files("escultor"))) / "assets" / "escultor-base"
    for each in source.glob("*token*"):
        shutil.copy(each, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}))
    text = "Hello  World 12345;\n\n It's naïve — 東京 HTTPServer"
    loaded = load_tokenizer(tmp_path)
    said = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert loaded.encode(text, add_special_tokens=False) == said.encode(text, add_special_tokens=False).ids
    assert (loaded.bos_token, loaded.eos_token, len(loaded)) == ("<|begin|>", "<|end|>", 4096)
