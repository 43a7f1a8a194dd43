"""Model folders: how they are found by name, what they must hold, and how they are written whole."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from escultor.errors import EscultorError, LocationError, ModelError
from escultor.model.folder_checks import check_folder
from escultor.model.loaded import Loaded
from escultor.model.messages import plain_messages
from escultor.store.blobs import sibling_tree, tree_hash
from escultor.text.chat import ChatTemplate
from escultor.types import Message, Role

BUILT_IN = "escultor-base"
BUILT_IN_PATH = Path(__file__).parents[1] / "assets" / BUILT_IN
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"  # of a folder that holds an adapter; see `adapters`
CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER = "tokenizer_config.json"
BASE = "base.json"  # next to an adapter's weights: the content hash of its base's folder


def resolve(name: str) -> Path:
    """The folder of a model's name: the built-in one's, or the path itself, which may hold an adapter. Raises
    ModelError where the folder holds no model, saying what is missing."""
    path = BUILT_IN_PATH if name == BUILT_IN else Path(name)
    remedy = f"give a folder with config.json and *.safetensors, or `{BUILT_IN}`"
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing is there"
        if path.suffix == ".gguf" and path.exists():
            remedy = f"import it: escultor models import {name}"
        raise ModelError(f"`{name}` is no model folder", got, remedy=remedy)
    if not (path / "config.json").is_file() and not is_adapter(path):
        raise ModelError(f"`{name}` is no model folder", "no config.json", remedy=remedy)
    if not list(path.glob("*.safetensors")):
        if list(path.glob("*.bin")) or list(path.glob("*.pt")):
            what = f"`{name}` holds pickled weights, which can run code"
            raise ModelError(what, remedy="convert it to safetensors")
        raise ModelError(f"`{name}` is no model folder", "no *.safetensors", remedy=remedy)
    check_folder(path)
    if is_adapter(path) and not (path / ADAPTER_WEIGHTS).is_file():
        what = f"the adapter in {path} has no safetensors"
        raise ModelError(what, f"no {ADAPTER_WEIGHTS}", remedy="convert it to safetensors")
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


def stored_dtype(folder: Path) -> str:
    """The dtype (float32, bfloat16, float16) of most numbers in a folder's weights, by their headers: what
    config.json says is not always what is stored. Float32 for any other dtype."""
    from safetensors import safe_open

    sizes: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  it is no mapping
                part = file.get_slice(name)
                sizes[part.get_dtype()] += prod(part.get_shape())
    most = max(sizes, key=lambda kind: sizes[kind], default="F32")
    return {"BF16": "bfloat16", "F16": "float16"}.get(most, "float32")


def save(loaded: Loaded, folder: Path, dtype: Any = None, *, ends_turns: bool = False) -> None:
    """Write weights and tokenizer, whole or not at all. `dtype`: of the weights on disk, a name or torch's
    own (None: that in which they were stored); weights that the model needs in float32 stay so. With
    `ends_turns`, the token that ends the template's turns is named as an end of sequence where servers look
    for it, so that they stop there. Raises LocationError when the disk refuses."""
    wanted = str(dtype or loaded.dtype).removeprefix("torch.")
    model: Any = loaded.model
    with replace_folder(folder) as temporary:
        with _blank_generation_config(model) as own:
            model.save_pretrained(temporary, state_dict=_converted(model, wanted))
        if own is not None:
            own.to_json_file(temporary / GENERATION)
        loaded.tokenizer.save_pretrained(temporary)
        _edit(temporary / TOKENIZER, _forget_how_it_was_loaded)
        _edit(temporary / CONFIG, lambda config: _name_dtype(config, wanted))
        if ends_turns:
            _name_ends(temporary, loaded)


def _converted(model: Any, dtype: str) -> dict[str, Any]:
    """The state of a model with its floating-point weights in `dtype`, tied weights once."""
    import torch

    kept = (*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ()))
    converted: dict[Any, Any] = {}
    state = model.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and not any(part in name for part in kept):
            key = (value.data_ptr(), value.shape)
            state[name] = converted.setdefault(key, value.to(getattr(torch, dtype)))
    return state


@contextmanager
def _blank_generation_config(model: Any) -> Iterator[Any]:
    """Within it the model has a blank generation config; gives its own, which transformers would refuse to
    write where published ones contradict themselves."""
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    if own is None:
        yield None
        return
    model.generation_config = GenerationConfig()
    try:
        yield own
    finally:
        model.generation_config = own


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file in place; one that is missing begins empty."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    change(content)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _forget_how_it_was_loaded(config: dict[str, Any]) -> None:
    for key in ("local_files_only", "is_local"):
        config.pop(key, None)


def _name_dtype(config: dict[str, Any], dtype: str) -> None:
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in ("dtype", "torch_dtype"):
            if key in part:
                part[key] = dtype


def _name_ends(folder: Path, loaded: Loaded) -> None:
    """Name the token that ends a turn as the first end of sequence: in generation_config.json before all
    other stops, in config.json, and in the tokenizer's where its template renders the same with it."""
    end = loaded.chat.turn_end[-1]
    others = sorted(loaded.stops - {end})

    def name_end(config: dict[str, Any]) -> None:
        for part in (config, config.get("text_config")):
            if isinstance(part, dict) and (part is config or "eos_token_id" in part):
                listed = isinstance(part.get("eos_token_id"), list)
                part["eos_token_id"] = [end, *others] if listed else end

    _edit(folder / CONFIG, name_end)
    _edit(folder / GENERATION, lambda config: config.update(eos_token_id=[end, *others] if others else end))
    token = loaded.tokenizer.convert_ids_to_tokens(end)
    if loaded.chat.eos != end and end in loaded.chat.control and _renders_alike(loaded, str(token)):
        _edit(folder / TOKENIZER, lambda config: config.update(eos_token=token))


def _renders_alike(loaded: Loaded, eos: str) -> bool:
    """Whether the template gives the same ids with another EOS token."""
    changed: Any = copy.deepcopy(loaded.tokenizer)
    changed.eos_token = eos
    talk = (Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"), Message(Role.USER, "c"))
    one, other = ((chat.prompt(talk), chat.turn_end) for chat in (loaded.chat, ChatTemplate(changed)))
    return one == other


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` when the block ends without an error. Raises LocationError
    when the disk refuses; nothing half-written is left."""
    plain_messages()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except EscultorError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except Exception as error:  # safetensors raises its own kinds when a disk is full
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, EscultorError):
            raise
        what = f"the model could not be written to {folder}"
        raise LocationError(what, error, remedy="free disk space") from error
