import errno
import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.data.jsonl import kind_of, read_jsonl, write_jsonl
from escultor.errors import DataError, StoreError
from escultor.types import Document, Example, Message, Origin, Pair, Role

ASK = {"role": "user", "content": "What is 2 + 2?"}
SAY = {"role": "assistant", "content": "4"}
LIE = {"role": "assistant", "content": "5"}
ROWS = {
    "document": {"text": "Once upon a time."},
    "example": {"prompt": "What is 2 + 2?", "completion": "4"},
    "pair": {"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "5"},
    "unpaired": {"prompt": "What is 2 + 2?", "completion": "4", "label": True},
}


@pytest.fixture
def file(tmp_path):
    """Writes rows (objects, or bytes as they are) to a file and returns its path."""

    def write(*rows, end=b"\n"):
        path = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"".join(line + end for line in lines))
        return path

    return write


def one(path, kind):
    (item,) = read_jsonl(path, kind).items
    return item


def said(*messages):
    return tuple(Message(Role(m["role"]), m["content"]) for m in messages)


# --- shapes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        ROWS["example"],
        {"prompt": [ASK], "completion": [SAY]},
        {"prompt": [ASK], "completion": "4"},
        {"prompt": [ASK], "completion": [ASK, SAY]},
        {"messages": [ASK, SAY]},
    ],
)
def test_an_example_is_the_same_in_every_shape(file, row):
    example = one(file(row), "example")
    assert (example.prompt, example.response, example.weight) == (said(ASK), "4", 1.0)
    assert example.origin == Origin(("rows.jsonl:1",), "import/example/1")
    assert kind_of(file(row)) == "example"


@pytest.mark.parametrize(
    "row",
    [
        ROWS["pair"],
        {"prompt": [ASK], "chosen": [SAY], "rejected": [LIE]},
        {"chosen": [ASK, SAY], "rejected": [ASK, LIE]},
        {"prompt": "What is 2 + 2?", "chosen": [ASK, SAY], "rejected": [ASK, LIE]},
    ],
)
def test_a_pair_is_the_same_in_every_shape(file, row):
    pair = one(file(row), "pair")
    assert (pair.prompt, pair.chosen, pair.rejected) == (said(ASK), "4", "5")
    assert kind_of(file(row)) == "pair"


def test_a_document_is_its_text(file):
    path = file(ROWS["document"])
    assert one(path, "document").text == "Once upon a time."
    assert kind_of(path) == "document"


def test_a_verdict_says_good_or_bad(file):
    path = file(ROWS["unpaired"], ROWS["unpaired"] | {"label": False})
    assert kind_of(path) == "unpaired"
    assert [item.desirable for item in read_jsonl(path, "unpaired").items] == [True, False]


def test_id_weight_and_flip_rate_are_read(file):
    pair = one(file(ROWS["pair"] | {"id": "p1", "weight": 2, "flip_rate": 0.25}), "pair")
    assert (pair.id, pair.weight, pair.flip_rate) == ("p1", 2.0, 0.25)


def test_a_row_without_id_is_named_by_its_content_alone(file):
    row = ROWS["example"]
    first = one(file(row), "example").id
    assert one(file(b"", dict(reversed(row.items()))), "example").id == first
    assert one(file(row | {"completion": "four"}), "example").id != first


def test_keys_that_are_not_used_are_counted(file):
    imported = read_jsonl(file(*({"text": str(i), "wieght": 2} for i in range(3))), "document")
    assert imported.counts == {"kept": 3, "key not used: wieght": 3}


@pytest.mark.parametrize("end", [b"\r\n", b"\n\n", b" \t\n"])
def test_line_ends_of_every_system_are_line_ends(file, end):
    assert one(file(ROWS["document"], end=end), "document").text == "Once upon a time."


