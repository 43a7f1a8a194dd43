"""The table of formats: by which keys the rows of each are recognised, and what becomes of them.

A new format is a function from its row to ours and one row of `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from escultor.data.containers.json_stream import Numbered
from escultor.data.formats import annotations as notes
from escultor.data.formats import instructions as ask
from escultor.data.formats import preferences as prefer
from escultor.data.formats.chat import CONVERSATIONS, conversation
from escultor.data.formats.openai_api import openai_batch, openai_stored
from escultor.data.formats.trees import chatgpt_rows, tree_rows, trees_of_messages
from escultor.data.verdicts import judged, verdict_key
from escultor.strict_json import JsonObject

Convert = Callable[[JsonObject], JsonObject | list[JsonObject]]
UNANSWERED = (
    "these are prompts without answers: measure with them as a suite, or have a model answer them first"
)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How rows of a format are recognised and read. A row fits if it has all keys of one of the sets, not
    null, and `is_row` holds; of formats that fit, one with more of the row's keys goes before one with fewer,
    ours go before aliases, and a `general` one comes last. `group` makes rows of several."""

    name: str
    keys: tuple[frozenset[str], ...]
    becomes: str
    convert: Convert
    is_row: Callable[[JsonObject], bool] | None = None
    group: Callable[[Iterator[Numbered]], Iterator[Numbered]] | None = None
    is_alias: bool = False  # our keys under other names
    is_general: bool = False
    refused: str = ""  # why nothing can be learnt from its rows


def _format(name: str, keys: str, becomes: str, convert: Convert, **more: object) -> RowFormat:
    """A row of the table: the sets of keys are separated by `|`, keys by blanks."""
    sets = tuple(frozenset(each.split()) for each in keys.split("|"))
    return RowFormat(name, sets, becomes, convert, **more)  # type: ignore[arg-type]


def _are_texts(*keys: str) -> Callable[[JsonObject], bool]:
    return lambda row: all(isinstance(row[key], str) for key in keys)


def _is_list(key: str) -> Callable[[JsonObject], bool]:
    return lambda row: isinstance(row[key], list)


def _are_choices(row: JsonObject) -> bool:
    return isinstance(row["choices"], list) and all(isinstance(each, dict) for each in row["choices"])


def _has_turns(row: JsonObject) -> bool:
    return any(isinstance(row.get(key), list) for key in CONVERSATIONS)


def _is_tree(row: JsonObject) -> bool:
    return isinstance(row["prompt"], dict)


def _is_mapping(row: JsonObject) -> bool:
    return isinstance(row["mapping"], dict)


def _is_anthropic(row: JsonObject) -> bool:
    if not isinstance(row["messages"], list):
        return False
    blocks = (m.get("content") for m in row["messages"] if isinstance(m, dict))
    kinds = {b.get("type") for each in blocks if isinstance(each, list) for b in each if isinstance(b, dict)}
    return bool(row.get("system")) or bool(kinds & {"tool_use", "tool_result", "thinking"})


def _questions() -> Iterator[RowFormat]:
    """A format for every pair of names that a question and its answer go by."""
    own = {("prompt", "completion"), ("instruction", "output"), ("instruction", "response")}
    names = [(p, a) for p in ask.PROMPTS for a in ask.ANSWERS if (p, a) not in own]
    others = (("inputs", "targets"), ("input", "target"), ("human", "assistant"), *_PORTUGUESE)
    for prompt, answer in (*names, *others):
        convert = ask.asked(prompt, answer, "context")
        is_row = _are_texts(prompt, answer)
        name, keys = f"{prompt}-{answer}", f"{prompt} {answer}"
        yield _format(name, keys, "example", convert, is_row=is_row, is_alias=True)


def _preferences() -> Iterator[RowFormat]:
    """A format for every name that the prompt of a preference goes by."""
    for prompt in ask.PROMPTS:
        for chosen, rejected in _SIDES:
            convert = prefer.preference(prompt, chosen, rejected)
            name = f"{prompt}-{chosen}" if chosen.startswith("chosen") else f"{prompt}-{chosen}-{rejected}"
            if name != "prompt-chosen":  # ours
                keys, fits = f"{prompt} {chosen} {rejected}", partial(_is_first_prompt, prompt)
                yield _format(name.replace("_", "-"), keys, "pair", convert, is_row=fits)


