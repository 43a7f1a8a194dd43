"""Encoding of text that never yields a control token."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from escultor.errors import DataError, TooLong
from escultor.text.tokenizer import tokenizer_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 4096  # texts encoded at a time: the library's encodings are many times larger than the ids
_CUT = 4  # tokens that a cut through a text may add
_IN_WORDS = "-'_\u2581"
_NAMED = ("bos", "eos", "pad", "sep", "cls", "mask")


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that only a template may produce: tokens marked special, and other added tokens that look like
    markup (`<think>`, `<tool_call>`, `<|fim_middle|>`, `[INST]`).

    An added token that is not special and consists of letters, digits, spaces, `-`, `'` and `_` is a word of
    the vocabulary, which text may contain. The token for unknown characters is not a control token.
    """
    known: Any = tokenizer
    added = known.added_tokens_decoder
    named = {getattr(known, f"{name}_token_id") for name in _NAMED} - {None}
    control = named | special_ids(tokenizer)
    control |= {id for id, token in added.items() if not _is_word(token.content)}
    return frozenset(control - ({known.unk_token_id} - named))


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids of tokens that are marked special, which no decoded text shows."""
    known: Any = tokenizer
    marked = {id for id, token in known.added_tokens_decoder.items() if token.special}
    return frozenset(marked | set(known.all_special_ids))


def _is_word(text: str) -> bool:
    return all(c.isspace() or c in _IN_WORDS or unicodedata.category(c)[0] in "LMN" for c in text)


def refuse_longer(text: str, limit: int, encode: Callable[[list[str]], list[list[int]]]) -> None:
    """Raise TooLong for a text of more than `limit` tokens, without making all of them."""
    piece = min(max(8 * limit, 1 << 12), 1 << 16)  # characters
    if len(text) <= max(4 * limit, piece):
        return
    tokens = 0
    for start in range(0, len(text), piece):
        (ids,) = encode([text[start : start + piece]])
        tokens += max(0, len(ids) - _CUT)
        if tokens > limit:
            got = f"{len(text)} characters, more than {tokens} tokens"
            what = "the prompt does not fit the model's context"
            raise TooLong(what, got, f"{limit} tokens", "shorten the prompt")


class PlainText:
    """Encodes contents; text without control tokens gets exactly the tokenizer's own ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer
        self.control = control_ids(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text. Raises DataError for a text that cannot be written without a control
        token (of a tokenizer in which a single character is one)."""
        encoded: list[list[int]] = []
        for start in range(0, len(texts), BATCH):
            encoded += self._encode(texts[start : start + BATCH])
        return [ids if self.control.isdisjoint(ids) else self.spelled(ids) for ids in encoded]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self._backend is None:
            return [
                self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
                for text in texts
            ]
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @cached_property
    def _backend(self) -> Any:
        """A copy of the fast tokenizer that does not match control tokens; None for a tokenizer in Python,
        which `split_special_tokens` keeps from matching them."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        parts = json.loads(tokenizer_json(backend))
        for token in parts["added_tokens"]:
            token["special"] = token["special"] or token["id"] in self.control
        copy = type(backend).from_str(json.dumps(parts))
        copy.encode_special_tokens = True  # encodes special tokens as ordinary text
        return copy

    def spelled(self, ids: list[int]) -> list[int]:
        """The ids with every control token replaced by its characters: vocabularies that contain it as a word
        (Unigram, WordLevel, BPE with `ignore_merges`) assign it to text without matching added tokens."""
        tokens = self.tokenizer.convert_ids_to_tokens
        nested = ([id] if id not in self.control else self._characters(tokens(id)) for id in ids)
        spelled = [id for part in nested for id in part]
        if remaining := sorted(self.control & set(spelled)):
            what = "a text can only be written with a control token"
            remedy = "remove these characters from the text"
            raise DataError(what, tokens(remaining), "text that the vocabulary can write", remedy)
        return spelled

    def _characters(self, piece: str) -> list[int]:
        if self._backend is None:
            return [id for id in map(self.tokenizer.convert_tokens_to_ids, piece) if id is not None]
        return [token.id for character in piece for token in self._backend.model.tokenize(character)]
