"""lm-eval's likelihoods through a server are those of its own backend, also where an answer ends at once."""

import json

import pytest
import torch
from test_serving_processes import served
from tiny import TEXTS, llama, tokenizer, tokenizer_like

from escultor.evaluate.lm_eval.models import LocalBackend, ServedBackend
from escultor.evaluate.served_model import Endpoint, served_model
from escultor.model.folders import save
from escultor.model.load import load
from escultor.model.loaded import Loaded

pytest.importorskip("lm_eval")
TASK = """
task: two
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}} "
doc_to_choice: "{{choices}}"
doc_to_target: 0
target_delimiter: ""
metric_list: [{metric: acc}]
"""


def with_end_tokens(words):
    """A tiny model whose likeliest next token is the end of the text after about every second prompt."""
    plain = llama().model
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    shape = {"vocab_size": len(words), "tie_word_embeddings": False}
    model = type(plain)(type(plain.config).from_dict(plain.config.to_dict() | ids | shape))
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
        head = model.lm_head.weight
        head[words.eos_token_id] = 3 * torch.randn(head.shape[1])
    return Loaded(model, words)


@pytest.fixture(scope="module", params=[tokenizer, lambda: tokenizer_like("llama3")])
def place(request, tmp_path_factory):
    """A model whose tokenizer has a BOS but puts none before a text, and one whose tokenizer does; a task; a
    server of the model."""
    folder = tmp_path_factory.mktemp("place")
    save(with_end_tokens(request.param()), folder / "model")
    rows = [{"text": t[:-6] + " é", "choices": ["sings.", "runs 日 fast."]} for t in TEXTS[:20]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(TASK.replace("DATA", str(folder / "rows.jsonl")))
    with served(folder, "--model", folder / "model") as process:
        yield folder, f"{process.url}/v1"
        process.stop(30)


def likelihoods(folder, harness, **args):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    found = simple_evaluate(
        harness,
        args,
        tasks=[load_yaml(folder / "task.yaml")],
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"]["two"], key=lambda s: s["doc_id"])
    return [(float(r[0][0]), str(r[0][1])) for s in samples for r in s["resps"]]


@pytest.mark.filterwarnings("default")
def test_forty_likelihoods_are_those_of_the_harness_own_backend(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder, url = place
    model = str(folder / "model")
    common = {"model": "escultor", "tokenizer": model, "tokenizer_backend": "huggingface"}
    own = {"pretrained": model, "device": "cpu", "dtype": "float32"}
    adds_bos = bool(load(model).chat.raw_prompt("a")[1])
    expected = {bos: likelihoods(folder, "hf", **own, add_bos_token=bos) for bos in {False, adds_bos}}
    for bos in (False, True):
        for tokenized in (True, False):
            # A text is tokenised by the server, whose tokenizer then decides on a BOS that the text lacks.
            theirs = expected[(bos or not tokenized) and adds_bos]
            ours = likelihoods(
                folder, "local-completions", base_url=f"{url}/completions", num_concurrent=4, max_length=255,
                add_bos_token=bos, tokenized_requests=tokenized, **common,
            )  # fmt: skip
            assert len(ours) == 40
            for one, other in zip(ours, theirs, strict=True):
                assert one == (pytest.approx(other[0], abs=1e-4), other[1])


def test_our_backends_are_the_harness_own_with_the_tokenizers_bos(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder, url = place
    theirs = likelihoods(folder, "hf", pretrained=str(folder / "model"), device="cpu", dtype="float32")
    rows = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    pairs = [(row["text"], f" {each}") for row in rows for each in row["choices"]]
    local = LocalBackend(load(str(folder / "model")), "it", 4)
    behind = ServedBackend(served_model(Endpoint(url), "escultor"))
    assert behind.whole(["The cat é"])[0][0] == pytest.approx(local.whole(["The cat é"])[0][0], abs=1e-3)
    for backend in (local, behind):
        for one, other in zip(backend.likelihoods(pairs), theirs, strict=True):
            assert (one[0], str(one[1])) == (pytest.approx(other[0], abs=1e-4), other[1])


def test_a_scored_prompt_has_one_log_prob_more_than_tokens_whatever_is_generated(place):
    folder, url = place
    loaded = load(str(folder / "model"))
    ended = 0
    for text in TEXTS[:20]:
        ids = loaded.chat.text(text[:-6])
        body = {"model": "escultor", "prompt": ids, "max_tokens": 1, "logprobs": 1, "echo": True}
        choice = Endpoint(url).post("/completions", [body | {"temperature": 0}], lambda r: r["choices"][0])[0]
        assert len(choice["logprobs"]["token_logprobs"]) == len(ids) + 1
        ended += choice["finish_reason"] == "stop"
    assert 2 <= ended <= 18
