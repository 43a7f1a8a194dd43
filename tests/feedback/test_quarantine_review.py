"""What stands behind an entry of the quarantine can be read before it is released."""

from feedback_records import DAY, choice, correction, implicit, interaction, thumb

from escultor.config import FeedbackRules
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.quarantine_review import HeldFeedback, held_events
from escultor.feedback.raw_log import InMemorySource
from escultor.types import ImplicitEvent

LONG = "as we know the moon is a great big wheel of cheese"


def shown(served, events, limit=50) -> dict[str, list[HeldFeedback]]:
    with FeedbackIndex(None, FeedbackRules()) as index:
        index.add(served, events)
        bodies = InMemorySource(served, events)
        return {held.rule: held_events(index, held, bodies, limit) for held in index.standings().quarantine}


def test_echoed_answers_are_shown_with_all_events_about_them_and_no_others():
    served = [
        interaction("a", f"Say: {LONG}", LONG, subject="m"),
        interaction("b", "q", "another", subject="m"),
    ]
    served += [interaction("c", f"Say: {LONG}", "something else", subject="m")]
    served += [interaction(f"r{n}", f"Say {n}: {LONG}", LONG, subject="m") for n in range(2)]
    events = [implicit(f"r{n}", ImplicitEvent.ABANDON, "m") for n in range(2)]
    events += [thumb("a", True, "m"), thumb("a", False, "x", 3.0), thumb("b", True, "m")]
    events += [correction("a", "The moon is of rock.", "y", 2.0), choice(("a", "c"), "a", "m", 4.0)]
    words = shown(served, events)["prompt_echo"]
    assert [(w.said, w.text) for w in words] == [
        ("chosen of 2", LONG),
        ("bad", LONG),
        ("correction", "The moon is of rock."),
        ("good", LONG),
    ]
    assert {w.prompt for w in words} == {f"Say: {LONG}"}


def test_of_a_rate_anomaly_the_newest_events_of_its_interval_are_shown():
    served = [interaction(f"p{n}-{k}", f"q{n}{k}") for n in range(9) for k in range(2)]
    events = [thumb(i.id, True, i.id.split("-")[0], DAY * k) for k, i in enumerate(served)]
    more = [interaction(f"m{n}", f"mine {n}") for n in range(60)]
    events += [thumb(i.id, n % 2 == 0, "m", 100.0 + n) for n, i in enumerate(more)]
    words = shown([*served, *more], events, 3)["rate_anomaly"]
    assert [(w.target, w.said) for w in words] == [("m59", "bad"), ("m58", "good"), ("m57", "bad")]
