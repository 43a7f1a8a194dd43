"""The objectives against identities, published vectors and sums written out by hand in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.train.objectives.kd import kd
from escultor.train.objectives.nll import nll
from escultor.train.objectives.sequence_logps import sum_by_sequence


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def ones(n):
    return torch.ones(n, dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- nll --------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [2, 303, 50_000])
def test_a_uniform_model_has_the_logarithm_of_the_vocabulary(vocabulary):
    logp = torch.zeros(5, vocabulary, dtype=torch.float64).log_softmax(-1)[:, 0]
    loss = nll(logp, ones(5))
    assert loss.total.item() / loss.weight == pytest.approx(math.log(vocabulary), abs=1e-12)


def test_nll_is_a_weighted_sum_and_its_weight():
    loss = nll(tensor([-1.0, -2.0, -4.0]), tensor([1.0, 0.5, 0.0]))
    assert (loss.total.item(), loss.weight) == (2.0, 1.5)


# --- sums ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_tokens_does_not_matter(permutation):
    values, sequence = random(6), torch.tensor([0, 0, 1, 2, 2, 2])
    expected = tensor([values[:2].sum().item(), values[2].item(), values[3:].sum().item()])
    summed = sum_by_sequence(values[list(permutation)], sequence[list(permutation)], 3)
    torch.testing.assert_close(summed, expected)


# --- kd ---------------------------------------------------------------------------------------


def by_hand(student, teacher, target, weight, temperature, alpha):
    """The same loss, token by token and word by word, from the definition."""

    def softmax(row, temperature):
        powers = [math.exp(x / temperature) for x in row]
        return [p / sum(powers) for p in powers]

    total = 0.0
    for s, t, y, w in zip(student.tolist(), teacher.tolist(), target.tolist(), weight.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        kl = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
        total += w * (alpha * temperature**2 * kl - (1 - alpha) * math.log(softmax(s, 1.0)[y]))
    return total


@settings(deadline=None)
@given(st.floats(0.5, 8), st.floats(0, 1), st.integers(0, 99))
def test_kd_is_the_sum_written_out(temperature, alpha, seed):
    student, teacher = 2 * random(5, 7, seed=seed), 2 * random(5, 7, seed=seed + 1)
    target, weight = torch.arange(5), tensor([1.0, 0.0, 2.0, 0.5, 1.0])
    loss = kd(student, teacher, target, weight, temperature, alpha)
    expected = by_hand(student, teacher, target, weight, temperature, alpha)
    assert loss.total.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert loss.weight == 4.5


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_a_student_that_is_its_teacher_has_neither_loss_nor_gradient(temperature):
    logits = random(4, 9).requires_grad_()
    loss = kd(logits, logits.detach().clone(), torch.arange(4), ones(4), temperature, alpha=1.0)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-12, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_the_gradient_keeps_its_scale_when_the_temperature_changes(temperature):
    student, teacher = random(4, 9).requires_grad_(), random(4, 9, seed=1)
    kd(student, teacher, torch.arange(4), ones(4), temperature, alpha=1.0).total.backward()
    difference = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    torch.testing.assert_close(student.grad, (temperature * difference).detach())


def test_at_a_high_temperature_logits_are_matched():
    student, teacher = random(3, 8).requires_grad_(), random(3, 8, seed=1)
    kd(student, teacher, torch.arange(3), ones(3), 1e4, alpha=1.0).total.backward()
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    torch.testing.assert_close(student.grad, (centred / 8).detach(), atol=1e-3, rtol=1e-3)


def test_alpha_0_is_nll_and_alpha_1_ignores_the_labels():
    student, teacher, target = random(6, 5), random(6, 5, seed=1), torch.tensor([0, 1, 2, 3, 4, 0])
    weight = tensor([1.0, 2.0, 1.0, 0.0, 1.0, 1.0])
    logp = student.log_softmax(-1).gather(1, target[:, None])[:, 0]
    plain = kd(student, teacher, target, weight, 2.0, alpha=0.0)
    assert plain.total.item() == pytest.approx(nll(logp, weight).total.item(), rel=1e-12)
    one, other = (kd(student, teacher, y, weight, 2.0, alpha=1.0).total for y in (target, target.flip(0)))
    assert torch.equal(one, other)


def test_adding_a_constant_to_the_logits_changes_nothing():
    student, teacher = random(3, 5), random(3, 5, seed=1)
    one = kd(student, teacher, torch.arange(3), ones(3), 2.0, 0.7).total.item()
    other = kd(student + 100, teacher - 50, torch.arange(3), ones(3), 2.0, 0.7).total.item()
    assert one == pytest.approx(other, rel=1e-9)


def test_half_precision_logits_are_widened_first():
    student, teacher = random(3, 5).bfloat16(), random(3, 5, seed=1).bfloat16()
    loss = kd(student, teacher, torch.arange(3), torch.ones(3), 2.0, 0.7)
    assert loss.total.dtype == torch.float32
    wide = kd(student.double(), teacher.double(), torch.arange(3), ones(3), 2.0, 0.7)
    assert loss.total.item() == pytest.approx(wide.total.item(), rel=1e-5)


# --- all --------------------------------------------------------------------------------------


def test_gradients_agree_with_finite_differences():
    target = torch.tensor([1, 0, 3])
    weight = tensor([1.0, 0.5])

    def distillation(logits):
        return kd(logits, random(3, 4, seed=1), target, tensor([1.0, 2.0, 0.5]), 2.0, 0.7).total

    assert torch.autograd.gradcheck(distillation, random(3, 4).requires_grad_())
    assert torch.autograd.gradcheck(lambda x: nll(x, weight.repeat(3)).total, random(6).requires_grad_())


def test_shapes_that_do_not_fit_are_refused_with_both():
    with pytest.raises(ValueError, match=r"logp \(3,\) and weight \(2,\)"):
        nll(ones(3), ones(2))
    at = torch.arange(4)
    with pytest.raises(ValueError, match=r"logits \(2, 3\) and teacher_logits \(2, 4\)"):
        kd(random(2, 3), random(2, 4), at[:2], ones(2), 2.0, 0.7)
    with pytest.raises(ValueError, match=r"target \(2,\) and weight \(1,\)"):
        kd(random(2, 3), random(2, 3), at[:2], ones(1), 2.0, 0.7)