def _is_first_prompt(prompt: str, row: JsonObject) -> bool:
    return prompt == "prompt" or "prompt" not in row


def _verdicts(formats: Iterable[RowFormat]) -> Iterator[RowFormat]:
    """For every format of examples one of the same rows with a verdict on the answer."""
    for each in formats:
        if each.becomes == "example":
            yield replace(
                each,
                name=f"{each.name}-kto",
                becomes="unpaired",
                convert=judged(each.convert),
                is_row=partial(_has_verdict, each.is_row),
            )


def _has_verdict(is_row: Callable[[JsonObject], bool] | None, row: JsonObject) -> bool:
    return verdict_key(row) is not None and (is_row is None or is_row(row))


def _is_alternating(row: JsonObject) -> bool:
    return isinstance(row["data"], list) and all(isinstance(each, str) for each in row["data"])


def _is_unanswered(row: JsonObject) -> bool:
    """Whether nothing beside a prompt looks like an answer."""
    return not any(_ANSWER.search(key) for key, value in row.items() if key != "prompt" and value)


_ANSWER = re.compile(r"response|answer|completion|output|chosen|reply|solution|generation", re.I)
_PORTUGUESE = (
    ("pergunta", "resposta"),
    ("instrução", "resposta"),
    ("entrada", "saída"),
    ("entrada", "saida"),
)
_SIDES = (  # names of a better and a worse answer
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("response", "rejected_response"),
    ("preferred", "dispreferred"),
    ("preferred_response", "dispreferred_response"),
    ("preferred_response", "rejected_response"),
    ("accepted", "rejected"),
    ("winner", "loser"),
    ("response_j", "response_k"),
)
_alpaca = ask.asked("instruction", "output", "input")
_alpaca_response = ask.asked("instruction", "response", "input")
_sharegpt_keys = "conversations|conversation|dialog|dialogue|turns|items|chat_messages"
_continued_keys = "conversations chosen rejected|conversation chosen rejected|messages chosen rejected"
_squad_keys, _tree_keys = (
    "question context answers",
    "message_id parent_id text role|message_id message_tree_id text role",
)
_alpaca_keys = "instruction output|instruction input output"
_safe = prefer.two_responses("prompt", ("response_0", "response_1"), "better_response_id", (0, "0"), (1, "1"))
_shp = prefer.two_responses("history", ("human_ref_A", "human_ref_B"), "labels", (1, "1"), (0, "0"))
_steer = prefer.two_responses(
    "context", ("response1", "response2"), "overall_preference", (-3, -2, -1), (1, 2, 3)
)
_rated_keys = (
    "instruction generations|prompt generations|instruction completions|prompt responses|prompt answers"
)
_NO_PROMPTS = (
    "answers without their prompts; add the `messages` of each completion, which the API lists at"
    " /v1/chat/completions/ID/messages"
)
_STEPS = "labels of single steps, for a process reward model, which Escultor does not train"
_PLAIN: tuple[RowFormat, ...] = (
    # conversations
    _format("messages", "messages", "example", conversation, is_row=_is_list("messages")),
    _format("anthropic", "messages", "example", conversation, is_row=_is_anthropic),
    _format("kto-messages", "messages label", "unpaired", conversation),
    _format("sharegpt", _sharegpt_keys, "example", conversation, is_row=_has_turns),
    _format("sharegpt-preference", _continued_keys, "pair", prefer.conversation_pair),
    _format("chatgpt-export", "mapping current_node", "example", chatgpt_rows, is_row=_is_mapping),
    _format("alternating", "data", "example", ask.alternating, is_row=_is_alternating),
    _format("gemini", "contents", "example", conversation, is_row=_is_list("contents")),
    _format("transcript", "text", "example", ask.transcript, is_row=ask.is_transcript),
    _format("oasst-tree", "message_tree_id prompt", "example and pair", tree_rows, is_row=_is_tree),
    _format("oasst-messages", _tree_keys, "example and pair", tree_rows, group=trees_of_messages),
    # instructions
    _format("alpaca", _alpaca_keys, "example", _alpaca),
    _format("alpaca-response", "instruction input response", "example", _alpaca_response),
    _format("dolly", "instruction response", "example", ask.asked("instruction", "response", "context")),
    _format("squad", _squad_keys, "example", ask.squad, is_row=lambda row: isinstance(row["answers"], dict)),
    _format("prompt-completion", "prompt completion", "example", ask.canonical),
    _format("kto", "prompt completion label", "unpaired", ask.canonical),
    *_questions(),
    # preferences
    _format("preference", "prompt chosen rejected", "pair", prefer.preference("prompt")),
    _format("alpaca-preference", "instruction input chosen rejected", "pair", ask.preferred),
    _format("ultrafeedback", "prompt chosen rejected messages", "pair", prefer.preference("prompt")),
    *_preferences(),
    _format("implicit-preference", "chosen rejected", "pair", prefer.implicit),
    _format("openai-preference", "input preferred_output", "pair", prefer.openai_preference),
    _format("safe-rlhf", "prompt response_0 response_1 better_response_id", "pair", _safe),
    _format("shp", "history human_ref_A human_ref_B labels", "pair", _shp),
    _format("helpsteer3", "context response1 response2 overall_preference", "pair", _steer),
    _format(
        "swift-preference", "messages rejected_response|messages rejected_messages", "pair", prefer.continued
    ),
    _format("arena-texts", "prompt response_a response_b winner_model_a", "pair", prefer.arena_texts),
    _format("arena", "conversation_a conversation_b winner", "pair", prefer.arena),
    _format("distilabel", _rated_keys, "pair", prefer.rated),
    _format("argilla", "fields responses", "example and pair", notes.argilla),
    _format("argilla-flat", "id", "example and pair", notes.argilla, is_row=notes.is_argilla_flat),
    _format("label-studio", "data annotations", "example and pair", notes.label_studio),
    _format("label-studio-min", "annotator", "pair", notes.label_studio, is_row=notes.is_label_studio_min),
    # records of OpenAI's API
    _format("openai-stored", "choices messages|choices input", "example", openai_stored),
    _format("openai-answers", "choices", "", ask.canonical, is_row=_are_choices, refused=_NO_PROMPTS),
    _format("openai-batch", "custom_id response", "example", openai_batch),
    _format("openai-batch-input", "custom_id body", "", ask.canonical, refused=UNANSWERED),
    # what is not learnt from
    _format("stepwise", "prompt completions labels", "", ask.canonical, refused=_STEPS),
    _format(
        "prompt-only", "prompt", "", ask.canonical, is_row=_is_unanswered, is_general=True, refused=UNANSWERED
    ),
    # plain text
    _format("text", "text", "document", ask.canonical, is_general=True),
)
FORMATS: tuple[RowFormat, ...] = (*_PLAIN, *_verdicts(_PLAIN))
BY_NAME = {format.name: format for format in FORMATS}
# The formats whose rows are ours as they are: their JSONL files are read strictly.
CANONICAL = (
    "messages",
    "prompt-completion",
    "kto",
    "kto-messages",
    "preference",
    "implicit-preference",
    "text",
)


