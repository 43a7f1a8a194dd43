"""What a run saves is what it trained: read back from disk, whichever parts were saved and however."""

import datetime
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from several import together
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from escultor.cli.train import saved_lines
from escultor.config import Dpo, Lora
from escultor.errors import ConfigError, FaultError
from escultor.model import folders
from escultor.model.adapters import merge_adapter, untied_numbers, with_adapter
from escultor.model.folders import save, stored_dtype
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.train import loop, readback, runs
from escultor.train.filenames import ADAPTER, MODEL, RECORD
from escultor.train.readback import Beginning, check_saved, general_rows, mean_loss, rows_to_read_back
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks
ITEMS = tiny.examples(8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save(tiny.llama(), folder)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half") / "model"
    save(tiny.llama(), folder, "bfloat16")
    return folder


def sft(start, out, **changes):
    own = tiny.settings(epochs=4, **changes)
    return run(TrainingTask("sft", load(str(start)), ITEMS, own), out)


def weights(folder):
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


# --- read back --------------------------------------------------------------------------------


def test_the_record_tells_the_loss_as_trained_and_as_read_back_of_all_that_was_saved(base, tmp_path):
    pytest.importorskip("peft")
    record = sft(base, tmp_path, lora=Lora(rank=4).model_dump())
    start = record.read_back["start"]
    assert set(record.read_back) == {"start", "trained", ADAPTER, MODEL}
    assert len({round(loss, 3) for name, loss in record.read_back.items() if name != "start"}) == 1
    assert start > record.read_back["trained"]
    assert json.loads((tmp_path / RECORD).read_text())["read_back"] == record.read_back
    assert record.drift > 0


def test_a_model_that_was_not_saved_as_it_was_trained_fails_the_run_which_can_be_repeated(
    base, tmp_path, monkeypatch
):
    def damaged(loaded, folder, *how, **more):
        save(loaded, folder, *how, **more)
        (file,) = folder.glob("*.safetensors")
        broken = load_file(file)
        broken["model.norm.weight"] = broken["model.norm.weight"] * 3
        save_file(broken, file, {"format": "pt"})

    with monkeypatch.context() as patched:
        patched.setattr(runs, "save", damaged)
        with pytest.raises(FaultError, match=r"not the model that was trained; got: loss .* on 8 rows"):
            sft(base, tmp_path)
    assert not (tmp_path / RECORD).exists()
    assert sft(base, tmp_path).steps == 8
    assert (tmp_path / RECORD).exists()


def test_one_model_is_in_memory_at_a_time_while_it_is_read_back(base, tmp_path, monkeypatch):
    task = TrainingTask("sft", load(str(base)), ITEMS, tiny.settings(max_steps=1))
    reading = check_saved

    def seen(*args):
        assert all(p.is_meta for p in task.start.model.parameters())
        return reading(*args)

    monkeypatch.setattr(runs, "check_saved", seen)
    run(task, tmp_path)


def test_the_rows_read_back_are_few_short_and_always_some():
    rows = tiny.nll_rows(40)
    chosen = rows_to_read_back(rows)
    assert len(chosen) == readback.ROWS
    assert max(row.length for row in chosen) <= min(row.length for row in rows) + 4
    assert all(row.start == row.first_label for row in chosen)
    (long,) = rows_to_read_back([tiny.NllRow("a", np.arange(900, dtype=np.int32) % 300, 500)])
    assert long.length == 900
    pairs = rows_to_read_back(tiny.pair_rows(3))
    assert {row.id for row in pairs} <= {"pair0", "pair1", "pair2"}


def run_sharded(world, base, out):
    world = replace(world, strategy="fsdp")
    record = {}
    for name, lora in (("whole", None), ("lora", {"rank": 4})):
        own = tiny.settings(max_steps=2, lora=lora)
        record[name] = run(
            TrainingTask("sft", load(str(base)), ITEMS, own), out / name, world=world
        ).read_back
    return record


def test_a_run_of_several_processes_with_sharded_weights_is_read_back_too(base, tmp_path):
    pytest.importorskip("peft")
    one, other = together(run_sharded, base, tmp_path)
    assert one == other
    assert one["lora"]["trained"] == pytest.approx(one["lora"][MODEL], abs=1e-4)


# --- one weight for embedding and head ----------------------------------------------------------


@pytest.mark.parametrize(
    "targets", [("embed_tokens",), ("lm_head",), ("embed_tokens", "lm_head", "q_proj"), ("q_proj",)]
)
def test_an_adapter_on_a_tied_embedding_or_head_is_saved_as_it_was_trained(base, tmp_path, targets):
    pytest.importorskip("peft")
    assert load(str(base)).model.config.tie_word_embeddings
    record = sft(base, tmp_path, lora=Lora(rank=4, targets=targets).model_dump())
    start, made = load(str(base)).model, load(str(tmp_path / MODEL)).model
    shared = made.get_input_embeddings().weight is made.get_output_embeddings().weight
    assert shared == (targets == ("q_proj",)) == made.config.tie_word_embeddings
    assert record.parameters == sum(p.numel() for p in made.parameters())
    gained = record.parameters - sum(p.numel() for p in start.parameters())
    assert untied_numbers(start, Lora(rank=4, targets=targets)) == gained
    assert tiny.same_weights(load(str(tmp_path / ADAPTER)).model, made)


def test_an_embedding_of_a_kind_of_its_own_counts_as_one_too():
    sizes = {
        "vocab_size": 20,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "head_dim": 8,
    }
    settings = Gemma3TextConfig(**sizes, num_attention_heads=1, num_key_value_heads=1, pad_token_id=0)
    model = Gemma3ForCausalLM(settings)
    assert untied_numbers(model, Lora(targets=("embed_tokens",))) == 20 * 8


@pytest.mark.parametrize("targets", [("nonsense",), ("q_proj", "nonsense"), ("all-linear",)])
def test_every_target_of_an_adapter_names_a_layer_or_is_refused(base, targets):
    pytest.importorskip("peft")
    said = r"(?s)lora\.targets are not in this model.*q_proj.*leave lora\.targets out"
    with pytest.raises(ConfigError, match=said):
        with_adapter(load(str(base)), Lora(targets=targets))


@pytest.mark.filterwarnings("ignore:(?s)Model (has|with):UserWarning")  # peft, which this test calls itself
def test_modules_that_an_adapter_of_another_program_saves_whole_are_merged_rightly(base, tmp_path):
    peft = pytest.importorskip("peft")
    ids = torch.arange(3, 30)[None]
    for saved in (["embed_tokens"], ["lm_head"]):
        config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=saved, task_type="CAUSAL_LM")
        model = peft.get_peft_model(load(str(base)).model, config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(tmp_path / saved[0])
        with torch.no_grad():
            expected, merged = model(ids).logits, load(str(tmp_path / saved[0])).model(ids).logits
        torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)


