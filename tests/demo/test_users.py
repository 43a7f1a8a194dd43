"""Simulated people: they like brief summaries, say so most of the time, and do not know answers by id."""

from escultor.demo.users import HABITS, judge, shuffled
from escultor.skills.trinity import Trinity, prompt_for
from escultor.skills.trinity_metrics import is_brief
from escultor.store import open_store
from escultor.types import Correction, Interaction, Rating, Sampling, Usage


def served(documents=300, version="one"):
    """Brief and long answers in turn, to prompts of 40 people."""
    answers = [
        Trinity("a", "other", "reference", (), summary).to_json()
        for summary in ("Make it sing.", "Make the cat sing a song that everybody in the house will hear.")
    ]
    return [
        Interaction(
            f"{version}-{d}-{n}", 1.0, "trinity", f"s{d % 40}", "v", "champion", 1.0, prompt_for(f"doc {d}"),
            answers[n % 2], "stop", Sampling(), Usage(1, 1), 1.0, None, 0.0, f"hash {d}",
        )
        for d in range(documents)
        for n in range(2)
    ]  # fmt: skip


def said(tmp_path, interactions, name="s"):
    with open_store(str(tmp_path / name)) as store:
        return judge(store.log, interactions, 3)


def test_what_people_say_does_not_know_the_ids_of_answers(tmp_path):
    first, second = (
        [(type(e), getattr(e, "value", None)) for e in said(tmp_path, served(40, version), version)]
        for version in ("one", "two")
    )
    assert first == second


def test_thumbs_follow_the_taste_with_the_stated_errors(tmp_path):
    interactions = served()
    by_id = {i.id: i for i in interactions}
    thumbs = [e for e in said(tmp_path, interactions) if isinstance(e, Rating)]
    right = sum(e.value == is_brief(by_id[e.target].answer) for e in thumbs) / len(thumbs)
    expected = HABITS.sees_it * (1 - HABITS.careless) + 0.5 * HABITS.careless
    assert abs(right - expected) < 0.08  # four people in 40 are careless, more or less
    assert abs(len(thumbs) / len(interactions) - HABITS.rates) < 0.06


def test_an_edit_is_what_they_like(tmp_path):
    edits = [e for e in said(tmp_path, served()) if isinstance(e, Correction)]
    assert 0 < len(edits) < 40
    assert all(is_brief(e.text) for e in edits)


def test_the_control_has_the_same_thumbs_on_other_answers(tmp_path):
    events = said(tmp_path, served())
    dealt = shuffled(events, 3)
    thumbs = [e for e in events if isinstance(e, Rating)]
    assert sorted(e.value for e in dealt) == sorted(e.value for e in thumbs)
    assert [e.target for e in dealt] == [e.target for e in thumbs]
    assert [e.value for e in dealt] != [e.value for e in thumbs]
