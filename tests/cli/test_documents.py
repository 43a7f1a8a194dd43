"""What the documents tell a reader to type is there: every command parses, every make target exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from escultor.cli.app import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# An indented line, a line of a fenced block, or words between backticks.
SAID = re.compile(r"(^ {4,}(?:\$ )?|^```\w*\n|`)(escultor|make) ([^`\n]*)", re.MULTILINE)
# Words that stand for something: what a reader puts in their place.
LEFT_OUT = {"…": [], "...": []}


def said() -> list[tuple[str, str]]:
    """(document, command line) of all that a document would have one type."""
    found = []
    for path in DOCUMENTS:
        for before, program, rest in SAID.findall(path.read_text()):
            words = rest.split("  #")[0].split(" # ")[0].strip()
            # Words in running text name an option; only a line of its own is meant to be typed as it is.
            found.append((str(path.relative_to(ROOT)), f"{program} {words}{' …' if before == '`' else ''}"))
    return sorted(set(found))


def commands(program: str) -> list[tuple[str, str]]:
    return [(name, line) for name, line in said() if line.startswith(program)]


@pytest.mark.parametrize(("document", "line"), commands("escultor"))
def test_every_command_that_a_document_shows_is_one(document, line):
    words = [word for word in shlex.split(line)[1:] if word not in LEFT_OUT]
    command = typer.main.get_command(app)
    group = None
    while words and hasattr(command, "get_command"):
        group = typer.Context(command, info_name="escultor", parent=group)
        _, command, words = command.resolve_command(group, words)
        assert command is not None, f"{document}: {line}"
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{document}: {line}: no option {word}"
    if "…" not in line and any(p.required for p in command.params) and words:
        command.make_context("escultor", words, parent=group)


@pytest.mark.parametrize(("document", "line"), commands("make"))
def test_every_target_that_a_document_shows_is_one(document, line):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in line.split()[1:]:
        if "=" not in word and word != "…":
            assert word.strip(".,;:") in targets, f"{document}: {line}"


def test_the_check_reads_what_is_there():
    assert ("README.md", "escultor rollback") in said()
    assert len(commands("make")) >= 4
