"""The configuration: one YAML file, parsed once into frozen types. Unknown keys are refused.

    skills:        what the model is for
    model:         the model to start from
    pretrain: sft: dpo: kto: distillation:    training sections; they share the keys of `Training`
    curation:      how raw rows become a dataset
    evaluation: gate: canary: serve: monitor:    evaluation, promotion, trial on live traffic, serving, alerts
    feedback:      how feedback becomes training data, and what is quarantined
    cycle:         cycles that run by themselves: triggers, limits, approval, the process that trains
    store:         where everything is stored

Every key acts. A key that cannot act with the others given is refused, not ignored.
"""

from __future__ import annotations

from escultor.config.curation import Curation
from escultor.config.cycle import Cycle
from escultor.config.evaluation import Canary, Evaluation, Gate
from escultor.config.feedback import FeedbackRules
from escultor.config.load import Config, ModelSection, StoreSection, load_config, load_policy, with_steps
from escultor.config.section import Section
from escultor.config.serving import FeedbackIntake, Monitor, Serve, Upstream
from escultor.config.training import Distillation, Dpo, Kto, Lora, Pretrain, Sft, Training

__all__ = [
    "Canary",
    "Config",
    "Curation",
    "Cycle",
    "Distillation",
    "Dpo",
    "Evaluation",
    "FeedbackIntake",
    "FeedbackRules",
    "Gate",
    "Kto",
    "Lora",
    "ModelSection",
    "Monitor",
    "Pretrain",
    "Section",
    "Serve",
    "Sft",
    "StoreSection",
    "Training",
    "Upstream",
    "load_config",
    "load_policy",
    "with_steps",
]
