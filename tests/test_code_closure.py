"""Results are keyed by the code that decides them: what is in a closure, and which edits change its hash."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from escultor import code_closure
from escultor.code_closure import closure, code_version

FILES = {
    "__init__.py": "",
    "ids.py": "",  # replaced by the real one
    "code_closure.py": "",
    "objectives.py": '"""Losses."""\n\n\ndef nll(x):\n    """Mean."""\n    return x  # nats\n',
    "preferences.py": "from escultor.objectives import nll\n\n\ndef dpo(x):\n    return nll(x) + 1\n",
    "other.py": "VALUE = 1\n",
    "rows/__init__.py": "from escultor.rows.a import one\nfrom escultor.rows.b import two\n",
    "rows/a.py": "def one():\n    return 1\n",
    "rows/b.py": "def two():\n    return 2\n",
    "run.py": (
        "from typing import TYPE_CHECKING\n\nfrom escultor.rows import one\n\n"
        "if TYPE_CHECKING:\n    from escultor.other import VALUE\n\n\n"
        "def run():\n    from escultor.objectives import nll\n    return nll(one())\n"
    ),
    "settings.py": "def field(value, description):\n    return value\n\n\nRATE = field(1, description='a')\n",
}


@pytest.fixture
def package(tmp_path) -> Callable[..., str]:
    """A small package of the same name; the call edits files and returns what a fresh process says."""
    root = tmp_path / "escultor"
    real = Path(code_closure.__file__).parent
    texts = FILES | {name: (real / name).read_text() for name in ("ids.py", "code_closure.py")}
    for name, text in texts.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)

    def version(*entries: str, edit: dict[str, tuple[str, str]] | None = None, without: str = "") -> str:
        for name, (old, new) in (edit or {}).items():
            assert old in (root / name).read_text()
            (root / name).write_text((root / name).read_text().replace(old, new))
        code = (
            f"from escultor.code_closure import *; print(code_version(*{entries}, without={without.split()}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, text=True
        )
        return done.stdout.strip()

    return version


RUN = "escultor.run"


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        ({"objectives.py": ("return x", "return -x")}, True),  # imported when it is called
        ({"rows/a.py": ("return 1", "return 3")}, True),  # defined behind a package that passes it on
        ({"rows/b.py": ("return 2", "return 3")}, False),  # passed on by the same package, not used
        ({"other.py": ("VALUE = 1", "VALUE = 2")}, False),  # for type checkers alone
        ({"preferences.py": ("+ 1", "+ 2")}, False),
        ({"objectives.py": ('"""Mean."""', '"""The mean."""')}, False),
        ({"objectives.py": ("# nats", "# in nats")}, False),
        ({"run.py": ("def run():\n", "def run():\n\n")}, False),
    ],
)
def test_a_hash_changes_with_the_code_it_stands_for_and_with_nothing_else(package, edit, changes):
    before = package(RUN)
    assert (package(RUN, edit=edit) != before) is changes


def test_texts_that_only_people_read_change_nothing(package):
    before = package("escultor.settings")
    assert package("escultor.settings", edit={"settings.py": ("='a'", "='what it is'")}) == before
    assert package("escultor.settings", edit={"settings.py": ("field(1", "field(2")}) != before


def test_a_closure_ends_where_it_is_told_to(package):
    before = package("escultor.preferences", without="escultor.objectives")
    edit = {"objectives.py": ("return x", "return -x")}
    assert package("escultor.preferences", edit=edit, without="escultor.objectives") == before


def test_functions_stand_for_their_files_in_the_package_or_out_of_it():
    assert closure(code_version) == closure("escultor.code_closure") == ("code_closure.py", "ids.py")
    assert Path(__file__).name in closure(test_a_closure_ends_where_it_is_told_to)


def test_training_holds_no_serving_and_evaluation_no_command_line():
    train, evaluation = closure("escultor.train.runs"), closure("escultor.evaluate.scoring")
    assert "train/loop.py" in train
    assert "model/decoding.py" in evaluation
    for files in (train, evaluation):
        assert not [
            name for name in files if name.split("/")[0] in ("serve", "cli", "cycle", "demo", "monitor")
        ]


def test_an_unknown_module_is_refused():
    with pytest.raises(ValueError, match="no file of the package"):
        code_version("escultor.nowhere")
