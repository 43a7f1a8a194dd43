"""Models in and out: what others made into the store, and what the store holds for llama.cpp, Ollama and
vLLM."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escultor.cycle.checkpoints import keep_model
from escultor.errors import InputError, ModelError
from escultor.model.folders import ADAPTER_CONFIG, BASE, base_hash, is_adapter, replace_folder, save
from escultor.model.gguf.llama_server import has_llama_cpp, llama_server
from escultor.model.gguf.quantise import check_quant
from escultor.model.gguf.reader import Precision, import_gguf_file
from escultor.model.sources import ModelSource, find_source
from escultor.store import Store
from escultor.store.blobs import tree_hash
from escultor.store.files import temporary_path
from escultor.types import Checkpoint

if TYPE_CHECKING:
    from escultor.model.loaded import Loaded

VLLM_RANK = 16  # the highest rank that vLLM serves unless it is told a power of 2 above
CHECKED_TEXTS = (  # whose tokens are compared after an export
    "The quick brown fox jumps over the lazy dog.",
    "  two blanks\tand a tab\n\nand lines\r\n",
    "I'll say it's 12,345.67 or 1234567890, don't we?",
    "<|im_end|> </s> <s> [INST] <unk>",
    "été naïve ÜBER 你好，世界 こんにちは 안녕 مرحبا हिन्दी 🙂👨‍👩‍👧",
    "def f(x):\n    return x // 2  # http://a.b/c?d=e",
)


# --- in ----------------------------------------------------------------------------------------


def import_model(
    store: Store, name: str, precision: Precision = "exact", as_name: str | None = None
) -> tuple[Checkpoint, dict[str, Any]]:
    """Keep the model of a name (see `find_source`) in the store; returns its checkpoint and what was found.
    The same model imported again is the same checkpoint.

    precision: of the weights of a GGUF file, see `import_gguf_file`. Raises ModelError for what is no
    usable model, StoreError when it cannot be written.
    """
    source = find_source(name)
    found = {"source": source.path, "kind": source.kind}
    with temporary_path(store.blobs.root / "partial") as draft:
        if source.kind == "gguf":
            found |= asdict(import_gguf_file(source.path, draft, precision))
        elif source.kind == "adapter" and base_hash(source.path) is None:
            _name_base(source, draft)
        else:
            draft = source.path
        return keep_model(store, draft, as_name or source.name), found


def _name_base(source: ModelSource, folder: Path) -> None:
    """Copy an adapter that others made to `folder`, with its base named by hash as our own adapters have
    it."""
    config = json.loads((source.path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    found = find_source(str(base or "(no base is named)"), may_download=False)
    if found.kind != "folder":
        what = f"the base of the adapter in {source.path} is no folder of transformers"
        remedy = "import the base, and name its folder in the adapter's adapter_config.json"
        raise ModelError(what, base, "a model folder", remedy)
    folder.mkdir()
    for file in sorted(source.path.glob("*.safetensors")):
        shutil.copyfile(file, folder / file.name)
    config["base_model_name_or_path"] = str(found.path.absolute())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / BASE).write_text(json.dumps({"tree_hash": tree_hash(found.path)}) + "\n", encoding="utf-8")


# --- out ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelExport:
    """What to write: the model's folder, the folder to write to, the name of the model, how to quantise
    it (a GGUF alone; None: q8_0)."""

    source: Path
    folder: Path
    name: str
    quant: str | None = None


def export_model(order: ModelExport, kind: str) -> dict[str, Any]:
    """Write a model in one of `EXPORTS`, whole or not at all; returns the files and how to serve them.

    Raises InputError for another kind and for a folder that is not empty, ModelError and ConfigError for a
    model or a quantisation that the format or this installation cannot write, LocationError when the disk
    is full.
    """
    if kind not in EXPORTS:
        raise InputError("there is no such format", kind, ", ".join(EXPORTS))
    if order.folder.exists() and (not order.folder.is_dir() or any(order.folder.iterdir())):
        raise InputError(f"{order.folder} already holds something else", allowed="a new or empty folder")
    if kind == "adapter" and not is_adapter(order.source):
        allowed, remedy = "safetensors, gguf, ctranslate2", "name the folder of the adapter, as RUN/adapter"
        raise InputError(f"{order.source} is a whole model", "no adapter", allowed, remedy)
    if kind == "gguf":
        order = replace(order, quant=order.quant or "q8_0")
        check_quant(str(order.quant))
    elif order.quant:
        raise InputError("only a GGUF file takes a quantisation", f"{order.quant} for {kind}")
    return {"format": kind, "folder": order.folder} | EXPORTS[kind](order)


def _load(folder: Path) -> Loaded:
    from escultor.model.load import load

    return load(str(folder))


def _safetensors(order: ModelExport) -> dict[str, Any]:
    save(_load(order.source), order.folder)
    return {"serve": [f"vllm serve {order.folder} --served-model-name {order.name}"]}


def _adapter(order: ModelExport) -> dict[str, Any]:
    config = json.loads((order.source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base, rank = config["base_model_name_or_path"], config.get("r") or 0
    with replace_folder(order.folder) as draft:
        shutil.copytree(order.source, draft)
    rest = f"--enable-lora --lora-modules {order.name}={order.folder}"
    if rank > VLLM_RANK:
        rest += f" --max-lora-rank {1 << (rank - 1).bit_length()}"
    return {"base": base, "serve": [f"vllm serve {base} {rest}"]}


def _ctranslate2(order: ModelExport) -> dict[str, Any]:
    from escultor.serve.engines.ctranslate2_engine import convert

    with temporary_path(order.folder.parent / f".{order.folder.name}.parts") as parts:
        whole = order.source
        if is_adapter(whole):
            whole = parts / "whole"
            save(_load(order.source), whole)
        copy = convert(whole, parts / "copies", "int8")
        with replace_folder(order.folder) as draft:
            shutil.copytree(copy, draft)
    parts.parent.rmdir()
    return {"quant": "int8", "serve": [f'ctranslate2.Generator("{order.folder}", compute_type="int8")']}


def _gguf(order: ModelExport) -> dict[str, Any]:
    from escultor.model.gguf.modelfile import modelfile
    from escultor.model.gguf.writer import export_gguf_file

    loaded = _load(order.source)
    stops, file = answer_stops(loaded), f"{order.name}-{order.quant}.gguf"
    with replace_folder(order.folder) as draft:
        draft.mkdir()
        made = export_gguf_file(loaded, draft / file, str(order.quant), order.name, stops)
        checked = check_tokens(loaded, draft / file) if has_llama_cpp() else 0
        text, note = modelfile(loaded.tokenizer, file, stops)
        (draft / "Modelfile").write_text(text, encoding="utf-8")
        serve = [
            f"ollama create {order.name} -f {order.folder}/Modelfile",
            f"llama-server -m {order.folder}/{file} --jinja",
            f"escultor evaluate {order.folder}/{file} --suite SUITE",
        ]
        notes = [*made.notes, *filter(None, [note])]
        (draft / "README.md").write_text(_readme(order, serve, notes), encoding="utf-8")
    found = {"file": order.folder / file, "quant": order.quant, "types": made.types, "notes": notes}
    return found | {"tokens_checked": checked, "serve": serve}


def _readme(order: ModelExport, serve: list[str], notes: list[str]) -> str:
    lines = [f"# {order.name} ({order.quant})", "", *(f"    {command}" for command in serve), ""]
    return "\n".join([*lines, *(f"* {note}" for note in notes)]).rstrip() + "\n"


EXPORTS: dict[str, Callable[[ModelExport], dict[str, Any]]] = {
    "safetensors": _safetensors,
    "adapter": _adapter,
    "gguf": _gguf,
    "ctranslate2": _ctranslate2,
}


def answer_stops(loaded: Loaded) -> tuple[int, ...]:
    """The ids that end an answer, that of the turn first: the template's, the tokenizer's and those of
    generation_config.json."""
    named = getattr(loaded.model.generation_config, "eos_token_id", None)
    listed = named if isinstance(named, list) else [] if named is None else [named]
    known = [loaded.chat.turn_end[-1], loaded.tokenizer.eos_token_id, *listed]
    return tuple(dict.fromkeys(int(id) for id in known if id is not None))


def _within_conversation(loaded: Loaded, text: str) -> list[int]:
    """The ids of a text after a control token, as the contents of conversations are."""
    tokenizer = loaded.tokenizer
    if tokenizer.chat_template is None or tokenizer.bos_token is None:
        return []
    return tokenizer.encode(f"{tokenizer.bos_token}{text}", add_special_tokens=False)[1:]


def check_tokens(loaded: Loaded, file: Path) -> int:
    """Compare the tokens that llama.cpp and the tokenizer give to texts; returns the number of texts.

    Raises ModelError with the first text that has other tokens: the exported model would read something
    else.
    """
    with llama_server(file, 512) as server:
        theirs = server.tokenize(CHECKED_TEXTS)
    for text, ids in zip(CHECKED_TEXTS, theirs, strict=True):
        ours = loaded.tokenizer.encode(text, add_special_tokens=False)
        if ids not in (ours, loaded.chat.text(text), _within_conversation(loaded, text)):
            what = "llama.cpp reads a text as other tokens than this model's tokenizer"
            raise ModelError(what, f"{text!r}: {ids[:40]}", ours[:40], "serve the model as safetensors")
    return len(CHECKED_TEXTS)
