"""What holds of what was said: order-free, idempotent, mergeable; the last word, until it is withdrawn."""

from hypothesis import given
from hypothesis import strategies as st
from store_nouns import nouns_of, rating

from escultor.store.feedback import choice_target, key_of, latest, live, name_of
from escultor.types import Choice, Correction, Feedback, Implicit, ImplicitEvent, Rating, Remark, Revocation

few = st.sampled_from("ab")
times = st.integers(0, 3).map(float)
ids = st.integers(0, 10**6).map(str)
events = st.lists(
    st.builds(Rating, ids, times, few, few, st.sampled_from(["thumb", "score"]), st.booleans())
    | st.builds(Revocation, ids, times, few, few, st.sampled_from(["thumb", "score", "correction"]))
    | st.builds(Correction, ids, times, few, few, few)
    | st.builds(Choice, ids, times, few, st.just("pick"), st.sampled_from([("a", "b"), ("b", "a")]), few),
    max_size=8,
    unique_by=lambda event: event.id,
)


@given(events, events, st.randoms(use_true_random=False))
def test_the_fold_knows_no_order_no_repetition_and_merges(one, other, random):
    whole = [*one, *other]
    mixed = random.sample(whole, len(whole)) + one
    assert latest(mixed) == latest(whole) == latest([*latest(one).values(), *latest(other).values()])
    assert live(mixed) == live(whole)


@given(events)
def test_one_word_is_live_for_each_subject_target_and_name_and_it_is_the_last(said):
    for key, event in live(said).items():
        assert key_of(event) == key
        assert not any(key_of(other) == key and other.time > event.time for other in said)
    withdrawn = {key_of(event) for event in said} - live(said).keys()
    assert all(any(isinstance(e, Revocation) and key_of(e) == key for e in said) for key in withdrawn)


def test_a_withdrawal_wins_against_what_was_said_at_the_same_time_and_ends_with_a_new_word():
    up, gone = rating("z"), Revocation("a", 1.0, "answer", "person", "thumb")
    assert live([up, gone]) == {}
    again = rating("b", time=2.0)
    assert list(live([up, gone, again]).values()) == [again]


@given(nouns_of(Choice))
def test_a_choice_is_about_its_answers_in_whatever_order_they_were_shown(choice):
    assert key_of(choice).target == choice_target(reversed(choice.shown_order))


def test_every_variant_has_a_name_to_be_withdrawn_by():
    about = ("i", 1.0, "t", "s")
    said: list[Feedback] = [
        Rating(*about, "thumb", True),
        Correction(*about, "better"),
        Remark(*about, "hm"),
        Implicit(*about, ImplicitEvent.COPY),
        Choice("i", 1.0, "s", "pick", ("a", "b"), None),
        Revocation(*about, "thumb"),
    ]
    assert [name_of(event) for event in said] == ["thumb", "correction", "remark", "copy", "pick", "thumb"]
