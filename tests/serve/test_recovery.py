"""Streams that were cut off by the end of their process are recorded by the next gateway, each searched for
until it has its row."""

import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest

from escultor.serve.gateway.request_log import LOOK_BACK_S, Recovery
from escultor.serve.in_flight import draft_interaction
from escultor.serve.writer import Writer
from escultor.store import open_store
from escultor.types import Interaction, Message, PendingInteraction, Role, Sampling

NOW, UNTIL = 1e9, 1e9 + 1200
HOST = socket.gethostname()
MINE, DEAD, FAR = f"{HOST}/1/gw-a", f"{HOST}/999999999/gw-b", "elsewhere/1/gw-c"


def pending(id, owner, time=NOW):
    messages = (Message(Role.USER, "Olá?"),)
    draft = draft_interaction(messages, id=id, subject="s" * 32, version="v", sampling=Sampling())
    return PendingInteraction(owner, UNTIL, replace(draft, time=time))


@pytest.fixture
def side(tmp_path):
    """A log, its recovery, the clock, and the entry behind which each search started."""
    with open_store(str(tmp_path / "store")) as store:
        writer, clock = Writer(store.log), SimpleNamespace(now=NOW)
        log, behind = store.log, []

        def unmatched(record_type, other, since, after):
            behind.append(after)
            return log.unmatched(record_type, other, since, after)

        seen = SimpleNamespace(last_seq=log.last_seq, unmatched=unmatched)
        recovery = Recovery(seen, writer, MINE, lambda: clock.now)  # type: ignore[arg-type]
        yield SimpleNamespace(log=log, recovery=recovery, clock=clock, behind=behind)
        writer.close()


def ids(side):
    return [row.id for _, row in side.log.read(Interaction)]


def test_streams_of_a_dead_process_are_recorded_at_once_and_others_when_their_time_is_over(side):
    side.log.append(pending("cut", DEAD), pending("far", FAR), pending("mine", MINE))
    assert side.recovery.recover() == 1
    assert side.recovery.recover() == 0
    row = side.log.get(Interaction, "cut")
    assert (row.finish_reason, row.answer, row.messages[0].content) == ("interrupted", "", "Olá?")
    side.clock.now = UNTIL + 1
    assert side.recovery.recover() == 2
    assert ids(side) == ["cut", "far", "mine"]


def test_each_search_starts_where_a_row_is_missing(side):
    first, lone, last = (pending(id, MINE) for id in ("first", "lone", "last"))
    side.log.append(first, first.interaction, lone, last, last.interaction)
    for _ in range(2):
        assert side.recovery.recover() == 0
    side.log.append(lone.interaction)
    for _ in range(2):
        assert side.recovery.recover() == 0
    assert side.behind == [0, 2, 2, 6]  # lone is the third entry of six
    side.log.append(pending("late", DEAD))
    assert side.recovery.recover() == 1


def test_records_older_than_a_week_are_left_alone(side):
    side.log.append(pending("old", DEAD, NOW - LOOK_BACK_S - 1), pending("young", DEAD, NOW - LOOK_BACK_S))
    assert side.recovery.recover() == 1
    assert ids(side) == ["young"]
