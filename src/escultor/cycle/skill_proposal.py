"""A skill proposed from the log, or from examples: held-out items drawn by clusters of similar prompts, and
metrics that what people said of the answers, or wrote as answers, can be measured by."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from escultor.config import Config, Gate
from escultor.cycle.preferences import reward_of_store
from escultor.datasets.held_out import HeldOutGuard
from escultor.datasets.similarity.duplicates import band_hashes, bands_for, resolve_roots
from escultor.errors import DataError, InputError
from escultor.rng import unit
from escultor.skills.reward import RewardModel
from escultor.skills.schema import parsed
from escultor.skills.table import PEOPLE
from escultor.stats import Condition, n_to_meet
from escultor.store import Store
from escultor.store.feedback import live
from escultor.types import (
    FAILED,
    Consent,
    Correction,
    Example,
    Feedback,
    Interaction,
    Message,
    Messages,
    Role,
)

# Prompts that are more similar are one cluster; the next is tried where a shared template makes too few.
SIMILAR, PERMUTATIONS = (0.6, 0.8, 0.95), 120
MOST_LABELS, USES_PER_LABEL = 20, 3  # of a classification
COMPARED = (
    "`people_preference` compares answers blind (`escultor rate`); a metric {name: judged, judge: MODEL} "
    "lets a language model do it, and references in the suite make other metrics possible"
)
ITEMS = 150  # of a suite, where nobody says how many
# An answer's tokens, generously, where no tokenizer is known.
BYTES_OF_A_TOKEN, SPARE_TOKENS = 2, 8
CHANGED = 0.2  # the share of answers that a new model is taken to answer otherwise, in a plan


@dataclass(frozen=True, slots=True)
class LoggedPrompt:
    """One prompt: its messages, what people wrote that the answer should have been, the answer."""

    messages: Messages
    reference: str | None
    answer: str
    parents: tuple[str, ...] = ()
    skill: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class SkillProposal:
    """The declaration, the rows of its suite, and what to know about them, a line each. What is to be written
    to the other files that the declaration names: the reward model, and the rows of its examples."""

    declaration: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: list[str]
    reward: RewardModel | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)


def propose_skill(
    store: Store, name: str, items: int, effect: float = 0.1, config: Config | None = None
) -> SkillProposal:
    """A skill from the store's log: from what is filed under its name, else from all of it.

    effect: the gain, in the primary metric, that a verdict should be able to show. config: how feedback
    becomes preferences, which a reward model is fitted to where nobody wrote references. Raises InputError
    where the log holds no prompt that may be used.
    """
    prompts = _logged_prompts(store, name)
    if not prompts:
        remedy = "serve requests, or import them: `escultor interactions import`"
        raise InputError("the log holds no prompt that may be used", "none with consent", remedy=remedy)
    clustered = _clustered(prompts, items)
    references = [p.reference for p in clustered if p.reference is not None]
    metrics, primary, guards, output, notes = _metrics(references, [p.answer for p in clustered])
    usable = [p for p in clustered if p.reference is not None] if primary else clustered
    drawn = _draw(usable, name, items)
    reward = None
    if not references:
        reward, note = _reward(store, config or Config(), name, prompts, drawn)
        notes.append(note)
        metrics = [PEOPLE, *metrics]
        primary = [PEOPLE]
    if reward is not None:
        metrics.insert(1, {"name": "reward", "reward_model": reward_file(name)})
        primary += ["reward"] if reward.is_better_than_chance else []
    instruction = _shared_instruction(clustered)
    rows = [_row(prompt, instruction) for prompt in drawn]
    found = len({p.cluster for p in usable})
    notes = [
        f"{len(prompts):,} different prompts in {len({p.cluster for p in clustered}):,} clusters of similar "
        f"ones; {len(references):,} with an answer that a person wrote",
        f"{len(rows)} items drawn, one from each of {found:,} clusters that can be measured",
        *notes,
        _size_note(effect, len(rows)),
    ]
    about = "Drawn from the log; say here what it is for."
    declaration = _declaration(name, about, instruction, (metrics, primary, guards, output))
    return SkillProposal(declaration, rows, notes, reward)


def propose_from_examples(
    examples: Sequence[Example], name: str, items: int | None = None, effect: float = 0.1
) -> SkillProposal:
    """A skill from rows of one's own, prompts with their right answers: some become held-out items (None:
    half of them, 150 at most), the others its examples.

    Raises InputError where there are fewer than two different prompts, or not more of them than items.
    """
    first = {each.prompt: each.response for each in reversed(examples)}
    prompts = [LoggedPrompt(prompt, answer, answer) for prompt, answer in reversed(first.items())]
    wanted = min(ITEMS, len(prompts) // 2) if items is None else items
    if not 0 < wanted < len(prompts):
        allowed = f"more than {max(wanted, 1)}: those that are no items are learnt from"
        raise InputError("there are too few different prompts", len(prompts), allowed, "give fewer --items")
    clustered = _clustered(prompts, wanted)
    texts = [p.answer for p in clustered]
    metrics, primary, guards, output, notes = _metrics(texts, texts)
    drawn = _draw(clustered, name, wanted)
    instruction = _shared_instruction(clustered)
    held_out = {p.messages for p in drawn}
    rest = [(_row(p, instruction), p.answer) for p in clustered if p.messages not in held_out]
    taught = [{"input": row["input"], "output": answer} for row, answer in rest if "input" in row]
    more = [f"{len(examples) - len(prompts):,} rows ask what another asks: the first of them counts"]
    several = "are conversations of several turns, which `escultor sft --data` teaches"
    more += [f"{len(rest) - len(taught):,} rows that are no items {several}"]
    about = "Drawn from examples; say here what it is for."
    declaration = _declaration(name, about, instruction, (metrics, primary, guards, output))
    longest = max(len(text.encode("utf-8", "replace")) for text in texts)
    declaration |= {"decoding": {"max_new_tokens": longest // BYTES_OF_A_TOKEN + SPARE_TOKENS}}
    declaration |= {"examples": f"{name}.examples.jsonl"} if taught else {}
    notes = [
        f"{len(drawn)} held-out items and {len(taught)} examples to learn from",
        *(note for note in more if not note.startswith("0 ")),
        *notes,
        _size_note(effect, len(drawn)),
    ]
    return SkillProposal(declaration, [_row(p, instruction) for p in drawn], notes, examples=taught)


def _declaration(
    name: str, about: str, instruction: str, measured: tuple[list[Any], list[str], dict[str, float], Any]
) -> dict[str, Any]:
    metrics, primary, guards, output = measured
    return {
        "name": name,
        "about": about,
        **({"instruction": instruction} if instruction else {}),
        **({"output": output} if output else {}),
        "metrics": metrics,
        **({"primary": primary} if primary else {}),
        **({"guards": guards} if guards else {}),
        "rubric": "What makes one answer better than another, for raters and judges.",
        "suite": f"{name}.suite.jsonl",
    }


def _clustered(prompts: Sequence[LoggedPrompt], items: int) -> list[LoggedPrompt]:
    """The prompts in clusters of similar ones, at the first similarity that makes as many as are wanted."""
    clustered: list[LoggedPrompt] = []
    for similar in SIMILAR:
        clustered = _with_clusters(prompts, similar)
        if len({p.cluster for p in clustered}) >= min(items, len(prompts)):
            break
    return clustered


def reward_file(name: str) -> str:
    """The file of a skill's reward model, beside its declaration."""
    return f"{name}.reward.json"


