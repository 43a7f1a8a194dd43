"""The preference family against published vectors, closed forms in float64, and identities."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from escultor.config import Dpo
from escultor.train.objectives.dpo import LOSSES, PreferencePairs, dpo
from escultor.train.objectives.kto import kto, log_ratio_sum
from escultor.train.objectives.sequence_logps import SequenceLogps

LN2 = math.log(2)
FLIPS = ("robust", "cdpo")


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
    weight, flip_rate = more.pop("weight", ones(n)), more.pop("flip_rate", None)
    at = torch.arange(2 * n)
    logps = SequenceLogps(logp, reference, at, 2 * n)
    return dpo(logps, PreferencePairs(at[:n], at[n:], weight, flip_rate), **more)


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
    loss = dpo(SequenceLogps(logp, logp.clone(), at, 4), PreferencePairs(*sides, weight), beta=0.3)
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
    pair = PreferencePairs(at[:1], at[1:], ones(1))
    dpo(SequenceLogps(logp, reference, at, 2), pair, beta=0.5).total.backward()
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
    pair = PreferencePairs(torch.tensor([0]), torch.tensor([1]), ones(1))
    loss = dpo(SequenceLogps(logp, reference, sequence, 2), pair, beta=0.1, nll_weight=0.25)
    assert loss.total.item() == pytest.approx(LN2 + 0.25 * 2.0, abs=1e-12)
    logp = logp.requires_grad_()
    logps = SequenceLogps(logp, reference, sequence, 2)
    dpo(logps, pair, beta=1e-9, nll_weight=0.25).total.backward()
    torch.testing.assert_close(logp.grad, tensor([-0.125, -0.125, 0.0]), atol=1e-8, rtol=0)


def test_large_margins_stay_finite():
    for h in (1e4, -1e4):
        assert math.isfinite(pairs([h], [0.0], [0.0], [0.0], beta=1.0).total.item())


def test_shapes_that_do_not_fit_are_refused_with_both():
    at = torch.arange(4)
    with pytest.raises(ValueError, match=r"logp \(4,\) and reference_logp \(3,\)"):
        SequenceLogps(ones(4), ones(3), at, 4)
    with pytest.raises(ValueError, match=r"chosen \(2,\) and rejected \(1,\)"):
        PreferencePairs(at[:2], at[3:], ones(2))
    with pytest.raises(ValueError, match=r"chosen \(2,\) and weight \(1,\)"):
        PreferencePairs(at[:2], at[2:], ones(1))
    with pytest.raises(ValueError, match=r"chosen \(2,\) and flip_rate \(1,\)"):
        PreferencePairs(at[:2], at[2:], ones(2), ones(1))


def test_a_flip_rate_makes_the_loss_unbiased_under_flipped_labels():
    logp, reference = random(4, seed=3), random(4, seed=4)
    at = torch.arange(4)
    sides, swapped = (at[:2], at[2:]), (at[2:], at[:2])
    e = torch.tensor([0.1, 0.3], dtype=logp.dtype)

    def loss(sides, weight, flip_rate=None):
        pairs = PreferencePairs(*sides, weight.to(logp.dtype), flip_rate)
        return dpo(SequenceLogps(logp, reference, at, 4), pairs, 0.7).total

    for pair in range(2):
        one = torch.eye(2)[pair]
        seen = (1 - e[pair]) * loss(sides, one, flip_rate=e) + e[pair] * loss(swapped, one, flip_rate=e)
        assert torch.isclose(seen, loss(sides, one), rtol=1e-6)


# --- the family -------------------------------------------------------------------------------

# Published with the vectors above; IPO in its paper's form, on sums.
VALUES = {
    ("sigmoid", 0.0): SIGMOID,
    ("cdpo", 0.1): [0.6931471806, 0.4132616875, 0.3269280110],
    ("robust", 0.1): [0.6931471806, 0.1882616875, -0.1230719890],
    ("hinge", 0.0): [1.0, 0.0, 0.0],
    ("ipo", 0.0): [25.0, 25.0, 225.0],
}


def test_the_config_names_every_loss():
    assert set(Dpo.model_fields["loss"].annotation.__args__) == set(LOSSES)


@pytest.mark.parametrize(("loss", "flip"), VALUES)
def test_each_loss_has_its_published_values(loss, flip):
    for i, expected in enumerate(VALUES[loss, flip]):
        got = pairs(*([side[i]] for side in PUBLISHED), beta=0.1, loss=LOSSES[loss], flip_rate=tensor([flip]))
        assert got.total.item() == pytest.approx(expected, abs=1e-9)


def closed_form(loss, h, beta, e):
    """The loss of a margin by plain arithmetic."""
    right, wrong = math.log1p(math.exp(-beta * h)), math.log1p(math.exp(beta * h))
    return {
        "sigmoid": right,
        "robust": ((1 - e) * right - e * wrong) / (1 - 2 * e),
        "cdpo": (1 - e) * right + e * wrong,
        "ipo": (h - 1 / (2 * beta)) ** 2,
        "hinge": max(0.0, 1 - beta * h),
    }[loss]


@given(st.sampled_from(sorted(LOSSES)), st.floats(-50, 50), st.floats(0.01, 5), st.floats(0, 0.45))
def test_each_loss_is_its_closed_form(loss, h, beta, e):
    got = pairs([h], [0.0], [0.0], [0.0], beta=beta, loss=LOSSES[loss], flip_rate=tensor([e]))
    assert got.total.item() == pytest.approx(closed_form(loss, h, beta, e), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("e", "expected"), [(0.1, 2.19722), (0.2, 1.38629), (0.3, 0.84730)])
def test_the_conservative_loss_is_smallest_where_the_flip_rate_says(e, expected):
    h = torch.tensor(expected, dtype=torch.float64, requires_grad=True)
    LOSSES["cdpo"](h, 1.0, tensor(e)).backward()
    assert h.grad.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(("p", "expected"), [(1.0, 5.0), (0.9, 4.0), (0.7, 2.0), (0.5, 0.0)])
def test_ipo_is_smallest_at_the_margin_that_the_preference_says(p, expected):
    # Azar et al. 2023: a share p of labels this way round has its optimum at (p - 1/2) / tau.
    h = torch.tensor(expected, dtype=torch.float64, requires_grad=True)
    (p * LOSSES["ipo"](h, 0.1, tensor(0.0)) + (1 - p) * LOSSES["ipo"](-h, 0.1, tensor(0.0))).backward()
    assert h.grad.item() == pytest.approx(0.0, abs=1e-9)


def ragged(seed=0):
    """Two pairs whose sides have 3, 1, 2 and 4 tokens."""
    sequence = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])
    return (
        random(10, seed=seed),
        random(10, seed=seed + 50),
        sequence,
        torch.tensor([0, 2]),
        torch.tensor([1, 3]),
    )


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("normalised", [False, True])
def test_gradients_agree_with_finite_differences(loss, normalised):
    logp, reference, sequence, *sides = ragged()
    weight, flip = tensor([1.0, 0.5]), tensor([0.1, 0.3])

    def total(logp):
        logps = SequenceLogps(logp, reference, sequence, 4)
        pairs = PreferencePairs(*sides, weight, flip)
        return dpo(logps, pairs, 0.5, LOSSES[loss], nll_weight=0.3, length_normalised=normalised).total

    assert torch.autograd.gradcheck(total, logp.requires_grad_())


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_normalised_by_length_a_ratio_is_a_mean_per_token(loss):
    logp, reference, sequence, *sides = ragged()
    logps, pairs = SequenceLogps(logp, reference, sequence, 4), PreferencePairs(*sides, ones(2))
    got = dpo(logps, pairs, 0.5, loss=LOSSES[loss], length_normalised=True)
    d = (logp - reference).tolist()
    margins = [sum(d[:3]) / 3 - d[3], sum(d[4:6]) / 2 - sum(d[6:]) / 4]
    assert got.total.item() == pytest.approx(sum(closed_form(loss, h, 0.5, 0.0) for h in margins), rel=1e-9)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_pair_of_weight_2_counts_as_two(loss):
    logp, reference, sequence, *sides = ragged()
    logps = SequenceLogps(logp, reference, sequence, 4)
    both = dpo(logps, PreferencePairs(*sides, tensor([2.0, 1.0])), 0.5, loss=LOSSES[loss])
    first, second = (
        dpo(logps, PreferencePairs(*sides, weight), 0.5, loss=LOSSES[loss]).total
        for weight in torch.eye(2).double()
    )
    assert both.total.item() == pytest.approx((2 * first + second).item(), rel=1e-12)
    assert both.weight == 3.0


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - set(FLIPS)))
def test_a_loss_without_use_for_a_flip_rate_refuses_the_knob(loss):
    with pytest.raises(ValueError, match=f"flip_rate has no effect with loss {loss}"):
        Dpo(loss=loss, flip_rate=0.1)


# --- unpaired verdicts ------------------------------------------------------------------------


def unpaired(ratios, desirable, divergence=0.0, beta=0.1, **more):
    at = torch.arange(len(ratios))
    weight = more.pop("weight", ones(len(ratios)))
    zero = torch.zeros(len(ratios), dtype=torch.float64)
    logps = SequenceLogps(tensor(ratios), zero, at, len(ratios))
    return kto(logps, torch.tensor(desirable), weight, divergence, beta, **more)


def test_kto_at_the_reference_costs_half_of_lambda():
    loss = unpaired([0.0, 0.0], [True, False], desirable_weight=1.0, undesirable_weight=3.0)
    assert loss.total.item() == pytest.approx(0.5 + 1.5, abs=1e-12)
    assert (loss.weight, loss.sums["margin"].item(), loss.sums["accuracy"].item()) == (2.0, 0.0, 0.0)


@given(st.floats(-50, 50), st.floats(-20, 20), st.booleans(), st.floats(0.01, 2), st.floats(0.1, 5))
def test_kto_is_its_closed_form(r, divergence, desirable, beta, weight):
    loss = unpaired([r], [desirable], divergence, beta, weight=tensor([weight]))
    gain = beta * (r - max(0.0, divergence)) * (1 if desirable else -1)
    assert loss.total.item() == pytest.approx(weight / (1 + math.exp(gain)), rel=1e-9)


def test_kto_pushes_a_good_answer_up_and_a_bad_one_down_and_leaves_the_divergence_alone():
    logp, reference, sequence, *_ = ragged()
    good = torch.tensor([True, False, True, False])

    def total(logp):
        logps = SequenceLogps(logp, reference, sequence, 4)
        return kto(logps, good, tensor([1.0, 2.0, 1.0, 0.5]), 0.3, 0.5, desirable_weight=2.0).total

    logp.requires_grad_()
    assert torch.autograd.gradcheck(total, logp)
    total(logp).backward()
    assert torch.equal(logp.grad < 0, good[sequence])


def test_the_divergence_is_the_mean_log_ratio_of_a_sequence():
    logp, reference, sequence, *_ = ragged()
    found = log_ratio_sum(SequenceLogps(logp, reference, sequence, 4))
    assert found.total.item() / found.weight == pytest.approx((logp - reference).sum().item() / 4)
