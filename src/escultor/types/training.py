"""Training items with their origin, dataset versions, reviews and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from escultor.ids import OMIT_DEFAULT
from escultor.types.interactions import LEFT_OUT, Consent, Message, Messages, Role, ToolCall, optional

RowKind = Literal["document", "example", "pair", "unpaired"]  # of the rows of a dataset


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a training item came from: the ids of its sources and the rule that derived it."""

    parents: tuple[str, ...]
    rule: str
    consent: Consent = Consent.TRAIN


@dataclass(frozen=True, slots=True)
class AnswerExtras:
    """What an answer holds beside its text."""

    reasoning: str = optional("")
    tool_calls: tuple[ToolCall, ...] = optional(())
    token_ids: str = optional("")  # as they were served; see `Message`


NO_EXTRAS = AnswerExtras()


def answer_message(text: str, extras: AnswerExtras = NO_EXTRAS) -> Message:
    """The assistant's message of an answer."""
    return Message(
        Role.ASSISTANT,
        text,
        reasoning=extras.reasoning,
        tool_calls=extras.tool_calls,
        token_ids=extras.token_ids,
    )


@dataclass(frozen=True, slots=True)
class Document:
    """Text to pre-train on. Writer: `data`."""

    id: str
    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the response to learn (SFT, distillation), and with it the messages of the prompt that are
    marked `learnt`. `tools` is the JSON text of the tools that the prompt offers. Writer: `data`."""

    id: str
    prompt: Messages
    response: str
    origin: Origin
    weight: float = 1.0
    tools: str = optional("")
    extras: AnswerExtras = field(default=NO_EXTRAS, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, one preferred. Law: chosen != rejected. Writer: `data`."""

    id: str
    prompt: Messages
    chosen: str
    rejected: str
    origin: Origin
    weight: float = 1.0
    flip_rate: float = 0.0  # probability that chosen and rejected are swapped
    tools: str = optional("")
    chosen_extras: AnswerExtras = field(default=NO_EXTRAS, metadata=OMIT_DEFAULT)
    rejected_extras: AnswerExtras = field(default=NO_EXTRAS, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True)
class UnpairedExample:
    """One response labelled desirable or undesirable (KTO). Writer: `data`."""

    id: str
    prompt: Messages
    response: str
    desirable: bool
    origin: Origin
    weight: float = 1.0
    tools: str = optional("")
    extras: AnswerExtras = field(default=NO_EXTRAS, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A set of items by content hash. Law: same inputs and rules, same hash. Writer: `data`."""

    hash: str
    name: str
    kind: RowKind
    rows: int
    counts: dict[str, int]  # by source, and by reason for what was left out
    blob: str  # the rows, as JSONL
    held_out: str = ""  # blob of the held-out rows, as JSONL; empty: none
    card: str = ""  # its dataset card, as JSON; empty: none


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A name given to a dataset version that is recorded already. Of all that a name was given to, the last
    one holds. Writer: `datasets.versions`."""

    id: str
    time: float
    name: str
    dataset: str  # hash of the version


@dataclass(frozen=True, slots=True)
class RetiredDataset:
    """A dataset version that held rows made of what was erased: its blobs are removed, and its names mean
    `successor`. Writer: `datasets.erasure`. Digests are those that an erasure leaves of ids, so that what was
    made of the rows is found later too."""

    id: str  # hash of the version
    time: float
    successor: str  # hash of the version without the rows; empty: no row was left
    parents: tuple[str, ...]  # digests of the erased entries
    rows: tuple[str, ...]  # digests of the rows
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Prompts that are kept out of all later training. Writer: `datasets.held_out`."""

    id: str  # hash of the prompts
    name: str  # the dataset or suite they belong to
    prompts: int
    blob: str  # hash and text of each, as JSONL


@dataclass(frozen=True, slots=True)
class Review:
    """A person's decision about a row of a dataset. Writer: `datasets.review`. A reviewer's last decision
    counts. `uniform` marks rows sampled at random, from which a rate can be estimated; the others were
    selected because their score was uncertain."""

    id: str
    time: float
    dataset: str  # hash of the version
    row: str  # id of the item
    reviewer: str
    decision: Literal["accept", "reject", "edit", "skip"]
    uniform: bool
    reason: str = ""
    text: str = ""  # the new training target, where the decision is `edit`


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights and tokenizer by content hash. Writer: `train`."""

    id: str  # hash of the files
    name: str
    method: str  # the training method (pretrain, sft, dpo, …), or import
    parents: tuple[str, ...]
    config_hash: str
    dataset_hash: str
    code_version: str
    seed: int
    parameters: int
    datasets: Annotated[tuple[str, ...], LEFT_OUT] = optional(())  # hashes of the versions that it read
