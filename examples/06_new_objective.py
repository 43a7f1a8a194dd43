"""Train with an objective of your own: one pure function, and one row in the table of methods.

python examples/06_new_objective.py FOLDER [--model DIR] [--steps 20]
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from escultor.config import Sft
from escultor.model.load import load
from escultor.train.methods import METHODS
from escultor.train.methods.tokens import per_token
from escultor.train.objectives.loss import Loss
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Example, Message, Origin, Role


def focal(logp: Tensor, weight: Tensor) -> Loss:
    """-sum_k w_k (1 - p_k)^2 log p_k over K labelled tokens (Lin et al. 2017, arXiv:1708.02002, eq. 4)."""
    loss = -((1 - logp.exp()) ** 2) * logp  # (K,)
    return Loss((weight * loss).sum(), float(weight.sum()))  # a sum and its weight: the loop divides


# Rows, batches and the rest are those of SFT.
METHODS["focal"] = replace(METHODS["sft"], objective=per_token(focal))

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="where the run is kept")
parser.add_argument("--model", default="escultor-base")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
items = [
    Example(day, (Message(Role.USER, f"What comes after {day}?"),), following, Origin(("me",), "by hand"))
    for day, following in zip(days, (*days[1:], days[0]), strict=True)
]
settings = Sft(learning_rate=1e-3, batch_size=7, epochs=1000, max_steps=options.steps, warmup_steps=2)
reports = []
task = TrainingTask("focal", load(options.model), items, settings)
record = run(task, options.folder / "focal", on_step=reports.append)
print(json.dumps({"method": record.method, "first_loss": reports[0].loss, "last_loss": reports[-1].loss}))
