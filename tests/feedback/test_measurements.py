"""What is measured, against closed forms, simulations and a second library."""

import math
import random
from collections import Counter

import evalica
import pandas as pd
import pytest
from feedback_records import choice, correction, implicit, interaction, rater_thumb, selection_of, thumb
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.config import FeedbackRules
from escultor.datasets.cards.pages import feedback_lines, feedback_tables
from escultor.errors import DataError
from escultor.feedback import weighting
from escultor.feedback.card import advise, summarise
from escultor.feedback.resampled_pairs import ResampledPrompt, ScoredSample, resampled_pairs
from escultor.stats import krippendorff_alpha
from escultor.types import ImplicitEvent, Message, Role


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.sampled_from([0, 1, None]), min_size=4, max_size=4), min_size=2, max_size=12))
def test_alpha_is_evalicas(table):
    """Rows are answers, columns raters."""
    units = [(row.count(1), row.count(0)) for row in table]
    ours = krippendorff_alpha(units, (1, 0))
    if ours is None:
        return
    data = pd.DataFrame(table, dtype="float64").T
    assert ours == pytest.approx(evalica.alpha(data, distance="nominal").alpha, abs=1e-9)


def test_alpha_of_a_known_table_and_of_none():
    # 10 units, 2 observers; 6 agree on 0, 3 on 1, 1 disagrees: D_o 0.1, D_e 2 * 7 * 13 / (20 * 19).
    units = [(0, 2)] * 6 + [(2, 0)] * 3 + [(1, 1)]
    assert krippendorff_alpha(units, (1, 0)) == pytest.approx(1 - 0.1 / (182 / 380))
    assert krippendorff_alpha([(2, 0), (3, 0)], (1, 0)) is None
    assert krippendorff_alpha([(1, 0)], (1, 0)) is None


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=30), st.floats(1.0, 20.0))
def test_propensity_weights_are_self_normalised_and_clipped(chances, clip):
    weights = weighting.propensity_weights(chances, clip)
    assert sum(weights) == pytest.approx(len(chances))
    assert max(weights) <= clip * min(weights) * (1 + 1e-9)
    assert weighting.effective_size(weights) <= len(chances) + 1e-6
    assert weighting.propensity_weights([0.3] * 5, clip) == pytest.approx([1.0] * 5)


def test_weighing_by_propensity_finds_the_true_mean_where_a_plain_one_does_not():
    """Displeased people are eight times as likely to speak; true share of pleased ones is 0.6."""
    draw = random.Random(0)
    seen = [(up, 0.05 if up else 0.4) for up in (draw.random() < 0.6 for _ in range(40_000))]
    seen = [(up, p) for up, p in seen if draw.random() < p]
    weights = weighting.propensity_weights([p for _, p in seen], 100.0)
    plain = sum(up for up, _ in seen) / len(seen)
    weighed = sum(w for w, (up, _) in zip(weights, seen, strict=True) if up) / len(seen)
    assert plain < 0.25
    assert weighed == pytest.approx(0.6, abs=0.04)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 5.0)), min_size=1, max_size=40))
def test_good_over_bad_is_between_one_and_four_thirds(rows):
    good, weights = [up for up, _ in rows], [w for _, w in rows]
    found = weighting.balance(weights, good)
    up, down = (sum(w for w, g in zip(found, good, strict=True) if g is side) for side in (True, False))
    if all(good) or not any(good):
        assert found == weights
    else:
        assert 1 - 1e-9 <= up / down <= 4 / 3 + 1e-9
        assert sum(found) == pytest.approx(len(rows))


def test_a_kind_of_prompt_that_always_pleases_says_little_about_its_answers():
    good = [True] * 90 + [False] * 10 + [True] * 10 + [False] * 90
    groups = ["writing"] * 100 + ["coding"] * 100
    weights = weighting.class_weights(good, groups, 10.0)
    for group in ("writing", "coding"):
        sides = Counter()
        for up, g, w in zip(good, groups, weights, strict=True):
            sides[up] += w if g == group else 0.0
        assert sides[True] / sides[False] == pytest.approx(1.0, rel=0.1)


