"""A model in this process: a returned answer has its row; costs and latencies are those of the batch."""

import pytest
from tiny import llama

from escultor.config import Serve
from escultor.errors import ConfigError, StoreError
from escultor.model.generate import generate
from escultor.serve.in_flight import draft_interaction
from escultor.serve.logged_model import LoggedModel
from escultor.types import Interaction, Message, Role, Sampling

SAMPLING = Sampling(max_new_tokens=4)


def draft(n, id="", sampling=SAMPLING):
    messages = (Message(Role.USER, f"The cat {n}"),)
    id = id or f"chatcmpl-{n}"
    return draft_interaction(messages, id=id, subject=f"subject{n}", version="v", sampling=sampling)


def test_what_is_answered_is_in_the_log_as_it_was_delivered(store):
    answered = LoggedModel(llama(), "v", store.log, Serve()).answer([draft(n) for n in range(3)])
    assert [i for _, i in store.log.read(Interaction)] == answered
    assert {i.version for i in answered} == {"v"}
    assert all(i.usage.completion_tokens <= 4 and i.latency_ms > 0 and i.cost_usd > 0 for i in answered)


def test_no_answer_is_delivered_that_could_not_be_written(store, monkeypatch):
    def refuse(*records):
        raise StoreError("the disk is full")

    engine = LoggedModel(llama(), "v", store.log, Serve())
    monkeypatch.setattr(store.log, "append", refuse)
    with pytest.raises(StoreError):
        engine.answer([draft(0)])


def test_equal_prompts_share_a_hash_and_others_do_not(store):
    engine = LoggedModel(llama(), "v", store.log, Serve())
    one, two, other = engine.answer([draft(0, "a"), draft(0, "b"), draft(1)])
    assert one.prompt_hash == two.prompt_hash != other.prompt_hash
    assert one.id != two.id


def test_a_repeated_question_gets_a_new_answer_and_each_answer_can_be_reproduced(store):
    model = LoggedModel(llama(), "v", store.log, Serve())
    answered = model.answer([draft(0, f"id-{n}", Sampling(1.0, 1.0, 8)) for n in range(4)])
    assert len({i.answer for i in answered}) > 1
    prompt = model.loaded.chat.prompt(answered[2].messages)
    (again,) = generate(model.loaded, [prompt], answered[2].sampling)
    assert again.text == answered[2].answer


def test_where_no_text_may_be_kept_it_is_refused_before_anything_is_answered(store):
    with pytest.raises(ConfigError, match="keep_text: false"):
        LoggedModel(llama(), "v", store.log, Serve(keep_text=False))
