"""From an ask to the row that is decoded, and from its tokens to the events of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from escultor.errors import DataError, SchemaFault
from escultor.model.decoding import DecodedToken, DecodingRow, room_for
from escultor.model.loaded import Loaded
from escultor.serve.engines.guided import Guides, SchemaGuide
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt, TokenLogprob
from escultor.text.streaming import TextPiece, TextStream, TokenBytes
from escultor.types import Usage


class Detokenizer:
    """What all answers of a model share: how its prompts are written and its tokens read."""

    def __init__(self, loaded: Loaded):
        self.loaded, self.chat = loaded, loaded.chat
        self.stops = frozenset((self.chat.turn_end[-1], self.chat.eos))
        self.bytes = TokenBytes(loaded.tokenizer)
        head: Any = loaded.model.get_output_embeddings()
        self.vocabulary = int(head.weight.shape[0])
        self.guides = Guides(loaded.tokenizer, self.stops, self.vocabulary)

    def prompt(self, ask: GenerationRequest) -> tuple[list[int], int]:
        """The prompt's tokens, and how many of them stand before what was given. Raises DataError for ids
        that are none."""
        if isinstance(ask.prompt, str):
            (ids,) = self.chat.documents([ask.prompt])
            return ids[:-1], len(ids) - 1 - len(self.chat.text(ask.prompt))
        if not ask.prompt or isinstance(ask.prompt[0], int):
            ids = [int(id) for id in ask.prompt]  # type: ignore[arg-type]
            if wrong := [id for id in ids if not 0 <= id < self.vocabulary]:
                raise DataError("a prompt's token ids", wrong[0], f"0 to {self.vocabulary - 1}")
            return ids, 0
        return self.chat.prompt(ask.prompt), 0  # type: ignore[arg-type]

    def utterance(self, ask: GenerationRequest) -> GenerationState:
        """Prepare an answer. Raises InputError where it cannot be given."""
        ids, before = self.prompt(ask)
        guide = None if ask.schema is None else self.guides.guide(ask.schema)
        row = DecodingRow(
            ids,
            ask.sampling,
            self.stops,
            room_for(self.loaded.model, ids, ask.sampling.max_new_tokens),
            guide,
            ask.top_logprobs,
            ask.echo,
        )
        return GenerationState(self, ask, row, before)

    def logprob(self, token: DecodedToken) -> TokenLogprob:
        top = tuple((_text(known), known, value) for id, value in token.top for known in (self.bytes.of(id),))
        own = self.bytes.of(token.id)
        return TokenLogprob(_text(own), own, token.logprob, top)


class GenerationState:
    """One answer on its way from tokens to events."""

    def __init__(self, voice: Detokenizer, ask: GenerationRequest, row: DecodingRow, before: int):
        self.voice, self.ask, self.row, self._before = voice, ask, row, before
        lead = voice.chat.lead if ask.prompt and not isinstance(ask.prompt[0], str | int) else ""
        self._text = TextStream(voice.chat.tokenizer, ask.stop, lead)
        # Nobody looks at the text before it is whole, so its tokens are read once, at the end.
        self._unread = not (ask.streamed or ask.stop or ask.top_logprobs is not None)
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []  # of tokens not shown yet, and if unstreamed of all
        self._told = 0

    def opening(self) -> list[EngineEvent]:
        """What comes before the first token."""
        if not self.ask.echo:
            return []
        scores = self.row.scores[self._before :]
        given = self.ask.prompt
        text = given if isinstance(given, str) else self.voice.chat.tokenizer.decode(self.row.prompt)
        return [ScoredPrompt(str(text), tuple(self.voice.logprob(token) for token in scores))]

    def take(self, token: DecodedToken) -> list[EngineEvent]:
        """The events of one more token; the last of them is an End when the answer is whole."""
        events: list[EngineEvent] = []
        if token.id not in self.voice.stops:
            if self.ask.top_logprobs is not None:
                self._logprobs.append(self.voice.logprob(token))
            if self._unread:
                self._text.hold(token.id)
            else:
                events = self._shown(self._text.feed(token.id))
        return [*events, *self.close()] if self.whole else events

    @property
    def whole(self) -> bool:
        return self.row.finish is not None or self._text.stopped

    def close(self) -> list[EngineEvent]:
        """The last events. Raises SchemaFault where the schema could be followed no further."""
        guide = self.row.guide
        if isinstance(guide, SchemaGuide) and (fault := guide.fault):
            raise SchemaFault(
                "the answer could not be kept to its schema",
                f"after {self.row.count} tokens: {fault}",
                "a schema that some text fulfils, with not too many ways to go on in one place",
                "ask with a simpler schema, or without response_format",
            )
        events = self._shown(self._text.finish())
        if self._pieces:
            kept = tuple(self._logprobs[: self._told])
            events = [Delta("".join(self._pieces), kept)]
        reason: Literal["stop", "length"] = "stop" if self._text.stopped else self.row.finish or "length"
        usage = Usage(len(self.row.prompt), self.row.count)
        return [*events, End(reason, usage, self.row.compute_s)]

    def _shown(self, piece: TextPiece) -> list[EngineEvent]:
        if not self.ask.streamed:
            self._told = piece.tokens
            self._pieces += [piece.text] if piece.text else []
            return []
        logprobs: Sequence[TokenLogprob] = ()
        if self._logprobs:
            new = piece.tokens - self._told
            logprobs, self._logprobs = self._logprobs[:new], self._logprobs[new:]
        self._told = piece.tokens
        return [Delta(piece.text, tuple(logprobs))] if piece.text or logprobs else []


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")
