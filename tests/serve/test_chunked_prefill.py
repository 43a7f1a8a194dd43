"""Chunked prefill, pass by pass: no stream waits for the whole of another's prompt, and a client that leaves
meanwhile frees its place."""

import asyncio
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from test_transformers_engine import LOADED, ask, collected, run, text

from escultor.config import Serve
from escultor.errors import Overloaded
from escultor.model.decoding import _Forward
from escultor.serve.engines import worker
from escultor.serve.protocol import End, GenerationRequest
from escultor.types import Sampling


def seen_passes(monkeypatch, may=None):
    """The shapes of all forward passes from now on: of width 1 is a step, what is wider a piece of prompts.
    Where there is a semaphore each waits for it."""
    shapes, forward = [], _Forward.__call__

    def counted(own, ids, *more):
        if may is not None:
            assert may.acquire(timeout=120)
        shapes.append(tuple(ids.shape))
        return forward(own, ids, *more)

    monkeypatch.setattr(_Forward, "__call__", counted)
    return shapes


async def until(true):
    while not true():
        await asyncio.sleep(0.001)


async def begun(stream, may):
    """The first event of a stream whose passes wait; those it does not need wait again."""
    first = asyncio.ensure_future(anext(stream))
    while not first.done():
        may.release()
        await asyncio.sleep(0.01)
    while may.acquire(blocking=False):
        pass
    return first.result()


def submitted(engine):
    return engine._worker.waiting or engine._worker._prefills


LONG = GenerationRequest("The cat runs fast. " * 12, Sampling(1.0, 0.9, 12, seed=8))


@pytest.mark.parametrize("streamed", [True, False])
def test_a_stream_goes_on_while_a_long_prompt_is_computed_and_both_say_what_they_would_alone(
    monkeypatch, streamed
):
    settings = Serve(batch_size=4, prefill_tokens=16)
    long = replace(LONG, streamed=streamed)
    early = ask(1, 200)
    alone = [text(run(lambda engine, one=one: collected(engine, one))) for one in (early, long)]

    async def work(engine):
        shapes = seen_passes(monkeypatch, may := threading.Semaphore(0))
        stream = engine.stream(early)
        first = await begun(stream, may)
        before = len(shapes)
        late = asyncio.ensure_future(collected(engine, long))
        await until(lambda: submitted(engine))
        may.release(1000)
        rest = [event async for event in stream]
        return shapes[before:], text([first, *rest]), text(await late)

    shapes, *both = run(work, settings=settings)
    assert both == alone
    assert all(alone)
    tokens = len(LOADED.chat.text(LONG.prompt))
    pieces = [at for at, (_, width) in enumerate(shapes) if width > 1]
    assert len(pieces) == -(-tokens // 16) > 5
    assert max(rows * width for rows, width in shapes) <= 16
    for piece, after in pairwise(pieces):
        assert shapes[piece + 1 : after] == [(1, 1)]  # one token of the stream between any two


def test_where_nobody_waits_a_prompt_is_computed_at_once(monkeypatch):
    shapes = seen_passes(monkeypatch)
    run(lambda engine: collected(engine, LONG), settings=Serve(prefill_tokens=16))
    assert [width for _, width in shapes if width > 1] == [len(LOADED.chat.raw_prompt(LONG.prompt)[0])]


def test_who_leaves_while_a_prompt_is_computed_is_forgotten_and_the_others_go_on(monkeypatch):
    async def work(engine):
        shapes = seen_passes(monkeypatch, may := threading.Semaphore(0))
        stream = engine.stream(ask(1, 200))
        await begun(stream, may)
        before = len(shapes)
        leaving = asyncio.ensure_future(anext(engine.stream(LONG)))
        await until(lambda: submitted(engine))
        may.release(6)
        await until(lambda: len(shapes) >= before + 6)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        may.release(1000)
        rest = [event async for event in stream]
        later = await collected(engine, ask(2, 4))
        return shapes[before:], rest, later

    shapes, rest, later = run(work, settings=Serve(batch_size=2, prefill_tokens=8))
    whole = -(-len(LOADED.chat.text(LONG.prompt)) // 8)
    prompt = len(LOADED.chat.prompt(ask(2).prompt))
    assert 3 <= [width for _, width in shapes].count(8) < 6 < whole
    assert shapes[-4:] == [(1, prompt), *[(1, 1)] * 3]
    assert isinstance(rest[-1], End)
    assert isinstance(later[-1], End)


def test_who_leaves_the_queue_keeps_nobody_else_from_it(monkeypatch):
    async def work(engine):
        seen_passes(monkeypatch, may := threading.Semaphore(0))
        stream = engine.stream(ask(1, 200))
        await begun(stream, may)
        leaving = asyncio.ensure_future(anext(engine.stream(ask(2))))
        await until(lambda: engine._worker.waiting)
        with pytest.raises(Overloaded):
            await collected(engine, ask(3))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        may.release(2)
        await until(lambda: not engine._worker.waiting)
        staying = asyncio.ensure_future(collected(engine, ask(3)))
        may.release(1000)
        return await staying

    assert isinstance(run(work, settings=Serve(batch_size=1, queue=1))[-1], End)


def test_a_short_prompt_overtakes_long_ones_and_they_are_computed_nevertheless(monkeypatch):
    """Whoever asks for a token waits for a piece of another's prompt, and not for all of them."""
    short = ask(1, 1)
    lone = text(run(lambda engine: collected(engine, LONG)))

    async def work(engine):
        shapes, order = seen_passes(monkeypatch, may := threading.Semaphore(0)), []

        async def answered(request):
            events = await collected(engine, request)
            order.append(request)
            return text(events)

        long = [asyncio.ensure_future(answered(LONG)) for _ in range(3)]
        await until(lambda: engine._worker._prefills)
        may.release()
        await until(lambda: shapes)
        late = asyncio.ensure_future(answered(short))
        await until(lambda: engine._worker.waiting + len(engine._worker._jobs) == 4)
        before = len(shapes)
        may.release(1000)
        await asyncio.gather(late, *long)
        return shapes[before:], order, long

    monkeypatch.setattr(worker, "IDLE_TOKENS", 16)
    shapes, order, long = run(work, settings=Serve(batch_size=8, prefill_tokens=16))
    assert order[0] is short
    assert shapes.index((1, len(LOADED.chat.prompt(short.prompt)))) <= 3
    assert [each.result() for each in long] == [lone] * 3
