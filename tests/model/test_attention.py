"""Packed sequences never see each other: our call against separate sequences, and the calls that leak."""

import numpy as np
import pytest
import tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from escultor.batching.batches import nll_batch, pair_batch
from escultor.batching.rows import NllRow
from escultor.model.attention import segment_mask
from escultor.model.forward import hidden_at_labels, logits_at_labels, logp_at_labels
from escultor.model.head import linear_logp
from escultor.model.segments import NAME, register

VOCABULARY = 512


def llama(implementation):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,  # logits of order 1, as in a trained model
        attn_implementation=implementation,
    )
    return LlamaForCausalLM(config).eval()


def gpt2(implementation):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        initializer_range=0.2,
        attn_implementation=implementation,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(
    scope="module", params=[(llama, "sdpa"), (llama, "eager"), (gpt2, "sdpa"), (llama, NAME), (gpt2, NAME)]
)
def model(request):
    make, implementation = request.param
    register()
    return make(implementation)


def documents(lengths=(17, 40, 9, 31)):
    random = np.random.default_rng(0)
    return [
        NllRow(f"d{i}", random.integers(3, VOCABULARY, n).astype(np.int32), 1) for i, n in enumerate(lengths)
    ]


@torch.no_grad()
def alone(model, rows):
    """Logits that predict the labelled tokens of each row, every row on its own."""
    parts = [model(torch.from_numpy(r.ids)[None].long(), use_cache=False).logits[0, :-1] for r in rows]
    return torch.cat([part[r.start - 1 :] for part, r in zip(parts, rows, strict=True)])


def difference(one, other):
    return (one - other).abs().max().item()


@torch.no_grad()
@pytest.mark.parametrize("capacity", [1, 60, 128])
def test_packed_documents_are_as_if_each_stood_alone(model, capacity):
    batch = nll_batch(documents(), capacity)
    assert difference(logits_at_labels(model, batch.packed), alone(model, documents())) < 1e-5


@torch.no_grad()
def test_the_default_call_with_positions_alone_leaks(model):
    # Were this to fail, the library would have changed; our explicit mask would be right all the same.
    rows = documents()
    ids = torch.from_numpy(np.concatenate([r.ids for r in rows]))[None].long()
    positions = torch.cat([torch.arange(r.length) for r in rows])[None]
    keep = torch.cat([torch.arange(r.length) < r.length - 1 for r in rows])
    leaks = {
        "concatenated": {},
        "positions": {"position_ids": positions},
        "positions and ones": {"position_ids": positions, "attention_mask": torch.ones_like(ids)},
    }
    for name, how in leaks.items():
        assert difference(model(ids, **how).logits[0][keep], alone(model, rows)) > 0.1, name


@torch.no_grad()
def test_the_calls_that_do_not_leak_are_positions_without_a_cache_and_an_explicit_mask(model):
    rows = documents()
    batch = nll_batch(rows, sum(r.length for r in rows))
    packed, order = batch.packed, np.argsort([-r.length for r in rows], kind="stable")
    laid = [rows[i] for i in order]
    keep = torch.cat([torch.arange(r.length) < r.length - 1 for r in laid])
    mask = segment_mask(packed.segment, packed.branch)
    if model.config._attn_implementation == "eager":
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    clean = {
        "positions, no cache": {"position_ids": packed.position, "use_cache": False},
        "mask": {"position_ids": packed.position, "attention_mask": mask},
    }
    for name, how in clean.items():
        assert difference(model(packed.ids, **how).logits[0][keep], alone(model, laid)) < 1e-5, name


@torch.no_grad()
def test_changing_one_document_changes_no_other(model):
    rows = documents()
    before = logp_at_labels(model, nll_batch(rows, 128).packed)
    changed = [*rows[:1], NllRow("d1", (rows[1].ids + 7) % VOCABULARY, 1), *rows[2:]]
    after = logp_at_labels(model, nll_batch(changed, 128).packed)
    same = nll_batch(rows, 128).packed.sequence != 1
    assert torch.equal(before[same], after[same])
    assert not torch.allclose(before[~same], after[~same])