def test_how_often_events_are_right_is_measured_on_what_raters_judged_too():
    draw = random.Random(1)
    served = [interaction(f"a{n}", f"q{n}", subject=f"p{n}") for n in range(400)]
    truth = [draw.random() < 0.5 for _ in served]
    events = [rater_thumb(i.id, up) for i, up in zip(served, truth, strict=True)]
    events += [
        thumb(i.id, up if draw.random() < 0.95 else not up, f"p{n}")
        for n, (i, up) in enumerate(zip(served, truth, strict=True))
    ]
    events += [implicit(i.id, ImplicitEvent.COPY, f"p{n}") for n, i in enumerate(served)]
    right = selection_of(served, events).standings.trust.accuracy
    assert right["thumb"] == pytest.approx(0.95, abs=0.03)
    assert right["copy"] == pytest.approx(0.5, abs=0.06)  # they copied all, so copying says nothing
    assert right["undo"] == 0.6  # never seen: what was believed before
    known = {i.id for i in served[:50]}
    few = selection_of(served[:50], [e for e in events if e.target in known]).standings
    assert (few.trust.accuracy["thumb"], few.gold) == (0.85, 50)


def test_position_bias_is_measured_and_corrected():
    draw = random.Random(2)
    served = [interaction(f"{side}{n}", f"q{n}") for n in range(500) for side in "ab"]
    events = [
        choice((f"a{n}", f"b{n}"), f"a{n}" if draw.random() < 0.8 else f"b{n}", f"p{n}") for n in range(500)
    ]
    found = selection_of(served, events)
    assert found.standings.first_share == pytest.approx(0.8, abs=0.04)
    flips = {c.draft.chosen[0]: c.draft.flip_rate for c in found.chosen["pair"]}
    assert flips["b"] < 0.25 < flips["a"]  # to take the second against the pull says more


def test_choices_and_regenerations_are_measured_on_gold_too():
    draw = random.Random(4)
    served, events = [], []
    for n in range(600):
        good = draw.random() < 0.5
        served += [
            interaction(f"{side}{n}", f"q{n}", subject=f"p{n}", parent=f"a{n}" if side == "b" else None)
            for side in "ab"
        ]
        events += [rater_thumb(f"a{n}", good), rater_thumb(f"b{n}", not good)]
        if n < 300:
            right = draw.random() < 0.9
            shown = (f"a{n}", f"b{n}") if n % 2 else (f"b{n}", f"a{n}")
            events.append(choice(shown, f"{'a' if right is good else 'b'}{n}", f"p{n}"))
        elif good is (draw.random() < 0.45):  # of the last answers that were kept, 0.55 are better
            events.append(thumb(f"b{n}", True, f"p{n}"))
    right = selection_of(served, events).standings.trust.accuracy
    assert right["choice"] == pytest.approx(0.9, abs=0.04)
    assert right["regeneration"] == pytest.approx(0.56, abs=0.08)


def test_no_single_person_moves_what_is_measured_of_all():
    """One who lies on every answer that raters judged, and always takes the first of two."""
    draw = random.Random(5)
    served = [interaction(f"a{n}", f"q{n}", subject=f"p{n % 200}") for n in range(400)]
    truth = [draw.random() < 0.5 for _ in served]
    events = [rater_thumb(i.id, up) for i, up in zip(served, truth, strict=True)]
    events += [
        thumb(i.id, up if draw.random() < 0.9 else not up, i.subject)
        for i, up in zip(served, truth, strict=True)
    ]
    sides = [interaction(f"{side}{n}x", f"c{n}") for n in range(200) for side in "ab"]
    events += [choice((f"a{n}x", f"b{n}x"), f"{draw.choice('ab')}{n}x", f"p{n}") for n in range(200)]
    lies = [thumb(i.id, not up, "liar", 1e6 * n) for n, (i, up) in enumerate(zip(served, truth, strict=True))]
    lies += [choice((f"b{n}x", f"a{n}x"), f"b{n}x", "liar", 1e6 * n) for n in range(200)]
    before, after = (selection_of(served + sides, events + more).standings for more in ([], lies))
    assert before.trust.accuracy["thumb"] - after.trust.accuracy["thumb"] < 0.06
    assert abs(after.trust.position_bias - before.trust.position_bias) <= 0.4


