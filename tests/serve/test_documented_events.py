"""The example events in docs/feedback.md are accepted, and there is one of each kind."""

import json
import re
from pathlib import Path

from escultor.config import FeedbackIntake
from escultor.serve.intake.forms import KINDS
from escultor.serve.intake.parse import IMPLICIT_EVENTS, FeedbackAuthor, parse
from escultor.types import SourceKind

DOCUMENT = (Path(__file__).parents[2] / "docs" / "feedback.md").read_text()


def test_the_documented_events_are_accepted():
    (block,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    shown = [json.loads(line) for line in block.splitlines()]
    for body in shown:
        said = parse(body, FeedbackAuthor("s", str), FeedbackIntake(), 1000.0)
        assert said.not_kept == ()
    assert {body.get("kind") for body in shown} == {None, *KINDS}


def test_the_documented_names_are_all_there_are():
    said = " ".join(DOCUMENT.split())
    names = re.search(r"Implicit names are (.*?)\. ", said)
    assert names
    assert re.split(r", | and ", names[1]) == list(IMPLICIT_EVENTS)
    assert all(f"`{kind}`" in said or f'"{kind}"' in said for kind in SourceKind)
