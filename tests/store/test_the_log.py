import copy
import math
import pickle
import sqlite3
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import store_records
from hypothesis import given, settings
from hypothesis import strategies as st
from store_records import VARIANTS, deployment, rating, records_of

from escultor.errors import DataError, IdTaken, InputError, StoreError
from escultor.store import appending, codec, log, open_store
from escultor.store.feedback import choice_target
from escultor.store.kinds import KINDS, kind_of, kind_of_instance
from escultor.types import (
    Checkpoint,
    Choice,
    Comparison,
    Deployment,
    Estimate,
    Feedback,
    Health,
    Hold,
    Interaction,
    Message,
    Promote,
    Rating,
    Reject,
    Remark,
    Scores,
    Step,
    Verdict,
)


def ids(entries):
    return [record.id for _, record in entries]


def comparison(id: str) -> Comparison:
    return Comparison(id, "old", "new", "s1", "s2", "suite", "policy", (), "a test", 3)


# --- records and bodies -------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_every_variant_comes_back_exactly(variant):
    @settings(deadline=None, max_examples=40)
    @given(records_of(variant))
    def law(record):
        kind = kind_of_instance(record)
        back = codec.decode(kind, codec.encode(record))
        assert type(back) is variant
        assert codec.same(back, record)
        copied = pickle.loads(pickle.dumps(record))  # noqa: S301  as for another process
        assert codec.same(copied, record)

    law()


def test_variants_with_the_same_fields_keep_their_type():
    one = codec.decode(kind_of(Verdict), codec.encode(Promote(comparison("c"))))
    two = codec.decode(kind_of(Verdict), codec.encode(Reject(comparison("c"))))
    assert (type(one), type(two)) == (Promote, Reject)


def test_every_record_type_has_a_kind_of_its_own():
    assert len({kind.name for kind in KINDS}) == len(KINDS) == 27
    assert {store_records.Rating, Choice, Hold, Step} <= set(VARIANTS)


@pytest.mark.parametrize(
    "record",
    [
        Step("k", 1.0, "n", 1.0, {"pair": (1, 2)}),
        Step("k", 1.0, "n", 1.0, {"set": {1}}),
        Step("k", 1.0, "n", 1.0, {"record": rating("r")}),
        Step("k", 1.0, "n", 1.0, {1: "a key that is no text"}),  # type: ignore[dict-item]
        Step("k", "soon", "n", 1.0, {}),  # type: ignore[arg-type]
        Rating("r", 1.0, "t", "s", "a lone surrogate: \ud800", True),
    ],
)
def test_a_record_that_could_not_be_read_back_is_refused_by_name(store, record):
    with pytest.raises(DataError, match=r"cannot be written to the log.*remedy: correct the (Step|Rating)"):
        store.log.append(record)
    assert store.log.count(Step) == store.log.count(Feedback) == 0


@pytest.mark.parametrize("record", [Message, Rating, int, Rating | Choice])
def test_reading_an_unknown_type_is_refused_and_the_known_ones_are_listed(store, record):
    with pytest.raises(InputError, match="allowed: Interaction, "):
        store.log.read(record)


def test_appending_an_unknown_type_is_refused(store):
    with pytest.raises(InputError, match="got: dict"):
        store.log.append({})


# --- the log ----------------------------------------------------------------------------------


def test_the_log_can_only_append_read_erase_on_request_and_purge_what_expired():
    public = {name for name in vars(log.Log) if not name.startswith("_")}
    reading = {"get", "read", "last", "count", "erased", "erased_digests", "unmatched"}
    raw = {
        "raw_pages",
        "raw_by_id",
        "last_seq",
        "identity",
        "name",
        "spending",
        "is_read_only",
        "check_writable",
    }
    assert public == reading | raw | {"append", "append_each", "erase", "replace", "scrub", "purge", "close"}


