"""Quality over quantity: SFT on the best N rows that curation picks, against all 10 N, at equal token budget.

    python experiments/curation.py [--rows 400] [--passes 3] [--seeds 5]

Rows are documents of the installed packages with their author's summary; nine in ten are made worse: another
document's summary, a body cut short, or both texts of different rows shuffled. The score is fitted to rows
apart from these, rated by a rater that is played: it knows which rows were made worse. Every arm trains on
as many tokens as `--passes` over the best N hold. Measured on packages never trained on: bits per byte of
authors' summaries, and ROUGE-L of the greedy answers with them. The negative control is N rows by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from escultor.batching.rows import example_rows
from escultor.batching.teacher import nll_by_row
from escultor.config import Sft
from escultor.config.curation import Curation
from escultor.data.jsonl import write_jsonl
from escultor.datasets.curation.labels import with_labels
from escultor.datasets.curation.pipeline import curate
from escultor.datasets.curation.quality import fit
from escultor.datasets.rows import CurationRow, read_line
from escultor.demo.corpus import read_corpus
from escultor.demo.documentation import Gold, balanced
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.rng import derive_seed
from escultor.skills.metrics import rouge_l
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Example, Message, Origin, Role, Sampling

ASK = "Write one line that says what this document is about.\n\n"
RATED = 300
HELD_OUT = 300
BATCH = 32
ANSWER_TOKENS = 48
NOISE = ("wrong summary", "body cut short", "shuffled")


def example(document: str, summary: str, id: str) -> Example:
    return Example(id, (Message(Role.USER, ASK + document),), summary, Origin((id,), "experiment/1"))


def noised(golds: Sequence[Gold], share: float, seed: int) -> tuple[list[Example], list[bool]]:
    """Rows of which a share is made worse, and which of them are sound."""
    draw = random.Random(seed)
    made, sound = [], []
    for at, gold in enumerate(golds):
        document, summary, other = gold.document, gold.trinity.summary, draw.choice(golds)
        good = at % 10 >= round(10 * share)
        if not good:
            kind = NOISE[at % 3]
            if kind == "wrong summary":
                summary = other.trinity.summary
            elif kind == "shuffled":
                document = other.document
            else:
                document = document[: len(document) // 4]
                summary = summary[: max(10, len(summary) // 2)]
        made.append(example(document, summary, f"{at}:{gold.id}"))
        sound.append(good)
    return made, sound


def chosen(
    items: Sequence[Example], rated: Sequence[Example], verdicts: Sequence[bool], count: int
) -> list[Example]:
    """The best rows by the pipeline with a score fitted to ratings."""
    model = fit([with_labels(CurationRow(item, "rated")) for item in rated], verdicts, 1.0)
    settings = Curation.model_validate({"workers": 1, "quality": {"min_score": 0}})
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "in.jsonl"
        write_jsonl(source, items)
        made = curate([source], Path(name) / "out", settings, {"quality": model}, top=count)
        with made.rows.open("rb") as file:
            return [read_line("example", line).item for line in file]  # type: ignore[misc]


def bits(loaded: Loaded, golds: Sequence[Gold]) -> float:
    """Mean bits per byte of the authors' summaries."""
    items = [example(g.document, g.trinity.summary, g.id) for g in golds]
    rows = example_rows(items, loaded.chat, 1024, Counter())
    nats = nll_by_row(loaded.model, rows, "auto")
    sizes = [len(g.trinity.summary.encode()) for g in golds]
    return float(np.mean([n / math.log(2) / size for n, size in zip(nats, sizes, strict=True)]))


def rouge(loaded: Loaded, golds: Sequence[Gold]) -> float:
    """Mean ROUGE-L of greedy answers with the authors' summaries."""
    chat = loaded.chat
    asked = [chat.prompt(example(g.document, g.trinity.summary, g.id).prompt) for g in golds]
    answers = generate(loaded, asked, Sampling(max_new_tokens=ANSWER_TOKENS))
    return statistics.fmean(rouge_l(a.text, g.trinity.summary) for a, g in zip(answers, golds, strict=True))


