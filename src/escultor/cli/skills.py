"""`skills`: what models are for, as declarations; listed, shown, begun, tried and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from escultor.cli import lookup
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.errors import InputError
from escultor.skills.catalog import find_skill, known_skills, load_skills
from escultor.skills.skill import Skill
from escultor.types import Sampling

if TYPE_CHECKING:
    from escultor.cycle.skill_proposal import SkillProposal
    from escultor.store import Store

SkillArgument = Annotated[str, Argument(help="A skill's name, or the file of its declaration.")]
TEMPLATE = """\
# A skill: what a model is for. `escultor skills check {file}` says what is missing.
name: {name}
about: What the model is for, in a sentence.
instruction: "What the model is told; a system message."
inputs: [input]
output: text                  # or json, or {{json: SCHEMA}}
metrics: [exact_match, f1]    # or own ones: {{name: is_queue, matches: "billing|technical|other"}}
primary: [exact_match]        # a new model must be better in one of these
guards: {{}}                    # and within these margins in these
rubric: What makes one answer better than another, for raters and judges.
decoding: {{max_new_tokens: 64}}
suite:                        # held-out items, or a JSONL file of them; never trained on
  - {{input: "a question", reference: "its right answer"}}
examples:                     # training data to begin with, or a JSONL file
  - {{input: "another question", output: "its right answer"}}
"""


def named_skill(shell: Shell, name: str) -> Skill:
    """The skill of this name or file; the configured ones go first."""
    return load_skills(shell.config.skills).get(name) or find_skill(name)


def list_(shell: Shell) -> CommandResult:
    """Show the skills of the configuration, of the package and of installed packages."""
    configured = load_skills(shell.config.skills)
    skills = known_skills(shell.config.skills)
    rows = [
        (name, "yes" if name in configured else "", ", ".join(skill.primary), skill.source, skill.about)
        for name, skill in skills.items()
    ]
    shell.table(["Skill", "Configured", "Primary", "From", "What for"], rows, left=(0, 1, 2, 3, 4))
    data = [{"configured": name in configured, **skill.as_json()} for name, skill in skills.items()]
    return CommandResult({"skills": data})


def show(shell: Shell, name: SkillArgument) -> CommandResult:
    """Show a skill's whole declaration."""
    import yaml

    data = named_skill(shell, name).as_json()
    shell.print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))
    return CommandResult(data)


def new(
    shell: Shell,
    name: Annotated[str, Argument(help="Its name: letters, digits, `-` and `_`.")],
    out: Annotated[Path | None, Option(help="The file to write; default: NAME.yaml.")] = None,
    source: Annotated[
        str | None,
        Option(
            "--from",
            metavar="interactions|FILE",
            help="Draw held-out items from the log, or from a file of examples, and propose metrics.",
        ),
    ] = None,
    items: Annotated[
        int | None,
        Option(min=1, help="With --from: items at most; default: 150, of a file at most half of its rows."),
    ] = None,
    effect: Annotated[float, Option(min=0.001, max=1, help="With --from: the gain to be shown.")] = 0.1,
) -> CommandResult:
    """Begin the declaration of a skill, with its items."""
    file = out or Path(f"{name}.yaml")
    if source is None:
        _refuse_existing(file)
        write_text(file, TEMPLATE.format(name=name, file=file))
        find_skill(str(file))
        notes = []
    elif source == "interactions":
        with lookup.existing_store(shell, "there is no log to draw from") as store:
            notes = _new_from_log(shell, store, name, file, (items, effect))
    else:
        notes = _new_from_file(name, file, Path(source), (items, effect))
    for note in notes:
        shell.print(note)
    shell.print(f"wrote {file}; name it under `skills:` in the configuration")
    return CommandResult({"name": name, "file": file, "notes": notes})


def _new_from_log(
    shell: Shell, store: Store, name: str, file: Path, wanted: tuple[int | None, float]
) -> list[str]:
    """Write what the log proposes; its items are held out in the store from now on."""
    from escultor.cycle.skill_proposal import ITEMS, propose_skill
    from escultor.skills.suite_files import skill_suite
    from escultor.skills.suites import register

    items, effect = wanted
    made = propose_skill(store, name, items or ITEMS, effect, shell.config)
    notes = _write_proposal(made, name, file)
    suite = skill_suite(find_skill(str(file)), shell.config.evaluation)
    if suite is not None:
        register(store, suite)
    return notes


def _new_from_file(name: str, file: Path, source: Path, wanted: tuple[int | None, float]) -> list[str]:
    """Write what a file of examples proposes."""
    from escultor.cycle.skill_proposal import propose_from_examples
    from escultor.datasets.reading import read_training_rows

    if not source.is_file():
        raise InputError("there is nothing to draw from", str(source), "interactions, or a file of examples")
    _, contents = read_training_rows(source, "example")
    return _write_proposal(propose_from_examples(contents.items, name, *wanted), name, file)