def test_a_merge_that_changes_what_the_model_computes_is_refused(base, monkeypatch):
    pytest.importorskip("peft")
    student = with_adapter(load(str(base)), Lora(rank=2))
    plain = student.model.get_base_model()

    def destroys():
        plain.get_input_embeddings().weight.data.mul_(3)
        return plain

    monkeypatch.setattr(student.model, "merge_and_unload", destroys)
    with pytest.raises(FaultError, match=r"cannot be merged .*logits that differ.*lora\.targets"):
        merge_adapter(student)


# --- dtypes -----------------------------------------------------------------------------------


def test_a_base_in_bfloat16_is_saved_in_bfloat16_and_another_dtype_on_demand(half, base, tmp_path):
    assert (stored_dtype(half), stored_dtype(base)) == ("bfloat16", "float32")
    for name, start, wanted in (("a", half, "base"), ("b", half, "float32"), ("c", base, "float16")):
        record = sft(start, tmp_path / name, save_dtype=wanted)
        folder = tmp_path / name / MODEL
        expected = "bfloat16" if wanted == "base" else wanted
        assert stored_dtype(folder) == record.dtype == expected
        assert json.loads((folder / "config.json").read_text())["dtype"] == expected
        assert load(str(folder)).dtype == expected
        assert next(load(str(folder)).model.parameters()).dtype == torch.float32
    assert sft(base, tmp_path / "d").dtype == "float32"


