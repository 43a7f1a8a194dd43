"""Escultor closes the loop around a language model: serve, record, curate, train, prove, deploy, watch.

The names below are loaded when they are first asked for; importing the package does nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from escultor.cycle.api import EvolutionCycle, FeedbackStore, ProductionMonitor, compare, evaluate_model

    __version__: str

__all__ = [
    "EvolutionCycle",
    "FeedbackStore",
    "ProductionMonitor",
    "__version__",
    "compare",
    "evaluate_model",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("escultor")
    if name in __all__:
        return getattr(import_module("escultor.cycle.api"), name)
    raise AttributeError(f"module 'escultor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
