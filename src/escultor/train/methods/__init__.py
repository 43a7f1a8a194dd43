"""The training methods as a table.

| method   | from            | a frozen model adds | objective |
|----------|-----------------|---------------------|-----------|
| pretrain | Document        | –                   | nll       |
| sft      | Example         | –                   | nll       |
| dpo      | Pair            | reference log-probs | dpo       |
| kto      | UnpairedExample | reference log-probs | kto       |
| distill  | Example         | teacher states      | kd        |
"""

from escultor.train.methods.distillation import DISTILL
from escultor.train.methods.method import Frozen, Method
from escultor.train.methods.preference import DPO
from escultor.train.methods.tokens import PRETRAIN, SFT
from escultor.train.methods.unpaired import KTO

METHODS: dict[str, Method] = {
    "pretrain": PRETRAIN,
    "sft": SFT,
    "dpo": DPO,
    "kto": KTO,
    "distill": DISTILL,
}

__all__ = ["METHODS", "Frozen", "Method"]
