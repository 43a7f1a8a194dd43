"""A model in this process: a delivered answer has its row; costs and latencies are those of the batch."""

import pytest
from tiny import llama

from escultor.config import Serve
from escultor.errors import ConfigError, StoreError
from escultor.model.generate import generate
from escultor.serve.interactions import Placement, Request
from escultor.serve.logged_model import LoggedModel
from escultor.store import open_store
from escultor.types import Interaction, Message, Role, Sampling

SAMPLING = Sampling(max_new_tokens=4)


def requests(count=3):
    return [Request((Message(Role.USER, f"The cat {n}"),), f"subject{n}") for n in range(count)]


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


def test_what_is_answered_is_in_the_log_as_it_was_delivered(store):
    made = LoggedModel(llama(), Placement("v"), store.log, Serve()).answer(requests(), SAMPLING)
    assert [i for _, i in store.log.read(Interaction)] == made
    assert {i.version for i in made} == {"v"}
    assert all(i.usage.completion_tokens <= 4 and i.latency_ms > 0 and i.cost_usd > 0 for i in made)


def test_no_answer_is_delivered_that_could_not_be_written(store, monkeypatch):
    def refuse(*nouns):
        raise StoreError("the disk is full")

    engine = LoggedModel(llama(), Placement("v"), store.log, Serve())
    monkeypatch.setattr(store.log, "append", refuse)
    with pytest.raises(StoreError):
        engine.answer(requests(), SAMPLING)


def test_equal_prompts_share_a_hash_and_others_do_not(store):
    engine = LoggedModel(llama(), Placement("v"), store.log, Serve())
    one, two, other = engine.answer([requests()[0], requests()[0], requests()[1]], SAMPLING)
    assert one.prompt_hash == two.prompt_hash != other.prompt_hash
    assert one.id != two.id


def test_one_who_asks_again_is_answered_anew_and_each_answer_can_be_repeated(store):
    model = LoggedModel(llama(), Placement("v"), store.log, Serve())
    made = model.answer([requests()[0]] * 4, Sampling(1.0, 1.0, 8))
    assert len({i.answer for i in made}) > 1
    prompt = model.loaded.chat.prompt(made[2].messages)
    (again,) = generate(model.loaded, [prompt], made[2].sampling)
    assert again.text == made[2].answer


def test_where_no_text_may_be_kept_it_is_refused_before_anything_is_answered(store):
    with pytest.raises(ConfigError, match="keep_text: false"):
        LoggedModel(llama(), Placement("v"), store.log, Serve(keep_text=False))
