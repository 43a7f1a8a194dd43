"""The evaluation harness on our models, in a process of its own: its warnings are not ours."""

import json
import os
import subprocess
import sys

import pytest
from tiny_suites import talkative

from escultor.evaluate.predictions import Predictions
from escultor.model.folders import save
from escultor.store import open_store
from escultor.types import Scores, Suite

pytest.importorskip("lm_eval")

CHOICE = """
task: pets
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_target: "{{right}}"
doc_to_choice: ["dog", "bird"]
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
OPEN = """
task: words
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "dog"
generation_kwargs: {until: ["."], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
ROLLING = """
task: texts
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
"""
PAIRS = CHOICE.replace("{metric: acc}, {metric: acc_norm}", "{metric: mcc}")
BEAMS = OPEN.replace("do_sample: false", "num_beams: 4")
# All in one process, since the harness takes its time to load: the command on every task, and our
# likelihoods beside the harness's own way of asking the same model.
PROGRAM = """
import json
from pathlib import Path
from typer.testing import CliRunner
from escultor.cli.app import app
from escultor.evaluate.lm_eval import models as harness_models
out = {}
asked = []
for name in ("likelihoods", "whole", "texts"):
    def noted(self, *args, real=getattr(harness_models.LocalBackend, name)):
        found = real(self, *args)
        asked.append(len(found))
        return found
    setattr(harness_models.LocalBackend, name, noted)
for task in ("pets", "words", "pets again", "words again", "texts", "pairs", "none", "beams"):
    asked.clear()
    words = ["--suite", f"lm-eval:{task.split()[0]}.yaml", "--json", "--out", f"{task}.json"]
    call = CliRunner().invoke(app, ["evaluate", "model", *words])
    out[task] = [call.exit_code, call.stdout.splitlines()[-1], call.stderr[-2000:], sum(asked)]
from lm_eval.models.huggingface import HFLM
from escultor.model.load import load
from escultor.evaluate.lm_eval.tasks import _harness
from escultor.evaluate.cache import EvaluationCache
from tokenizers.processors import TemplateProcessing
loaded = load("model")
# The harness leaves a BOS to the tokenizer, and so do we.
begin, number = loaded.tokenizer.bos_token, loaded.tokenizer.bos_token_id
loaded.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
    single=f"{begin} $A", special_tokens=[(begin, number)]
)
theirs = HFLM(
    pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1, add_bos_token=True, device="cpu"
)
run, read, base = _harness()
ours = harness_models.harness_model(base, harness_models.LocalBackend(loaded, "it", 2), EvaluationCache(None))
for name, lm in (("ours", ours), ("theirs", theirs)):
    found = run(model=lm, tasks=[read(Path("pets.yaml"))], bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"]["pets"], key=lambda s: s["doc_id"])
    out[name] = [s["filtered_resps"] for s in samples]
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    place = tmp_path_factory.mktemp("harness")
    save(talkative(), place / "model")
    rows = [{"text": f"cat {n} tree", "right": n % 2} for n in range(5)]
    (place / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = {"pets": CHOICE, "words": OPEN, "texts": ROLLING, "pairs": PAIRS, "beams": BEAMS}
    for name, text in texts.items():
        (place / f"{name}.yaml").write_text(text.replace("DATA", str(place / "data.jsonl")))
    (place / "none.yaml").write_text("task: none\n")
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(place / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    words = [sys.executable, "-c", PROGRAM]
    call = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, timeout=250)
    assert call.returncode == 0, call.stderr[-2000:]
    return place, json.loads(call.stdout.splitlines()[-1])


@pytest.mark.parametrize(("task", "metrics"), [("pets", {"acc", "acc_norm"}), ("words", {"exact_match"})])
def test_a_local_task_lands_as_scores_with_a_number_for_every_document(harness, task, metrics):
    place, found = harness
    code, line, said, _ = found[task]
    assert code == 0, said
    assert json.loads(line)["items"] == 5
    scores = json.loads((place / f"{task}.json").read_text())
    assert set(scores["metrics"]) == metrics
    assert all(len(values) == 5 for values in scores["metrics"].values())
    with open_store(str(place / "escultor-store")) as store:
        kept = store.log.get(Scores, scores["id"])
        assert kept is not None
        assert len(Predictions.from_bytes(store.blobs.get_bytes(str(kept.answers))).answers) == 5
        suite = store.log.get(Suite, kept.suite)
        assert suite is not None
        assert suite.name == task


def test_likelihoods_are_those_of_the_harness_own_model(harness):
    _, found = harness
    for ours, theirs in zip(found["ours"], found["theirs"], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert float(one[0]) == pytest.approx(float(other[0]), abs=1e-4)
            assert str(one[1]) == str(other[1])


def test_metrics_that_are_no_number_per_document_and_files_that_are_no_task_are_refused(harness):
    _, found = harness
    assert found["pairs"][0] == found["none"][0] == 2
    assert "no number per document" in found["pairs"][2]


def test_a_documents_bits_per_byte_are_one_number_and_better_lower(harness):
    place, found = harness
    assert found["texts"][0] == 0, found["texts"][2]
    scores = json.loads((place / "texts.json").read_text())
    scale = scores["scales"]["bits_per_byte"]
    assert (scale["better"], scale["least"], scale["most"]) == ("lower", 0.0, None)
    assert all(value > 0 for value in scores["metrics"]["bits_per_byte"])


@pytest.mark.parametrize(("task", "requests"), [("pets", 10), ("words", 5)])
def test_a_task_evaluated_twice_asks_the_model_nothing_and_is_one_row_of_scores(harness, task, requests):
    place, found = harness
    once, again = found[task], found[f"{task} again"]
    assert (once[3], again[3]) == (requests, 0)
    scores = json.loads(once[1])["scores"]
    assert json.loads(again[1])["scores"] == scores
    with open_store(str(place / "escultor-store")) as store:
        assert sum(row.id == scores for _, row in store.log.read(Scores)) == 1


def test_decoding_that_is_not_done_here_is_refused(harness):
    _, found = harness
    assert found["beams"][0] == 2
    assert "num_beams: 4" in found["beams"][2]
