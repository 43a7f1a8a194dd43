"""An estimate, before a training run begins, of its time and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from escultor.model.forward import precision
from escultor.model.head import chunk_tokens

MEASURE_S = 0.1
_ROWS = 512  # of the matrix whose products are timed: about a packed row
_KD_COPIES = 8  # of a chunk's logits, in float32, that distillation holds at its peak


@dataclass(frozen=True, slots=True)
class Work:
    """What a run computes, as far as its time and memory depend on it."""

    tokens: float  # trained on, over all epochs
    pass_tokens: int  # of the largest forward pass, padding included
    width: int  # tokens of a packed row
    trained: int  # parameters with gradients
    state: int  # bytes of the optimizer's state
    frozen_flops: float = 0.0  # of a frozen model's forward passes
    frozen_bytes: int = 0  # of a second model in memory
    dense: bool = False  # whether whole distributions are compared, rather than labelled tokens
    masked: bool = False  # whether attention takes a dense mask
    checkpointed: bool = False  # whether gradient checkpointing is on


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """The estimated cost of a training run; memory in bytes."""

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    flops: float
    flops_per_s: float
    seconds: float

    @property
    def memory(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_cost(model: Any, work: Work, dtype: str, flops_per_s: float) -> TrainingCost:
    """Time and memory of a run by formula; the model may have no weights (device `meta`).

    dtype: of matrix products, float32 or bfloat16, on the device of the run.

    Time: 2 N FLOPs per token forward (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), 2 N backward to the
    activations and 2 per trained parameter, at the measured speed of matrix products. N excludes an embedding
    that is only looked up. Attention's own products and all that is no matrix product are excluded too, so a
    run takes longer than this, rarely twice as long.

    Memory: float32 weights, gradients and optimizer state, and what autograd keeps of the largest forward
    pass; see `_activations`.
    """
    parameters = sum(p.numel() for p in model.parameters())
    flops = work.tokens * (4 * _multiplied(model) + 2 * work.trained) + work.frozen_flops
    return TrainingCost(
        parameters=parameters,
        trained=work.trained,
        weights=sum(p.numel() * p.element_size() for p in model.parameters()) + work.frozen_bytes,
        gradients=4 * work.trained,
        optimizer=work.state,
        activations=_activations(model, work, dtype),
        flops=flops,
        flops_per_s=flops_per_s,
        seconds=flops / flops_per_s,
    )


def forward_flops(model: Any, tokens: float) -> float:
    """The FLOPs of a forward pass over `tokens` tokens."""
    return 2.0 * _multiplied(model) * tokens


def _multiplied(model: Any) -> int:
    """The number of parameters that every token is multiplied with."""
    total = sum(p.numel() for p in model.parameters())
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is table.weight
    return total if tied else total - table.weight.numel()


def _activations(model: Any, work: Work, dtype: str) -> int:
    """Bytes that autograd keeps of the largest forward pass of a Llama-like model: per token 4 H numbers of 4
    bytes, and per layer 9 H more (norms, residuals) and 2 KV + 4 I (keys and values, feed-forward; with
    `masked` T more) in the products' precision; with `checkpointed` H per layer and all of one layer; copies
    of a chunk of the head's logits, more of them with `dense`."""
    config = model.config.get_text_config()
    hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    keys = groups * (getattr(config, "head_dim", None) or hidden // heads)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    half = dtype == "bfloat16"
    bytes_ = 2 if half else 4
    layer = 4 * 9 * hidden + bytes_ * (2 * keys + 4 * inner + (work.width if work.masked else 0))
    per_token = 4 * 4 * hidden + (layers * 4 * hidden + layer if work.checkpointed else layers * layer)
    copies = bytes_ * _multiplied(model) if half else 0  # of the weights, in the products' precision
    vocabulary = model.get_input_embeddings().weight.shape[0]
    head = 4 * (_KD_COPIES if work.dense else 3) * chunk_tokens(vocabulary) * vocabulary
    return work.pass_tokens * per_token + copies + head


def matrix_speed(model: Any, dtype: str, device: torch.device) -> float:
    """FLOPs per second on `device` of matrix products as wide as the model's, measured for MEASURE_S."""
    config = model.config.get_text_config()
    width = int(config.hidden_size)
    x, w = torch.ones(_ROWS, width, device=device), torch.ones(width, 4 * width, device=device)
    with torch.no_grad(), precision(dtype, device.type):
        torch.mm(x, w)  # the first product of a shape also prepares its kernel
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < MEASURE_S:
            torch.mm(x, w)[0, 0].item()  # waits for an asynchronous device
            done += 1
        seconds = time.perf_counter() - began
    return done * 2.0 * _ROWS * width * 4 * width / seconds
