"""Tokens to text as they come: whole characters only, and nothing of a text that ends the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"  # what a character shows as whose bytes are not all there
WINDOW = 8  # tokens decoded again before it is moved
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text that may be shown, and how many of the tokens fed so far have been shown wholly with it."""

    text: str
    tokens: int


class TextStream:
    """The text of one answer, token by token.

    Held back until more is known: bytes that are no whole character yet, what could be the beginning of a
    stop text, and `lead`, the blanks that a template writes before an answer, which are no part of it. The
    pieces joined are what the tokenizer makes of all tokens, cut before the first stop text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = (), lead: str = ""):
        self.tokenizer: Any = tokenizer
        self.stop, self.lead = tuple(text for text in stop if text), lead
        self.stopped = False  # by a stop text
        self._text, self._shown = "", 0  # decoded so far, and how many characters of it were shown
        self._ends: list[int] = []  # the length of the text after each token
        self._tokens = 0  # of them that were shown wholly
        self._ids: list[int] = []
        # Decoded again at every token are those from `window` on, `before` so far. Windows begin where
        # all characters were whole (`mark`), at least one token back: decoders look at what stands before.
        self._window, self._mark, self._before = 0, 0, ""

    def feed(self, token: int) -> TextPiece:
        """What can be shown after one more token. Not to be called once `stopped`."""
        self._ids.append(token)
        now = self._decoded()
        whole = now.rstrip(BROKEN)
        self._grow(whole)
        self._ends.append(len(self._text) + (whole != now))
        if whole == now:
            if len(self._ids) - self._window > WINDOW:
                self._window = self._mark
                self._before = self._decoded()
            self._mark = len(self._ids)
        return self._show(0 if self.lead else self._safe())

    def hold(self, token: int) -> None:
        """One more token, of which nothing is to be shown before the end. Not to be mixed with `feed`."""
        self._ids.append(token)

    def finish(self) -> TextPiece:
        """What was held back, now that no more tokens come."""
        if self.stopped:
            return TextPiece("", self._tokens)
        self._grow(self._decoded())
        self._text, self.lead = self._text.removeprefix(self.lead), ""
        self._ends = [min(end, len(self._text)) for end in self._ends]
        until = self._safe(ended=True)
        return self._show(until if self.stopped else len(self._text))

    def _decoded(self) -> str:
        return str(self.tokenizer.decode(self._ids[self._window :], skip_special_tokens=True))

    def _grow(self, now: str) -> None:
        if len(now) > len(self._before):
            self._text += now[len(self._before) :]
            self._before = now
        if self.lead and not self.lead.startswith(self._text):
            self._text, self.lead = self._text.removeprefix(self.lead), ""

    def _show(self, until: int) -> TextPiece:
        text, self._shown = self._text[self._shown : until], until
        while self._tokens < len(self._ends) and self._ends[self._tokens] <= until:
            self._tokens += 1
        return TextPiece(text, self._tokens)

    def _safe(self, ended: bool = False) -> int:
        """How many characters can be shown: up to a stop text, or to what could become one. A stop text
        that is there waits for one that began before it and may still come, until the answer has ended."""
        hidden = self._text[self._shown :]
        found = min((at for text in self.stop if (at := hidden.find(text)) >= 0), default=None)
        longest = max((len(text) for text in self.stop), default=1) - 1
        last = len(hidden) if found is None else found
        for at in range(max(0, len(hidden) - longest), last if not ended else 0):
            if any(text.startswith(hidden[at:]) for text in self.stop):
                return self._shown + at
        self.stopped = found is not None
        return self._shown + last


class TokenBytes:
    """The bytes that each token stands for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        self._by_byte = decoder is not None and "ByteLevel" in repr(decoder)

    def get(self, token: int) -> bytes:
        """A token's bytes, which need be no whole characters; a special token's are its name."""
        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        if self._by_byte and all(sign in _BYTE_OF for sign in piece):
            return bytes(_BYTE_OF[sign] for sign in piece)
        if byte := _BYTE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return (piece if self._by_byte else piece.replace("\u2581", " ")).encode()


def _byte_of() -> dict[str, int]:
    """The signs by which byte-level vocabularies write bytes: printable ones as themselves, others moved
    behind the first 256 (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(moved)}


_BYTE_OF = _byte_of()
