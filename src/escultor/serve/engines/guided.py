"""Answers that follow a JSON schema, token by token (llguidance)."""

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
KEPT, KEPT_CHARACTERS = 64, 1 << 20  # schemas that stay compiled: in memory each is up to 100 times its text
BLANKS = r"( |\n[ \t]{0,16})"  # between the parts: no model can go on writing them for ever


class SchemaGuide:
    """What may follow in one answer; see `decoding.Guide`."""

    def __init__(self, matcher: Any, vocabulary: int):
        self.matcher, self.vocabulary = matcher, vocabulary
        self._bits = np.zeros((1, -(-vocabulary // 32)), dtype=np.int32)
        self._fault = ""

    @property
    def fault(self) -> str:
        """Why the schema can be followed no further, in a line; empty where all is well."""
        said = self._fault or str(self.matcher.get_error())
        return next((line for line in said.splitlines() if line.strip()), said)

    def allowed(self) -> Tensor:
        from llguidance.numpy import fill_next_token_bitmask

        bits = np.zeros(self.vocabulary, dtype=np.uint8)
        try:
            fill_next_token_bitmask(self.matcher, self._bits)
            bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self.vocabulary]
        except Exception as error:  # this answer's fault alone: its batch goes on
            self._fault = f"{type(error).__name__}: {error}"
        if not bits.any():
            self._fault = self.fault or "nothing may follow"
            bits[:] = 1  # whichever is drawn, `take` ends the answer
        return torch.from_numpy(bits).bool()  # (V,)

    def take(self, token: int) -> bool:
        if not self._fault:
            self.matcher.consume_token(token)
        return bool(self._fault or self.matcher.is_stopped())


class Guides:
    """Guides for one tokenizer. `stops` end an answer, `vocabulary` is the width of the model's logits."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int], vocabulary: int):
        self.tokenizer, self.stops, self.vocabulary = tokenizer, stops, vocabulary
        self._kept: OrderedDict[str, Any] = OrderedDict()  # compiled, the one used last at the end
        self._lock = threading.Lock()  # asks are prepared in threads of their own

    def guide(self, schema: Mapping[str, Any]) -> SchemaGuide:
        """A guide along `schema`; an empty one means any object. Raises InputError for a schema that cannot
        be followed, or a tokenizer whose tokens are not known well enough."""
        with self._lock:
            text = json.dumps(schema or ANY_OBJECT, sort_keys=False)
            matcher = self._kept.pop(text, None) or self._compile(text)
            self._kept[text] = matcher
            while len(self._kept) > 1 and (
                len(self._kept) > KEPT or sum(map(len, self._kept)) > KEPT_CHARACTERS
            ):
                self._kept.popitem(last=False)
            return SchemaGuide(matcher.deep_copy(), self.vocabulary)

    def _compile(self, schema: str) -> Any:
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": BLANKS})
        except ValueError as error:
            raise _cannot_follow(str(error)) from error
        matcher = LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            raise _cannot_follow(matcher.get_error())
        return matcher

    @cached_property
    def _tokens(self) -> Any:
        from llguidance.hf import from_tokenizer

        known: Any = self.tokenizer
        try:
            return from_tokenizer(known, n_vocab=self.vocabulary, eos_token=sorted(self.stops))
        except ValueError as error:
            raise InputError(
                "this model cannot be guided", error, "a fast tokenizer", "ask without a response_format"
            ) from error


def _cannot_follow(why: str) -> InputError:
    first = (why.strip().splitlines() or ["an unknown reason"])[0]
    return InputError("the schema cannot be followed", first, "a JSON schema that llguidance knows")
