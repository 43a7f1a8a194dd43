"""A skill: what a model is for. Its prompt, its output, what is measured, what a promotion rests on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from escultor.config import Gate
from escultor.config.evaluation import Limit
from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.skills.schema import schema_valid
from escultor.skills.table import METRICS, Metric
from escultor.types import Message, Messages, Role, Sampling

INSTRUCTION = "instruction"  # in a template: where the instruction stands, instead of a system message
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
OutputKind = Literal["text", "json", "files"]


@dataclass(frozen=True, slots=True)
class Output:
    """The form of a skill's answers: text, JSON by a schema (None: any), or files: a JSON object that `write`
    (answer, prompt, folder) turns into files, whose paths it returns."""

    kind: OutputKind = "text"
    schema: dict[str, Any] | None = None
    write: Callable[[str, Messages, Path], list[Path]] | None = None

    def accepts(self, answer: str) -> bool:
        """Whether an answer has this form."""
        return self.kind == "text" or bool(schema_valid(answer, self.schema or {}))


@dataclass(frozen=True, slots=True)
class Skill:
    """What a model is for, as one declaration says it (see `escultor.skills.declaration`).

    metrics: what its suites measure, in order. own_metrics: those of them that the declaration itself
    defines, and `definitions`, what each is defined by. primary, guards, vetoes: the gate's policy, where the
    configuration names none. suite: the file or rows of its held-out items, or MODULE:FUNCTION that makes the
    suite. examples: a file of a few examples. folder: what its paths are relative to.
    """

    name: str
    about: str = ""
    instruction: str = ""
    inputs: tuple[str, ...] = ("input",)
    template: str = "{input}"
    output: Output = field(default_factory=Output)
    metrics: tuple[str, ...] = ()
    own_metrics: Mapping[str, Metric] = field(default_factory=dict)
    definitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    primary: tuple[str, ...] = ()
    guards: Mapping[str, float] = field(default_factory=dict)
    vetoes: Mapping[str, Limit] = field(default_factory=dict)
    rubric: str = ""
    decoding: Sampling = field(default_factory=Sampling)
    suite: Path | tuple[Any, ...] | str | None = None
    examples: Path | tuple[Any, ...] | None = None
    folder: Path = Path()
    source: str = "built in"

    @property
    def prompt_version(self) -> str:
        """The hash of all that makes its prompts: instruction, inputs and template."""
        return hash_value([self.instruction, list(self.inputs), self.template])

    def metric(self, name: str) -> Metric | None:
        """The metric that this skill means by a name; None where there is none."""
        return self.own_metrics.get(name) or METRICS.get(name)

    def prompt(self, inputs: str | Mapping[str, str]) -> Messages:
        """The messages that ask for an answer, the same in serving, training and evaluation. A text is the
        only input of a skill that has one. Raises InputError unless every input is given, and no other."""
        given = {self.inputs[0]: inputs} if isinstance(inputs, str) and len(self.inputs) == 1 else inputs
        if isinstance(given, str) or set(given) != set(self.inputs):
            got = "a text" if isinstance(given, str) else ", ".join(sorted(given)) or "none"
            allowed = ", ".join(self.inputs)
            raise InputError(f"the inputs are not those of the skill `{self.name}`", got, allowed)
        values = {**given, INSTRUCTION: self.instruction}
        # One pass: braces in an input are its own.
        user = Message(Role.USER, _FIELD.sub(lambda m: values.get(m[1], m[0]), self.template))
        return (Message(Role.SYSTEM, self.instruction), user) if self.has_system_message else (user,)

    @property
    def has_system_message(self) -> bool:
        """Whether the instruction is a system message, and not a part of the user's message."""
        return bool(self.instruction) and f"{{{INSTRUCTION}}}" not in self.template

    def policy(self, gate: Gate) -> Gate:
        """The gate's policy for this skill: what the configuration sets, completed by the declaration."""
        given = gate.model_fields_set
        primary = gate.primary if "primary" in given else self.primary
        guards = {name: margin for name, margin in self.guards.items() if name not in primary}
        own = {"primary": primary, "guards": guards, "vetoes": dict(self.vetoes)}
        return gate.model_copy(update={key: value for key, value in own.items() if key not in given})

    def as_json(self) -> dict[str, Any]:
        """The declaration, complete, as JSON values."""
        return {
            "name": self.name,
            "about": self.about,
            "source": self.source,
            "instruction": self.instruction,
            "inputs": list(self.inputs),
            "prompt": self.template,
            "output": self.output.kind,
            "schema": self.output.schema,
            "metrics": [dict(self.definitions.get(name, {"name": name})) for name in self.metrics],
            "primary": list(self.primary),
            "guards": dict(self.guards),
            "vetoes": {name: limit.model_dump(exclude_none=True) for name, limit in self.vetoes.items()},
            "rubric": self.rubric,
            "decoding": {k: getattr(self.decoding, k) for k in ("temperature", "top_p", "max_new_tokens")},
            "suite": _shown(self.suite),
            "examples": _shown(self.examples),
        }


def _shown(source: Any) -> Any:
    """Where rows come from, as text, or how many stand in the declaration itself."""
    return f"{len(source)} in the declaration" if isinstance(source, tuple) else source and str(source)


def fields_of(template: str) -> set[str]:
    """The names in braces of a template."""
    return set(_FIELD.findall(template))


def schema_text(schema: Mapping[str, Any] | None) -> str | None:
    """A schema as a suite records it."""
    return None if schema is None else json.dumps(schema, sort_keys=True, ensure_ascii=False)