def _reward(
    store: Store, config: Config, name: str, prompts: Sequence[LoggedPrompt], drawn: Sequence[LoggedPrompt]
) -> tuple[RewardModel | None, str]:
    """A reward model of what was said about the same answers, without the prompts that are drawn."""
    skill = name if any(p.skill == name for p in prompts) else None
    return reward_of_store(store, config, skill, HeldOutGuard.of(p.messages for p in drawn))


def _logged_prompts(store: Store, name: str) -> list[LoggedPrompt]:
    """Each prompt once, with a person's correction where there is one; what is filed under the name, if
    anything is."""
    written: dict[str, Correction] = {}
    for event in live(event for _, event in store.log.read(Feedback)).values():
        if isinstance(event, Correction) and event.text:
            written[event.target] = event
    own: dict[str, LoggedPrompt] = {}
    every: dict[str, LoggedPrompt] = {}
    for _, row in store.log.read(Interaction):
        if row.consent is Consent.NONE or row.task or row.finish_reason in FAILED or not row.messages:
            continue
        said = written.get(row.id)
        parents = (row.id,) if said is None else (row.id, said.id)
        prompt = LoggedPrompt(row.messages, said.text if said else None, row.answer, parents, row.skill)
        for known in (every, own) if row.skill == name else (every,):
            if row.prompt_hash not in known or prompt.reference is not None:
                known[row.prompt_hash] = prompt
    return list((own or every).values())


def _with_clusters(prompts: Sequence[LoggedPrompt], similar: float) -> list[LoggedPrompt]:
    """The prompts with the cluster of each: those that share a band of MinHashes, and those that share one
    with these."""
    texts = [[("prompt", prompt.messages[-1].content)] for prompt in prompts]
    bands = band_hashes(texts, *bands_for(similar, PERMUTATIONS))
    root = np.arange(len(prompts), dtype=np.uint32)
    for column in bands.T:
        _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
        for row, other in enumerate(first[inverse].tolist()):
            a, b = _end(root, row), _end(root, other)
            root[max(a, b)] = min(a, b)
    resolve_roots(root)
    return [replace(p, cluster=f"c{number}") for p, number in zip(prompts, root.tolist(), strict=True)]


