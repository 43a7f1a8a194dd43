"""The objectives against identities, published vectors and sums written out by hand in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.train.objectives import dpo, kd, nll, sequence_sums

LN2 = math.log(2)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def ones(n):
    return torch.ones(n, dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs(chosen, rejected, reference_chosen, reference_rejected, **more):
    """`dpo` on pairs given by the log-probability of each side, one token a side."""
    logp, reference = tensor([*chosen, *rejected]), tensor([*reference_chosen, *reference_rejected])
    n = len(chosen)
    weight = more.pop("weight", ones(n))
    at = torch.arange(2 * n)
    return dpo(logp, reference, at, 2 * n, at[:n], at[n:], weight, **more)


# --- nll --------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [2, 303, 50_000])
def test_a_uniform_model_has_the_logarithm_of_the_vocabulary(vocabulary):
    logp = torch.zeros(5, vocabulary, dtype=torch.float64).log_softmax(-1)[:, 0]
    loss = nll(logp, ones(5))
    assert loss.total.item() / loss.weight == pytest.approx(math.log(vocabulary), abs=1e-12)


def test_nll_is_a_weighted_sum_and_its_weight():
    loss = nll(tensor([-1.0, -2.0, -4.0]), tensor([1.0, 0.5, 0.0]))
    assert (loss.total.item(), loss.weight) == (2.0, 1.5)


# --- dpo --------------------------------------------------------------------------------------

# torchtune, tests/torchtune/rlhf/loss/test_dpo_loss.py, recomputed in float64; beta 0.1
PUBLISHED = ([-0.5, -10.0, -1.0], [-0.1, -30.0, -21.0], [-0.5, -10.1, -0.1], [-0.1, -20.1, -0.1])
SIGMOID = [0.6931471806, 0.3132616875, 0.1269280110]


def test_the_published_vectors_come_out():
    for i, expected in enumerate(SIGMOID):
        loss = pairs(*([side[i]] for side in PUBLISHED), beta=0.1)
        assert loss.total.item() == pytest.approx(expected, abs=1e-9)
    assert pairs(*PUBLISHED, beta=0.1).total.item() == pytest.approx(sum(SIGMOID), abs=1e-9)


def test_at_the_reference_every_pair_costs_ln_2_with_no_margin():
    logp = random(12)
    at, weight = torch.arange(12) // 3, tensor([1.0, 3.0])
    sides = torch.tensor([0, 2]), torch.tensor([1, 3])
    loss = dpo(logp, logp.clone(), at, 4, *sides, weight, beta=0.3)
    assert loss.total.item() / loss.weight == pytest.approx(LN2, abs=1e-12)
    assert [value.item() for value in loss.sums.values()] == [0.0] * 4


@given(st.floats(-300, 300), st.floats(0.01, 5))
def test_swapping_the_sides_negates_the_margin(h, beta):
    one, other = pairs([h], [0.0], [0.0], [0.0], beta=beta), pairs([0.0], [h], [0.0], [0.0], beta=beta)
    assert one.sums["margin"].item() == -other.sums["margin"].item()
    assert one.sums["margin"].item() == pytest.approx(beta * h, abs=1e-9)
    assert one.total.item() - other.total.item() == pytest.approx(-beta * h, abs=1e-9)


def test_the_gradient_is_that_of_the_paper():
    # Rafailov et al. 2023, section 4: -beta * sigmoid(-beta h) * (grad s_w - grad s_l)
    logp = random(2).requires_grad_()
    reference, at = random(2, seed=1), torch.arange(2)
    dpo(logp, reference, at, 2, at[:1], at[1:], ones(1), beta=0.5).total.backward()
    h = (logp - reference)[0] - (logp - reference)[1]
    expected = -0.5 * torch.sigmoid(-0.5 * h).item()
    torch.testing.assert_close(logp.grad, tensor([expected, -expected]))


def test_sums_hold_rewards_and_strict_accuracy_weighted():
    loss = pairs(
        [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0] * 3, [0.0] * 3, beta=0.5, weight=tensor([1.0, 2.0, 4.0])
    )
    figures = {name: value.item() for name, value in loss.sums.items()}
    assert figures == {"margin": -0.5, "reward_chosen": 0.5, "reward_rejected": 1.0, "accuracy": 1.0}
    assert loss.weight == 7.0
    assert not any(value.requires_grad for value in loss.sums.values())


def test_the_nll_term_is_that_of_the_chosen_answer_per_token():
    logp, reference = tensor([-1.0, -3.0, -5.0]), tensor([-1.0, -3.0, -5.0])
    sequence = torch.tensor([0, 0, 1])
    sides = torch.tensor([0]), torch.tensor([1])
    loss = dpo(logp, reference, sequence, 2, *sides, ones(1), beta=0.1, nll_weight=0.25)
    assert loss.total.item() == pytest.approx(LN2 + 0.25 * 2.0, abs=1e-12)
    logp = logp.requires_grad_()
    dpo(logp, reference, sequence, 2, *sides, ones(1), beta=1e-9, nll_weight=0.25).total.backward()
    torch.testing.assert_close(logp.grad, tensor([-0.125, -0.125, 0.0]), atol=1e-8, rtol=0)


def test_large_margins_stay_finite():
    for h in (1e4, -1e4):
        assert math.isfinite(pairs([h], [0.0], [0.0], [0.0], beta=1.0).total.item())


@given(st.permutations(range(6)))
def test_the_order_of_tokens_does_not_matter(permutation):
    values, sequence = random(6), torch.tensor([0, 0, 1, 2, 2, 2])
    expected = tensor([values[:2].sum().item(), values[2].item(), values[3:].sum().item()])
    summed = sequence_sums(values[list(permutation)], sequence[list(permutation)], 3)
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
    at, target = torch.tensor([0, 0, 1, 2, 3, 3]), torch.tensor([1, 0, 3])
    sides = torch.tensor([0, 2]), torch.tensor([1, 3])
    weight = tensor([1.0, 0.5])

    def preference(logp):
        return dpo(logp, random(6, seed=1), at, 4, *sides, weight, 0.5, 0.3).total

    def distillation(logits):
        return kd(logits, random(3, 4, seed=1), target, tensor([1.0, 2.0, 0.5]), 2.0, 0.7).total

    assert torch.autograd.gradcheck(preference, random(6).requires_grad_())
    assert torch.autograd.gradcheck(distillation, random(3, 4).requires_grad_())
    assert torch.autograd.gradcheck(lambda x: nll(x, weight.repeat(3)).total, random(6).requires_grad_())


def test_shapes_that_do_not_fit_are_refused_with_both():
    with pytest.raises(ValueError, match=r"logp \(3,\) and weight \(2,\)"):
        nll(ones(3), ones(2))
    at = torch.arange(4)
    with pytest.raises(ValueError, match=r"logp \(4,\) and reference_logp \(3,\)"):
        dpo(ones(4), ones(3), at, 4, at[:2], at[2:], ones(2), 0.1)
    with pytest.raises(ValueError, match=r"chosen \(2,\) and rejected \(1,\)"):
        dpo(ones(4), ones(4), at, 4, at[:2], at[3:], ones(2), 0.1)
    with pytest.raises(ValueError, match=r"chosen \(2,\) and weight \(1,\)"):
        dpo(ones(4), ones(4), at, 4, at[:2], at[2:], ones(1), 0.1)
    with pytest.raises(ValueError, match=r"logits \(2, 3\) and teacher_logits \(2, 4\)"):
        kd(random(2, 3), random(2, 4), at[:2], ones(2), 2.0, 0.7)
    with pytest.raises(ValueError, match=r"target \(2,\) and weight \(1,\)"):
        kd(random(2, 3), random(2, 3), at[:2], ones(1), 2.0, 0.7)


def test_a_flip_rate_makes_the_loss_unbiased_under_flipped_labels():
    logp, reference = random(4, seed=3), random(4, seed=4)
    at = torch.arange(4)
    sides, swapped = (at[:2], at[2:]), (at[2:], at[:2])
    e = torch.tensor([0.1, 0.3], dtype=logp.dtype)

    def loss(sides, weight, **more):
        return dpo(logp, reference, at, 4, *sides, weight.to(logp.dtype), 0.7, **more).total

    for pair in range(2):
        one = torch.eye(2)[pair]
        seen = (1 - e[pair]) * loss(sides, one, flip_rate=e) + e[pair] * loss(swapped, one, flip_rate=e)
        assert torch.isclose(seen, loss(sides, one), rtol=1e-6)
