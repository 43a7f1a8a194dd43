"""Rendered conversations as token ids: control tokens are those that the template wrote."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from escultor.errors import DataError
from escultor.text.literals import Literals
from escultor.text.plain import BATCH, PlainText
from escultor.text.tokenizer import tokenizer_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters that no text should contain, one of which breaks up the literals of control tokens in contents.
_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_BLANK = "\u2581"  # what some vocabularies write for one
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class MarkedText:
    """Text in which `mark` stands within literals of control tokens that are to stay text. Without a mark
    there are none."""

    text: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class ControlPositions:
    """A text, its token ids, and of its control tokens by the character at which they start or end the number
    of tokens up to there. Nothing merges across a control token, so that the tokens up to one are those of
    the text up to it."""

    text: str
    ids: list[int]
    starts: dict[int, int]
    ends: dict[int, int]


class TextEncoder:
    """Encodes texts exactly as the tokenizer does, and marked literals of control tokens as ordinary text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, plain: PlainText):
        self.tokenizer: Any = tokenizer
        self.plain = plain
        names = self.tokenizer.convert_ids_to_tokens(sorted(plain.control))
        self._names = dict(zip(sorted(plain.control), names, strict=True))
        self.literals = Literals(names)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        # A copy that nobody else configures; None for a tokenizer in Python.
        self._backend: Any = None if backend is None else type(backend).from_str(tokenizer_json(backend))

    def choose_mark(self, texts: Sequence[tuple[str, Literals]]) -> str:
        """A character to break up the literals with that the texts must not contain; "" where none does."""
        if not any(self._contains(text, literals) for text, literals in texts):
            return ""
        for mark in _MARKS:
            if not any(mark in text for text, _ in texts):
                return mark
        raise DataError("a text contains every character that is none", None, "Unicode text")

    def encode(self, texts: Sequence[MarkedText]) -> list[list[int]]:
        """The token ids of each text. Raises DataError for a text that cannot be written without a control
        token (of a tokenizer in which a single character is one)."""
        unmarked = [each.text for each in texts if not each.mark]
        fast = iter(self._encode(unmarked))
        return [self._encode_marked(each.text, each.mark) if each.mark else next(fast) for each in texts]

    def control_positions(self, text: str, ids: list[int]) -> ControlPositions | None:
        """Where the control tokens of a text without a mark stand, which has these tokens; None where its
        literals are not its control tokens one by one."""
        found = list(self.literals.find(text))
        control = [i for i, id in enumerate(ids) if id in self._names]
        if [text[start:end] for start, end in found] != [self._names[ids[i]] for i in control]:
            return None
        starts = {start: i for (start, _), i in zip(found, control, strict=True)}
        return ControlPositions(text, ids, starts, {end: starts[start] + 1 for start, end in found})

    def _contains(self, text: str, literals: Literals) -> bool:
        normalized = self._normalized(text)
        for seen in (text,) if normalized is text else (text, normalized):
            for start, end in literals.find(seen):
                if end - start > 1:
                    return True
                what = "a text can only be written with a control token"
                remedy = "remove these characters from the text"
                raise DataError(what, [seen[start:end]], "text that the vocabulary can write", remedy)
        return False

    def _normalized(self, text: str) -> str:
        """The text as the vocabulary sees it, where that may bring about a literal."""
        kinds = self._normalizers
        if not kinds or (text.isascii() and self._keeps_ascii):
            return text
        if kinds <= {"NFC", "NFKC"} and unicodedata.is_normalized("NFKC", text):
            return text
        return self._backend.normalizer.normalize_str(text)

    @cached_property
    def _normalizers(self) -> frozenset[str]:
        """The kinds of normalisation that may bring about a literal: all but marks for blanks."""
        if self._backend is None or self._backend.normalizer is None:
            return frozenset()
        whole = json.loads(self._backend.to_str())["normalizer"]
        parts = whole["normalizers"] if whole["type"] == "Sequence" else [whole]
        harmless = not any(_BLANK in name for name in self.literals.texts)
        return frozenset(part["type"] for part in parts if not harmless or _BLANK not in part.values())

    @cached_property
    def _keeps_ascii(self) -> bool:
        return self._backend.normalizer.normalize_str(_ASCII).lstrip(_BLANK) == _ASCII

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self._backend is None:
            return [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        encoded: list[list[int]] = []
        for start in range(0, len(texts), BATCH):
            batch = self._backend.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False)
            encoded += [encoding.ids for encoding in batch]
        return encoded

    def _encode_marked(self, text: str, mark: str) -> list[int]:
        if self._backend is None:
            return [id for part in self._encode(text.split(mark)) for id in part]
        encoding = self._marked_backend(mark).encode(text, add_special_tokens=False)
        ids: list[int] = []
        for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            written = id not in self._names or text[start:end].strip() == self._names[id].strip()
            ids += [id] if written else self.plain.spelled([id])
        return ids

    @lru_cache(maxsize=4)  # noqa: B019
    def _marked_backend(self, mark: str) -> Any:
        """A copy that deletes the mark after it has matched control tokens, which broken ones are not."""
        erase = {"type": "Replace", "pattern": {"String": mark}, "content": ""}
        parts = json.loads(self._backend.to_str())
        own = parts["normalizer"]
        parts["normalizer"] = {"type": "Sequence", "normalizers": [erase, *([own] if own else [])]}
        parts["added_tokens"] = [token | {"normalized": False} for token in parts["added_tokens"]]
        return type(self._backend).from_str(json.dumps(parts))
