"""The parts of the month's experiment: tastes, rivals' labels, the shared clock, the page and the picture."""

import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from escultor.serve.in_flight import draft_interaction
from escultor.skills.trinity import Trinity
from escultor.store import open_store
from escultor.types import Message, Rating, Role, Sampling

MONTH = Path(__file__).parents[2] / "experiments" / "month"
sys.path.insert(0, str(MONTH))

import learning  # noqa: E402
import measure  # noqa: E402
import people  # noqa: E402
import report  # noqa: E402

BRIEF = Trinity("os.walk", "systems", "reference", (), "Walk a tree.").to_json()
LONG = BRIEF.replace("Walk a tree.", "Walk over every folder of a tree and give the names in it.")
DOCUMENT = "os.walk(top)\n\nGenerates the names of the files in a folder tree."


def test_people_keep_their_taste_but_for_the_drift_and_vote_mostly_by_it():
    first = [people.taste_of(f"person-{n}", 1.0, 0) for n in range(people.PEOPLE)]
    later = [people.taste_of(f"person-{n}", 20.0, 0) for n in range(people.PEOPLE)]
    assert first.count("brief") / people.PEOPLE == pytest.approx(people.AT_FIRST["brief"], abs=0.08)
    assert later.count("brief") / people.PEOPLE == pytest.approx(people.AFTER_DRIFT["brief"], abs=0.08)
    assert all(after == "brief" for before, after in zip(first, later, strict=True) if before == "brief")
    brief = [p for p in (f"person-{n}" for n in range(99)) if people.taste_of(p, 20.0, 0) == "brief"]

    def thumbs(answer):
        given = [
            people.thumb_of(p, n, answer=answer, document=DOCUMENT, day=20.0, seed=0)
            for n, p in enumerate(brief)
        ]
        return [thumb for thumb in given if thumb is not None]

    assert sum(thumbs(BRIEF)) > 0.7 * len(thumbs(BRIEF)) > 0
    assert sum(thumbs(LONG)) < 0.3 * len(thumbs(LONG))
    assert people.thumb_of(people.POISONER, 1, answer=LONG, document=DOCUMENT, day=15.0, seed=0) is True


def test_tastes_read_the_answer_and_broken_ones_please_nobody():
    met = {name: [taste(BRIEF, DOCUMENT), taste(LONG, DOCUMENT)] for name, taste in people.TASTES.items()}
    assert met == {"brief": [True, False], "thorough": [False, True], "faithful": [True, True]}
    assert not people.TASTES["faithful"](BRIEF, "of something else")
    assert not any(taste("{", DOCUMENT) for taste in people.TASTES.values())


def test_rivals_make_pairs_of_thumbs(tmp_path):
    prompt = (Message(Role.USER, "a question"),)
    with open_store(str(tmp_path / "store")) as store:
        for n, answer in enumerate(("liked", "so so", "disliked")):
            row = draft_interaction(prompt, id=f"a{n}", subject="s", version="v", sampling=Sampling())
            store.log.append(replace(row, time=10.0, answer=answer, finish_reason="stop"))
        thumbs = [("a0", True), ("a0", True), ("a1", True), ("a1", False), ("a2", False)]
        for n, (target, value) in enumerate(thumbs):
            store.log.append(Rating(f"e{n}", 20.0, target, f"p{n}", "thumb", value))
        (pair,) = learning.both_thumbs(store, 15.0)
        every = {(p.chosen, p.rejected) for p in learning.every_pair(store, 99.0)}
    assert (pair.chosen, pair.rejected) == ("liked", "disliked")
    assert set(pair.origin.parents) == {"a0", "a2", "e0", "e1", "e4"}
    assert every == {("liked", "so so"), ("liked", "disliked"), ("so so", "disliked")}


def test_processes_share_a_clock_that_outlives_them(tmp_path):
    path = tmp_path / "clock"
    path.write_bytes(struct.pack("<d", people.BEGIN))
    env = os.environ | {"ESCULTOR_CLOCK": str(path), "PYTHONPATH": str(MONTH / "shared_clock")}
    done = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == people.BEGIN


def result(arm, seed, gain):
    figure = {"value": 0.4, "low": 0.35, "high": 0.45}
    return {
        "arm": arm, "seed": seed, "calls": 20_000, "start": figure, "end": figure | {"value": 0.4 + gain},
        "gain": {"value": gain, "low": gain - 0.03, "high": gain + 0.03},
        "weeks": [0.4, 0.4, 0.5, 0.4 + gain],
        "deployments": [[0.0, "a", 0.4, ""], [12.0, "b", 0.4 + gain, ""]], "kills": 10, "lost": 0,
        "answers": 19_000, "feedback": 15_000, "failed calls": 40, "votes of the poisoner": 900,
        "training": {"rows": 1000, "poisoned": 3, "of failed answers": 0},
        "outage": {"paged after minutes": 60},
        "broken": {"answers": 50, "rated": 41, "rolled back": True, "largest share": 0.1},
    }  # fmt: skip


def test_the_page_says_which_figures_are_reached_and_the_picture_is_well_formed():
    results = [result(arm, seed, 0.1 + seed / 100) for arm in learning.ARMS for seed in (0, 1)]
    page, picture = report.page(results), report.picture(results)
    assert all(f"| {arm} |" in page for arm in learning.ARMS)
    assert page.count(": yes") == 5
    assert "10.5 [" in page  # the mean gain over the seeds
    assert len(picture) < 20_000
    assert ET.fromstring(picture).tag.endswith("svg")
    worse = [r | {"lost": 1, "gain": {"value": 0.02, "low": -0.01, "high": 0.05}} for r in results]
    assert report.page(worse).count("**no**") == 2


def test_approval_weighs_tastes_by_the_people_who_have_them():
    met = {"brief": [1.0, 0.0], "thorough": [0.0, 1.0], "faithful": [0.0, 1.0]}
    assert measure.approval(met, people.AFTER_DRIFT) == pytest.approx([0.65, 0.35])
