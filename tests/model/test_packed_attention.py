"""The ways in which a model attends to packed rows: all equal the dense mask, forwards and backwards."""

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as flex_attention_module
from transformers import Gemma2Config, Gemma2ForCausalLM

from escultor.batching.batches import branch_pack, nll_batch, pair_batch
from escultor.batching.rows import NllRow, PairRow
from escultor.config import Training
from escultor.errors import ConfigError, ModelError
from escultor.model import attention
from escultor.model.attention import choose_attention, segment_mask, set_attention
from escultor.model.flex import _blocks, block_mask
from escultor.model.forward import logp_at_labels
from escultor.model.segments import NAME, sequences


def pairs():
    return pair_batch(tiny.pair_rows(7), 64).packed


def documents():
    return nll_batch(tiny.nll_rows(9), 64).packed


def alone():
    return nll_batch(tiny.nll_rows(3), 1, [[0], [1], [2]]).packed


def mixed():
    """Trunks with and without branches, a branch without a trunk, all in one row and padding."""
    segment = torch.tensor([[1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 0, 0], [5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]])
    branch = torch.tensor([[0, 0, 0, 1, 2, 2, 1, 2, 0, 0, 1, 0, 0], [0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4]])
    packed = pairs()
    ids = torch.arange(26).reshape(2, 13) + 20
    source = torch.tensor([0, 1, 3, 4, 5, 6, 7, 10, *range(13, 26)])
    names = {"ids": ids, "position": ids % 11, "segment": segment, "branch": branch, "source": source}
    rest = {"target": source + 5, "sequence": source * 0, "sequences": 1, "causal": False}
    return type(packed)(**names, **rest)


def said(model, packed):
    """Log-probs and gradients of all weights."""
    model.zero_grad()
    logp = logp_at_labels(model, packed)
    (logp * torch.linspace(0.5, 1.5, len(logp))).sum().backward()
    return logp.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


def equal(one, other):
    for ours, theirs in zip(one, other, strict=True):
        scale = theirs.abs().max().item()
        assert (ours - theirs).abs().max().item() < 1e-5 * max(1.0, scale)


@pytest.fixture
def model():
    loaded = tiny.llama().model
    set_attention(loaded, "dense")
    return loaded


@pytest.mark.parametrize("packed", [pairs, documents, alone, mixed])
def test_sequence_by_sequence_is_what_a_dense_mask_says(model, packed):
    expected = said(model, packed())
    set_attention(model, "segments")
    assert model.config._attn_implementation == NAME
    equal(said(model, packed()), expected)


