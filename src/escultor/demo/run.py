"""The demonstration: one whole turn of the loop on real input, then a second one from feedback.

The corpus is the documentation of the installed packages, the suite its held-out packages. Users are
simulated, and everything that shows their words says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from escultor.config import Config, load_config
from escultor.cycle.evolution import CycleResult, TrainingMaterial, evolve, material_of
from escultor.cycle.steps import (
    CycleRun,
    checkpoint_of,
    deploy_first,
    evaluate_model,
    gate,
    import_model,
    train_model,
)
from escultor.cycle.workflow import Progress, Result, Workflow
from escultor.data.gold_pairs import gold_pairs
from escultor.data.sources.documentation import balanced
from escultor.datasets.held_out import load_guard
from escultor.demo.corpus import Corpus, Roots, read_corpus
from escultor.demo.suite import trinity_exam
from escultor.demo.users import ask, judge
from escultor.errors import FaultError
from escultor.ids import hash_value, plain
from escultor.model.generate import generate
from escultor.model.student import cut_student
from escultor.monitor.metrics import fold, health
from escultor.monitor.rules import alerts
from escultor.monitor.triggers import plan
from escultor.serve.logged_model import LoggedModel, require_kept_text
from escultor.skills.suites import register
from escultor.skills.trinity_scoring import score_trinity
from escultor.store import open_store, registry
from escultor.train.runs import pretrain
from escultor.types import Alert, Example, Feedback, Interaction, Pair, Plan, Sampling, Scores, Verdict

CONFIG = Path(__file__).with_name("demo.yaml")
DPO_FIELDS = ("valid", "entity", "purpose", "entities_f1")
DPO_BELOW = 0.75  # own answers whose mean over these fields is at least this make no pair


@dataclass(frozen=True, slots=True)
class DemoSizes:
    """How much of the corpus the demo takes."""

    sft_examples: int = 5760
    dpo_prompts: int = 256  # not among the SFT examples
    traffic_prompts: int = 96
    answers_per_prompt: int = 4


@dataclass(slots=True)
class DemoVersion:
    """One row of the demo's table."""

    name: str
    checkpoint: str
    scores: Scores
    predecessor: Scores | None = None
    verdict: Verdict | None = None
    training: Result = field(default_factory=dict)


@dataclass(slots=True)
class DemoResult:
    turn: CycleRun
    corpus: Corpus
    versions: list[DemoVersion]
    alert: Alert
    plan: Plan | None
    feedback: dict[str, int]


def run_demo(
    store_url: str,
    from_scratch: bool = False,
    config: Config | None = None,
    progress: Progress | None = None,
    sizes: DemoSizes = DemoSizes(),
    roots: Roots | None = None,
) -> DemoResult:
    """Go round twice. What the store has already is reused; a run that was killed goes on."""
    config = config or load_config(CONFIG)
    require_kept_text(config.serve)  # now, and not after the training
    store = open_store(store_url)
    flow = Workflow(store, progress or Progress())
    flow.progress.phase("corpus")
    corpus = read_corpus(store.root / "cache", roots)
    exam = trinity_exam(corpus.held_out, config.evaluation)
    turn = CycleRun(flow, config, exam)
    flow.progress.note(
        f"{len(corpus.entries):,} documented objects, {len(corpus.train):,} training Trinities, "
        f"{len(exam.items)} held-out ones from {len({i.labels['package'] for i in exam.items})} packages"
    )
    base = _base(turn, corpus, from_scratch)
    versions = [base]
    deploy_first(turn, base.checkpoint)
    versions.append(_sft(turn, corpus, sizes, base))
    versions.append(_dpo(turn, corpus, sizes, versions))
    versions.append(_student(turn, corpus, sizes, versions))
    alert, plan_, feedback, second = _second_turn(turn, corpus, sizes)
    if second is not None:
        versions.append(
            DemoVersion(
                "second turn",
                second.checkpoint,
                second.candidate,
                second.champion,
                second.verdict,
                second.training,
            )
        )
    return DemoResult(turn, corpus, versions, alert, plan_, feedback)


def _base(turn: CycleRun, corpus: Corpus, from_scratch: bool) -> DemoVersion:
    trained: Result = {}
    if from_scratch:
        checkpoint = _pretrained(turn, corpus, trained)
    else:
        checkpoint = import_model(turn, turn.config.model.path, "base")
    return DemoVersion("base", checkpoint, evaluate_model(turn, checkpoint, "base"), training=trained)


