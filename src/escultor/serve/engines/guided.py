"""Guided decoding: answers that follow a JSON schema, token by token (llguidance)."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from escultor.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
# Schemas that stay compiled; in memory each takes up to 100 times its text.
CACHE_SIZE, CACHE_CHARACTERS = 64, 1 << 20
WHITESPACE = r"( |\n[ \t]{0,16})"  # between JSON tokens; bounded, so that no answer is endless whitespace


class SchemaGuide:
    """The tokens that may follow in one answer; a `decoding.Guide`."""

    def __init__(self, matcher: Any, vocab_size: int):
        self.matcher, self.vocab_size = matcher, vocab_size
        self._bits = np.zeros((1, -(-vocab_size // 32)), dtype=np.int32)
        self._fault = ""

    @property
    def fault(self) -> str:
        """Why the schema can be followed no further, in one line; empty while it can."""
        message = self._fault or str(self.matcher.get_error())
        return next((line for line in message.splitlines() if line.strip()), message)

    def allowed(self) -> Tensor:
        from llguidance.numpy import fill_next_token_bitmask

        bits = np.zeros(self.vocab_size, dtype=np.uint8)
        try:
            fill_next_token_bitmask(self.matcher, self._bits)
            bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self.vocab_size]
        except Exception as error:  # ends this answer alone: its batch goes on
            self._fault = f"{type(error).__name__}: {error}"
        if not bits.any():
            self._fault = self.fault or "nothing may follow"
            bits[:] = 1  # whichever token is drawn, `take` ends the answer
        return torch.from_numpy(bits).bool()  # (V,)

    def advance(self, token: int) -> bool:
        if not self._fault:
            self.matcher.consume_token(token)
        return bool(self._fault or self.matcher.is_stopped())


class Guides:
    """Guides for one tokenizer. `stops` end an answer, `vocab_size` is the width of the model's logits."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int], vocab_size: int):
        self.tokenizer, self.stops, self.vocab_size = tokenizer, stops, vocab_size
        self._compiled: OrderedDict[str, Any] = OrderedDict()  # by schema text, most recently used last
        self._lock = threading.Lock()  # requests are prepared in several threads

    def guide(self, schema: Mapping[str, Any]) -> SchemaGuide:
        """A guide that enforces `schema`; an empty schema means any object. Raises InputError for a schema
        that cannot be compiled, or a tokenizer without a fast implementation."""
        with self._lock:
            text = json.dumps(schema or ANY_OBJECT, sort_keys=False)
            matcher = self._compiled.pop(text, None) or self._compile(text)
            self._compiled[text] = matcher
            while len(self._compiled) > 1 and (
                len(self._compiled) > CACHE_SIZE or sum(map(len, self._compiled)) > CACHE_CHARACTERS
            ):
                self._compiled.popitem(last=False)
            return SchemaGuide(matcher.deep_copy(), self.vocab_size)

    def _compile(self, schema: str) -> Any:
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE})
        except ValueError as error:
            raise _cannot_follow(str(error)) from error
        matcher = LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            raise _cannot_follow(matcher.get_error())
        return matcher

    @cached_property
    def _tokens(self) -> Any:
        from llguidance.hf import from_tokenizer

        tokenizer: Any = self.tokenizer
        try:
            return from_tokenizer(tokenizer, n_vocab=self.vocab_size, eos_token=sorted(self.stops))
        except ValueError as error:
            raise InputError(
                "this model cannot be guided", error, "a fast tokenizer", "ask without a response_format"
            ) from error


def _cannot_follow(why: str) -> InputError:
    first = (why.strip().splitlines() or ["an unknown reason"])[0]
    return InputError("the schema cannot be followed", first, "a JSON schema that llguidance knows")
