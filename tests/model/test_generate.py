"""Answers do not depend on what else is in the batch; draws are repeated by their seed."""

import pytest
import torch
from tiny import llama

from escultor.errors import DataError
from escultor.evaluate.lm_eval.models import LocalBackend
from escultor.model.generate import generate
from escultor.serve.engines.generation_state import Detokenizer
from escultor.text.plain import PlainText
from escultor.types import Sampling

PROMPTS = [[7, 8, 9], [10, 11], [12] * 9, [20, 21, 22, 23]]


def test_greedy_answers_are_the_same_alone_and_in_a_batch():
    loaded, sampling = llama(), Sampling(max_new_tokens=6)
    together = generate(loaded, PROMPTS, sampling)
    alone = [generate(loaded, [prompt], sampling)[0] for prompt in PROMPTS]
    assert [a.tokens for a in together] == [a.tokens for a in alone]
    assert [a.prompt_tokens for a in together] == [3, 2, 9, 4]


def test_greedy_takes_the_likeliest_token():
    loaded = llama()
    (answer,) = generate(loaded, [PROMPTS[0]], Sampling(max_new_tokens=1))
    with torch.no_grad():
        logits = loaded.model(torch.tensor([PROMPTS[0]]), use_cache=False).logits[0, -1]
    assert answer.tokens == (int(logits.argmax()),)


def test_the_same_seed_draws_the_same_answers_and_another_seed_others():
    loaded = llama()
    draws = [generate(loaded, PROMPTS, Sampling(1.0, 1.0, 8, seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_draw_leaves_the_callers_random_numbers_alone():
    loaded = llama()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    generate(loaded, PROMPTS[:1], Sampling(1.0, 1.0, 2, 0))
    assert torch.equal(torch.rand(1), expected)


def test_an_answer_cut_by_the_limit_says_so():
    (answer,) = generate(llama(), [PROMPTS[0]], Sampling(max_new_tokens=2))
    assert answer.finish_reason == "length" or answer.tokens[-1] == llama().tokenizer.eos_token_id


@pytest.mark.parametrize("prompt", [[], [7] * 256])
def test_a_prompt_that_leaves_no_room_is_refused(prompt):
    with pytest.raises(DataError, match="does not fit"):
        generate(llama(), [prompt], Sampling())


def test_the_tokenizer_is_looked_through_once_for_all_calls(monkeypatch):
    made = []
    monkeypatch.setattr("escultor.text.chat.PlainText", lambda own: made.append(own) or PlainText(own))
    loaded = llama()
    for _ in range(3):
        generate(loaded, [PROMPTS[0]], Sampling(max_new_tokens=1))
    assert len(made) == 1


def test_answers_are_the_same_whatever_the_size_of_the_batch():
    loaded = llama()
    hot = [Sampling(1.0, 0.9, 3 + 5 * (i % 4), seed=i) for i in range(12)]
    asked = [[7 + i, 8, *range(9, 9 + i)] for i in range(12)]
    sizes = [[a.tokens for a in generate(loaded, asked, hot, size)] for size in (1, 3, 64)]
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize("as_list", [True, False])
def test_every_end_of_sequence_of_the_generation_config_ends_an_answer_wherever_one_is_made(as_list):
    free, told = llama(), llama()
    (answer,) = generate(free, [PROMPTS[0]], Sampling(max_new_tokens=6))
    end = answer.tokens[0]
    assert end not in free.stops
    told.model.generation_config.eos_token_id = [end, 10**6, None] if as_list else end
    assert told.stops == {told.chat.turn_end[-1], told.chat.eos, end}
    (cut,) = generate(told, [PROMPTS[0]], Sampling(max_new_tokens=6))
    assert (cut.tokens, cut.text, cut.finish_reason) == ((end,), "", "stop")
    assert len(answer.tokens) > 1
    assert Detokenizer(told).stops == told.stops
    ((text, _),) = LocalBackend(told, "m", 4).texts(["red"], [Sampling(max_new_tokens=6)], [()])
    ((long, _),) = LocalBackend(free, "m", 4).texts(["red"], [Sampling(max_new_tokens=6)], [()])
    assert long.startswith(text)
