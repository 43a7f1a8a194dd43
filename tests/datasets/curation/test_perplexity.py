"""What a base model thinks of a row is its negative log-likelihood a byte, as plain arithmetic has it."""

import math

import pytest
import torch
from curate_rows import jsonl
from tiny import TEXTS, llama

from escultor.config.curation import Curation
from escultor.datasets.curation.features import PERPLEXITY
from escultor.datasets.curation.pipeline import curate
from escultor.datasets.curation.quality import SCORE
from escultor.datasets.rows import read_line, target_text
from escultor.model.folders import save

STEPS = ("exact", "perplexity", "quality")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(llama(context=64), folder)
    return folder


def curated(folder, model, rows):
    settings = {
        "workers": 1,
        "steps": STEPS,
        "quality": {"min_score": 0},
        "perplexity": {"model": str(model), "batch_size": 3},
    }
    made = curate([jsonl(folder / "in.jsonl", *rows)], folder / "out", Curation.model_validate(settings))
    return [read_line(made.kind, line) for line in made.rows.read_bytes().splitlines()]


def nats(ids, first):
    """From the logits, one token after another."""
    with torch.no_grad():
        logp = llama(context=64).model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logp[at - 1, ids[at]]) for at in range(first, len(ids)))


def test_an_examples_figure_is_that_of_its_response(tmp_path, model):
    rows = [{"prompt": TEXTS[i], "completion": TEXTS[-i - 1]} for i in range(7)]
    rows.append({"prompt": "cat", "completion": "dog " * 200})  # longer than the context
    found = curated(tmp_path, model, rows)
    assert len(found) == 8
    chat = llama(context=64).chat
    for row in found[:-1]:
        made = chat.example(row.item.prompt, target_text(row.item))
        bits = nats(made.prompt + made.response, len(made.prompt)) / math.log(2)
        assert row.figures[PERPLEXITY] == pytest.approx(bits / len(target_text(row.item).encode()), rel=1e-4)
    assert PERPLEXITY not in found[-1].figures
    assert SCORE in found[-1].figures


def test_a_documents_figure_is_that_of_all_its_text(tmp_path, model):
    texts = [*TEXTS[:4], " ".join(TEXTS)]  # the last in windows of the context
    found = curated(tmp_path, model, [{"text": text} for text in texts])
    chat = llama(context=64).chat
    assert len(found) == 5
    for row in found:
        (ids,) = chat.documents([row.item.text])
        bits = sum(nats(ids[at : at + 64], 1) for at in range(0, len(ids), 64)) / math.log(2)
        assert row.figures[PERPLEXITY] == pytest.approx(bits / len(row.item.text.encode()), rel=1e-4)