def fitting(row: JsonObject) -> list[RowFormat]:
    """The formats that fit a row best: one, several if none goes before another, or none."""
    keys = {key for key, value in row.items() if value is not None}
    found: list[tuple[RowFormat, frozenset[str]]] = []
    for format in FORMATS:
        matched = max((s for s in format.keys if s <= keys), key=len, default=None)
        if matched is not None and _is_row(format, row):
            found.append((format, matched))
    if any(format.name in CANONICAL and not format.is_general for format, _ in found):
        found = [(format, matched) for format, matched in found if not format.is_alias]
    if not all(format.is_general for format, _ in found):
        found = [(format, matched) for format, matched in found if not format.is_general]
    return [f for f, s in found if not any(_goes_before(other, s, f) for other in found)]


def _is_row(format: RowFormat, row: JsonObject) -> bool:
    try:
        return format.is_row is None or format.is_row(row)
    except (AttributeError, LookupError, TypeError, ValueError):  # a value is of another type
        return False


def _goes_before(other: tuple[RowFormat, frozenset[str]], keys: frozenset[str], format: RowFormat) -> bool:
    """Whether a format asks for more than another that fits too: more keys, or a check of its own."""
    is_checked = other[0].is_row is not None and FORMATS.index(other[0]) > FORMATS.index(format)
    return keys < other[1] or (keys == other[1] and is_checked)
