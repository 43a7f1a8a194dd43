import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.errors import DataError, InputError, StoreError
from escultor.ids import hash_bytes
from escultor.store import files
from escultor.store.blobs import Blobs, sibling_tree, tree_hash

CONTENT = {"config.json": b"{}", "weights/one.bin": b"\0" * 5000, "weights/two.bin": b"2"}
ABSENT = "0" * 32


def write_files(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files.list_files(folder)}


def leftovers(blobs: Blobs) -> list[Path]:
    """The writes that are under way, or were when their process died."""
    return list((blobs.root / "partial").glob("*"))


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def folder(tmp_path):
    return write_files(tmp_path / "source", CONTENT)


# --- bytes ------------------------------------------------------------------------------------


def test_bytes_come_back_and_their_name_is_their_hash(tmp_path):
    blobs = Blobs(tmp_path)

    @settings(deadline=None, max_examples=25)
    @given(st.binary(max_size=200))
    def law(data):
        assert blobs.put_bytes(data) == blobs.put_bytes(data) == hash_bytes(data)
        assert blobs.put_chunks([data[:9], b"", data[9:]]) == hash_bytes(data)
        assert blobs.get_bytes(hash_bytes(data)) == data
        blobs.verify(hash_bytes(data))

    law()
    assert leftovers(blobs) == []


def test_absent_bytes_are_named_with_the_remedy(blobs):
    with pytest.raises(StoreError, match=f"no such bytes.*got: {ABSENT}; remedy: copy it"):
        blobs.get_bytes(ABSENT)


def test_damaged_bytes_are_never_returned(blobs):
    hash = blobs.put_bytes(b"data")
    (path,) = (blobs.root / "bytes").rglob(hash)
    path.chmod(0o644)
    path.write_bytes(b"dada")
    for read in (blobs.get_bytes, blobs.verify):
        with pytest.raises(StoreError, match=f"damaged.*{hash}"):
            read(hash)


@pytest.mark.parametrize("hash", ["", "../../etc/passwd", "0" * 31, "0" * 31 + "G", "0" * 32 + "\n"])
def test_text_that_is_no_hash_never_becomes_a_path(blobs, hash):
    for use in (blobs.get_bytes, blobs.tree, blobs.verify):
        with pytest.raises(InputError, match="not the hash of a blob"):
            use(hash)


# --- trees ------------------------------------------------------------------------------------


def test_a_folder_comes_back_whole_and_its_name_depends_on_its_content_alone(blobs, folder, tmp_path):
    hash = blobs.put_tree(folder)
    assert content_of(blobs.tree(hash)) == CONTENT
    assert hash == tree_hash(folder) == tree_hash(blobs.tree(hash)) == blobs.put_tree(blobs.tree(hash))
    assert hash == tree_hash(write_files(tmp_path / "again", dict(reversed(CONTENT.items()))))
    blobs.verify(hash)
    assert leftovers(blobs) == []


@settings(deadline=None, max_examples=15)
@given(content=st.dictionaries(st.sampled_from(["a", "b/c", "b/d"]), st.binary(max_size=3), min_size=1))
def test_two_folders_share_a_hash_only_if_they_hold_the_same(tmp_path_factory, content):
    folder = write_files(tmp_path_factory.mktemp("tree"), content)
    other = write_files(tmp_path_factory.mktemp("tree"), {"a": b"", "b/c": b"1"})
    assert (tree_hash(folder) == tree_hash(other)) == (content == content_of(other))


def test_a_file_named_like_the_manifest_is_a_file_like_any_other(blobs, tmp_path):
    content = {"manifest.json": b"mine", "files/x": b"x"}
    hash = blobs.put_tree(write_files(tmp_path / "odd", content))
    assert content_of(blobs.tree(hash)) == content


def test_stored_files_cannot_be_written_by_accident(blobs, folder):
    for _, path in files.list_files(blobs.tree(blobs.put_tree(folder))):
        assert path.stat().st_mode & 0o222 == 0


def test_a_link_to_a_file_is_stored_as_the_file(blobs, folder):
    (folder / "link").symlink_to(folder / "config.json")
    assert content_of(blobs.tree(blobs.put_tree(folder)))["link"] == b"{}"


@pytest.mark.parametrize("target", ["weights", "nowhere"])
def test_links_without_content_of_their_own_are_refused_not_skipped(blobs, folder, target):
    (folder / "link").symlink_to(folder / target)
    with pytest.raises(DataError, match="not a file that can be stored"):
        blobs.put_tree(folder)


def test_a_folder_that_is_absent_or_empty_is_refused(blobs, tmp_path):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    for name, said in (("empty", "holds no files"), ("absent", "no such folder")):
        with pytest.raises(DataError, match=said):
            blobs.put_tree(tmp_path / name)


