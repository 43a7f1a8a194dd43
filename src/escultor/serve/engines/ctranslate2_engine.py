"""The fast CPU engine: greedy answers by CTranslate2, all others by the transformers engine.

CTranslate2 draws from one random generator for all answers and supports neither our guided decoding nor
prompt scores; such requests go to a transformers engine of the same weights. Each greedy answer is computed
by one thread from beginning to end, so that it never depends on another.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from escultor.config import Serve
from escultor.errors import ConfigError, EngineDown, EngineFault, ModelError, StoreError
from escultor.ids import hash_value
from escultor.model.decoding import DecodedToken
from escultor.model.generate import generate
from escultor.model.loaded import Loaded
from escultor.serve.engines.generation_state import Job, QueueingEngine, check_queue
from escultor.serve.engines.transformers_engine import TransformersEngine
from escultor.serve.protocol import EngineEvent, GenerationRequest
from escultor.store.blobs import tree_hash
from escultor.types import Message, Role, Sampling

WEIGHTS = "model.bin"  # written last by the converter: a folder that holds it is complete
CHECKED = ("Write a summary of the text.", "{}", "def add(a, b):\n    return a + b", "What is it?\n" * 12)
CHECKED_TOKENS = 32


class CTranslate2Engine(QueueingEngine):
    """Greedy answers on one thread per core; an Engine. Converted models lie in the folder `copies`. Raises
    ModelError for a model that cannot be converted, or whose copy answers differently."""

    def __init__(self, loaded: Loaded, folder: Path, version: str, settings: Serve, copies: Path):
        copy = convert(folder, copies)
        from ctranslate2 import Generator

        self._threads = os.cpu_count() or 1
        make: Any = Generator
        self._generator = make(
            str(copy), compute_type="float32", inter_threads=self._threads, intra_threads=1
        )
        refuse_unless_equal(loaded, self._generator)
        self._loaded, self._settings = loaded, settings
        self._fallback = TransformersEngine(loaded, version, settings)
        super().__init__(self._fallback.detokenizer, settings.prepare_timeout_s)
        self.version = version
        self._pool = ThreadPoolExecutor(self._threads, "escultor-ctranslate2")
        self._jobs: set[Job] = set()
        self._closed = False

    @property
    def problem(self) -> str | None:
        return self._fallback.problem

    def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        return self.generate(request, None) if self._supports(request) else self._fallback.stream(request)

    def check_capacity(self) -> None:
        if self._closed:
            raise EngineDown("the engine is closed", self.version)
        check_queue(len(self._jobs) + self.preparing, self._threads, self._settings.queue, "serve.queue")

    def submit(self, job: Job) -> None:
        self._jobs.add(job)
        self._pool.submit(self._decode, job)

    def release(self, job: Job) -> None:
        self._jobs.discard(job)

    def _supports(self, request: GenerationRequest) -> bool:
        if request.schema is not None or request.top_logprobs is not None or request.echo:
            return False
        if request.prompt and isinstance(request.prompt[0], int):
            size = len(self._loaded.tokenizer)
            if not all(0 <= int(id) < size for id in request.prompt):  # type: ignore[arg-type]
                return False
        return request.sampling.temperature == 0 and request.sampling.max_new_tokens > 0

    def _decode(self, job: Job) -> None:
        """In a thread of the pool: compute one answer and send its events token by token."""
        if job.cancelled:
            return
        state, row = job.state, job.state.row
        sharing = min(self._threads, max(1, len(self._jobs)))  # answers that share the machine's seconds
        began = time.perf_counter()

        def on_token(step: Any) -> bool:  # whether to stop
            if not job.cancelled and not state.is_finished:
                row.count += 1
                if step.token_id in row.stops:
                    row.finish = "stop"
                elif row.count >= row.max_tokens:
                    row.finish = "length"
                row.compute_s = (time.perf_counter() - began) / sharing
                _send(job, *state.add(DecodedToken(step.token_id)))
            return job.cancelled or state.is_finished

        try:
            arguments = greedy_arguments(self._loaded, row.prompt, row.max_tokens, sorted(row.stops))
            self._generator.generate_batch(**arguments, callback=on_token)
            if not state.is_finished and not job.cancelled:
                raise EngineFault("an answer ended before its end", f"{row.count} tokens")
        except BaseException as error:  # of any kind: nothing else would tell the waiting client
            _send(job, error if isinstance(error, EngineFault) else EngineFault("an answer failed", error))

    async def close(self) -> None:
        self._closed = True
        for job in list(self._jobs):
            job.cancelled = True
            _send(job, EngineDown("the engine is closed", self.version))
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        self._generator.unload_model()
        await self._fallback.close()


def _send(job: Job, *events: EngineEvent | Exception) -> None:
    try:
        for event in events:
            job.loop.call_soon_threadsafe(job.events.put_nowait, event)
    except RuntimeError:  # the loop is closed: the client is gone
        job.cancelled = True


def convert(folder: Path, copies: Path, quantization: str | None = None) -> Path:
    """The converted copy of the model in `folder`, in a folder of `copies` named by content and converter, in
    float32 unless `quantization` names another of CTranslate2's types.
    Written atomically where there is none yet. Raises ConfigError where CTranslate2 is not installed,
    ModelError for a model that it cannot convert, StoreError where the copy cannot be written."""
    try:
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise ConfigError(
            "serve.engine=ctranslate2 needs the library", remedy="pip install 'escultor[fast]'"
        ) from error
    parts = [
        "ctranslate2",
        installed_version("ctranslate2"),
        tree_hash(folder),
        *filter(None, [quantization]),
    ]
    target = copies / hash_value(parts)
    if (target / WEIGHTS).is_file():
        return target
    copies.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=copies))
    remedy = "set serve.engine=transformers"
    try:
        converter = TransformersConverter(str(folder), low_cpu_mem_usage=True)
        converter.convert(str(draft), quantization=quantization, force=True)
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
        arguments = greedy_arguments(loaded, prompt, CHECKED_TOKENS, sorted(loaded.stops))
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
