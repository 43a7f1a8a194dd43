"""Keys that change what a row means: verdicts on its answer, and reasons not to learn it, under their many
names. Names are compared without what goes round them: `isHelpful`, `user_rating`, `human-label`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from escultor.data.row_messages import Fault, Skip, label_of, short
from escultor.strict_json import JsonObject
from escultor.types import RowKind

# Names of verdicts: those that are one whatever stands there, those that are one where a word, true or false
# stands there, or 0 and 1, those whose truth is a bad verdict, and those whose numbers may be on any scale.
_VERDICTS = (
    ("kto_tag", "desirable", "liked", "is_good", "is_chosen", "thumb"),
    (
        *("accepted", "approved", "thumbs_up", "upvoted", "correct", "good", "label", "kto_label"),
        *("aprovado", "aprovada", "correto", "correta", "gostou"),
    ),
    ("bad", "wrong", "incorrect", "disliked", "thumbs_down", "downvoted", "rejected", "undesirable"),
    (
        *("rating", "feedback", "vote", "thumbs", "preference", "verdict", "quality", "reaction"),
        *("desirability", "avaliação", "avaliacao", "voto"),
    ),
)
_ALWAYS, _, _AGAINST, _WORDS = range(4)
_NO_VOTES = ((_WORDS, 0), (_WORDS, "0"))
_NAME_CHARS = 40
_OPPOSITE = re.compile(
    r"reject|dispref|undesir|loser|incorrect|(?:^|_)(?:bad|worse|worst|wrong|negative)(?:_|$)", re.I
)
_AROUND = re.compile(r"^(?:is|was|user|human|annotator|binary|unpaired|completion|response|answer)_|_label$")


def _said(names: str, *values: str) -> dict[str, frozenset[str]]:
    return dict.fromkeys(names.split(), frozenset(" ".join(values).split()))


# What a key says where its row is not to be learnt: a row of any kind, and an example.
_TRUE, _FALSE = "true 1 1.0", "false 0 0.0"
_FAILED = "failed failure error errored rejected discarded deleted cancelled canceled timeout aborted"
_NOT_LEARNT = (
    _said("exclude excluded ignore ignored skip deleted removed discarded do_not_train no_train spam", _TRUE)
    | _said("train training trainable learn include included keep opt_in allow_training can_train", _FALSE)
    | _said("consent training_consent", _FALSE, "none no denied opt_out eval_only")
    | _said("split data_split partition", "test testing validation valid val dev eval evaluation held_out")
)
_NO_EXAMPLE = (
    _NOT_LEARNT
    | _said("error failed failure toxic unsafe harmful flagged truncated interrupted", _TRUE)
    | _said("hallucination hallucinated", _TRUE)
    | _said("helpful useful success successful succeeded passed pass valid verified safe", _FALSE)
    | _said("selected chosen correctness done", _FALSE)
    | _said("status state", _FAILED)
    | _said("finish_reason stop_reason", _FAILED, "length max_tokens content_filter")
)


@lru_cache(4096)
def _names(key: str) -> tuple[str, ...]:
    """A key in snake case, as it is and without what goes round its name."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]", "_", key).lower()
    inner = _AROUND.sub("", plain)
    return plain, inner, _AROUND.sub("", inner)


@lru_cache(4096)
def _verdict_of_name(key: str) -> int | None:
    """Which of the `_VERDICTS` a key is named after."""
    return next((i for i, known in enumerate(_VERDICTS) if not set(known).isdisjoint(_names(key))), None)


def verdict_key(row: JsonObject) -> str | None:
    """The key of a row's verdict on its answer; None where it has none, as if not liked and not disliked."""
    found = [(rank, key) for key in row if key != "label" and (rank := _rank(key, row[key])) is not None]
    if not found:  # as nearly always
        return None
    against = [key for _, key in found if is_against(key)]
    if worse := next((key for key in against if not verdict_of(row, key)), None):
        return worse
    _, key = min((each for each in found if each[1] not in against), default=(0, None))
    is_vote_of_nobody = key and against and not verdict_of(row, key)
    return None if is_vote_of_nobody else key


def verdict_of(row: JsonObject, key: str) -> bool:
    """The verdict under a key, as true for a good answer. Raises Fault for what is none."""
    return label_of(_unwrapped(row[key])) is not is_against(key)


def is_against(key: str) -> bool:
    """Whether what is true under a key is a bad verdict."""
    return _verdict_of_name(key[:_NAME_CHARS]) == _AGAINST


def _rank(key: str, value: Any) -> int | None:
    """Which of the `_VERDICTS` stands under a key; None for no verdict."""
    found = _verdict_of_name(key[:_NAME_CHARS])
    if found is None or value is None or isinstance(value, list):
        return None
    return found if found == _ALWAYS or _is_verdict(_unwrapped(value), found != _WORDS) else None


def _is_verdict(value: Any, any_number: bool) -> bool:
    if isinstance(value, bool):
        return True
    try:
        label_of(value)
    except Fault:
        return False
    is_word = isinstance(value, str) and not value.strip().lstrip("-").isdigit()
    return is_word or any_number or value in (-1, "-1")


def _unwrapped(value: Any) -> Any:
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def reason_to_leave_out(keys: Iterable[str], row: JsonObject, kind: RowKind) -> str | None:
    """Why a row is not to be learnt, by what it says under keys that are not read; None for no reason."""
    known = _NO_EXAMPLE if kind == "example" else _NOT_LEARNT
    for key in keys:
        for name in _names(key[:_NAME_CHARS]):
            if name in known and str(row[key]).strip().lower() in known[name]:
                return f"not to be learnt: `{key}` is {short(row[key])}"
    return None


def is_unwanted(turn: JsonObject) -> bool:
    """Whether an answer within a conversation is said to be bad, or not to be learnt."""
    key = "label" if _is_verdict(turn.get("label"), any_number=True) else verdict_key(turn)
    is_bad = key is not None and not verdict_of(turn, key)
    return is_bad or reason_to_leave_out(turn, turn, "example") is not None


def judged(convert: Callable[[JsonObject], Any]) -> Callable[[JsonObject], JsonObject]:
    """The function for rows that `convert` reads and that have a verdict besides."""

    def with_label(row: JsonObject) -> JsonObject:
        key = verdict_key(row) or next((key for key, value in row.items() if _is_given(key, value)), None)
        if key is None:
            raise Skip("without a verdict on its answer")
        label = verdict_of(row, key)
        return convert({k: v for k, v in row.items() if k != key}) | {"label": label}

    return with_label


def _is_given(key: str, value: Any) -> bool:
    """Whether a key is named after a verdict and not empty. Where votes are -1 and 1, 0 is none."""
    found = _verdict_of_name(key[:_NAME_CHARS])
    return found is not None and key != "label" and value is not None and (found, value) not in _NO_VOTES


def opposite_keys(row: JsonObject, known: frozenset[str]) -> list[str]:
    """The keys that hold a worse answer, by their names, and are not among those that a format reads."""
    found = [k for k, v in row.items() if v and k not in known and _OPPOSITE.search(k)]
    return [k for k in found if not _is_verdict(row[k], any_number=True)]