@torch.no_grad()
def test_branches_do_not_see_each_other():
    model = tiny.llama().model.eval()
    rows = tiny.pair_rows()
    packed = pair_batch(rows).packed
    before = logp_at_labels(model, packed)
    for side in (1, 2):
        ids = packed.ids.clone()
        ids[packed.branch == side] = 9
        after = logits_at_labels(
            model, type(packed)(ids, *(getattr(packed, n) for n in packed.__slots__[1:]))
        )
        logp = after.log_softmax(-1).gather(1, packed.target[:, None])[:, 0]
        other = packed.sequence % 2 == 2 - side  # chosen are the even sequences
        torch.testing.assert_close(logp[other], before[other], atol=1e-6, rtol=0)
        assert difference(logp[~other], before[~other]) > 1e-3


@torch.no_grad()
def test_padding_changes_nothing(model):
    rows = documents((5, 23))
    narrow, wide = (hidden_at_labels(model, nll_batch(rows, c).packed) for c in (23, 200))
    assert difference(narrow, wide) < 1e-5
    packed = nll_batch(rows, 200).packed
    ids = packed.ids.clone()
    ids[packed.segment == 0] = 77
    other = type(packed)(ids, *(getattr(packed, name) for name in packed.__slots__[1:]))
    assert torch.equal(hidden_at_labels(model, other), hidden_at_labels(model, packed))


@torch.no_grad()
def test_a_row_alone_needs_no_mask_and_gets_the_same(model):
    (row,) = documents((21,))
    packed = nll_batch([row], 1).packed
    assert packed.causal
    masked = type(packed)(*(getattr(packed, name) for name in packed.__slots__[:-1]), False)
    assert difference(logits_at_labels(model, packed), logits_at_labels(model, masked)) < 1e-5


@torch.no_grad()
def test_log_probs_are_those_of_the_logits(model):
    packed = nll_batch(documents(), 64).packed
    logp = logits_at_labels(model, packed).log_softmax(-1).gather(1, packed.target[:, None])[:, 0]
    torch.testing.assert_close(logp_at_labels(model, packed), logp, atol=1e-5, rtol=0)


def test_a_frozen_head_leaves_the_gradient_of_what_is_below_it():
    random = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(5, 4, generator=random), torch.randn(9, 4, generator=random)
    found = []
    for learnt in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(learnt)
        linear_logp(h, w, torch.arange(5)).sum().backward()
        assert (w.grad is not None) == learnt
        found.append(h.grad)
    assert torch.equal(*found)


# --- the mask itself --------------------------------------------------------------------------


def test_the_mask_of_a_small_row_by_hand():
    segment = torch.tensor([[1, 1, 1, 1, 2, 0, 0]])
    branch = torch.tensor([[0, 0, 1, 2, 0, 0, 0]])
    expected = [
        "x......",
        "xx.....",
        "xxx....",
        "xx.x...",  # the second branch sees the trunk, not the first branch
        "....x..",
        ".....x.",
        ".....xx",
    ]
    mask = segment_mask(segment, branch)
    assert mask.shape == (1, 1, 7, 7)
    assert ["".join("x" if seen else "." for seen in row) for row in mask[0, 0].tolist()] == expected


def test_every_token_sees_itself_and_no_later_one():
    packed = pair_batch(tiny.pair_rows(), 64).packed
    mask = segment_mask(packed.segment, packed.branch)[:, 0]
    assert mask.diagonal(dim1=1, dim2=2).all()
    assert not mask.triu(1).any()


def test_shapes_that_do_not_fit_are_refused_with_both():
    with pytest.raises(ValueError, match=r"segment \(2, 3\) and branch \(2, 4\)"):
        segment_mask(torch.zeros(2, 3), torch.zeros(2, 4))