def test_a_byte_order_mark_is_no_content(file):
    path = file(b"\xef\xbb\xbf" + json.dumps(ROWS["document"]).encode())
    assert (one(path, "document").text, kind_of(path)) == ("Once upon a time.", "document")


def test_a_last_line_without_end_is_a_row(file):
    assert len(read_jsonl(file(b'{"text": "a"}\n{"text": "b"}', end=b""), "document").items) == 2


def test_text_on_one_line_of_a_megabyte_is_read(file):
    assert len(one(file({"text": "word " * 200_000}), "document").text) == 1_000_000


# --- rows that teach nothing ------------------------------------------------------------------


def test_rows_that_teach_nothing_are_counted_by_reason_with_their_lines(file):
    good, empty = ROWS["pair"], ROWS["pair"] | {"rejected": " \n"}
    same, mute = ROWS["pair"] | {"rejected": "4"}, ROWS["pair"] | {"prompt": ""}
    imported = read_jsonl(file(good, same, b"", good, empty, mute, *[good] * 11), "pair")
    assert len(imported.items) == 1
    assert imported.counts == {
        "kept": 1,
        "chosen equals rejected": 1,
        "blank line": 1,
        "exact duplicate": 12,
        "empty rejected": 1,
        "empty prompt": 1,
    }
    assert imported.skipped["chosen equals rejected"] == (2,)
    assert imported.skipped["exact duplicate"] == (4, *range(7, 16))  # the first ten


@pytest.mark.parametrize("kind", list(ROWS))
def test_a_row_without_consent_to_train_is_left_out_and_counted(file, kind):
    origin = {"parents": ["chatcmpl-1"], "rule": "correction/1", "consent": "train"}
    rows = [ROWS[kind] | {"id": c, "origin": origin | {"consent": c}} for c in ("train", "eval_only", "none")]
    contents = read_jsonl(file(*rows), kind)
    assert [item.id for item in contents.items] == ["train"]
    assert contents.counts["no consent to train: eval_only"] == 1
    assert contents.counts["no consent to train: none"] == 1


def test_a_row_under_two_ids_is_two_rows(file):
    rows = [ROWS["document"] | {"id": name} for name in ("a", "b", "a")]
    assert [item.id for item in read_jsonl(file(*rows), "document").items] == ["a", "b"]


def test_a_file_of_which_nothing_is_left_is_refused_with_the_reasons(file):
    with pytest.raises(DataError, match=r"nothing to learn from; got: empty completion: 2"):
        read_jsonl(file(*[{"prompt": "a", "completion": ""}] * 2), "example")


# --- broken rows ------------------------------------------------------------------------------

