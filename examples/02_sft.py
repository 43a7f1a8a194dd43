"""Fine-tune a model on examples of your own (SFT), and ask the result something it has not seen.

python examples/02_sft.py FOLDER [--model DIR] [--steps 20]
"""

import argparse
import json
from pathlib import Path

from escultor.config import Sft
from escultor.data.jsonl import read_jsonl
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Message, Role, Sampling

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="where the data and the run are kept")
parser.add_argument("--model", default="escultor-base")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

# One JSON object on each line; {"messages": [...]} is read too.
things = ("the soup", "this lamp", "my new phone", "the hotel", "that film", "the service")
openings = {"I love": "good", "Thank you for": "good", "I hate": "bad", "I was let down by": "bad"}
rows = [{"prompt": f"{o} {thing}.", "completion": openings[o]} for o in openings for thing in things]
data = options.folder / "examples.jsonl"
data.parent.mkdir(parents=True, exist_ok=True)
data.write_text("".join(json.dumps(row) + "\n" for row in rows))

settings = Sft(learning_rate=2e-3, batch_size=12, epochs=1000, max_steps=options.steps)
task = TrainingTask("sft", load(options.model), read_jsonl(data, "example").items, settings)
out = options.folder / "sft"  # the same command goes on after a kill, and repeats nothing that is done
record = run(task, out, on_step=lambda report: print(f"step {report.step}: loss {report.loss:.3f}"))

tuned = load(str(out / "model"))
prompt = tuned.chat.prompt((Message(Role.USER, "I love the garden."),))
(answer,) = generate(tuned, [prompt], Sampling(temperature=0.0, top_p=1.0, max_new_tokens=8, seed=0))
print(json.dumps({"steps": record.steps, "loss": record.loss, "answer": answer.text}))
