import json
import os
import sys
from pathlib import Path

import pytest

from escultor.demo import python_docs
from escultor.demo.python_docs import DocEntry, mine, package_roots
from escultor.errors import DataError

MODULE = '''"""A module that must never run.

Importing it would leave a mark."""
import pathlib
pathlib.Path(__file__).with_name("MARK").touch()
raise SystemExit("imported")


class Box:
    """Hold one thing at a time.

    A box is opened with :meth:`open` and closed again.
    """

    def open(self, key: str = "k", *rest, deep=None, **more) -> None:
        """Open the box with a key and look inside."""

    @classmethod
    async def later(cls):
        """Open the box at some later time, perhaps."""

    def bare(self):
        pass


def short():
    """Too short."""


def outer(a, /, b, *, c=1):
    """Say what the outer function says to all.

    Twice over."""

    def inner():
        """Never seen, for it is local to outer."""
'''


def plant(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


@pytest.fixture
def tree(tmp_path):
    """Two packages and a module, as they would be installed."""
    return plant(
        tmp_path / "site",
        {
            "alpha/__init__.py": MODULE,
            "alpha/deep/__init__.py": '"""A deep package with a long docstring."""\n',
            "alpha/deep/other.py": 'def f(x=(1, 2)):\n    """Return x as it was given to f."""\n',
            "alpha/tests/test_it.py": '"""A docstring of a test is left out."""',
            "alpha/test_more.py": '"""A docstring of a test is left out too."""',
            "alpha/.hidden/x.py": '"""A docstring of a hidden folder."""',
            "beta/__init__.py": '"""A second package with its own words."""',
            "beta/again.py": 'def f():\n    """Return x as  it was\n    given to f."""\n',
            "gamma.py": '"""A module that stands alone in its file."""',
        },
    )


def roots(tree):
    names = ("alpha", "beta", "gamma.py")
    return [(name.removesuffix(".py"), tree / name) for name in names]


def names(entries):
    return [entry.name for entry in entries]


# --- what is found ----------------------------------------------------------------------------


def test_documentation_is_found_by_qualified_name_and_nothing_is_imported(tree):
    before = set(sys.modules)
    entries = mine(roots=roots(tree), workers=1)
    assert names(entries) == [
        "alpha",
        "alpha.Box",
        "alpha.Box.open",
        "alpha.Box.later",
        "alpha.outer",
        "alpha.deep",
        "alpha.deep.other.f",
        "beta",
        "gamma",
    ]
    assert not (tree / "alpha" / "MARK").exists()
    assert not {"alpha", "beta", "gamma"} & (set(sys.modules) - before)


def test_an_entry_says_kind_signature_summary_and_body(tree):
    found = {entry.name: entry for entry in mine(roots=roots(tree), workers=1)}
    assert found["alpha.Box"] == DocEntry(
        "alpha",
        "alpha.Box",
        "class",
        "alpha.Box",
        "Hold one thing at a time.\n\nA box is opened with :meth:`open` and closed again.",
    )
    assert found["alpha.Box"].summary == "Hold one thing at a time."
    assert found["alpha.Box"].body == "A box is opened with :meth:`open` and closed again."
    assert found["alpha.Box.open"].signature == "alpha.Box.open(key='k', *rest, deep=None, **more)"
    assert found["alpha.Box.later"].signature == "alpha.Box.later()"
    assert found["alpha.outer"].signature == "alpha.outer(a, /, b, *, c=1)"
    assert found["alpha.deep.other.f"].signature == "alpha.deep.other.f(x=(1, 2))"
    assert [found[name].kind for name in ("alpha", "alpha.outer")] == ["module", "function"]


def test_a_repeated_docstring_is_kept_once_under_its_first_name(tree):
    assert "beta.again.f" not in names(mine(roots=roots(tree), workers=1))
    turned = names(mine(roots=roots(tree)[::-1], workers=1))
    assert "beta.again.f" in turned
    assert "alpha.deep.other.f" not in turned


def test_one_and_two_workers_find_the_same(tree, tmp_path):
    one = mine(roots=roots(tree), workers=1)
    assert mine(roots=roots(tree), workers=2) == one
    assert mine(tmp_path / "cache", roots(tree), workers=2) == one


@pytest.mark.parametrize("content", [
    b"def broken(:\n    '''A docstring in a file with a syntax error.'''",
    b"{{ template }}\n'''A docstring in a template of a file.'''",
    b"# coding: no-such-encoding\n'''A docstring in an unknown encoding.'''",
    b"'''A docstring with bytes that are no UTF-8: \xff\xfe.'''",
    '"""A docstring in UTF-16 is not read."""'.encode("utf-16"),
    b"'''A docstring with a null \x00 byte in it.'''",
    b"'''A docstring with an escaped null \\x00 byte.'''",
    b"'''A docstring with a lone surrogate \\ud800 in it.'''",
    b"'''A docstring in a deep file.'''\nx = " + b"-" * 50_000 + b"1",
    b"'''A docstring in another deep file.'''\nx = " + b"(" * 5000 + b")" * 5000,
    b"'''A docstring in a huge file.'''\n" + b"#" * python_docs.MAX_FILE_BYTES,
    b"# no docstring at all",
    b"",
])  # fmt: skip
def test_files_that_cannot_be_read_as_python_are_skipped(tree, content):
    plant(tree, {"beta/odd.py": content})
    assert names(mine(roots=roots(tree)[1:2], workers=1)) == ["beta", "beta.again.f"]


def test_other_encodings_and_invalid_escapes_are_read(tree):
    latin = "# coding: latin-1\n'''Ein Wort mit Umlaut: schön und gut.'''".encode("latin-1")
    plant(tree, {"beta/latin.py": latin, "beta/odd.py": r"'''An invalid escape \d is no concern of ours.'''"})
    found = {entry.name: entry.doc for entry in mine(roots=roots(tree), workers=1)}
    assert found["beta.latin"] == "Ein Wort mit Umlaut: schön und gut."
    assert "beta.odd" in found


def test_links_to_nowhere_and_files_that_may_not_be_read_are_skipped(tree):
    (tree / "beta" / ".#lock.py").symlink_to("nobody@nowhere")
    (tree / "beta" / "gone.py").symlink_to(tree / "no such file")
    (tree / "beta" / "folder.py").mkdir()
    assert names(mine(roots=roots(tree)[1:2], workers=1)) == ["beta", "beta.again.f"]


def test_no_package_and_no_documentation_are_refused(tree):
    with pytest.raises(DataError, match="no documentation was found; got: 0 packages"):
        mine(roots=[])
    plant(tree, {"empty.py": ""})
    with pytest.raises(DataError, match="no documentation was found; got: 1 packages"):
        mine(roots=[("empty", tree / "empty.py")])


def test_the_roots_of_this_machine_are_packages_in_order():
    found = package_roots()
    assert [name for name, _ in found] == sorted(name for name, _ in found)
    assert {"json", "asyncio", "hypothesis"} <= {name for name, _ in found}
    assert not {"escultor", "test", "tests", "site-packages"} & {name for name, _ in found}


def test_the_standard_librarys_json_is_read_and_worth_reading():
    entries = mine(roots=[("json", Path(json.__file__).parent)], workers=1)
    assert "json.decoder.JSONDecoder" in names(entries)
    assert all(len(entry.doc) >= python_docs.MIN_CHARS for entry in entries)


# --- the cache --------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch):
    """The names of the files that were parsed."""
    seen = []
    original = python_docs._mine_file

    def counted(package, relative, data):
        seen.append(str(relative))
        return original(package, relative, data)

    monkeypatch.setattr(python_docs, "_mine_file", counted)
    return seen


def test_the_cache_is_used_again_and_only_what_changed_is_read(tree, tmp_path, parsed):
    cache = tmp_path / "cache"
    first = mine(cache, roots(tree), workers=1)
    assert len(parsed) == 6
    parsed.clear()
    assert mine(cache, roots(tree), workers=1) == first
    assert parsed == []
    plant(tree, {"beta/again.py": '"""A new docstring in place of the old."""'})
    changed = mine(cache, roots(tree), workers=1)
    assert sorted(parsed) == ["beta/__init__.py", "beta/again.py"]
    assert set(changed) - set(first) == {
        DocEntry("beta", "beta.again", "module", "beta.again", "A new docstring in place of the old.")
    }
    assert not list(cache.glob("*.tmp"))


def test_a_file_that_moved_is_found_under_its_new_name(tree, tmp_path):
    cache = tmp_path / "cache"
    mine(cache, roots(tree), workers=1)
    (tree / "alpha" / "deep").rename(tree / "alpha" / "newer")
    moved = names(mine(cache, roots(tree), workers=1))
    assert "alpha.newer.other.f" in moved
    assert "alpha.deep.other.f" not in moved


def test_a_change_of_rules_reads_everything_again(tree, tmp_path, parsed, monkeypatch):
    mine(tmp_path / "cache", roots(tree), workers=1)
    parsed.clear()
    monkeypatch.setattr(python_docs, "RULES", "python-docs/next")
    mine(tmp_path / "cache", roots(tree), workers=1)
    assert len(parsed) == 6


def test_a_damaged_cache_is_made_again(tree, tmp_path):
    cache = tmp_path / "cache"
    first = mine(cache, roots(tree), workers=1)
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    assert mine(cache, roots(tree), workers=1) == first
    assert mine(cache, roots(tree), workers=1) == first


def test_the_order_of_files_on_disk_does_not_matter(tree, monkeypatch):
    first = mine(roots=roots(tree), workers=1)
    walk = os.walk

    def backwards(*where):
        for folder, folders, names in walk(*where):
            folders.reverse()
            yield folder, folders, names[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert mine(roots=roots(tree), workers=1) == first
