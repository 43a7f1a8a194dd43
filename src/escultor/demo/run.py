"""The demonstration: one cycle run on real input, then a second one from feedback.

The corpus is the documentation of the installed packages, the suite its held-out packages. Users are
simulated, and everything that shows their feedback says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from escultor.code_closure import code_version
from escultor.config import Config, Training, load_config
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
from escultor.datasets.held_out import load_guard
from escultor.demo import users
from escultor.demo.corpus import Corpus, Roots, read_corpus
from escultor.demo.documentation import Gold, balanced
from escultor.demo.suite import trinity_suite
from escultor.ids import hash_value, plain
from escultor.model.generate import generate
from escultor.model.loaded import Loaded
from escultor.model.student import cut_student
from escultor.monitor.metrics import fold, health
from escultor.monitor.rules import Past, read_thumbs
from escultor.monitor.states import RuleHistory, alert_of
from escultor.monitor.triggers import diagnose, plan
from escultor.serve.logged_model import LoggedModel, require_kept_text
from escultor.skills.suites import register
from escultor.skills.trinity import score_trinity
from escultor.store import open_store
from escultor.train.run_record import method_code
from escultor.train.runs import pretrain
from escultor.types import (
    Alert,
    Example,
    Feedback,
    Interaction,
    Pair,
    Plan,
    Promote,
    Sampling,
    Scores,
    Verdict,
)

CONFIG = Path(__file__).with_name("demo.yaml")
DPO_FIELDS = ("valid", "entity", "purpose", "entities_f1")
DPO_BELOW = 0.75  # own answers whose mean over these fields is at least this make no pair


@dataclass(frozen=True, slots=True)
class DemoSizes:
    """How much of the corpus the demo uses."""

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
    cycle: CycleRun
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
    """Run two cycles. Steps that the store has already are reused; a run that was killed goes on."""
    config = config or load_config(CONFIG)
    require_kept_text(config.serve)  # now, and not after the training
    store = open_store(store_url)
    workflow = Workflow(store, progress or Progress())
    workflow.progress.phase("corpus")
    corpus = read_corpus(store.root / "cache", roots)
    suite = trinity_suite(corpus.held_out, config.evaluation)
    cycle = CycleRun(workflow, config, suite)
    workflow.progress.note(
        f"{len(corpus.entries):,} documented objects, {len(corpus.train):,} training Trinities, "
        f"{len(suite.items)} held-out ones from {len({i.labels['package'] for i in suite.items})} packages"
    )
    base = _base(cycle, corpus, from_scratch)
    versions = [base]
    deploy_first(cycle, base.checkpoint)
    examples = corpus.examples(sizes.sft_examples)
    versions.append(_trained(cycle, versions, "sft", config.sft, examples, parent=base))
    versions.append(_dpo(cycle, corpus, sizes, versions))
    versions.append(_student(cycle, corpus, sizes, versions))
    return _second_cycle(cycle, corpus, sizes, versions)


def _base(cycle: CycleRun, corpus: Corpus, from_scratch: bool) -> DemoVersion:
    training = _pretrained(cycle, corpus) if from_scratch else {}
    checkpoint = training.get("checkpoint") or import_model(cycle, cycle.config.model.path, "base")
    return DemoVersion("base", checkpoint, evaluate_model(cycle, checkpoint, "base"), training=training)


def _pretrained(cycle: CycleRun, corpus: Corpus) -> Result:
    store, settings, progress = cycle.store, cycle.config.pretrain, cycle.workflow.progress
    left_out: Counter[str] = Counter()
    register(store, cycle.suite)  # now, so that it is held out of a base that is trained anew, too
    items = load_guard(store).allowed(corpus.documents(), left_out)
    for reason, n in left_out.items():
        progress.note(f"pretrain: {reason}: {n:,}")

    def work(key: str) -> tuple[Result, list[Any]]:
        out = store.root / "runs" / key
        record = pretrain(items, settings, out, on_step=progress.training)
        tree = store.blobs.put_tree(out / "model")
        metrics = store.blobs.put_bytes((out / "metrics.jsonl").read_bytes())
        result = {"checkpoint": tree, "metrics": metrics, "loss": record.loss, "tokens": record.tokens}
        return result, [cycle.known(checkpoint_of(record, tree, "base"))]

    inputs = {"settings": settings.model_dump(), "items": hash_value([d.id for d in items])}
    return cycle.workflow.step("pretrain", inputs, work, code=method_code("pretrain"))


def _trained(
    cycle: CycleRun,
    versions: list[DemoVersion],
    name: str,
    settings: Training,
    items: Sequence[Any],
    parent: DemoVersion,
    **models: Callable[[], Loaded],
) -> DemoVersion:
    """Train a version from its parent, evaluate it, and let the gate compare it with the champion.

    models: `start` (default: the parent's model) and `frozen`, as `train_model` takes them.
    """
    method = "distill" if name == "student" else name
    start = models.pop("start", lambda: cycle.load(parent.checkpoint))
    training = train_model(
        cycle, name, method, settings, items, parents=(parent.checkpoint,), start=start, **models
    )
    checkpoint = str(training["checkpoint"])
    scores = evaluate_model(cycle, checkpoint, name)
    verdict = gate(cycle, name, _champion(versions).scores, scores)
    return DemoVersion(name, checkpoint, scores, parent.scores, verdict, training=training)


def _champion(versions: list[DemoVersion]) -> DemoVersion:
    """The version that is the champion after these: the last one promoted, at first the base. It does not
    depend on the log, which in a store that the demo ran on before knows of later champions."""
    return next(v for v in reversed(versions) if v.verdict is None or isinstance(v.verdict, Promote))


def _own_answers(cycle: CycleRun, checkpoint: str, examples: list[Example]) -> list[str]:
    """The model's own sampled answers to the examples' prompts, kept as a blob."""
    sampling = Sampling(0.8, 1.0, cycle.config.serve.max_new_tokens, cycle.config.dpo.seed)
    blobs = cycle.store.blobs

    def work(key: str) -> tuple[Result, list[Any]]:
        model = cycle.load(checkpoint)
        cycle.workflow.progress.note(f"sampling {len(examples)} own answers")
        answers = generate(model, [model.chat.prompt(e.prompt) for e in examples], sampling, 128)
        text = "\x00".join(a.text.replace("\x00", "") for a in answers)
        return {"answers": blobs.put_bytes(text.encode())}, []

    inputs = {"checkpoint": checkpoint, "prompts": [e.id for e in examples], "sampling": plain(sampling)}
    code = code_version("escultor.model.generate")
    result = cycle.workflow.step("sample own answers", inputs, work, code=code)
    return blobs.get_bytes(result["answers"]).decode().split("\x00")


def _dpo(cycle: CycleRun, corpus: Corpus, sizes: DemoSizes, versions: list[DemoVersion]) -> DemoVersion:
    """Pairs of gold over the model's own answer. The prompts are not in the SFT data: a model answers those
    that it has memorised too well to be corrected on them."""
    sft = versions[-1]
    chosen = balanced(corpus.train, sizes.sft_examples + sizes.dpo_prompts)[sizes.sft_examples :]
    gold_by_id = {gold.id: gold.trinity for gold in chosen}
    examples = [gold.example() for gold in chosen]
    answers = _own_answers(cycle, sft.checkpoint, examples)

    def mean_of_fields(example: Example, answer: str) -> float:
        score = score_trinity(answer, gold_by_id[example.id])
        return sum(score[name] for name in DPO_FIELDS) / len(DPO_FIELDS)

    pairs: list[Pair] = gold_pairs(examples, answers, mean_of_fields, DPO_BELOW, Counter())
    cycle.workflow.progress.note(f"{len(pairs)} pairs of gold over own answer")
    return _trained(cycle, versions, "dpo", cycle.config.dpo, pairs, parent=sft)


def _student(cycle: CycleRun, corpus: Corpus, sizes: DemoSizes, versions: list[DemoVersion]) -> DemoVersion:
    """The champion distilled into a student of some of its layers."""
    teacher, settings = _champion(versions), cycle.config.distillation

    def load_teacher() -> Loaded:
        return cycle.load(teacher.checkpoint)

    def cut() -> Loaded:
        return cut_student(load_teacher(), settings.layers, settings.intermediate_size)

    examples = corpus.examples(sizes.sft_examples + sizes.dpo_prompts)
    return _trained(
        cycle, versions, "student", settings, examples, parent=teacher, start=cut, frozen=load_teacher
    )


def _second_cycle(
    cycle: CycleRun, corpus: Corpus, sizes: DemoSizes, versions: list[DemoVersion]
) -> DemoResult:
    """Serve, collect feedback, raise the alert, and run the cycle again from its plan."""
    champion = _champion(versions).checkpoint
    interactions, feedback = _serve(cycle, champion, balanced(corpus.traffic, sizes.traffic_prompts), sizes)
    material = material_of(cycle, interactions, feedback)
    alert, plan_ = _monitor(cycle, champion, interactions, feedback, material)
    if plan_ is not None:
        versions.append(_version("second cycle", evolve(cycle, "second cycle", material, champion)))
    counts = material.counts | {"rated": len(feedback), "usable pairs": len(material.pairs)}
    return DemoResult(cycle, corpus, versions, alert, plan_, feedback=counts)


def _version(name: str, result: CycleResult) -> DemoVersion:
    return DemoVersion(
        name,
        result.checkpoint,
        result.candidate,
        predecessor=result.champion,
        verdict=result.verdict,
        training=result.training,
    )


def _serve(
    cycle: CycleRun, champion: str, golds: Sequence[Gold], sizes: DemoSizes
) -> tuple[list[Interaction], list[Feedback]]:
    """Simulated users ask the champion about the golds' documents and rate its answers."""
    config, log, answers = cycle.config, cycle.store.log, sizes.answers_per_prompt

    def work(key: str) -> tuple[Result, list[Any]]:
        cycle.workflow.progress.note(f"simulated users ask {len(golds)} prompts {answers} times each")
        engine = LoggedModel(cycle.load(champion), champion, log, config.serve)
        sampling = Sampling(config.serve.temperature, 1.0, config.serve.max_new_tokens)
        served = users.ask(engine, golds, key, answers, sampling)
        rated = users.judge(log, served, golds, config.evaluation.seed)
        return {"interactions": [i.id for i in served], "feedback": [f.id for f in rated]}, []

    inputs = {
        "champion": champion,
        "prompts": [g.id for g in golds],
        "serve": config.serve.model_dump(),
        "answers": answers,
        "seed": config.evaluation.seed,
    }
    result = cycle.workflow.step("serve and listen", inputs, work, code=code_version(users))
    interactions: list[Any] = [log.get(Interaction, id) for id in result["interactions"]]
    feedback: list[Any] = [log.get(Feedback, id) for id in result["feedback"]]
    return interactions, feedback


def _monitor(
    cycle: CycleRun,
    champion: str,
    interactions: Sequence[Interaction],
    feedback: Sequence[Feedback],
    material: TrainingMaterial,
) -> tuple[Alert, Plan | None]:
    """Health of what was served, the thumbs-down alert, and the plan that follows from it."""
    settings, log = cycle.config.monitor, cycle.store.log
    until = max(i.time for i in interactions) + 2

    def work(key: str) -> tuple[Result, list[Any]]:
        since = min(i.time for i in interactions)
        window = fold(interactions, feedback)
        state = health(champion, window, since, until)
        reading = read_thumbs(champion, window.votes, Past(), settings, until)
        thumbs = alert_of(reading, RuleHistory(), until)
        planned = plan(diagnose([thumbs], len(material.pairs)), log.last(Plan), settings, until)
        records = [state, thumbs, *([planned] if planned else [])]
        return {"alert": thumbs.id, "plan": planned.id if planned else None}, records

    inputs = {
        "version": champion,
        "interactions": [i.id for i in interactions],
        "feedback": [f.id for f in feedback],
        "monitor": settings.model_dump(),
    }
    code = code_version(*(f"escultor.monitor.{name}" for name in ("metrics", "rules", "states", "triggers")))
    result = cycle.workflow.step("monitor", inputs, work, code=code)
    alert: Any = log.get(Alert, result["alert"])
    return alert, log.get(Plan, result["plan"]) if result["plan"] else None
