"""Datasets that earlier versions wrote are read as before."""

import json

import pytest

from escultor.datasets.versions import find_version, read_rows
from escultor.store import open_store
from escultor.types import Consent, DatasetVersion, Example, Message, Origin, Pair, Role, UnpairedExample

ROW = {
    "prompt": [{"role": "user", "content": "What is 2 + 2?"}],
    "completion": "4",
    "label": True,
    "id": "v1",
    "origin": {"parents": ["a1"], "rule": "import/judged/1", "consent": "train"},
    "weight": 1.0,
    "labels": {"topic": "sums"},
    "figures": {},
    "source": "old.jsonl",
}


def test_rows_of_unpaired_examples_that_were_called_judged_are_read(tmp_path):
    with open_store(str(tmp_path)) as store:
        blob = store.blobs.put_bytes(json.dumps(ROW).encode() + b"\n")
        store.log.append(DatasetVersion("hash", "june-judged", "unpaired", 1, {"kept": 1}, blob))
        (row,) = read_rows(store, find_version(store, "june-judged"))
    prompt = (Message(Role.USER, "What is 2 + 2?"),)
    origin = Origin(("a1",), "import/judged/1", Consent.TRAIN)
    assert row.item == UnpairedExample("v1", prompt, "4", True, origin)
    assert row.labels == {"topic": "sums"}


ORIGIN = {"_": "Origin", "parents": ["d1"], "rule": "gold/1", "consent": "train"}
ASK = [{"_": "Message", "role": "user", "content": "What is 2 + 2?"}]
MADE = Origin(("d1",), "gold/1", Consent.TRAIN)
ASKED = (Message(Role.USER, "What is 2 + 2?"),)


@pytest.mark.parametrize(
    ("kind", "written", "item"),
    [
        ("example", {"_": "Example", "response": "4"}, Example("r1", ASKED, "4", MADE)),
        (
            "pair",
            {"_": "Pair", "chosen": "4", "rejected": "5", "flip_rate": 0.25},
            Pair("r1", ASKED, "4", "5", MADE, flip_rate=0.25),
        ),
        (
            "unpaired",
            {"_": "Judged", "response": "4", "desirable": True},
            UnpairedExample("r1", ASKED, "4", True, MADE),
        ),
    ],
)
def test_rows_that_cycles_of_the_first_version_wrote_are_read(tmp_path, kind, written, item):
    row = written | {"id": "r1", "prompt": ASK, "origin": ORIGIN, "weight": 1.0}
    with open_store(str(tmp_path)) as store:
        blob = store.blobs.put_bytes(json.dumps(row).encode() + b"\n")
        store.log.append(DatasetVersion("hash", "cycle", kind, 1, {"rule gold/1": 1}, blob))
        (read,) = read_rows(store, find_version(store, "cycle"))
    assert (read.item, read.source) == (item, "gold/1")
