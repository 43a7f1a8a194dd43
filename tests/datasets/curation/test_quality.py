import numpy as np
import pytest
from curate_rows import example, row, text
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from escultor.config.curation import Curation
from escultor.datasets.curation.diverse_top import facility_location
from escultor.datasets.curation.quality import SCORE, calibration, default_model, fit, fit_weights, quality
from escultor.datasets.rows import Dropped
from escultor.errors import DataError


@given(st.integers(0, 2**20), st.floats(0.01, 10))
def test_the_fit_is_where_a_general_minimiser_ends(seed, ridge):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(40, 3))
    y = (draw.random(40) < 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.0] + 0.5)))).astype(float)
    weights, bias = fit_weights(x, y, ridge)

    def loss(beta):
        z = x @ beta[:3] + beta[3]
        return np.logaddexp(0, z).sum() - y @ z + 0.5 * ridge * (beta[:3] ** 2).sum()

    theirs = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    assert loss(np.append(weights, bias)) <= loss(theirs) + 1e-7
    p = 1 / (1 + np.exp(-(x @ weights + bias)))
    assert np.abs(x.T @ (p - y) + ridge * weights).max() < 1e-6  # the gradient, in closed form
    assert abs((p - y).sum()) < 1e-6


def test_one_feature_of_two_values_has_a_closed_form():
    # Without penalty the odds of either group are its own: log(3) and log(1/3).
    x = np.repeat([[0.0], [1.0]], 4, axis=0)
    y = np.asarray([1, 1, 1, 0, 0, 0, 0, 1.0])
    weights, bias = fit_weights(x, y, 1e-9)
    assert bias == pytest.approx(np.log(3), abs=1e-6)
    assert weights[0] == pytest.approx(-2 * np.log(3), abs=1e-6)


def test_the_arithmetic_of_calibration():
    found = calibration(np.asarray([0.15, 0.15, 0.85, 0.85]), np.asarray([0.0, 1.0, 1.0, 1.0]))
    assert [(b.rows, round(b.score, 2), b.good) for b in found.bins] == [(2, 0.15, 0.5), (2, 0.85, 1.0)]
    assert found.ece == pytest.approx(0.5 * 0.35 + 0.5 * 0.15)
    assert found.brier == pytest.approx((0.15**2 + 0.85**2 + 2 * 0.15**2) / 4)
    assert found.auc == pytest.approx((2 * 1 + 0.5 * 1 + 0) / 3, abs=0.2)
    assert calibration(np.asarray([0.1, 0.9]), np.asarray([0.0, 1.0])).auc == 1.0


def test_ratings_are_learnt_and_the_score_says_how_far_it_may_be_believed():
    good = [row(example(i)) for i in range(60)]
    bad = [row({"prompt": text(f"p{i}", 30), "completion": text(i, 40).lower()[:-4]}) for i in range(60)]
    verdicts = [True] * 60 + [False] * 60
    model = fit([*good, *bad], verdicts, 1.0)
    assert model.calibration is not None
    assert model.calibration.auc > 0.95
    assert model.calibration.ece < 0.1
    scored = quality(good[0], Curation(), model)
    assert not isinstance(scored, Dropped)
    assert scored.figures[SCORE] > 0.8
    assert quality(bad[0], Curation(), model) == Dropped("low score")
    with pytest.raises(DataError, match="too few ratings"):
        fit(good[:20] + bad[:19], [True] * 20 + [False] * 19, 1.0)


def test_by_hand_a_sound_answer_stands_above_a_broken_one():
    prompt = "Describe the river stone garden and the window of the morning market."
    sound = row({"prompt": prompt, "completion": "The garden has a stone by the river, and a window."})
    broken = row({"prompt": prompt, "completion": "xx xx xx xx xx 77 xx xx xx xx xx xx ##"})
    scores = [
        quality(each, Curation.model_validate({"quality": {"min_score": 0}}), None)
        for each in (sound, broken)
    ]
    assert scores[0].figures[SCORE] > scores[1].figures[SCORE] + 0.2
    assert default_model().calibration is None


@given(st.integers(0, 2**20))
def test_the_lazy_choice_is_the_greedy_one_and_reaches_its_bound(seed):
    draw = np.random.default_rng(seed)
    similarity, value = draw.random((7, 5)), draw.random(7)

    def worth(chosen):
        return similarity[list(chosen)].max(0).sum() + value[list(chosen)].sum() if len(chosen) else 0.0

    plain: list[int] = []
    while len(plain) < 3:
        rest = [i for i in range(7) if i not in plain]
        plain.append(max(rest, key=lambda i: (worth([*plain, i]), -i)))
    chosen = facility_location(similarity, value, 3)
    assert chosen.tolist() == plain
    from itertools import combinations

    best = max(worth(some) for some in combinations(range(7), 3))
    assert worth(chosen) >= (1 - 1 / np.e) * best
