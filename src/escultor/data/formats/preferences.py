"""Rows in which one answer is better than another, as prompt, chosen and rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from escultor.data.formats.chat import CONVERSATIONS, NO_ANSWER, tools_of, turns
from escultor.data.formats.transcripts import hh_messages, is_hh, transcript_messages
from escultor.data.jsonl_rows import Fault, Skip, short
from escultor.strict_json import JsonObject, strict_loads


def preference(
    prompt: str, chosen: str = "chosen", rejected: str = "rejected"
) -> Callable[[JsonObject], JsonObject]:
    """The function for rows whose prompt and answers have these names."""

    def convert(row: JsonObject) -> JsonObject:
        rest = {
            k: v for k, v in row.items() if k not in (prompt, chosen, rejected, "system", "system_prompt")
        }
        asked = row.get(prompt)
        system = row.get("system") or row.get("system_prompt")
        if isinstance(asked, list):
            asked = turns(asked, prompt)
        if system and isinstance(asked, str):
            asked = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
        sides = {"chosen": _side(row, chosen), "rejected": _side(row, rejected)}
        if asked is None:
            raise Skip(f"empty {prompt}")
        return {"prompt": _prompt_of(asked, sides), **sides, **tools_of(rest.pop("tools", None)), **rest}

    return convert


def _side(row: JsonObject, key: str) -> Any:
    value = row.get(key)
    if isinstance(value, dict) and isinstance(value.get("content", value.get("value")), str):
        return turns([value], key)
    return turns(value, key) if isinstance(value, list) else value


def _prompt_of(asked: Any, sides: dict[str, Any]) -> Any:
    """The prompt as the answers repeat it, with their system message; else as it is given."""
    chosen, rejected = sides.values()
    if isinstance(asked, str) and isinstance(chosen, list) and isinstance(rejected, list):
        repeated = chosen[:-1]
        if repeated and repeated == rejected[:-1] and repeated[-1].get("content") == asked:
            return repeated
    return asked


def implicit(row: JsonObject) -> JsonObject:
    """Answers that both begin with the prompt: transcripts of Anthropic's form, messages, or texts, of which
    the common beginning up to a blank is the prompt (as TRL has it)."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    rest = {k: v for k, v in row.items() if k not in ("chosen", "rejected")}
    if is_hh(chosen) and is_hh(rejected):
        chosen, rejected = hh_messages(str(chosen)), hh_messages(str(rejected))
    elif (first := transcript_messages(chosen)) and (second := transcript_messages(rejected)):
        chosen, rejected = first, second
    if isinstance(chosen, list) and isinstance(rejected, list):
        first, second = turns(chosen, "chosen"), turns(rejected, "rejected")
        if first[:-1] != second[:-1]:
            raise Fault("the answers differ before the last", None, "the same prompt in both")
        if len(first) < 2:
            raise Fault("the answers have no prompt", short(chosen), "the prompt before each answer")
        return {"prompt": first[:-1], "chosen": first[-1:], "rejected": second[-1:], **rest}
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise Fault(
            "chosen and rejected are of different types", short(rejected), "text, or messages, in both"
        )
    end = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    end = chosen.rfind(" ", 0, end + 1)
    if end <= 0:
        raise Fault("the answers have no common beginning", short(chosen), "the prompt before each answer")
    return {"prompt": chosen[:end], "chosen": chosen[end:], "rejected": rejected[end:], **rest}


def openai_preference(row: JsonObject) -> JsonObject:
    """A row of OpenAI's preference fine-tuning."""
    asked = row.get("input")
    if not isinstance(asked, dict):
        raise Fault("`input` is of the wrong type", short(asked), '{"messages": […]}')
    rest = {k: v for k, v in row.items() if k not in ("input", "preferred_output", "non_preferred_output")}
    return {
        "prompt": turns(asked.get("messages"), "input.messages"),
        "chosen": turns(row.get("preferred_output"), "preferred_output"),
        "rejected": turns(row.get("non_preferred_output"), "non_preferred_output"),
        **tools_of(asked.get("tools")),
        **rest,
    }


def conversation_pair(row: JsonObject) -> JsonObject:
    """A conversation and two continuations of it (LLaMA-Factory, Axolotl), which may begin with it."""
    key = next(key for key in CONVERSATIONS if row.get(key) is not None)
    used = (key, "chosen", "rejected", "system", "tools")
    rest = {k: v for k, v in row.items() if k not in used}
    if isinstance(row["chosen"], list) and len(row["chosen"]) > 1:
        return implicit({k: v for k, v in row.items() if k != key})
    prompt = turns(row[key], key)
    if prompt[-1]["role"] == "assistant":
        allowed = "a question last; the answers are in `chosen` and `rejected`"
        raise Fault(f"`{key}` ends with an answer", short(prompt[-1]["content"]), allowed)
    if row.get("system"):
        prompt = [{"role": "system", "content": row["system"]}, *prompt]
    sides = {side: _side(row, side) for side in ("chosen", "rejected")}
    return {"prompt": prompt, **sides, **tools_of(row.get("tools")), **rest}


