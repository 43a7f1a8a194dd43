"""What the documents name is there: the hops of docs/architecture.md, files, and sources of the package."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "escultor"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
WALKS = re.findall(r"^### (Where .*)\n((?:.|\n)*?)(?=^##)", ARCHITECTURE, re.MULTILINE)
HOP = re.compile(r"`([\w.]+)` \(`([\w/]+\.py)`\)")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# A path stands in a text as seen from the repository, from the package, or from a room named before it.
PLACES = (ROOT, SOURCE, ROOT / "bench", ROOT / "examples", ROOT / "tests")


@cache
def names_in(file: str) -> frozenset[str]:
    """The functions, classes, methods (`Class.method`) and constants of a file of the package."""
    names = set()
    for node in ast.parse((SOURCE / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            members = node.body if isinstance(node, ast.ClassDef) else []
            functions = [m for m in members if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)]
            names |= {f"{node.name}.{member.name}" for member in functions}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def test_there_are_four_walks():
    assert [title for title, _ in WALKS] == [
        "Where a thumb becomes a pair",
        "Where a step is taken",
        "Where the gate decides",
        "Where a deployment is read",
    ]


@pytest.mark.parametrize(("title", "text"), WALKS)
def test_every_hop_of_a_walk_is_in_the_file_it_names(title, text):
    lines = [line for line in text.splitlines() if re.match(r"\d+\. ", line)]
    assert len(lines) >= 8
    assert [line for line in lines if not HOP.search(line)] == []
    for name, file in HOP.findall(text):
        assert (SOURCE / file).is_file(), file
        assert name in names_in(file), f"{name} is not in {file}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    files = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|yml))`", text)
    rooms = [path.parent for path in SOURCE.rglob("__init__.py")]
    missing = []
    for name in files:
        places = PLACES if "/" in name else (*PLACES, *rooms)
        parts_of_rooms = rooms if name.count("/") == 1 else []
        if not any(
            (place / name).is_file() for place in (*places, *parts_of_rooms, ROOT / "tests" / "feedback")
        ):
            missing.append(name)
    written = {"escultor.yaml", "NAME.md", "verdict.md"}  # files that a command writes
    assert sorted(set(missing) - written) == []


def test_the_ladder_of_the_document_is_the_one_that_is_checked():
    from test_layers import LADDER

    table = ARCHITECTURE.split("## The ladder")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if re.match(r"\| \d", line)]
    rooms = re.findall(r"`(\w+)`", " ".join(rows))
    assert rooms == [room for step in LADDER for room in step if room not in ("web", "__main__")]
