"""What was made of erased entries is found: directly, through other datasets, and in who descends from it."""

import json

import pytest

from escultor.datasets import provenance
from escultor.datasets.provenance import derived_from
from escultor.ids import plain
from escultor.store import open_store
from escultor.types import (
    Checkpoint,
    DatasetVersion,
    Document,
    Interaction,
    Message,
    Origin,
    Rating,
    Role,
    Sampling,
    Usage,
)


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path)) as opened:
        yield opened


def asked(id, subject):
    return Interaction(
        id, 1.0, "chat", subject, "v1", "champion", 1.0, (Message(Role.USER, "q"),), "a", "stop",
        Sampling(), Usage(1, 1), 9.0, None, 0.0, "h",
    )  # fmt: skip


def dataset(store, name, **rows):
    """A dataset whose rows are documents, each made of some parents."""
    made = [Document(id, 'said: "parents": ["a1"]', Origin(parents, "r")) for id, parents in rows.items()]
    text = "".join(json.dumps(plain(row)) + "\n" for row in made)
    blob = store.blobs.put_bytes(text.encode())
    version = DatasetVersion(f"hash-{name}", name, "document", len(made), {}, blob)
    store.log.append(version)
    return version


def checkpoint(store, id, data="", *parents):
    store.log.append(Checkpoint(id, id, "sft", parents, "", data, "", 0, 1))


def names(things):
    return [thing.name for thing in things]


@pytest.fixture
def trained(store):
    store.log.append(asked("a1", "ann"), asked("b1", "bob"), Rating("r1", 1.0, "b1", "ann", "thumb", True))
    dataset(store, "direct", d1=("a1", "b1"), d2=("b1",))
    dataset(store, "clean", c1=("b1",), c2=("d2",))
    dataset(store, "by-feedback", f1=("r1",))
    dataset(store, "second-hand", s1=("d1",))
    dataset(store, "third-hand", t1=("s1",))
    checkpoint(store, "base")
    checkpoint(store, "one", "hash-direct", "base")
    checkpoint(store, "two", "hash-clean", "base")
    checkpoint(store, "three", "hash-third-hand", "two")
    checkpoint(store, "child", "hash-clean", "one")
    checkpoint(store, "grandchild", "hash-elsewhere", "child")
    return store


def test_datasets_and_checkpoints_made_of_erased_entries_are_found_however_indirectly(trained):
    erasure = trained.log.erase("ann", by="ann")
    found = derived_from(trained, [erasure.id])
    assert sorted(names(found.datasets)) == ["by-feedback", "direct", "second-hand", "third-hand"]
    assert sorted(names(found.trained)) == ["one", "three"]
    assert names(found.descended) == ["child", "grandchild"]
    assert names(found.unknown) == ["grandchild"]
    assert found.summary()["checkpoints"][0] == {"name": "one", "id": "one", "how": "trained on it"}


def test_it_can_be_asked_again_and_reads_no_blob_twice(trained, monkeypatch):
    erasure = trained.log.erase("ann", by="ann")
    first = derived_from(trained, [erasure.id])
    monkeypatch.setattr(provenance, "_all_numbers", None)
    assert derived_from(trained, [erasure.id]) == first


def test_an_index_that_was_cut_short_is_made_again(trained):
    erasure = trained.log.erase("ann", by="ann")
    first = derived_from(trained, [erasure.id])
    for path in (trained.root / "cache" / "parents").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert derived_from(trained, [erasure.id]) == first


def test_nothing_is_made_of_what_was_never_used_and_a_missing_blob_is_no_answer(trained):
    assert derived_from(trained, []).datasets == ()
    erasure = trained.log.erase("nobody", by="ann")
    assert derived_from(trained, [erasure.id]).datasets == ()
    trained.log.append(DatasetVersion("hash-lost", "lost", "document", 1, {}, "0" * 32))
    erasure = trained.log.erase("ann", by="ann")
    assert names(derived_from(trained, [erasure.id]).unreadable) == ["lost"]
