"""Model folders: how they are found by name, what they must hold, and how they are written whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from escultor.errors import LocationError, ModelError
from escultor.model.loaded import Loaded
from escultor.store.blobs import sibling_tree, tree_hash

BUILT_IN = "escultor-base"
BUILT_IN_PATH = Path(__file__).parents[1] / "assets" / BUILT_IN
ADAPTER_CONFIG = "adapter_config.json"  # of a folder that holds an adapter; see `adapters`
BASE = "base.json"  # next to an adapter's weights: the content hash of its base's folder


def resolve(name: str) -> Path:
    """The folder of a model's name: the built-in one's, or the path itself, which may hold an adapter. Raises
    ModelError where the folder holds no model, saying what is missing."""
    path = BUILT_IN_PATH if name == BUILT_IN else Path(name)
    remedy = f"give a folder with config.json and *.safetensors, or `{BUILT_IN}`"
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing is there"
        raise ModelError(f"`{name}` is no model folder", got, remedy=remedy)
    if not (path / "config.json").is_file() and not is_adapter(path):
        raise ModelError(f"`{name}` is no model folder", "no config.json", remedy=remedy)
    if not list(path.glob("*.safetensors")):
        if list(path.glob("*.bin")) or list(path.glob("*.pt")):
            what = f"`{name}` holds pickled weights, which can run code"
            raise ModelError(what, remedy="convert it to safetensors")
        raise ModelError(f"`{name}` is no model folder", "no *.safetensors", remedy=remedy)
    return path


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()


def base_hash(path: Path) -> str | None:
    """The content hash of an adapter's base, None where none was recorded. Raises ValueError, KeyError or
    TypeError for a damaged record."""
    record = path / BASE
    return json.loads(record.read_text(encoding="utf-8"))["tree_hash"] if record.is_file() else None


def base_folder(path: Path) -> Path:
    """The folder of an adapter's base: in the same store, or where it was when the adapter was made. Raises
    ModelError where the base is missing or its content has changed."""
    try:
        name = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        expected = base_hash(path)
        base = (sibling_tree(path, expected) if expected else None) or resolve(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"put its base there, or name another folder in {path / ADAPTER_CONFIG}"
        raise ModelError(f"the base of the adapter in {path} is not there", error, remedy=remedy) from error
    if expected is not None and (actual := tree_hash(base)) != expected:
        what = f"the base of the adapter in {path} has changed since the adapter was made"
        raise ModelError(what, f"{base} has hash {actual[:12]}", expected[:12], "bring the base back")
    return base


def save(loaded: Loaded, folder: Path, dtype: Any = None) -> None:
    """Write weights (in `dtype`, default as they are) and tokenizer, whole or not at all. Raises
    LocationError when the disk refuses."""
    with replace_folder(folder) as temporary:
        state = loaded.model.state_dict()
        if dtype is not None:
            converted = {value.data_ptr(): value.to(dtype) for value in state.values()}  # tied weights once
            state = {name: converted[value.data_ptr()] for name, value in state.items()}
        loaded.model.save_pretrained(temporary, state_dict=state)
        loaded.tokenizer.save_pretrained(temporary)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` when the block ends without an error. Raises LocationError
    when the disk refuses; nothing half-written is left."""
    disable_progress_bars()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except Exception as error:  # safetensors raises its own kinds when a disk is full
        shutil.rmtree(temporary, ignore_errors=True)
        what = f"the model could not be written to {folder}"
        raise LocationError(what, error, remedy="free disk space") from error


def disable_progress_bars() -> None:
    """Turn off transformers' bar per file, which small models do not need; errors and warnings stay."""
    from transformers.utils import logging

    logging.disable_progress_bar()
