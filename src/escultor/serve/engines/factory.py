"""The engine that `serve.engine` names."""

from __future__ import annotations

from pathlib import Path

from escultor.config import Serve
from escultor.model.loaded import Loaded
from escultor.serve.engines.transformers_engine import TransformersEngine
from escultor.serve.protocol import Engine


def open_engine(loaded: Loaded, folder: Path, version: str, settings: Serve, copies: Path) -> Engine:
    """Make the engine of the model loaded from `folder`; blocks meanwhile. Converted models go to `copies`.

    Raises ModelError where the engine cannot serve this model.
    """
    if settings.engine == "transformers":
        return TransformersEngine(loaded, version, settings)
    from escultor.serve.engines.ctranslate2_engine import CTranslate2Engine

    return CTranslate2Engine(loaded, folder, version, settings, copies)
