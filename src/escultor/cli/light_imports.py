"""Imports for a command that answers once on a processor: the modelling code of transformers without what
it imports and such a command rarely uses: the compiler, distributed tensors, the optimiser of SciPy."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
_TRACING = f"{COMPILER}._trace_wrapped_higher_order_op"
_ABSENT = ("is_torch_distributed_available", "is_scipy_available")


class _UntilUsed(ModuleType):
    """Stands in for a module, which is imported when an attribute is read that this object does not have."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and (self.__name__, name) != (COMPILER, "__path__"):
            raise AttributeError(name)
        for stand_in in (COMPILER, _TRACING):
            if isinstance(sys.modules.get(stand_in), _UntilUsed):
                del sys.modules[stand_in]
        return getattr(importlib.import_module(self.__name__), name)


def import_modelling_code() -> None:
    """Import the modelling code of transformers in half its time. For a process that ends with its command:
    in it, transformers shards no model, and has no losses of object detection. Nothing is done where there is
    a GPU, for which code may be compiled, or where the compiler has been imported already."""
    import torch

    if COMPILER in sys.modules or torch.cuda.is_available():
        return
    from transformers import utils

    compiler, tracing = _UntilUsed(COMPILER), _UntilUsed(_TRACING)
    # Marks on functions for the compiler: until it is imported, there is nothing to mark.
    vars(compiler).update(dict.fromkeys(("disable", "allow_in_graph", "assume_constant_result"), _unmarked))
    vars(tracing)["TransformGetItemToIndex"] = lambda: _UntilUsed.__getattr__(
        tracing, "TransformGetItemToIndex"
    )()
    sys.modules |= {COMPILER: compiler, _TRACING: tracing}
    kept = {(place, name): getattr(place, name) for place in (utils, utils.import_utils) for name in _ABSENT}
    for place, name in kept:
        setattr(place, name, lambda: False)
    try:
        importlib.import_module("transformers.modeling_layers")
        importlib.import_module("transformers.generation.utils")
    finally:
        for (place, name), value in kept.items():
            setattr(place, name, value)


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return function or _unmarked
