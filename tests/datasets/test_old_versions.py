"""Datasets that earlier versions wrote are read as before."""

import json

from escultor.datasets.versions import find_version, read_rows
from escultor.store import open_store
from escultor.types import Consent, DatasetVersion, Message, Origin, Role, UnpairedExample

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
