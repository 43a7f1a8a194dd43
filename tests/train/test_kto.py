"""Unpaired verdicts from rows to weights."""

from collections import Counter

import pytest
import tiny
import torch

from escultor.batching.rows import unpaired_rows
from escultor.config import Kto
from escultor.errors import DataError
from escultor.text.chat import ChatTemplate
from escultor.train.loop import train
from escultor.train.methods import METHODS, Frozen
from escultor.train.optim import Optimizers
from escultor.types import Message, Role, UnpairedExample


def verdict(i, prompt, response, desirable=True):
    return UnpairedExample(f"judged{i}", (Message(Role.USER, prompt),), response, desirable, tiny.ORIGIN)


def verdicts(count=8):
    return [verdict(i, f"{tiny.WORDS[i]} now", f"{tiny.WORDS[i + 4]} here", i % 2 == 0) for i in range(count)]


@pytest.fixture(scope="module")
def chat():
    return ChatTemplate(tiny.tokenizer())


def rows_of(items, chat, room=200, counts=None):
    return unpaired_rows(items, chat, room, Counter() if counts is None else counts)


# --- rows -------------------------------------------------------------------------------------


def test_each_verdict_has_a_response_to_another_prompt(chat):
    items = [verdict(i, prompt, f"answer {i}") for i, prompt in enumerate("abbbca")]
    rows = rows_of(items, chat)
    said = [chat.decode(row.other.tolist()) for row in rows]
    # the nearest before it with another prompt; the first one's stands at the end, past its own prompt
    assert said == [f"answer {i}" for i in (4, 0, 0, 0, 3, 4)]


def test_verdicts_on_one_prompt_alone_are_refused(chat):
    with pytest.raises(DataError, match="verdicts on one prompt alone; got: 3 rows"):
        rows_of([verdict(i, "a", f"answer {i}") for i in range(3)], chat)


def test_what_is_too_long_is_dropped_and_what_is_borrowed_is_cut_both_counted(chat):
    counts = Counter()
    items = [verdict(0, "a", "red " * 60), verdict(1, "b", "red " * 20), verdict(2, "c" * 30, "blue")]
    rows = rows_of(items, chat, 50, counts)
    assert [row.id for row in rows] == ["judged1", "judged2"]
    assert counts["dropped: longer than max_length"] == 1
    assert counts["responses to another prompt cut to max_length"] == 1
    assert all(len(row.prompt) + len(branch) <= 50 for row in rows for branch in row.branches)


# --- training ---------------------------------------------------------------------------------


def trained(chat, **changes):
    """The model after KTO on the verdicts, and the last report."""
    plain = tiny.settings(**changes).model_dump()
    own = Kto.model_validate({k: v for k, v in plain.items() if k in Kto.model_fields} | {"beta": 0.5})
    loaded, counts = tiny.llama(), Counter()
    phase = METHODS["kto"]
    rows = phase.rows(verdicts(), chat, 200, counts, own)
    stream = phase.stream(rows, Frozen(loaded.model, None, counts), own)
    return loaded.model, train(loaded.model, stream, phase.objective(own), own), counts


def test_the_first_step_costs_a_half_and_the_reference_is_asked_once(chat):
    _, report, counts = trained(chat, batch_size=8, max_steps=1)
    assert report.loss == pytest.approx(0.5, abs=1e-6)
    assert report.more["desirable"] == 0.5
    assert counts["reference rows computed"] == 8


@pytest.mark.parametrize("size", [1, 3])
def test_a_step_does_not_depend_on_how_it_was_cut(chat, monkeypatch, size):
    seen = []

    def record(self, share):
        gradients = [p.grad.flatten() for part in self.parts for g in part.param_groups for p in g["params"]]
        seen.append(torch.cat(gradients))
        original(self, share)

    original = Optimizers.step
    monkeypatch.setattr(Optimizers, "step", record)
    for own in (None, size):
        trained(chat, batch_size=8, epochs=3, micro_batch_size=own, max_grad_norm=1e9)
    whole, cut = seen[:3], seen[3:]
    # From the second step on the divergence is not 0, and is that of the whole step.
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


def test_training_tells_good_answers_from_bad_ones(chat):
    _, report, _ = trained(chat, batch_size=8, epochs=30)
    assert report.more["accuracy"] == 1.0
    assert report.loss < 0.3
