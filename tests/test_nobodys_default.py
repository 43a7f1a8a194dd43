"""What the demonstration is about is nobody's default: a skill is a thing that a user brings."""

import re
from pathlib import Path

import pytest

from escultor.config import Config
from escultor.skills.trinity import METRICS

SOURCE = Path(__file__).parents[1] / "src" / "escultor"
# The skill, and the documentation of the installed packages that the demonstration reads.
NAMED = re.compile(
    r"trinity|\bcorpus\b|python_docs|PEP 257|installed documentation|documentation of the installed",
    re.IGNORECASE,
)
OWN = re.compile(r"^skills/trinity|^demo/|^assets/escultor-base/|^cli/trinity\.py$")
# A command of that name is no default: nothing runs it but its user.
COMMANDS = '*("trinity", "trinity accept", "synthesize"),'


def lines() -> list[str]:
    texts = [
        path
        for path in SOURCE.rglob("*")
        if path.suffix in (".py", ".yaml", ".yml", ".json", ".html", ".js", ".md")
    ]
    return [
        f"{path.relative_to(SOURCE).as_posix()}:{number}: {line.strip()}"
        for path in texts
        if not OWN.match(path.relative_to(SOURCE).as_posix())
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if NAMED.search(line) and not (path.name == "app.py" and line.strip() == COMMANDS)
    ]


def test_no_line_names_the_demonstrations_skill_or_its_documents():
    assert lines() == []


@pytest.mark.parametrize("section", ["gate", "canary", "monitor", "evaluation", "serve"])
def test_no_default_names_a_metric_of_the_demonstrations_skill(section):
    words = set(re.findall(r"[a-z_0-9]+", str(getattr(Config(), section).model_dump(mode="json"))))
    assert words & {*METRICS, "trinity", "bits_per_byte"} <= {"domain"}
