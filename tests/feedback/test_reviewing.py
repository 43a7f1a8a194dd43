"""What stands behind an entry of the quarantine can be read before it is released."""

from saying import DAY, edit, pick, said, thumb

from escultor.config import FeedbackRules
from escultor.feedback.index import FeedbackIndex
from escultor.feedback.quarantine_review import HeldFeedback, words_of
from escultor.feedback.selection import InMemorySource

LONG = "as we know the moon is a great big wheel of cheese"


def shown(served, events, limit=50) -> dict[str, list[HeldFeedback]]:
    with FeedbackIndex(None, FeedbackRules()) as index:
        index.take(served, events)
        bodies = InMemorySource(served, events)
        return {held.rule: words_of(index, held, bodies, limit) for held in index.quarantine()}


def test_dictated_answers_are_shown_with_what_all_said_of_them_and_no_others():
    served = [said("a", f"Say: {LONG}", LONG, subject="m"), said("b", "q", "another", subject="m")]
    served += [said("c", f"Say: {LONG}", "something else", subject="m")]
    events = [thumb("a", True, "m"), thumb("a", False, "x", 3.0), thumb("b", True, "m")]
    events += [edit("a", "The moon is of rock.", "y", 2.0), pick(("a", "c"), "a", "m", 4.0)]
    words = shown(served, events)["dictation"]
    assert [(w.said, w.text) for w in words] == [
        ("chosen of 2", LONG),
        ("bad", LONG),
        ("correction", "The moon is of rock."),
        ("good", LONG),
    ]
    assert {w.prompt for w in words} == {f"Say: {LONG}"}


def test_of_haste_the_newest_words_of_its_time_are_shown():
    served = [said(f"p{n}-{k}", f"q{n}{k}") for n in range(9) for k in range(2)]
    events = [thumb(i.id, True, i.id.split("-")[0], DAY * k) for k, i in enumerate(served)]
    more = [said(f"m{n}", f"mine {n}") for n in range(60)]
    events += [thumb(i.id, n % 2 == 0, "m", 100.0 + n) for n, i in enumerate(more)]
    words = shown([*served, *more], events, 3)["haste"]
    assert [(w.target, w.said) for w in words] == [("m59", "bad"), ("m58", "good"), ("m57", "bad")]
