"""What a training run will take, said before it begins: an estimate of its time and memory."""

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
    """What a run computes."""

    tokens: float  # trained on, over all passes
    pass_tokens: int  # of the largest forward pass, padding included
    width: int  # tokens of its packed rows
    trained: int  # numbers that gradients are taken of
    state: int  # bytes that the optimizer keeps
    frozen_flops: float = 0.0  # of the frozen model's forward passes
    frozen_bytes: int = 0  # of a second model in memory
    dense: bool = False  # whether whole distributions are compared, not labelled tokens
    masked: bool = False  # whether attention is given a dense mask
    checkpointed: bool = False  # whether layers are computed again backwards


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """An estimate; memory in bytes."""

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


def cost(model: Any, work: Work, dtype: str, flops_per_s: float) -> TrainingCost:
    """Time and memory of a run by formula; the model may be one without weights (device `meta`). `dtype` is
    what products are in, float32 or bfloat16, on the device where it runs.

    Time: 2 N FLOPs a token forward (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), 2 N backward to
    the activations and 2 per trained number, at the measured speed of matrix products. N leaves out an
    embedding that is only looked up. Attention's own products and everything that is no product are
    left out too, so that a run takes longer than this, seldom twice as long.

    Memory: float32 weights, gradients and optimizer state, and what autograd keeps of the largest forward
    pass of a Llama-like model: per token 4 H numbers of 4 bytes, and with each layer 9 H more (norms,
    residuals) and 2 KV + 4 I (keys and values, feed-forward; with `masked` T more) in the products'
    precision; with `checkpointed` H a layer and all of one layer; copies of a chunk of the head's logits,
    more of them with `dense`.
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
    """Of a forward pass alone."""
    return 2.0 * _multiplied(model) * tokens


def _multiplied(model: Any) -> int:
    """Parameters that every token is multiplied with."""
    total = sum(p.numel() for p in model.parameters())
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is table.weight
    return total if tied else total - table.weight.numel()


def _activations(model: Any, work: Work, dtype: str) -> int:
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
    """FLOPs a second on `device` of products as wide as the model's own, taken in a tenth of a second."""
    config = model.config.get_text_config()
    width = int(config.hidden_size)
    x, w = torch.ones(_ROWS, width, device=device), torch.ones(width, 4 * width, device=device)
    with torch.no_grad(), precision(dtype, device.type):
        torch.mm(x, w)  # kernels are prepared at the first product of a shape
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < MEASURE_S:
            torch.mm(x, w)[0, 0].item()  # waits for a device that works on its own
            done += 1
        seconds = time.perf_counter() - began
    return done * 2.0 * _ROWS * width * 4 * width / seconds
