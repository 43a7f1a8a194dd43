"""Quantised tensors: by numpy where the library gguf can, else by the quantiser inside a llama.cpp
wheel."""

from __future__ import annotations

import ctypes
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from escultor.errors import ConfigError, InputError

_BY_NUMPY = frozenset(("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q5_1"))
# What is taken where a row does not hold whole blocks of the wanted type.
_SMALLER_BLOCKS = {
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "Q4_0": "F16",
    "Q5_0": "F16",
    "Q5_1": "F16",
}
_LAYER = re.compile(r"blk\.(\d+)\.(attn_v|ffn_down)\.")


class Quant(NamedTuple):
    """The type of matrices, that of the embedding and the head, and the number of the mixture in
    llama.cpp."""

    matrices: str
    ends: str
    file_type: int
    better: str = ""  # type of the value and down projections in a part of the layers


QUANTS = {
    "f32": Quant("F32", "F32", 0),
    "f16": Quant("F16", "F16", 1),
    "bf16": Quant("BF16", "BF16", 32),
    "q8_0": Quant("Q8_0", "Q8_0", 7),
    "q4_0": Quant("Q4_0", "Q8_0", 2),
    "q4_k": Quant("Q4_K", "Q6_K", 15, "Q6_K"),
    "q5_k": Quant("Q5_K", "Q6_K", 17, "Q6_K"),
    "q6_k": Quant("Q6_K", "Q6_K", 18),
}


def check_quant(name: str) -> Quant:
    """The quantisation of this name. Raises InputError for one that is not known, ConfigError for one that
    needs a llama.cpp wheel where none is installed."""
    if name not in QUANTS:
        raise InputError("this quantisation is not known", name, ", ".join(QUANTS))
    quant = QUANTS[name]
    if quant.matrices not in _BY_NUMPY:
        _quantiser()
    return quant


def type_of(quant: Quant, name: str, shape: tuple[int, ...], layers: int) -> str:
    """The type in which a tensor of this GGUF name is stored: float32 for vectors, and for a matrix the
    wanted one, or the next whose blocks fit its rows. Mixtures follow llama.cpp's Q4_K_M."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) < 2:
        return "F32"
    kind = quant.ends if name in ("token_embd.weight", "output.weight") else quant.matrices
    if quant.better and (found := _LAYER.match(name)):
        layer, eighth = int(found[1]), layers // 8
        if layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2:
            kind = quant.better
    while shape[-1] % GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]:
        kind = _SMALLER_BLOCKS.get(kind, "F16")
    return kind


def quantise(values: Any, kind: str) -> Any:
    """The bytes (numpy, uint8 or a float type) of a float32 array in a type. Raises ConfigError as
    `check_quant`."""
    import numpy
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import quantize

    if kind in _BY_NUMPY:
        return quantize(values, GGMLQuantizationType[kind])
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    rows, width = values.reshape(-1, values.shape[-1]).shape
    source = numpy.ascontiguousarray(values, dtype=numpy.float32)
    target = numpy.empty((*values.shape[:-1], width // block * size), numpy.uint8)
    arguments = (
        GGMLQuantizationType[kind].value,
        source.ctypes.data,
        target.ctypes.data,
        0,
        rows,
        width,
        None,
    )
    written = _quantiser()(*arguments)
    if written != target.nbytes:
        raise ConfigError(
            "the quantiser of the installed llama.cpp wrote something else", written, target.nbytes
        )
    return target


@lru_cache(1)
def _quantiser() -> Any:
    """`ggml_quantize_chunk` of the installed wheel."""
    package = find_spec("xllamacpp")
    origin = Path(package.origin or "").parent if package else Path()
    for library in sorted(origin.glob("xllamacpp.*")) if package else ():
        if library.suffix in (".so", ".pyd", ".dylib"):
            function = getattr(ctypes.CDLL(str(library)), "ggml_quantize_chunk", None)
            if function is not None:
                function.restype = ctypes.c_size_t
                numbers = [ctypes.c_int64] * 3
                function.argtypes = [
                    ctypes.c_int,
                    ctypes.c_void_p,
                    ctypes.c_void_p,
                    *numbers,
                    ctypes.c_void_p,
                ]
                return function
    what = "this quantisation needs the quantiser of a llama.cpp wheel"
    remedy = "pip install 'escultor[llamacpp]', or take q8_0 or q4_0"
    raise ConfigError(what, "xllamacpp is not installed", remedy=remedy)
