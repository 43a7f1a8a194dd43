"""Measure a model on a suite of your own.

python examples/04_own_suite.py FOLDER [--model DIR]
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from escultor import evaluate_model

# Items with the same cluster may depend on each other: intervals draw whole clusters.
SUITE = """
name: capitals
metrics: [contains, f1, bits_per_byte, accuracy]
decoding: {max_new_tokens: 12, temperature: 0}
items:
  - {id: fr, prompt: "Capital of France?", reference: Paris, choices: [Rome, Paris], right: 1, cluster: eu}
  - {id: it, prompt: "Capital of Italy?", reference: Rome, choices: [Rome, Paris], right: 0, cluster: eu}
  - {id: pe, prompt: "Capital of Peru?", reference: Lima, choices: [Quito, Lima], right: 1, cluster: am}
  - {id: ec, prompt: "Capital of Ecuador?", reference: Quito, choices: [Quito, Lima], right: 0, cluster: am}
"""

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="where the suite and the answers are kept")
parser.add_argument("--model", default="escultor-base")
options = parser.parse_args()

suite = options.folder / "capitals.yaml"
suite.parent.mkdir(parents=True, exist_ok=True)
suite.write_text(SUITE)
# What the model answered is kept in `cache`: a second run asks it nothing.
scores = evaluate_model(options.model, suite, cache=options.folder / "cache")
for name, values in scores.metrics.items():
    print(f"{name:14} {mean(values):.3f}   by item: {dict(zip(scores.items, values, strict=True))}")
print(json.dumps({"suite": scores.suite, "metrics": {name: mean(v) for name, v in scores.metrics.items()}}))
