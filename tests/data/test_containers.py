"""The same rows come out of every container, and what is broken is named without hiding the rest."""

import bz2
import csv
import gzip
import io
import json
import lzma
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.data.containers import bytes_of_files, columnar_process, json_lines, tables
from escultor.data.containers.json_lines import json_rows
from escultor.data.containers.json_stream import json_values, rows_of_value
from escultor.data.containers.rows_of_files import files_of, hub_source, source_of
from escultor.data.jsonl_rows import Fault, Skip
from escultor.errors import DataError, InputError

ROWS = [
    {"prompt": 'Olá,\r\n"você" está aí? \u2028 \x85 😀', "completion": "Sim; a\tb\\n, [1] {x}"},
    {"prompt": "q", "completion": "x" * 5000},
]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
flat_rows = st.lists(st.dictionaries(text, text, min_size=1, max_size=4), max_size=6)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
nested_rows = st.lists(st.dictionaries(text, value, max_size=4), max_size=6)


def rows_of(path, encoding=None):
    return list(source_of(path, encoding).read())


def good(path, encoding=None):
    found = [row for _, row in rows_of(path, encoding)]
    assert not [row for row in found if isinstance(row, Fault)]
    return found


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_columns(path, rows):
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, path, compression="lz4")
    else:
        with pyarrow.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)


def write_csv(path, rows, delimiter, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_zstd(path, data):
    import pyarrow

    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)