def _write_proposal(made: SkillProposal, name: str, file: Path) -> list[str]:
    """Write a proposal's declaration and the files that it names beside it; what to know about them."""
    import yaml

    from escultor.cycle.skill_proposal import reward_file, suite_lines
    from escultor.skills.reward import reward_text

    suite_file = file.with_name(f"{name}.suite.jsonl")
    texts = {suite_file: suite_lines(made.rows)}
    if made.examples:
        texts[file.with_name(f"{name}.examples.jsonl")] = suite_lines(made.examples)
    if made.reward is not None:
        texts[file.with_name(reward_file(name))] = reward_text(made.reward)
    texts[file] = yaml.safe_dump(made.declaration, sort_keys=False, allow_unicode=True, width=100)
    _refuse_existing(*texts)
    for path, text in texts.items():
        write_text(path, text)
    return [*made.notes, f"{suite_file}: none of these prompts is trained on from now on"]


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise InputError(f"{path} exists already", "a file", "a new one", "give another name, or --out")


def reward(
    shell: Shell,
    name: SkillArgument,
    out: Annotated[Path | None, Option(help="The file; default: NAME.reward.json beside the skill.")] = None,
) -> CommandResult:
    """Fit a reward model to what people said of a skill's answers, without those that its suite asks for."""
    from escultor.cycle.evaluation_service import suite_of_skill
    from escultor.cycle.preferences import reward_of_store
    from escultor.cycle.skill_proposal import reward_file
    from escultor.datasets.held_out import HeldOutGuard
    from escultor.skills.reward import reward_text

    skill = named_skill(shell, name)
    file = out or skill.folder / reward_file(skill.name)
    with lookup.existing_store(shell, "there is no feedback to fit to") as store:
        suite = suite_of_skill(skill, store, shell.config)
        guard = HeldOutGuard.of(item.prompt for item in (suite.items if suite else ()))
        model, note = reward_of_store(store, shell.config, skill.name, guard)
    shell.print(note)
    if model is None:
        return CommandResult({"note": note}, 2)
    write_text(file, reward_text(model))
    shell.print(f"wrote {file}; name it among the metrics: {{name: reward, reward_model: {file.name}}}")
    figures = {"kind": model.kind, "rows": model.rows, "clusters": model.clusters}
    return CommandResult({"file": file, "auroc": model.auroc._asdict(), **figures})


def check(
    shell: Shell, name: Annotated[str | None, Argument(help="Default: all configured skills.")] = None
) -> CommandResult:
    """Check declarations, their items and whether they are enough for a verdict; exit code 2 where not."""
    from escultor.cycle.skill_checks import check_skill

    skills = load_skills(shell.config.skills).values() if name is None else [named_skill(shell, name)]
    if not skills:
        raise InputError("there is nothing to check", "no skill in the configuration", "a name, or a file")
    doubts = {skill.name: check_skill(skill, shell.config) for skill in skills}
    for skill, lines in doubts.items():
        shell.print(f"{skill}: {'nothing is doubtful' if not lines else ''}")
        for line in lines:
            shell.print(f"  {line}")
    return CommandResult({"doubts": doubts}, 2 if any(doubts.values()) else 0)


def test(
    shell: Shell,
    name: SkillArgument,
    model: Annotated[str, Option(help=lookup.MODEL_HELP)] = "champion",
    text: Annotated[str | None, Option(help="An input of one's own, instead of items of the suite.")] = None,
    items: Annotated[int, Option(min=1, help="Items of the suite at most.")] = 5,
) -> CommandResult:
    """Let a model answer an input, or the first items of the skill's suite, and score the answers."""
    from escultor.model.generate import generate
    from escultor.skills.suite_files import skill_suite
    from escultor.skills.table import ModelOutput

    skill = named_skill(shell, name)
    suite = None
    if text is None:
        suite = skill_suite(skill, shell.config.evaluation) or lookup.find_suite(shell, skill.name)
    loaded = lookup.load_model(lookup.find_model(shell, model))
    asked = [skill.prompt(text or "")] if suite is None else [item.prompt for item in suite.items[:items]]
    sampling: Sampling = skill.decoding
    answers = generate(loaded, [loaded.chat.prompt(prompt) for prompt in asked], sampling, 8)
    rows: list[dict[str, Any]] = []
    for number, (prompt, answer) in enumerate(zip(asked, answers, strict=True)):
        scores = {}
        if suite is not None:
            output = ModelOutput(
                answer.text, len(answer.tokens), answer.finish_reason == "length", schema=skill.output.schema
            )
            scores = {
                each: metric.score(output, suite.items[number])
                for each in suite.record.metrics
                if (metric := suite.metric(each)) and metric.needs <= {"answer", "reference", "schema"}
            }
        shell.print(prompt[-1].content, "dim")
        shell.print(answer.text, "bold")
        shell.print("  ".join(f"{each} {value:g}" for each, value in scores.items()))
        rows.append({"prompt": [m.content for m in prompt], "answer": answer.text, "scores": scores})
    return CommandResult({"skill": skill.name, "answers": rows})
