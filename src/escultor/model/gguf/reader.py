"""Import of a GGUF file: its weights, dequantised, its tokenizer and its stops as a model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from escultor.errors import ModelError
from escultor.ids import hash_file
from escultor.model.folders import replace_folder
from escultor.model.gguf.architectures import TensorNames, configuration, left_over
from escultor.model.gguf.header import GgufFile, read_header
from escultor.model.gguf.vocabulary import read_tokenizer

SOURCE = "import.json"  # in the folder: what it was made from
SHARD_BYTES = 2 << 30  # of weights held in memory at a time
Precision = Literal["exact", "float32", "bfloat16", "float16"]
_EXACT = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class ImportedGguf:
    """What a file held: architecture, tensors by type, the precision they were written in, SHA-256
    prefix."""

    architecture: str
    types: dict[str, int]
    precision: str
    source_hash: str


def import_gguf_file(path: Path, folder: Path, precision: Precision = "exact") -> ImportedGguf:
    """Write the model in a GGUF file to a new folder, whole or not at all; the same file gives the same
    bytes.

    precision: of the written weights. `exact` is the narrowest that holds every value: that of the file
    where all its matrices are F16 or BF16, else float32. A narrower one rounds.

    Raises ModelError for a file that is damaged or holds something that cannot be imported, LocationError
    when the disk refuses.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    file = read_header(path)
    arch, config = configuration(file)
    tokenizer, ends = read_tokenizer(file)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    places = _places(file, arch, config, model)
    if len(tokenizer) > config.vocab_size:
        raise ModelError(f"{path}: more tokens than rows of the embedding", len(tokenizer), config.vocab_size)
    written = _precision(file, places) if precision == "exact" else precision
    config.dtype = getattr(torch, written)
    config.architectures = [type(model).__name__]
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad")}
    for key, value in (ids | {"eos_token_id": tokenizer.eos_token_id}).items():
        setattr(config, key, value)
    types: dict[str, int] = {}
    for info in file.tensors.values():
        types[info.type] = types.get(info.type, 0) + 1
    result = ImportedGguf(arch, types, written, hash_file(path))
    with replace_folder(folder) as draft:
        draft.mkdir()
        _write_weights(file, TensorNames(arch, config), places, config.dtype, draft)
        config.save_pretrained(draft)
        GenerationConfig(**ids, eos_token_id=ends or None).save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        record = {"format": "gguf", "hash": result.source_hash, "architecture": arch, "types": types}
        (draft / SOURCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return result


def _places(file: GgufFile, arch: str, config: Any, model: Any) -> dict[str, str]:
    """The file's name of each tensor of the model. Raises ModelError where one is missing, has another
    shape, or is left over."""
    names, places = TensorNames(arch, config), {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored = names.of(name)
        info = file.tensors.get(stored)
        if info is None or info.shape != tuple(value.shape):
            what = f"{file.path}: the tensor {stored} is missing or has another shape"
            raise ModelError(what, None if info is None else info.shape, tuple(value.shape))
        places[name] = stored
    left_over(file, set(places.values()))
    return places


def _precision(file: GgufFile, places: dict[str, str]) -> str:
    """The narrowest precision that holds every value: norms are stored in float32, whatever they were."""
    import torch

    kinds = {file.tensors[name].type for name in places.values() if len(file.tensors[name].shape) > 1}
    found = _EXACT.get(kinds.pop(), "float32") if len(kinds) == 1 else "float32"
    narrow = getattr(torch, found)
    for name in places.values():
        if len(file.tensors[name].shape) == 1:
            values = torch.from_numpy(file.tensor(name))
            if not torch.equal(values, values.to(narrow).float()):
                return "float32"
    return found


def _write_weights(
    file: GgufFile, names: TensorNames, places: dict[str, str], dtype: Any, folder: Path
) -> None:
    """Write safetensors in shards of at most SHARD_BYTES, with one shard in memory at a time."""
    import torch
    from safetensors.torch import save_file

    shards, sizes = [[]], 0
    for name in places:
        size = int(torch.tensor(file.tensors[places[name]].shape).prod()) * dtype.itemsize
        if shards[-1] and sizes + size > SHARD_BYTES:
            shards.append([])
            sizes = 0
        shards[-1].append((name, size))
        sizes += size
    index, total = {}, sum(size for shard in shards for _, size in shard)
    for number, shard in enumerate(shards, 1):
        alone = len(shards) == 1
        target = "model.safetensors" if alone else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {name: _restored(file, names, name, places[name], dtype) for name, _ in shard}
        save_file(tensors, folder / target, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, target)
    if len(shards) > 1:
        document = {"metadata": {"total_size": total}, "weight_map": index}
        text = json.dumps(document, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _restored(file: GgufFile, names: TensorNames, name: str, stored: str, dtype: Any) -> Any:
    import numpy
    import torch

    values = names.restored(name, file.tensor(stored))
    if not numpy.isfinite(values).all():
        raise ModelError(f"{file.path}: the tensor {stored} holds values that are not finite")
    return torch.from_numpy(numpy.ascontiguousarray(values)).to(dtype)