def test_weights_that_a_model_needs_in_float32_stay_so(tmp_path):
    own = tiny.llama()
    own.model._keep_in_fp32_modules = ["norm"]
    save(own, tmp_path / "mixed", "bfloat16")
    with safe_open(next((tmp_path / "mixed").glob("*.safetensors")), "pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds.pop("model.norm.weight") == "F32"
    assert kinds["model.layers.0.self_attn.q_proj.weight"] == "BF16"
    assert stored_dtype(tmp_path / "mixed") == "bfloat16"


def test_what_config_json_says_of_the_dtype_decides_nothing(half, tmp_path):
    config = json.loads((half / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    lying = tmp_path / "lying"
    lying.mkdir()
    for path in half.iterdir():
        (lying / path.name).write_bytes(path.read_bytes())
    (lying / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert load(str(lying)).dtype == "bfloat16"


def test_tied_weights_and_shards_are_saved_once_and_found_again(tmp_path, monkeypatch):
    own = tiny.llama()
    whole = own.model.save_pretrained
    monkeypatch.setattr(own.model, "save_pretrained", lambda *a, **k: whole(*a, max_shard_size="20KB", **k))
    save(own, tmp_path / "sharded", "bfloat16")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    names = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())["weight_map"]
    assert "lm_head.weight" not in names
    assert stored_dtype(tmp_path / "sharded") == "bfloat16"
    rows = general_rows(own)
    check_saved(tmp_path / "sharded", rows, mean_loss(own.model, rows))


# --- the distance from the start ----------------------------------------------------------------


def test_a_model_that_has_not_moved_is_at_distance_0_and_one_that_has_farther():
    start = tiny.llama()
    drift = Beginning(start)
    assert drift.divergence(start.model) == pytest.approx(0, abs=1e-6)
    near, far = tiny.llama(), tiny.llama(seed=5)
    with torch.no_grad():
        near.model.get_input_embeddings().weight.mul_(1.01)
    assert 0 < drift.divergence(near.model) < drift.divergence(far.model)


def test_the_divergence_is_that_of_the_models_own_distributions(monkeypatch):
    start, other = tiny.llama(), tiny.llama(seed=1)
    (row, *_) = general_rows(start)
    ids = torch.from_numpy(row.ids).long()[None]
    with torch.no_grad():
        p, q = (m.model(ids).logits[0, row.start - 1 : -1].log_softmax(-1) for m in (other, start))
    expected = (p.exp() * (p - q)).sum(-1).mean().item()
    monkeypatch.setattr(readback, "GENERAL", readback.GENERAL[:1])
    assert Beginning(start).divergence(other.model) == pytest.approx(expected, rel=1e-4)


def test_a_method_with_a_reference_is_measured_too(base, tmp_path):
    pairs = [tiny_pair(i) for i in range(4)]
    own = Dpo(max_steps=2, learning_rate=1e-2, warmup_steps=0, dtype="float32")
    assert run(TrainingTask("dpo", load(str(base)), pairs, own), tmp_path).drift > 0


def tiny_pair(i):
    from escultor.types import Message, Pair, Role

    said = (tiny.WORDS[i], tiny.WORDS[i + 4])
    return Pair(f"p{i}", (Message(Role.USER, tiny.WORDS[i + 1]),), *said, tiny.ORIGIN)


# --- where an answer ends -----------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*config.json")}


@pytest.mark.parametrize("family", ["gemma", "llama3", "mistral", "qwen"])
def test_a_trained_model_names_the_token_that_ends_its_turns_where_any_server_looks(family, tmp_path):
    own = tiny.tokenizer_like(family)
    torch.manual_seed(0)
    start = Loaded(tiny.init_llama(tiny.shape(), own, len(own)), own)
    start.model.generation_config.eos_token_id = [own.eos_token_id, 0]
    start.model.generation_config.temperature = 0.3  # without do_sample: transformers refuses to write it
    save(start, tmp_path / "start")
    before = files_of(tmp_path / "start")
    sft(tmp_path / "start", tmp_path / "run")
    made = load(str(tmp_path / "run" / MODEL))
    end = start.chat.turn_end[-1]
    after = files_of(tmp_path / "run" / MODEL)
    assert after["generation_config.json"]["eos_token_id"][0] == after["config.json"]["eos_token_id"] == end
    assert made.tokenizer.eos_token_id == end
    assert made.stops == start.stops | {end}
    assert made.chat.turn_end == start.chat.turn_end
    changed = {
        (file, key)
        for file in before
        for key in before[file].keys() | after[file].keys()
        if before[file].get(key) != after[file].get(key)
    }
    assert changed <= {
        ("generation_config.json", "eos_token_id"),
        ("config.json", "eos_token_id"),
        ("tokenizer_config.json", "eos_token"),
    }
    assert after["generation_config.json"]["temperature"] == 0.3


def test_a_template_that_writes_the_eos_between_turns_keeps_it(tmp_path):
    between = "{% if not loop.first and message['role'] == 'user' %}{{ eos_token }}{% endif %}"
    template = tiny.CHATML.replace("in messages %}", "in messages %}" + between)
    own = tiny.chatml_tokenizer(template)
    own.eos_token = "<|endoftext|>"
    start = Loaded(tiny.init_llama(tiny.shape(), own, len(own)), own)
    save(start, tmp_path / "aligned", ends_turns=True)
    end = start.chat.turn_end[-1]
    assert end != own.eos_token_id
    after = files_of(tmp_path / "aligned")
    assert after["tokenizer_config.json"]["eos_token"] == "<|endoftext|>"
    assert after["generation_config.json"]["eos_token_id"] == [end, own.eos_token_id]


def test_a_pretrained_model_keeps_the_end_of_its_documents(tmp_path):
    save(tiny.llama(), tmp_path / "model")
    eos = tiny.llama().tokenizer.eos_token_id
    assert files_of(tmp_path / "model")["config.json"]["eos_token_id"] == eos
    assert folders.GENERATION in files_of(tmp_path / "model")


# --- the date -----------------------------------------------------------------------------------


class Stop(Exception):
    pass


def test_a_run_of_a_template_that_writes_the_date_goes_on_with_the_day_on_which_it_began(
    tmp_path, monkeypatch
):
    template = "{{ bos_token }}{{ strftime_now('%d %b %Y') }}" + tiny.tokenizer().chat_template
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)

    def sft_on(day, out, stop=None):
        def on_step(report):
            if report.step == stop:
                raise Stop

        start = tiny.llama()
        start.tokenizer.chat_template = template
        monkeypatch.setattr(runs, "_today", lambda: datetime.date(2026, 1, day))
        return run(TrainingTask("sft", start, ITEMS, tiny.settings(epochs=2)), out, on_step=on_step)

    first = sft_on(1, tmp_path / "whole")
    with pytest.raises(Stop):
        sft_on(1, tmp_path / "cut", stop=2)
    resumed = sft_on(2, tmp_path / "cut")
    assert resumed.date == first.date == "2026-01-01"
    assert tiny.same_weights(*(load(str(tmp_path / name / MODEL)).model for name in ("whole", "cut")))
    assert sft_on(3, tmp_path / "whole") == first
    other = sft_on(2, tmp_path / "later")
    assert (other.date, other.key) == ("2026-01-02", first.key)
    assert other.loss != first.loss


def test_a_run_whose_gain_is_lost_in_rounding_says_so(half, tmp_path):
    slow = sft(half, tmp_path / "slow", learning_rate=1e-6)
    assert any(line.startswith("warning: writing bfloat16 undid") for line in saved_lines(slow))
    fast = sft(half, tmp_path / "fast")
    assert not any("warning" in line for line in saved_lines(fast))
    assert not any("warning" in line for line in saved_lines(replace(fast, read_back={}, drift=None)))
