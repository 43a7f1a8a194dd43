"""Checkpoints converted to CTranslate2's format, once for each content, and checked against the original."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from escultor.errors import ConfigError, ModelError, StoreError
from escultor.ids import hash_value
from escultor.model.generate import generate
from escultor.model.loaded import Loaded
from escultor.store.blobs import tree_hash
from escultor.types import Message, Role, Sampling

WEIGHTS = "model.bin"  # written last by the converter: a folder that holds it is complete
CHECKED = ("Write a summary of the text.", "{}", "def add(a, b):\n    return a + b", "What is it?\n" * 12)
CHECKED_TOKENS = 32


def convert(folder: Path, copies: Path) -> Path:
    """The converted copy of the model in `folder`, in a folder of `copies` named by content and converter.

    Written atomically where there is none yet. Raises ConfigError where CTranslate2 is not installed,
    ModelError for a model that it cannot convert, StoreError where the copy cannot be written.
    """
    try:
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise ConfigError(
            "serve.engine=ctranslate2 needs the library", remedy="pip install 'escultor[fast]'"
        ) from error
    target = copies / hash_value(["ctranslate2", version("ctranslate2"), tree_hash(folder)])
    if (target / WEIGHTS).is_file():
        return target
    copies.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=copies))
    remedy = "set serve.engine=transformers"
    try:
        TransformersConverter(str(folder), low_cpu_mem_usage=True).convert(str(draft), force=True)
        shutil.rmtree(target, ignore_errors=True)  # left by a process that died while moving it
        draft.rename(target)
    except OSError as error:
        if not (target / WEIGHTS).is_file():  # unless another process was faster
            what = f"the converted model could not be written to {target}"
            raise StoreError(what, error, remedy=f"free disk space, or {remedy}") from error
    except Exception as error:  # the converter fails in many ways on architectures it does not know
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(" (supported")[0]
        raise ModelError("the model cannot be converted", first, "a Llama-like model", remedy) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def refuse_unless_equal(loaded: Loaded, generator: Any) -> None:
    """Compare greedy answers of both models token by token. Raises ModelError where they differ."""
    prompts = [loaded.chat.prompt((Message(Role.USER, text),)) for text in CHECKED]
    ours = generate(loaded, prompts, Sampling(max_new_tokens=CHECKED_TOKENS))
    for text, prompt, answer in zip(CHECKED, prompts, ours, strict=True):
        arguments = greedy_arguments(loaded, prompt, CHECKED_TOKENS, [loaded.chat.turn_end[-1]])
        (result,) = generator.generate_batch(**arguments)
        expected, converted = list(answer.tokens), list(result.sequences_ids[0])
        if expected != converted:
            pairs = enumerate(zip(expected, converted, strict=False))
            index = next((i for i, (a, b) in pairs if a != b), len(converted))
            raise ModelError(
                "the converted model does not say what the checkpoint says",
                f"after {text[:20]!r} they differ at token {index}",
                "equal greedy answers",
                "set serve.engine=transformers",
            )


def greedy_arguments(
    loaded: Loaded, prompt: Sequence[int], room: int, stops: Sequence[int]
) -> dict[str, Any]:
    """Keyword arguments of `Generator.generate_batch` for one greedy answer of at most `room` tokens."""
    return {
        "start_tokens": [loaded.tokenizer.convert_ids_to_tokens(list(prompt))],
        "max_length": room,
        "sampling_topk": 1,
        "include_prompt_in_result": False,
        "end_token": list(stops),
        "return_end_token": True,
    }
