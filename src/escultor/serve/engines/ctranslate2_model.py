"""A checkpoint converted for CTranslate2, once for its content, and proven to say the same."""

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

DONE = "model.bin"  # what a conversion holds when it is whole
CHECKED = ("Write a summary of the text.", "{}", "def add(a, b):\n    return a + b", "What is it?\n" * 12)
CHECKED_TOKENS = 32


def converted(folder: Path, beside: Path) -> Path:
    """The converted copy of the model in `folder`: under `beside`, named by its content and the converter.

    Made where there is none yet, whole or not at all. Raises ConfigError where CTranslate2 is not installed,
    ModelError for a model that it cannot convert, StoreError where the copy cannot be written.
    """
    try:
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise ConfigError(
            "serve.engine=ctranslate2 needs the library", remedy="pip install 'escultor[fast]'"
        ) from error
    name = hash_value(["ctranslate2", version("ctranslate2"), tree_hash(folder)])
    target = beside / name
    if (target / DONE).is_file():
        return target
    beside.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=beside))
    try:
        TransformersConverter(str(folder), low_cpu_mem_usage=True).convert(str(draft), force=True)
        shutil.rmtree(target, ignore_errors=True)  # of one who died while it was moved
        draft.rename(target)
    except OSError as error:
        if not (target / DONE).is_file():  # another process may have been faster
            remedy = "free disk space, or set serve.engine=transformers"
            raise StoreError(
                f"the converted model could not be written to {target}", error, remedy=remedy
            ) from error
    except Exception as error:  # whatever a converter of many architectures stumbles over
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(" (supported")[0]
        remedy = "set serve.engine=transformers"
        raise ModelError("the model cannot be converted", first, "a Llama-like model", remedy) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def refuse_unless_equal(loaded: Loaded, generator: Any) -> None:
    """Compare greedy answers of both to some prompts, token by token. Raises ModelError where they differ."""
    chat = loaded.chat
    prompts = [chat.prompt((Message(Role.USER, text),)) for text in CHECKED]
    stop = chat.turn_end[-1]
    theirs = [_tokens(loaded, generator, prompt, stop) for prompt in prompts]
    ours = [list(a.tokens) for a in generate(loaded, prompts, Sampling(max_new_tokens=CHECKED_TOKENS))]
    for text, one, other in zip(CHECKED, ours, theirs, strict=True):
        if one != other:
            at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
            raise ModelError(
                "the converted model does not say what the checkpoint says",
                f"after {text[:20]!r} they part at token {at}",
                "equal greedy answers",
                "set serve.engine=transformers",
            )


def greedy(loaded: Loaded, prompt: Sequence[int], room: int, stops: Sequence[int]) -> dict[str, Any]:
    """What `Generator.generate_batch` takes for one greedy answer."""
    return {
        "start_tokens": [loaded.tokenizer.convert_ids_to_tokens(list(prompt))],
        "max_length": room,
        "sampling_topk": 1,
        "include_prompt_in_result": False,
        "end_token": list(stops),
        "return_end_token": True,
    }


def _tokens(loaded: Loaded, generator: Any, prompt: Sequence[int], stop: int) -> list[int]:
    (found,) = generator.generate_batch(**greedy(loaded, prompt, CHECKED_TOKENS, [stop]))
    return list(found.sequences_ids[0])
