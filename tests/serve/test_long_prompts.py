"""Prompts far beyond the context cost little, and what is long to prepare holds nobody who is short."""

import asyncio
import threading

import pytest
from tiny import llama

from escultor.errors import TooLong
from escultor.serve.engines.generation_state import Detokenizer, QueueingEngine
from escultor.serve.protocol import End, GenerationRequest
from escultor.text.plain import PlainText
from escultor.types import Message, Role, Sampling, Usage

CONTEXT = 256
HUGE = "cat runs " * 800_000  # 7 MB


def asked(text):
    return GenerationRequest((Message(Role.USER, text),), Sampling(max_new_tokens=1))


@pytest.mark.parametrize("kind", ["conversation", "text"])
def test_a_huge_prompt_is_refused_before_it_is_tokenised_whole(kind, monkeypatch):
    read, encode = [], PlainText.encode

    def counting(self, texts):
        read.append(sum(map(len, texts)))
        return encode(self, texts)

    detokenizer = Detokenizer(llama(context=CONTEXT))
    detokenizer.prompt_ids(asked("cat"))  # what is made once
    monkeypatch.setattr(PlainText, "encode", counting)
    request = asked(HUGE) if kind == "conversation" else GenerationRequest(HUGE, Sampling(max_new_tokens=1))
    for _ in range(6):
        with pytest.raises(TooLong, match="does not fit the model's context"):
            detokenizer.prompt_ids(request)
    assert 0 < sum(read) < 6 * 64 * CONTEXT


class Preparing:
    """Prepares short prompts at once, and long ones when they are let."""

    def __init__(self):
        self.let, self.begun, self.under_way, self.most = threading.Event(), threading.Event(), 0, 0
        self._lock = threading.Lock()

    def prepare(self, request):
        if len(request.prompt[0].content) > 1000:
            with self._lock:
                self.under_way += 1
                self.most = max(self.most, self.under_way)
            self.begun.set()
            assert self.let.wait(60)
            with self._lock:
                self.under_way -= 1
        return request


class Engine(QueueingEngine):
    def check_capacity(self):
        pass

    def submit(self, job):
        job.events.put_nowait(End("stop", Usage(1, 1), 0.0))


def test_sixteen_long_prompts_do_not_hold_a_short_one():
    async def run():
        preparing = Preparing()
        engine = Engine(preparing, 60)

        async def answer(text):
            return [event async for event in engine.generate(asked(text), None)]

        long = [asyncio.create_task(answer("a" * 1_000_000)) for _ in range(16)]
        assert await asyncio.to_thread(preparing.begun.wait, 30)
        assert len(await answer("hi")) == 1
        assert engine.preparing == 16  # they count in the queue
        assert not any(task.done() for task in long)
        preparing.let.set()
        await asyncio.gather(*long)
        assert (preparing.most, engine.preparing) == (1, 0)

    asyncio.run(run())
