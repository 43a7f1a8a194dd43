"""From drafts to the items that are trained on: what may not enter is left out, the rest weighed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from escultor.config import FeedbackRules
from escultor.feedback import weighting
from escultor.feedback.abuse_rules import MIN_OTHERS
from escultor.feedback.index import AnswerFacts, FeedbackIndex
from escultor.feedback.labelling_rules import Draft, ItemKind
from escultor.feedback.trust import RaterStandings
from escultor.ids import hash_bytes

KINDS: tuple[ItemKind, ...] = ("example", "pair", "unpaired")
SETTING = re.compile(r"feedback\.(\w+)")  # in a reason why something was left out
LIFTED_BY = {
    "subject_items": "raise it, or give `--trust NAME` for a person you know",
    "subject_share": "raise it, or give `--trust NAME` for a person you know",
    "probation_items": "it ends with {votes} events and a day, or give `--trust NAME` for a person you know",
    "tenant_share": "raise it",
}
MIN_CAPPED_TENANTS = 6  # of fewer, each has a fifth of the items by nature
# Item ids hash the name of their kind; this is the name that `unpaired` had when the first ids were made.
HASHED_KINDS: dict[ItemKind, str] = {"example": "example", "pair": "pair", "unpaired": "judged"}


@dataclass(frozen=True, slots=True)
class SelectionQuery:
    """Which part of what holds is wanted: items whose newest event was recorded behind entry `after` and
    happened no earlier than `since`; their other events may be older. `now` decides what retention
    ended."""

    now: float
    after: int = 0
    since: float | None = None
    held_out: frozenset[str] = frozenset()  # prompt hashes
    skill: str | None = None  # None: of every skill
    schemas: tuple[tuple[str, str], ...] = ()  # skill and JSON schema: what breaks it is not taught


@dataclass(slots=True)
class SelectedDraft:
    """A draft that is trained on, its weight, and the facts of its answer and, for a pair, of the rejected
    one. The id is a hash of the content, set once that is known."""

    draft: Draft
    facts: AnswerFacts
    rejected: AnswerFacts | None
    weight: float = 1.0
    id: str = ""

    @property
    def lengths(self) -> tuple[int, int]:
        """Of both sides of a pair, in characters."""
        return self.facts.length, (self.rejected or self.facts).length


@dataclass(slots=True)
class Selection:
    """What was selected, by kind, and why the rest was not."""

    standings: RaterStandings
    chosen: dict[ItemKind, list[SelectedDraft]]
    counts: Counter[str]
    agreement: list[tuple[int, int]]  # (thumbs up, thumbs down) of answers with several
    notes: list[str] = field(default_factory=list)
    # By setting and value, the people or tenants that the cap binds for, with the items that each lost.
    caps: dict[tuple[str, float], Counter[Hashable]] = field(default_factory=dict)
    few_people: int | None = (
        None  # how many gave all feedback, where they are too few to bound the share of one
    )


def select(index: FeedbackIndex, settings: FeedbackRules, query: SelectionQuery) -> Selection:
    """All that the index holds, selected for training."""
    counts = Counter(index.counts())
    selection = Selection(index.standings(), {kind: [] for kind in KINDS}, counts, index.agreement())
    counts.update(f"quarantine: {entry.rule}" for entry in selection.standings.quarantine)
    for draft, facts, rejected in index.drafts(query.after, query.since):
        if draft.prompt in query.held_out:
            counts["left out: held-out prompt"] += 1
        elif query.skill not in (None, facts.skill):
            counts["left out: of another skill"] += 1
        elif any(s and s.retain_until is not None and s.retain_until <= query.now for s in (facts, rejected)):
            counts["left out: its time of retention is over"] += 1
        else:
            selection.chosen[draft.kind].append(SelectedDraft(draft, facts, rejected))
    crowd = Crowd.of(index, settings, query.now, selection)
    for kind in KINDS:
        items = _without_repeats(selection.chosen[kind], counts)
        if kind == "pair" and settings.length_ratio is not None:
            n, ratio = len(items), settings.length_ratio
            items = [i for i in items if max(i.lengths) <= ratio * min(i.lengths)]
            counts["left out: sides differ too much in length"] += n - len(items)
        _weigh(items, settings, crowd.newcomers)
        selection.chosen[kind] = _finish(_cap(items, settings, crowd, selection), kind)
    selection.notes += _limit_notes(selection, settings)
    return selection


@dataclass(frozen=True, slots=True)
class Crowd:
    """The end users whose shares are bounded: newcomers, and groups that count as one user. In a team of a
    few people nobody's share can be bounded by a crowd, so that nobody has an owner's cap; nor has who is
    trusted."""

    newcomers: frozenset[str]
    groups: Mapping[str, str]
    uncapped: frozenset[str] | None  # None: nobody is capped

    @classmethod
    def of(cls, index: FeedbackIndex, settings: FeedbackRules, now: float, selection: Selection) -> Crowd:
        standings = selection.standings
        trusted, groups = frozenset(standings.trusted), standings.trust.collusion_groups
        people = {groups.get(s, s) for s in index.subjects() - trusted}
        if len(people) <= MIN_OTHERS:
            selection.few_people = len(people)
            return cls(frozenset(), groups, None)
        return cls(index.newcomers(settings.probation_votes, now) - trusted, groups, trusted)

    def owners(self, subjects: tuple[str, ...]) -> tuple[str, ...]:
        """The people or groups whose caps are charged for an item of these subjects."""
        if self.uncapped is None:
            return ()
        return tuple(sorted({self.groups.get(s, s) for s in subjects if s not in self.uncapped}))


def _limit_notes(selection: Selection, settings: FeedbackRules) -> Iterator[str]:
    """Every limit that left something out: its value, for how many it binds, and what would lift it."""
    if (n := selection.few_people) and any(
        i.draft.subjects for own in selection.chosen.values() for i in own
    ):
        who = "one person" if n == 1 else f"{n} people"
        yield f"{who} gave all feedback: no crowd bounds the share of one, so caps and probation are off"
    for (name, value), lost in sorted(selection.caps.items()):
        one, many = ("tenant", "tenants") if name == "tenant_share" else ("person", "people")
        n, items = len(lost), sum(lost.values())
        binds = f"feedback.{name} {value:g} binds for {n:,} {one if n == 1 else many}, {items:,} items"
        yield f"{binds}: {LIFTED_BY[name].format(votes=settings.probation_votes)}"
    for reason, n in sorted(selection.counts.items()):
        if n and (found := SETTING.search(reason)):
            yield f"{reason}: {n:,}; it is {getattr(settings, found[1]):g}"


def _without_repeats(items: list[SelectedDraft], counts: Counter[str]) -> list[SelectedDraft]:
    """One item for each content: the heaviest, of these that of the first rule."""
    by_content: dict[tuple[str, ...], SelectedDraft] = {}
    for item in items:
        rejected = (item.rejected.text_hash,) if item.rejected else ()
        content = (item.draft.prompt, item.facts.text_hash, *rejected)
        held = by_content.get(content)
        if held is not None:
            counts["left out: made by another rule too"] += 1
        if held is None or item.draft.weight > held.draft.weight:
            item.id = hash_bytes("\x1f".join((HASHED_KINDS[item.draft.kind], *content)).encode())
            by_content[content] = item
    return list(by_content.values())


def _weigh(items: list[SelectedDraft], settings: FeedbackRules, newcomers: frozenset[str]) -> None:
    """Sets the weights: inverse propensity, times the rule's own weight, times a half for newcomers, and
    for unpaired examples times the balance of each skill."""
    propensities = []
    for item in items:
        propensity, rejected = item.facts.propensity, item.rejected
        if rejected and rejected.arm != item.facts.arm:
            propensity *= rejected.propensity  # both answers had to be drawn
        propensities.append(propensity)
    weights = weighting.propensity_weights(propensities, settings.propensity_clip)
    if items and items[0].draft.kind == "unpaired":
        desirable, skills = [i.draft.desirable for i in items], [i.facts.skill for i in items]
        by_skill = weighting.class_weights(desirable, skills, settings.propensity_clip)
        weights = [a * b for a, b in zip(weights, by_skill, strict=True)]
    for item, weight in zip(items, weights, strict=True):
        is_new = item.draft.subjects and newcomers.issuperset(item.draft.subjects)
        item.weight = weight * item.draft.weight * (0.5 if is_new else 1.0)
    for item, weight in zip(items, weighting.normalise([i.weight for i in items]), strict=True):
        item.weight = weight


def _cap(
    items: list[SelectedDraft], settings: FeedbackRules, crowd: Crowd, selection: Selection
) -> list[SelectedDraft]:
    """Limits the shares of end users and tenants by leaving items out. Where tenants lose items, an end
    user's share of the rest is smaller, so both caps are applied until nothing is lost."""

    def subject_caps(owner: Hashable, n: int) -> dict[str, float]:
        share = settings.subject_share * n
        is_share = share > settings.subject_items
        caps = {"subject_share": share} if is_share else {"subject_items": float(settings.subject_items)}
        return caps | (
            {"probation_items": float(settings.probation_items)} if owner in crowd.newcomers else {}
        )

    def tenant_caps(_: Hashable, n: int) -> dict[str, float]:
        return {"tenant_share": max(settings.subject_items, settings.tenant_share * n)}

    owners = cache(crowd.owners)
    while True:
        items = _within_caps(items, lambda i: owners(i.draft.subjects), subject_caps, settings, selection)
        n, tenants = len(items), len({i.facts.tenant for i in items})
        if tenants < MIN_CAPPED_TENANTS:
            if tenants > 1 and "tenant caps off" not in " ".join(selection.notes):
                selection.notes.append(f"tenant caps off: {tenants} tenants, each near a fifth by nature")
            return items
        items = _within_caps(items, lambda item: (item.facts.tenant,), tenant_caps, settings, selection)
        if len(items) == n:
            return items