BYTES = lines(ROWS).encode()
WRITERS = {
    "lines.jsonl": lambda p: p.write_bytes(BYTES),
    "bom.jsonl": lambda p: p.write_bytes(b"\xef\xbb\xbf" + BYTES),
    "utf16.jsonl": lambda p: p.write_bytes(lines(ROWS).encode("utf-16")),
    "utf16be.jsonl": lambda p: p.write_bytes(lines(ROWS).encode("utf-16-be")),
    "utf32.jsonl": lambda p: p.write_bytes(lines(ROWS).encode("utf-32")),
    "crlf.jsonl": lambda p: p.write_bytes(BYTES.replace(b"\n", b"\r\n")),
    "cr.jsonl": lambda p: p.write_bytes(BYTES.replace(b"\n", b"\r")),
    "commas.jsonl": lambda p: p.write_bytes(BYTES.replace(b"\n", b",\n")),
    "one_line.json": lambda p: p.write_bytes(BYTES.replace(b"\n", b"")),
    "objects.json": lambda p: p.write_text("".join(json.dumps(r, indent=2) for r in ROWS)),
    "array.json": lambda p: p.write_text(json.dumps(ROWS)),
    "indented.json": lambda p: p.write_text(json.dumps(ROWS, indent=0)),
    "trailing.json": lambda p: p.write_text(json.dumps(ROWS)[:-1] + ",\n]"),
    "wrapped.json": lambda p: p.write_text(json.dumps({"version": [1], "data": ROWS, "n": {"data": 2}})),
    "lines.jsonl.gz": lambda p: p.write_bytes(gzip.compress(BYTES[:9]) + gzip.compress(BYTES[9:])),
    "lines.jsonl.bz2": lambda p: p.write_bytes(bz2.compress(BYTES)),
    "lines.jsonl.xz": lambda p: p.write_bytes(lzma.compress(BYTES)),
    "lines.jsonl.zst": lambda p: write_zstd(p, BYTES),
    "no_suffix": lambda p: p.write_bytes(gzip.compress(BYTES)),
    "table.parquet": lambda p: write_columns(p, ROWS),
    "table.arrow": lambda p: write_columns(p, ROWS),
    "table.feather": lambda p: write_columns(p, ROWS),
    "table.csv": lambda p: write_csv(p, ROWS, ","),
    "table.tsv": lambda p: write_csv(p, ROWS, "\t"),
    "semicolons.csv": lambda p: write_csv(p, ROWS, ";", "utf-8-sig"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_come_out_of_every_container(name, tmp_path):
    WRITERS[name](tmp_path / name)
    assert good(tmp_path / name) == ROWS


def test_nested_columns_and_nulls_come_out_as_they_are(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a", "n": None}]}, {"messages": None}]
    write_columns(tmp_path / "t.parquet", rows)
    assert good(tmp_path / "t.parquet") == rows


def test_cells_that_hold_lists_are_read_as_lists(tmp_path):
    talk = [{"role": "user", "content": "it's"}]
    write_csv(tmp_path / "t.csv", [{"a": json.dumps(talk), "b": str(talk), "c": "[not a list"}], ",")
    assert good(tmp_path / "t.csv") == [{"a": talk, "b": talk, "c": "[not a list"}]


# --- laws ---------------------------------------------------------------------------------------


def blocks(text, size):
    return (text[i : i + size] for i in range(0, len(text), size))


@settings(max_examples=80, deadline=None)
@given(nested_rows, st.sampled_from(["lines", "array", "indented", "joined"]), st.integers(1, 60))
def test_json_comes_out_whatever_its_layout_and_wherever_blocks_end(rows, layout, size):
    each = [json.dumps(row, ensure_ascii=bool(size % 2)) for row in rows]
    layouts = {
        "lines": "\n".join(each),
        "array": f"[{', '.join(each)}]",
        "indented": "\n".join(json.dumps(row, indent=1) for row in rows),
        "joined": "".join(each),
    }
    found = [row for _, row in json_values(blocks(layouts[layout], size), "x")]
    assert found == [each for row in rows for each in rows_of_value(row)]


odd_lines = st.sampled_from(
    [
        *("", " \r", "# note", "[1]", "7", '{"a": 1, "a": 2}', '{"a"\r:1,"a":2}', '{"a" :1, "b": "\\" :"}'),
        *('{"x": "\\":", "a":1, "a":2}', '{"b\\\\":1, "a":1, "a":2}', '{"a": NaN}', '{"a": "\\ud800"}'),
        *(
            '{"a":',
            '{"a":1}, ',
            '{"a":1} {"a":2}',
            '{"data": [{"a": 1}]}',
            '{"a": "\\":\\" : y", "b": ": z"}',
        ),
    ]
)


def shown(numbered):
    return [(number, row if isinstance(row, dict) else type(row)) for number, row in numbered]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(odd_lines | st.dictionaries(text, value, max_size=4).map(json.dumps), max_size=6),
    st.integers(1, 60),
    st.booleans(),
)
def test_lines_read_as_bytes_are_what_they_are_as_text(each, size, is_ended):
    joined = "\n".join(each) + "\n" * is_ended
    found = json_rows(blocks(joined.encode(), size), "x")
    assert shown(found) == shown(json_values([joined], "x"))


def test_a_line_too_long_to_be_read_whole_is_read_on_as_text(monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 100)
    rows = [{"a": "é"}, {"a": "é" * 200}, {"a": "b"}]
    assert list(json_rows(blocks(lines(rows).encode(), 30), "x")) == list(enumerate(rows, 1))


@settings(max_examples=60, deadline=None)
@given(nested_rows, st.integers(0, 500), st.integers(1, 50))
def test_a_row_cut_short_loses_that_row_alone(rows, cut, size):
    each = [json.dumps(row) for row in rows]
    broken = json.dumps({"prompt": "cut short", "completion": ["a", {"b": 1}]})
    broken = broken[: cut % (len(broken) - 1) + 1]
    found = list(json_values(blocks("\n".join([*each, broken, *each]), size), "x"))
    assert [row for _, row in found if isinstance(row, dict)] == 2 * [
        each for row in rows for each in rows_of_value(row)
    ]
    assert sum(isinstance(row, Fault) for _, row in found) == 1


@settings(max_examples=60, deadline=None)
@given(flat_rows.filter(bool), st.sampled_from(",;\t|"))
def test_csv_comes_out_as_csv_writers_write_it(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    names = ["a", "b b"]
    cells = [list(row.values()) for row in rows]
    wanted = [{"a": f"x{c[0]}", "b b": f"y{c[-1]}"} for c in cells]
    write_csv(path, wanted, delimiter)
    found = [row for _, row in rows_of(path)]
    assert found == wanted or any("\r" in str(w) for w in wanted)
    assert names == list(wanted[0])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_a_reader(tmp_path_factory, data):
    for name in ("x.json", "x.csv"):
        path = tmp_path_factory.mktemp("any") / name
        path.write_bytes(data)
        with suppress(DataError):
            assert all(isinstance(row, dict | Fault | Skip) for _, row in rows_of(path))


# --- what is broken -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1, "a": 2}', "gives a key twice"),
        ('{"a": 1,}', "not JSON"),
        ('{"a": "\x00"}', "control character"),
        ('{"a": "\\ud83d"}', "surrogate"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "recursion"),
        ('"text"', "not an object"),
        ("42", "not an object"),
        ("null", "not an object"),
        ("prompt: x", "not JSON"),
    ],
)
def test_a_broken_row_is_named_and_the_rows_around_it_are_read(tmp_path, line, said):
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"n": 1}}\n{line}\n{{"n": 2}}\n')
    first, (number, fault), last = rows_of(path)
    assert (first, last) == ((1, {"n": 1}), (3, {"n": 2}))
    assert number == 2
    assert isinstance(fault, Fault)
    assert said in str(fault)