def test_every_kind_is_found_by_its_id_its_target_and_its_subject(store):
    estimate = Estimate("quality", math.nan, -math.inf, 1.0, 3)
    records = [
        rating("r"),
        Choice("c", 2.0, "person", "pick", ("a", "b"), None),
        Promote(comparison("p")),
        Hold(comparison("h"), None),
        deployment("d", champion="new"),
        Health("new", 1.0, 2.0, (estimate,)),
        Scores("s", "new", "suite", ("i",), ("c",), {"quality": (0.1,)}),
        Step("a key", 1.0, "train", 2.0, {"loss": [1.5, None]}),
    ]
    store.log.append(*records)
    assert store.log.get(Feedback, "r") == records[0]
    assert store.log.get(Verdict, "h") == records[3]
    assert store.log.get(Step, "a key") == records[7]
    assert store.log.get(Interaction, "r") is None
    assert store.log.last(Feedback) == records[1]
    assert store.log.last(Interaction) is None
    assert [record for _, record in store.log.read(Verdict, target="new")] == records[2:4]
    assert [record for _, record in store.log.read(Feedback, target="answer")] == records[:1]
    assert [record for _, record in store.log.read(Feedback, target="b")] == records[1:2]
    assert [record for _, record in store.log.read(Feedback, target=choice_target("ab"))] == records[1:2]
    assert [record for _, record in store.log.read(Feedback, subject="person")] == records[:2]
    assert [record for _, record in store.log.read(Feedback, since=1.5)] == records[1:2]
    assert repr(store.log.last(Health)) == repr(records[5])
    assert [store.log.count(each) for each in (Feedback, Verdict, Deployment, Interaction)] == [2, 2, 1, 0]


def test_a_checkpoint_of_any_training_method_is_recorded(store):
    checkpoint = Checkpoint("c", "run", "a new method", (), "config", "data", "code", 0, 1)
    store.log.append(checkpoint)
    assert store.log.get(Checkpoint, "c") == checkpoint


def test_repeating_a_write_changes_nothing_and_returns_the_same_numbers(store):
    first = store.log.append(rating("a"), rating("b"), rating("a"))
    assert first == [first[0], first[0] + 1, first[0]]
    assert store.log.append(rating("b"), rating("c"), rating("a"))[::2] == [first[1], first[0]]
    assert ids(store.log.read(Feedback)) == ["a", "b", "c"]


def test_the_same_content_in_another_order_of_keys_is_the_same_content(store):
    one = Step("k", 1.0, "n", 1.0, {"a": 1, "b": 2})
    assert store.log.append(one) == store.log.append(Step("k", 1.0, "n", 1.0, {"b": 2, "a": 1}))


def test_an_id_with_other_content_is_refused_and_nothing_of_the_call_is_kept(store):
    store.log.append(rating("a"))
    with pytest.raises(StoreError, match=r"other content under this id as entry 1; got: feedback 'a'"):
        store.log.append(rating("b"), rating("a", target="another answer"))
    with pytest.raises(StoreError, match="earlier in the same call"):
        store.log.append(rating("c"), rating("c", subject="somebody else"))
    assert ids(store.log.read(Feedback)) == ["a"]


def test_a_failed_group_does_not_keep_others_from_being_recorded(store):
    store.log.append(rating("old"))
    taken, unreadable = rating("old", target="other"), Step("k", "soon", "n", 1.0, {})  # type: ignore[arg-type]
    groups = [[rating("a")], [rating("b"), taken], [unreadable], [{}], [rating("b"), rating("a")], []]
    outcomes = store.log.append_each(groups)
    first = outcomes[0][0]
    assert outcomes[4:] == [[first + 1, first], []]
    assert [type(outcome) for outcome in outcomes[1:4]] == [IdTaken, DataError, InputError]
    assert ids(store.log.read(Feedback)) == ["old", "a", "b"]


def test_appending_nothing_does_nothing(store):
    assert store.log.append() == []


def test_any_appends_read_back_once_each_in_the_order_first_written(tmp_path):
    with open_store(str(tmp_path)) as store:
        rounds = iter(range(10**6))

        @settings(deadline=None, max_examples=25)
        @given(st.lists(st.lists(st.integers(0, 8), max_size=6), max_size=5))
        def law(calls):
            run, before = next(rounds), max((seq for seq, _ in store.log.read(Feedback)), default=0)
            numbers = {}
            for call in calls:
                names = [f"{run}-{number}" for number in call]
                written = store.log.append(*(rating(name) for name in names))
                for name, seq in zip(names, written, strict=True):
                    assert numbers.setdefault(name, seq) == seq
            read = list(store.log.read(Feedback, after=before))
            assert [(seq, record.id) for seq, record in read] == [
                (seq, name) for name, seq in numbers.items()
            ]
            assert sorted(numbers.values()) == list(numbers.values())

        law()


