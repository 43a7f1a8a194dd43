"""Suites as files and in the store: parsed once, refused as a whole, registered for good.

A suite is a YAML file:

    name: capitals
    metrics: [exact_match, f1]
    skill: chat                      # default
    decoding: {max_new_tokens: 16, temperature: 0, top_p: 1}
    seeds: [0]                       # more than one: every item is answered with each, the mean counts
    schema: {type: object}           # for schema_valid
    items: capitals.jsonl            # a file beside it, or the items themselves
    #  - {id: fr, prompt: "The capital of France?", reference: Paris, cluster: capitals}

An item has `id` and `prompt` (text or messages), and as the metrics need it `reference` (text or a list),
`choices` with `right` (its number), `pressed`, `refuse`, `document`; `cluster` (default: its own) and
`labels`, the slices it counts in. A JSONL file whose first line is such a header, without items, is a
suite as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from escultor.errors import DataError
from escultor.ids import hash_bytes, hash_value, plain
from escultor.skills.schema import check_schema
from escultor.skills.table import ITEM_NEEDS, known_metrics, metric_of
from escultor.store import Blobs, Store
from escultor.strict_json import no_constant
from escultor.types import Message, Messages, Role, Sampling, Scale, Suite, SuiteItem

FORMAT = "suite/1"  # part of every id: what the fields mean
SHARED = 0.1  # of the prompts of the smaller of two suites: beyond, they are one to whoever counts looks
MOST_SHOWN = 8  # problems told at once; the rest is counted

_items = TypeAdapter(SuiteItem)


@dataclass(frozen=True, slots=True)
class EvaluationSuite:
    """A suite with its items at hand."""

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
    if problems := [
        *_of_the_suite(skill, metrics, decoding, seeds, schema),
        *_of_items(skill, items, metrics),
    ]:
        _refuse(f"the suite `{name}` cannot be used", problems)
    body = dict.fromkeys(metrics)
    scales = {each: metric.scale for each in body if (metric := metric_of(skill, each)) is not None}
    return sealed(name, skill, items, scales, decoding, seeds, schema)


def sealed(
    name: str,
    skill: str,
    items: Sequence[SuiteItem],
    scales: dict[str, Scale],
    decoding: Sampling,
    seeds: Sequence[int] = (0,),
    schema: dict[str, Any] | None = None,
) -> EvaluationSuite:
    """A suite as it is, under the hash of all that decides a score."""
    blob = _jsonl(items)
    text = None if schema is None else json.dumps(schema, sort_keys=True, ensure_ascii=False)
    hashed = hash_bytes(blob)
    decided = [FORMAT, name, skill, scales, decoding, list(seeds), text, hashed]
    clusters = len({item.cluster for item in items})
    suite = Suite(
        hash_value(decided),
        name,
        skill,
        scales,
        decoding,
        tuple(seeds),
        text,
        len(items),
        clusters,
        hashed,
    )
    return EvaluationSuite(suite, tuple(items))


# --- in the store -----------------------------------------------------------------------------


def register(store: Store, suite: EvaluationSuite) -> None:
    """Record a suite for good: its items as a blob, then the suite. Doing so again changes nothing."""
    if store.log.get(Suite, suite.id) is None:
        store.blobs.put_bytes(_jsonl(suite.items))
        store.log.append(suite.record)


def registered(store: Store, name: str) -> EvaluationSuite | None:
    """The suite recorded last under a name, or the one with this id; None where there is none."""
    found = [suite for _, suite in store.log.read(Suite, target=name)]
    suite = found[-1] if found else store.log.get(Suite, name)
    return None if suite is None else EvaluationSuite(suite, items_of(store.blobs, suite))


def items_of(blobs: Blobs, suite: Suite) -> tuple[SuiteItem, ...]:
    """The items of a registered suite. Raises StoreError when the blob is absent or damaged."""
    lines = blobs.get_bytes(suite.blob).decode().splitlines()
    return tuple(_items.validate_json(line) for line in lines)


def sharing_items(store: Store, suite: str, others: Iterable[str]) -> frozenset[str]:
    """Those of the other suites that hold more than a tenth of the smaller one's prompts in common with
    `suite`, whatever they are called and whatever they measure. Suites not in the store share nothing."""
    own = _prompts(store, suite)
    theirs = {other: _prompts(store, other) for other in set(others) - {suite}} if own else {}
    return frozenset(
        other for other, each in theirs.items() if len(own & each) > SHARED * min(len(own), len(each))
    )


def _prompts(store: Store, suite: str) -> frozenset[str]:
    found = store.log.get(Suite, suite)
    items = () if found is None else items_of(store.blobs, found)
    return frozenset(hash_value(item.prompt) for item in items)


def _jsonl(items: Iterable[SuiteItem]) -> bytes:
    # A line end inside a text is escaped by JSON; other separators of lines are by ASCII.
    return "".join(json.dumps(_fields(item), sort_keys=True) + "\n" for item in items).encode()


def _fields(item: SuiteItem) -> dict[str, Any]:
    fields = plain(item)
    return {key: value for key, value in fields.items() if key != "_"} | {
        key: [{"role": str(m.role), "content": m.content} for m in getattr(item, key)]
        for key in ("prompt", "pressed")
    }


# --- files ------------------------------------------------------------------------------------


class _Border(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class _Said(_Border):
    role: Annotated[Role, Field(strict=False)]
    content: str


class _Item(_Border):
    id: str = Field(min_length=1)
    prompt: str | list[_Said] = Field(min_length=1)
    cluster: str | None = None
    reference: str | list[str] = Field(default_factory=list)
    choices: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    right: int | None = Field(default=None, ge=0)
    pressed: str | list[_Said] = Field(default_factory=list)
    refuse: bool | None = None
    document: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    def noun(self) -> SuiteItem:
        references = (self.reference,) if isinstance(self.reference, str) else tuple(self.reference)
        return SuiteItem(
            self.id,
            _messages(self.prompt),
            self.cluster or self.id,
            references,
            tuple(self.choices),
            self.right,
            _messages(self.pressed),
            self.refuse,
            self.document,
            dict(sorted(self.labels.items())),
        )


class _Decoding(_Border):
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class _Suite(_Border):
    name: str = Field(min_length=1, pattern=r"^[^:/\s][^:/]*$")
    metrics: list[str] = Field(min_length=1)
    skill: str = "chat"
    decoding: _Decoding = _Decoding()
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    items: str | list[Any] = Field(default_factory=list)


def read_suite(path: Path) -> EvaluationSuite:
    """The suite that a YAML or JSONL file describes.

    Raises DataError that names the file and everything wrong with it: what cannot be parsed, items
    twice or without what a metric needs, unknown metrics and keys, numbers that are none.
    """
    if path.suffix == ".jsonl":
        header, *rows = _json_lines(path) or [{}]
        data = header
    else:
        data, rows = _yaml(path), []
    try:
        suite = _Suite.model_validate(data)
    except ValidationError as error:
        _refuse(f"{path} is no suite", _words(error, "the suite"))
    if isinstance(suite.items, str):
        rows = _json_lines(path.parent / suite.items)
    elif suite.items:
        rows = suite.items
    items, problems = [], []
    for at, row in enumerate(rows, 1):
        try:
            items.append(_Item.model_validate(row).noun())
        except ValidationError as error:
            problems += _words(error, f"item {at}")
    if problems:
        _refuse(f"{path} has items that cannot be used", problems)
    sampling = Sampling(suite.decoding.temperature, suite.decoding.top_p, suite.decoding.max_new_tokens)
    return make_suite(suite.name, suite.skill, items, suite.metrics, sampling, suite.seeds, suite.schema_)


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
    for at, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line, parse_constant=no_constant))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {at} is no JSON", error, "one JSON object a line") from error
    return rows


def _messages(said: str | list[_Said]) -> Messages:
    if isinstance(said, str):
        return (Message(Role.USER, said),)
    return tuple(Message(m.role, m.content) for m in said)


# --- what is wrong with it --------------------------------------------------------------------


def _of_the_suite(
    skill: str,
    metrics: Sequence[str],
    decoding: Sampling,
    seeds: Sequence[int],
    schema: dict[str, Any] | None,
) -> Iterable[str]:
    for name in metrics:
        if metric_of(skill, name) is None:
            yield f"no metric `{name}`; known: {', '.join(known_metrics(skill))}"
    if not metrics:
        yield "it names no metric"
    if len(set(seeds)) != len(seeds) or not seeds:
        yield f"its seeds are {list(seeds)}; each once, at least one"
    if len(seeds) > 1 and decoding.temperature == 0:
        yield f"{len(seeds)} seeds at temperature 0 would say the same {len(seeds)} times"
    needs = {need for name in metrics if (m := metric_of(skill, name)) is not None for need in m.needs}
    if "schema" in needs and schema is None:
        yield "schema_valid needs a `schema`"
    if schema is not None:
        try:
            check_schema(schema)
        except DataError as error:
            yield str(error)


def _of_items(skill: str, items: Sequence[SuiteItem], metrics: Sequence[str]) -> Iterable[str]:
    if not items:
        yield "it has no items"
    counted = Counter(item.id for item in items)
    if twice := [id for id, count in counted.items() if count > 1]:
        yield f"{len(twice)} ids are given twice, such as {twice[0]!r}"
    for item in items:
        if not item.prompt or not any(m.content.strip() for m in item.prompt):
            yield f"item {item.id!r} asks nothing"
        if item.right is not None and item.right >= len(item.choices):
            yield f"item {item.id!r}: the right choice is number {item.right} of {len(item.choices)}"
        if len(set(item.choices)) < len(item.choices):
            yield f"item {item.id!r} has the same choice twice"
    for name in dict.fromkeys(metrics):
        metric = metric_of(skill, name)
        for need in sorted(metric.needs & ITEM_NEEDS.keys()) if metric else ():
            if lacking := [item.id for item in items if not ITEM_NEEDS[need](item)]:
                what = "reference" if need == "likelihood" else need
                yield f"{name} needs `{what}`, which {len(lacking)} items lack, such as {lacking[0]!r}"
    if len({tuple(sorted(item.labels)) for item in items}) > 1:
        yield "items carry different labels; each needs the same names, so that slices are whole"


def _words(error: ValidationError, where: str) -> list[str]:
    return [
        f"{where}: `{'.'.join(map(str, e['loc'])) or 'the row'}`: {e['msg']}; got {str(e['input'])[:60]!r}"
        for e in error.errors()
    ]


def _refuse(what: str, problems: Sequence[str]) -> NoReturn:
    more = [f"and {len(problems) - MOST_SHOWN} more"] if len(problems) > MOST_SHOWN else []
    raise DataError("\n  ".join([f"{what}:", *problems[:MOST_SHOWN], *more]))
