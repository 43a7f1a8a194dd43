"""The transformers engine: many answers at once, each as it would be alone; no client waits for ever."""

import asyncio
import json
from dataclasses import replace

import pytest
from adapted import adapter
from tiny import llama

from escultor.config import Serve
from escultor.errors import EngineFault, InputError, ModelError, Overloaded
from escultor.model.folders import save
from escultor.model.generate import generate
from escultor.model.load import load
from escultor.serve.engines.transformers_engine import TransformersEngine
from escultor.serve.protocol import Delta, End, GenerationRequest, ScoredPrompt
from escultor.text.served_ids import read_ids
from escultor.types import Message, Role, Sampling

LOADED = llama()
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks
SETTINGS = Serve(batch_size=4, queue=64)


def ask(n=0, room=12, **more):
    return GenerationRequest(
        (Message(Role.USER, f"The cat {n} runs"),), Sampling(1.0, 0.9, room, seed=n), **more
    )


async def collected(engine, asked):
    return [event async for event in engine.stream(asked)]


def run(work, loaded=LOADED, settings=SETTINGS):
    async def inner():
        engine = TransformersEngine(loaded, "v1", settings)
        try:
            return await asyncio.wait_for(work(engine), 60)
        finally:
            await engine.close()

    return asyncio.run(inner())


