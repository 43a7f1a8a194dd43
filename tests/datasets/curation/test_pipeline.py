"""The pipeline as a whole: the same whatever the workers, all rows accounted for, nothing half-done."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from curate_rows import changed, example, jsonl, text

from escultor.config.curation import Curation
from escultor.datasets.curation.pipeline import curate, split_into_passes
from escultor.datasets.curation.steps import STEPS
from escultor.datasets.disk import columns, rows_on_disk
from escultor.errors import DataError, InputError, StoreError

SPLIT = {"held_out": 0.3}
ANY = {"keep": []}


def many(path: Path, count: int = 120) -> Path:
    rows = [example(i, subject=f"s{i % 7}", time=float(i)) for i in range(count)]
    rows += [
        example(i, time=count + i) | {"completion": changed(str(example(i)["completion"]), i)}
        for i in range(0, count, 3)
    ]
    rows += [example(i) for i in range(0, count, 4)]
    rows[5]["completion"] += " Mail me: ana@mail.example.org"
    return jsonl(path, *rows)


def test_the_result_depends_on_no_number_of_workers_and_rows_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_on_disk, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(rows_on_disk.line_ranges, "__defaults__", (4096,))
    source = many(tmp_path / "in.jsonl")
    results = []
    for workers in (1, 2):
        settings = Curation.model_validate({"workers": workers, "language": ANY, "split": SPLIT})
        made = curate([source], tmp_path / f"out{workers}", settings, top=60)
        results.append(
            (made.rows.read_bytes(), made.held_out.read_bytes(), made.steps, made.split, made.after)
        )
    assert results[0] == results[1]
    steps = results[0][2]
    assert [step.name for step in steps] == ["parse", *Curation().steps, "top"]
    for one, other in pairwise(steps):
        assert one.left == other.before
    assert steps[0].before == 190
    assert (
        sum(results[0][4]["style"].values())
        == steps[-1].left
        == made.counts["train"] + made.counts["held out"]
    )
    assert sorted(path.name for path in (tmp_path / "out1").iterdir()) == ["held-out.jsonl", "train.jsonl"]


def test_the_result_depends_on_no_number_of_rows_that_are_sorted_at_once(tmp_path, monkeypatch):
    source = many(tmp_path / "in.jsonl")
    settings = Curation.model_validate({"workers": 1, "language": ANY, "split": SPLIT})
    results = []
    for rows in (columns.WINDOW_ROWS, 7):
        monkeypatch.setattr(columns, "WINDOW_ROWS", rows)
        made = curate([source], tmp_path / f"out{rows}", settings)
        results.append((made.rows.read_bytes(), made.held_out.read_bytes(), made.steps, made.split))
    assert results[0] == results[1]
    assert results[0][2][2].removed["near duplicate"] > 30


@pytest.mark.parametrize("by", ["prompt", "subject", "time"])
def test_the_best_n_are_n_rows_to_train_on_and_what_is_held_out_shrinks_alike(tmp_path, by):
    source = many(tmp_path / "in.jsonl")
    settings = Curation.model_validate(
        {"workers": 1, "language": ANY, "near": {"threshold": 1}, "split": SPLIT | {"by": by}}
    )
    whole = curate([source], tmp_path / "whole", settings)
    made = curate([source], tmp_path / "top", settings, top=20)
    held = round(20 * whole.counts["held out"] / whole.counts["train"])
    assert made.counts == {"train": 20, "held out": held}
    left_out = made.split["left out: prompt is held out"]
    assert made.steps[-1].left == 20 + held + left_out
    assert made.split["held_out"] == pytest.approx(held / (20 + held + left_out))
    for one, other in ((made.rows, whole.rows), (made.held_out, whole.held_out)):
        assert set(one.read_bytes().splitlines()) <= set(other.read_bytes().splitlines())
    with pytest.raises(InputError, match="fewer rows to train on"):
        curate([source], tmp_path / "many", settings, top=whole.counts["train"] + 1)


def test_broken_rows_are_left_out_with_their_reason_and_place(tmp_path):
    source = jsonl(tmp_path / "in.jsonl", example(1), {"prompt": "a"}, example(2, weight=-1), example(3))
    with source.open("ab") as file:
        file.write(b'{"prompt": "x", "completion": "\xff"}\n\n{"prompt": "ana@mail.example.org"')
    made = curate([source], tmp_path / "out", Curation(workers=1, steps=("exact",)))
    parsed = made.steps[0]
    assert (parsed.before, parsed.left) == (6, 2)
    assert sum(parsed.removed.values()) == 4
    assert {e.source for e in parsed.examples} == {f"in.jsonl:{n}" for n in (2, 3, 5, 7)}
    assert not any("ana@" in e.text for e in parsed.examples)


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1" * 400, '"now"', "true"])
def test_what_is_no_number_breaks_its_row_and_no_run(tmp_path, value):
    path = jsonl(tmp_path / "in.jsonl", example(1))
    row = json.dumps(example(2))[:-1]
    with path.open("a") as file:
        file.write(f'{row}, "time": {value}}}\n{row}, "figures": {{"quality": {value}}}}}\n')
    made = curate([path], tmp_path / "out", Curation(workers=1, steps=("exact",)))
    assert (made.steps[0].left, sum(made.steps[0].removed.values())) == (1, 2)


def test_a_file_may_begin_with_broken_rows_and_is_refused_where_no_row_is_sound(tmp_path):
    path = tmp_path / "in.jsonl"
    sound = json.dumps(example(1)).encode()
    path.write_bytes(b"\xff\xfe\x00\n{}\n[1]\n" + sound + b"\n")
    made = curate([path], tmp_path / "out", Curation(workers=1, steps=("exact",)))
    assert (made.steps[0].before, made.steps[0].left) == (4, 1)
    for rubbish in (b"", b"\n\n", b"\x00" * 5000, b"\xff\n" * 500 + sound):
        path.write_bytes(rubbish)
        with pytest.raises(DataError, match=r"in\.jsonl"):
            curate([path], tmp_path / "none", Curation(workers=1))


def test_examples_show_no_private_data(tmp_path):
    row = example(1) | {"completion": text(2) + " ana@mail.example.org"}
    made = curate(
        [jsonl(tmp_path / "in.jsonl", row, row)], tmp_path / "out", Curation(workers=1, language=ANY)
    )
    (shown,) = made.steps[1].examples
    assert shown.reason == "exact duplicate"
    assert "ana@" not in shown.text


def test_no_row_left_and_files_of_two_kinds_are_refused(tmp_path):
    one = jsonl(tmp_path / "one.jsonl", example(1))
    two = jsonl(tmp_path / "two.jsonl", {"text": text(1)})
    with pytest.raises(DataError, match="no row is left"):
        curate([one], tmp_path / "a", Curation.model_validate({"workers": 1, "length": {"min_words": 500}}))
    with pytest.raises(DataError, match="different kinds"):
        curate([one, two], tmp_path / "b", Curation(workers=1))


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_ranges_hold_every_line_once(tmp_path, size):
    path = tmp_path / "x"
    for data in (b"", b"\n", b"a", b"a\n\nbb\nccc", b"\n".join(b"x" * n for n in range(30)) + b"\n"):
        path.write_bytes(data)
        found = list(rows_on_disk.line_ranges(path, size))
        assert b"".join(data[r.start : r.end] for r in found) == data
        for r in found:
            assert r.first_line == data[: r.start].count(b"\n") + 1
            assert r.start == 0 or data[r.start - 1 : r.start] == b"\n"


def test_a_line_over_the_limit_is_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_on_disk, "MAX_LINE_BYTES", 2000)
    monkeypatch.setattr(rows_on_disk.line_ranges, "__defaults__", (500,))
    huge = {"prompt": "a", "completion": "b" * 10_000}
    source = jsonl(tmp_path / "in.jsonl", example(1), huge, example(2))
    made = curate([source], tmp_path / "out", Curation(workers=1, steps=("exact",)))
    assert made.steps[0].removed == {"line too long": 1}
    assert made.counts["train"] == 2


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    source = many(tmp_path / "in.jsonl", 12)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="free disk space"):
        curate([source], tmp_path / "out", Curation(workers=1))


def test_sources_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = []
    for at, folder in enumerate(("a/raw", "b/raw", "c")):
        (tmp_path / folder).mkdir(parents=True)
        rows = [example(f"{at} {i}") for i in range(at + 1)]
        paths.append(jsonl(tmp_path / folder / ("x.jsonl" if at < 2 else "y.jsonl"), *rows, {"prompt": "a"}))
    made = curate(paths, tmp_path / "out", Curation(workers=1, steps=("exact",)))
    assert made.sources == {"a/raw/x.jsonl": 1, "b/raw/x.jsonl": 2, "y.jsonl": 3}
    shown = [each.source for each in made.steps[0].examples]
    assert shown == ["a/raw/x.jsonl:2", "b/raw/x.jsonl:3", "y.jsonl:4"]


@pytest.mark.parametrize("change", ["written to", "is gone"])
def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, change):
    source = many(tmp_path / "in.jsonl", 12)

    def told(name, before, left):
        if name == "rows":
            source.write_text("") if change == "written to" else source.unlink()

    with pytest.raises(DataError, match=f"changed while it was read.*{change}"):
        curate([source], tmp_path / "out", Curation(workers=1), progress=told)


def test_steps_run_in_any_order_in_as_few_passes_as_can_be(tmp_path):
    order = ("private", "near", "exact", "language", "length", "balance")
    assert split_into_passes(order) == [
        (("private",), ("near", "exact")),
        (("language", "length"), ("balance",)),
    ]
    assert set(Curation().steps) <= set(STEPS)
    source = many(tmp_path / "in.jsonl", 30)
    settings = Curation.model_validate({"workers": 1, "steps": order, "language": ANY})
    made = curate([source], tmp_path / "out", settings)
    assert [step.name for step in made.steps] == [
        "parse",
        "private",
        "near",
        "exact",
        "language",
        "length",
        "balance",
    ]
    assert made.counts["train"] == 30


def test_output_is_read_by_training(tmp_path):
    from escultor.data.jsonl import read_jsonl

    made = curate([many(tmp_path / "in.jsonl", 12)], tmp_path / "out", Curation(workers=1))
    found = read_jsonl(made.rows, "example")
    assert len(found.items) == made.counts["train"]
    assert "figures" in json.loads(made.rows.read_text().splitlines()[0])
