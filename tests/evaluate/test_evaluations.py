"""Evaluations: aligned, cached, resumable, and the likelihoods those of the model itself."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import llama
from tiny_suites import EVERYTHING, items, talkative, tiny_suite, user

from escultor.config import Evaluation
from escultor.errors import DataError
from escultor.evaluate import predictions, scoring
from escultor.evaluate.cache import EvaluationCache
from escultor.ids import hash_bytes
from escultor.model.generate import generate
from escultor.skills.answer_parts import AnswerParts
from escultor.skills.suites import make_suite
from escultor.skills.table import METRICS
from escultor.types import Sampling

SETTINGS = Evaluation(batch_size=2, speed_requests=2)


def evaluated(loaded, suite, cache=None, settings=SETTINGS):
    return scoring.evaluate(loaded, "model", suite, settings, 0.1, cache=cache)


def test_every_item_has_one_number_per_metric_and_its_slice():
    suite = tiny_suite()
    done = evaluated(llama(), suite)
    scores = done.scores
    assert scores.suite == suite.id
    assert scores.items == tuple(item.id for item in suite.items)
    assert scores.clusters == ("c0", "c0", "c1", "c1", "c2", "c2")
    assert set(scores.metrics) == set(scores.scales) == set(EVERYTHING)
    assert all(len(v) == 6 and all(map(math.isfinite, v)) for v in scores.metrics.values())
    assert scores.slices == {"half": ("first",) * 3 + ("second",) * 3}
    assert scores.answers == hash_bytes(done.predictions.to_bytes())
    assert predictions.Predictions.from_bytes(done.predictions.to_bytes()) == done.predictions
    assert {"calibration_error", "perplexity_over_all_tokens", "cut_share"} <= set(scores.summary)


def test_answers_do_not_depend_on_the_order_or_the_company_of_items():
    loaded, suite = talkative(), tiny_suite()
    done = evaluated(loaded, suite)
    assert len(set(done.predictions.answers)) > 3
    for item, said in zip(suite.items, done.predictions.answers, strict=True):
        alone = generate(loaded, [loaded.chat.prompt(item.prompt)], suite.record.decoding, 1)[0]
        assert said == (alone.text,)


def test_likelihoods_are_those_of_a_plain_forward_pass():
    loaded, suite = llama(), tiny_suite(3)
    done = evaluated(loaded, suite)
    chat, item = loaded.chat, suite.items[0]

    def nats(before, said):
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([before + said])).logits[0].log_softmax(-1)
        at = range(len(before) - 1, len(before) + len(said) - 1)
        return -sum(float(logits[t, token]) for t, token in zip(at, said, strict=True))

    def answer(text):
        return chat.example(item.prompt, text).response

    prompt = chat.prompt(item.prompt)
    whole = nats(prompt, answer(item.references[0]))
    assert done.scores.metrics["bits_per_byte"][0] == pytest.approx(
        whole / math.log(2) / len(item.references[0]), rel=0.01
    )
    tokens = len(answer(item.references[0]))
    assert done.scores.metrics["perplexity"][0] == pytest.approx(math.exp(whole / tokens), rel=0.01)
    choices = [nats(prompt, answer(c)[: -len(chat.turn_end)]) for c in item.choices]
    assert done.scores.metrics["accuracy"][0] == float(choices[0] < choices[1])
    odds = [math.exp(-n) for n in choices]
    assert done.scores.metrics["brier"][0] == pytest.approx((odds[1] / sum(odds)) ** 2, rel=0.02)


def test_a_document_longer_than_the_context_is_read_in_windows_to_its_end():
    loaded = llama(context=64)
    long = " ".join(["cat dog"] * 80)
    item = make_suite(
        "x",
        "chat",
        [replace(items()[0], document=long)],
        ["document_bits_per_byte"],
        Sampling(),
    )
    bits = evaluated(loaded, item).scores.metrics["document_bits_per_byte"][0]
    assert math.isfinite(bits)
    assert bits > 0


def test_evaluating_twice_asks_the_model_nothing(tmp_path, monkeypatch):
    loaded, suite = llama(), tiny_suite()
    first = evaluated(loaded, suite, tmp_path)

    def refuse(*_):
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(predictions, "generate", refuse)
    monkeypatch.setattr(predictions, "nll_by_row", refuse)
    again = evaluated(loaded, suite, tmp_path)
    assert again.scores.metrics == first.scores.metrics
    assert again.predictions.answers == first.predictions.answers
    with pytest.raises(AssertionError, match="asked again"):
        evaluated(loaded, tiny_suite(tokens=4), tmp_path)


def test_an_evaluation_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch):
    loaded, suite = talkative(), tiny_suite(40, metrics=("f1",))
    whole = evaluated(loaded, suite)
    asked = []
    real = predictions.generate

    def dying(loaded, prompts, sampling, batch):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return real(loaded, prompts, sampling, batch)

    monkeypatch.setattr(predictions, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluated(loaded, suite, tmp_path)
    (file,) = (tmp_path / "evaluations").iterdir()
    file.write_bytes(file.read_bytes()[:-30])  # the last line cut short, as by a crash
    asked.clear()
    monkeypatch.setattr(predictions, "generate", lambda *args: asked.append(len(args[1])) or real(*args))
    assert evaluated(loaded, suite, tmp_path).predictions.answers == whole.predictions.answers
    assert sum(asked) == 40 - 2 * 8


def test_an_item_is_answered_once_for_each_seed_and_the_mean_counts():
    loaded, suite = llama(), tiny_suite(metrics=("f1", "answer_tokens"), seeds=(1, 2, 3), temperature=1.5)
    done = evaluated(loaded, suite)
    assert {len(said) for said in done.predictions.answers} == {3}
    assert any(len(set(said)) > 1 for said in done.predictions.answers)
    for item, said, value in zip(
        suite.items, done.predictions.answers, done.scores.metrics["f1"], strict=True
    ):
        one = [METRICS["f1"].score(predictions.ModelOutput(answer=text), item) for text in said]
        assert value == pytest.approx(sum(one) / 3)


def test_what_does_not_fit_the_context_is_refused_with_its_name():
    long = make_suite("x", "chat", [replace(items()[0], prompt=user("cat " * 80))], ["f1"], Sampling())
    with pytest.raises(DataError, match=r"longer than the model's context.*'i0'"):
        evaluated(llama(context=64), long)


def test_a_model_without_a_chat_template_reads_the_prompt_as_it_is():
    loaded = llama()
    loaded.tokenizer.chat_template = None
    scores = evaluated(loaded, tiny_suite()).scores
    assert loaded.chat.prompt(items()[0].prompt) == loaded.chat._begin() + loaded.chat.text("cat ")
    assert all(map(math.isfinite, scores.metrics["accuracy"]))


def test_processes_that_share_a_cache_lose_nothing(tmp_path):
    path = tmp_path / "deep" / "cache.jsonl"
    one, other = EvaluationCache(path), EvaluationCache(path)
    assert one.get("a", lambda: 1) == other.get("a", lambda: 2) - 1 == 1
    other.get("b", lambda: [3])
    with path.open("ab") as file:
        file.write(b'{"key": "c", "val')
    third = EvaluationCache(path)
    assert third.get("a", lambda: None) == 1  # the first that was written
    assert third.get("b", lambda: None) == [3]
    assert "c" not in third
    assert third.get("c", lambda: 4) == 4
    assert EvaluationCache(path).get("c", lambda: None) == 4


def test_an_answer_ends_before_a_stop_text_and_is_not_cut_there():
    suite = tiny_suite(3, metrics=("exact_match", "cut"))
    whole = evaluated(talkative(), suite).predictions.answers
    stop = whole[0][0][2:5]
    parts = AnswerParts((stop,))
    stopped = make_suite("s", "chat", items(3), ["exact_match", "cut"], suite.record.decoding, parts=parts)
    done = evaluated(talkative(), stopped)
    assert done.predictions.answers == tuple((text.partition(stop)[0],) for (text,) in whole)
    assert done.scores.metrics["cut"] == tuple(float(stop not in text) for (text,) in whole)
