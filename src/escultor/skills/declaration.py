"""The declaration of a skill, a YAML file:

    name: support
    about: Sorts a customer's message into a queue.
    instruction: "Answer with the queue alone: billing, technical or other."
    inputs: [message]                  # default: [input]
    prompt: "{message}"                # the user's message; default: the inputs, a line with its name before
                                       # each where there are several. With {instruction} in it there is no
                                       # system message: the instruction stands there
    output: text                       # or json, {json: SCHEMA}, {files: MODULE:FUNCTION, schema: SCHEMA}
    metrics:                           # names of `escultor.skills.table`, or own ones (see own_metrics)
      - exact_match
      - {name: is_queue, matches: "billing|technical|other"}
    primary: [exact_match]             # the gate's policy, where the configuration names none
    guards: {is_queue: 0.02}
    vetoes: {is_queue: {at_least: 0.98}}
    rubric: Prefer the right queue.    # for raters and judges
    decoding: {max_new_tokens: 8}
    suite: support.suite.jsonl         # a file beside it, the rows themselves, or MODULE:FUNCTION
    examples: support.examples.jsonl   # rows {input, output}: training data to begin with

A row of a suite has `input`, a text or an object of the inputs, or `prompt`, whole messages; and beside it
what `escultor.skills.suites` says. Everything is checked here, once, and all problems are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from escultor.config.evaluation import Limit
from escultor.config.section import NonNegative
from escultor.errors import DataError, InputError
from escultor.skills.own_metrics import MetricDeclaration, build_metric, load_object
from escultor.skills.reward import primary_problem
from escultor.skills.schema import check_schema
from escultor.skills.skill import INSTRUCTION, Output, Skill, fields_of
from escultor.skills.table import METRICS
from escultor.strict_yaml import load_yaml
from escultor.types import Sampling

# What pydantic puts into the place of a problem: which reading of a value was tried.
_UNION = re.compile(
    r"(str|dict\[|list\[|constrained-str|MetricDeclaration|JudgeDeclaration|function-after\[)"
)
NAME = r"^[a-z][a-z0-9_-]{0,63}$"


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Decoding(_Declared):
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=256, ge=1, le=1_000_000)


class _SkillFile(_Declared):
    name: str = Field(pattern=NAME)
    about: str = ""
    instruction: str = ""
    inputs: list[str] = Field(default=["input"], min_length=1)
    prompt: str | None = None
    output: str | dict[str, Any] = "text"
    metrics: list[str | MetricDeclaration] = Field(min_length=1)
    primary: list[str] = []
    guards: dict[str, NonNegative] = {}
    vetoes: dict[str, Limit] = {}
    rubric: str = ""
    decoding: _Decoding = _Decoding()
    suite: str | list[dict[str, Any]] | None = None
    examples: str | list[dict[str, Any]] | None = None


def read_skill(path: Path) -> Skill:
    """The skill that a YAML file declares. Raises DataError that names the file and all that is wrong."""
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        remedy = "`escultor skills new NAME` writes one"
        raise DataError(
            f"{path} cannot be read as YAML", " ".join(str(error).split()), remedy=remedy
        ) from error
    return parse_skill(data, path.resolve().parent, str(path))


def parse_skill(data: Any, folder: Path, source: str) -> Skill:
    """The skill of a declaration whose paths are relative to `folder`. Raises DataError as `read_skill`."""
    try:
        declared = _SkillFile.model_validate(data)
    except ValidationError as error:
        raise _refusal(source, list(_validation_problems(error))) from error
    problems = list(_problems(declared))
    own: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for metric in declared.metrics:
        if isinstance(metric, MetricDeclaration):
            if metric.code is not None or metric.auroc is not None:
                problems.append(f"metrics: `code` and `auroc` of {metric.name} are measured; leave them out")
            try:
                definitions[metric.name] = metric.definition(folder)
                own[metric.name] = build_metric(definitions[metric.name], folder)
            except (InputError, OSError) as error:
                problems.append(f"metrics: {error}")
    problems += _undirected(declared, own)
    if not problems and (why := primary_problem(declared.primary, definitions)):
        problems.append(f"primary: {why}")
    output = Output()
    try:
        output = _output(declared.output, folder)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise _refusal(source, problems)
    names = [metric if isinstance(metric, str) else metric.name for metric in declared.metrics]
    return Skill(
        name=declared.name,
        about=declared.about,
        instruction=declared.instruction.strip(),
        inputs=tuple(declared.inputs),
        template=declared.prompt if declared.prompt is not None else _default_template(declared.inputs),
        output=output,
        metrics=tuple(names),
        own_metrics=own,
        definitions=definitions,
        primary=tuple(declared.primary),
        guards=declared.guards,
        vetoes=declared.vetoes,
        rubric=declared.rubric.strip(),
        decoding=Sampling(**declared.decoding.model_dump()),
        suite=_rows(declared.suite, folder, "suite"),
        examples=_rows(declared.examples, folder, "examples"),
        folder=folder,
        source=source,
    )


def _undirected(declared: _SkillFile, own: dict[str, Any]) -> Iterator[str]:
    """Primaries and guards of which neither more nor less is better."""
    for key in ("primary", "guards"):
        for name in getattr(declared, key):
            metric = own.get(name) or METRICS.get(name)
            if metric is not None and metric.scale.better == "neither":
                yield f"{key}: neither more nor less of {name} is better; limit it under `vetoes`"


def _default_template(inputs: list[str]) -> str:
    if len(inputs) == 1:
        return f"{{{inputs[0]}}}"
    return "\n\n".join(f"{name}:\n{{{name}}}" for name in inputs)


def _rows(given: Any, folder: Path, key: str) -> Any:
    """Where the rows of a suite or of examples are."""
    if isinstance(given, list):
        return tuple(given)
    if given is None:
        return None
    return given if key == "suite" and ":" in given and "/" not in given else folder / given


def _output(given: str | dict[str, Any], folder: Path) -> Output:
    allowed = "text, json, {json: SCHEMA}, or {files: MODULE:FUNCTION, schema: SCHEMA}"
    if given in ("text", "json"):
        return Output(given)  # type: ignore[arg-type]
    schema = None
    if isinstance(given, dict) and set(given) == {"json"}:
        schema = given["json"]
        check_schema(schema, "the schema of the output")
        return Output("json", schema)
    if isinstance(given, dict) and set(given) == {"files", "schema"}:
        check_schema(given["schema"], "the schema of the output")
        write = load_object(str(given["files"]), folder, "the writer of the files")
        if not callable(write):
            raise DataError("the writer of the files is no function", type(write).__name__, "a function")
        return Output("files", given["schema"], cast("Any", write))
    raise DataError("output: no form of answers", repr(given)[:80], allowed)


def _problems(declared: _SkillFile) -> Iterator[str]:
    own = {m.name for m in declared.metrics if isinstance(m, MetricDeclaration)}
    named = [m for m in declared.metrics if isinstance(m, str)]
    known = {*METRICS, *own}
    if unknown := [name for name in named if name not in METRICS]:
        yield f"metrics: no metric {', '.join(unknown)}; known: {', '.join(sorted(METRICS))}; or define it"
    names = [*named, *own]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield f"metrics: {', '.join(twice)} twice"
    for key in ("primary", "guards", "vetoes"):
        missing = [name for name in getattr(declared, key) if name not in names and key != "vetoes"]
        if missing:
            more = (
                f"; add {'it' if len(missing) == 1 else 'them'} to `metrics`" if set(missing) <= known else ""
            )
            yield f"{key}: {', '.join(missing)} is not among its metrics: {', '.join(names)}{more}"
    if len(set(declared.primary)) < len(declared.primary):
        yield f"primary: {declared.primary}; each once"
    if both := sorted(set(declared.primary) & set(declared.guards)):
        yield f"{', '.join(both)}: a metric is either a primary or a guard"
    wrong = [name for name in declared.inputs if not name.isidentifier() or name == INSTRUCTION]
    if wrong or len(set(declared.inputs)) < len(declared.inputs):
        yield f"inputs: {declared.inputs}; each a word of its own, other than `{INSTRUCTION}`"
    if declared.prompt is not None:
        fields = fields_of(declared.prompt)
        if unused := [name for name in declared.inputs if name not in fields]:
            yield f"prompt: it lacks the input {', '.join(f'{{{name}}}' for name in unused)}"
        if unknown := sorted(fields - {*declared.inputs, INSTRUCTION}):
            yield f"prompt: {', '.join(f'{{{name}}}' for name in unknown)} is no input: {declared.inputs}"


def _validation_problems(error: ValidationError) -> Iterator[str]:
    for each in error.errors():
        where = ".".join(str(part) for part in each["loc"] if not _UNION.match(str(part)))
        if each["loc"][-1:] == ("str",):
            continue  # the other reading of a metric is the one that was meant
        allowed = ""
        if each["type"] == "extra_forbidden":
            allowed = f"; allowed: {', '.join(_SkillFile.model_fields)}" if len(each["loc"]) == 1 else ""
        yield f"{where or 'the declaration'}: {each['msg']}; got: {str(each['input'])[:60]!r}{allowed}"


def _refusal(source: str, problems: list[str]) -> DataError:
    return DataError("\n  ".join([f"{source} declares no skill:", *problems]))