def test_comments_and_blank_lines_are_no_rows(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('# exported\n\n   \n{"n": 1}\n// end\n')
    found = [row for _, row in rows_of(path)]
    assert [type(row) for row in found] == [Skip, dict, Skip]


def test_bytes_that_are_no_utf8_are_named_and_read_in_the_encoding_that_is_given(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"n": "você"}\n'.encode("cp1252") + b'{"n": "ok"}\n')
    (_, fault), (_, row) = rows_of(path)
    assert "--encoding" in str(fault)
    assert row == {"n": "ok"}
    assert good(path, "cp1252") == [{"n": "você"}, {"n": "ok"}]
    with pytest.raises(InputError, match="no such encoding"):
        good(path, "latin-99")


def test_what_stands_beside_wrapped_rows_is_counted(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"train": [{"n": 1}], "test": [{"n": 2}], "info": {"train": [{}]}}))
    (_, row), (_, skip) = rows_of(path)
    assert row == {"n": 1}
    assert "test" in str(skip)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_compression_is_told(tmp_path, pack):
    data = pack(b"".join(b'{"text": "row %d"}\n' % i for i in range(5000)))
    (tmp_path / "rows.jsonl").write_bytes(data[:40] + b"\xff" * 400 + data[440:])
    with pytest.raises(DataError, match=r"cannot be (decompressed|read)"):
        list(source_of(tmp_path / "rows.jsonl").read())


def test_arrow_files_with_wrong_offsets_end_in_an_error_and_not_in_a_crash(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    batch = pyarrow.record_batch({"text": ["a", "bcd"] * 20, "n": [[1, 2]] * 40})
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    data = (tmp_path / "a.arrow").read_bytes()
    for at in range(len(data) - 900, len(data), 8):
        (tmp_path / "b.arrow").write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
        with suppress(pyarrow.ArrowException, OSError):
            columnar_process._write(str(tmp_path / "b.arrow"), io.BytesIO())


def test_a_columnar_file_costs_bounded_memory_whatever_its_bytes_stand_for(tmp_path):
    """A kilobyte each: 5 columns of one text of 16 MiB, a row of 10^8 nulls, a text of 4 GiB."""
    pyarrow = pytest.importorskip("pyarrow")
    one = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 0]), pyarrow.array(["a" * (1 << 24)]))
    pyarrow.parquet.write_table(
        pyarrow.table({f"c{n}": one for n in range(5)}), tmp_path / "wide", compression="zstd"
    )
    nulls = pyarrow.ListArray.from_arrays(pyarrow.array([0, 10**8], "int32"), pyarrow.nulls(10**8))
    with pyarrow.ipc.new_stream(str(tmp_path / "nulls"), pyarrow.schema({"n": nulls.type})) as writer:
        writer.write_batch(pyarrow.record_batch({"n": nulls}))
    batch = pyarrow.record_batch({"text": ["a" * 999] * 1000})
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(str(tmp_path / "claim"), batch.schema, options=options) as writer:
        writer.write_batch(batch)
    claim = (tmp_path / "claim").read_bytes()
    size = (999_000).to_bytes(8, "little")
    assert claim.count(size) == 1
    (tmp_path / "claim").write_bytes(claim.replace(size, (1 << 42).to_bytes(8, "little")))
    for name, got in (("wide", "a row of"), ("nulls", "a row of"), ("claim", "memory|crashed|invalid")):
        assert (tmp_path / name).stat().st_size < 100_000
        with pytest.raises(DataError, match=f"{name} cannot be read as a table; got: .*(?:{got})"):
            list(source_of(tmp_path / name).read())


def test_numbers_of_columns_are_those_of_json_and_types_are_plain(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    names = pyarrow.array(["a", "b", "a"]).dictionary_encode()
    columns = {"n": [1.5, float("nan"), float("inf")], "name": names, "many": [[1], None, []]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t")
    (_, first), (_, second), (_, third) = source_of(tmp_path / "t").read()
    assert (first, second) == ({"n": 1.5, "name": "a", "many": [1]}, {"n": None, "name": "b", "many": None})
    assert isinstance(third, Fault)


def test_a_csv_without_an_end_of_line_is_not_read_whole(monkeypatch):
    monkeypatch.setattr(tables, "MAX_VALUE_CHARS", 1000)
    read = []

    def blocks():
        for _ in range(100):
            read.append(1)
            yield "a" * 100

    with pytest.raises(DataError, match="line is too long"):
        list(tables.csv_rows(blocks(), "wide.csv"))
    assert len(read) < 20


def test_a_csv_of_ragged_rows_or_without_names_is_told(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,2\n3\n"x"y,2\n5,6\n')
    assert [type(row) for _, row in rows_of(path)] == [dict, Fault, Fault, dict]
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="name"):
        rows_of(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04rest", "ZIP archive or a spreadsheet"),
        (gzip.compress(BYTES, mtime=0)[:-20], "cannot be decompressed|cannot be read"),
        (b"\x1f\x8bnot gzip", "cannot be read|cannot be decompressed"),
        (b"PAR1 not a table PAR1", "cannot be read as a table"),
    ],
)
def test_files_of_other_kinds_and_damaged_ones_are_refused_in_words(tmp_path, data, said):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match=said):
        rows_of(tmp_path / "x")


