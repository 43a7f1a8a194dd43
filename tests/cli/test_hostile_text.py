"""Texts of others on a terminal: no command lets their escapes, markup or turns of direction act."""

import json
import sys
from pathlib import Path

import pytest
from typer import testing

from escultor.cli.doctor import CheckResult, _show
from escultor.cli.output import Shell
from escultor.cli.progress import LiveProgress

ESCAPES = ("\x1b]0;title", "\x9b31m", "\u202e", "\u2066", "\x07", "\x00")
HOSTILE = f"a [red]b[/red] [/] [link=x]c {'d '.join(ESCAPES[:-1])}"
SKILL = {
    "name": "mine",
    "about": HOSTILE,
    "instruction": HOSTILE,
    "output": "text",
    "metrics": ["exact_match"],
}
ROWS = [{"prompt": f"{HOSTILE} {i}", "response": f"{HOSTILE} {i * 7}"} for i in range(12)]
NAME = "a[red]b\x1b]0;title\u202e.jsonl"

COMMANDS = (
    ("skills", "list", "--set", "skills=[mine.yaml]"),
    ("skills", "show", "mine.yaml"),
    ("data", "check", "example", NAME),
    ("data", "preview", NAME, "--model", "MODEL", "--method", "sft"),
    ("data", "import", NAME),
    ("data", "list"),
    ("data", "card", NAME),
    ("data", "review", "rows"),
    ("promote", "MODEL", "--because", HOSTILE),
    ("models", "list"),
    ("lineage", "champion"),
    ("generate", "MODEL", HOSTILE, "--max-new-tokens", "3"),
    ("generate", HOSTILE, "text"),
    ("subjects", "hash", HOSTILE),
    ("subjects", "erase", HOSTILE, "--yes"),
    ("keys", "create", HOSTILE),
    ("evaluate", HOSTILE),
    ("compare", HOSTILE, HOSTILE),
    (HOSTILE,),
)


@pytest.fixture
def on_terminal(monkeypatch):
    """The captured streams of a command say that they are a terminal."""
    monkeypatch.setattr(testing._NamedTextIOWrapper, "isatty", lambda self: True, raising=False)


def harmless(text: str) -> bool:
    return not any(escape in text for escape in ESCAPES)


def test_no_command_lets_a_text_act_on_the_terminal(cli, model, tmp_path, on_terminal):
    Path(NAME).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("mine.yaml").write_text(json.dumps(SKILL))
    shown = 0
    for words in COMMANDS:
        call = cli(*(model if word == "MODEL" else word for word in words), input="q\n")
        assert harmless(call.out), words
        assert harmless(call.err), words
        assert "Traceback" not in call.err, words
        shown += "[red]" in call.out + call.err
    assert shown > 8


def test_tables_progress_and_checks_show_texts_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    shell = Shell()
    shell.table([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], title=HOSTILE)
    shell.print(HOSTILE)
    _show(shell, "a", CheckResult("fail", HOSTILE, HOSTILE))
    with LiveProgress() as progress:
        progress.note(HOSTILE)
    captured = capsys.readouterr()
    assert harmless(captured.out + captured.err)
    assert captured.out.count("[/red]") >= 6
    assert "[/red]" in captured.err
