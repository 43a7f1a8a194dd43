"""The weighted mean of the weights of a model and one that was trained from it (Wortsman et al. 2022,
arXiv:2109.01903): a candidate between the two, which has forgotten less the smaller its weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from escultor.errors import ModelError
from escultor.model.folders import CONFIG, replace_folder
from escultor.model.load import load_tokenizer

_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "eos_token_id")


def average(first: Path, second: Path, weight: float, out: Path) -> None:
    """Write to `out` the model whose weights are (1 - weight) of `first` and weight of `second`, computed in
    float32 and stored in the dtype of `second`, whose tokenizer and other files it has. One shard of `second`
    is in memory at a time. Raises ModelError where the two are not of one shape and vocabulary."""
    _refuse_unlike(first, second)
    where = _tensors(first)
    with replace_folder(out) as draft:
        shutil.copytree(second, draft, ignore=shutil.ignore_patterns("*.safetensors"))
        for shard in sorted(second.glob("*.safetensors")):
            with safe_open(shard, "pt") as theirs:
                state = {name: theirs.get_tensor(name) for name in theirs.keys()}  # noqa: SIM118
                metadata = theirs.metadata()
            for name, value in state.items():
                with safe_open(where[name], "pt") as ours:
                    state[name] = _mean(ours.get_tensor(name), value, weight)
            save_file(state, draft / shard.name, metadata)


def _mean(one: torch.Tensor, other: torch.Tensor, weight: float) -> torch.Tensor:
    if not other.is_floating_point():
        return other
    return torch.lerp(one.float(), other.float(), weight).to(other.dtype)


def _tensors(folder: Path) -> dict[str, Path]:
    """The file of every tensor of a model folder."""
    where: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            where |= dict.fromkeys(file.keys(), path)
    return where


def _shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return shapes


def _refuse_unlike(first: Path, second: Path) -> None:
    from escultor.text.tokenizer import vocabulary_hash

    def described(folder: Path) -> list[Any]:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tokenizer = load_tokenizer(folder)
        kept = {key: value for key, value in config.items() if key not in _VOLATILE}
        return [kept, _shapes(folder), vocabulary_hash(tokenizer)]

    pairs = zip(
        ("configuration", "shapes of weights", "vocabulary"), described(first), described(second), strict=True
    )
    for name, one, other in pairs:
        if one != other:
            what = f"these models cannot be averaged: they differ in their {name}"
            got = f"{first} and {second}"
            raise ModelError(what, got, "two models trained from one", "take a model and its descendant")
