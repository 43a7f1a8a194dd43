"""Export of a model as a GGUF file, tensor by tensor, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escultor.model.gguf.architectures import TensorNames, metadata, refuse_loss
from escultor.model.gguf.header import import_gguf, read_header
from escultor.model.gguf.quantise import Quant, check_quant, quantise, type_of
from escultor.model.gguf.vocabulary_out import vocabulary_metadata
from escultor.model.loaded import Loaded
from escultor.store.files import atomic_write


@dataclass(frozen=True)
class ExportedGguf:
    """What was written: the types of tensors with their number, and what llama.cpp does otherwise, in
    words."""

    architecture: str
    types: dict[str, int]
    notes: tuple[str, ...]


def export_gguf_file(
    loaded: Loaded, path: Path, quant: str, name: str, stops: tuple[int, ...]
) -> ExportedGguf:
    """Write a model to `path` in a quantisation of `QUANTS`. name: shown by llama.cpp. stops: the ids that
    end an answer, the end of the turn first.

    Raises ModelError for a model or tokenizer that the format cannot hold, InputError and ConfigError for
    `quant`, LocationError when the disk is full.
    """
    import_gguf()
    chosen = check_quant(quant)
    model: Any = loaded.model
    arch, keys, positions = metadata(model.config)
    rows = model.get_input_embeddings().weight.shape[0]
    words, notes = vocabulary_metadata(loaded.tokenizer, rows, stops)
    if any(token.rstrip for token in loaded.tokenizer.added_tokens_decoder.values()):
        name = f"phi-3 {name}"  # llama.cpp knows by this that spaces after control tokens are dropped
    general = {"general.name": name, "general.file_type": chosen.file_type, "general.quantization_version": 2}
    tensors = _Tensors(loaded, arch, positions, chosen)
    with atomic_write(path) as draft:
        _write(draft, arch, general | keys | words, tensors)
        refuse_loss(model.config, read_header(draft))
    return ExportedGguf(arch, tensors.types, tuple(notes))


class _Tensors:
    """The tensors of a file: name, shape and type of all, then the values of one after another."""

    def __init__(self, loaded: Loaded, arch: str, positions: dict[str, list[float]], quant: Quant):
        config: Any = loaded.model.config
        self._names, self._positions = TensorNames(arch, config), positions
        state = loaded.model.state_dict()
        if config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        self._values = {self._names.of(name): (name, value) for name, value in state.items()}
        layers = config.num_hidden_layers
        self.kinds = dict.fromkeys(positions, "F32") | {
            stored: type_of(quant, stored, tuple(value.shape), layers)
            for stored, (_, value) in self._values.items()
        }

    @property
    def types(self) -> dict[str, int]:
        found = list(self.kinds.values())
        return {kind: found.count(kind) for kind in sorted(set(found))}

    def shape(self, stored: str) -> tuple[int, ...]:
        if stored in self._positions:
            return (len(self._positions[stored]),)
        return tuple(self._values[stored][1].shape)

    def data(self) -> Iterator[Any]:
        import numpy

        for stored, kind in self.kinds.items():
            if stored in self._positions:
                yield numpy.array(self._positions[stored], numpy.float32)
            else:
                name, value = self._values[stored]
                yield quantise(self._names.stored(name, value.detach().float().cpu().numpy()), kind)


def _write(path: Path, arch: str, keys: dict[str, Any], tensors: _Tensors) -> None:
    from gguf import GGUFWriter
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    writer = GGUFWriter(path, arch)
    try:
        for key, value in keys.items():
            _add(writer, key, value)
        for stored, kind in tensors.kinds.items():
            number, shape = GGMLQuantizationType[kind], tensors.shape(stored)
            size = _byte_size(shape, kind)
            packed = quant_shape_to_byte_shape(shape, number) if kind not in ("F32", "F16") else shape
            dtype = {"F32": "float32", "F16": "float16"}.get(kind, "uint8")
            writer.add_tensor_info(stored, packed, _dtype(dtype), size, number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in tensors.data():
            writer.write_tensor_data(values)
    finally:
        writer.close()


def _dtype(name: str) -> Any:
    import numpy

    return numpy.dtype(name)


def _byte_size(shape: tuple[int, ...], kind: str) -> int:
    from math import prod

    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return prod(shape) // block * size


def _add(writer: Any, key: str, value: Any) -> None:
    """Add a metadata value in the type that llama.cpp expects of it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
