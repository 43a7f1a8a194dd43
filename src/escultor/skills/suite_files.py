"""Evaluation suites in files, and those that skills declare. A suite is a YAML file:

    name: capitals
    metrics: [exact_match, f1]       # or with options: {numeric_answer: {tolerance: 0.01, decimal: ","}}
    skill: chat                      # default
    decoding: {max_new_tokens: 16, temperature: 0, top_p: 1, stop: ["\\n\\n"]}
    extract: 'Answer: (.*)'          # what metrics read: the last match (RE2), or its group
    seeds: [0]                       # with several, every item is answered once with each
    schema: {type: object}           # for schema_valid
    items: capitals.jsonl            # a file beside it, or the items themselves
    #  - {id: fr, prompt: "The capital of France?", reference: Paris, cluster: capitals}

An item has `id` and `prompt` (text or messages), and as the metrics need it `reference` (text or a list),
`choices` with `right` (the index of the right one), `pressed`, `refuse`, `document`, `tools` (OpenAI's
definitions; its `reference` is the right call as JSON, or a list of calls); optionally `cluster` (default:
its id), `labels`, the slices it belongs to, and `parents`, the entries of the log that it was drawn from.
A JSONL file is a suite too if its first line is such a header, without items.

The suite of a skill is its items alone: all else stands in the skill's declaration. An item has `input`, a
text or an object of the skill's inputs, in the place of `prompt`, and its `id` may be left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from escultor.config import Evaluation
from escultor.errors import DataError, InputError
from escultor.ids import hash_value
from escultor.skills.answer_parts import AnswerParts
from escultor.skills.catalog import skill_named
from escultor.skills.own_metrics import MetricDeclaration, build_metric, load_object
from escultor.skills.reward import prompt_key, read_reward
from escultor.skills.skill import Skill
from escultor.skills.suites import EvaluationSuite, make_suite, refuse
from escultor.strict_json import strict_loads
from escultor.strict_yaml import load_yaml
from escultor.types import Consent, Example, Message, Messages, Origin, Role, Sampling, SuiteItem


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _is_unicode(cls, data: Any) -> Any:
        json.dumps(data, ensure_ascii=False, default=str).encode()  # of half a character: a ValueError
        return data


class _MessageRow(_Strict):
    role: Annotated[Role, Field(strict=False)]
    content: str


class _ItemRow(_Strict):
    id: str = Field(min_length=1)
    prompt: str | list[_MessageRow] = Field(min_length=1)
    cluster: str | None = None
    reference: str | list[str] = Field(default_factory=list)
    choices: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    right: int | None = Field(default=None, ge=0)
    pressed: str | list[_MessageRow] = Field(default_factory=list)
    refuse: bool | None = None
    document: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    parents: list[str] = Field(default_factory=list)

    def to_record(self) -> SuiteItem:
        return SuiteItem(
            id=self.id,
            prompt=_messages(self.prompt),
            cluster=self.cluster or self.id,
            references=(self.reference,) if isinstance(self.reference, str) else tuple(self.reference),
            choices=tuple(self.choices),
            right=self.right,
            pressed=_messages(self.pressed),
            refuse=self.refuse,
            document=self.document,
            labels=dict(sorted(self.labels.items())),
            tools=json.dumps(self.tools, ensure_ascii=False) if self.tools else "",
            parents=tuple(self.parents),
        )


class _Decoding(_Strict):
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: list[str] = Field(default_factory=list)


class _SuiteFile(_Strict):
    name: str = Field(min_length=1, pattern=r"^[^:/\s][^:/]*$")
    metrics: list[str | dict[str, Any]] = Field(min_length=1)
    skill: str = "chat"
    decoding: _Decoding = _Decoding()
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    extract: str = ""
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    items: str | list[Any] = Field(default_factory=list)


def read_suite(path: Path, skills: Mapping[str, Skill] | None = None) -> EvaluationSuite:
    """The suite that a YAML or JSONL file describes; `skills` are those that it may be for, beside the
    package's.

    Raises DataError that names the file and everything wrong with it: what cannot be parsed, duplicate items
    or items without what a metric needs, unknown metrics and keys, numbers that are not finite.
    """
    header, *rows = (_json_lines(path) or [{}]) if path.suffix == ".jsonl" else [_yaml(path)]
    try:
        suite = _SuiteFile.model_validate(header)
    except ValidationError as error:
        refuse(f"{path} is no suite", _validation_problems(error, "the suite"))
    if isinstance(suite.items, str):
        rows = _json_lines(path.parent / suite.items)
    elif suite.items:
        rows = suite.items
    items, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            items.append(_ItemRow.model_validate(row).to_record())
        except ValidationError as error:
            problems += _validation_problems(error, f"item {number}")
    if problems:
        refuse(f"{path} has items that cannot be used", problems)
    decoding = Sampling(**suite.decoding.model_dump(exclude={"stop"}))
    skill, names = _with_metrics(path, suite, skills or {})
    parts = AnswerParts(tuple(suite.decoding.stop), suite.extract)
    return make_suite(
        suite.name, skill, items, names, decoding, seeds=suite.seeds, schema=suite.schema_, parts=parts
    )


def _with_metrics(
    path: Path, suite: _SuiteFile, skills: Mapping[str, Skill]
) -> tuple[Skill | str, list[str]]:
    """The skill that a suite is for, with the metrics that the suite itself defines; and the names of all
    that it measures."""
    names, definitions, problems = [], dict[str, dict[str, Any]](), []
    for given in suite.metrics:
        try:
            declared = _own_metric(given)
        except ValidationError as error:
            problems += _validation_problems(error, f"metric {given}")
            continue
        if declared is not None and declared.metric is None:
            problems.append(f"metric {given}: a suite defines metrics of the table with `options` alone")
            continue
        names.append(given if declared is None else declared.name)
        if declared is not None:
            definitions[declared.name] = declared.definition(path.parent)
    problems += [f"metric `{name}` is given twice" for name, count in Counter(names).items() if count > 1]
    if problems:
        refuse(f"{path} has metrics that cannot be used", problems)
    named = skill_named(suite.skill, skills)
    if not definitions:
        return named or suite.skill, names
    skill = named or Skill(suite.skill)
    own = {name: build_metric(definition, path.parent) for name, definition in definitions.items()}
    definitions = {**skill.definitions, **definitions}
    return replace(skill, own_metrics={**skill.own_metrics, **own}, definitions=definitions), names


def _own_metric(given: str | dict[str, Any]) -> MetricDeclaration | None:
    """The metric that an entry of `metrics` defines: `{NAME: OPTIONS}` or `{name: …, metric: NAME, options:
    OPTIONS}`; None for the name of a metric. Raises ValidationError."""
    if isinstance(given, str):
        return None
    if "name" not in given and len(given) == 1:
        ((name, options),) = given.items()
        given = {"name": name, "metric": name, "options": options}
    return MetricDeclaration.model_validate(given)


# --- of skills --------------------------------------------------------------------------------


class _SkillItemRow(_ItemRow):
    id: str = ""
    prompt: str | list[_MessageRow] = Field(default_factory=list)
    input: str | dict[str, str] | None = None


class _ExampleRow(_Strict):
    input: str | dict[str, str]
    output: str = Field(min_length=1)


def skill_suite(skill: Skill, settings: Evaluation, cache: Path | None = None) -> EvaluationSuite | None:
    """The suite that a skill declares; None where it declares none. A function that makes it is called with
    the settings and a folder that it may keep things in. Raises DataError as `read_suite`."""
    if skill.suite is None:
        return None
    if isinstance(skill.suite, str):
        what = f"the suite of the skill `{skill.name}`"
        make = load_object(skill.suite, skill.folder, what)
        try:
            made = make(settings, cache)
        except TypeError as error:
            raise DataError(f"{what} cannot be made", error, "a function of settings and a folder") from error
        if not isinstance(made, EvaluationSuite):
            raise DataError(f"{what} is none", type(made).__name__, "an EvaluationSuite")
        return made
    where, rows = _rows_of(skill, skill.suite, "suite")
    items, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            items.append(_skill_item(skill, _SkillItemRow.model_validate(row)))
        except ValidationError as error:
            problems += _validation_problems(error, f"item {number}")
        except InputError as error:
            problems.append(f"item {number}: {error}")
    for name, definition in skill.definitions.items():
        if "reward_model" in definition:
            known = {*read_reward(skill.folder / definition["reward_model"]).prompts}
            if fitted := [item.id for item in items if prompt_key(item.prompt) in known]:
                remedy = f"fit it again: `escultor skills reward {skill.name}`"
                what = f"ask what the reward model `{name}` was fitted to; {remedy}"
                problems.append(f"{len(fitted)} items, such as {fitted[0]!r}, {what}")
    if problems:
        refuse(f"{where} has items that cannot be used", problems)
    return make_suite(skill.name, skill, items, skill.metrics, skill.decoding, schema=skill.output.schema)


def skill_examples(skill: Skill) -> list[Example]:
    """The training examples that a skill declares, in its own prompt. Raises DataError for rows that are
    none, and for outputs that do not have the skill's form."""
    if skill.examples is None:
        return []
    where, rows = _rows_of(skill, skill.examples, "examples")
    examples, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            read = _ExampleRow.model_validate(row)
            prompt = skill.prompt(read.input)
        except ValidationError as error:
            problems += _validation_problems(error, f"example {number}")
            continue
        except InputError as error:
            problems.append(f"example {number}: {error}")
            continue
        if not skill.output.accepts(read.output):
            problems.append(f"example {number}: its output is not what the skill's `output` says")
        origin = Origin((f"{skill.name}:{number}",), f"skill-{skill.name}/1", Consent.TRAIN)
        examples.append(Example(hash_value([prompt, read.output]), prompt, read.output, origin))
    if problems:
        refuse(f"{where} has examples that cannot be used", problems)
    return examples


