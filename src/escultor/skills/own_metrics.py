"""Metrics that a skill's declaration defines, beside those of `escultor.skills.table`. Each has a `name` and
one of these keys:

    contains: TEXT | [TEXT, …]    the answer has each of these texts, whatever the case
    matches: REGEX                the whole answer, without outer white space, matches (RE2 syntax)
    finds: REGEX                  a part of the answer matches
    field: a.b                    the value at a path of the JSON answer equals that of the reference
    tool_call: name | arguments   the answer calls the reference's tools; `arguments`: with equal arguments
    metric: NAME                  one of the table with `options`: exact_match (ignore_case,
                                  ignore_punctuation), numeric_answer (tolerance, decimal, units)
    unit_tests: TEMPLATE          the tests of the item's reference pass, in a process of their own
    reward_model: FILE            how well people are expected to like it (see `escultor.skills.reward`)
    judge: MODEL | {model, url, key_env}   a language model's preference between the two answers that are
                                  compared, weighed by how often it agrees with people
    python: FILE.py:NAME          a function (answer, reference) -> number, or (answer) -> number; or
    python: MODULE:NAME           a `Metric`, or a mapping of names to one of these

`scale` says what a function's numbers mean: {better, kind, least, most}. A function runs with the rights of
this program, so that it is only taken from a declaration, never from a store.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from escultor.errors import DataError, FaultError
from escultor.ids import hash_file
from escultor.patterns import linear_pattern
from escultor.skills import metrics, schema, unit_tests
from escultor.skills.reward import read_reward
from escultor.skills.table import (
    BINARY,
    METRICS,
    SHARE,
    Metric,
    ModelOutput,
    Need,
    ScoreFunction,
    against_references,
    answer_metric,
    opponent_metric,
)
from escultor.types import Scale, SuiteItem

KINDS = (
    *("contains", "matches", "finds", "field", "tool_call", "metric", "unit_tests", "reward_model", "judge"),
    "python",
)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class _ExactMatchOptions(_Options):
    ignore_case: bool = False
    ignore_punctuation: bool = False


class _NumericAnswerOptions(_Options):
    tolerance: Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")] = 0.0
    decimal: Literal[".", ","] = "."
    units: bool = False


# Metrics of the table that take options, and what these are.
WITH_OPTIONS: dict[str, tuple[Callable[..., float], type[_Options]]] = {
    "exact_match": (metrics.exact_match, _ExactMatchOptions),
    "numeric_answer": (metrics.numeric_answer, _NumericAnswerOptions),
}


_Text = Annotated[str, Field(min_length=1)]  # an empty one would hold for every answer


class ScaleDeclaration(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    better: Literal["higher", "lower", "neither"] = "higher"
    kind: Literal["binary", "continuous"] = "continuous"
    least: float | None = 0.0
    most: float | None = 1.0

    @model_validator(mode="after")
    def _is_a_range(self) -> ScaleDeclaration:
        if self.least is not None and self.most is not None and self.least >= self.most:
            raise ValueError(f"`least` {self.least:g} is not below `most` {self.most:g}")
        if self.kind == "binary" and (self.least, self.most) != (0.0, 1.0):
            raise ValueError(f"a binary metric is 0 or 1, not from {self.least} to {self.most}")
        return self


class JudgeDeclaration(BaseModel):
    """A judge: a model folder, or the name of a model behind an OpenAI-compatible server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    url: str | None = None
    key_env: str = "OPENAI_API_KEY"


