"""The command as a whole: help, exit codes, errors in words, one JSON line."""

import subprocess
import sys
from pathlib import Path

import pytest

from escultor.cli import models, output
from escultor.cli.app import COMMANDS, GROUPS, SHARED_FILES, CommandGroup, function_of
from escultor.errors import FaultError, InputError


def test_help_shows_every_verb_and_loads_nothing_heavy():
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from escultor.cli.app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "heavy = {'torch', 'transformers', 'sqlalchemy', 'pydantic', 'numpy', 'scipy'} & set(sys.modules)\n"
        "print(result.stdout, result.stderr, 'HEAVY', sorted(heavy), result.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY [] 0" in done.stdout, done.stdout
    for verb in COMMANDS:
        assert f"│ {verb.split()[0]} " in done.stdout


def test_the_installed_command_leaves_with_2_on_wrong_input(tmp_path):
    command = Path(sys.executable).with_name("escultor")
    words = ["data", "check", "nothing.jsonl", "--json"]
    done = subprocess.run([command, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing.jsonl is no file")
    assert done.stdout.startswith('{"error": {"what": "nothing.jsonl is no file"')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help_of_one_sentence_and_the_common_options(cli, verb):
    shown = cli(*verb.split(), "--help")
    assert shown.code == 0
    assert "--json" in shown.out


def test_every_group_has_help():
    firsts = {verb.split()[0] for verb in COMMANDS if " " in verb}
    assert firsts - set(COMMANDS) == set(GROUPS)


def test_version(cli):
    import escultor

    assert cli("--version").out.strip() == escultor.__version__


@pytest.mark.parametrize("words", [("sculpt",), ("models", "--no-such-option"), ("generate",), ("data",)])
def test_wrong_usage_is_2_and_says_where_help_is(cli, words):
    call = cli(*words)
    assert (call.code, call.out) == (2, "")
    assert "--help" in call.err


def test_a_near_verb_is_suggested(cli):
    assert "'promote'" in cli("promot").err


ERRORS = [
    (InputError("it is wrong", "this", "that", "mend it"), 2, "it is wrong", "mend it"),
    (FaultError("it broke"), 1, "it broke", None),
    (ZeroDivisionError("by\nzero"), 1, "unexpected ZeroDivisionError: by zero", "--debug shows where"),
    (KeyboardInterrupt(), 130, "interrupted", "continues"),
]


@pytest.mark.parametrize(("error", "code", "what", "remedy"), ERRORS)
def test_errors_are_said_in_words_without_a_traceback(cli, monkeypatch, error, code, what, remedy):
    def fail(*_):
        raise error

    monkeypatch.setattr(output.Shell, "config", property(fail))
    call = cli("models", "--json")
    assert call.code == code
    assert call.data["error"]["what"] == what
    assert remedy is None or remedy in call.data["error"]["remedy"]
    assert call.err.startswith(f"error: {what}")
    assert "Traceback" not in call.err
    assert "Traceback" in cli("models", "--debug").err or code == 130


def test_with_json_all_other_words_go_to_stderr(cli, monkeypatch):
    def chatty(shell: output.Shell):
        sys.stdout.write("a library prints\n")
        shell.print("and so do we")
        return output.CommandResult({"nan": float("nan"), "path": Path("x"), "text": "ação"})

    monkeypatch.setattr(models, "list_", chatty)
    call = cli("models", "--json")
    assert call.data == {"nan": None, "path": "x", "text": "ação"}
    assert "a library prints" in call.err
    assert "and so do we" in call.err


def test_a_reader_that_has_gone_is_no_reason_to_complain(cli, monkeypatch):
    def gone(shell: output.Shell):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(models, "list_", gone)
    call = cli("models")
    assert (call.code, call.err) == (1, "")


def test_control_characters_reach_no_terminal():
    assert output.printable("a\x1b[2Jb\n\tç\x9b") == "a\ufffd[2Jb\n\tç\ufffd"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_file_of_a_command_follows_from_its_words(command):
    *group, word = command.split()
    name = word if word not in ("import", "list", "hash") else f"{word}_"  # names that Python uses itself
    files = [shared for shared, commands in SHARED_FILES.items() if command in commands]
    file = files[0] if files else f"data.{name}" if group == ["data"] else (group or [name])[0]
    function = function_of(command)
    assert (function.__module__, function.__name__) == (f"escultor.cli.{file}", name)


def test_commands_that_share_a_file_are_commands():
    assert {command for commands in SHARED_FILES.values() for command in commands} <= set(COMMANDS)


def test_the_commands_keep_the_order_of_the_table():
    assert CommandGroup(name="x").list_commands(None)[:3] == ["init", "doctor", "demo"]
