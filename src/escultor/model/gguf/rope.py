"""Rotary positions in GGUF files and in transformers' configurations, one to the other."""

from __future__ import annotations

import math
from typing import Any

from escultor.errors import ModelError
from escultor.model.gguf.header import GgufFile

FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
TENSORS = (FREQUENCIES, LONG, SHORT)  # that belong to positions, not to a layer
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def read_rope(file: GgufFile, arch: str, head_dim: int) -> dict[str, Any]:
    """`rope_parameters` of a file. Raises ModelError for a scaling that transformers cannot compute."""
    key = f"{arch}.rope"
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": _number(file, f"{key}.freq_base", 1e4)}
    rotated = file.get(f"{key}.dimension_count", int, head_dim)
    if rotated != head_dim:
        rope["partial_rotary_factor"] = rotated / head_dim
    kind = file.get(f"{key}.scaling.type", str, "none")
    original = file.get(f"{key}.scaling.original_context_length", int)
    factor = _number(file, f"{key}.scaling.factor", _number(file, f"{key}.scale_linear", 0.0))
    if LONG in file.tensors and SHORT in file.tensors:
        rope |= {
            "rope_type": "longrope",
            "long_factor": file.tensor(LONG).tolist(),
            "short_factor": file.tensor(SHORT).tolist(),
            "original_max_position_embeddings": original,
        }
        if attention := _number(file, f"{key}.scaling.attn_factor", 0.0):
            rope["attention_factor"] = attention
    elif FREQUENCIES in file.tensors:
        rope |= _llama3(file.tensor(FREQUENCIES).tolist(), rope["rope_theta"], head_dim)
    elif kind == "linear" or (kind == "none" and factor):
        rope |= {"rope_type": "linear", "factor": factor or 1.0}
    elif kind == "yarn":
        rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    elif kind != "none":
        what = f"{file.path}: positions are scaled in a way that cannot be read"
        raise ModelError(what, kind, "linear, yarn, longrope or the factors of Llama 3")
    return rope


def _llama3(divisors: list[float], theta: float, head_dim: int) -> dict[str, Any]:
    """Llama 3's formula where the divisors of the frequencies follow it, else the divisors themselves."""
    found = {"rope_type": "llama3", "factor": round(max(divisors), 6), **LLAMA3}
    expected = llama3_divisors(found | {"rope_theta": theta}, head_dim)
    if len(expected) == len(divisors) and all(
        math.isclose(a, b, rel_tol=1e-5) for a, b in zip(expected, divisors, strict=True)
    ):
        return found
    same = {"long_factor": divisors, "short_factor": divisors, "attention_factor": 1.0}
    return {"rope_type": "longrope", **same, "original_max_position_embeddings": 8192}


def llama3_divisors(rope: dict[str, Any], head_dim: int) -> list[float]:
    """By what Llama 3's scaling divides each rotary frequency (transformers' rope type `llama3`)."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]  # wavelengths, in tokens
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < high:
            divisors.append(1.0)
        elif wavelength > low:
            divisors.append(float(rope["factor"]))
        else:
            smooth = (low / wavelength - 1) / (low / high - 1)
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return divisors


def write_rope(
    rope: dict[str, Any], context: int, head_dim: int
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Metadata (keys after `ARCH.rope.`) and tensors of positions. Raises ModelError for a scaling that
    llama.cpp does not have."""
    rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    metadata: dict[str, Any] = {"freq_base": float(rope["rope_theta"]), "dimension_count": rotated}
    kind = rope["rope_type"]
    if kind == "llama3":
        return metadata, {FREQUENCIES: llama3_divisors(rope, head_dim)}
    if kind in ("linear", "yarn"):
        metadata |= {"scaling.type": kind, "scaling.factor": float(rope["factor"])}
        if kind == "yarn":
            metadata["scaling.original_context_length"] = rope["original_max_position_embeddings"]
    elif kind == "longrope":
        original = rope["original_max_position_embeddings"]
        attention = rope.get("attention_factor")
        if attention is None:  # transformers' default, from https://arxiv.org/abs/2402.13753
            scale = context / original
            attention = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
        metadata |= {"scaling.original_context_length": original, "scaling.attn_factor": float(attention)}
        return metadata, {LONG: rope["long_factor"], SHORT: rope["short_factor"]}
    elif kind != "default":
        raise ModelError(
            "llama.cpp does not scale positions in this way", kind, "linear, yarn, longrope, llama3"
        )
    return metadata, {}


def _number(file: GgufFile, key: str, default: float) -> float:
    value = float(file.get(key, (int, float), default))
    if not math.isfinite(value) or value < 0:
        raise ModelError(f"{file.path}: `{key}` is no number that can be used", value)
    return float(f"{value:.7g}")  # stored in float32: 10000 and 0.1, not 0.10000000149
