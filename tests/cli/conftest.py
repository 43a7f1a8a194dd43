"""The command line in process, in an empty folder, with a tiny model and a tiny corpus."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner


@dataclass(frozen=True)
class Call:
    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The object of --json: the only line of stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Calls `escultor` with words; the folder is the test's own."""
    from escultor.cli.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words: object, input: str | bytes | None = None) -> Call:
        result = CliRunner().invoke(app, [str(word) for word in words], input=input, prog_name="escultor")
        return Call(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    from tiny import llama

    from escultor.model.folders import save

    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(llama(context=1024), folder)
    return folder


@pytest.fixture(scope="session")
def other_model(tmp_path_factory) -> Path:
    from tiny import llama

    from escultor.model.folders import save

    folder = tmp_path_factory.mktemp("models") / "other"
    save(llama(seed=1, context=1024), folder)
    return folder


@pytest.fixture
def corpus(monkeypatch):
    """Six golds on either side, in the place of the documentation of this machine."""
    from escultor.demo import corpus as room
    from escultor.demo.documentation import golds
    from escultor.demo.python_docs import DocEntry

    def entries(side: str) -> list[DocEntry]:
        body = "Takes two cats and gives back one dog. It runs fast, and it sleeps here and there. " * 2
        return [
            DocEntry(
                f"{side}{i}",
                f"{side}{i}.cats.cat{i}",
                "function",
                f"cat{i}(a, b)",
                f"Make the cat number {i} sing.\n\n{body}{i}",
            )
            for i in range(6)
        ]

    train, held_out = entries("seen"), entries("unseen")
    found = room.Corpus(
        tuple(train + held_out), tuple(golds(train)), tuple(golds(train[:1])), tuple(golds(held_out)), {}
    )
    monkeypatch.setattr(room, "read_corpus", lambda cache=None: found)
    return found