def _rows_of(skill: Skill, source: Any, key: str) -> tuple[str, list[Any]]:
    """Rows that stand in a declaration, or in the file that it names; and the name of the place."""
    if isinstance(source, tuple):
        return f"{key} of the skill `{skill.name}`", list(source)
    if source.suffix in (".yaml", ".yml"):
        rows = _yaml(source)
        if not isinstance(rows, list):
            raise DataError(f"{source} is no list of rows", type(rows).__name__, "a list, or a JSONL file")
        return str(source), rows
    return str(source), _json_lines(source)


def _skill_item(skill: Skill, row: _SkillItemRow) -> SuiteItem:
    if (row.input is None) == (not row.prompt):
        raise DataError("it has both `input` and `prompt`, or neither", allowed="one of them")
    prompt = _messages(row.prompt) if row.input is None else skill.prompt(row.input)
    # An id that follows from the prompt stays the same when other items come and go.
    id = row.id or hash_value(prompt)[:12]
    return replace(row.to_record(), id=id, cluster=row.cluster or id, prompt=prompt)


def _yaml(path: Path) -> Any:
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML", " ".join(str(error).split())) from error


def _json_lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read", error, "a JSONL file in UTF-8") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(strict_loads(line))
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number} is no JSON", error, "one JSON object a line"
                ) from error
    return rows


def _messages(content: str | list[_MessageRow]) -> Messages:
    if isinstance(content, str):
        return (Message(Role.USER, content),)
    return tuple(Message(row.role, row.content) for row in content)


def _validation_problems(error: ValidationError, where: str) -> list[str]:
    return [
        f"{where}: `{'.'.join(map(str, e['loc'])) or 'the row'}`: {e['msg']}; got {str(e['input'])[:60]!r}"
        for e in error.errors()
    ]
