"""One answer of an engine: the row decoded for its request, its events, and their way to its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

from escultor.errors import DataError, Overloaded, SchemaFault
from escultor.model.decoding import DecodedToken, DecodingRow, answer_budget
from escultor.model.loaded import Loaded, max_context_tokens
from escultor.serve.engines.guided import Guides, SchemaGuide
from escultor.serve.interruptible import run_interruptible
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt, TokenLogprob
from escultor.serve.tool_calls import with_tool_calls
from escultor.text.reasoning import ReasoningMode, ReasoningParser
from escultor.text.served_ids import write_ids
from escultor.text.streaming import TextPiece, TextStream, TokenBytes
from escultor.types import Messages, Usage

LONG = 1 << 16  # characters of a prompt that waits for the other long ones
PREPARED_TOGETHER = 4  # short ones


class Detokenizer:
    """How one model's prompts are tokenized and its tokens read; shared by all of its answers."""

    def __init__(self, loaded: Loaded):
        self.loaded, self.chat = loaded, loaded.chat
        self.stops = loaded.stops
        self.bytes = TokenBytes(loaded.tokenizer)
        head: Any = loaded.model.get_output_embeddings()
        self.vocab_size = int(head.weight.shape[0])
        self.guides = Guides(loaded.tokenizer, self.stops, self.vocab_size)

    def prompt_ids(self, request: GenerationRequest) -> tuple[list[int], int]:
        """The prompt's token ids, and how many special tokens precede the client's own text. Raises DataError
        for an id outside the vocabulary, and for tools or reasoning that the chat
        template does not know."""
        prompt, context = request.prompt, max_context_tokens(self.loaded.model)
        if isinstance(prompt, str):
            return self.chat.raw_prompt(prompt, context)
        if not prompt or isinstance(prompt[0], int):
            ids = [int(id) for id in prompt]  # type: ignore[arg-type]
            if invalid := [id for id in ids if not 0 <= id < self.vocab_size]:
                raise DataError("a prompt's token ids", invalid[0], f"0 to {self.vocab_size - 1}")
            return ids, 0
        if request.tools and not self.chat.shows_tools:
            remedy = "ask without tools, or serve a model whose template shows them"
            raise DataError("this model's chat template does not show tools to it", remedy=remedy)
        mode = self.reasoning_mode(request)
        return self.chat.prompt(prompt, request.tools, context, mode), 0  # type: ignore[arg-type]

    def reasoning_mode(self, request: GenerationRequest) -> ReasoningMode:
        """How the prompt asks for reasoning. What a schema constrains is the whole text of the model, without
        reasoning."""
        return self.chat.reasoning_mode(request.reasoning if request.schema is None else "none")

    def prepare(self, request: GenerationRequest) -> GenerationState:
        """Tokenize the prompt and compile the schema. Raises InputError for a request that cannot be met."""
        ids, n_special = self.prompt_ids(request)
        row = DecodingRow(
            prompt=ids,
            sampling=request.sampling,
            stops=self.stops,
            max_tokens=answer_budget(self.loaded.model, ids, request.sampling.max_new_tokens),
            guide=None if request.schema is None else self.guides.guide(request.schema),
            top_logprobs=request.top_logprobs,
            score_prompt=request.echo,
        )
        return GenerationState(self, request, row, n_special)

    def logprob(self, token: DecodedToken) -> TokenLogprob:
        top = tuple(
            (_text(data), data, logprob) for id, logprob in token.top for data in (self.bytes.get(id),)
        )
        data = self.bytes.get(token.id)
        return TokenLogprob(_text(data), data, token.logprob, top)