def _pretrained(turn: CycleRun, corpus: Corpus, trained: Result) -> str:
    left_out: Counter[str] = Counter()
    register(turn.flow.store, turn.exam)  # now, so that it is held out of a base that is trained anew, too
    items = load_guard(turn.flow.store).allowed(corpus.documents(), left_out)
    for why, n in left_out.items():
        turn.flow.progress.note(f"pretrain: {why}: {n:,}")
    settings = turn.config.pretrain

    def work(key: str) -> tuple[Result, list[Any]]:
        out = turn.flow.store.root / "runs" / key
        record = pretrain(items, settings, out, turn.flow.progress.training)
        tree = turn.blobs.put_tree(out / "model")
        metrics = turn.blobs.put_bytes((out / "metrics.jsonl").read_bytes())
        made = checkpoint_of(record, tree, "base")
        return {"checkpoint": tree, "metrics": metrics, "loss": record.loss, "tokens": record.tokens}, [made]

    inputs = {"settings": settings.model_dump(), "items": hash_value([d.id for d in items])}
    trained |= turn.flow.step("pretrain", inputs, work)
    return str(trained["checkpoint"])


def _champion(turn: CycleRun) -> str:
    found = registry.champion(turn.deployments())
    if found is None:
        raise FaultError("the demo's store has no champion", remedy="delete the store and run again")
    return found


def _holder(turn: CycleRun, versions: list[DemoVersion]) -> DemoVersion:
    """The version that is the champion now."""
    champion = _champion(turn)
    return next(v for v in reversed(versions) if v.checkpoint == champion)


def _sft(turn: CycleRun, corpus: Corpus, sizes: DemoSizes, base: DemoVersion) -> DemoVersion:
    examples = corpus.examples(sizes.sft_examples)
    trained = train_model(
        turn, "sft", "sft", turn.config.sft, examples, (base.checkpoint,), lambda: turn.load(base.checkpoint)
    )
    return _judged(turn, "sft", trained, base, base)


def _judged(
    turn: CycleRun, name: str, trained: Result, predecessor: DemoVersion, champion: DemoVersion
) -> DemoVersion:
    """Evaluate what was trained and let the gate compare it with the champion."""
    checkpoint = str(trained["checkpoint"])
    scores = evaluate_model(turn, checkpoint, name)
    verdict = gate(turn, name, champion.scores, scores)
    return DemoVersion(name, checkpoint, scores, predecessor.scores, verdict, trained)


def _own_answers(turn: CycleRun, name: str, checkpoint: str, examples: list[Example]) -> list[str]:
    """The model's own sampled answers to the examples' prompts, kept as a blob."""
    sampling = Sampling(0.8, 1.0, turn.config.serve.max_new_tokens, turn.config.dpo.seed)

    def work(key: str) -> tuple[Result, list[Any]]:
        model = turn.load(checkpoint)
        turn.flow.progress.note(f"sampling {len(examples)} own answers")
        answers = generate(model, [model.chat.prompt(e.prompt) for e in examples], sampling, 128)
        text = "\x00".join(a.text.replace("\x00", "") for a in answers)
        return {"answers": turn.blobs.put_bytes(text.encode())}, []

    inputs = {"checkpoint": checkpoint, "prompts": [e.id for e in examples], "sampling": plain(sampling)}
    return turn.blobs.get_bytes(turn.flow.step(name, inputs, work)["answers"]).decode().split("\x00")


