"""The engine that the configuration asks for."""

from __future__ import annotations

from pathlib import Path

from escultor.config import Serve
from escultor.model.loaded import Loaded
from escultor.serve.engines.transformers_engine import LocalEngine
from escultor.serve.protocol import Engine


def open_engine(loaded: Loaded, folder: Path, version: str, settings: Serve, converted: Path) -> Engine:
    """An engine for the model that was loaded from `folder`, by `settings.engine`; blocks while it is made.

    Converted copies lie under `converted`. Raises ModelError where the engine cannot serve this model.
    """
    if settings.engine == "transformers":
        return LocalEngine(loaded, version, settings)
    from escultor.serve.engines.ctranslate2_engine import FastEngine

    return FastEngine(loaded, folder, version, settings, converted)
