"""Caps that bind are named with what would lift them; a few people, and whom the owner trusts, have none."""

import pytest
from feedback_records import DAY, NOW, interaction, selection_of, thumb

from escultor.config import FeedbackRules
from escultor.feedback.conversion import convert
from escultor.feedback.selection import SelectionQuery
from escultor.store import open_store
from escultor.types import QuarantineOverride


def verdicts(who: str, prompts: int, begin: float = NOW - 3600):
    """Two answers to each prompt, one liked and one not, all within the hour."""
    ids = [f"{who}-{side}{n}" for n in range(prompts) for side in "ab"]
    served = [interaction(id, f"question {id[:-2]} {id[-1]}", subject=who) for id in ids]
    return served, [thumb(i.id, k % 2 == 0, who, begin + k) for k, i in enumerate(served)]


def first_day(prompts: int = 20, who: str = "me"):
    served = [
        interaction(f"{who}-{s}{n}", f"{who} question {n}", subject=who) for n in range(prompts) for s in "ab"
    ]
    return served, [
        thumb(i.id, i.id[-2 - (n > 19)] == "a" or "-a" in i.id, who, NOW - 3600 + n)
        for n, i in enumerate(served)
    ]


@pytest.mark.parametrize("people", [1, 5])
def test_a_few_people_on_their_first_day_keep_all_they_said(people):
    served, events = [], []
    for n in range(people):
        more, said = first_day(who=f"p{n}")
        served, events = served + more, events + said
    found = selection_of(served, events, asked=SelectionQuery(NOW))
    assert len(found.chosen["pair"]) == 20 * people
    assert found.few_people == people
    assert sum("no crowd bounds the share" in note for note in found.notes) == 1


def crowd(people: int = 9):
    """People with six verdicts each, weeks ago."""
    served = [
        interaction(f"h{p}-{n}", f"question {p} {n}", subject=f"h{p}")
        for p in range(people)
        for n in range(6)
    ]
    return served, [thumb(i.id, k % 2 == 0, i.subject, NOW - 20 * DAY + k) for k, i in enumerate(served)]


def test_every_cap_that_binds_is_named_with_its_value_and_what_lifts_it():
    served, events = crowd()
    more, said = first_day(30)
    found = selection_of(served + more, events + said, FeedbackRules(rate_anomaly_floor=99))
    assert len(found.chosen["pair"]) == FeedbackRules().probation_items
    named = [note for note in found.notes if note.startswith("feedback.")]
    assert [note.split(":")[0] for note in named] == [
        "feedback.probation_items 5 binds for 1 person, 25 items",
        "feedback.subject_items 20 binds for 1 person, 25 items",
    ]
    assert all("--trust NAME" in note for note in named)
    lifted = FeedbackRules(rate_anomaly_floor=99, probation_items=50, subject_items=50)
    assert len(selection_of(served + more, events + said, lifted).chosen["pair"]) == 30


def test_on_the_first_day_of_a_store_nobody_is_new():
    served, events = [], []
    for n in range(8):
        more, said = first_day(8, f"p{n}")
        served, events = served + more, events + said
    assert len(selection_of(served, events).chosen["pair"]) == 64


def test_no_cap_and_no_rule_applies_to_whom_the_owner_trusts(tmp_path):
    served, events = crowd()
    more, said = first_day(60)
    with open_store(str(tmp_path / "s")) as store:
        store.log.append(*served, *more, *events, *said)

        def pairs() -> int:
            return convert(store, FeedbackRules(), SelectionQuery(NOW)).rows["pair"]

        assert pairs() == 0  # 120 verdicts in an hour, where six are usual
        store.log.append(QuarantineOverride("r", NOW, "me", "--trust me"))
        assert pairs() == 60
        assert convert(store, FeedbackRules(), SelectionQuery(NOW)).card["trusted_subjects"] == 1
