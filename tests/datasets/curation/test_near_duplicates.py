"""Which rows are called duplicates, and that none is without a reason."""

import itertools

import numpy as np
import pytest
from curate_rows import changed, example, jsonl, text

from escultor.config.curation import Curation
from escultor.datasets.curation.pipeline import curate
from escultor.datasets.rows import read_line, text_parts
from escultor.text.shingles import jaccard, shingle_set

DEDUP = Curation(steps=("exact", "near"), workers=1)


def kept(tmp_path, rows, settings=DEDUP):
    made = curate([jsonl(tmp_path / "in.jsonl", *rows)], tmp_path / "out", settings)
    lines = made.rows.read_bytes().splitlines()
    return made, [read_line(made.kind, line) for line in lines]


def test_a_row_that_says_the_same_goes_and_the_first_stays(tmp_path):
    rows = [example(1), example(2), {k: f"  {v.upper()}\n" for k, v in example(1).items()}]
    made, left = kept(tmp_path, rows)
    assert made.steps[1].removed == {"exact duplicate": 1}
    assert [row.item.response for row in left] == [example(1)["completion"], example(2)["completion"]]


def test_an_id_that_names_two_rows_names_the_first(tmp_path):
    made, left = kept(tmp_path, [example(1, id="x"), example(2, id="x"), example(3)])
    assert made.steps[1].removed == {"id of another row": 1}
    assert len(left) == 2


def test_verdicts_and_sides_that_differ_are_no_duplicates(tmp_path):
    said = {"prompt": text(1), "completion": text(2)}
    _, left = kept(tmp_path, [{**said, "label": True}, {**said, "label": False}])
    assert len(left) == 2
    sides = {"prompt": "what?", "chosen": text(1), "rejected": text(2)}
    (tmp_path / "pairs").mkdir()
    swapped = sides | {"chosen": text(2), "rejected": text(1)}
    assert len(kept(tmp_path / "pairs", [sides, swapped])[1]) == 2


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """200 texts, half of them with a copy of one or two changed words."""
    folder = tmp_path_factory.mktemp("near")
    rows = [{"text": text(i), "id": f"o{i}"} for i in range(200)]
    rows += [{"text": changed(text(i), i, 1 + i % 2), "id": f"c{i}"} for i in range(0, 200, 2)]
    return rows, *kept(folder, rows)


def test_every_planted_copy_above_the_threshold_is_found(planted):
    rows, _, left = planted
    by_id = {row["id"]: shingle_set((("text", row["text"]),)) for row in rows}
    copies = [f"c{i}" for i in range(0, 200, 2) if jaccard(by_id[f"c{i}"], by_id[f"o{i}"]) >= 0.75]
    ids = {row.item.id for row in left}
    assert len(copies) > 90
    assert sum(id in ids for id in copies) <= 1  # odds at J = 0.85 are 0.9999, at 0.75 they are 0.98


def test_no_row_goes_without_a_similar_one_that_stays(planted):
    rows, made, left = planted
    sets = [shingle_set(text_parts(row.item)) for row in left]
    gone = {row["id"] for row in rows} - {row.item.id for row in left}
    assert len(gone) == made.steps[2].removed["near duplicate"]
    for row in rows:
        if row["id"] in gone:
            own = shingle_set((("text", row["text"]),))
            assert max(jaccard(own, other) for other in sets) >= 0.75


def test_a_chain_is_cut_where_its_end_is_no_longer_alike(tmp_path):
    words = text(1, 80).split()
    rows = [
        {"text": " ".join(words[:at] + [f"new{at}word{k}" for k in range(8)] + words[at + 8 :])}
        for at in (0,)
    ]
    chain = [words]
    for at in range(0, 72, 6):
        chain.append(
            [*(f"other{i}" for i in range(at, at + 6)), *chain[-1][6:]]
            if at == 0
            else chain[-1][:at] + [f"other{i}" for i in range(at, at + 6)] + chain[-1][at + 6 :]
        )
    rows = [{"text": " ".join(each)} for each in chain]
    left = kept(tmp_path, rows)[1]
    sets = [shingle_set(text_parts(row.item)) for row in left]
    assert len(left) > 1
    for row in rows:
        assert max(jaccard(shingle_set((("text", row["text"]),)), other) for other in sets) >= 0.75


def test_a_bucket_of_many_costs_sixteen_comparisons_a_row():
    from escultor.datasets.similarity.duplicates import candidate_pairs

    pairs = candidate_pairs(np.zeros(5000, dtype=np.uint64), np.arange(5000))
    assert len(pairs) <= 16 * 5000
    assert (pairs[:, 0] < pairs[:, 1]).all()
    small = candidate_pairs(np.zeros(9, dtype=np.uint64), np.arange(9))
    assert {tuple(pair) for pair in small.tolist()} == set(itertools.combinations(range(9), 2))