class GenerationState:
    """The state of one answer between its tokens and its events."""

    def __init__(
        self, detokenizer: Detokenizer, request: GenerationRequest, row: DecodingRow, n_special: int
    ):
        self.detokenizer, self.request, self.row, self._n_special = detokenizer, request, row, n_special
        is_chat = request.prompt and not isinstance(request.prompt[0], str | int)
        chat = detokenizer.chat
        self._ids: list[int] | None = None
        self._reasoning: ReasoningParser | None = None
        lead, tokens = (chat.lead, chat.answer_tokens()) if is_chat else ("", None)
        if is_chat:
            mode = detokenizer.reasoning_mode(request)
            self._ids = [] if mode.is_default else None  # else they follow another prompt than is learnt
            if request.schema is None:
                lead, self._reasoning = chat.visible_lead, chat.reasoning_parser(mode)
        self._text = TextStream(chat.tokenizer, request.stop, lead, tokens)
        # Nobody sees the text before it is complete, so all of its tokens are read once, at the end.
        self._read_at_end = not (request.streamed or request.stop or request.top_logprobs is not None)
        self._pieces: list[str] = []
        self._thoughts: list[str] = []  # pieces of the reasoning
        self._logprobs: list[TokenLogprob] = []  # of tokens not emitted yet; of all where not streamed
        self._n_emitted = 0  # tokens

    @property
    def is_finished(self) -> bool:
        return self.row.finish is not None or self._text.stopped

    def first_events(self) -> list[EngineEvent]:
        """The events before the first token: the scored prompt, where `echo` asked for it."""
        if not self.request.echo:
            return []
        prompt = self.request.prompt
        text = prompt if isinstance(prompt, str) else self.detokenizer.chat.tokenizer.decode(self.row.prompt)
        scores = self.row.scores[self._n_special :]
        return [ScoredPrompt(str(text), tuple(self.detokenizer.logprob(token) for token in scores))]

    def add(self, token: DecodedToken) -> list[EngineEvent]:
        """The events of one more token; the last of them is an End when the answer is complete."""
        events: list[EngineEvent] = []
        if self._ids is not None:
            self._ids.append(token.id)
        is_text = token.id not in self.detokenizer.stops
        if self.request.top_logprobs is not None and (is_text or self.request.echo):
            self._logprobs.append(self.detokenizer.logprob(token))
        if is_text:
            if self._read_at_end:
                self._text.hold(token.id)
            else:
                events = self._emit(self._text.feed(token.id))
        return [*events, *self.last_events()] if self.is_finished else events

    def last_events(self) -> list[EngineEvent]:
        """What is left of the text, and the End. Raises SchemaFault where the schema was not followed."""
        guide = self.row.guide
        if isinstance(guide, SchemaGuide) and (fault := guide.fault):
            raise SchemaFault(
                "the answer could not be kept to its schema",
                f"after {self.row.count} tokens: {fault}",
                "a schema that some text satisfies, without a very large choice at any one place",
                "ask with a simpler schema, or without response_format",
            )
        events = self._emit(self._text.finish(), is_last=True)
        # After a scored prompt every generated token is named, also the one that ends the answer and is no
        # part of its text: harnesses know by their number where the prompt ends.
        all_named = self.request.echo and not self._text.stopped
        logprobs = self._logprobs if all_named else self._logprobs[: self._n_emitted]
        if self._pieces or self._thoughts or (all_named and logprobs):
            events = [_delta("".join(self._pieces), tuple(logprobs), "".join(self._thoughts))]
        reason: Literal["stop", "length"] = "stop" if self._text.stopped else self.row.finish or "length"
        usage = Usage(len(self.row.prompt), self.row.count)
        ids = ""
        if self._ids and reason == "stop" and not self._text.stopped:  # a text that stops it is cut off
            ids = write_ids(self.detokenizer.chat.vocabulary_hash, self._ids)
        return [*events, End(reason, usage, self.row.compute_s, token_ids=ids)]

    def _emit(self, piece: TextPiece, is_last: bool = False) -> list[EngineEvent]:
        n_new, self._n_emitted = piece.tokens - self._n_emitted, piece.tokens
        thought, text = self._split(piece.text, is_last)
        if not self.request.streamed:
            self._pieces += [text] if text else []
            self._thoughts += [thought] if thought else []
            return []
        logprobs: Sequence[TokenLogprob] = ()
        if self._logprobs:
            logprobs, self._logprobs = self._logprobs[:n_new], self._logprobs[n_new:]
        return [_delta(text, tuple(logprobs), thought)] if text or thought or logprobs else []

    def _split(self, text: str, is_last: bool) -> tuple[str, str]:
        """The reasoning and the answer in a piece of text."""
        if self._reasoning is None:
            return "", text
        thought, said = self._reasoning.feed(text)
        if is_last:
            more_thought, more_said = self._reasoning.finish()
            return thought + more_thought, said + more_said
        return thought, said


