"""Text to tokens with no control token among them, whatever the text says."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from escultor.errors import DataError
from escultor.text.tokenizer import tokenizer_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 4096  # texts encoded at a time: what the library keeps of each is many times its ids
_IN_WORDS = "-'_\u2581"
_NAMED = ("bos", "eos", "pad", "sep", "cls", "mask")


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that only a template may write: those marked special, and all other added tokens that
    look like markup (`<think>`, `<tool_call>`, `<|fim_middle|>`, `[INST]`), however they are marked.

    An added token that is not marked special and is made of letters, digits, blanks, `-`, `'` and `_`
    alone is a word that somebody taught the vocabulary, or a run of blanks: text may write it, as the
    model has seen it. Anything else is taken for control; written by a user it becomes plain text.
    The token for unknown characters is none of them: text that holds such a character is written so.
    """
    known: Any = tokenizer
    added = known.added_tokens_decoder
    named = {getattr(known, f"{name}_token_id") for name in _NAMED} - {None}
    control = named | {id for id, token in added.items() if token.special or not _is_word(token.content)}
    control |= set(known.all_special_ids)
    return frozenset(control - ({known.unk_token_id} - named))


def _is_word(text: str) -> bool:
    return all(sign.isspace() or sign in _IN_WORDS or unicodedata.category(sign)[0] in "LMN" for sign in text)


class PlainText:
    """Encodes contents. Ordinary text has the very tokens that the tokenizer itself gives it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer
        self.control = control_ids(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text. Raises DataError for a text that can be written in no other way than
        with a control token (a tokenizer of which one is a single character)."""
        found: list[list[int]] = []
        for at in range(0, len(texts), BATCH):
            found += self._encode(texts[at : at + BATCH])
        return [ids if self.control.isdisjoint(ids) else self._spelt(ids) for ids in found]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self._backend is None:
            return [
                self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
                for text in texts
            ]
        coded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [each.ids for each in coded]

    @cached_property
    def _backend(self) -> Any:
        """A copy of the fast tokenizer that looks for no control token; None for one in plain Python,
        which looks for no added token at all when told to split special ones."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        parts = json.loads(tokenizer_json(backend))
        for token in parts["added_tokens"]:
            token["special"] = token["special"] or token["id"] in self.control
        copy = type(backend).from_str(json.dumps(parts))
        copy.encode_special_tokens = True  # special tokens are looked for no more
        return copy

    def _spelt(self, ids: list[int]) -> list[int]:
        """The ids with every control token sign by sign: a vocabulary that holds it as a whole word
        (Unigram, WordLevel, BPE that ignores merges) gives it to text without looking for it."""
        spelt: list[int] = []
        for id in ids:
            spelt += [id] if id not in self.control else self._signs(self.tokenizer.convert_ids_to_tokens(id))
        if found := sorted(self.control & set(spelt)):
            raise DataError(
                "a text can only be written with a control token",
                self.tokenizer.convert_ids_to_tokens(found),
                "text that the vocabulary can write",
                "take these signs out of the text",
            )
        return spelt

    def _signs(self, piece: str) -> list[int]:
        if self._backend is None:
            return [id for id in map(self.tokenizer.convert_tokens_to_ids, piece) if id is not None]
        return [token.id for sign in piece for token in self._backend.model.tokenize(sign)]
