"""Evaluation suites: read from files, checked as a whole, registered in the store.

A suite is a YAML file:

    name: capitals
    metrics: [exact_match, f1]
    skill: chat                      # default
    decoding: {max_new_tokens: 16, temperature: 0, top_p: 1}
    seeds: [0]                       # with several, every item is answered once with each
    schema: {type: object}           # for schema_valid
    items: capitals.jsonl            # a file beside it, or the items themselves
    #  - {id: fr, prompt: "The capital of France?", reference: Paris, cluster: capitals}

An item has `id` and `prompt` (text or messages), and as the metrics need it `reference` (text or a list),
`choices` with `right` (the index of the right one), `pressed`, `refuse`, `document`; optionally `cluster`
(default: its id) and `labels`, the slices it belongs to. A JSONL file is a suite too if its first line is
such a header, without items.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from escultor.errors import DataError
from escultor.ids import hash_bytes, hash_value, plain
from escultor.skills.schema import check_schema
from escultor.skills.table import ITEM_NEEDS, Metric, get_metric, known_metrics
from escultor.store import Blobs, Store
from escultor.strict_json import no_constant
from escultor.types import Message, Messages, Role, Sampling, Scale, Suite, SuiteItem

FORMAT = "suite/1"  # part of every id: what the fields mean
SHARED = 0.1  # of the prompts of the smaller of two suites: beyond, they share one budget of interim analyses
MAX_PROBLEMS = 8  # shown in one error; the rest is counted

_items = TypeAdapter(SuiteItem)


@dataclass(frozen=True, slots=True)
class EvaluationSuite:
    """The stored record of a suite, with its items."""

    record: Suite
    items: tuple[SuiteItem, ...]

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def clusters(self) -> tuple[str, ...]:
        return tuple(item.cluster for item in self.items)


def make_suite(
    name: str,
    skill: str,
    items: Sequence[SuiteItem],
    metrics: Sequence[str],
    decoding: Sampling,
    seeds: Sequence[int] = (0,),
    schema: dict[str, Any] | None = None,
) -> EvaluationSuite:
    """A suite of these items. Raises DataError that names all that is wrong with it."""
    known = {each: metric for each in metrics if (metric := get_metric(skill, each)) is not None}
    problems = [
        *_suite_problems(skill, metrics, known, decoding, seeds=seeds, schema=schema),
        *_item_problems(items, known),
    ]
    if problems:
        _refuse(f"the suite `{name}` cannot be used", problems)
    scales = {each: metric.scale for each, metric in known.items()}
    return seal_suite(name, skill, items, scales, decoding, seeds=seeds, schema=schema)


def seal_suite(
    name: str,
    skill: str,
    items: Sequence[SuiteItem],
    scales: dict[str, Scale],
    decoding: Sampling,
    *,
    seeds: Sequence[int] = (0,),
    schema: dict[str, Any] | None = None,
) -> EvaluationSuite:
    """A suite without any check, under the hash of all that decides a score."""
    blob = hash_bytes(_jsonl(items))
    schema_json = None if schema is None else json.dumps(schema, sort_keys=True, ensure_ascii=False)
    record = Suite(
        id=hash_value([FORMAT, name, skill, scales, decoding, list(seeds), schema_json, blob]),
        name=name,
        skill=skill,
        metrics=scales,
        decoding=decoding,
        seeds=tuple(seeds),
        schema=schema_json,
        items=len(items),
        clusters=len({item.cluster for item in items}),
        blob=blob,
    )
    return EvaluationSuite(record, tuple(items))


# --- in the store -----------------------------------------------------------------------------


def register(store: Store, suite: EvaluationSuite) -> None:
    """Record a suite for good: its items as a blob, then the suite. Repeating it changes nothing."""
    if store.log.get(Suite, suite.id) is None:
        store.blobs.put_bytes(_jsonl(suite.items))
        store.log.append(suite.record)


def registered_suite(store: Store, name: str) -> EvaluationSuite | None:
    """The suite recorded last under a name, or the one with this id; None where there is none."""
    records = [record for _, record in store.log.read(Suite, target=name)]
    record = records[-1] if records else store.log.get(Suite, name)
    return None if record is None else EvaluationSuite(record, load_items(store.blobs, record))


def load_items(blobs: Blobs, suite: Suite) -> tuple[SuiteItem, ...]:
    """The items of a registered suite. Raises StoreError when the blob is absent or damaged."""
    lines = blobs.get_bytes(suite.blob).decode().splitlines()
    return tuple(_items.validate_json(line) for line in lines)


def suites_sharing_items(store: Store, suite: str, others: Iterable[str]) -> frozenset[str]:
    """Those of `others` (ids) that share more than a tenth of the smaller suite's prompts with `suite`,
    whatever they are called and measure. A suite that is not in the store shares nothing."""

    def prompts(id: str) -> frozenset[str]:
        record = store.log.get(Suite, id)
        items = () if record is None else load_items(store.blobs, record)
        return frozenset(hash_value(item.prompt) for item in items)

    own = prompts(suite)
    theirs = {other: prompts(other) for other in set(others) - {suite}} if own else {}
    return frozenset(
        other for other, each in theirs.items() if len(own & each) > SHARED * min(len(own), len(each))
    )


def _jsonl(items: Iterable[SuiteItem]) -> bytes:
    # JSON escapes line ends inside a text, and ASCII the other separators that `splitlines` knows.
    return "".join(json.dumps(_item_fields(item), sort_keys=True) + "\n" for item in items).encode()


def _item_fields(item: SuiteItem) -> dict[str, Any]:
    """An item as JSON, without the type names that `plain` adds."""
    fields = plain(item) | {
        key: [{"role": str(m.role), "content": m.content} for m in getattr(item, key)]
        for key in ("prompt", "pressed")
    }
    return {key: value for key, value in fields.items() if key != "_"}


# --- files ------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


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
        )


class _Decoding(_Strict):
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class _SuiteFile(_Strict):
    name: str = Field(min_length=1, pattern=r"^[^:/\s][^:/]*$")
    metrics: list[str] = Field(min_length=1)
    skill: str = "chat"
    decoding: _Decoding = _Decoding()
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    items: str | list[Any] = Field(default_factory=list)


def read_suite(path: Path) -> EvaluationSuite:
    """The suite that a YAML or JSONL file describes.

    Raises DataError that names the file and everything wrong with it: what cannot be parsed, duplicate items
    or items without what a metric needs, unknown metrics and keys, numbers that are not finite.
    """
    header, *rows = (_json_lines(path) or [{}]) if path.suffix == ".jsonl" else [_yaml(path)]
    try:
        suite = _SuiteFile.model_validate(header)
    except ValidationError as error:
        _refuse(f"{path} is no suite", _validation_problems(error, "the suite"))
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
        _refuse(f"{path} has items that cannot be used", problems)
    decoding = Sampling(**suite.decoding.model_dump())
    return make_suite(
        suite.name, suite.skill, items, suite.metrics, decoding, seeds=suite.seeds, schema=suite.schema_
    )


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
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
                rows.append(json.loads(line, parse_constant=no_constant))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number} is no JSON", error, "one JSON object a line"
                ) from error
    return rows


def _messages(content: str | list[_MessageRow]) -> Messages:
    if isinstance(content, str):
        return (Message(Role.USER, content),)
    return tuple(Message(row.role, row.content) for row in content)


# --- checks -----------------------------------------------------------------------------------


def _suite_problems(
    skill: str,
    names: Sequence[str],
    metrics: Mapping[str, Metric],
    decoding: Sampling,
    seeds: Sequence[int],
    schema: dict[str, Any] | None,
) -> Iterator[str]:
    for name in names:
        if name not in metrics:
            yield f"no metric `{name}`; known: {', '.join(known_metrics(skill))}"
    if not names:
        yield "it names no metric"
    if len(set(seeds)) != len(seeds) or not seeds:
        yield f"its seeds are {list(seeds)}; each once, at least one"
    if len(seeds) > 1 and decoding.temperature == 0:
        yield f"{len(seeds)} seeds at temperature 0 would give the same answer {len(seeds)} times"
    if schema is None and any("schema" in metric.needs for metric in metrics.values()):
        yield "schema_valid needs a `schema`"
    if schema is not None:
        try:
            check_schema(schema)
        except DataError as error:
            yield str(error)


def _item_problems(items: Sequence[SuiteItem], metrics: Mapping[str, Metric]) -> Iterator[str]:
    if not items:
        yield "it has no items"
    if duplicates := [id for id, count in Counter(item.id for item in items).items() if count > 1]:
        yield f"{len(duplicates)} ids are given twice, such as {duplicates[0]!r}"
    for item in items:
        if not any(message.content.strip() for message in item.prompt):
            yield f"item {item.id!r} asks nothing"
        if item.right is not None and item.right >= len(item.choices):
            yield f"item {item.id!r}: the right choice is number {item.right} of {len(item.choices)}"
        if len(set(item.choices)) < len(item.choices):
            yield f"item {item.id!r} has the same choice twice"
    for name, metric in metrics.items():
        for need in sorted(metric.needs & ITEM_NEEDS.keys()):
            if lacking := [item.id for item in items if not ITEM_NEEDS[need](item)]:
                field = "reference" if need == "likelihood" else need
                yield f"{name} needs `{field}`, which {len(lacking)} items lack, such as {lacking[0]!r}"
    if len({tuple(sorted(item.labels)) for item in items}) > 1:
        yield "items carry different labels; each needs the same names, so that slices are whole"


def _validation_problems(error: ValidationError, where: str) -> list[str]:
    return [
        f"{where}: `{'.'.join(map(str, e['loc'])) or 'the row'}`: {e['msg']}; got {str(e['input'])[:60]!r}"
        for e in error.errors()
    ]


def _refuse(what: str, problems: Sequence[str]) -> NoReturn:
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    raise DataError("\n  ".join([f"{what}:", *problems[:MAX_PROBLEMS], *more]))