def test_reading_goes_page_by_page_and_keeps_no_connection(store, monkeypatch):
    monkeypatch.setattr(log, "PAGE", 4)
    monkeypatch.setattr(appending, "BATCH", 3)
    numbers = store.log.append(*(rating(f"{k:02}") for k in range(11)))
    wanted = [f"{k:02}" for k in range(11)]
    assert numbers == sorted(set(numbers))
    for limit in (0, 1, 4, 5, 8, 11, 99):
        assert ids(store.log.read(Feedback, limit=limit)) == wanted[:limit]
    assert ids(store.log.read(Feedback, after=numbers[6])) == wanted[7:]
    entries = store.log.read(Feedback)
    next(entries)
    assert store.log._engine.pool.checkedout() == 0


def test_a_reader_sees_what_is_appended_while_it_reads(store, monkeypatch):
    monkeypatch.setattr(log, "PAGE", 2)
    store.log.append(*(rating(f"{k}") for k in range(4)))
    entries = store.log.read(Feedback)
    next(entries)
    store.log.append(rating("late"))
    assert ids(entries) == ["1", "2", "3", "late"]


def test_an_entry_that_cannot_be_decoded_is_named_not_skipped(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.log.append(rating("a"))
        with sqlite3.connect(tmp_path / "log.db") as raw:
            raw.execute('UPDATE log SET body = \'{"_":"Shout"}\'')
        raw.close()
        with pytest.raises(StoreError, match="an entry of kind feedback cannot be read"):
            store.log.last(Feedback)


def test_a_full_disk_refuses_the_write_and_keeps_what_was_there(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.log.append(rating("a"))
        with store.log._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=20")
        with pytest.raises(StoreError, match=r"full; remedy: free disk space"):
            store.log.append(*(rating(f"long {k}", target="x" * 1000) for k in range(200)))
        assert ids(store.log.read(Feedback)) == ["a"]


def test_the_files_of_the_store_are_the_only_ones_it_makes(tmp_path):
    with open_store(str(tmp_path)) as store:
        store.log.append(rating("a"))
    assert [path.name for path in Path(tmp_path).iterdir()] == ["log.db"]


def test_threads_may_share_one_log(store):
    def write(name):
        return [store.log.append(rating(f"{name}-{k}", subject=name))[0] for k in range(15)]

    with ThreadPoolExecutor(6) as pool:
        numbers = [seq for written in pool.map(write, "abcdef") for seq in written]
    assert len(set(numbers)) == store.log.count(Feedback) == 90
    assert ids(store.log.read(Feedback, subject="c")) == [f"c-{k}" for k in range(15)]


def test_bodies_are_read_raw_by_id_and_by_a_copy_in_another_process(store):
    store.log.append(rating("r"), rating("s"), deployment("d", champion="new"))
    copied = copy.copy(store.log)  # made as one that another process is sent
    for reader in (store.log, copied):
        found = reader.raw_by_id(Feedback, ["r", "gone", 'odd "name"', "s", "d"])
        assert {id: body["target"] for id, body in found.items()} == {"r": "answer", "s": "answer"}
        assert [[seq for seq, _ in page] for page in reader.raw_pages(Feedback, 1)] == [[2]]
    copied.close()


def test_a_database_error_does_not_show_what_was_to_be_written(tmp_path):
    secret = "-".join(("secret", "words"))  # the line that writes it is in the trace
    with open_store(str(tmp_path / "store")) as store:
        with closing(sqlite3.connect(tmp_path / "store" / "log.db")) as other:
            other.execute("create trigger no before insert on log begin select raise(abort, 'not now'); end")
        with pytest.raises(StoreError) as fault:
            store.log.append(Remark("r", 1.0, "a", "person", secret))
        told = "".join(traceback.format_exception(fault.value))
        assert "not now" in told
        assert secret not in told


def test_a_record_is_not_found_by_texts_with_nul_and_keeps_it_elsewhere(store):
    for refused in (rating("a\0b"), rating("r", subject="\0"), Remark("r", 1.0, "\0", "person", "text")):
        with pytest.raises(DataError, match="NUL"):
            store.log.append(refused)
    store.log.append(kept := Remark("r", 1.0, "a", "person", "te\0xt"))
    assert store.log.get(Feedback, "r") == kept
    assert store.log.get(Feedback, "\0") is None
