"""Compare two models on one suite with a policy, and read the verdict.

python examples/05_compare.py FOLDER [--champion DIR] [--candidate DIR]

Without --candidate, a candidate is trained from the champion, on other texts than those of the suite.
"""

import argparse
import json
from pathlib import Path

from escultor import compare, evaluate_model
from escultor.config import Gate, Sft
from escultor.model.load import load
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Example, Hold, Message, Origin, Role

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="where the suite and the candidate are kept")
parser.add_argument("--champion", default="escultor-base")
parser.add_argument("--candidate", help="another model folder")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

openings = {"I love": "good", "Thank you for": "good", "I hate": "bad", "I was let down by": "bad"}
learnt = ("the soup", "this lamp", "my new phone", "the hotel", "that film", "the service")
tested = ("the garden", "this song", "the boat", "our room", "the tea", "that chair", "the game", "my seat")
tested += ("the map", "the lake", "this cake", "the wall", "our car")  # 13 things, 52 texts

if options.candidate is None:
    texts = [(f"{o} {thing}.", openings[o]) for o in openings for thing in learnt]
    items = [Example(t, (Message(Role.USER, t),), label, Origin(("me",), "by hand")) for t, label in texts]
    settings = Sft(learning_rate=2e-3, batch_size=12, epochs=1000, max_steps=options.steps)
    run(TrainingTask("sft", load(options.champion), items, settings), options.folder / "sft")
    options.candidate = str(options.folder / "sft" / "model")

header = {"name": "remarks", "metrics": ["exact_match", "bits_per_byte"], "decoding": {"max_new_tokens": 8}}
texts = [(f"{o} {thing}.", openings[o]) for o in openings for thing in tested]
rows = [header, *({"id": t, "prompt": t, "reference": label} for t, label in texts)]
suite = options.folder / "remarks.jsonl"  # a header, then the items
suite.parent.mkdir(parents=True, exist_ok=True)
suite.write_text("".join(json.dumps(row) + "\n" for row in rows))

champion, candidate = (evaluate_model(model, suite) for model in (options.champion, options.candidate))
policy = Gate(primary=("exact_match",), guards={"bits_per_byte": 0.5}, min_items=50)
verdict = compare(champion, candidate, policy)
print(verdict.because.reason)
needed = verdict.n_needed if isinstance(verdict, Hold) else None
print(json.dumps({"verdict": type(verdict).__name__, "items": verdict.because.n, "items_needed": needed}))
