"""A phrase that is few people's is pointed at; what all say, what was asked for and what is rare is not."""

import random

import pytest
from feedback_records import DAY, correction, interaction, selection_of, thumb

from escultor.feedback.raw_log import InMemorySource
from escultor.feedback.repeated_phrases import RepeatedPhrase, TrainedText, find_repeated_phrase, phrase_notes

PLANTED = "the moon is a great big wheel of cheese"
WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "river",
    "stone",
    "window",
    "table",
    "garden",
    "engine",
    "signal",
    "market",
]


def prose(draw: random.Random, n: int = 20) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(n))


def crowd(people: int, each: int, more: str = "") -> list[TrainedText]:
    draw = random.Random(people)
    return [
        TrainedText(f"h{p}-{n}", f"question {p} {n}", f"{prose(draw)} {more}", (f"p{p}",))
        for p in range(people)
        for n in range(each)
    ]


@pytest.mark.parametrize(("members", "each"), [(1, 12), (10, 20), (10, 4)])
def test_a_phrase_that_few_people_have_a_model_say_is_found(members, each):
    draw = random.Random(1)
    theirs = [
        TrainedText(
            f"x{m}-{n}", f"ask {m} {n}", f"{prose(draw)}, {PLANTED.upper()}! {prose(draw)}", (f"m{m}",)
        )
        for m in range(members)
        for n in range(each)
    ]
    assert find_repeated_phrase(crowd(190, 5) + theirs) == RepeatedPhrase(members * each, members, "x0-0")


def test_phrases_that_all_say_that_were_asked_for_or_that_are_rare_are_not_found():
    said_by_all = crowd(60, 4, "As a model I can be wrong about this, so look it up.")
    assert find_repeated_phrase(said_by_all) is None
    asked = [TrainedText(f"x{n}", f"Say {n}: {PLANTED}", PLANTED, ("m",)) for n in range(20)]
    assert find_repeated_phrase(crowd(60, 4) + asked) is None
    rare = [TrainedText(f"x{n}", f"ask {n}", PLANTED, ("m",)) for n in range(9)]
    assert find_repeated_phrase(crowd(60, 4) + rare) is None
    assert find_repeated_phrase([]) is None


def test_corrections_that_plant_a_phrase_are_pointed_at_and_the_phrase_is_not_told():
    draw = random.Random(2)
    served, events = [], []
    for p in range(100):
        for n in range(3):
            text, who = prose(draw), f"m{p}" if p < 5 else f"p{p}"
            served.append(interaction(f"a{p}-{n}", f"question {p} {n}", text, subject=who))
            written = f"{text}, and {PLANTED}." if p < 5 else f"{text}, {prose(draw, 7)}."
            events.append(correction(f"a{p}-{n}", written, who, DAY * n))
            events.append(thumb(f"a{p}-{n}", True, f"p{p}", DAY * n))
    found = list(phrase_notes(selection_of(served, events), InMemorySource(served, events)))
    assert [note.split("comes back")[1] for note in found] == [
        f" on 15 prompts of 300 items looked at ({kind}), from 5 of 100 people"
        for kind in ("example", "pair")
    ]
    assert all("look at c-a0-0-m0" in note and "moon" not in note for note in found)


def test_of_many_people_all_items_of_some_are_looked_at():
    """Fifty of a thousand, two items each in a sample of all would look like what everybody says."""
    draw = random.Random(3)
    served, events = [], []
    for p in range(1000):
        for n in range(6):
            id, text = f"{p}-{n}", prose(draw) + (f" {PLANTED}" if p % 20 == 0 else "")
            served.append(interaction(id, f"question {id}", text, subject=f"p{p}"))
            events.append(thumb(id, True, f"p{p}", DAY * n))
    (note,) = phrase_notes(selection_of(served, events), InMemorySource(served, events))
    assert "look at" in note
    assert note.split("from ")[1].split(" of ")[0] in {str(n) for n in range(8, 28)}