@pytest.mark.parametrize("bias", [-0.7, 0.0, 1.0])
def test_a_simulated_position_bias_is_recovered(bias):
    """People who see the better one with odds of 3 to 1, moved by the place."""
    draw = random.Random(7)
    served, events = [], []
    for n in range(1500):
        served += [interaction(f"a{n}", f"q{n}"), interaction(f"b{n}", f"q{n}")]
        shown = (f"a{n}", f"b{n}") if draw.random() < 0.5 else (f"b{n}", f"a{n}")
        odds = 3.0 * math.exp(bias if shown[0][0] == "a" else -bias)
        events.append(choice(shown, f"a{n}" if draw.random() < odds / (1 + odds) else f"b{n}", f"p{n}"))
    assert selection_of(served, events).standings.trust.position_bias == pytest.approx(bias, abs=0.2)


def test_pairs_of_unlike_length_are_left_out_where_that_is_asked():
    served = [interaction("a", answer="x" * 100), interaction("b", answer="y" * 40)]
    events = [thumb("a", True), thumb("b", False)]
    assert len(selection_of(served, events).chosen["pair"]) == 1
    found = selection_of(served, events, FeedbackRules(length_ratio=2.0))
    assert found.chosen["pair"] == []
    assert found.counts["left out: sides differ too much in length"] == 1


# --- samples ----------------------------------------------------------------------------------


def test_the_best_sample_stands_over_the_worst_where_the_judge_sees_a_difference():
    prompt = (Message(Role.USER, "p"),)
    samples = (ScoredSample("good", 0.9), ScoredSample("fair", 0.5), ScoredSample("bad", 0.1))
    asked = [
        ResampledPrompt(prompt, "h", ("a",), samples, "judge/1"),
        ResampledPrompt(
            prompt, "i", ("b",), (ScoredSample("one", 0.5), ScoredSample("two", 0.55)), "judge/1"
        ),
        ResampledPrompt(
            prompt, "j", ("c",), (ScoredSample("same", 0.1), ScoredSample("same", 0.1)), "judge/1"
        ),
        ResampledPrompt(prompt, "k", ("d",), samples, "judge/1"),
    ]
    counts: Counter[str] = Counter()
    (pair,) = resampled_pairs(asked, 0.2, 0.1, counts, frozenset({"k"}))
    assert (pair.chosen, pair.rejected, pair.flip_rate) == ("good", "bad", 0.1)
    assert (pair.origin.parents, pair.origin.rule) == (("a",), "resampled/1;judge/1")
    assert counts == {
        "no pair: the judge sees no difference": 1,
        "no pair: all new answers are alike": 1,
        "left out: held-out prompt": 1,
    }
    with pytest.raises(DataError, match="flip rate"):
        resampled_pairs(asked, 0.2, 0.6, counts)


# --- advice -----------------------------------------------------------------------------------


def told(served, events, **limits):
    found = FeedbackRules(**limits)
    return advise(summarise(selection_of(served, events, found)), found)


def test_advice_names_what_there_is_and_what_is_lacking():
    served = [interaction(f"{side}{n}", f"q{n}", subject=f"p{n}") for n in range(34) for side in "ab"]
    events = [thumb(f"{side}{n}", side == "a", f"p{n}") for n in range(34) for side in "ab"]
    few = told(served, events)
    assert few.stages == ()
    assert "34 pairs (thumbs 34): too few for DPO; 66 more needed" in few.lines
    enough = told(served, events, min_pairs=30)
    assert enough.stages == ("dpo",)
    assert "34 pairs (thumbs 34): DPO" in enough.lines
    assert any("a matter of taste" in line for line in enough.lines)


def edits(n):
    served = [
        interaction(f"a{k}", f"q{k}", "The result is forty one, as you know.", subject=f"p{k}")
        for k in range(n)
    ]
    return served, [correction(i.id, "The result is forty two, as you know.", i.subject) for i in served]


