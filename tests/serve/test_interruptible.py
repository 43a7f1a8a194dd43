"""Work off the event loop ends when its time is over, or when nobody waits for it."""

import asyncio
import threading
import time

import pytest

from escultor.errors import EngineFault
from escultor.serve.interruptible import Interrupted, run_interruptible


def looping(ended: threading.Event, began: threading.Event):
    try:
        began.set()
        while True:
            try:
                time.sleep(0.001)
            except Exception:
                continue
    except Interrupted:
        ended.set()
        raise


def test_a_loop_ends_when_its_time_is_over():
    ended, began = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        asyncio.run(run_interruptible(lambda: looping(ended, began), 0.05, "test"))
    assert ended.wait(30)


def test_a_loop_ends_with_the_one_who_waits():
    ended, began = threading.Event(), threading.Event()

    async def leave():
        task = asyncio.create_task(run_interruptible(lambda: looping(ended, began), 60, "test"))
        await asyncio.to_thread(began.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert ended.wait(30)


def test_results_and_errors_come_back():
    class Panic(BaseException):
        pass

    def fail(error):
        raise error

    async def run():
        assert await run_interruptible(lambda: 7, 30, "test") == 7
        with pytest.raises(ZeroDivisionError):
            await run_interruptible(lambda: 1 / 0, 30, "test")
        with pytest.raises(EngineFault, match="out of bounds"):
            await run_interruptible(lambda: fail(Panic("out of bounds")), 30, "test")
        assert await asyncio.gather(*(run_interruptible(lambda k=k: k, 30, "test") for k in range(50))) == [
            *range(50)
        ]

    asyncio.run(run())