def _within_caps(
    items: list[SelectedDraft],
    owners: Callable[[SelectedDraft], tuple[str, ...]],
    caps: Callable[[Hashable, int], dict[str, float]],
    settings: FeedbackRules,
    selection: Selection,
) -> list[SelectedDraft]:
    """The items with which each owner keeps to the smallest of their caps. Of who lost items, all caps that
    the items they had exceed are noted: to lift the smallest alone would leave them at the next."""
    costs = [weighting.CapCost(i.id, i.weight, owners(i), i.draft.desirable) for i in items]
    keep, lost = weighting.apply_caps(costs, lambda owner, n: min(caps(owner, n).values()))
    selection.counts["left out: beyond the cap of a person or tenant"] += keep.count(False)
    had = dict.fromkeys(lost, 0.0)
    for cost in costs:
        for owner in lost.keys() & cost.owners:
            had[owner] += max(1.0, cost.weight) / len(cost.owners)
    for owner, n in lost.items():
        for name, cap in caps(owner, sum(keep)).items():
            if had[owner] > cap:  # not who only shared an item with somebody at a cap
                value = getattr(settings, name)
                selection.caps.setdefault((name, value), Counter())[owner] += n
    return [item for item, stays in zip(items, keep, strict=True) if stays]


def _finish(items: list[SelectedDraft], kind: ItemKind) -> list[SelectedDraft]:
    """The items with their final weights, ordered by id, so that nothing depends on the order of reading."""
    items = sorted(items, key=lambda item: item.id)
    weights = weighting.normalise([item.weight for item in items])
    if kind == "unpaired":
        weights = weighting.balance(weights, [item.draft.desirable for item in items])
    for item, weight in zip(items, weights, strict=True):
        item.weight = round(weight, 6)
    return items
