"""How fast answers are given: many at once by our decoding, one at a time by transformers' `generate`.

Two comparisons on a fresh model of the demonstration's student shape, whose answers end at their limit alone:
`streams` clients at a time for `seconds`, each asking again when its streamed answer is whole (tokens of the
answers that ended after the first second; and when first pieces came); and a batch of `items` prompts with
answers of 8 to 128 tokens. The other side answers the same prompts one by one; both sides take turns within
the run, and each is given by its best turn. With `--fast` the engine on CTranslate2 runs beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import report

from escultor.config import Pretrain, Serve
from escultor.model.folders import save
from escultor.model.generate import generate
from escultor.model.load import init_llama, load
from escultor.model.loaded import Loaded
from escultor.rng import stream
from escultor.serve.engine_loading import open_engine
from escultor.serve.protocol import End, Engine, GenerationRequest
from escultor.stats import quantile
from escultor.types import Sampling

STUDENT = Pretrain(
    vocabulary=4096, hidden_size=192, layers=3, heads=3, kv_heads=1, intermediate_size=128, context=1024
)
PROMPT_TOKENS = (40, 160)
ANSWER_TOKENS = (8, 128)
WARM_S = 1.0
Asked = Sequence[tuple[list[int], int]]


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student" if given.model is None else Path(given.model)
        loaded = _apart(lambda: load(str(path)) if given.model else _student(path))
        asked = _asked(loaded, given.items)
        _apart(lambda: _one_by_one(loaded, asked[:2]))  # the first calls prepare kernels
        figures: dict[str, Any] = {"streams": asyncio.run(_streams(loaded, path, asked, given, Path(folder)))}
        figures["batch"] = _batch(loaded, asked, given)
    report("engine", given, figures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a model folder (default: a fresh student)")
    parser.add_argument("--streams", type=int, default=32, help="clients at a time")
    parser.add_argument("--seconds", type=float, default=5.0, help="of streams in a turn")
    parser.add_argument("--items", type=int, default=1000, help="prompts of the batch")
    parser.add_argument("--one-by-one", type=int, default=40, help="of them answered one at a time in a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fast", action="store_true", help="the engine on CTranslate2 as well")
    return parser.parse_args()


def _student(folder: Path) -> Loaded:
    torch.manual_seed(0)
    tokenizer = load("escultor-base").tokenizer
    save(Loaded(init_llama(STUDENT, tokenizer), tokenizer), folder)
    return load(str(folder))


def _asked(loaded: Loaded, count: int) -> Asked:
    """Prompts of random tokens and the length of their answers, always the same."""
    random = stream(0, "bench", "engine")

    def prompt() -> list[int]:
        return [random.randrange(10, len(loaded.tokenizer)) for _ in range(random.randint(*PROMPT_TOKENS))]

    return [(prompt(), random.randint(*ANSWER_TOKENS)) for _ in range(count)]


def _one_by_one(loaded: Loaded, asked: Asked) -> float:
    """Tokens a second of transformers' own loop, a prompt at a time."""
    model: Any = loaded.model
    stop = loaded.chat.turn_end[-1]
    began, tokens = time.perf_counter(), 0
    for prompt, room in asked:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=room,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=stop,
        )
        tokens += out.shape[1] - len(prompt)
    return tokens / (time.perf_counter() - began)


def _ours(loaded: Loaded, asked: Asked) -> float:
    began = time.perf_counter()
    answers = generate(
        loaded, [p for p, _ in asked], [Sampling(max_new_tokens=room) for _, room in asked], 64
    )
    return sum(len(a.tokens) for a in answers) / (time.perf_counter() - began)


def _batch(loaded: Loaded, asked: Asked, given: argparse.Namespace) -> dict[str, float]:
    ours, theirs = _in_turns(
        given.rounds,
        lambda: _apart(lambda: _ours(loaded, asked)),
        lambda: _apart(lambda: _one_by_one(loaded, asked[: given.one_by_one])),
    )
    print(f"batch of {len(asked)}: {ours:8.0f} tokens/s, one at a time {theirs:8.0f}", flush=True)
    return {"tokens_per_s": ours, "one_by_one_tokens_per_s": theirs, "times": ours / theirs}


def _in_turns(rounds: int, *sides: Callable[[], float]) -> list[float]:
    """The best of each side's turns."""
    turns = [[side() for side in sides] for _ in range(rounds)]
    return [max(turn[i] for turn in turns) for i in range(len(sides))]


async def _streams(
    loaded: Loaded, path: Path, asked: Asked, given: argparse.Namespace, copies: Path
) -> dict[str, Any]:
    kinds = ("transformers", *(["ctranslate2"] if given.fast else []))

    def settings(kind: str) -> Serve:
        return Serve.model_validate({"engine": kind, "batch_size": given.streams})

    engines = {
        kind: _apart(partial(open_engine, loaded, path, "bench", settings(kind), copies)) for kind in kinds
    }
    figures: dict[str, Any] = {kind: {"tokens_per_s": 0.0} for kind in kinds}
    alone = 0.0
    for _ in range(given.rounds):
        for kind, engine in engines.items():
            turn = await _clients(engine, asked, given.streams, given.seconds)
            figures[kind] = max(figures[kind], turn, key=lambda each: each["tokens_per_s"])
        alone = max(alone, _apart(lambda: _one_by_one(loaded, asked[: given.one_by_one])))
    for engine in engines.values():
        await engine.close()
    for kind, figure in figures.items():
        figure["times"] = figure["tokens_per_s"] / alone
        print(f"{given.streams} streams, {kind}: {figure} against {alone:.0f} one at a time", flush=True)
    return figures | {"one_by_one_tokens_per_s": alone}


async def _clients(engine: Engine, asked: Asked, clients: int, seconds: float) -> dict[str, float]:
    waits: list[float] = []
    following, tokens = itertools.cycle(asked), 0
    start = time.perf_counter() + WARM_S
    end = start + seconds

    async def client() -> None:
        nonlocal tokens
        while (began := time.perf_counter()) < end:
            (prompt, room), first = next(following), None
            async for event in engine.stream(GenerationRequest(tuple(prompt), Sampling(max_new_tokens=room))):
                first = first or time.perf_counter() - began
                if isinstance(event, End) and start <= time.perf_counter() < end:
                    tokens += event.usage.completion_tokens
                    waits.append(1000 * first)

    await asyncio.gather(*(client() for _ in range(clients)))
    return {
        "tokens_per_s": tokens / seconds,
        "ttft_p50_ms": quantile(waits, 0.5).value,
        "ttft_p99_ms": quantile(waits, 0.99).value,
    }


def _apart(work: Callable[[], Any]) -> Any:
    """In a thread that ends, as the gateway opens models: a thread keeps its team of threads, and with more
    teams than cores all sleep between products."""
    with ThreadPoolExecutor(1) as own:
        return own.submit(work).result()


if __name__ == "__main__":
    main()