def test_a_bomb_is_refused_before_it_fills_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(bytes_of_files, "BOMB_BYTES", 1 << 20)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (8 << 20)))
    with pytest.raises(DataError, match="grows without end"):
        rows_of(path)


def test_memory_holds_one_row_of_an_array_whatever_its_length():
    import tracemalloc

    row = json.dumps({"prompt": "x" * 1000, "completion": "y" * 1000})
    tracemalloc.start()
    endless = (f"{'[' if i == 0 else ','}{row}" for i in range(5000))  # 10 MB
    assert sum(1 for _, each in json_values(endless, "x") if isinstance(each, dict)) == 5000
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# --- folders and the hub ------------------------------------------------------------------------


def test_a_folder_is_read_in_the_order_of_names_without_evaluation_splits(tmp_path):
    for name in ("data/b.jsonl", "data/a.csv", "data/test-00000.parquet", "README.md", ".cache/c.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    files, left_out = files_of(tmp_path)
    assert [path.name for path in files] == ["a.csv", "b.jsonl"]
    assert {p.name: why.split(":")[0] for p, why in left_out.items()} == {
        "README.md": "not a file of rows",
        "test-00000.parquet": "named after an evaluation split",
    }
    with pytest.raises(DataError, match="no file of rows"):
        files_of(tmp_path / ".cache" / "empty")


def test_a_dataset_of_the_hub_is_streamed_and_a_failure_is_told(monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load(*names, **options):
        calls.append((names, options))
        if names[0] == "a/none":
            raise ConnectionError("no network")
        return iter([{"prompt": "p"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(hub_source("hf://a/b/c:validation").read()) == [(1, {"prompt": "p"})]
    assert calls == [(("a/b", "c"), {"split": "validation", "streaming": True})]
    with pytest.raises(DataError, match="no network"):
        list(hub_source("hf://a/none").read())
    with pytest.raises(InputError):
        hub_source("hf://a")


TWO = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": None}]
BY_COLUMNS = {"prompt": ["a", "c"], "completion": ["b", None]}


@pytest.mark.parametrize(
    "value",
    [
        BY_COLUMNS,
        {column: {str(i): cell for i, cell in enumerate(cells)} for column, cells in BY_COLUMNS.items()},
        {str(i): row for i, row in enumerate(TWO)},
        {"rows": [{"row_idx": i, "row": row, "truncated_cells": []} for i, row in enumerate(TWO)], "num": 2},
    ],
    ids=["lists", "pandas columns", "pandas index", "hub"],
)
def test_a_table_in_one_object_is_its_rows(tmp_path, value):
    (tmp_path / "t.json").write_text(json.dumps(value, indent=1))
    assert good(tmp_path / "t.json") == TWO


def test_a_conversation_is_a_row_and_no_table(tmp_path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "t.json").write_text(json.dumps([talk, talk]))
    assert good(tmp_path / "t.json") == [{"messages": talk}] * 2
    for row in (
        {"dialog": ["a", "b"], "act": [1, 2]},
        {"id": "x", "items": [{"from": "human", "value": "a"}]},
    ):
        (tmp_path / "t.jsonl").write_text(json.dumps(row))
        assert good(tmp_path / "t.jsonl") == [row]


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x80\x04]\x94.", "pickle"),
        (gzip.compress(b"a.jsonl".ljust(257, b"\0") + b"ustar", mtime=0), "tar archive"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, start, what):
    (tmp_path / "t.jsonl").write_bytes(start)
    with pytest.raises(DataError, match=what):
        rows_of(tmp_path / "t.jsonl")


def test_blank_lines_without_end_are_counted_and_passed_over():
    many = [b'{"a": 1}\n', *[b"\n" * 1000] * 50, b' {"a": 2}\n', b" \r\n \n  ", b'\n{"a": 3}']
    assert list(json_rows(iter(many), "x")) == [(1, {"a": 1}), (50_002, {"a": 2}), (50_006, {"a": 3})]