DEEP = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BROKEN = [
    ("document", b'{"text": "\xff"}', "not UTF-8.*0xff at byte 11"),
    ("document", json.dumps(ROWS["document"]).encode("utf-16"), "not UTF-8"),
    ("document", b'{"text": "a\x00b"}', "not JSON.*[Cc]ontrol character"),
    ("document", b"\x00\x00\x00", "not JSON"),
    ("document", b'{"text": "a", "x": NaN}', "not JSON.*NaN"),
    ("document", b'{"text": "\\ud800"}', "invalid escape"),
    ("document", b'{"\\udfff": 1, "text": "a"}', "invalid escape"),
    ("document", b'{"text": "a", "text": "b"}', "key twice.*text"),
    ("document", DEEP, "not JSON.*recursion"),
    ("document", b'{"text": "a", "x": ' + b"9" * 5000 + b"}", "not JSON"),
    ("document", [ROWS["document"]], "not an object.*allowed: {text}"),
    ("document", "text", "not an object"),
    ("document", None, "not an object"),
    ("document", {}, "`text` is missing"),
    ("document", {"text": 7}, "`text` is of the wrong type; got: 7; allowed: text"),
    ("document", {"text": "a", "id": 7}, "`id` is of the wrong type; got: 7"),
    ("document", {"text": "a", "id": ""}, "`id` is empty"),
    ("document", {"text": "a", "origin": {"rule": "r"}}, "`origin` cannot be read"),
    ("document", {"text": "a", "origin": {"parents": "p", "rule": "r", "consent": "train"}}, "`origin`"),
    ("document", {"text": "a", "origin": []}, "`origin` cannot be read"),
    ("example", {"prompt": "a"}, "`completion` is missing"),
    ("example", {"completion": "a"}, "`prompt` is missing"),
    ("example", {"prompt": 1, "completion": "a"}, "`prompt` is of the wrong type"),
    ("example", {"messages": "a"}, "`messages` is not a list"),
    ("example", {"messages": [ASK]}, "no answer.*user"),
    ("example", {"messages": []}, "no answer"),
    ("example", {"messages": [SAY], "prompt": "a"}, "two shapes"),
    ("example", {"messages": ["a"]}, r"`messages\[0\]` is not a message"),
    (
        "example",
        {"messages": [ASK, {"role": "critic", "content": "a"}]},
        r"`messages\[1\]` has an unknown role",
    ),
    ("example", {"messages": [{"role": "user"}]}, r"`messages\[0\].content` is missing"),
    ("example", {"messages": [SAY | {"tool_calls": 1}]}, "a list of calls"),
    ("example", {"prompt": "a", "completion": [ASK]}, "not an answer to the prompt"),
    ("example", ROWS["example"] | {"weight": "1"}, "`weight` is of the wrong type"),
    ("example", ROWS["example"] | {"weight": True}, "`weight` is of the wrong type"),
    ("example", ROWS["example"] | {"weight": 10**400}, "401 digits is too large"),
    ("example", ROWS["example"] | {"weight": 0}, "`weight` is too small"),
    (
        "example",
        ROWS["example"] | {"weight": 1e39},
        r"`weight` is out of range; got: 1e\+39; allowed: 1e-30 to 1e\+30",
    ),
    ("pair", ROWS["pair"] | {"weight": 1e-60}, "`weight` is out of range"),
    ("pair", ROWS["example"], "`chosen` is missing"),
    ("pair", {"chosen": "a", "rejected": "b"}, "`prompt` is missing"),
    ("pair", {"chosen": [SAY], "rejected": [LIE]}, "`prompt` is missing"),
    ("pair", {"chosen": [ASK, SAY], "rejected": [ASK, ASK, LIE]}, "`rejected` is not an answer"),
    ("pair", {"prompt": "other", "chosen": [ASK, SAY], "rejected": [ASK, LIE]}, "`chosen` is not an answer"),
    ("pair", ROWS["pair"] | {"flip_rate": 1.5}, "out of range"),
    ("unpaired", ROWS["example"], "`label` is missing"),
    ("unpaired", ROWS["unpaired"] | {"label": 2}, "`label` is of the wrong type; got: 2; allowed: true"),
]


@pytest.mark.parametrize(("kind", "row", "message"), BROKEN)
def test_a_broken_row_stops_the_import_and_is_named(file, kind, row, message):
    path = file(ROWS[kind], row)
    with pytest.raises(DataError, match=message) as caught:
        read_jsonl(path, kind)
    text = str(caught.value)
    assert f"{path}:2: " in text
    assert "remedy" in text
    assert len(text) < 1000


def test_a_line_cut_short_says_so(file):
    path = file(ROWS["document"], b'{"text": "Once up')
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"rows.jsonl:2: the line is not JSON.*starting at column 10.*cut short"
    ):
        read_jsonl(path, "document")


def test_an_id_given_to_two_rows_is_refused_with_both_lines(file):
    rows = [{"text": text, "id": "a"} for text in ("one", "two")]
    with pytest.raises(DataError, match=r"rows.jsonl:2: `id` names two different rows; got: 'a'.*line 1"):
        read_jsonl(file(*rows), "document")


