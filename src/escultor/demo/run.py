"""The demonstration: one cycle run on real input, then two from what people say of the answers.

The corpus is the documentation of the installed packages, the suite its held-out packages. People are
simulated, and everything that shows their feedback says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from escultor.datasets.held_out import load_guard
from escultor.demo import suite, users
from escultor.demo.corpus import Corpus, Roots, read_corpus
from escultor.demo.documentation import Gold, balanced
from escultor.demo.suite import trinity_suite
from escultor.evaluate.gate.decision import FIRST_ANALYSIS, decide
from escultor.evaluate.gate.trade_off import TradeOff, trade_off
from escultor.ids import hash_value, plain
from escultor.model.generate import generate
from escultor.model.loaded import Loaded
from escultor.model.student import cut_student
from escultor.monitor.metrics import fold, health
from escultor.monitor.rules import Past, read_thumbs
from escultor.monitor.states import RuleHistory, alert_of
from escultor.monitor.triggers import diagnose, plan
from escultor.serve.logged_model import LoggedModel, require_kept_text
from escultor.skills.catalog import find_skill
from escultor.skills.suites import register
from escultor.store import open_store
from escultor.train.run_record import method_code
from escultor.train.runs import pretrain
from escultor.types import (
    Alert,
    Example,
    Feedback,
    Interaction,
    Plan,
    Promote,
    Sampling,
    Scores,
    Verdict,
)

CONFIG = Path(__file__).with_name("demo.yaml")
CYCLES = ("second cycle", "third cycle")
CONTROL, STUDENT = "control", "student"
OWN_ANSWER = "own-answer/1"
MEASURED = (*suite.MEASURED, "brief")


@dataclass(frozen=True, slots=True)
class DemoSizes:
    """How much of the corpus the demo uses."""

    sft_examples: int = 5760
    traffic_prompts: int = 96  # in each cycle
    student_examples: int = 1920
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
    trade_off: TradeOff | None = None  # of a student against its teacher
    is_control: bool = False  # never deployed, and its verdict is not recorded


@dataclass(slots=True)
class DemoResult:
    """`alert`, `plan` and `feedback` are those of the second cycle."""

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
    """Run a cycle from documents, then two from what simulated people say of the answers, the first of these
    with its control, and distil the champion. Steps that the store has already are reused; a run that was
    killed goes on."""
    config = config or load_config(CONFIG)
    require_kept_text(config.serve)  # now, and not after the training
    store = open_store(store_url)
    workflow = Workflow(store, progress or Progress())
    workflow.progress.phase("corpus")
    corpus = read_corpus(store.root / "cache", roots)
    held_out = trinity_suite(corpus.held_out, config.evaluation, MEASURED)
    cycle = CycleRun(workflow, config, held_out)
    workflow.progress.note(
        f"{len(corpus.entries):,} documented objects, {len(corpus.train):,} training Trinities, "
        f"{len(held_out.items)} held-out ones "
        f"from {len({i.labels['package'] for i in held_out.items})} packages"
    )
    base = _base(cycle, corpus, from_scratch)
    versions = [base]
    deploy_first(cycle, base.checkpoint)
    examples = corpus.examples(sizes.sft_examples)
    versions.append(_trained(cycle, versions, "sft", config.sft, examples, parent=base))
    result = DemoResult(cycle, corpus, versions, *_learn_from_use(cycle, corpus, sizes, versions))
    versions.append(_student(cycle, corpus, sizes, versions))
    return result


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
    method = "distill" if name == STUDENT else name
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
    candidates = [v for v in versions if not v.is_control]
    return next(v for v in reversed(candidates) if v.verdict is None or isinstance(v.verdict, Promote))


def _student(cycle: CycleRun, corpus: Corpus, sizes: DemoSizes, versions: list[DemoVersion]) -> DemoVersion:
    """The champion distilled into a student of some of its layers, on its own answers: those of the authors
    would teach the student what the champion has unlearnt."""
    teacher, settings = _champion(versions), cycle.config.distillation

    def load_teacher() -> Loaded:
        return cycle.load(teacher.checkpoint)

    def cut() -> Loaded:
        return cut_student(load_teacher(), settings.layers, settings.intermediate_size)

    examples = corpus.examples(sizes.student_examples)
    answers = _own_answers(cycle, teacher.checkpoint, examples)
    accepts = find_skill(suite.NAME).output.accepts
    told = [
        replace(e, id=hash_value([e.id, a]), response=a, origin=replace(e.origin, rule=OWN_ANSWER))
        for e, a in zip(examples, answers, strict=True)
        if accepts(a)
    ]
    cycle.workflow.progress.note(f"{len(told)} of the champion's own answers to learn from")
    student = _trained(
        cycle, versions, STUDENT, settings, told, parent=teacher, start=cut, frozen=load_teacher
    )
    student.trade_off = trade_off(teacher.scores, student.scores, cycle.policy, cycle.config.evaluation.seed)
    return student


def _own_answers(cycle: CycleRun, checkpoint: str, examples: Sequence[Example]) -> list[str]:
    """The model's own answers to the examples' prompts, kept as a blob."""
    sampling = Sampling(max_new_tokens=cycle.config.serve.max_new_tokens)
    blobs = cycle.store.blobs

    def work(key: str) -> tuple[Result, list[Any]]:
        model = cycle.load(checkpoint)
        cycle.workflow.progress.note(f"{len(examples)} answers of the champion")
        answers = generate(model, [model.chat.prompt(e.prompt) for e in examples], sampling, 128)
        text = "\x00".join(a.text.replace("\x00", "") for a in answers)
        return {"answers": blobs.put_bytes(text.encode())}, []

    inputs = {"checkpoint": checkpoint, "prompts": [e.id for e in examples], "sampling": plain(sampling)}
    code = code_version("escultor.model.generate")
    result = cycle.workflow.step("answers of the champion", inputs, work, code=code)
    return blobs.get_bytes(result["answers"]).decode().split("\x00")


def _learn_from_use(
    cycle: CycleRun, corpus: Corpus, sizes: DemoSizes, versions: list[DemoVersion]
) -> tuple[Alert, Plan | None, dict[str, int]]:
    """Serve, collect feedback, raise the alert, and run a cycle from its plan; twice, each time on documents
    that nobody asked about before. Of the first time, what the same thumbs teach when they are shuffled."""
    asked = balanced(corpus.traffic, sizes.traffic_prompts * len(CYCLES))
    first: tuple[Alert, Plan | None, dict[str, int]] | None = None
    for turn, name in enumerate(CYCLES):
        champion = _champion(versions)
        golds = asked[turn :: len(CYCLES)]
        interactions, feedback = _serve(cycle, name, champion.checkpoint, golds, sizes)
        material = material_of(cycle, interactions, feedback)
        alert, plan_ = _monitor(cycle, name, champion.checkpoint, interactions, feedback, material=material)
        counts = {"events": len(feedback), "usable pairs": len(material.pairs)}
        first = first or (alert, plan_, material.counts | counts)
        if plan_ is None:
            break
        versions.append(_version(name, evolve(cycle, name, material, champion.checkpoint)))
        if turn == 0:
            versions.append(_control(cycle, champion, interactions, feedback))
    assert first is not None
    return first


def _control(
    cycle: CycleRun, champion: DemoVersion, interactions: Sequence[Interaction], feedback: Sequence[Feedback]
) -> DemoVersion:
    """What a cycle makes of the same thumbs, shuffled among the answers. It is never deployed."""
    dealt = users.shuffled(feedback, cycle.config.evaluation.seed)
    pairs = material_of(cycle, interactions, dealt).pairs
    training = train_model(
        cycle,
        CONTROL,
        "dpo",
        cycle.config.dpo,
        pairs,
        parents=(champion.checkpoint,),
        start=lambda: cycle.load(champion.checkpoint),
    )
    checkpoint = str(training["checkpoint"])
    scores = evaluate_model(cycle, checkpoint, CONTROL)
    verdict = decide(champion.scores, scores, cycle.policy, cycle.config.evaluation.seed, FIRST_ANALYSIS)
    return DemoVersion(
        CONTROL, checkpoint, scores, champion.scores, verdict, training=training, is_control=True
    )


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
    cycle: CycleRun, name: str, champion: str, golds: Sequence[Gold], sizes: DemoSizes
) -> tuple[list[Interaction], list[Feedback]]:
    """Simulated people ask the champion about the golds' documents and say what they think of its answers."""
    config, log, answers = cycle.config, cycle.store.log, sizes.answers_per_prompt

    def work(key: str) -> tuple[Result, list[Any]]:
        cycle.workflow.progress.note(f"simulated people ask {len(golds)} prompts {answers} times each")
        engine = LoggedModel(cycle.load(champion), champion, log, config.serve)
        sampling = Sampling(config.serve.temperature, 1.0, config.serve.max_new_tokens)
        served = users.ask(engine, golds, key, answers, sampling)
        rated = users.judge(log, served, config.evaluation.seed)
        return {"interactions": [i.id for i in served], "feedback": [f.id for f in rated]}, []

    inputs = {
        "champion": champion,
        "prompts": [g.id for g in golds],
        "serve": config.serve.model_dump(),
        "answers": answers,
        "seed": config.evaluation.seed,
    }
    result = cycle.workflow.step(f"serve {name}", inputs, work, code=code_version(users))
    interactions: list[Any] = [log.get(Interaction, id) for id in result["interactions"]]
    feedback: list[Any] = [log.get(Feedback, id) for id in result["feedback"]]
    return interactions, feedback


def _monitor(
    cycle: CycleRun,
    name: str,
    champion: str,
    interactions: Sequence[Interaction],
    feedback: Sequence[Feedback],
    *,
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
    result = cycle.workflow.step(f"monitor {name}", inputs, work, code=code)
    alert: Any = log.get(Alert, result["alert"])
    return alert, log.get(Plan, result["plan"]) if result["plan"] else None
