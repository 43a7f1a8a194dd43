"""Sliding windows in packed rows: every token sees what it would see in a row of its own."""

import numpy as np
import pytest
import tiny
import torch
import transformers

from escultor.batching.batches import nll_batch, pair_batch
from escultor.batching.probe import refuse_unpackable
from escultor.errors import ModelError
from escultor.model.attention import choose_attention, segment_mask, set_attention, sliding_window
from escultor.model.flex import block_mask
from escultor.model.forward import logp_at_labels

CPU, WINDOW = torch.device("cpu"), 8
SHAPE = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "sliding_window": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
FAMILIES = {
    "Mistral": SHAPE,
    "Mixtral": SHAPE | {"num_local_experts": 2},
    "Phi3": SHAPE,
    "Starcoder2": SHAPE,
    "Qwen2": SHAPE | MIXED | {"use_sliding_window": True},
    "Qwen3": SHAPE | MIXED | {"use_sliding_window": True, "head_dim": 8},
    "Gemma2": SHAPE | MIXED | {"head_dim": 8},
    "Gemma3": SHAPE | MIXED | {"head_dim": 8},
    "Cohere2": SHAPE | MIXED,
    "Olmo3": SHAPE | MIXED,
    "GptOss": SHAPE | MIXED | {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "Ministral": SHAPE | MIXED | {"head_dim": 8},
}
ROWS = tiny.nll_rows(7, seed=3)
PAIRS = tiny.pair_rows(5, seed=3)


def model_of(family):
    torch.manual_seed(0)
    name = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{name}Config")(**FAMILIES[family])
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def logp_alone(model, ids, labels):
    ids, labels = torch.from_numpy(ids).long(), torch.from_numpy(labels)
    logp = model(ids[None], use_cache=False).logits[0].float().log_softmax(-1)
    return logp[labels - 1].gather(1, ids[labels, None])[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dense", "segments"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_beyond_the_window_equal_the_models_own_forward_on_each(family, kind):
    model = model_of(family)
    assert sliding_window(model.config) == WINDOW
    assert max(row.length for row in ROWS) > 2 * WINDOW
    texts = [logp_alone(model, row.ids, row.labels) for row in ROWS]
    sides = [
        logp_alone(model, ids, np.arange(len(pair.prompt), len(ids)))
        for pair in PAIRS
        for branch in pair.branches
        for ids in [np.concatenate([pair.prompt, branch])]
    ]
    if choose_attention(model, CPU) == "dense" and kind == "segments":
        pytest.skip("soft-capped scores need the dense mask")
    set_attention(model, kind)
    for batch, expected in ((nll_batch(ROWS, 64), texts), (pair_batch(PAIRS, 64), sides)):
        torch.testing.assert_close(
            logp_at_labels(model, batch.packed), torch.cat(expected), atol=2e-4, rtol=1e-4
        )
    refuse_unpackable(model)


def test_a_block_mask_cuts_what_the_dense_mask_of_the_window_cuts():
    packed = pair_batch(PAIRS, 64).packed
    dense = segment_mask(packed.segment, packed.branch, packed.position, WINDOW)
    assert dense.sum() < segment_mask(packed.segment, packed.branch).sum()
    mask = block_mask(packed.segment, packed.branch, 16, position=packed.position, window=WINDOW)
    rows, width = packed.segment.shape
    at = torch.arange(width)
    seen = torch.stack([mask.mask_mod(row, 0, at[:, None], at[None]) for row in range(rows)])
    real = packed.segment > 0
    assert torch.equal(seen[real], dense[:, 0][real])


def test_layers_that_attend_in_chunks_are_refused_beyond_one():
    model = model_of("Mistral")
    model.config.sliding_window, model.config.attention_chunk_size = None, 8
    with pytest.raises(ModelError, match=r"chunks in which the model attends; got: \d+ tokens; .*at most 8"):
        logp_at_labels(model, nll_batch(ROWS, 64).packed)
