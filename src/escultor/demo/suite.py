"""The suite `trinity`: documents of packages that no model is trained on, with their authors' Trinities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from escultor.config import Evaluation
from escultor.demo import corpus
from escultor.demo.documentation import Gold
from escultor.rng import unit
from escultor.skills.metrics import rouge_l
from escultor.skills.suites import EvaluationSuite, make_suite
from escultor.skills.trinity import METRICS, document_in, lead_sentence, parse_trinity, prompt_for
from escultor.types import Sampling, SuiteItem

NAME = "trinity"
MEASURED = (*METRICS, "bits_per_byte", "document_bits_per_byte", "answer_tokens")


def trinity_suite(
    golds: Sequence[Gold], settings: Evaluation, measured: Sequence[str] = MEASURED
) -> EvaluationSuite:
    """A suite of at most `settings.items` golds, no package with more than an eighth of them, in an order
    that depends on the seed and the items alone. Raises DataError when none is left.

    Clusters are modules: their documents share an author and a style. A document is read with its author's
    summary put back.
    """
    limit = max(1, settings.items // 8)
    items: list[SuiteItem] = []
    per_package: Counter[str] = Counter()
    for gold in sorted(golds, key=lambda g: unit(settings.seed, "suite", g.id)):
        if len(items) < settings.items and per_package[gold.package] < limit:
            per_package[gold.package] += 1
            items.append(_item(gold))
    return make_suite(NAME, NAME, items, measured, Sampling(max_new_tokens=settings.max_new_tokens))


def installed_suite(settings: Evaluation, cache: Path | None = None) -> EvaluationSuite:
    """The suite of the documentation of the installed packages; the folder `cache` keeps what was mined."""
    return trinity_suite(corpus.read_corpus(cache).held_out, settings)


def lead_baseline(suite: EvaluationSuite) -> float:
    """Mean ROUGE-L of the lead sentence used as the summary."""
    scores = [
        rouge_l(lead_sentence(document_in(item.prompt)), parse_trinity(item.references[0]).summary)
        for item in suite.items
    ]
    return sum(scores) / len(scores)


def _item(gold: Gold) -> SuiteItem:
    return SuiteItem(
        gold.id,
        prompt_for(gold.document),
        ".".join(gold.trinity.entity.split(".")[:3]),
        (gold.trinity.to_json(),),
        document=f"{gold.document}\n\n{gold.trinity.summary}",
        labels={"domain": gold.trinity.domain, "package": gold.package, "purpose": gold.trinity.purpose},
    )