class Job:
    """A generation whose events a client on an event loop awaits. `adapter` None: the model's own weights."""

    def __init__(self, state: GenerationState, adapter: str | None):
        self.state, self.adapter = state, adapter
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[EngineEvent | Exception] = asyncio.Queue()
        self.cancelled = False  # the client has left
        self.ended = False
        self.has_sent = False  # any event yet


class QueueingEngine:
    """Base of engines that compute in threads: a subclass says when it is full and how a job is submitted."""

    def __init__(self, detokenizer: Detokenizer, prepare_timeout_s: float):
        self.detokenizer, self._prepare_timeout_s = detokenizer, prepare_timeout_s
        self.preparing = 0  # requests that are being prepared, or wait for it: they count in the queue
        self._turns: WeakKeyDictionary[Any, tuple[asyncio.Semaphore, ...]] = WeakKeyDictionary()

    def check_capacity(self) -> None:
        """Raise Overloaded when the queue is full, EngineDown when the engine is closed."""
        raise NotImplementedError

    def submit(self, job: Job) -> None:
        raise NotImplementedError

    def release(self, job: Job) -> None:
        """Called when the client of a submitted job has left, with its answer or without."""

    def generate(self, request: GenerationRequest, adapter: str | None) -> AsyncIterator[EngineEvent]:
        """The events of one answer. Closing the iterator cancels the job."""
        events = self._generate(request, adapter)
        return with_tool_calls(events, request) if request.tools else events

    async def _generate(self, request: GenerationRequest, adapter: str | None) -> AsyncIterator[EngineEvent]:
        self.check_capacity()
        self.preparing += 1
        try:
            job = Job(await self._prepare(request), adapter)
        finally:
            self.preparing -= 1
        self.submit(job)
        try:
            while True:
                event = await job.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, End):
                    return
        finally:
            job.cancelled = True
            self.release(job)

    async def _prepare(self, request: GenerationRequest) -> GenerationState:
        """In a thread: tokenizing a long prompt or compiling a large schema delays no other answer. Long ones
        wait for each other, and short ones for short ones alone."""
        loop = asyncio.get_running_loop()
        if loop not in self._turns:
            self._turns[loop] = tuple(asyncio.Semaphore(n) for n in (PREPARED_TOGETHER, 1))
        async with self._turns[loop][_size(request) > LONG]:
            work = partial(self.detokenizer.prepare, request)
            return await run_interruptible(work, self._prepare_timeout_s, "preparing")


def _size(request: GenerationRequest) -> int:
    """Roughly the characters that have to be read before the first token."""
    prompt, size = request.prompt, len(request.tools)
    if request.schema is not None:
        size += len(str(request.schema))
    if isinstance(prompt, str) or not prompt or isinstance(prompt[0], int):
        return size + len(prompt)
    return size + sum(len(m.content) + len(m.reasoning) + 100 for m in cast("Messages", prompt))


def check_queue(waiting: int, free: int, queue: int, remedy: str) -> None:
    """Raise Overloaded when `waiting` requests fill the queue and the `free` places in front of it."""
    if waiting >= free + queue:
        raise Overloaded("too many requests are waiting", queue, remedy=f"ask again later, or raise {remedy}")


def _delta(text: str, logprobs: tuple[TokenLogprob, ...], thought: str) -> Delta:
    return Delta(text, logprobs, {"reasoning_content": thought} if thought else {})


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")
