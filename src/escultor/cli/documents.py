"""The options of commands that ask a model about documents, and the model that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from escultor.cli import lookup
from escultor.cli.output import Shell
from escultor.skills.skill import Skill

if TYPE_CHECKING:
    from escultor.cycle.document_answers import Answerer


@dataclass(frozen=True)
class DocumentOptions:
    """Which model reads, and how much of a document at a time."""

    model: Annotated[str, Option(help=f"{lookup.MODEL_HELP} With --url the name on that server.")] = (
        "champion"
    )
    url: Annotated[str | None, Option(help="OpenAI-compatible server of the model; ends in /v1.")] = None
    key_env: lookup.KeyEnvOption = lookup.KEY_ENV
    context_tokens: Annotated[
        int, Option(min=0, help="Tokens of prompt and answer; default: the model's, behind a server 4096.")
    ] = 0

    def answerer(self, shell: Shell, skill: Skill, schema: Mapping[str, Any]) -> Answerer:
        """The model, held to a schema. Its weights are loaded."""
        from escultor.cycle.document_answers import LocalAnswerer, ServedAnswerer
        from escultor.evaluate.served_model import Endpoint, served_model
        from escultor.store.blobs import tree_hash

        if self.url is not None:
            served = served_model(Endpoint(self.url, os.environ.get(self.key_env)), self.model)
            return ServedAnswerer(served, skill, schema, self.context_tokens)
        folder = lookup.find_model(shell, self.model)
        return LocalAnswerer(lookup.load_model(folder), tree_hash(folder), skill, schema, self.context_tokens)
