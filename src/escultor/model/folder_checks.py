"""What the files of a model folder may claim, checked by size and header before a library believes them."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from string import punctuation
from time import thread_time
from typing import Any

from escultor.errors import ModelError

WEIGHTS, CONFIG = "*.safetensors", "config.json"
_READ = ("*.json", "*.jinja", "*.txt", "*.model", WEIGHTS)  # what libraries open
_CONFIG_BYTES, _INDEX_BYTES, _TOKENIZER_BYTES = 4 << 20, 64 << 20, 160 << 20
_HEADER_BYTES = 24 << 20  # of a file of weights; 100,000 tensors take 12 MB
_TENSORS = 1 << 17
# The most that a configuration may count, by how a key ends; the largest vocabularies are a million.
_MOST = dict.fromkeys(("_size", "_dim", "_heads", "_experts", "n_embd", "n_head", "n_inner"), 1 << 22)
_MOST |= {"num_labels": 1 << 16}
_LAYERS = ("num_layers", "n_layer", "n_layers", "num_hidden_layers")
_AT_LEAST_ONE = (
    *("hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    "max_position_embeddings",
)
_ADDED_TOKENS, _TEMPLATE_PARTS, _PADDED, _GROWTH = 1 << 16, 256, 1 << 20, 256
_PROBE_S = 1.0
_END = "\0" + punctuation  # after which a repetition cannot match; what patterns look for first is in it
_COPY = "copy the folder again, or do not use this model"


def check_folder(path: Path) -> None:
    """Raise ModelError where the folder of a model or adapter holds what is no plain file, names weights that
    are no safetensors of this folder, which its content hash does not cover, or claims counts that no model
    of its size has."""
    for file in sorted({file for pattern in _READ for file in path.glob(pattern)}):
        if not file.is_file():  # a pipe would be waited for, a device read without an end
            raise ModelError(
                f"{file} is no file", "a folder, a pipe, a device or a broken link", remedy=_COPY
            )
        if file.suffix != ".safetensors":
            _check_size(file, _limit(file.name))
    for index in path.glob("*.index.json"):
        _check_index(index)
    tensors = sum(map(_count_tensors, path.glob(WEIGHTS)))
    if tensors > _TENSORS:
        raise ModelError(f"{path} holds too many tensors", f"{tensors:,}", f"at most {_TENSORS:,}", _COPY)
    if (path / CONFIG).is_file():
        _check_config(path / CONFIG, tensors)
    if (path / "tokenizer.json").is_file():
        _check_tokenizer(path / "tokenizer.json")


def check_parameters(name: str, path: Path, model: Any) -> None:
    """Raise ModelError where a model without its weights (device `meta`) has more parameters than its files
    can hold: libraries draw what is missing at random before they say so."""
    stored = sum(file.stat().st_size for file in path.glob(WEIGHTS))
    if (needed := sum(p.numel() for p in model.parameters())) > 2 * stored:  # two numbers in a byte at least
        what = f"`{name}`: config.json asks for more parameters than there are weights"
        raise ModelError(what, f"{needed:,} parameters, {stored:,} bytes of weights", remedy=_COPY)


def check_finite(name: str, model: Any) -> None:
    """Raise ModelError where a weight is NaN or infinite."""
    for tensor, value in model.named_parameters():
        if not value.sum().isfinite() and not value.isfinite().all():  # a sum of finite ones may overflow
            raise ModelError(f"`{name}` holds weights that are not finite", tensor, remedy=_COPY)


def check_patterns(path: Path, backend: Any) -> None:
    """Raise ModelError where a tokenizer's patterns take more than proportional time for repetitive texts."""
    for length in (10, 20, 40, 400, 4000):
        for text in (letter * length + _END for letter in ("a", "A", "1", " ", "\n", "-", "a ", "漢")):
            began = thread_time()
            try:
                backend.encode(text, add_special_tokens=False)
            except BaseException as error:  # the panic of a library in Rust is no Exception
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                got = " ".join(str(error).split())[:100]
                raise ModelError(f"the tokenizer in {path} cannot split texts", got, remedy=_COPY) from None
            if (taken := thread_time() - began) > _PROBE_S:
                what = f"the tokenizer in {path} takes too long for repetitive texts"
                raise ModelError(what, f"{taken:.1f} s for {len(text)} characters", remedy=_COPY)


