"""Turn recorded choices between answers into pairs, and train on them with DPO.

python examples/03_feedback_to_dpo.py FOLDER [--model DIR] [--steps 10]
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from escultor.config import Dpo, FeedbackRules
from escultor.feedback.conversion import convert, read_items
from escultor.feedback.selection import SelectionQuery
from escultor.model.load import load
from escultor.serve.in_flight import draft_interaction
from escultor.store import open_store
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Choice, Message, Role, Sampling, SourceKind

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="where the store and the run are kept")
parser.add_argument("--model", default="escultor-base")
parser.add_argument("--steps", type=int, default=10)
options = parser.parse_args()

sampling, now = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=32, seed=0), time.time()
with open_store(str(options.folder / "store")) as store:
    # The gateway records answers and choices; here they are written by hand: a rater prefers short answers.
    for i in range(24):
        prompt = (Message(Role.USER, f"What is {i} plus {i}?"),)
        texts = {f"short-{i}": f"{2 * i}.", f"long-{i}": f"Adding {i} to itself, one obtains {2 * i}."}
        for id, text in texts.items():
            row = draft_interaction(prompt, id=id, subject="", version="v1", sampling=sampling)
            store.log.append(replace(row, time=now, answer=text, finish_reason="stop"))
        shown = tuple(texts)[:: 1 if i % 2 else -1]
        rater = SourceKind.RATER
        store.log.append(Choice(f"choice-{i}", now, "ana", "preference", shown, f"short-{i}", source=rater))
    conversion = convert(store, FeedbackRules(), SelectionQuery(now=now))
    pairs = read_items(store, conversion, "pair")
print(f"{pairs[0].prompt[0].content} {pairs[0].chosen} (not: {pairs[0].rejected}) by {pairs[0].origin.rule}")

# cdpo and robust use how likely each label is the wrong way round.
settings = Dpo(learning_rate=2e-5, batch_size=8, epochs=1000, max_steps=options.steps, loss="cdpo")
reports = []
run(TrainingTask("dpo", load(options.model), pairs, settings), options.folder / "dpo", on_step=reports.append)
print(json.dumps({"pairs": len(pairs), "first_loss": reports[0].loss, "last_loss": reports[-1].loss}))