@pytest.fixture
def eager_flex(monkeypatch):
    """FlexAttention without a compiler, and on a processor with a backward pass."""
    monkeypatch.setattr(flex_attention_module, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(flex_attention_module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # of torch's own imports
@pytest.mark.parametrize("packed", [pairs, documents, alone, mixed])
def test_flex_attention_is_what_a_dense_mask_says(model, eager_flex, packed):
    expected = said(model, packed())
    set_attention(model, "flex")
    assert model.config._attn_implementation == "flex_attention"
    equal(said(model, packed()), expected)


def test_without_packing_the_model_answers_as_before(model):
    ids = torch.tensor([[0, 0, 7, 8, 9], [4, 5, 6, 7, 8]])
    given_mask = (ids > 0).long()
    before = model(input_ids=ids, attention_mask=given_mask).logits
    set_attention(model, "segments")
    assert torch.equal(model(input_ids=ids, attention_mask=given_mask).logits, before)


# --- the parts ----------------------------------------------------------------------------------

lengths = st.integers(1, 40)
rows = st.lists(st.tuples(lengths, st.lists(lengths, min_size=2, max_size=4)), min_size=1, max_size=6)


def branched(shapes):
    ids = lambda n: np.full(n, 7, np.int32)  # noqa: E731
    made = [PairRow(str(i), ids(t), ids(b[0]), ids(b[1])) for i, (t, b) in enumerate(shapes)]
    return branch_pack(made, 100)


@given(rows, st.sampled_from([4, 16, 128]))
def test_blocks_hide_nothing_that_is_seen_and_show_nothing_that_is_not(shapes, size):
    packed = branched(shapes)
    real = packed.segment > 0
    mask = segment_mask(packed.segment, packed.branch)[:, 0] & real[:, :, None]  # padding sees itself alone
    mask |= torch.eye(mask.shape[-1], dtype=torch.bool)
    partial, full = _blocks(packed.segment, packed.branch, size)
    whole = (x.repeat_interleave(size, 1).repeat_interleave(size, 2) for x in (partial, full))
    partial, full = (x[:, : mask.shape[1], : mask.shape[2]] for x in whole)
    assert not (mask & ~partial & ~full).any()
    assert not (full & ~mask).any()
    assert not (full & partial).any()


def test_a_block_mask_lists_only_blocks_that_share_a_segment():
    packed = nll_batch([NllRow(str(i), np.full(32, 7, np.int32), 1) for i in range(8)], 256).packed
    mask = block_mask(packed.segment, packed.branch, 16)
    assert mask.kv_num_blocks.sum() == 16  # the diagonal
    assert mask.full_kv_num_blocks.sum() == 8  # and the first half of each document under its second
    assert mask.full_kv_indices[0, 0, 1, 0] == 0
    q, k = torch.arange(256)[:, None], torch.arange(256)[None]
    assert torch.equal(
        mask.mask_mod(torch.tensor(0), torch.tensor(0), q, k),
        segment_mask(packed.segment, packed.branch)[0, 0],
    )


@given(rows)
def test_every_token_is_kept_once_and_padding_never_taken(shapes):
    packed = branched(shapes)
    found = sequences(packed.segment, packed.branch)
    real = packed.segment.flatten() > 0
    assert torch.equal(found.gather[found.scatter][real], torch.arange(len(real))[real])
    assert real[found.gather].all()
    assert sum(count * length for count, length in found.blocks) == len(found.gather)
    assert len({length for _, length in found.blocks}) == len(found.blocks)


# --- which, and refusals ------------------------------------------------------------------------


def test_the_kind_follows_from_the_device(model):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [choose_attention(model, device) for device in (cpu, cuda)] == ["segments", "flex"]
    assert [choose_attention(model, device, "dense") for device in (cpu, cuda)] == ["dense", "dense"]
    assert choose_attention(model, cuda, "segments") == "segments"
    with pytest.raises(
        ConfigError, match=r"FlexAttention has no backward pass .* got: attention flex on cpu"
    ):
        choose_attention(model, cpu, "flex")
    assert Training().attention == "auto"


def test_a_model_with_attention_of_its_own_keeps_it(model, monkeypatch):
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", classmethod(lambda cls: False))
    assert (
        choose_attention(model, torch.device("cpu"))
        == choose_attention(model, torch.device("cuda"))
        == "dense"
    )
    set_attention(model, "dense")
    with pytest.raises(ModelError, match="does not support this attention; got: attention segments"):
        set_attention(model, "segments")


def test_scores_that_are_bent_take_the_attention_that_bends_them():
    config = Gemma2Config(
        vocab_size=tiny.VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        attn_logit_softcapping=0.5,
        initializer_range=0.5,
    )
    gemma = Gemma2ForCausalLM(config).eval()
    assert choose_attention(gemma, torch.device("cpu")) == "dense"
    set_attention(gemma, "dense")
    (row,) = tiny.nll_rows(1)
    alone = gemma(input_ids=torch.from_numpy(row.ids)[None].long()).logits[0, row.start - 1 : -1]
    packed = nll_batch([row, *tiny.nll_rows(3, seed=1)], 64).packed
    first = packed.sequence == 0
    alone = alone.log_softmax(-1).gather(1, packed.target[first][:, None])[:, 0]
    assert (logp_at_labels(gemma, packed)[first] - alone).abs().max() < 1e-4
    with pytest.raises(ModelError, match="does not support this attention"):
        set_attention(gemma, "segments")


def test_a_model_that_keeps_the_packing_to_itself_is_refused(model):
    set_attention(model, "segments")
    with pytest.raises(
        ModelError, match=r"does not pass on to its attention how rows are packed.*LlamaAttention"
    ):
        model(input_ids=torch.tensor([[5, 6]]), attention_mask=torch.ones(1, 1, 2, 1, dtype=torch.long))


def test_a_dense_mask_that_is_too_large_is_refused(model, monkeypatch):
    set_attention(model, "dense")
    monkeypatch.setattr(attention, "MASK_MOST", 1000)
    with pytest.raises(ModelError, match=r"too much memory; got: 3 × 64 × 64.*at most 1,000.*attention=auto"):
        logp_at_labels(model, nll_batch(tiny.nll_rows(6), 64).packed)
