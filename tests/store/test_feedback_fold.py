"""The feedback in force: a fold that is order-free, idempotent and mergeable; the latest event wins."""

from hypothesis import given
from hypothesis import strategies as st
from store_records import rating, records_of

from escultor.store.feedback import choice_target, event_name, feedback_key, latest, live
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
def test_the_fold_is_order_free_idempotent_and_mergeable(one, other, random):
    whole = [*one, *other]
    mixed = random.sample(whole, len(whole)) + one
    assert latest(mixed) == latest(whole) == latest([*latest(one).values(), *latest(other).values()])
    assert live(mixed) == live(whole)


@given(events)
def test_the_latest_event_per_subject_target_and_name_is_in_force(history):
    for key, event in live(history).items():
        assert feedback_key(event) == key
        assert not any(feedback_key(other) == key and other.time > event.time for other in history)
    withdrawn = {feedback_key(event) for event in history} - live(history).keys()
    assert all(
        any(isinstance(e, Revocation) and feedback_key(e) == key for e in history) for key in withdrawn
    )


def test_a_revocation_wins_at_equal_times_and_ends_with_a_later_event():
    up, gone = rating("z"), Revocation("a", 1.0, "answer", "person", "thumb")
    assert live([up, gone]) == {}
    again = rating("b", time=2.0)
    assert list(live([up, gone, again]).values()) == [again]


@given(records_of(Choice))
def test_the_target_of_a_choice_does_not_depend_on_the_order_shown(choice):
    assert feedback_key(choice).target == choice_target(reversed(choice.shown_order))


def test_every_variant_has_a_name_to_be_revoked_by():
    about = ("i", 1.0, "t", "s")
    history: list[Feedback] = [
        Rating(*about, "thumb", True),
        Correction(*about, "better"),
        Remark(*about, "hm"),
        Implicit(*about, ImplicitEvent.COPY),
        Choice("i", 1.0, "s", "pick", ("a", "b"), None),
        Revocation(*about, "thumb"),
    ]
    assert [event_name(event) for event in history] == [
        "thumb",
        "correction",
        "remark",
        "copy",
        "pick",
        "thumb",
    ]