def test_advice_trains_on_written_answers_from_so_many_on_that_no_single_person_wrote_most():
    few = told(*edits(1))
    assert few.stages == ()
    assert few.lines[0] == (
        "1 written answer beside 0 pairs that only compare, agreement unknown, several judged "
        "0 answers: a right answer seems to exist; too few for SFT; 99 more needed"
    )
    assert told(*edits(30), min_examples=30, min_pairs=40).stages == ("sft",)


def test_advice_calls_nothing_a_taste_in_which_people_agree():
    served = [interaction(f"{side}{n}", f"q{n}") for n in range(40) for side in "ab"]
    events = [thumb(i.id, i.id[0] == "a", f"p{(k + j) % 90}") for k, i in enumerate(served) for j in range(2)]
    lines = told(served, events, min_pairs=30).lines
    assert "agreement alpha 1.00: people want the same, and nobody wrote what" in lines[0]


def test_advice_believes_no_agreement_on_a_few_answers_and_none_where_all_say_the_same():
    served = [interaction(f"{side}{n}", f"q{n}") for n in range(30) for side in "ab"]
    few = [thumb(i.id, i.id[0] == "a", f"p{j}{i.id}") for i in served[:8] for j in range(2)]
    assert "agreement unknown, several judged 8 answers: a matter of taste" in told(served, few).lines[0]
    alike = [thumb(f"a{n}", True, who) for n in range(30) for who in ("x", "y")]
    alike += [thumb(f"b{n}", False, "z") for n in range(30)]
    said_so = "unknown, all 30 answers that several judged got the same verdict"
    assert said_so in told(served, alike).lines[0]


def test_advice_says_what_is_held_back():
    served = [interaction(f"{who}-{n}", f"q{who}{n}", subject=who) for who in "abcdefgh" for n in range(6)]
    served += [interaction(f"m-{n}", f"qm{n}", subject="m") for n in range(60)]
    lines = told(served, [thumb(i.id, True, i.subject) for i in served]).lines
    assert lines[-1] == "60 events held back (rate_anomaly 60): `escultor feedback quarantine` shows why"


def test_advice_is_kto_for_unpaired_thumbs_and_says_which_side_is_lacking():
    served = [interaction(f"a{n}", f"q{n}", subject=f"p{n}") for n in range(60)]
    events = [thumb(i.id, n % 3 > 0, i.subject) for n, i in enumerate(served)]
    assert told(served, events, min_unpaired=50, min_unpaired_side=10).stages == ("kto",)
    lacking = told(served, events, min_unpaired=50, min_unpaired_side=25)
    assert "5 more bad ones needed" in lacking.lines[-1]


def test_the_card_says_who_and_what():
    served = [interaction("a"), interaction("b"), interaction("c", "q")]
    events = [thumb("a", True), thumb("b", False), thumb("c", True, "x"), thumb("c", True, "y")]
    found = summarise(selection_of(served, events))
    assert found["kinds"]["pair"]["rules"] == {"same-prompt/4": 1}
    assert found["kinds"]["pair"]["largest_end_user_share"] == 1.0
    assert found["kinds"]["unpaired"]["up_down_by_skill"] == {"chat": [1, 0]}
    shown = {title: rows for title, _, rows in feedback_tables(found)}
    assert shown["Labelling rules"] == [["same-prompt/4", "pair", "1"], ["thumb/3", "unpaired", "1"]]
    assert any("Krippendorff" in line for line in feedback_lines(found))


def test_a_card_of_an_earlier_version_is_shown_as_one_of_today():
    served = [interaction("a"), interaction("b"), interaction("c", "q")]
    section = summarise(selection_of(served, [thumb("a", True), thumb("b", False), thumb("c", True, "x")]))
    kinds = {"judged" if k == "unpaired" else k: dict(part) for k, part in section["kinds"].items()}
    for part in kinds.values():
        part["routes"] = part.pop("rules")
    old = section | {"kinds": kinds}
    assert list(feedback_tables(old)) == list(feedback_tables(section))
    assert list(feedback_lines(old)) == list(feedback_lines(section))
