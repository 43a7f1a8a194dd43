"""lm-eval, unchanged, against a server that runs: what it scores is what it scores with the model itself."""

import json
import os

import pytest
from test_serving_processes import served
from tiny import TEXTS, llama

from escultor.evaluate.lm_eval.models import LocalBackend, ServedBackend
from escultor.evaluate.served_model import Endpoint, served_model
from escultor.model.folders import save
from escultor.model.load import load
from escultor.store import open_store
from escultor.types import Consent, Interaction, Sampling

TASKS = {
    "tiny_choice": "output_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_choice: '{{choices}}'\n"
    "doc_to_target: '{{gold}}'\ntarget_delimiter: ''\nmetric_list: [{metric: acc}]\n",
    "tiny_words": "output_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: 'sings'\n"
    "generation_kwargs: {until: ['.'], max_gen_toks: 6, do_sample: false}\n"
    "metric_list: [{metric: exact_match}]\n",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of tasks that need no network."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"text": t[:-6], "choices": [" sings.", " runs fast."], "gold": 0} for t in TEXTS[:12]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'rows.jsonl'}}}}}\n"
        whole = f"task: {name}\n{data}test_split: test\n{text}"
        (folder / f"{name}.yaml").write_text(whole)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(llama(context=256), folder)
    return folder


def evaluate(tasks, names, harness, **args):
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(
        harness, args, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0, **CHAT[harness]
    )
    return {name: [sample["resps"] for sample in found["samples"][name]] for name in names}


def our_own_way(behind, local):
    """What `evaluate --url` asks of a server, held against the same of the model; how many requests."""
    pairs = [(t[:-6], said) for t in TEXTS[:12] for said in (" sings.", " runs fast.")]
    for one, other in zip(behind.likelihoods(pairs), local.likelihoods(pairs), strict=True):
        assert one == (pytest.approx(other[0], abs=1e-3), *other[1:])
    for one, other in zip(behind.whole(TEXTS[:3]), local.whole(TEXTS[:3]), strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-3)
    greedy = [Sampling(max_new_tokens=6)] * 12
    asked = [t[:-6] for t in TEXTS[:12]], greedy, [()] * 12
    assert behind.texts(*asked) == local.texts(*asked)
    return 24 + 3 + 12 + 2  # two to find the token that a text without a context is scored after


CHAT = {"local-chat-completions": {"apply_chat_template": True}, "local-completions": {}, "hf": {}}


@pytest.mark.filterwarnings("default")
def test_the_harness_scores_the_served_model_as_it_scores_the_model(tasks, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with served(tmp_path, "--model", model) as process:
        url = f"{process.url}/v1"
        common = {"model": "escultor", "tokenizer": str(model), "tokenizer_backend": "huggingface"}
        path = f"{url}/completions"
        ours = evaluate(
            tasks, list(TASKS), "local-completions", base_url=path, num_concurrent=4, max_length=256, **common
        )
        theirs = evaluate(tasks, list(TASKS), "hf", pretrained=str(model), device="cpu", dtype="float32")
        pairs = zip(ours["tiny_choice"], theirs["tiny_choice"], strict=True)
        for one, other in pairs:
            for (ours_sum, ours_greedy), (theirs_sum, theirs_greedy) in zip(
                (r[0] for r in one), (r[0] for r in other), strict=True
            ):
                assert float(ours_sum) == pytest.approx(float(theirs_sum), abs=1e-3)
                assert str(ours_greedy) == str(theirs_greedy)
        assert ours["tiny_words"] == theirs["tiny_words"]
        requests = our_own_way(
            ServedBackend(served_model(Endpoint(url), "escultor")), LocalBackend(load(model), "it", 4)
        )
        chat = {"model": "escultor", "base_url": f"{url}/chat/completions"}
        said = evaluate(tasks, ["tiny_words"], "local-chat-completions", **chat)["tiny_words"]
        assert process.stop(30) == 0
    with open_store(str(tmp_path / "escultor-store")) as store:
        rows = [row for _, row in store.log.read(Interaction)]
    assert sum(row.consent == Consent.EVAL_ONLY for row in rows) == 12 * 2 + 12 + requests
    chats = [row.answer for row in rows if row.consent == Consent.TRAIN]
    assert sorted(chats) == sorted(text for ((text,),) in said)


os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
