"""Records of annotation tools: what annotators preferred or wrote, as pairs and examples.

The answers of several annotators to one record are added up, so that one of them does not become as many rows
as there were people, and a tie becomes none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from escultor.data.formats.instructions import PROMPTS
from escultor.data.formats.preferences import best_over_worst
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.strict_json import JsonObject

_PROMPT_FIELDS = (*PROMPTS, "text", "context", "conversation", "chat")
_ANSWER_FIELD = re.compile(
    r"(?:response|answer|generation|completion|output|text|candidate|option|chosen|rejected)"
)
_WRITTEN = re.compile(r"(?:response|answer|completion|correct|rewrit|edited|improved|ideal|gold)", re.I)
_SUBMITTED = ("submitted", "completed", None)
Answers = dict[str, list[Any]]  # by question, the values that annotators gave


# --- Argilla ----------------------------------------------------------------------------------


def argilla(row: JsonObject) -> list[JsonObject]:
    """A record of Argilla, as its exports have it: fields and responses as objects, or flat by column."""
    if isinstance(row.get("fields"), dict):
        fields, answers = row["fields"], _argilla_answers(row["responses"])
    else:
        fields = {k: v for k, v in row.items() if "." not in k and isinstance(v, str | list)}
        answers = _flat_answers(row)
    return _annotated(fields, answers)


def _argilla_answers(responses: Any) -> Answers:
    """By question, the submitted answers: of Argilla 2 by question, of Argilla 1 by annotator."""
    answers: Answers = {}
    if isinstance(responses, Mapping):
        for question, given in responses.items():
            answers[question] = [g["value"] for g in given or () if g.get("status") in _SUBMITTED]
    elif isinstance(responses, list):
        for response in responses:
            if response.get("status") in _SUBMITTED:
                for question, answer in response.get("values", {}).items():
                    answers.setdefault(question, []).append(answer["value"])
    return answers


def _flat_answers(row: JsonObject) -> Answers:
    answers: Answers = {}
    for key, values in row.items():
        if key.endswith(".responses") and isinstance(values, list):
            status = row.get(f"{key}.status") or [None] * len(values)
            given = [v for v, s in zip(values, status, strict=False) if s in _SUBMITTED]
            answers[key.removesuffix(".responses")] = given
    return answers


def is_argilla_flat(row: JsonObject) -> bool:
    """Whether a row has the columns that Argilla writes for the answers to a question."""
    return any(key.endswith(".responses") and f"{key}.status" in row for key in row)


def _annotated(fields: Mapping[str, Any], answers: Answers) -> list[JsonObject]:
    """The rows of one record: a pair of what was ranked, an example for each text that was written."""
    prompt_field = next((name for name in _PROMPT_FIELDS if fields.get(name)), None)
    if prompt_field is None:
        raise Fault("no field of the record is a prompt", short(sorted(fields)), ", ".join(_PROMPT_FIELDS))
    shown = [name for name in fields if name != prompt_field and _ANSWER_FIELD.match(name.lower())]
    rows: list[JsonObject] = []
    for question, values in answers.items():
        ranks = [ranks for value in values if (ranks := _ranks(value, shown))]
        if ranks:
            totals = {name: -sum(each.get(name, len(shown)) for each in ranks) for name in shown}
            both = [(float(total), fields[name]) for name, total in totals.items()]
            rows.append({"prompt": fields[prompt_field], **best_over_worst(both)})
        elif _WRITTEN.search(question):
            texts = Counter(v for v in values if isinstance(v, str) and v.strip())
            rows += [{"prompt": fields[prompt_field], "completion": text} for text in texts]
    if not rows:
        raise Skip(f"no ranking, choice or written answer: {', '.join(sorted(answers)) or 'not annotated'}")
    return rows


def _ranks(value: Any, shown: list[str]) -> dict[str, int]:
    """The rank of each answer (0 the best) by one annotator: a ranking, or the name of the preferred one."""
    if isinstance(value, str) and value in shown and len(shown) > 1:
        return {name: int(name != value) for name in shown}
    if not isinstance(value, list):
        return {}
    if all(isinstance(each, dict) and "value" in each for each in value):
        ranks = {each["value"]: int(each.get("rank") or i) for i, each in enumerate(value)}
    else:
        ranks = {each: i for i, each in enumerate(value) if isinstance(each, str)}
    return ranks if len(ranks.keys() & set(shown)) > 1 else {}


# --- Label Studio -----------------------------------------------------------------------------


def label_studio(row: JsonObject) -> list[JsonObject]:
    """A task of Label Studio: pairwise comparisons and written texts, of JSON and of JSON_MIN exports."""
    if isinstance(row.get("data"), dict):
        data, results = row["data"], list(_results(row["annotations"]))
    else:
        chosen = [k for k, v in row.items() if v in ("left", "right")]
        own = (
            *chosen,
            "id",
            "annotator",
            "annotation_id",
            "lead_time",
            "created_at",
            "updated_at",
            "agreement",
        )
        data = {k: v for k, v in row.items() if k not in own}
        results = [("pairwise", {"selected": row[key]}) for key in chosen]
    prompt = next((name for name in _PROMPT_FIELDS if isinstance(data.get(name), str | list)), None)
    shown = [name for name, v in data.items() if name != prompt and isinstance(v, str)]
    rows: list[JsonObject] = []
    selected = Counter(value["selected"] for kind, value in results if kind == "pairwise")
    if selected:
        shown = shown if len(shown) == 2 else [name for name in shown if _ANSWER_FIELD.match(name.lower())]
        if prompt is None or len(shown) != 2:
            allowed = "a prompt and two answers"
            raise Fault("the task has no prompt and two answers", short(sorted(data)), allowed, "use --map")
        both = [
            (float(selected[side]), data[name]) for side, name in zip(("left", "right"), shown, strict=True)
        ]
        rows.append({"prompt": data[prompt], **best_over_worst(both)})
    for kind, value in results:
        if kind == "textarea" and prompt is not None:
            texts = value.get("text") or []
            rows += [
                {"prompt": data[prompt], "completion": t}
                for t in ([texts] if isinstance(texts, str) else texts)
            ]
    if not rows:
        raise Skip("no comparison and no written text")
    return rows


def _results(annotations: Iterable[JsonObject]) -> Iterator[tuple[str, JsonObject]]:
    for annotation in annotations:
        if not annotation.get("was_cancelled"):
            for result in annotation.get("result") or ():
                yield result.get("type", ""), result.get("value") or {}


def is_label_studio_min(row: JsonObject) -> bool:
    """Whether a row is a comparison in Label Studio's JSON_MIN."""
    return "annotator" in row and any(
        value in ("left", "right") for value in row.values() if isinstance(value, str)
    )
