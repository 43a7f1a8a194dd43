"""A store with a tiny champion and people's corrections of its answers, and a skill to measure it on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tiny import TEXTS, llama

from escultor.config import Config
from escultor.cycle.api import promote
from escultor.model.folders import save
from escultor.serve.in_flight import draft_interaction
from escultor.skills.catalog import load_skills
from escultor.store import open_store
from escultor.types import Correction, Sampling

ANIMALS = ("cat", "dog", "bird")
HELD_OUT = [text for n, text in enumerate(TEXTS) if n % 5 == 0]
ASKED = [text for n, text in enumerate(TEXTS) if n % 5]


def animal_in(text: str) -> str:
    return next(animal for animal in ANIMALS if animal in text)


def config_at(folder: Path, url: str | None = None, **sections: object) -> Config:
    """A configuration whose one skill is quickly learnt, in a folder of its own."""
    skill = {
        "name": "animal",
        "instruction": "Which one?",
        "inputs": ["text"],
        "metrics": ["exact_match"],
        "primary": ["exact_match"],
        "decoding": {"max_new_tokens": 4},
        "suite": [{"input": text, "reference": animal_in(text)} for text in HELD_OUT],
    }
    (folder / "animal.yaml").write_text(json.dumps(skill))
    values = {
        "skills": [str(folder / "animal.yaml")],
        "store": {"url": url or str(folder / "store")},
        "sft": {"learning_rate": 0.01, "epochs": 8, "batch_size": 16, "warmup_steps": 0, "dtype": "float32"},
        "gate": {"min_items": 20},
        "evaluation": {"speed_requests": 2},
        "feedback": {"min_examples": 20},
    }
    return Config.model_validate(values | sections)


def fill(config: Config, folder: Path) -> str:
    """Deploy a tiny model and record corrections of its answers; the model's id."""
    save(llama(), folder / "model")
    prompt_of = load_skills(config.skills)["animal"].prompt
    with open_store(config.store.url) as store:
        first, _ = promote(store, folder / "model", "the first")
        for n, text in enumerate(ASKED):
            id, who = f"chatcmpl-animal-{n}", f"someone-{n % 30}"
            row = draft_interaction(
                prompt_of(text), id=id, subject=who, version=first.id, sampling=Sampling(max_new_tokens=4),
                skill="animal",
            )  # fmt: skip
            row = replace(row, time=1000.0 + n, answer="fish", finish_reason="stop")
            store.log.append(row, Correction(f"fb-{id}", 5000.0 + n, id, who, text=animal_in(text)))
    return first.id
