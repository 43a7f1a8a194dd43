"""The site of the documentation: every page is in its navigation, every module of the reference exists."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def pages(nav) -> list[str]:
    """The files that a navigation names, at any depth."""
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in pages(entry)]


def test_every_page_is_in_the_navigation_once():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    files = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(pages(nav)) == sorted(files)


def test_every_module_of_the_reference_is_there():
    names = [
        name
        for path in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^::: ([\w.]+)$", path.read_text(), re.MULTILINE)
    ]
    assert len(names) >= 9
    for name in names:
        path = ROOT / "src" / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name