def text(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def test_many_answers_at_once_are_those_of_generate():
    asked = [ask(n, 5 + 3 * n) for n in range(10)]

    async def work(engine):
        return await asyncio.gather(*(collected(engine, one) for one in asked))

    prompts = [LOADED.chat.prompt(one.prompt) for one in asked]
    expected = generate(LOADED, prompts, [one.sampling for one in asked])
    for events, answer in zip(run(work), expected, strict=True):
        assert text(events) == answer.text
        end = events[-1]
        assert isinstance(end, End)
        assert (end.finish_reason, end.compute_s > 0) == (answer.finish_reason, True)
        assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (
            answer.prompt_tokens,
            len(answer.tokens),
        )
        served = read_ids(end.token_ids, LOADED.chat.vocabulary_hash)
        assert served == (list(answer.tokens) if answer.finish_reason == "stop" else [])


def test_an_answer_that_is_not_streamed_comes_in_one_piece():
    whole = run(lambda engine: collected(engine, ask(3, streamed=False, top_logprobs=0)))
    pieces = run(lambda engine: collected(engine, ask(3, top_logprobs=0)))
    assert [type(event) for event in whole] == [Delta, End]
    assert len(pieces) > 2
    assert whole[0].text == text(pieces)
    assert whole[0].logprobs == tuple(l for e in pieces if isinstance(e, Delta) for l in e.logprobs)  # noqa: E741


def test_logprobs_name_the_tokens_and_bytes_of_the_answer():
    events = run(lambda engine: collected(engine, ask(1, top_logprobs=2)))
    known = [one for event in events if isinstance(event, Delta) for one in event.logprobs]
    assert b"".join(one.bytes for one in known).decode("utf-8", "replace") == text(events)
    assert all(one.logprob is not None and one.logprob <= 0 and len(one.top) == 2 for one in known)


@pytest.mark.parametrize("room", [0, 4])
def test_a_prompt_is_scored_first_token_by_token(room):
    asked = GenerationRequest("The red cat sings.", Sampling(max_new_tokens=room), echo=True, top_logprobs=1)
    scored, *rest = run(lambda engine: collected(engine, asked))
    assert isinstance(scored, ScoredPrompt)
    assert scored.text == "The red cat sings." == "".join(one.text for one in scored.logprobs)
    assert isinstance(rest[-1], End)
    assert rest[-1].usage.completion_tokens <= room


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it():
    whole = text(run(lambda engine: collected(engine, ask(5, 30))))
    stop = whole[4:6]
    events = run(lambda engine: collected(engine, ask(5, 30, stop=(stop,))))
    assert text(events) == whole[: whole.index(stop)]
    assert events[-1].finish_reason == "stop"


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["cat", "dog"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}


def test_a_guided_answer_follows_its_schema_while_its_neighbour_is_free():
    async def work(engine):
        guided, free = ask(2, 150, schema=SCHEMA), ask(4, 20)
        return await asyncio.gather(collected(engine, guided), collected(engine, free))

    guided, free = run(work)
    said = json.loads(text(guided))
    assert said["name"] in ("cat", "dog")
    assert isinstance(said["old"], bool)
    assert guided[-1].finish_reason == "stop"
    assert text(free) == text(run(lambda engine: collected(engine, ask(4, 20))))


@pytest.mark.parametrize(
    "asked",
    [
        ask(schema={"type": "no such type"}),
        GenerationRequest("cat " * 400, Sampling()),
        GenerationRequest((1, 2, 999_999), Sampling()),
        GenerationRequest((), Sampling()),
    ],
)
def test_what_cannot_be_answered_is_refused_and_the_engine_goes_on(asked):
    async def work(engine):
        with pytest.raises(InputError):
            await collected(engine, asked)
        return await collected(engine, ask(1))

    assert isinstance(run(work)[-1], End)


def test_a_prompt_that_fails_on_its_way_ends_no_answer_that_has_not_begun(monkeypatch):
    async def work(engine):
        forward = LOADED.model.forward

        def fails(*words, **more):
            monkeypatch.setattr(LOADED.model, "forward", forward)
            raise MemoryError("no room")

        monkeypatch.setattr(LOADED.model, "forward", fails)
        asked = [asyncio.ensure_future(collected(engine, ask(n))) for n in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = run(work, settings=Serve(batch_size=1))
    assert [isinstance(one, EngineFault) for one in found].count(True) == 1


def test_a_client_that_leaves_frees_its_place():
    async def work(engine):
        leaving = engine.stream(ask(1, 200))
        await anext(leaving)
        await leaving.aclose()
        return await collected(engine, ask(2))

    assert isinstance(run(work, settings=Serve(batch_size=1))[-1], End)


def test_more_than_may_wait_are_refused():
    async def work(engine):
        engine._worker._step = lambda: None  # nothing begins from now on
        first = [asyncio.ensure_future(anext(engine.stream(ask(n)))) for n in range(3)]
        while engine._worker.waiting < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await collected(engine, ask(9))
        del engine._worker._step
        return await asyncio.gather(*first, return_exceptions=True)

    run(work, settings=Serve(batch_size=1, queue=2))


def test_a_step_that_fails_ends_its_answers_and_no_later_one(monkeypatch):
    async def work(engine):
        forward = LOADED.model.forward
        slow = engine.stream(ask(1, 200))
        await anext(slow)
        monkeypatch.setattr(LOADED.model, "forward", None)
        with pytest.raises(EngineFault, match="a step failed"):
            async for _ in slow:
                pass
        monkeypatch.setattr(LOADED.model, "forward", forward)
        return await collected(engine, ask(2))

    assert isinstance(run(work)[-1], End)


def test_when_the_thread_dies_all_requests_fail_and_later_ones_are_refused():
    async def work(engine):
        slow = engine.stream(ask(1, 200))
        await anext(slow)

        def die():
            raise SystemExit

        assert engine.problem is None
        engine._worker._step = die
        with pytest.raises(EngineFault, match="thread has failed"):
            async for _ in slow:
                pass
        with pytest.raises(EngineFault, match="thread has failed"):
            await collected(engine, ask(2))
        assert "thread has failed" in engine.problem

    run(work)


def test_closing_ends_what_is_under_way():
    async def work(engine):
        slow = engine.stream(ask(1, 200))
        await anext(slow)
        await engine.close()
        with pytest.raises(EngineFault, match="closed"):
            async for _ in slow:
                pass

    run(work)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save(llama(), folder)
    return folder


def test_adapters_come_and_go_while_answers_are_given_and_none_is_mixed_up(base, tmp_path):
    folders = [adapter(base, tmp_path / f"a{n}", n) for n in range(2)]
    greedy = [replace(ask(n, 16), sampling=Sampling(max_new_tokens=16)) for n in range(6)]

    async def work(engine):
        own = asyncio.ensure_future(collected(engine, greedy[0]))
        engines = [await engine.with_adapter(f"b.{n}", folder) for n, folder in enumerate(folders)]
        turns = [engine, *engines]
        mixed = await asyncio.gather(*(collected(turns[n % 3], one) for n, one in enumerate(greedy)))
        with pytest.raises(InputError, match="served once"):
            await engine.with_adapter("b.0", folders[0])
        await engines[0].close()
        with pytest.raises(EngineFault, match="closed"):
            await collected(engines[0], greedy[0])
        return [text(await own), text(await collected(engine, greedy[0]))], [text(e) for e in mixed]

    own, mixed = run(work, load(str(base)))
    models = [load(str(path)) for path in (base, *folders)]
    for n, one in enumerate(greedy):
        (expected,) = generate(models[n % 3], [LOADED.chat.prompt(one.prompt)], one.sampling)
        assert mixed[n] == expected.text
    assert own == [mixed[0]] * 2
    assert len({mixed[0], mixed[1], mixed[2]}) > 1


def test_an_adapter_in_use_is_unloaded_without_a_warning_and_the_others_stay(base, tmp_path):
    from escultor.model.hot_adapters import HotAdapters

    loaded = load(str(base))
    prompt, sampling = [loaded.chat.prompt(ask().prompt)], Sampling(max_new_tokens=12)
    plain = generate(loaded, prompt, sampling)
    adapters = HotAdapters(loaded)
    folders = [adapter(base, tmp_path / f"a{n}", n) for n in range(2)]
    for n, folder in enumerate(folders):
        adapters.load(f"b.{n}", folder)
    adapters.use("b.0")
    adapters.unload("b.0")
    assert generate(loaded, prompt, sampling)[0].text == plain[0].text
    adapters.use("b.1")
    assert (
        generate(loaded, prompt, sampling)[0].text
        == generate(load(str(folders[1])), prompt, sampling)[0].text
    )
    adapters.unload("b.1")
    assert adapters.names == frozenset()
    assert generate(loaded, prompt, sampling)[0].text == plain[0].text


def test_an_adapter_of_another_base_is_refused(base, tmp_path):
    other = tmp_path / "other"
    save(llama(seed=5), other)
    folder = adapter(other, tmp_path / "adapter", 1)

    async def work(engine):
        with pytest.raises(ModelError, match="another model"):
            await engine.with_adapter("b", folder)

    run(work, load(str(base)))
