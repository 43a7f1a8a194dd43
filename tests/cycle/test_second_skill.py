"""A skill that the package does not know goes round the whole cycle: declared, logged, corrected, learnt,
measured, guarded by the other skill that the model serves, promoted, and consumed."""

from dataclasses import replace

import pytest
import yaml
from tiny import TEXTS, llama

from escultor import EvolutionCycle
from escultor.config import Config, Gate
from escultor.cycle.api import promote
from escultor.cycle.evaluation_service import find_suite
from escultor.errors import DataError, InputError
from escultor.evaluate.gate.reproduction import replay
from escultor.feedback.conversion import convert
from escultor.feedback.selection import SelectionQuery
from escultor.model.folders import save
from escultor.serve.in_flight import draft_interaction
from escultor.skills.catalog import load_skills
from escultor.store import open_store, registry
from escultor.store.cycles import CONSUMED, consumed
from escultor.types import Checkpoint, Correction, Deployment, Promote, Sampling, Step

ANIMALS = ("cat", "dog", "bird")
HELD_OUT = [text for n, text in enumerate(TEXTS) if n % 5 == 0]
ASKED = [text for n, text in enumerate(TEXTS) if n % 5]


def animal_in(text: str) -> str:
    return next(animal for animal in ANIMALS if animal in text)


@pytest.fixture
def config(tmp_path):
    animal = {
        "name": "animal",
        "instruction": "Which one?",
        "inputs": ["text"],
        "metrics": ["exact_match", {"name": "is_animal", "matches": "cat|dog|bird"}],
        "primary": ["exact_match"],
        "guards": {"is_animal": 0.5},
        "decoding": {"max_new_tokens": 4},
        "suite": [{"input": text, "reference": animal_in(text)} for text in HELD_OUT],
    }
    echo = {
        "name": "echo",
        "metrics": ["exact_match"],
        "primary": ["exact_match"],
        "decoding": {"max_new_tokens": 4},
        "suite": [{"input": f"Say {n}.", "reference": f"{n}"} for n in range(20)],
    }
    for skill in (animal, echo):
        (tmp_path / f"{skill['name']}.yaml").write_text(yaml.safe_dump(skill))
    sft = {"learning_rate": 0.01, "epochs": 8, "batch_size": 16, "warmup_steps": 0, "dtype": "float32"}
    return Config.model_validate(
        {
            "skills": [str(tmp_path / "animal.yaml"), str(tmp_path / "echo.yaml")],
            "store": {"url": str(tmp_path / "store")},
            "sft": sft,
            "gate": {"min_items": 20, "other_skills": 0.4},
            "evaluation": {"speed_requests": 2},
            "feedback": {"min_examples": 20},
        }
    )


def corrected(config, store, version: str, skill: str, texts: list[str]) -> None:
    """People ask a skill about texts, and write what it should have said."""
    prompt_of = load_skills(config.skills)[skill].prompt
    for n, text in enumerate(texts):
        id, who = f"chatcmpl-{skill}-{n}", f"someone-{n % 30}"
        sampling = Sampling(max_new_tokens=4)
        row = draft_interaction(
            prompt_of(text), id=id, subject=who, version=version, sampling=sampling, skill=skill
        )
        row = replace(row, time=1000.0 + n, answer="fish", finish_reason="stop")
        store.log.append(row, Correction(f"fb-{id}", 5000.0 + n, id, who, text=animal_in(text)))


def test_a_second_skill_goes_round(config, tmp_path):
    save(llama(), tmp_path / "model")
    with open_store(config.store.url) as store:
        first, _ = promote(store, tmp_path / "model", "the first")
        corrected(config, store, first.id, "animal", ASKED)
        corrected(config, store, first.id, "echo", ASKED[:5])
        everything = convert(store, config.feedback, SelectionQuery(1e9)).rows["example"]
        own = convert(store, config.feedback, SelectionQuery(1e9, skill="animal"))
        assert own.rows["example"] < everything
        assert own.card["counts"]["left out: of another skill"] == 10  # an example and a pair each
    with pytest.raises(InputError, match=r"which skill.*allowed: animal, echo.*--skill"):
        EvolutionCycle(config).run()
    verdict = EvolutionCycle(config, skill="animal").run()
    effects = {e.metric: (e.role, e.state) for e in verdict.because.effects if e.role != "info"}
    assert isinstance(verdict, Promote), verdict.because.reason
    assert effects == {
        "exact_match": ("primary", "better"),
        "is_animal": ("guard", "kept"),
        "echo: exact_match": ("guard", "kept"),
    }
    assert "echo: exact_match within 0.4" in verdict.because.reason
    with open_store(config.store.url) as store:
        deployed = [d for _, d in store.log.read(Deployment)]
        assert registry.champion(deployed) == verdict.because.candidate != first.id
        (step,) = [step for _, step in store.log.read(Step, target=CONSUMED)]
        assert step.result["skill"] == "animal"
        assert consumed(store, "animal") == step.result["until"]
        assert consumed(store, "echo") == 0  # what was said of another skill is still to be learnt
        assert find_suite("animal", store, config).id == verdict.because.suite
        record = (store.root / "verdicts" / verdict.because.id / "verdict.json").read_text()
        assert replay(store.blobs.get_bytes, record)[1] == []


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"min_items": 20, "guards": {"is_animal": 0.01}}, r"`animal`.*at least 299"),
        ({"min_items": 20, "other_skills": 0.05}, r"`echo`.*at least 59"),
    ],
)
def test_a_suite_on_which_nothing_can_be_promoted_is_refused_before_training(config, tmp_path, gate, words):
    save(llama(), tmp_path / "model")
    config = config.model_copy(update={"gate": Gate.model_validate(gate)})
    with open_store(config.store.url) as store:
        first, _ = promote(store, tmp_path / "model", "the first")
        corrected(config, store, first.id, "animal", ASKED[:30])
    with pytest.raises(DataError, match=words):
        EvolutionCycle(config, skill="animal").run()
    with open_store(config.store.url) as store:
        assert [c.id for _, c in store.log.read(Checkpoint)] == [first.id]