def trained(items: Sequence[Example], steps: int, seed: int, golds: Sequence[Gold]) -> dict[str, float]:
    """What SFT from escultor-base comes to, and the tokens it took."""
    settings = Sft(
        learning_rate=1e-3, epochs=1000, max_steps=steps, batch_size=BATCH, warmup_steps=10, seed=seed
    )
    with tempfile.TemporaryDirectory() as name:
        record = run(TrainingTask("sft", load("escultor-base"), items, settings), Path(name) / "run")
        loaded = load(str(Path(name) / "run" / "model"))
        return {
            "bits_per_byte": bits(loaded, golds),
            "rouge_l": rouge(loaded, golds),
            "tokens": record.tokens,
        }


def size(item: Example) -> int:
    """Characters, which stand for tokens where budgets are made equal; the tokens used are reported."""
    return len(item.response) + sum(len(message.content) for message in item.prompt)


def interval(differences: Sequence[float]) -> dict[str, float]:
    """Mean with its 95 % interval by Student's t."""
    n, mean = len(differences), statistics.fmean(differences)
    half = (
        float(student.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.inf
    )
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": n}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=400, help="N; ten times as many are made")
    parser.add_argument("--passes", type=float, default=3.0, help="over the best rows; every arm's budget")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    corpus = read_corpus()
    held_out = balanced(corpus.held_out, HELD_OUT)
    every = balanced(corpus.train, 10 * given.rows + RATED)
    arms_of: dict[str, list[dict[str, float]]] = {"best": [], "all": [], "random": []}
    sound_share = []
    for seed in range(given.seeds):
        arms, share = drawn_arms(every, given.rows, seed)
        sound_share.append(share)
        budget = given.passes * sum(map(size, arms["best"]))
        for name, rows in arms.items():
            steps = max(1, round(budget / statistics.fmean(map(size, rows)) / BATCH))
            found = trained(rows, steps, seed, held_out)
            arms_of[name].append(found)
            print(f"seed {seed} {name:6} {len(rows):5} rows {steps:4} steps {found}", flush=True)
    base = load("escultor-base")
    report = {
        "experiment": "curation",
        "rows": given.rows,
        "passes": given.passes,
        "sound_share_of_best": sound_share,
        "base": {"bits_per_byte": bits(base, held_out), "rouge_l": rouge(base, held_out)},
        "arms": arms_of,
        "gained_by_best_over": {other: gains(arms_of, other) for other in ("all", "random")},
    }
    print(json.dumps(report))


def drawn_arms(every: Sequence[Gold], count: int, seed: int) -> tuple[dict[str, list[Example]], float]:
    """The rows of each arm, and which share of the best are sound."""
    drawn = random.Random(derive_seed(seed, "experiment")).sample(every, len(every))
    rated, verdicts = noised(drawn[:RATED], 0.5, seed)
    items, sound = noised(drawn[RATED:], 0.9, seed)
    good = {item.id for item, is_sound in zip(items, sound, strict=True) if is_sound}
    best = chosen(items, rated, verdicts, count)
    by_chance = random.Random(seed).sample(items, count)
    share = sum(item.id in good for item in best) / len(best)
    return {"best": best, "all": items, "random": by_chance}, share


def gains(arms_of: dict[str, list[dict[str, float]]], other: str) -> dict[str, dict[str, float]]:
    """By how much the best rows did better, seed by seed: fewer bits, more ROUGE-L."""
    pairs = list(zip(arms_of["best"], arms_of[other], strict=True))
    return {
        "bits_per_byte": interval([b["bits_per_byte"] - a["bits_per_byte"] for a, b in pairs]),
        "rouge_l": interval([a["rouge_l"] - b["rouge_l"] for a, b in pairs]),
    }


if __name__ == "__main__":
    main()