class MetricDeclaration(BaseModel):
    """One metric as a declaration defines it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)
    contains: _Text | Annotated[list[_Text], Field(min_length=1)] | None = None
    matches: _Text | None = None
    finds: _Text | None = None
    field: str | None = Field(default=None, pattern=r"^[^.]+(\.[^.]+)*$")
    tool_call: Literal["name", "arguments"] | None = None
    unit_tests: str | None = None
    metric: Literal["exact_match", "numeric_answer"] | None = None
    options: dict[str, Any] | None = None
    reward_model: _Text | None = None
    judge: _Text | JudgeDeclaration | None = None
    python: str | None = Field(default=None, pattern=r"^[^:]+(\.py)?:[A-Za-z_]\w*$")
    code: str | None = None  # the hash of the file of a function or reward model, as it was measured
    auroc: tuple[float, float, float] | None = None  # of a reward model, as its file says: value, low, high
    scale: ScaleDeclaration | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> MetricDeclaration:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a metric is defined by one of {', '.join(KINDS)}; got {given or 'none'}")
        if self.scale is not None and self.python is None:
            raise ValueError("`scale` is for a metric that is a function (python)")
        if (self.options is not None) != (self.metric is not None):
            raise ValueError("`metric` is given with its `options`, and they with it")
        if self.metric is not None:
            WITH_OPTIONS[self.metric][1].model_validate(self.options)
        if self.name in METRICS and self.python is None and self.metric != self.name:
            raise ValueError(f"`{self.name}` is a metric already; give another name")
        program = self.unit_tests
        if program is not None and any(each not in program for each in unit_tests.FIELDS):
            raise ValueError(f"`unit_tests` is a program with {' and '.join(unit_tests.FIELDS)} in it")
        return self

    def definition(self, folder: Path) -> dict[str, Any]:
        """The definition as a suite records it, with the hash of the code of a function in a file."""
        found = self.model_dump(exclude_unset=True, exclude={"code", "auroc"})
        if self.reward_model is not None:
            file = folder / self.reward_model
            return found | {"auroc": list(read_reward(file).auroc), "code": hash_file(file)}
        file = _file_of(self.python, folder) if self.python else None
        return found | ({"code": hash_file(file)} if file is not None else {})


def build_metric(definition: Mapping[str, Any], folder: Path) -> Metric:
    """The metric of a definition whose paths are relative to a folder. Raises DataError where there is no
    such file or function, and for a pattern that is none."""
    declared = MetricDeclaration.model_validate(dict(definition))
    name = declared.name
    if declared.python is not None:
        return _from_python(declared, folder)
    if declared.contains is not None:
        texts = [declared.contains] if isinstance(declared.contains, str) else declared.contains
        return _of_answer(f"the answer has {', '.join(map(repr, texts))}", partial(_has_all, texts))
    if (pattern := declared.matches or declared.finds) is not None:
        whole = declared.matches is not None
        compiled = linear_pattern(pattern, f"the pattern of the metric `{name}`")
        search = compiled.fullmatch if whole else compiled.search
        return _of_answer(
            f"{'the answer' if whole else 'a part of the answer'} matches {pattern}",
            lambda answer: float(search(answer.strip().encode("utf-8", "replace")) is not None),
        )
    if declared.field is not None:
        path = declared.field.split(".")
        score = against_references(lambda answer, reference: _equal_at(path, answer, reference))
        about = f"the field {declared.field} is that of the reference"
        return Metric(about, frozenset(("answer", "reference")), BINARY, score)
    if declared.tool_call is not None:
        with_arguments = declared.tool_call == "arguments"
        score = against_references(partial(calls_match, with_arguments=with_arguments))
        about = f"the answer calls the reference's tools{' with equal arguments' * with_arguments}"
        return Metric(about, frozenset(("answer", "reference")), BINARY, score)
    if declared.metric is not None:
        return _with_options(declared.metric, declared.options or {})
    if declared.reward_model is not None:
        model = read_reward(folder / declared.reward_model)
        return Metric(
            f"how well people are expected to like the answer: {model.about}",
            frozenset(("answer",)),
            SHARE,
            lambda output, item: model.score(item.prompt, output.answer),
        )
    if declared.judge is not None:
        return opponent_metric(
            "the share of comparisons that it wins before a judge, as far as people agree with it"
        )
    template = declared.unit_tests or ""
    score = against_references(lambda answer, reference: unit_tests.passes(template, answer, reference))
    return Metric("the reference's tests pass", frozenset(("answer", "reference")), BINARY, score)


def _with_options(name: str, options: Mapping[str, Any]) -> Metric:
    measure, _ = WITH_OPTIONS[name]
    shown = ", ".join(f"{key} {value}" for key, value in options.items())
    return answer_metric(f"{METRICS[name].about} ({shown})", partial(measure, **options), BINARY)


def _of_answer(about: str, measure: Callable[[str], float], scale: Scale = BINARY) -> Metric:
    return Metric(about, frozenset(("answer",)), scale, lambda output, item: measure(output.answer))


def _has_all(texts: list[str], answer: str) -> float:
    said = answer.casefold()
    return float(all(text.casefold() in said for text in texts))


# --- JSON and calls of tools ------------------------------------------------------------------


def _equal_at(path: list[str], answer: str, reference: str) -> float:
    try:
        return float(schema.json_equal(_at(path, answer), _at(path, reference)))
    except (DataError, KeyError, IndexError, RecursionError):
        return 0.0


def _at(path: list[str], text: str) -> Any:
    value = schema.parsed(text)
    for key in path:
        if isinstance(value, list):
            value = value[int(key)] if key.isdigit() else value[len(value)]
        elif isinstance(value, dict):
            value = value[key]
        else:
            raise KeyError(key)
    return value


def calls_match(answer: str, reference: str, with_arguments: bool) -> float:
    """1.0 if an answer calls the tools that the reference calls, in any order: the JSON of one call
    `{name, arguments}` or of a list of them, as the wire formats have them too (`function`, arguments as a
    text)."""
    try:
        ours, theirs = _calls(answer), _calls(reference)
    except (DataError, KeyError, TypeError, AttributeError, RecursionError):
        return 0.0
    if len(ours) != len(theirs):
        return 0.0
    for name, arguments in theirs:
        same = (
            c for c in ours if c[0] == name and (not with_arguments or schema.json_equal(c[1], arguments))
        )
        if (found := next(same, None)) is None:
            return 0.0
        ours.remove(found)
    return 1.0


def _calls(text: str) -> list[tuple[str, Any]]:
    value = schema.parsed(text)
    calls = []
    for call in value if isinstance(value, list) else [value]:
        call = call.get("function", call) if isinstance(call, dict) else call
        arguments = call.get("arguments", {})
        calls.append((call["name"], schema.parsed(arguments) if isinstance(arguments, str) else arguments))
    return calls


# --- functions --------------------------------------------------------------------------------


def load_object(reference: str, folder: Path, what: str) -> Any:
    """The object that `FILE.py:NAME` or `MODULE:NAME` names. Raises DataError where it is not there."""
    place, _, name = reference.rpartition(":")
    try:
        file = _file_of(reference, folder)
        module = importlib.import_module(place) if file is None else _module_of(file)
        return getattr(module, name)
    except (Exception, SystemExit) as error:  # whatever the file does when it is read
        remedy = "give FILE.py:NAME, or MODULE:NAME of an installed package"
        raise DataError(f"{what} cannot be loaded", f"{reference} ({error})", "a function", remedy) from error


def _file_of(reference: str, folder: Path) -> Path | None:
    """The file of `FILE.py:NAME`; None for a module."""
    place = reference.rpartition(":")[0]
    return (folder / place).resolve() if place.endswith(".py") else None


def _module_of(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"escultor_skill_{hash_file(file)}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_python(declared: MetricDeclaration, folder: Path) -> Metric:
    what = f"the metric `{declared.name}`"
    found = load_object(str(declared.python), folder, what)
    if isinstance(found, Mapping):
        if declared.name not in found:
            raise DataError(f"{what} is not in the mapping", declared.python, ", ".join(map(str, found)))
        found = found[declared.name]
    if isinstance(found, Metric):
        return found
    if not callable(found):
        raise DataError(f"{what} is no function", type(found).__name__, "a function of answer and reference")
    try:
        count = len(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # such as of a type that is written in C
        count = 0
    if count not in (1, 2):
        allowed = "(answer), or (answer, reference)"
        raise DataError(f"{what} is a function of other arguments", f"{count} of them", allowed)
    scale = Scale(**declared.scale.model_dump()) if declared.scale else SHARE
    checked = partial(_checked, what, scale, found)
    about = (inspect.getdoc(found) or f"the function {declared.python}").splitlines()[0]
    needs: frozenset[Need] = frozenset(("answer",))
    both: frozenset[Need] = frozenset(("answer", "reference"))
    if count == 1:
        return Metric(about, needs, scale, lambda output, item: checked(output.answer))
    return Metric(about, both, scale, _best(checked, scale))


def _checked(what: str, scale: Scale, function: Callable[..., Any], *texts: str) -> float:
    """What a function says of texts. Raises FaultError where it fails, or says no number of its scale."""
    try:
        value = float(function(*texts))
    except (Exception, SystemExit) as error:
        raise FaultError(f"{what} failed", f"{type(error).__name__}: {error}", remedy="mend it") from error
    low = scale.least is None or value >= scale.least
    is_of_kind = value in (0.0, 1.0) if scale.kind == "binary" else math.isfinite(value)
    if not (is_of_kind and low and (scale.most is None or value <= scale.most)):
        allowed = "0 or 1" if scale.kind == "binary" else f"{scale.least} to {scale.most}"
        raise FaultError(f"{what} gave a number out of its scale", value, allowed, "declare its `scale`")
    return value


def _best(measure: Callable[[str, str], float], scale: Scale) -> ScoreFunction:
    better = min if scale.better == "lower" else max

    def score(output: ModelOutput, item: SuiteItem) -> float:
        return better(measure(output.answer, reference) for reference in item.references)

    return score


def definitions_json(definitions: Mapping[str, Mapping[str, Any]]) -> str:
    """Definitions as a suite records them; empty without any."""
    return json.dumps({k: dict(v) for k, v in definitions.items()}, sort_keys=True) if definitions else ""
