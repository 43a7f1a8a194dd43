"""What rows share (tools, media) is stored once and leaves with the last of them; spending is counted."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from store_records import make_interaction

from escultor.errors import DataError
from escultor.ids import hash_bytes
from escultor.store import codec, open_store, schema, tables
from escultor.store.appending import log_row
from escultor.store.database import writing
from escultor.store.kinds import DAY_S, Spending
from escultor.types import Interaction, Media, Message, PendingInteraction, Role, ToolDefinitions, Usage

PICTURES = [
    Media(hash_bytes(data.encode()), data) for data in ("data:1" * 500, "data:2" * 500, "data:3" * 500)
]
TOOLS = [ToolDefinitions(hash_bytes(text.encode()), text) for text in ('[{"a": 1}]', '[{"b": 2}]')]


def row(id: str, subject: str, media=(), tools: ToolDefinitions | None = None) -> Interaction:
    message = Message(Role.USER, "look", parts="[]", media=tuple(each.id for each in media))
    return replace(make_interaction(id, subject), messages=(message,), tools=tools.id if tools else "")


def shared_ids(store) -> set[str]:
    return {r.id for kind in (Media, ToolDefinitions) for _, r in store.log.read(kind)}


actions = st.lists(
    st.tuples(
        st.sampled_from(("ann", "bob", "eve")),
        st.sets(st.sampled_from(range(3)), max_size=2),
        st.sampled_from((None, *TOOLS)),
        st.booleans(),
        st.sampled_from(("row", "pending", "erase", "erase")),
    ),
    max_size=12,
)


@settings(max_examples=10, deadline=None)
@given(actions)
def test_what_rows_share_is_there_as_long_as_one_of_them_is(tmp_path_factory, steps):
    with open_store(str(tmp_path_factory.mktemp("shared") / "store")) as store:
        living: dict[str, Interaction] = {}
        for n, (subject, pictures, tools, expires, action) in enumerate(steps):
            if action == "erase":
                store.log.erase(subject, "test")
                living = {id: each for id, each in living.items() if each.subject != subject}
            else:
                media = [PICTURES[k] for k in pictures]
                new = row(f"i{n}", subject, media, tools)
                new = replace(new, retain_until=1.0) if expires else new
                record = PendingInteraction("o", 1.0, new) if action == "pending" else new
                store.log.append(*media, *((tools,) if tools else ()), record)
                living[new.id] = new
            named = {id for each in living.values() for m in each.messages for id in m.media}
            assert shared_ids(store) == named | {each.tools for each in living.values() if each.tools}
        store.log.purge(2.0)
        named = {id for r in living.values() if r.retain_until is None for id in r.messages[0].media}
        kept = {r.tools for r in living.values() if r.retain_until is None and r.tools}
        assert shared_ids(store) == named | kept


def test_no_byte_of_an_erased_picture_is_left(tmp_path):
    folder = tmp_path / "store"
    with open_store(str(folder)) as store:
        store.log.append(
            PICTURES[0], PICTURES[1], row("a", "ann", PICTURES[:2]), row("b", "bob", PICTURES[1:2])
        )
        erasure = store.log.erase("ann", "ann")
        assert erasure.counts["media"] == 1
        left = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert PICTURES[0].text[:200].encode() not in left
        assert store.log.get(Media, PICTURES[1].id) == PICTURES[1]
        store.log.append(PICTURES[0], row("c", "bob", PICTURES[:1]))  # another's own copy may come
        assert store.log.get(Media, PICTURES[0].id) == PICTURES[0]


def test_a_shared_record_that_is_there_is_not_encoded_again(store, monkeypatch):
    store.log.append(TOOLS[0], row("a", "ann", tools=TOOLS[0]))
    asked = []
    real = codec.encode
    monkeypatch.setattr(
        "escultor.store.appending.encode", lambda record: asked.append(record) or real(record)
    )
    new = row("b", "ann", tools=TOOLS[0])
    numbers = store.log.append(TOOLS[0], new)
    assert asked == [new]
    assert numbers[0] == 1


def test_a_shared_record_that_cannot_be_written_affects_no_other_group(store):
    outcomes = store.log.append_each([[Media("bad", "\ud800")], [row("a", "ann")]])
    assert isinstance(outcomes[0], DataError)
    assert isinstance(outcomes[1], list)
    assert shared_ids(store) == set()


def test_tools_that_rows_of_an_older_store_name_are_kept_and_retired_alike(tmp_path, monkeypatch):
    url = str(tmp_path / "store")
    old = [
        row("a", "ann", tools=TOOLS[0]),
        PendingInteraction("o", 1.0, row("p", "bob", tools=TOOLS[1])),
        row("n", "bob"),
    ]
    monkeypatch.setattr(schema, "HEAD", "0003")
    engine = open_store(url).log._engine
    with writing(engine) as connection:
        for record in (*TOOLS, *old):
            columns = {name: value for name, value in log_row(record).items() if name in tables.log.c}
            connection.execute(insert(tables.log).values({**columns, "body": codec.encode(record)}))
    engine.dispose()
    monkeypatch.undo()
    with open_store(url) as store:
        store.log.erase("ann", "ann")
        assert shared_ids(store) == {TOOLS[1].id}
        store.log.erase("bob", "bob")
        assert shared_ids(store) == set()


# --- spending ---------------------------------------------------------------------------------


def answer(id: str, day: int, tokens: int, usd: float, **fields) -> Interaction:
    cost = {"time": day * DAY_S + 5.0, "usage": Usage(tokens, 1), "cost_usd": usd, "tenant": "k"}
    return replace(make_interaction(id), **{**cost, **fields})


def test_what_a_key_spends_is_the_sum_over_its_answers_by_day(store):
    store.log.append(answer("a", 3, 10, 0.5), answer("b", 3, 20, 0.25), answer("c", 4, 1, 1.0))
    store.log.append(answer("a", 3, 10, 0.5))  # a repetition costs nothing
    store.log.append(answer("s", 4, 99, 9.0, arm="shadow"), answer("o", 4, 99, 9.0, tenant="other"))
    store.log.append(make_interaction("n"))
    assert store.log.spending("k", 0) == [Spending("k", 3, 32, 0.75), Spending("k", 4, 2, 1.0)]
    assert store.log.spending("k", 4) == [Spending("k", 4, 2, 1.0)]
    store.log.erase("person", "a person")
    assert store.log.spending("k", 4) == [Spending("k", 4, 2, 1.0)]  # the money is spent


def test_writers_at_the_same_time_lose_nothing_of_the_sum(store):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: store.log.append(answer(f"a{n}", 7, 9, 0.5)), range(40)))
    assert store.log.spending("k", 0) == [Spending("k", 7, 400, 20.0)]


@pytest.mark.parametrize("refused", [answer("a", 3, 11, 9.0)])
def test_a_row_that_is_refused_spends_nothing(store, refused):
    store.log.append(answer("a", 3, 10, 0.5))
    outcomes = store.log.append_each([[refused]])
    assert not isinstance(outcomes[0], list)
    assert store.log.spending("k", 0) == [Spending("k", 3, 11, 0.5)]
