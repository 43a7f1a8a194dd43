"""Streams that were cut by the end of their process: recorded by whoever comes next, each looked for until
it has its row."""

import socket
from types import SimpleNamespace

import pytest

from escultor.serve.gateway.recovery import LOOK_BACK_S, Recovery
from escultor.serve.interactions import Outcome, Placement, Request, interaction
from escultor.serve.writer import Writer
from escultor.store import open_store
from escultor.types import Interaction, Message, PendingInteraction, Role, Sampling, Usage

NOW, UNTIL = 1e9, 1e9 + 1200
HOST = socket.gethostname()
MINE, DEAD, FAR = f"{HOST}/1/gw-a", f"{HOST}/999999999/gw-b", "elsewhere/1/gw-c"


def opening(id, owner, time=NOW):
    request = Request((Message(Role.USER, "Olá?"),), "s" * 32, id=id)
    nothing = Outcome("", "interrupted", Usage(1, 0), 0.0, None, 0.0)
    return PendingInteraction(owner, UNTIL, interaction(request, Placement("v"), Sampling(), nothing, time))


@pytest.fixture
def side(tmp_path):
    """A log, who looks through it, what its clock says, and from where on it looked each time."""
    with open_store(str(tmp_path / "store")) as store:
        writer, clock = Writer(store.log), SimpleNamespace(now=NOW)
        log, behind = store.log, []

        def lacking(noun, other, since, after):
            behind.append(after)
            return log.lacking(noun, other, since, after)

        seen = SimpleNamespace(end=log.end, lacking=lacking)
        recovery = Recovery(seen, writer, MINE, lambda: clock.now)  # type: ignore[arg-type]
        yield SimpleNamespace(log=log, recovery=recovery, clock=clock, behind=behind)
        writer.close()


def ids(side):
    return [row.id for _, row in side.log.read(Interaction)]


def test_a_dead_process_is_known_at_once_and_any_other_when_its_time_is_over(side):
    side.log.append(opening("cut", DEAD), opening("far", FAR), opening("mine", MINE))
    assert side.recovery.look() == 1
    assert side.recovery.look() == 0
    row = side.log.get(Interaction, "cut")
    assert (row.finish_reason, row.answer, row.messages[0].content) == ("interrupted", "", "Olá?")
    side.clock.now = UNTIL + 1
    assert side.recovery.look() == 2
    assert ids(side) == ["cut", "far", "mine"]


def test_each_look_begins_where_a_row_is_lacking(side):
    first, lone, last = (opening(id, MINE) for id in ("first", "lone", "last"))
    side.log.append(first, first.interaction, lone, last, last.interaction)
    for _ in range(2):
        assert side.recovery.look() == 0
    side.log.append(lone.interaction)
    for _ in range(2):
        assert side.recovery.look() == 0
    assert side.behind == [0, 2, 2, 6]  # lone is the third entry of six
    side.log.append(opening("late", DEAD))
    assert side.recovery.look() == 1


def test_what_is_older_than_a_week_is_let_be(side):
    side.log.append(opening("old", DEAD, NOW - LOOK_BACK_S - 1), opening("young", DEAD, NOW - LOOK_BACK_S))
    assert side.recovery.look() == 1
    assert ids(side) == ["young"]