def _end(root: np.ndarray, row: int) -> int:
    while int(root[row]) != row:
        root[row] = root[root[row]]
        row = int(root[row])
    return row


def _draw(prompts: Sequence[LoggedPrompt], name: str, items: int) -> list[LoggedPrompt]:
    """One prompt of each cluster at most, clusters and prompts in an order that depends on the name alone."""
    order = sorted(prompts, key=lambda p: unit(0, name, [m.content for m in p.messages]))
    first = {p.cluster: p for p in reversed(order)}
    clusters = dict.fromkeys(p.cluster for p in order)
    return [first[cluster] for cluster in clusters][:items]


def _shared_instruction(prompts: Sequence[LoggedPrompt]) -> str:
    """The system message, where every prompt begins with the same one."""
    systems = {p.messages[0].content if p.messages[0].role is Role.SYSTEM else "" for p in prompts}
    return systems.pop().strip() if len(systems) == 1 else ""


def _row(prompt: LoggedPrompt, instruction: str) -> dict[str, Any]:
    messages = prompt.messages
    is_plain = messages == ((Message(Role.SYSTEM, instruction),) if instruction else ()) + messages[-1:]
    if is_plain and messages[-1].role is Role.USER:
        row: dict[str, Any] = {"input": messages[-1].content}
    else:
        row = {"prompt": [{"role": str(m.role), "content": m.content} for m in messages]}
    reference = {} if prompt.reference is None else {"reference": prompt.reference}
    parents = {"parents": list(prompt.parents)} if prompt.parents else {}
    return row | reference | parents


# --- metrics ----------------------------------------------------------------------------------


def _metrics(
    references: Sequence[str], answers: Sequence[str]
) -> tuple[list[Any], list[str], dict[str, float], Any, list[str]]:
    """Metrics, primary, guards and output that fit what there is, and why."""
    shaped = references or answers
    objects = [value for text in shaped if isinstance(value := _json(text), dict)]
    if shaped and len(objects) >= 0.9 * len(shaped):
        schema = infer_schema(objects)
        fields = [
            {"name": f"{key.lower()}_right", "field": key}
            for key in schema["properties"]
            if key.isidentifier() and key.isascii()
        ]
        guards, output = {"schema_valid": 0.02}, {"json": schema}
        if references:
            note = (
                f"the answers are JSON: `field_accuracy` of {len(fields)} fields, and the schema they share"
            )
            return ["field_accuracy", "schema_valid", *fields], ["field_accuracy"], guards, output, [note]
        note = f"the answers are JSON, and no person corrected one: {COMPARED}"
        return ["schema_valid", "answer_tokens"], [], guards, output, [note]
    if not references:
        return ["answer_tokens", "cut"], [], {"cut": 0.05}, None, [f"no person wrote an answer: {COMPARED}"]
    labels = Counter(text.strip() for text in references)
    if len(labels) <= MOST_LABELS and len(references) >= USES_PER_LABEL * len(labels):
        note = f"the answers are one of {len(labels)} labels: {', '.join(sorted(labels)[:5])}…"
        known = {"name": "is_label", "matches": "|".join(_escaped(label) for label in sorted(labels))}
        return ["exact_match", known], ["exact_match"], {"is_label": 0.02}, None, [note]
    note = "the references are free text: `chrf` measures how near an answer is, a judge says more"
    return ["chrf", "rouge_l", "answer_tokens"], ["chrf"], {}, None, [note]


def infer_schema(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON schema that objects share: the type of each property, required where all have it, and its
    values where few ones come again and again."""
    properties: dict[str, Any] = {}
    for key in dict.fromkeys(key for each in objects for key in each):
        values = [each[key] for each in objects if key in each]
        kinds = sorted({_TYPES.get(type(value), "null") for value in values})
        kinds = ["number"] if kinds == ["integer", "number"] else kinds
        texts = Counter(value for value in values if isinstance(value, str))
        few = kinds == ["string"] and len(texts) <= MOST_LABELS
        properties[key] = {"type": kinds[0] if len(kinds) == 1 else kinds}
        if few and len(values) >= USES_PER_LABEL * len(texts):
            properties[key] = {"enum": sorted(texts)}
    required = [key for key in properties if all(key in each for each in objects)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def _json(text: str) -> Any:
    try:
        return parsed(text)
    except DataError:
        return None


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in r"\.+*?()|[]{}^$" else char for char in text)


def _size_note(effect: float, items: int) -> str:
    """How many items the wished effect needs in a metric of 0 and 1, of whose answers a fifth change."""
    spread = math.sqrt(max(CHANGED, effect) - effect**2)
    needed = n_to_meet([Condition(effect, spread, Gate().alpha)])
    enough = "enough" if needed is not None and items >= needed else "too few"
    return (
        f"to show a gain of {effect:g} a verdict needs about {needed or 'very many':} items "
        f"(80 % power, {CHANGED:.0%} of the answers change): {items} are {enough}"
    )


def suite_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