def test_an_absent_tree_is_named_with_the_remedy(blobs):
    for use in (blobs.tree, blobs.verify):
        with pytest.raises(StoreError, match=f"no such tree.*got: {ABSENT}; remedy: copy it"):
            use(ABSENT)


def test_a_half_written_tree_is_refused(blobs, folder):
    hash = blobs.put_tree(folder)
    (blobs.root / "trees" / hash / "manifest.json").unlink()
    for use in (lambda: blobs.tree(hash), lambda: blobs.verify(hash), lambda: blobs.put_tree(folder)):
        with pytest.raises(StoreError, match=r"half-written.*no manifest\.json; remedy: remove it"):
            use()


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"files": [{"name": "x"}]}', '{"files": []}'])
def test_a_damaged_manifest_is_refused(blobs, folder, manifest):
    hash = blobs.put_tree(folder)
    path = blobs.root / "trees" / hash / "manifest.json"
    path.chmod(0o644)
    path.write_text(manifest)
    with pytest.raises(StoreError, match="damaged"):
        blobs.tree(hash)


def test_verify_names_every_file_that_is_changed_missing_or_added(blobs, folder):
    hash = blobs.put_tree(folder)
    top = blobs.tree(hash)
    (top / "weights/one.bin").chmod(0o644)
    (top / "weights/one.bin").write_bytes(b"\0" * 4999 + b"\1")  # the same size: only a hash can tell
    assert blobs.tree(hash) == top
    (top / "added").touch()
    with pytest.raises(StoreError, match=r"got: added, weights/one\.bin;"):
        blobs.verify(hash)
    (top / "weights/two.bin").unlink()
    with pytest.raises(StoreError, match=r"got: added, weights/one\.bin, weights/two\.bin;"):
        blobs.verify(hash)
    with pytest.raises(StoreError, match=r"two\.bin; got: no such file"):
        blobs.tree(hash)


# --- full disks, dead and rival processes -----------------------------------------------------


def test_a_full_disk_leaves_nothing_half_written(blobs, folder, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for put in (lambda: blobs.put_tree(folder), lambda: blobs.put_bytes(b"data")):
            with pytest.raises(StoreError, match=r"No space left.*remedy: free disk space"):
                put()
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []
    assert content_of(blobs.tree(blobs.put_tree(folder))) == CONTENT


def test_a_file_that_cannot_grow_any_further_is_refused_and_removed(blobs, folder):
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from escultor.errors import StoreError\nfrom escultor.store.blobs import Blobs\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    Blobs(Path(sys.argv[1])).put_tree(Path(sys.argv[2]))\n"
        "except StoreError as error:\n    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-B", "-c", code, str(blobs.root), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "remedy: free disk space" in done.stderr
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="could not store files in"):
        Blobs(tmp_path / "file").put_tree(folder)


def test_leftovers_of_dead_processes_are_ignored_and_swept_when_old(blobs, folder):
    partial = blobs.root / "partial"
    write_files(partial, {"old/files/x": b"", "young/files/x": b"", "old.bin": b""})
    past = time.time() - 2 * files.STALE_S
    for name in ("old", "old.bin"):
        os.utime(partial / name, (past, past))
    blobs.tree(blobs.put_tree(folder))
    assert [path.name for path in leftovers(blobs)] == ["young"]


def test_processes_that_put_the_same_at_once_all_succeed(blobs, folder):
    code = (
        "import sys\nfrom pathlib import Path\nfrom escultor.store.blobs import Blobs\n"
        "blobs = Blobs(Path(sys.argv[1]))\nfolder = Path(sys.argv[2])\nsys.stdin.read(1)\n"
        "sys.stdout.write(blobs.put_tree(folder) + blobs.put_bytes(b'x' * 10**6))\n"
    )
    command = [sys.executable, "-c", code, str(blobs.root), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    results = [process.communicate(timeout=60)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert set(results) == {tree_hash(folder) + hash_bytes(b"x" * 10**6)}
    blobs.verify(tree_hash(folder))
    assert leftovers(blobs) == []


def test_a_tree_that_another_process_placed_first_is_kept(blobs, folder, monkeypatch):
    rename = Path.rename

    def late(self, target):
        if Path(target).parent.name == "trees" and not Path(target).exists():
            with monkeypatch.context() as patch:
                patch.setattr(Path, "rename", rename)
                blobs.put_tree(folder)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    assert content_of(blobs.tree(blobs.put_tree(folder))) == CONTENT
    assert leftovers(blobs) == []


def test_a_sibling_tree_is_found_only_in_the_same_store(tmp_path):
    blobs = Blobs(tmp_path / "blobs")
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "a.txt").write_text(folder.name)
    one, two = (blobs.put_tree(folder) for folder in folders)
    assert sibling_tree(blobs.tree(one), two) == blobs.tree(two)
    for folder in (folders[0], Path("files")):
        assert sibling_tree(folder, two) is None
    for tree in ("0" * 32, "../.."):
        assert sibling_tree(blobs.tree(one), tree) is None
