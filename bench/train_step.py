"""A training step of this project against a padded one written the obvious way: same model, same rows.

    python bench/train_step.py [--steps 12]

Both run in turn (A B A B …) in one process, so that a machine whose speed drifts gives an honest ratio.
Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from escultor.config import Sft
from escultor.data.batches import nll_batch
from escultor.data.rows import NllRow
from escultor.model.forward import logp_at_labels, precision
from escultor.model.memory import keep_freed_memory
from escultor.train.objectives import nll

VOCABULARY = 4096


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=640,
            num_hidden_layers=8,
            num_attention_heads=3,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
    )


def rows(seed: int, count: int = 32) -> list[NllRow]:
    """Prompts and responses of realistic, varying length; the response is labelled."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(5.3, 0.5, count).astype(int), 40, 512)
    return [
        NllRow(str(i), rng.integers(6, VOCABULARY, n).astype(np.int32), int(n * 0.65))
        for i, n in enumerate(lengths)
    ]


def ours(net: LlamaForCausalLM, batch: list[NllRow], dtype: str) -> float:
    packed = nll_batch(batch)
    with precision(dtype):
        loss = nll(logp_at_labels(net, packed.packed), packed.weight)
    (loss.total / loss.weight).backward()
    return loss.total.item() / loss.weight


def padded(net: LlamaForCausalLM, batch: list[NllRow], dtype: str) -> float:
    width = max(row.length for row in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(batch):
        tokens = torch.from_numpy(row.ids).long()
        ids[i, : row.length], mask[i, : row.length] = tokens, 1
        labels[i, row.start : row.length] = tokens[row.start :]
    with precision(dtype):
        logits = net(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY).float(), labels[:, 1:].reshape(-1))
    loss.backward()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--dtype", default=Sft().dtype)
    given = parser.parse_args()
    keep_freed_memory()
    nets = {"ours": model(), "padded": model()}
    seconds: dict[str, list[float]] = {"ours": [], "padded": []}
    gap = 0.0
    for step in range(given.steps + 2):
        batch = rows(step)
        losses = {}
        for name, run in (("ours", ours), ("padded", padded)):
            nets[name].zero_grad(set_to_none=True)
            began = time.perf_counter()
            losses[name] = run(nets[name], batch, given.dtype)
            if step >= 2:  # the first two prepare kernels
                seconds[name].append(time.perf_counter() - began)
        gap = max(gap, abs(losses["ours"] - losses["padded"]))
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["padded"], strict=True)]
    tokens = sum(row.length for row in rows(2))
    print(f"ours   {statistics.median(seconds['ours']):.3f} s a step")
    print(f"padded {statistics.median(seconds['padded']):.3f} s a step")
    print(
        json.dumps(
            {
                "bench": "train_step",
                "threads": torch.get_num_threads(),
                "dtype": given.dtype,
                "ratio_padded_over_ours_median": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "largest_loss_gap": gap,
                "tokens_of_a_step": tokens,
            }
        )
    )


if __name__ == "__main__":
    main()