def test_ten_broken_rows_are_gathered_before_refusing(file):
    with pytest.raises(DataError, match=r"cannot be imported") as caught:
        read_jsonl(file(*[b"{"] * 50), "document")
    text = str(caught.value)
    assert [f"rows.jsonl:{i}: " in text for i in range(1, 12)] == [True] * 10 + [False]
    assert "stopped at the first 10" in text


def test_files_that_are_none_are_refused(file, tmp_path):
    for read in (lambda path: read_jsonl(path, "document"), kind_of):
        with pytest.raises(DataError, match=r"missing.jsonl cannot be read.*No such file"):
            read(tmp_path / "missing.jsonl")
        with pytest.raises(DataError, match=r"cannot be read.*directory"):
            read(tmp_path)
        with pytest.raises(DataError, match="empty file"):
            read(file())


def test_a_kind_that_is_none_is_refused(file):
    with pytest.raises(DataError, match=r"no such kind.*unpaired"):
        read_jsonl(file(ROWS["document"]), "verse")  # pyright: ignore


@pytest.mark.parametrize("row", [{"prompt": "a"}, {"prompt": "a", "chosen": "b"}, {}, [], b"{"])
def test_a_first_row_of_no_known_shape_is_refused(file, row):
    with pytest.raises(DataError, match=r"rows.jsonl:1: "):
        kind_of(file(row))


# --- and back ---------------------------------------------------------------------------------

text = st.text(st.characters(codec="utf-8"), max_size=20)
filled = text.filter(str.strip)
origins = st.builds(Origin, st.tuples(text), text)
prompts = st.lists(st.builds(Message, content=filled), min_size=1, max_size=3).map(tuple)
weights = st.floats(1e-30, 1e30)
items = st.one_of(
    st.lists(st.builds(Document, filled, filled, origins), min_size=1, unique_by=lambda x: x.id),
    st.lists(
        st.builds(Example, filled, prompts, filled, origins, weights), min_size=1, unique_by=lambda x: x.id
    ),
    st.lists(
        st.builds(Pair, filled, prompts, filled, filled, origins, weights, st.floats(0, 0.49)).filter(
            lambda pair: pair.chosen != pair.rejected
        ),
        min_size=1,
        unique_by=lambda x: x.id,
    ),
)


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "deep" / "items.jsonl"

    @settings(deadline=None, max_examples=60)
    @given(items)
    def law(some):
        assert write_jsonl(path, iter(some)) == len(some)
        imported = read_jsonl(path, kind_of(path))
        assert imported.items == tuple(some)
        assert imported.counts == {"kept": len(some)}

    law()
    assert os.listdir(path.parent) == ["items.jsonl"]


GOOD = Example("e1", said(ASK), "4", Origin(("a",), "rule"))


@pytest.mark.parametrize(
    "item",
    [
        replace(GOOD, id="e2", response=""),
        replace(GOOD, id="e2", response="\ud800"),
        replace(GOOD, id="e2", weight=float("nan")),
        replace(GOOD, response="another under the same id"),
        GOOD,
        Document("d", "text", GOOD.origin),
        "text",
    ],
)
def test_an_item_that_would_not_come_back_is_refused_and_the_old_file_stays(tmp_path, item):
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [GOOD])
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"item 2 .*cannot be written"):
        write_jsonl(path, [GOOD, item])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["items.jsonl"]


def test_nothing_and_no_item_are_refused(tmp_path):
    with pytest.raises(DataError, match="nothing to write"):
        write_jsonl(tmp_path / "a", [])
    with pytest.raises(DataError, match=r"no such item.*str"):
        write_jsonl(tmp_path / "a", ["text"])  # pyright: ignore
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [GOOD])

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"items.jsonl could not be written.*No space left"):
        write_jsonl(path, [replace(GOOD, id="e2")])
    monkeypatch.undo()
    assert one(path, "example") == GOOD
    assert os.listdir(tmp_path) == ["items.jsonl"]
