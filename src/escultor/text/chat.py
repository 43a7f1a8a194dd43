"""Conversations to token ids and loss mask: the only file that knows what is prompt and what is learnt.

The model's own chat template renders the real contents and the text is tokenised as a whole, so that a
prompt has the ids of `apply_chat_template`. Learnt is what the model has to generate after that prompt so
that its answer is rendered right, up to the token that ends the turn. Contents cannot write control tokens;
answers can write markup of reasoning and tool calls, but no token that opens a role or ends a turn.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from escultor.errors import ModelError
from escultor.ids import hash_value
from escultor.text.encoding import ControlPositions, MarkedText, TextEncoder
from escultor.text.markup import last_block, split_inline
from escultor.text.plain import PlainText, refuse_longer, special_ids
from escultor.text.protection import Protection
from escultor.text.reasoning import DEFAULT, THINK, ReasoningMode, ReasoningModes, ReasoningParser
from escultor.text.rendering import Renderer
from escultor.text.streaming import AnswerTokens
from escultor.text.turns import ASKED, SENTINELS, Mismatch, Turn, TurnWriter, shared_length
from escultor.types import Message, Messages, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TAIL = 256  # last characters of a prompt in which its last control token is looked for
_CHUNK = 256  # rows rendered and tokenised at a time
# Of gpt-oss: what is said before a call, and a call that follows reasoning, in both orders of its header.
_BEFORE_CALLS = (
    ("<|channel|>commentary<|message|>", ""),
    ("<|end|><|start|>assistant<|channel|>commentary", "\n</think>\n\n<|channel|>commentary"),
    ("<|end|><|start|>assistant to=functions", "\n</think>\n\nto=functions"),
)
_CALL_HEADER = frozenset(("<|channel|>", "<|constrain|>", "<|message|>"))
_RESPLIT = "answers that would merge with the end of the prompt: tokenised apart, as they are served"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The token ids of a prompt and its response. The loss mask is 1 on `response`, which ends the turn.
    `notes` say what the counts of a run should mention of it."""

    prompt: list[int]
    response: list[int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """The token ids of a conversation, and start and end of every part that is learnt: answers with the token
    that ends their turn. `notes` as those of `Rendered`."""

    ids: list[int]
    learnt: tuple[tuple[int, int], ...]
    notes: tuple[str, ...] = ()


class ChatTemplate:
    """Encodes conversations with a tokenizer's chat template, or with a default where it has none. Reuse one
    instance; later changes of the tokenizer have no effect.

    `date` is what a template that writes today's date takes for it; None: today. `tools` of the methods is
    the JSON text of a list of tool definitions.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date: datetime.date | None = None):
        self.tokenizer: Any = tokenizer  # its stubs return unions that these calls never do
        if tokenizer.eos_token_id is None:
            remedy = "set tokenizer.eos_token"
            raise ModelError("the tokenizer has no end-of-text token", None, "an eos_token", remedy)
        self.eos: int = self.tokenizer.eos_token_id
        begin = self.tokenizer.convert_ids_to_tokens(self._begin())
        self._renderer = Renderer(tokenizer, date, "".join(begin))
        self._tails: dict[str, list[int]] = {}

    @property
    def is_default(self) -> bool:
        """Whether conversations are written in the default template, since the tokenizer has none."""
        return self._renderer.is_default

    @property
    def shows_tools(self) -> bool:
        """Whether the template shows the model the definitions of tools."""
        return self._renderer.shows_tools

    def prompt(
        self,
        messages: Messages,
        tools: str = "",
        limit: int | None = None,
        reasoning: ReasoningMode = DEFAULT,
    ) -> list[int]:
        """The token ids of a prompt, after which the model generates the answer. Raises TooLong for one that
        is much longer than `limit` tokens, without making all of them."""
        written, mark = self._writer.prompt(messages, tools, reasoning.variables)
        text = MarkedText(written + reasoning.ending, mark)
        if limit is not None:
            refuse_longer(text.text, limit, self._plain.encode)
        return self._encoder.encode([text])[0]

    def example(self, messages: Messages, answer: Message | str, tools: str = "") -> Rendered:
        """A prompt and its response, to the token that ends the turn. Raises ModelError where the template
        does not tell what the model has to generate after the prompt."""
        return self._rendered([self._turn(messages, answer, tools)])[0]

    def examples(self, rows: Iterable[tuple[Messages, Message | str, str]]) -> list[Rendered]:
        """As `example`, for many triples of messages, answer and tools; several times faster, since templates
        are rendered while the texts before are tokenised."""
        rows = iter(rows)
        with ThreadPoolExecutor(1) as pool:
            parts: list[Future[list[Rendered]]] = []
            while turns := [self._turn(*row) for row in islice(rows, _CHUNK)]:
                parts.append(pool.submit(self._rendered, turns))
            return [each for part in parts for each in part.result()]

    def conversation(self, messages: Messages, tools: str = "") -> list[RenderedConversation]:
        """Every answer of a conversation that is marked as learnt, after the prompt that it would have been
        generated from: one row as long as each prompt continues the row, and one more wherever the template
        writes earlier turns otherwise (as without their reasoning)."""
        rows: list[RenderedConversation] = []
        row: ControlPositions | None = (
            None  # the last of the rows, where its prefixes are known to be prefixes
        )
        learnt = (
            i for i, message in enumerate(messages) if message.learnt and message.role == Role.ASSISTANT
        )
        for i in reversed(list(learnt)):
            turn = self._turn(messages[:i], messages[i], tools)
            if row is not None and (span := self._span(row, turn)) is not None:
                rows.append(_joined(RenderedConversation(row.ids, (span,), turn.notes), rows.pop()))
                continue
            (each,) = self._rendered([turn])
            ids = each.prompt + each.response
            made = RenderedConversation(ids, ((len(each.prompt), len(ids)),), each.notes)
            if rows and rows[-1].ids[: len(ids)] == ids:
                rows.append(_joined(made, rows.pop()))
                continue
            rows.append(made)
            row = None if turn.mark else self._encoder.control_positions(turn.prompt + turn.answer, ids)
        return rows[::-1]

    def _span(self, row: ControlPositions, turn: Turn) -> tuple[int, int] | None:
        """Start and end of a turn's answer in a row whose text begins with the turn; None where the turn's
        tokens are not known to be the row's, as when its answer does not end with a control token."""
        text = turn.prompt + turn.answer
        tail, head = self._tail(turn.prompt)
        begin = row.starts.get(len(turn.prompt) - len(tail))
        end = row.ends.get(len(text))
        if turn.mark or begin is None or end is None or not row.text.startswith(text):
            return None
        start = begin + len(head)
        return (start, end) if row.ids[begin:start] == head else None

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of documents to pre-train on, with the tokenizer's BOS and EOS."""
        begin = self._begin()
        return [[*begin, *ids, self.eos] for ids in self._plain.encode(texts)]

    def raw_prompt(self, text: str, limit: int | None = None) -> tuple[list[int], int]:
        """The token ids of a text that a model is to continue or score as it stands, and how many of them the
        tokenizer puts before it by itself: its BOS, or none, whatever the chat template does. A text that
        begins with the name of the `prefix` token begins with that token; an empty one is it alone. Raises
        TooLong as `prompt`."""
        if limit is not None:
            refuse_longer(text, limit, self._plain.encode)
        name = str(self.tokenizer.convert_ids_to_tokens(self.prefix))
        if not text or text.startswith(name):
            return [self.prefix, *(self.text(rest) if (rest := text.removeprefix(name)) else [])], 0
        begin = self._own_begin()
        return [*begin, *self.text(text)], len(begin)

    @property
    def prefix(self) -> int:
        """The token that a text without a context is scored after: the BOS, else the end of text."""
        begin = self.tokenizer.bos_token_id
        return self.eos if begin is None else int(begin)

    def text(self, text: str) -> list[int]:
        """The token ids of a text without control tokens; see `escultor.text.plain`."""
        return self._plain.encode([text])[0]

    def decode(self, ids: list[int]) -> str:
        """The text of an answer: without the end of its turn and what the template writes before it, with its
        markup of reasoning and tool calls."""
        ends = next((end for end in (self.turn_end, [self.eos]) if ids[-len(end) :] == end), [])
        return self._decode(ids[: len(ids) - len(ends)]).removeprefix(self.lead)

    def reasoning_mode(self, effort: str) -> ReasoningMode:
        """How prompts ask for this much reasoning; see `ReasoningModes`. Raises DataError where the template
        does not know reasoning."""
        return self._modes.get(effort)

    def reasoning_parser(self, mode: ReasoningMode) -> ReasoningParser:
        """What tells reasoning from an answer, for one answer to a prompt of this mode."""
        after = self._writer.frames[2]
        is_renamed = bool(mode.closer) and mode.closer in after and after in self._renamed
        return ReasoningParser(self._reasoning_blocks, "</think>" if is_renamed else mode.closer)

    @cached_property
    def visible_lead(self) -> str:
        """The `lead` of an answer whose reasoning is told apart: without the block of thinking."""
        return "" if split_inline(self.lead) else self.lead

    @cached_property
    def _reasoning_blocks(self) -> dict[str, str]:
        """What closes a block of reasoning in an answer, by what opens it: tags that are tokens, or that the
        template writes."""
        texts = (*self.tokenizer.get_added_vocab(), self._writer.frames[1], self._writer.generation({}))
        blocks = [block for text in texts if (block := last_block(text)) is not None and block.opener]
        return THINK | {block.opener: block.closer for block in blocks}

    @cached_property
    def _modes(self) -> ReasoningModes:
        return ReasoningModes(self._writer)

    def answer_tokens(self) -> AnswerTokens:
        """What tells the tokens of an answer that are its text, for one answer."""
        return AnswerTokens(self._hidden, self._frames)

    @cached_property
    def lead(self) -> str:
        """What the template, and so the model, writes before an answer and is no part of it: a space, or an
        empty block of thinking."""
        return self._decode(self.example(ASKED, SENTINELS[0]).response).partition(SENTINELS[0])[0]

    def _decode(self, ids: Sequence[int]) -> str:
        tokens = self.answer_tokens()
        shown = [id for token in ids for id in tokens.feed(token)]
        return str(self.tokenizer.decode(shown + tokens.finish()))

    @cached_property
    def _hidden(self) -> frozenset[int]:
        """The special tokens that are no part of an answer's text: all but markup of reasoning and tools."""
        names = self.tokenizer.convert_ids_to_tokens
        shown = self._protection.writable | self._call_header
        return frozenset(id for id in special_ids(self.tokenizer) if names(id) not in shown)

    @cached_property
    def _call_header(self) -> frozenset[str]:
        """The control tokens that gpt-oss writes a call of a tool with; none of other vocabularies."""
        return _CALL_HEADER if "<|call|>" in self.tokenizer.get_added_vocab() else frozenset()

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """What the template writes around reasoning and answers, and the text that it would be shown as."""
        shown = zip(self._writer.frames, ("", "<think>\n", "\n</think>\n\n"), strict=True)
        frames = dict([*shown, *(_BEFORE_CALLS if self._call_header else ())])
        return {
            frame: text for frame, text in frames.items() if not self._control.isdisjoint(self._ids(frame))
        }

    @cached_property
    def _frames(self) -> dict[tuple[int, ...], list[int]]:
        """Token sequences around reasoning and answers that contain hidden tokens, such as the headers of
        channels, and the tokens of the text that they are shown as."""
        return {self._ids(frame): self.text(text) for frame, text in self._renamed.items()}

    @cached_property
    def _control(self) -> frozenset[int]:
        return self._hidden.union(self.tokenizer.convert_tokens_to_ids(sorted(self._call_header)))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._encoder.encode([MarkedText(text)])[0])

    @cached_property
    def vocabulary_hash(self) -> str:
        """A hash of the tokens by id: token ids mean the same under tokenizers that have it in common."""
        return hash_value(sorted(self.tokenizer.get_vocab().items(), key=itemgetter(1)))

    @property
    def control(self) -> frozenset[int]:
        """The ids that contents cannot produce; see `escultor.text.plain.control_ids`."""
        return self._plain.control

    @cached_property
    def turn_end(self) -> list[int]:
        """The ids that end a plain answer: those of the template's text up to its first control token, or,
        without one, all of it and the EOS."""
        one, other = (self.example(ASKED, answer).response for answer in SENTINELS)
        return one[len(one) - shared_length(one[::-1], other[::-1]) :]

    def _turn(self, messages: Messages, answer: Message | str, tools: str) -> Turn:
        answer = Message(Role.ASSISTANT, answer) if isinstance(answer, str) else answer
        try:
            return self._writer.turn(messages, answer, tools)
        except Mismatch as error:
            raise self._unlike(error.prompt, error.whole, error.mark) from None

    def _rendered(self, turns: Sequence[Turn]) -> list[Rendered]:
        """The turns as tokens. For an answer, only the text from the last control token of its prompt on is
        encoded with it, since nothing merges across one."""
        texts = list(dict.fromkeys(MarkedText(turn.prompt, turn.mark) for turn in turns))
        known = dict(zip(texts, self._encoder.encode(texts), strict=True))
        prompts = [known[MarkedText(turn.prompt, turn.mark)] for turn in turns]
        heads = [self._head(turn.prompt, prompt) for turn, prompt in zip(turns, prompts, strict=True)]
        pairs = zip(turns, heads, strict=True)
        texts = [MarkedText(head + turn.answer, turn.mark) for turn, (head, _) in pairs]
        encoded = self._encoder.encode(texts)
        rendered = []
        for turn, prompt, (_, head), ids in zip(turns, prompts, heads, encoded, strict=True):
            if ids[: len(head)] == head:
                rendered.append(Rendered(prompt, ids[len(head) :], turn.notes))
            else:
                rendered.append(Rendered(prompt, self._encode_apart(turn), (*turn.notes, _RESPLIT)))
        return rendered

    def _head(self, prompt: str, ids: list[int]) -> tuple[str, list[int]]:
        """The end of a prompt from its last control token on, as text and ids; all where there is none."""
        tail, head = self._tail(prompt)
        return (tail, head) if head and ids[-len(head) :] == head else (prompt, ids)

    def _tail(self, prompt: str) -> tuple[str, list[int]]:
        """The last characters of a prompt, from its last control token on where they have one; their ids."""
        tail = prompt[-_TAIL:]
        tail = tail[max((start for start, _ in self._encoder.literals.find(tail)), default=0) :]
        if tail not in self._tails:
            if len(self._tails) >= _TAIL:
                self._tails.clear()
            self._tails[tail] = self._encoder.encode([MarkedText(tail)])[0]
        return tail, self._tails[tail]

    def _encode_apart(self, turn: Turn) -> list[int]:
        """The ids of an answer that does not merge with its prompt, without the blank that some tokenizers
        put before a text: it is encoded after a character that it does not merge with."""
        for before in ("\n", ".", "a", "|") if self._adds_blank else ("",):
            texts = [MarkedText(before), MarkedText(before + turn.answer, turn.mark)]
            head, ids = self._encoder.encode(texts)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        raise self._unlike(turn.prompt, turn.prompt + turn.answer, turn.mark)

    @cached_property
    def _adds_blank(self) -> bool:
        return str(self.tokenizer.convert_ids_to_tokens(self.text("a")[0])).startswith("\u2581")

    def _unlike(self, prompt: str, whole: str, mark: str) -> ModelError:
        """The error that names the first token at which a prompt and the rendering of its answer differ."""
        served, written = self._encoder.encode([MarkedText(prompt, mark), MarkedText(whole, mark)])
        at = shared_length(served, written)
        names = [self.tokenizer.convert_ids_to_tokens(ids[at : at + 1]) for ids in (served, written)]
        one, other = (name[0] if name else "nothing" for name in names)
        return ModelError(
            "the chat template writes an answer otherwise than after its own generation prompt",
            f"token {at}: {one!r} in the prompt, {other!r} where the answer is rendered",
            "a rendered answer that begins with the prompt and contains the answer",
        )

    def _begin(self) -> list[int]:
        """The ids before a document: the tokenizer's BOS, or none."""
        if self.tokenizer.chat_template is not None and self.tokenizer.bos_token_id is not None:
            return [self.tokenizer.bos_token_id]
        return self._own_begin()

    def _own_begin(self) -> list[int]:
        """The BOS, where the tokenizer puts it before every text by itself."""
        ids = self.tokenizer.encode("", add_special_tokens=True)
        return [token for token in ids if token == self.tokenizer.bos_token_id][:1]

    @cached_property
    def _writer(self) -> TurnWriter:
        return TurnWriter(self._protection, self.tokenizer.eos_token)

    @cached_property
    def _protection(self) -> Protection:
        return Protection(self.tokenizer, self._renderer, self._encoder)

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.tokenizer, self._plain)

    @cached_property
    def _plain(self) -> PlainText:
        return PlainText(self.tokenizer)


def _joined(shorter: RenderedConversation, longer: RenderedConversation) -> RenderedConversation:
    """A conversation with what is learnt of its beginning as well."""
    notes = tuple(dict.fromkeys((*shorter.notes, *longer.notes)))
    return RenderedConversation(longer.ids, (*shorter.learnt, *longer.learnt), notes)
