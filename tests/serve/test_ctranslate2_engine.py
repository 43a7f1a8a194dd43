"""The CTranslate2 engine answers as the checkpoint does, token by token, or does not serve."""

import asyncio
import threading

import pytest
import torch
from tiny import llama

from escultor.config import Serve
from escultor.errors import EngineFault, ModelError, Overloaded
from escultor.model.folders import save
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.model.loaded import Loaded
from escultor.serve.engine_loading import CONVERTED, EngineSource, engine_loader, open_engine
from escultor.serve.engines import ctranslate2_engine
from escultor.serve.engines.ctranslate2_engine import WEIGHTS, convert
from escultor.serve.engines.transformers_engine import TransformersEngine
from escultor.serve.protocol import Delta, End, GenerationRequest
from escultor.store import open_store
from escultor.types import Message, Role, Sampling

pytest.importorskip("ctranslate2")
SETTINGS = Serve(engine="ctranslate2", batch_size=4)


def lively(seed):
    """A model that does not say the same token for ever."""
    made = llama(seed)
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "layers" in name and weight.ndim > 1:
                weight.mul_(8)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fast") / "model"
    save(lively(2), path)
    return path


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


def ask(n=0, room=24, temperature=0.0, **more):
    prompt = (Message(Role.USER, f"The cat {n} sings"),)
    return GenerationRequest(prompt, Sampling(temperature, 1.0, room, seed=n), **more)


async def collected(engine, asked):
    return [event async for event in engine.stream(asked)]


def run(work, folder, copies, settings=SETTINGS):
    async def inner():
        engine = open_engine(load(str(folder)), folder, "v1", settings, copies)
        try:
            return await asyncio.wait_for(work(engine), 60)
        finally:
            await engine.close()

    return asyncio.run(inner())


def text(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def test_answers_of_all_kinds_are_those_of_generate(folder, copies):
    asked = [ask(n, 3 + 5 * n, (0.0, 1.0)[n % 2], streamed=n % 4 > 1) for n in range(8)]

    async def work(engine):
        return await asyncio.gather(*(collected(engine, one) for one in asked))

    loaded = load(str(folder))
    prompts = [loaded.chat.prompt(one.prompt) for one in asked]
    expected = generate(loaded, prompts, [one.sampling for one in asked])
    for events, answer in zip(run(work, folder, copies), expected, strict=True):
        assert text(events) == answer.text
        end = events[-1]
        assert isinstance(end, End)
        assert end.finish_reason == answer.finish_reason
        assert end.usage.completion_tokens == len(answer.tokens)
        assert end.compute_s > 0


def test_a_stop_text_ends_an_answer(folder, copies):
    async def work(engine):
        return [text(await collected(engine, ask(n))) for n in range(8)]

    texts = run(work, folder, copies)
    n = max(range(8), key=lambda n: len(texts[n]))
    whole = texts[n]
    assert len(whole) > 4
    events = run(lambda engine: collected(engine, ask(n, stop=(whole[2:4],))), folder, copies)
    assert text(events) == whole[: whole.index(whole[2:4])]
    assert events[-1].finish_reason == "stop"


def test_requests_that_ctranslate2_does_not_support_go_to_the_transformers_engine(folder, copies):
    scored = GenerationRequest("The red cat", Sampling(max_new_tokens=2), echo=True, top_logprobs=1)
    kinds = [type(e) for e in run(lambda engine: collected(engine, scored), folder, copies)]
    assert kinds[0].__name__ == "ScoredPrompt"
    guided = run(lambda engine: collected(engine, ask(2, 60, schema={"const": 7})), folder, copies)
    assert text(guided).strip() == "7"


def test_a_model_is_converted_once_for_its_content(folder, tmp_path):
    first = convert(folder, tmp_path)
    stamp = (first / WEIGHTS).stat().st_mtime_ns
    assert convert(folder, tmp_path) == first
    assert (first / WEIGHTS).stat().st_mtime_ns == stamp
    save(llama(9), tmp_path / "other")
    assert convert(tmp_path / "other", tmp_path) != first


def test_an_incomplete_conversion_is_repeated(folder, tmp_path):
    first = convert(folder, tmp_path)
    (first / WEIGHTS).unlink()
    assert (convert(folder, tmp_path) / WEIGHTS).is_file()


def test_a_copy_that_answers_differently_does_not_serve(folder, copies):
    other = lively(11)
    with pytest.raises(ModelError, match="does not say what the checkpoint says"):
        open_engine(Loaded(other.model, other.tokenizer), folder, "v1", SETTINGS, copies)


def test_a_model_that_cannot_be_converted_is_refused(tmp_path, copies):
    from transformers import MambaConfig, MambaForCausalLM

    own = llama()
    small = MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4)
    save(Loaded(MambaForCausalLM(small), own.tokenizer), tmp_path / "mamba")
    with pytest.raises(ModelError, match="cannot be converted"):
        convert(tmp_path / "mamba", copies)


def test_one_that_leaves_frees_its_thread_and_more_than_may_wait_are_refused(folder, copies, monkeypatch):
    monkeypatch.setattr(ctranslate2_engine.os, "cpu_count", lambda: 1)

    async def work(engine):
        held = threading.Event()
        engine._pool.submit(held.wait)  # the one thread there is
        leaving = asyncio.ensure_future(collected(engine, ask(1, 200)))
        waiting = asyncio.ensure_future(collected(engine, ask(2)))
        while len(engine._jobs) < 2:
            await asyncio.sleep(0.001)
        with pytest.raises(Overloaded):
            await collected(engine, ask(3))
        leaving.cancel()
        held.set()
        return await waiting

    settings = Serve(engine="ctranslate2", queue=1)
    assert isinstance(run(work, folder, copies, settings)[-1], End)


def test_closing_ends_what_waits_and_refuses_what_comes(folder, copies):
    async def work(engine):
        slow = [engine.stream(ask(n, 200)) for n in range(6)]
        begun = [asyncio.ensure_future(anext(one)) for one in slow]
        await asyncio.gather(*begun[:1])
        await engine.close()
        await asyncio.gather(*begun, return_exceptions=True)
        with pytest.raises(EngineFault, match="closed"):
            await collected(engine, ask(9))

    run(work, folder, copies)


def test_the_default_is_the_engine_of_any_architecture(folder, copies):
    async def work(engine):
        assert isinstance(engine, TransformersEngine)

    run(work, folder, copies, Serve())


def test_the_gateway_serves_with_the_engine_that_is_set_and_keeps_the_copy_beside_the_blobs(folder, tmp_path):
    async def work(store):
        load_engine, standing, _ = engine_loader(store, EngineSource(folder), SETTINGS)
        engine = await load_engine(next(iter(standing.shares)))
        try:
            return type(engine.engine)
        finally:
            await engine.close()

    with open_store(str(tmp_path / "store")) as store:
        assert asyncio.run(work(store)) is ctranslate2_engine.CTranslate2Engine
        assert len(list((store.blobs.root / CONVERTED).iterdir())) == 1