def _dpo(turn: CycleRun, corpus: Corpus, sizes: DemoSizes, versions: list[DemoVersion]) -> DemoVersion:
    """Pairs of gold over the model's own answer. The prompts were not in the SFT data: what a model
    has learnt by heart it answers too well to be corrected on."""
    sft = versions[-1]
    chosen = balanced(corpus.train, sizes.sft_examples + sizes.dpo_prompts)[sizes.sft_examples :]
    gold_of = {gold.id: gold.trinity for gold in chosen}
    examples = [gold.example() for gold in chosen]
    answers = _own_answers(turn, "sample own answers", sft.checkpoint, examples)
    counts: Counter[str] = Counter()

    def fields(example: Example, answer: str) -> float:
        score = score_trinity(answer, gold_of[example.id])
        return sum(score[name] for name in DPO_FIELDS) / len(DPO_FIELDS)

    pairs: list[Pair] = gold_pairs(examples, answers, fields, DPO_BELOW, counts)
    turn.flow.progress.note(f"{len(pairs)} pairs of gold over own answer")
    trained = train_model(
        turn, "dpo", "dpo", turn.config.dpo, pairs, (sft.checkpoint,), lambda: turn.load(sft.checkpoint)
    )
    return _judged(turn, "dpo", trained, sft, _holder(turn, versions))


def _student(turn: CycleRun, corpus: Corpus, sizes: DemoSizes, versions: list[DemoVersion]) -> DemoVersion:
    teacher = _holder(turn, versions)
    champion = teacher.checkpoint
    settings = turn.config.distillation
    examples = corpus.examples(sizes.sft_examples + sizes.dpo_prompts)
    trained = train_model(
        turn,
        "student",
        "distill",
        settings,
        examples,
        (champion,),
        start=lambda: cut_student(turn.load(champion), settings.layers, settings.intermediate_size),
        frozen=lambda: turn.load(champion),
    )
    return _judged(turn, "student", trained, teacher, teacher)


def _second_turn(
    turn: CycleRun, corpus: Corpus, sizes: DemoSizes
) -> tuple[Alert, Plan | None, dict[str, int], CycleResult | None]:
    """Serve, listen, notice, and go round again from the alert."""
    champion = _champion(turn)
    asked = balanced(corpus.traffic, sizes.traffic_prompts)
    config = turn.config

    def work(key: str) -> tuple[Result, list[Any]]:
        turn.flow.progress.note(
            f"simulated users ask {len(asked)} prompts {sizes.answers_per_prompt} times each"
        )
        engine = LoggedModel(turn.load(champion), champion, turn.log, config.serve)
        sampling = Sampling(config.serve.temperature, 1.0, config.serve.max_new_tokens)
        served = ask(engine, asked, key, sizes.answers_per_prompt, sampling)
        said = judge(turn.log, served, asked, config.evaluation.seed)
        return {"interactions": [i.id for i in served], "feedback": [f.id for f in said]}, []

    inputs = {
        "champion": champion,
        "prompts": [g.id for g in asked],
        "serve": config.serve.model_dump(),
        "answers": sizes.answers_per_prompt,
        "seed": config.evaluation.seed,
    }
    served = turn.flow.step("serve and listen", inputs, work)
    interactions = [turn.log.get(Interaction, name) for name in served["interactions"]]
    feedback = [turn.log.get(Feedback, name) for name in served["feedback"]]
    material = material_of(turn, interactions, feedback)
    alert, plan_ = _notice(turn, champion, interactions, feedback, material)
    second = evolve(turn, "second turn", material) if plan_ is not None else None
    found = {"rated": len(feedback), "usable pairs": len(material.pairs)}
    return alert, plan_, material.counts | found, second


def _notice(
    turn: CycleRun, champion: str, interactions: list[Any], feedback: list[Any], material: TrainingMaterial
) -> tuple[Alert, Plan | None]:
    """Health of what was served, the thumbs-down alert, and the plan that follows from it."""
    until = max(i.time for i in interactions) + 2

    def work(key: str) -> tuple[Result, list[Any]]:
        since = min(i.time for i in interactions)
        found = health(champion, fold(interactions, feedback), since, until)
        raised = alerts(found, turn.config.monitor, until)
        thumbs = next(a for a in raised if a.rule == "thumbs_down")
        planned = plan(raised, turn.log.last(Plan), len(material.pairs), turn.config.monitor, until)
        nouns = [found, *raised, *([planned] if planned else [])]
        return {"alert": thumbs.id, "plan": planned.id if planned else None}, nouns

    inputs = {
        "version": champion,
        "interactions": [i.id for i in interactions],
        "feedback": [f.id for f in feedback],
        "monitor": turn.config.monitor.model_dump(),
    }
    result = turn.flow.step("monitor", inputs, work)
    planned = turn.log.get(Plan, result["plan"]) if result["plan"] else None
    return turn.log.get(Alert, result["alert"]), planned