def two_responses(
    prompt: str, answers: tuple[str, str], choice: str, first: Sequence[Any], second: Sequence[Any]
) -> Callable[[JsonObject], JsonObject]:
    """The function for rows of two answers and a key whose values say that the first or the second is better
    (SHP, PKU-SafeRLHF, HelpSteer3). For any other value it raises Skip."""

    def convert(row: JsonObject) -> JsonObject:
        if row.get(choice) not in (*first, *second):
            raise Skip(f"no winner: {short(row.get(choice))}")
        better = answers if row[choice] in first else answers[::-1]
        rest = {k: v for k, v in row.items() if k not in (prompt, *answers, choice)}
        asked = turns(row[prompt], prompt) if isinstance(row[prompt], list) else row[prompt]
        return {"prompt": asked, "chosen": row[better[0]], "rejected": row[better[1]], **rest}

    return convert


def continued(row: JsonObject) -> JsonObject:
    """A conversation whose last answer is better than another one, or than the last of other messages
    (ms-swift)."""
    keys = ("messages", "rejected_response", "rejected_messages")
    rest = {k: v for k, v in row.items() if k not in keys}
    messages = turns(row.get("messages"), "messages")
    other = row.get("rejected_response") or row.get("rejected_messages")
    rejected = turns(other, "rejected_messages")[-1:] if isinstance(other, list) else other
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise Skip(NO_ANSWER)
    return {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": rejected, **rest}


def arena_texts(row: JsonObject) -> JsonObject:
    """A battle of two models whose prompts and answers are lists in JSON, and whose winner has a column."""
    try:
        said = {k: strict_loads(str(row[k])) for k in ("prompt", "response_a", "response_b")}
    except ValueError as error:
        raise Fault("the texts of a battle are no JSON", short(row["prompt"]), "lists of texts") from error
    winner = next((each for each in "ab" if row.get(f"winner_model_{each}") in (1, "1")), None)
    if winner is None:
        raise Skip("no winner")
    loser = "b" if winner == "a" else "a"
    if not all(isinstance(v, list) and len(v) == 1 and isinstance(v[0], str) for v in said.values()):
        raise Skip("a battle of several turns")
    (asked,), (better,), (worse,) = said["prompt"], said[f"response_{winner}"], said[f"response_{loser}"]
    return {"prompt": asked, "chosen": better, "rejected": worse}


# --- several rated answers --------------------------------------------------------------------


def rated(row: JsonObject) -> JsonObject:
    """The best of several rated answers over the worst. Raises Skip where they are rated alike."""
    prompt = next((row[key] for key in ("instruction", "prompt", "question", "input") if row.get(key)), None)
    answers = next(
        (row[key] for key in ("generations", "completions", "responses", "answers") if row.get(key)), None
    )
    if not isinstance(answers, list) or not isinstance(prompt, str | list):
        raise Fault("the row has no prompt and answers", short(sorted(row)), "instruction and generations")
    ratings = next((row[key] for key in ("ratings", "rating", "scores") if row.get(key) is not None), None)
    if ratings is None:
        ratings = [_first(a, ("overall_score", "rating", "score")) for a in answers]
        ranks = [_number(_first(a, ("rank",))) for a in answers]  # 1 is the best (Nectar)
        ratings = [-n for n in ranks if n is not None] if not any(r is not None for r in ratings) else ratings
    texts = [
        _first(a, ("response", "text", "content", "generation", "answer")) if isinstance(a, dict) else a
        for a in answers
    ]
    if not isinstance(ratings, list) or len(ratings) != len(texts):
        raise Fault("the row has no rating for each answer", short(ratings), f"{len(texts)} numbers")
    both = [(r, t) for r, t in zip(map(_number, ratings), texts, strict=True) if r is not None and t]
    asked = [m for m in hh_messages(str(prompt)) if m["content"]] if is_hh(prompt) else prompt
    return {"prompt": asked, **best_over_worst(both)}


def best_over_worst(answers: list[tuple[float, Any]]) -> JsonObject:
    """The first of the best-rated answers as chosen, the last of the worst as rejected."""
    if len(answers) < 2:
        raise Skip("fewer than two rated answers")
    best, worst = max(answers, key=lambda a: a[0]), min(reversed(answers), key=lambda a: a[0])
    if best[0] == worst[0]:
        raise Skip("the answers are rated alike")
    return {"chosen": best[1], "rejected": worst[1]}


def _first(value: Any, keys: Sequence[str]) -> Any:
    return (
        next((value[key] for key in keys if value.get(key) is not None), None)
        if isinstance(value, dict)
        else None
    )


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def arena(row: JsonObject) -> JsonObject:
    """A battle of two models. Raises Skip for a tie."""
    sides = {"model_a": ("conversation_a", "conversation_b"), "model_b": ("conversation_b", "conversation_a")}
    if row.get("winner") not in sides:
        raise Skip(f"no winner: {short(row.get('winner'))}")
    chosen, rejected = (row[key] for key in sides[row["winner"]])
    return implicit({"chosen": chosen, "rejected": rejected})
