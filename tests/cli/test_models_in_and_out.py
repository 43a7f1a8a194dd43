"""`models import`, `models export`, `deploy`, and a GGUF file under `evaluate` and `compare`."""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "model" / "gguf"))
from gguf_models import byte_level
from gguf_models import model as random_model

from escultor.model.folders import BASE, save

SUITE = {
    "name": "words",
    "skill": "chat",
    "metrics": ["contains", "bits_per_byte"],
    "decoding": {"max_new_tokens": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "whole"
    save(random_model("llama", byte_level()), path)
    return path


def test_a_model_goes_out_as_gguf_and_comes_in_again(cli, folder):
    pytest.importorskip("xllamacpp")
    out = cli("models", "export", folder, "--out", "out", "--quant", "f32", "--name", "m", "--json")
    assert out.code == 0, out.err
    assert out.data["tokens_checked"] > 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["Modelfile", "README.md", "m-f32.gguf"]
    lines = Path("out/Modelfile").read_text()
    assert lines.startswith("FROM ./m-f32.gguf\nTEMPLATE ")
    assert 'PARAMETER stop "<|im_end|>"\n' in lines
    one, two = (cli("models", "import", name, "--json").data for name in ("out/m-f32.gguf", "out"))
    assert one["id"] == two["id"]
    assert (one["precision"], one["name"]) == ("float32", "m-f32")
    words = ("The cat", "--max-new-tokens", "6")
    assert cli("generate", one["id"], *words).out == cli("generate", folder, *words).out
    assert cli("models", "--json").data["models"] == cli("models", "list", "--json").data["models"]
    served = cli("deploy", "llamacpp", one["id"], "--out", "served", "--quant", "f16", "--run", "--json")
    assert served.code == 0, served.err
    assert all(answer["gap"] < 0.25 for answer in served.data["answers"])


def test_the_gate_judges_an_exported_file_by_its_answers(cli, folder, tmp_path):
    pytest.importorskip("xllamacpp")
    import yaml

    items = [
        {"id": f"i{i}", "prompt": f"the cat {i}", "reference": "cat", "cluster": f"c{i}"} for i in range(6)
    ]
    Path("words.yaml").write_text(yaml.safe_dump({**SUITE, "items": items}))
    Path("policy.yaml").write_text("primary: [contains]\nguards: {}\nmin_items: 6\n")
    assert cli("models", "export", folder, "--out", "out", "--quant", "q8_0").code == 0
    call = cli(
        "compare", folder, "out/out-q8_0.gguf", "--suite", "words.yaml", "--policy", "policy.yaml", "--json"
    )
    assert call.code == 3, call.err
    assert [effect["metric"] for effect in call.data["effects"]] == ["contains"]
    assert call.data["effects"][0]["low"] <= call.data["effects"][0]["difference"]
    scores = cli("evaluate", "out/out-q8_0.gguf", "--suite", "words.yaml", "--json")
    assert scores.code == 0, scores.err
    assert scores.data["items"] == 6


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_adapters_come_in_and_go_out(cli, folder, tmp_path):
    pytest.importorskip("peft")
    from cli_rows import examples

    base = shutil.copytree(folder, tmp_path / "base")
    data = examples(tmp_path / "data.jsonl")
    words = ("--data", data, "--set", "sft.max_steps=1", "--set", "sft.lora={rank: 2, merge: false}")
    made = cli("sft", "--model", base, *words, "--out", "run", "--json")
    assert made.code == 0, made.err
    (tmp_path / "run/adapter" / BASE).unlink()  # as others write adapters
    found = cli("models", "import", "run/adapter", "--name", "theirs", "--json")
    assert found.code == 0, found.err
    assert (found.data["kind"], len(found.data["parents"])) == ("adapter", 1)
    out = cli("models", "export", found.data["id"], "--format", "adapter", "--out", "out", "--json")
    assert out.code == 0, out.err
    assert "--enable-lora" in out.data["serve"][0]
    assert "--max-lora-rank" not in out.data["serve"][0]
    more = ("--data", data, "--set", "sft.max_steps=1", "--set", "sft.lora={rank: 17}")
    assert cli("sft", "--model", base, *more, "--out", "wide", "--json").code == 0
    wide = cli("models", "export", "wide", "--format", "adapter", "--out", "out17", "--json")
    assert wide.data["serve"][0].endswith("--max-lora-rank 32"), wide.err
    whole = cli("models", "export", found.data["id"], "--format", "safetensors", "--out", "merged", "--json")
    assert whole.code == 0, whole.err
    text = ("The cat", "--max-new-tokens", "4")
    assert cli("generate", "merged", *text).out == cli("generate", found.data["id"], *text).out
    assert cli("models", "export", folder, "--format", "adapter", "--out", "no").code == 2


def test_int8_for_ctranslate2(cli, folder):
    pytest.importorskip("ctranslate2")
    out = cli("models", "export", folder, "--format", "ctranslate2", "--out", "ct2", "--json")
    assert out.code == 0, out.err
    assert Path("ct2/model.bin").is_file()
    assert [path.name for path in Path.cwd().iterdir()] == ["ct2"]


def test_what_cannot_go_out_is_refused_and_leaves_nothing(cli, folder, model, monkeypatch):
    for words, said in (
        ((folder, "--quant", "q9"), "q9"),
        ((folder, "--format", "onnx"), "onnx"),
        ((folder, "--format", "safetensors", "--quant", "q4_0"), "only a GGUF"),
        ((model,), "pre-tokenizer"),  # splits words as no model of llama.cpp does
    ):
        call = cli("models", "export", *words, "--out", "out")
        assert (call.code, said in call.err) == (2, True), call.err
    monkeypatch.setattr("escultor.model.gguf.quantise.find_spec", lambda *given: None)
    from escultor.model.gguf import quantise

    quantise._quantiser.cache_clear()
    call = cli("models", "export", folder, "--quant", "q4_k", "--out", "out")
    assert (call.code, "escultor[llamacpp]" in call.err) == (2, True)
    quantise._quantiser.cache_clear()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("escultor.model.gguf.writer._write", full)
    call = cli("models", "export", folder, "--out", "out")
    assert (call.code, "disk space" in call.err) == (2, True)
    assert list(Path.cwd().iterdir()) == []


def test_a_name_that_is_no_model_is_refused(cli, monkeypatch):
    monkeypatch.setattr("escultor.model.sources._hub", lambda *given: None)
    for name in ("nothing", "http://127.0.0.1:1/v1", "../x"):
        call = cli("models", "import", name)
        assert call.code == 2
        assert "unexpected" not in call.err
    assert json.loads(cli("deploy", "nowhere", "x", "--out", "o", "--json").out)["error"]["got"] == "nowhere"