def _limit(name: str) -> int:
    if name.endswith(".index.json"):
        return _INDEX_BYTES
    named = ("tokenizer", "vocab", "merges", "added_tokens", "spiece", "sentencepiece")
    return _TOKENIZER_BYTES if name.startswith(named) or name.endswith(".model") else _CONFIG_BYTES


def _check_size(file: Path, limit: int) -> None:
    if (size := file.stat().st_size) > limit:
        raise ModelError(f"{file} is too large", f"{size:,} bytes", f"at most {limit:,}", _COPY)


def _check_index(index: Path) -> None:
    try:
        names = set(_read_json(index)["weight_map"].values())
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read", repr(error)[:100], remedy=_COPY) from error
    if odd := sorted(n for n in map(str, names) if Path(n).name != n or not n.endswith(".safetensors")):
        remedy = "convert it to safetensors, all in one folder"
        raise ModelError(f"{index} names other files than safetensors beside it", odd[0][:200], remedy=remedy)
    if absent := sorted(name for name in names if not (index.parent / name).is_file()):
        raise ModelError(f"{index} names files that are not there", absent[0][:200], remedy=_COPY)


def _count_tensors(file: Path) -> int:
    """How many tensors a file of weights says it has. Its shapes and offsets are checked by the library as it
    opens the file."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, _HEADER_BYTES):
            raise _unusable(file, f"a header of {length:,} bytes in a file of {size:,}")
        try:
            return len(json.loads(opened.read(length)).keys() - {"__metadata__"})
        except (ValueError, AttributeError, RecursionError) as error:
            raise _unusable(file, error) from error


def _unusable(file: Path, got: object) -> ModelError:
    what = f"`{file.parent}` cannot be loaded as a causal language model: {file.name} is damaged"
    return ModelError(what, str(got)[:200], remedy=_COPY)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(file, error) from error


def _check_config(file: Path, tensors: int) -> None:
    """Refuse sizes and counts that no model has, and more layers than there are tensors."""
    pending = [_read_json(file)]
    while pending:
        part = pending.pop()
        for key, value in part.items() if isinstance(part, dict) else ():
            if isinstance(value, dict):
                pending.append(value)
            elif isinstance(value, int | float):
                least = 1 if key in _AT_LEAST_ONE else value
                most = next((most for ending, most in _MOST.items() if key.endswith(ending)), value)
                if key in _LAYERS and tensors:
                    most = tensors
                if not least <= value <= most:  # NaN is not equal to itself
                    what = f"{file} asks for a `{key}` that no model of these weights has"
                    raise ModelError(what, f"{value:,}", f"{least:,} to {most:,}", _COPY)


def _check_tokenizer(file: Path) -> None:
    """Refuse a tokenizer that makes much of a little, or does it slowly."""
    content = _read_json(file)
    try:
        padding = content.get("padding") or {}
        fixed = padding["strategy"].get("Fixed", 0) if isinstance(padding.get("strategy"), dict) else 0
        claims = {
            "added tokens": (len(content.get("added_tokens") or ()), _ADDED_TOKENS),
            "characters for one": (
                max(prod(map(_growth, _steps(content.get(part)))) for part in ("normalizer", "decoder")),
                _GROWTH,
            ),
            "parts around a text": (
                sum(len(step.get("single") or ()) for step in _steps(content.get("post_processor"))),
                _TEMPLATE_PARTS,
            ),
            "tokens of padding": (max(fixed, padding.get("pad_to_multiple_of") or 0), _PADDED),
        }
    except (TypeError, AttributeError, KeyError, RecursionError) as error:
        raise _unusable(file, error) from error
    for what, (got, most) in claims.items():
        if got > most:
            raise ModelError(f"{file} asks for too many {what}", f"{got:,}", f"at most {most:,}", _COPY)


def _steps(part: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer, decoder or post-processor, those within others after them."""
    steps = [part] if part else []
    for step in steps:  # which grows
        for inner in ("normalizers", "decoders", "processors"):
            steps.extend(step.get(inner) or ())
    return steps


def _growth(step: dict[str, Any]) -> int:
    """How many characters a replacement can make of one."""
    if not (pattern := step.get("pattern")):
        return 1
    return max(1, -(-len(step.get("content") or "") // max(1, len(pattern.get("String") or ""))))
