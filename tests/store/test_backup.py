"""Backups hold one moment of the store, taken while others write, and come back whole; unused blobs go."""

import json
import os
import threading
import time

import pytest
from store_records import make_interaction

from escultor.errors import InputError, StoreError
from escultor.store import open_store
from escultor.store.backup import MARKER, back_up, list_blobs, restore
from escultor.store.blobs import Blobs
from escultor.store.garbage import KEPT_S, collect
from escultor.store.secrets import secret
from escultor.types import Erasure, Interaction, Step


def contents(store):
    return [(seq, record.id) for seq, record in store.log.read(Interaction)]


def test_a_backup_comes_back_whole(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = tmp_path / "model"
    tree.mkdir()
    (tree / "weights").write_bytes(b"123")
    blob, kept = store.blobs.put_bytes(b"rows"), store.blobs.put_tree(tree)
    store.log.append(*(make_interaction(f"a{k}") for k in range(50)))
    store.log.append(Step("k", 1.0, "train", 2.0, {"tree": kept, "rows": blob}))
    store.log.append(make_interaction("gone", "someone"))
    store.log.erase("someone", "test")
    key = secret(store.root, "subjects")
    found = back_up(store, tmp_path / "backup")
    assert found["blobs"] == 2
    restore(tmp_path / "backup", str(tmp_path / "again"))
    with open_store(str(tmp_path / "again")) as again:
        assert contents(again) == contents(store)
        assert again.blobs.get_bytes(blob) == b"rows"
        assert (again.blobs.tree(kept) / "weights").read_bytes() == b"123"
        assert secret(again.root, "subjects") == key
        assert again.log.count(Erasure) == 1
        (seq,) = again.log.append(make_interaction("next"))
        assert seq > max(seq for seq, _ in contents(store))
        with pytest.raises(StoreError):
            again.log.append(make_interaction("gone", "someone"))


def test_a_backup_goes_back_to_a_database_server(postgres_url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store(str(tmp_path / "store")) as store:
        store.log.append(*(make_interaction(f"a{k}") for k in range(20)))
        back_up(store, tmp_path / "backup")
        before = contents(store)
    restore(tmp_path / "backup", postgres_url)
    with open_store(postgres_url) as again:
        assert contents(again) == before
        (seq,) = again.log.append(make_interaction("next"))
        assert seq == 21


def test_a_backup_is_of_one_moment_while_others_write(tmp_path):
    stop = threading.Event()
    with open_store(str(tmp_path / "store")) as store:
        written = []

        def write():
            while not stop.is_set():
                hash = store.blobs.put_bytes(f"rows {len(written)}".encode())
                store.log.append(Step(f"s{len(written)}", 1.0, "rows", 0.0, {"blob": hash}))
                written.append(hash)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            while len(written) < 20 and thread.is_alive():
                time.sleep(0.01)
            back_up(store, tmp_path / "backup")
        finally:
            stop.set()
            thread.join()
    restore(tmp_path / "backup", str(tmp_path / "again"))
    with open_store(str(tmp_path / "again")) as again:
        steps = [step for _, step in again.log.read(Step)]
        assert [step.key for step in steps] == [f"s{k}" for k in range(len(steps))]
        assert len(steps) >= 20
        for step in steps:
            assert again.blobs.get_bytes(str(step.result["blob"]))


def test_a_second_backup_copies_what_is_new(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        store.blobs.put_bytes(b"one")
        assert back_up(store, tmp_path / "backup")["blobs_copied"] == 1
        store.blobs.put_bytes(b"two")
        store.log.append(make_interaction("a"))
        found = back_up(store, tmp_path / "backup")
        assert (found["blobs"], found["blobs_copied"], found["last_entry"]) == (2, 1, 1)


def test_the_next_backup_drops_what_the_store_has_removed(aged, tmp_path):
    store, kept, _ = aged
    back_up(store, tmp_path / "backup")
    collect(store)
    back_up(store, tmp_path / "backup")
    assert {*list_blobs(Blobs(tmp_path / "backup" / "blobs"))} == kept


def test_damage_and_wrong_folders_are_refused_before_anything_is_written(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        hash = store.blobs.put_bytes(b"one")
        back_up(store, tmp_path / "backup")
        store.log.append(make_interaction("a"))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").touch()
        with pytest.raises(InputError, match="something else"):
            back_up(store, tmp_path / "other")
    with pytest.raises(InputError, match="not empty"):
        restore(tmp_path / "backup", str(tmp_path / "store"))
    with pytest.raises(InputError, match="no backup"):
        restore(tmp_path / "other", str(tmp_path / "new"))
    path = tmp_path / "backup" / "blobs" / "bytes" / hash[:2] / hash
    path.chmod(0o644)
    path.write_bytes(b"two")
    with pytest.raises(StoreError, match="damaged"):
        restore(tmp_path / "backup", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_backup_that_was_cut_off_leaves_the_one_before(tmp_path, monkeypatch):
    with open_store(str(tmp_path / "store")) as store:
        store.log.append(make_interaction("a"))
        back_up(store, tmp_path / "backup")
        before = json.loads((tmp_path / "backup" / MARKER).read_text())
        store.log.append(make_interaction("b"))
        with monkeypatch.context() as broken:
            broken.setattr("escultor.store.backup._copy_blobs", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                back_up(store, tmp_path / "backup")
    assert json.loads((tmp_path / "backup" / MARKER).read_text()) == before
    restore(tmp_path / "backup", str(tmp_path / "again"))
    with open_store(str(tmp_path / "again")) as again:
        assert [id for _, id in contents(again)] == ["a"]


@pytest.mark.parametrize("step", ["backup._copy_rows", "backup._copy_blobs", "files.atomic_write"])
def test_a_first_backup_that_was_cut_off_is_taken_again(tmp_path, monkeypatch, step):
    with open_store(str(tmp_path / "store")) as store:
        store.log.append(make_interaction("a"))
        with monkeypatch.context() as broken:
            broken.setattr(f"escultor.store.{step}", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                back_up(store, tmp_path / "backup")
        (tmp_path / "backup" / "backup.lock").unlink(missing_ok=True)  # as on some platforms
        with pytest.raises(InputError, match="no backup"):
            restore(tmp_path / "backup", str(tmp_path / "early"))
        back_up(store, tmp_path / "backup")
    restore(tmp_path / "backup", str(tmp_path / "again"))


# --- unused blobs ------------------------------------------------------------------------------


@pytest.fixture
def aged(tmp_path):
    """A store whose blobs are two days old: one that the log names, one that a kept blob names, and two that
    nothing names, of which one is a tree."""
    with open_store(str(tmp_path / "store")) as store:
        inner = store.blobs.put_bytes(b"inner")
        card = store.blobs.put_bytes(json.dumps({"rows": inner}).encode())
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "weights").write_bytes(b"1234")
        unused = [store.blobs.put_bytes(b"unused"), store.blobs.put_tree(tmp_path / "model")]
        store.log.append(Step("k", 1.0, "data", 0.0, {"card": card}))
        old = time.time() - 2 * KEPT_S
        for path in (*store.blobs.root.glob("bytes/*/*"), *store.blobs.root.glob("trees/*")):
            os.utime(path, (old, old))
        yield store, {inner, card}, unused


def test_only_blobs_that_nothing_names_are_removed(aged):
    store, kept, unused = aged
    assert collect(store, dry_run=True)[:3] == (2, len(b"unused") + 4 + manifest_size(store, unused[1]), 2)
    found = collect(store)
    assert (found.removed, found.kept, found.too_young) == (2, 2, 0)
    for hash in kept:
        store.blobs.get_bytes(hash)
    for hash in unused:
        with pytest.raises(StoreError):
            store.blobs.verify(hash)
    assert collect(store).removed == 0


def manifest_size(store, tree):
    return (store.blobs.root / "trees" / tree / "manifest.json").stat().st_size


def test_a_blob_that_is_put_again_is_young_again(aged):
    store, _, _ = aged
    store.blobs.put_bytes(b"unused")
    found = collect(store)
    assert (found.removed, found.too_young) == (1, 1)
    assert store.blobs.put_bytes(b"unused")


def test_a_hash_within_longer_digits_keeps_its_blob(aged):
    store, _, unused = aged
    store.log.append(Step("long", 1.0, "data", 0.0, {"text": f"aa{unused[0]}ff"}))
    assert collect(store).kept == 3


def test_a_backup_loses_the_pages_that_the_store_has_erased_and_lies_outside_of_it(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        page = store.root / "verdicts" / "v" / "verdict.html"
        page.parent.mkdir(parents=True)
        page.write_text("a text")
        back_up(store, tmp_path / "backup")
        page.unlink()
        back_up(store, tmp_path / "backup")
        assert not (tmp_path / "backup" / "verdicts" / "v" / "verdict.html").exists()
        with pytest.raises(InputError, match="inside the store"):
            back_up(store, store.root / "backup")
