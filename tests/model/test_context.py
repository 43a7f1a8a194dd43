"""A model's context has one meaning everywhere: the most tokens of a sequence, or no limit known."""

import pytest
import tiny
import torch
import transformers

from escultor.errors import TooLong
from escultor.model.decoding import answer_budget
from escultor.model.generate import generate
from escultor.model.inspect import inspect_text
from escultor.model.loaded import Loaded, context_length
from escultor.train.run_record import TrainingTask
from escultor.train.runs import preview
from escultor.types import Sampling


@pytest.fixture(scope="module")
def limitless():
    """A model whose configuration has no key for its context."""
    config = transformers.BloomConfig(vocab_size=tiny.VOCABULARY, hidden_size=32, n_layer=1, n_head=4)
    assert not hasattr(config, "max_position_embeddings")
    torch.manual_seed(0)
    model = transformers.BloomForCausalLM(config)
    return Loaded(model.eval(), tiny.tokenizer())


def test_the_context_is_that_of_the_configuration_or_none(limitless):
    assert context_length(limitless.model) is None
    model = tiny.llama().model
    assert context_length(model) == model.config.max_position_embeddings
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_positions=77, n_embd=8, n_layer=1, n_head=1)
    )
    assert context_length(gpt2) == 77


def test_without_a_limit_a_prompt_of_any_length_leaves_room(limitless):
    assert answer_budget(limitless.model, [5] * 100_000, 7) == 7
    model = tiny.llama().model
    with pytest.raises(TooLong, match="does not fit the model's context"):
        answer_budget(model, [5] * context_length(model), 7)


def test_without_a_limit_models_generate_show_and_preview_rows(limitless):
    (answer,) = generate(
        limitless, [limitless.chat.prompt(tiny.example(0, "red", "cat").prompt)], Sampling(max_new_tokens=2)
    )
    assert answer.finish_reason
    assert inspect_text(limitless, "red cat").positions
    assert preview(TrainingTask("sft", limitless, tiny.examples(4), tiny.settings())).rows == 4
