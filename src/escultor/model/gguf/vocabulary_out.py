"""A tokenizer as the vocabulary of a GGUF file, such that llama.cpp gives a text the same tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from escultor.errors import ModelError
from escultor.model.gguf import pre_tokenizers
from escultor.model.gguf.vocabulary import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED
from escultor.text.tokenizer import tokenizer_json

_MADE_BY_NO_MERGE = -1e6
_SERVE = "serve the model as safetensors, with vLLM or `escultor serve`"
_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def vocabulary_metadata(tokenizer: Any, rows: int, stops: Iterable[int]) -> tuple[dict[str, Any], list[str]]:
    """The keys `tokenizer.…` of a file, and what llama.cpp will do otherwise, in words.

    rows: of the embedding; those without a token become unused ones. stops: ids that end an answer, the end
    of the turn first. Raises ModelError for a tokenizer that llama.cpp cannot reproduce.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "only tokenizers with a tokenizer.json can be written as GGUF", type(tokenizer).__name__
        )
    parts = json.loads(tokenizer_json(backend))
    if parts["model"]["type"] != "BPE":
        raise ModelError("only BPE tokenizers can be written as GGUF", parts["model"]["type"], "BPE", _SERVE)
    kind, notes = (_sentencepiece, []) if parts["model"].get("byte_fallback") else (_byte_level, [])
    tokens, types = _tokens(tokenizer, rows)
    found, extra = kind(parts, tokenizer, tokens)
    notes += extra
    begins, ends = _around(tokenizer)
    keys: dict[str, Any] = {**found, "tokens": tokens, "token_type": types}
    keys |= {"add_bos_token": begins, "add_eos_token": ends}
    for name, key in _NAMES.items():
        if (id := getattr(tokenizer, f"{name}_token_id")) is not None:
            keys[f"{key}_token_id"] = id
    others = [id for id in dict.fromkeys(stops) if id != tokenizer.eos_token_id]
    keys |= dict(zip(("eot_token_id", "eom_token_id"), others, strict=False))
    metadata = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    if tokenizer.chat_template is not None:
        if not isinstance(tokenizer.chat_template, str):
            raise ModelError("the tokenizer has several chat templates", list(tokenizer.chat_template), "one")
        metadata["tokenizer.chat_template"] = tokenizer.chat_template
    return metadata, notes


def _tokens(tokenizer: Any, rows: int) -> tuple[list[str], list[int]]:
    """The text and type of every row."""
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for id, token in enumerate(tokenizer.convert_ids_to_tokens(range(rows)) if rows else ()):
        known = added.get(id)
        tokens.append(f"[PAD{id}]" if token is None else known.content if known else token)
        if token is None:
            types.append(UNUSED)
        elif id == tokenizer.unk_token_id and known is not None and not known.special:
            types.append(UNKNOWN)
        elif known is not None:
            types.append(CONTROL if known.special else USER_DEFINED)
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            types.append(BYTE)
        else:
            types.append(NORMAL)
    return tokens, types


def _around(tokenizer: Any) -> tuple[bool, bool]:
    """Whether the tokenizer writes its BOS before, and its EOS after, every text."""
    ids = tokenizer.encode("a", add_special_tokens=True)
    return ids[0] == tokenizer.bos_token_id, ids[-1] == tokenizer.eos_token_id


def _byte_level(parts: dict[str, Any], tokenizer: Any, tokens: list[str]) -> tuple[dict[str, Any], list[str]]:
    notes = []
    if normalizer := parts["normalizer"]:
        if normalizer["type"] != "NFC":
            raise ModelError(
                "llama.cpp does not normalise text as this tokenizer does", normalizer, "NFC", _SERVE
            )
        notes.append("llama.cpp does not compose characters (NFC): decomposed text has other tokens there")
    if not parts["pre_tokenizer"]:
        raise ModelError("the tokenizer does not split words", None, "a byte-level pre-tokenizer", _SERVE)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in parts["model"]["merges"]]
    return {"model": "gpt2", "pre": pre_tokenizers.name_of(parts), "merges": merges}, notes


def _sentencepiece(
    parts: dict[str, Any], tokenizer: Any, tokens: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Merges become scores: the earlier a token is merged, the higher."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(parts["model"]["merges"]):
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(first + second, rank)
    scores = [-float(ranks[t]) if t in ranks else 0.0 if len(t) == 1 else _MADE_BY_NO_MERGE for t in tokens]
    first = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False))[0]
    text = json.dumps([parts["normalizer"], parts["pre_tokenizer"]])
    notes, bos = [], tokenizer.bos_token
    if '"prepend_scheme": "first"' in text:  # llama.cpp does it after every control token, or never
        if tokenizer.chat_template is not None and bos is not None:
            ids = tokenizer.encode(f"{bos}a", add_special_tokens=False)
            first = tokenizer.convert_ids_to_tokens(ids)[-1]
            notes.append("llama.cpp puts no blank before a text outside of conversations")
        else:
            notes.append("llama.cpp puts a blank before the text after every control token")
    found = {
        "model": "llama",
        "pre": "default",
        "scores": scores,
        "add_space_prefix": first.startswith(SPACE),
    }
    return found, notes
