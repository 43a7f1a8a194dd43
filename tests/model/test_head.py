"""The head in chunks: what is said and learnt is that of all logits at once, and these are never there."""

from collections import Counter

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from escultor.batching.batches import nll_batch
from escultor.batching.rows import NllRow
from escultor.batching.teacher import with_teacher
from escultor.config import Distillation, Dpo, Training
from escultor.model import head
from escultor.model.attention import choose_attention, set_attention
from escultor.model.forward import logits_at_labels, logp_at_labels
from escultor.train.methods import METHODS, Frozen
from escultor.train.objectives.kd import kd

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
SHAPE |= {"vocab_size": 300, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0}
FAMILIES = {
    "llama": lambda: tiny.llama().model,
    "a bias (Phi)": lambda: PhiForCausalLM(PhiConfig(**SHAPE | {"num_key_value_heads": 2})),
    "a scale (Cohere)": lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.3)),
    "a divisor (Granite)": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0)),
    "a cap (Gemma 2)": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=5.0)),
}


def made(family, seed=0):
    torch.manual_seed(seed)
    model = FAMILIES[family]()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    set_attention(model, choose_attention(model, torch.device("cpu")))
    return model


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(head, "CHUNK_VALUES", 1)
    monkeypatch.setattr(head, "LEAST_TOKENS", 7)


def learnt(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def close(one, other, size):
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(size))


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_and_gradient_are_those_of_all_logits_at_once(family, small_chunks):
    model, packed = made(family), nll_batch(tiny.nll_rows(9), 64).packed
    K = len(packed.target)
    weight = torch.linspace(-1, 2, K)
    chunked = logp_at_labels(model, packed)
    plain = logits_at_labels(model, packed).log_softmax(-1)[torch.arange(K), packed.target]
    close(chunked, plain, 10)
    expected = learnt(model, (plain * weight).sum())
    close(learnt(model, (chunked * weight).sum()), expected, expected.abs().max())
    with torch.no_grad():
        close(logp_at_labels(model, packed), plain, 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_distillation_and_its_gradient_are_those_of_all_logits_at_once(family, small_chunks):
    student, teacher = made(family), made(family, seed=1)
    batch = nll_batch(tiny.nll_rows(9), 64)
    own = Distillation(temperature=3.0, alpha=0.6, dtype="float32")
    plain = kd(
        logits_at_labels(student, batch.packed),
        logits_at_labels(teacher, batch.packed).detach(),
        batch.packed.target,
        batch.weight,
        3.0,
        0.6,
    )
    expected = learnt(student, plain.total)
    chunked = METHODS["distill"].objective(own).loss(student, with_teacher(teacher, batch, "float32"), 0.0)
    assert chunked.total.item() == pytest.approx(plain.total.item(), rel=1e-6)
    assert chunked.weight == plain.weight
    assert {n: v.item() for n, v in chunked.sums.items()} == pytest.approx(
        {n: v.item() for n, v in plain.sums.items()}, rel=1e-6
    )
    close(learnt(student, chunked.total), expected, expected.abs().max())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_rows_that_fill_up_an_embedding_are_no_tokens(side):
    models = {"student": made("llama"), "teacher": made("llama", seed=1)}
    batch, objective = nll_batch(tiny.nll_rows(3), 64), METHODS["distill"].objective(Distillation())

    def loss():
        said = with_teacher(models["teacher"], batch, "float32")
        return objective.loss(models["student"], said, 0.0).total.item()

    plain = loss()
    models[side].resize_token_embeddings(320, mean_resizing=False)
    assert loss() == pytest.approx(plain, rel=1e-6)


WIDE = 6007  # a vocabulary, and no other size in these models


class Widest(TorchDispatchMode):
    """The numbers of the largest tensor over the vocabulary that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and WIDE in value.shape:
                self.numbers = max(self.numbers, value.numel())
        return out


@pytest.mark.parametrize("family", ["llama", "a cap (Gemma 2)"])
@pytest.mark.parametrize("phase", ["sft", "distill", "dpo"])
def test_no_tensor_is_as_large_as_the_logits_of_a_batch(phase, family, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_VALUES", 1)
    monkeypatch.setattr(head, "LEAST_TOKENS", 16)
    monkeypatch.setitem(SHAPE, "vocab_size", WIDE)
    kinds = {"llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE))}
    model, teacher = ((FAMILIES | kinds)[family]() for _ in range(2))
    kind = {"distill": Distillation, "dpo": Dpo}.get(phase, Training)
    settings = kind(epochs=1, dtype="float32", batch_size=80)
    rows = tiny.pair_rows(80) if phase == "dpo" else tiny.nll_rows(80)
    stream = METHODS[phase].stream(rows, Frozen(teacher, None, Counter()), settings)
    objective = METHODS[phase].objective(settings)
    with Widest() as seen:
        for batch in stream.micro_batches(0):
            objective.loss(model, batch, 0.0).total.backward()
    table = WIDE * 32  # the head and its gradient, which stand whatever the batch
    assert 16 * WIDE < seen.numbers <= table < len(batch.packed.target) * WIDE / 10


def test_a_chunk_has_few_tokens_of_a_wide_vocabulary_but_never_too_few():
    assert head.chunk_tokens(8192) == 256
    assert head.chunk_tokens(151_936) == head.LEAST_TOKENS
    assert head.chunk_tokens(10) * 10 <= head.CHUNK_VALUES


@pytest.mark.parametrize("frozen", [False, True])
def test_in_bfloat16_the_gradient_is_summed_in_float32(frozen, small_chunks):
    torch.manual_seed(0)
    hidden = torch.randn(40, 16, requires_grad=True)
    weight = torch.randn(50, 16).requires_grad_(not frozen)
    target = torch.randint(0, 50, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        head.linear_logp(hidden, weight, target).sum().backward()
    got = hidden.grad if frozen else weight.grad
    hidden.grad = weight.grad = None
    plain = (hidden @ weight.T).log_softmax(-1)[torch.arange(40), target]
    plain.sum().backward()
    expected = hidden.grad if frozen else weight.grad
    assert got.dtype == torch.float32
    assert (got - expected).norm() < 0.02 * expected.norm()


def test_rows_of_one_token_make_one_chunk():
    batch = nll_batch([NllRow("a", tiny.nll_rows(1)[0].ids[:2], 1)], 8)
    assert logp_at_labels(tiny.llama().model, batch.packed).shape == (1,)
