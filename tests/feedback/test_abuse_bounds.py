"""The bounds that the docs state, end to end: from random mixes of honest people and others to items."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from feedback_records import DAY, correction, interaction, selection_of, thumb

from escultor.config import FeedbackRules
from escultor.feedback.selection import SelectionQuery

SPAN = 90 * DAY


def mix(seed: int):
    """Honest people, and a few who vote much or little, fast or slowly, up or down, or write corrections;
    tenants and skills of any size, and chances of being shown that are all but none."""
    draw = random.Random(seed)
    served, events = [], []
    good = draw.choice((0.5, 0.8, 0.97))
    people = [(f"p{n}", draw.randint(1, 9), good, 90) for n in range(draw.randint(20, 120))]
    people += [
        (f"m{n}", draw.randint(5, 90), draw.choice((0.0, 1.0)), draw.choice((1, 30, 90))) for n in range(6)
    ]
    for who, votes, up, days in people:
        writes = who[0] == "m" and draw.random() < 0.4
        for n in range(votes):
            id, when = f"{who}-{n}", SPAN - draw.random() * days * DAY
            terms = {"tenant": f"t{min(int(draw.paretovariate(0.6)), 8)}", "skill": draw.choice("aab")}
            call = interaction(id, f"question {id}", f"The words of an answer, {id}.", subject=who, **terms)
            served.append(replace(call, propensity=draw.choice((1.0, 0.5, 1e-6))))
            written = correction(id, f"The words of another answer, {id}.", who, when)
            events.append(written if writes else thumb(id, draw.random() < up, who, when))
    return served, events


@pytest.mark.parametrize("seed", range(8))
def test_nobody_and_no_tenant_holds_more_than_the_docs_say(seed):
    found = selection_of(*mix(seed), asked=SelectionQuery(SPAN + DAY))
    for rows in filter(None, found.chosen.values()):
        n, total = len(rows), sum(c.weight for c in rows)
        items, weights = Counter(), Counter()
        heaviest: dict[tuple[str, bool], float] = {}
        for c in rows:
            (who,) = c.draft.subjects
            items[who] += 1
            weights[who] += c.weight * n / total
            heaviest[who, c.draft.desirable] = max(heaviest.get((who, c.draft.desirable), 0.0), c.weight)
        limit = max(FeedbackRules().subject_items, FeedbackRules().subject_share * n)
        for who in items:
            assert items[who] <= limit
            single = sum(heaviest.get((who, side), 0.0) for side in (True, False))
            assert weights[who] <= 2 * limit + single + 1e-3
        tenants = Counter(c.facts.tenant for c in rows)
        assert len(tenants) <= 5 or max(tenants.values()) <= max(20, 0.2 * n)
