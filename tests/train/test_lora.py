"""LoRA: what is written and read again, what the state holds, and who the reference is."""

import json
import shutil
from collections import Counter

import pytest
import tiny
import torch

from escultor.config import Dpo, Lora
from escultor.errors import ModelError
from escultor.model.adapters import merge_adapter, with_adapter
from escultor.model.folders import base_folder, save
from escultor.model.forward import logp_at_labels
from escultor.model.load import load, load_shape
from escultor.model.loaded import Loaded, folder_of
from escultor.model.student import cut_student
from escultor.train import loop
from escultor.train.methods import METHODS, Frozen
from escultor.train.resume import PLAIN
from escultor.train.run_record import TrainingTask
from escultor.train.runs import ADAPTER, MODEL, run

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks
ITEMS = tiny.examples(8)


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save(tiny.llama(), folder)
    return folder


def settings(**changes):
    lora = Lora(rank=4, merge=changes.pop("merge", True))
    return tiny.settings(epochs=2, lora=lora.model_dump(), **changes)


def sft(base, out, stop=None, **changes):
    def on_step(report):
        if report.step == stop:
            raise Stop

    return run(TrainingTask("sft", load(str(base)), ITEMS, settings(**changes)), out, on_step=on_step)


@pytest.fixture(scope="module")
def done(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    sft(base, out)
    return out


def test_a_run_writes_a_whole_model_and_the_adapter_as_peft_reads_it(base, done):
    from peft import AutoPeftModelForCausalLM

    files = {path.name for path in (done / ADAPTER).iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    assert json.loads((done / ADAPTER / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        base
    )
    theirs = AutoPeftModelForCausalLM.from_pretrained(str(done / ADAPTER)).merge_and_unload()
    ours = load(str(done / MODEL)).model
    assert tiny.same_weights(ours, theirs)
    assert not tiny.same_weights(ours, load(str(base)).model)
    assert sum(path.stat().st_size for path in done.joinpath(MODEL).glob("*.safetensors")) > 100_000


def test_the_adapter_with_its_base_is_the_model_bit_for_bit(done):
    adapted = load(str(done / ADAPTER))
    assert tiny.same_weights(adapted.model, load(str(done / MODEL)).model)
    assert all(parameter.requires_grad for parameter in adapted.model.parameters())
    assert load_shape(str(done / ADAPTER)).model.num_parameters() == adapted.model.num_parameters()


def test_without_merging_the_adapter_alone_is_written(base, done, tmp_path):
    sft(base, tmp_path, merge=False)
    assert {path.name for path in tmp_path.iterdir()} == {ADAPTER, "metrics.jsonl", "run.json"}
    assert tiny.same_weights(load(str(tmp_path / ADAPTER)).model, load(str(done / MODEL)).model)


@pytest.mark.parametrize("k", [1, 3])
def test_a_run_that_was_cut_short_goes_on_bit_for_bit_from_a_state_of_the_adapter(
    base, done, tmp_path, monkeypatch, k
):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    with pytest.raises(Stop):
        sft(base, tmp_path, stop=k)
    state = torch.load(tmp_path / PLAIN, weights_only=True)
    assert state["step"] == k
    assert state["model"]
    assert all("lora_" in name for name in state["model"])
    sft(base, tmp_path)
    assert tiny.same_weights(load(str(tmp_path / MODEL)).model, load(str(done / MODEL)).model)


def test_checkpointing_changes_no_bit_of_an_adapter(base, done, tmp_path):
    sft(base, tmp_path, gradient_checkpointing=True)
    assert tiny.same_weights(load(str(tmp_path / ADAPTER)).model, load(str(done / ADAPTER)).model)


def test_the_reference_is_the_model_without_its_adapter():
    start, own = tiny.llama(), Dpo(lora=Lora(rank=4), dtype="float32", batch_size=5, shuffle=False)
    stream = METHODS["dpo"].stream(tiny.pair_rows(), Frozen(start.model, None, Counter()), own)
    student = with_adapter(start, own.lora).model
    with torch.no_grad():
        for name, value in student.named_parameters():
            if "lora_B" in name:
                value.fill_(0.3)
    (batch,) = stream.micro_batches(0)
    plain = logp_at_labels(tiny.llama().model.eval(), batch.packed).detach()
    torch.testing.assert_close(batch.reference_logp, plain, atol=1e-5, rtol=0)
    assert (logp_at_labels(student, batch.packed) - plain).abs().max() > 0.1


# --- bases --------------------------------------------------------------------------------------


def test_a_base_that_changed_or_is_gone_is_refused(base, done, tmp_path):
    moved = tmp_path / "base"
    shutil.copytree(base, moved)
    adapter = tmp_path / "adapter"
    shutil.copytree(done / ADAPTER, adapter)
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(str(base), str(moved)))
    assert base_folder(adapter) == moved
    save(tiny.llama(seed=9), moved)
    with pytest.raises(ModelError, match=r"the base of the adapter in .* has changed since"):
        load(str(adapter))
    shutil.rmtree(moved)
    with pytest.raises(
        ModelError, match=r"base of the adapter .* is not there; .* remedy: put its base there"
    ):
        load(str(adapter))
    config.write_text("{")
    with pytest.raises(ModelError, match="is not there"):
        load(str(adapter))


def test_an_adapter_of_another_shape_is_refused(base, tmp_path):
    wide = tmp_path / "wide"
    own = tiny.tokenizer()
    save(Loaded(tiny.init_llama(tiny.shape(hidden_size=64), own), own), wide)
    sft(wide, tmp_path / "run", merge=False)
    config = tmp_path / "run" / ADAPTER / "adapter_config.json"
    config.write_text(config.read_text().replace(str(wide), str(base)))
    (config.parent / "base.json").unlink()
    with pytest.raises(ModelError, match="does not fit its base"):
        load(str(config.parent))


def test_a_model_is_of_a_folder_until_it_is_changed(base, done, tmp_path):
    start = load(str(base))
    assert folder_of(start.model) == base
    assert folder_of(cut_student(start, (0,), None).model) is None
    assert folder_of(merge_adapter(with_adapter(load(str(base)), Lora(rank=2))).model) is None
    assert folder_of(load(str(done / ADAPTER)).model) is None
    run(TrainingTask("sft", start, ITEMS, tiny.settings(max_steps=1)), tmp_path / "out")
    assert folder_of(start.model) is None
    assert folder_of(load(str(tmp_path / "out" / MODEL)).model) == tmp_path / "out" / MODEL


def test_an_adapter_alone_of_a_model_in_memory_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ModelError, match=r"needs a base that is in a folder; .*lora\.merge=true"):
        run(TrainingTask("sft", tiny.llama(), ITEMS, settings(merge=False)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(TrainingTask("sft", tiny.llama(), ITEMS, settings(max_steps=1)), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MODEL, "metrics.jsonl", "run.json"}
