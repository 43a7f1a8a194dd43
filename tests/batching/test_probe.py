"""Models that carry one text over into the next, or say something else than their head, are refused."""

import pytest
import tiny
import torch
import transformers

from escultor.batching.batches import pair_batch
from escultor.batching.probe import logp_alone, refuse_unpackable
from escultor.batching.teacher import nll_by_row
from escultor.errors import ModelError
from escultor.model.attention import choose_attention, set_attention
from escultor.model.forward import logp_at_labels
from escultor.train.distributed import CPU
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run

SHAPE = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # of order 1 as in a trained model
}


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))


def convolutional():
    layers = ["conv", "full_attention"]
    return transformers.Lfm2ForCausalLM(transformers.Lfm2Config(**SHAPE, layer_types=layers))


def of_places():
    """Its attention fades with the distance in the packed row, whatever the positions say."""
    config = transformers.MptConfig(
        vocab_size=tiny.VOCABULARY, d_model=32, n_heads=4, n_layers=2, max_seq_len=256, initializer_range=0.2
    )
    return transformers.MptForCausalLM(config)


def neo(window):
    config = transformers.GPTNeoConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=512,
        window_size=window,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.GPTNeoForCausalLM(config)


def made(make):
    torch.manual_seed(0)
    model = make()
    set_attention(model, choose_attention(model, CPU))
    return model


@pytest.mark.parametrize("make", [llama, lambda: neo(256)], ids=["llama", "gpt-neo"])
def test_a_model_that_keeps_packed_texts_apart_is_taken_and_left_as_it_was(make):
    model = made(make).train()
    generator = torch.get_rng_state()
    refuse_unpackable(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("make", [convolutional, of_places])
def test_a_model_in_which_texts_reach_into_each_other_is_refused(make):
    with pytest.raises(ModelError, match=r"several texts in one row.*differ by up to"):
        refuse_unpackable(made(make))


def test_a_model_that_cannot_be_told_at_all_is_refused_with_its_own_words():
    config = transformers.BloomConfig(vocab_size=tiny.VOCABULARY, hidden_size=32, n_layer=1, n_head=4)
    with pytest.raises(ModelError, match=r"BloomForCausalLM .*got: ValueError"):
        refuse_unpackable(made(lambda: transformers.BloomForCausalLM(config)))


def test_a_head_that_says_something_else_than_the_model_is_refused():
    model = made(llama)
    alone = logp_alone(model)
    model.lm_head.weight.data.mul_(1.1)
    with pytest.raises(ModelError):
        refuse_unpackable(model, alone)


def test_runs_and_evaluations_refuse_it_too(tmp_path):
    loaded = tiny.llama()
    bad = type(loaded)(made(convolutional), loaded.tokenizer)
    with pytest.raises(ModelError, match="several texts in one row"):
        run(TrainingTask("sft", bad, tiny.examples(4), tiny.settings()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="several texts in one row"):
        nll_by_row(bad.model, tiny.nll_rows(2), "float32")


def test_a_branch_beyond_a_window_of_places_is_refused():
    rows = tiny.pair_rows(3)
    longest = max(row.length for row in rows)
    assert torch.isfinite(logp_at_labels(made(lambda: neo(longest)), pair_batch(rows).packed)).all()
    with pytest.raises(ModelError, match=f"local window; got: {longest} tokens"):
        logp_at_labels(made(lambda: neo(longest - 1)), pair_batch(rows).packed)
