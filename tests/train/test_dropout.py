"""A policy is compared with its reference as both are, without dropout; elsewhere a model's own acts."""

import math
from collections import Counter

import pytest
import tiny
import torch
from test_kto import verdicts
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from escultor.batching.batches import nll_batch
from escultor.config import Dpo, Kto, Sft
from escultor.errors import ModelError
from escultor.model.attention import choose_attention, set_attention
from escultor.model.forward import logp_at_labels, set_train_mode
from escultor.text.chat import ChatTemplate
from escultor.train.device_setup import prepared_layers
from escultor.train.distributed import CPU
from escultor.train.loop import train
from escultor.train.methods import METHODS, Frozen


def gpt2():
    """A model that drops a tenth after its embedding, in its layers and of its attention."""
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=tiny.VOCABULARY, bos_token_id=1, eos_token_id=2, **shape))
    set_attention(model, choose_attention(model, CPU))
    return model


def first_loss(phase, rows, settings):
    model, method = gpt2(), METHODS[phase]
    stream = method.stream(rows, Frozen(model, None, Counter()), settings)
    with prepared_layers(model, settings):
        return train(model, stream, method.objective(settings), settings).loss


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_policy_begins_at_its_reference(checkpointed):
    own = {"batch_size": 5, "max_steps": 1, "dtype": "float32", "gradient_checkpointing": checkpointed}
    assert first_loss("dpo", tiny.pair_rows(), Dpo(**own)) == pytest.approx(math.log(2), abs=1e-6)
    rows = METHODS["kto"].rows(verdicts(), ChatTemplate(tiny.tokenizer()), 200, Counter(), Kto(**own))
    assert first_loss("kto", rows, Kto(**own)) == pytest.approx(0.5, abs=1e-6)


def test_dropout_acts_on_examples():
    own = Sft(batch_size=8, max_steps=1, dtype="float32")
    rows = tiny.nll_rows()
    batch = nll_batch(rows)
    still = -(logp_at_labels(gpt2().eval(), batch.packed) * batch.weight).sum() / batch.weight.sum()
    assert abs(first_loss("sft", rows, own) - still.item()) > 1e-3


def test_layers_are_still_computed_again_where_dropout_is_off(monkeypatch):
    model, again = gpt2(), []
    with prepared_layers(model, tiny.settings(gradient_checkpointing=True)):
        set_train_mode(model, dropout=False)
        for layer in model.transformer.h:
            layer.ln_1.register_forward_hook(lambda *_: again.append(1))
        logp_at_labels(model, nll_batch(tiny.nll_rows(2)).packed).sum().backward()
    assert len(again) == 2 * len(model.transformer.h)


def test_layers_whose_own_dropout_cannot_be_told_apart_are_refused():
    shape = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = OPTForCausalLM(OPTConfig(vocab_size=tiny.VOCABULARY, word_embed_proj_dim=32, **shape))
    set_train_mode(model, dropout=False)
    assert not any(module.training for module in model.modules())
    with (
        prepared_layers(model, tiny.settings(gradient_checkpointing=True)),
        pytest.raises(
            ModelError, match=r"dropout cannot be turned off.*dropout 0\.1.*gradient_checkpointing=false"
        ),
    ):
        set_train_mode(model, dropout=False)
