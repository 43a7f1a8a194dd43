"""The estimate of a run's memory and time against what autograd keeps and what a run computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from escultor.batching.batches import nll_batch
from escultor.batching.rows import NllRow
from escultor.config import Lora
from escultor.model.adapters import adapter_numbers, with_adapter
from escultor.model.attention import set_attention
from escultor.model.cost import Work, estimate_cost, forward_flops, matrix_speed
from escultor.model.forward import logp_at_labels, precision
from escultor.model.head import chunk_tokens
from escultor.model.loaded import Loaded
from escultor.model.memory import checkpoint_layers

HEAD = 4 * 3 * chunk_tokens(300) * 300


def llama(**changes):
    shape = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"vocab_size": 300, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**(shape | changes)))


def kept(model, batch, dtype):
    """Bytes that autograd keeps of a forward pass, weights not counted, and the head's own left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision(dtype):
        logp_at_labels(model, batch.packed).sum()
    return sum(found.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_hidden_layers": 4},
        {"hidden_size": 128, "num_key_value_heads": 2},
        {"intermediate_size": 512},
    ],
)
def test_the_activations_are_what_autograd_keeps_to_a_seventh(dtype, changes):
    model = llama(**changes).train()
    for count, width in ((8, 256), (4, 512)):
        rows = [NllRow(str(i), np.full(width // 2, 7, np.int32), 1) for i in range(count)]
        batch = nll_batch(rows, width)
        work = Work(1.0, batch.packed.ids.numel(), width, 1, 1)
        for kind in ("dense", "segments"):
            set_attention(model, kind)
            estimate = (
                estimate_cost(model, replace(work, masked=kind == "dense"), dtype, 1.0).activations - HEAD
            )
            assert estimate == pytest.approx(kept(model, batch, dtype), rel=1 / 7)


def test_checkpointed_layers_keep_their_input_and_one_layer_is_computed_at_a_time():
    shallow, deep = llama(), llama(num_hidden_layers=10)
    batch = nll_batch([NllRow(str(i), np.full(128, 7, np.int32), 1) for i in range(8)], 256)
    work = Work(1.0, batch.packed.ids.numel(), 256, 1, 1, checkpointed=True)
    estimates, found = [], []
    for model in (shallow.train(), deep.train()):
        set_attention(model, "segments")
        checkpoint_layers(model, True)
        estimates.append(estimate_cost(model, work, "float32", 1.0).activations)
        found.append(kept(model, batch, "float32"))
    assert estimates[1] - estimates[0] == pytest.approx(found[1] - found[0], rel=0.01)
    whole = estimate_cost(deep, replace(work, checkpointed=False), "float32", 1.0).activations
    assert estimates[1] - HEAD < (whole - HEAD) / 4


def test_time_is_six_flops_per_parameter_and_token_where_all_are_trained():
    for tied in (True, False):
        model = llama(tie_word_embeddings=tied)
        total = sum(p.numel() for p in model.parameters())
        used = total - (0 if tied else 300 * 64)
        found = estimate_cost(model, Work(1000.0, 512, 512, used, 8 * total, 5e6), "float32", 1e9)
        assert found.flops == 6 * 1000 * used + 5e6
        assert found.seconds == pytest.approx(found.flops / 1e9)
        assert forward_flops(model, 10) == 20 * used
        assert (found.weights, found.gradients, found.optimizer) == (4 * total, 4 * used, 8 * total)


def test_a_model_without_weights_is_estimated_as_one_with_them():
    work = Work(1000.0, 512, 512, 100, 200)
    with torch.device("meta"):
        shape = llama()
    assert estimate_cost(shape, work, "float32", 1e9) == estimate_cost(llama(), work, "float32", 1e9)
    assert matrix_speed(shape, "float32", torch.device("cpu")) > 0


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj")])
def test_an_adapters_numbers_are_those_that_peft_trains(targets):
    pytest.importorskip("peft")
    lora, model = Lora(rank=3, targets=targets), llama()
    expected = adapter_numbers(model, lora)
    made = with_adapter(Loaded(model, None), lora).model
    assert sum(p.numel() for p in made.parameters() if p.requires_grad) == expected
