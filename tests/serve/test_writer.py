"""Group commit: durable when awaited, in order, each item's fault its own, the store's everyone's."""

import asyncio
import threading

import pytest

from escultor.errors import DataError, IdTaken, InputError, Overloaded, StoreError
from escultor.serve.writer import Writer
from escultor.types import Feedback, Rating


def rating(id: str, value: bool = True) -> Rating:
    return Rating(id, 1.0, "answer", "person", "thumb", value)


@pytest.fixture
def writer(store):
    made = Writer(store.log)
    yield made
    made.close()


class Held:
    """A log whose appends wait for a sign, so that items gather behind the first."""

    def __init__(self, log):
        self.log, self.go, self.calls = log, threading.Event(), []

    def append_each(self, groups):
        self.go.wait(10)
        self.calls.append(len(groups))
        return self.log.append_each(groups)


def gathered(store, *items):
    """Outcomes of items written behind one that held the writer up, and the sizes of the appends."""
    held = Held(store.log)
    writer = Writer(held)
    first = writer.submit(rating("first"))
    while writer.waiting:
        pass
    futures = [writer.submit(*item) for item in items]
    held.go.set()
    writer.close()
    assert first.result() == [1]
    return [future.exception() or future.result() for future in futures], held.calls


def test_what_is_awaited_is_in_the_log(store, writer):
    assert asyncio.run(writer.write(rating("a"), rating("b"))) == [1, 2]
    assert [record.id for _, record in store.log.read(Feedback)] == ["a", "b"]


def test_waiting_groups_go_into_one_transaction_in_order(store):
    outcomes, calls = gathered(store, *([rating(f"n{i:03}")] for i in range(100)))
    assert outcomes == [[i + 2] for i in range(100)]
    assert calls == [1, 100]


def test_a_failing_item_fails_only_its_own_waiter(store):
    bad = rating("bad", value="no thumb")
    outcomes, calls = gathered(
        store, *([rating(f"n{i}")] for i in range(9)), [rating("x"), bad], [bad], ["?"]
    )
    assert [isinstance(o, list) for o in outcomes] == [True] * 9 + [False] * 3
    assert [type(o) for o in outcomes[9:]] == [DataError, DataError, InputError]
    assert [record.id for _, record in store.log.read(Feedback)] == ["first", *(f"n{i}" for i in range(9))]
    assert calls == [1, 12]


def test_an_id_that_is_taken_fails_its_waiter_and_repeating_an_item_is_harmless(store):
    outcomes, _ = gathered(store, [rating("a")], [rating("a", value=False)], [rating("a")])
    assert outcomes[0] == outcomes[2] == [2]
    assert isinstance(outcomes[1], IdTaken)


def test_where_the_store_fails_every_waiter_hears_of_it_and_the_writer_goes_on(store, writer, monkeypatch):
    def full(groups):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store.log, "append_each", full)
        futures = [writer.submit(rating(f"n{i}")) for i in range(5)]
        assert {type(future.exception(5)) for future in futures} == {StoreError}
    assert writer.failed == 5
    assert writer.submit(rating("after")).result(5) == [1]


def test_an_unforeseen_error_reaches_the_waiter_too(store, writer, monkeypatch):
    monkeypatch.setattr(store.log, "append_each", lambda groups: 1 / 0)
    assert isinstance(writer.submit(rating("a")).exception(5), ZeroDivisionError)


def test_the_queue_is_bounded(store):
    held = Held(store.log)
    writer = Writer(held, waiting=3)
    writer.submit(rating("held"))
    while writer.waiting:
        pass
    for i in range(3):
        writer.submit(rating(f"n{i}"))
    with pytest.raises(Overloaded):
        writer.submit(rating("too many"))
    held.go.set()
    writer.close()
    assert store.log.count(Feedback) == 4


def test_a_waiter_that_goes_away_takes_nothing_back(store):
    async def leave():
        held = Held(store.log)
        writer = Writer(held)
        task = asyncio.create_task(writer.write(rating("kept")))
        await asyncio.sleep(0)
        task.cancel()
        held.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(writer.close)

    asyncio.run(leave())
    assert store.log.count(Feedback) == 1


def test_closing_writes_what_waits_and_accepts_nothing_more(store):
    writer = Writer(store.log)
    futures = [writer.submit(rating(f"n{i}")) for i in range(300)]
    writer.close()
    assert all(future.done() for future in futures)
    assert store.log.count(Feedback) == 300
    with pytest.raises(StoreError):
        writer.submit(rating("late"))


def test_many_threads_and_tasks_write_at_once(store, writer):
    async def several(prefix):
        return await asyncio.gather(*(writer.write(rating(f"{prefix}-{i}")) for i in range(50)))

    found = []
    threads = [threading.Thread(target=lambda p=p: found.extend(asyncio.run(several(p)))) for p in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for (n,) in found) == list(range(1, 201))
