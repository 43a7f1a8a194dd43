"""Incremental detokenization: whole characters only, cut before the first stop text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escultor.text.plain import special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"  # decoded from an incomplete character
WINDOW = 8  # tokens decoded again at each step before the window moves
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text to show, and the number of tokens so far whose text has been shown completely."""

    text: str
    tokens: int


class AnswerTokens:
    """The tokens of one answer that make up its text. `hidden` ones are left out; each sequence of tokens in
    `frames`, which a template writes around reasoning or an answer, gives way to what stands for it in text.
    """

    def __init__(self, hidden: Collection[int], frames: Mapping[tuple[int, ...], list[int]]):
        self._hidden, self._frames = hidden, frames
        self._held: list[int] = []  # may be the beginning of a frame

    def feed(self, token: int) -> list[int]:
        """The tokens of the text after one more token of the answer."""
        self._held.append(token)
        return self.finish(ended=False)

    def finish(self, ended: bool = True) -> list[int]:
        """The tokens that are held back, after the last one."""
        shown: list[int] = []
        while self._held:
            held = tuple(self._held)
            begun = [frame for frame in self._frames if frame[: len(held)] == held[: len(frame)]]
            if whole := [frame for frame in begun if len(frame) <= len(held)]:
                shown += self._frames[whole[0]]
                del self._held[: len(whole[0])]
            elif begun and not ended:
                break
            elif self._held.pop(0) not in self._hidden:
                shown.append(held[0])
        return shown


class TextStream:
    """Decodes one answer token by token.

    Held back until more tokens arrive: incomplete characters, text that may be the start of a stop text, and
    `lead`, what a template writes before an answer and is not part of it. The joined pieces equal the
    tokenizer's decoding of all tokens that are text, cut before the first stop text. Without `tokens` those
    are all that are not special.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: Sequence[str] = (),
        lead: str = "",
        tokens: AnswerTokens | None = None,
    ):
        self.tokenizer: Any = tokenizer
        self._answer = tokens or AnswerTokens(special_ids(tokenizer), {})
        self.stop, self.lead = tuple(text for text in stop if text), lead
        self.stopped = False  # by a stop text
        self._text, self._shown = "", 0  # decoded so far, and how many characters of it were shown
        self._ends: list[int] = []  # the length of the text after each token
        self._tokens = 0  # of them that were shown wholly
        self._ids: list[int] = []
        # The tokens from `window` on are decoded again at every step; `before` is their text so far. A window
        # starts where all characters were whole (`mark`), one token back at least: decoding needs context.
        self._window, self._mark, self._before = 0, 0, ""

    def feed(self, token: int) -> TextPiece:
        """The text to show after one more token. Must not be called once `stopped`."""
        self._ids += self._answer.feed(token)
        decoded = self._decoded()
        whole = decoded.rstrip(BROKEN)
        self._extend(whole)
        self._ends.append(len(self._text) + (whole != decoded))
        if whole == decoded:
            if len(self._ids) - self._window > WINDOW:
                self._window = self._mark
                self._before = self._decoded()
            self._mark = len(self._ids)
        return self._show(0 if self.lead else self._safe())

    def hold(self, token: int) -> None:
        """Add a token whose text is shown at the end only. Must not be mixed with `feed`."""
        self._ids += self._answer.feed(token)

    def finish(self) -> TextPiece:
        """The text held back, after the last token."""
        if self.stopped:
            return TextPiece("", self._tokens)
        self._ids += self._answer.finish()
        self._extend(self._decoded())
        self._text, self.lead = self._text.removeprefix(self.lead), ""
        self._ends = [min(end, len(self._text)) for end in self._ends]
        until = self._safe(ended=True)
        return self._show(until if self.stopped else len(self._text))

    def _decoded(self) -> str:
        return str(self.tokenizer.decode(self._ids[self._window :]))

    def _extend(self, decoded: str) -> None:
        if len(decoded) > len(self._before):
            self._text += decoded[len(self._before) :]
            self._before = decoded
        if self.lead and not self.lead.startswith(self._text):
            self._text, self.lead = self._text.removeprefix(self.lead), ""

    def _show(self, until: int) -> TextPiece:
        text, self._shown = self._text[self._shown : until], until
        while self._tokens < len(self._ends) and self._ends[self._tokens] <= until:
            self._tokens += 1
        return TextPiece(text, self._tokens)

    def _safe(self, ended: bool = False) -> int:
        """The number of characters that can be shown: up to a stop text, or to what could become one. A
        complete stop text waits for one that may have begun before it, until the answer has ended."""
        hidden = self._text[self._shown :]
        stop = min((start for text in self.stop if (start := hidden.find(text)) >= 0), default=None)
        longest = max((len(text) for text in self.stop), default=1) - 1
        last = len(hidden) if stop is None else stop
        for start in range(max(0, len(hidden) - longest), last if not ended else 0):
            if any(text.startswith(hidden[start:]) for text in self.stop):
                return self._shown + start
        self.stopped = stop is not None
        return self._shown + last


class TokenBytes:
    """The bytes of each token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        self._by_byte = decoder is not None and "ByteLevel" in repr(decoder)

    def get(self, token: int) -> bytes:
        """A token's bytes, possibly parts of characters; for a special token, its name."""
        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        if self._by_byte and all(character in _BYTE_OF for character in piece):
            return bytes(_BYTE_OF[character] for character in piece)
        if byte := _BYTE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return (piece if self._by_byte else piece.replace("\u2581", " ")).encode()


def _byte_of() -> dict[str, int]:
    """The characters that byte-level vocabularies write bytes as: printable ones as themselves, others as
    code points from 256 on (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(moved)}


_BYTE_OF = _byte_of()
