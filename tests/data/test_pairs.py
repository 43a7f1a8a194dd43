"""Pairs from feedback: pure, order-free, idempotent; never across prompts; held-out prompts never enter."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from escultor.data.pairs import MAX_PAIRS_PER_PROMPT, feedback_pairs, gold_pairs, thumbs
from escultor.ids import hash_value
from escultor.types import (
    Consent,
    Example,
    Interaction,
    Message,
    Origin,
    Rating,
    Revocation,
    Role,
    Sampling,
    Usage,
)


def said(id: str, prompt: str, answer: str, consent: Consent = Consent.TRAIN) -> Interaction:
    messages = (Message(Role.USER, prompt),)
    usage = Usage(1, 1)
    return Interaction(
        id, 0.0, "trinity", "s", "v", "champion", 1.0, messages, answer, "stop", Sampling(), usage, 1.0, None,
        0.0, hash_value(messages), consent=consent,
    )  # fmt: skip


def thumb(target: str, up: bool, subject: str = "s", time: float = 1.0) -> Rating:
    return Rating(f"{target}-{subject}-{time}", time, target, subject, "thumb", up)


@st.composite
def histories(draw):
    served = [
        said(f"i{n}", draw(st.sampled_from("pq")), draw(st.sampled_from(["a", "b", "c", "d"])))
        for n in range(10)
    ]
    events = [
        thumb(f"i{draw(st.integers(0, 9))}", draw(st.booleans()), draw(st.sampled_from("xyz")), float(n))
        for n in range(draw(st.integers(0, 14)))
    ]
    return served, events


@given(histories(), st.randoms(use_true_random=False))
def test_pairs_do_not_depend_on_the_order_or_repetition_of_what_was_said(history, random):
    served, events = history
    expected = feedback_pairs(served, events, Counter())
    mixed, again = random.sample(served, len(served)), random.sample(events, len(events)) + events
    assert feedback_pairs(mixed, again, Counter()) == expected


@given(histories())
def test_a_pair_has_one_prompt_two_answers_and_verdicts_that_agree_with_it(history):
    served, events = history
    verdict, by_id = thumbs(events), {i.id: i for i in served}
    pairs = feedback_pairs(served, events, Counter())
    for pair in pairs:
        up, down = (by_id[parent] for parent in pair.origin.parents)
        assert pair.chosen != pair.rejected
        assert up.messages == down.messages == pair.prompt
        assert verdict[up.id]
        assert not verdict[down.id]
    assert max(Counter(p.prompt for p in pairs).values(), default=0) <= MAX_PAIRS_PER_PROMPT


@given(histories())
def test_a_held_out_prompt_never_enters(history):
    served, events = history
    held_out = frozenset(i.prompt_hash for i in served if i.messages[0].content == "p")
    pairs = feedback_pairs(served, events, Counter(), held_out)
    assert all(pair.prompt[0].content == "q" for pair in pairs)


def test_the_latest_word_counts_and_a_revocation_withdraws_it():
    events = [thumb("i", True, time=1), thumb("i", False, time=2)]
    assert thumbs(events) == {"i": False}
    assert thumbs([*events, Revocation("r", 3.0, "i", "s", "thumb")]) == {}


def test_a_draw_between_subjects_is_no_verdict():
    assert thumbs([thumb("i", True, "a"), thumb("i", False, "b")]) == {}


def test_without_consent_nothing_is_learnt():
    served = [said("a", "p", "good", Consent.EVAL_ONLY), said("b", "p", "bad")]
    counts = Counter()
    assert feedback_pairs(served, [thumb("a", True), thumb("b", False)], counts) == []
    assert counts["left out: no consent"] == 1


def test_an_answer_judged_both_ways_is_left_out():
    served = [said("a", "p", "same"), said("b", "p", "same"), said("c", "p", "other")]
    events = [thumb("a", True), thumb("b", False), thumb("c", False)]
    assert feedback_pairs(served, events, Counter()) == []


def test_gold_stands_over_own_answers_that_score_below_the_limit():
    gold = Example("e", (Message(Role.USER, "p"),), "gold", Origin(("d",), "test/1"))
    examples = [gold, replace(gold, id="f"), replace(gold, id="g")]
    counts = Counter()
    score = {"gold": 1.0, "near": 0.95, "far": 0.1}
    pairs = gold_pairs(examples, ["gold", "near", "far"], lambda _, answer: score[answer], 0.9, counts)
    assert [(p.chosen, p.rejected, p.origin.parents) for p in pairs] == [("gold", "far", ("g",))]
    assert counts == {
        "answers": 3,
        "no pair: the answer is the gold": 1,
        "no pair: the answer is good enough": 1,
    }
