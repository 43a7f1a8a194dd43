"""The sides of a comparison: what a name means, and the scores of it on a suite."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from escultor.cli import lookup
from escultor.errors import InputError
from escultor.types import Scores

if TYPE_CHECKING:
    from escultor.cli.output import Shell
    from escultor.config import Config
    from escultor.evaluate.served_model import ServedModel
    from escultor.skills.suites import EvaluationSuite
    from escultor.store import Store

ROLES = ("champion", "candidate")


@dataclass(frozen=True)
class SideOptions:
    """The options with what models are asked by."""

    champion_instruction: Annotated[
        Path | None, Option(help="File with a system message for the champion, in place of each item's.")
    ] = None
    candidate_instruction: Annotated[
        Path | None, Option(help="The same for the candidate: one model under two instructions compares.")
    ] = None
    key_env: lookup.KeyEnvOption = lookup.KEY_ENV

    def instructions(self) -> tuple[str, str]:
        """The instruction of each side; empty: as the items have it."""
        champion, candidate = map(_read, (self.champion_instruction, self.candidate_instruction))
        return champion, candidate


@dataclass(frozen=True)
class Side:
    """Recorded scores, a model folder, a GGUF file or a model behind a server; with its instruction."""

    name: str
    source: Scores | Path | ServedModel
    instruction: str = ""

    @property
    def answers_only(self) -> bool:
        """Whether a server answers for it, so that nothing but answers can be measured."""
        return not isinstance(self.source, Scores) and not self.is_folder

    @property
    def is_folder(self) -> bool:
        return isinstance(self.source, Path) and self.source.is_dir()

    def scores(self, shell: Shell, store: Store, suite: EvaluationSuite | None, config: Config) -> Scores:
        """The side's scores: given, recorded on the suite, or measured now and then recorded."""
        from escultor.cli.evaluate import recorded_scores

        if isinstance(self.source, Scores):
            return self.source
        assert suite is not None
        return recorded_scores(
            shell, store, self.source, replace(suite, instruction=self.instruction), config
        )

    def identity(self) -> dict[str, str]:
        """What a verdict on it names, without its role."""
        from escultor.ids import hash_file
        from escultor.skills.suites import under_instruction
        from escultor.store.blobs import tree_hash

        if isinstance(self.source, Scores):
            return {"_scores": self.source.id}
        if isinstance(self.source, Path):
            checkpoint = tree_hash(self.source) if self.is_folder else hash_file(self.source)
        else:
            checkpoint = self.source.name
        return {"": under_instruction(checkpoint, self.instruction)}


def find_sides(
    shell: Shell, names: Sequence[str], options: SideOptions, scores: Mapping[str, Scores]
) -> list[Side]:
    """Champion and candidate by their names, of which `scores` are known. Raises InputError for an
    instruction of recorded scores."""
    found = []
    for role, name, instruction in zip(ROLES, names, options.instructions(), strict=True):
        if name in scores and instruction:
            what = f"an instruction is for a model that is asked now, and the {role} is recorded scores"
            raise InputError(what, name, remedy=f"name a model, or leave --{role}-instruction out")
        source = scores[name] if name in scores else _find(shell, name, options.key_env)
        file = getattr(options, f"{role}_instruction")
        found.append(Side(f"{name} with {file}" if instruction else name, source, instruction))
    return found


def _find(shell: Shell, name: str, key_env: str) -> Path | ServedModel:
    if not is_url(name):
        return lookup.find_gguf(name) or lookup.checked_model(shell, name)
    from escultor.evaluate.served_model import Endpoint, served_model

    url, _, model = name.partition("#")
    return served_model(Endpoint(url, os.environ.get(key_env)), model or None)


def is_url(name: str) -> bool:
    """Whether a side is a model behind a server: `URL#MODEL`."""
    return name.startswith(("http://", "https://"))


def _read(file: Path | None) -> str:
    if file is None:
        return ""
    text = lookup.require_file(file).read_text(encoding="utf-8", errors="replace").strip()
    if not text:
        raise InputError(f"{file} holds no instruction", "white space alone", remedy="leave the option out")
    return text
