"""Where a model lies that is named by a path, by Ollama, by LM Studio or by the hub of Hugging Face."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from escultor.errors import InputError, ModelError
from escultor.model.folders import is_adapter, resolve
from escultor.model.gguf.header import is_gguf

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # one part of a name: never `..`, never a path of its own
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFEST_BYTES = 1 << 20
_WEIGHTS, _ADAPTER = "application/vnd.ollama.image.model", "application/vnd.ollama.image.adapter"
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model")


class ModelSource(NamedTuple):
    """What was found under a name, and the name to give it."""

    kind: Literal["gguf", "folder", "adapter"]
    path: Path
    name: str


def find_source(name: str, may_download: bool = True) -> ModelSource:
    """The model of a name: a GGUF file, a folder (of transformers, of a LoRA adapter, or with one GGUF
    file), a model of Ollama (`NAME[:TAG]`) or of LM Studio (`PUBLISHER/MODEL`) on this machine, or one of
    the hub (`ORGANISATION/MODEL`), which is downloaded where `may_download`: what a file of others names is
    not, unless it is here.

    Raises ModelError where nothing is found, or several files that could be meant; InputError for a URL.
    """
    if "://" in name:
        what = "a model behind a URL cannot be trained: its weights are not here"
        remedy = "serve and evaluate it: escultor serve --upstream URL; or give its weights"
        raise InputError(what, name, "a file, a folder or a name", remedy)
    path = Path(name)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        if is_gguf(path):
            return ModelSource("gguf", path, path.stem)
        what, got = f"{path} is no model that can be imported", "it does not begin as a GGUF file does"
        remedy = "download it again: a pointer of Git LFS or a web page may have been saved in its place"
        raise ModelError(what, got, "a GGUF file, or a folder", remedy)
    parts = name.replace(":", "/").split("/")
    is_plain = all(_NAME.fullmatch(part) for part in parts)
    if is_plain and (found := _ollama(name) or _lm_studio(name) or _hub(name, may_download)):
        return found
    what = f"there is no model `{name}`"
    allowed = "a GGUF file, a model folder, a model of Ollama, LM Studio or the hub"
    raise ModelError(what, "no such file, and no such name in Ollama, LM Studio or the hub", allowed)


def _folder(path: Path) -> ModelSource:
    """A folder of transformers or of an adapter, else its only GGUF file (as LM Studio keeps them)."""
    name = path.absolute().name
    if (path / "config.json").is_file() or is_adapter(path):
        return ModelSource("adapter" if is_adapter(path) else "folder", resolve(str(path)), name)
    files = [file for file in sorted(path.glob("*.gguf")) if not file.name.startswith("mmproj")]
    if len(files) == 1:
        return ModelSource("gguf", files[0], files[0].stem)
    if files:
        names = ", ".join(file.name for file in files[:20])
        raise ModelError(f"{path} holds several GGUF files", names, "one", "name the file")
    return ModelSource("folder", resolve(str(path)), name)  # which says what is missing


def _ollama(name: str) -> ModelSource | None:
    """The weights that Ollama keeps for `NAME[:TAG]`: a GGUF file named by its hash."""
    root = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    stem, _, tag = name.partition(":")
    parts = stem.split("/")
    parts = ["registry.ollama.ai", "library", *parts][-3:] if len(parts) < 3 else parts
    manifest = root.joinpath("manifests", *parts, tag or "latest")
    if not manifest.is_file():
        return None
    try:
        if manifest.stat().st_size > _MANIFEST_BYTES:
            raise ValueError("too large")
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        kinds = {layer["mediaType"]: str(layer["digest"]) for layer in layers}
        digest = kinds[_WEIGHTS]
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"digest {digest[:80]!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"Ollama's record of {name} is damaged ({manifest})"
        raise ModelError(what, f"{type(error).__name__}: {error}", remedy=f"ollama pull {name}") from error
    if _ADAPTER in kinds:
        what = f"the model {name} of Ollama is a base with an adapter, in two files"
        raise ModelError(
            what, remedy="import the base, and train the adapter again, or import a merged model"
        )
    blob = root / "blobs" / digest.replace(":", "-")
    if not is_gguf(blob):
        raise ModelError(
            f"Ollama's weights of {name} are missing or no GGUF", blob, remedy=f"ollama pull {name}"
        )
    return ModelSource("gguf", blob, stem.replace("/", "-"))


def _lm_studio(name: str) -> ModelSource | None:
    for root in (Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"):
        path = root / name
        if path.is_dir():
            return _folder(path)
        if path.is_file() and is_gguf(path):
            return ModelSource("gguf", path, path.stem)
    return None


def _hub(name: str, may_download: bool) -> ModelSource | None:
    """A model of the hub, from its cache on this machine or downloaded; None where there is none."""
    if name.count("/") != 1 or ":" in name or name.endswith(".gguf"):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(name, allow_patterns=list(_HUB_FILES), local_files_only=not may_download)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        what = f"the model {name} could not be had from the hub"
        remedy = "check the name and the network, or give a folder or a GGUF file"
        if not may_download:
            remedy = f"where you trust that name: escultor models import {name}, then try again"
        raise ModelError(what, " ".join(str(error).split())[:200], remedy=remedy) from error
    return _folder(folder)._replace(name=name.rpartition("/")[2])
