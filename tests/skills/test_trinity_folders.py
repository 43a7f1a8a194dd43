"""Folders of Trinities: what a run that was cut off leaves, what a person changes meanwhile, odd files."""

import os
from dataclasses import replace

import pytest

from escultor.errors import InputError
from escultor.skills.trinity_folders import TrinityFolder, TrinityRecord, find_sources

SAID = {"entity": "cat", "domain": "art", "purpose": "reference", "entities": [], "summary": "Cats run."}
RECORD = TrinityRecord(
    name="docs/cats.md",
    source="s1",
    key="k",
    model="m",
    made=1.0,
    time="2024-01-01T00:00:00+00:00",
    document="The cat runs.",
    trinity=SAID,
)
NEWER = replace(RECORD, source="s2", trinity={**SAID, "entity": "kitten", "summary": "Cats sing."})


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_files_that_a_run_was_about_to_replace_are_no_edits(tmp_path, monkeypatch, done):
    folder = TrinityFolder(tmp_path)
    assert folder.write(RECORD)
    with monkeypatch.context() as dying:
        written = []

        def replace_file(self, target):
            if len(written) > done:  # the record, then so many files
                raise KeyboardInterrupt
            written.append(target)
            os.replace(self, target)

        dying.setattr("pathlib.Path.replace", replace_file)
        with pytest.raises(KeyboardInterrupt):
            folder.write(NEWER)
    record = folder.record(RECORD.name)
    assert folder.edited(record) == []
    assert folder.state(RECORD.name, "s2", "k") == ("incomplete" if done < 3 else "done")
    assert folder.write(NEWER)
    assert folder.state(RECORD.name, "s2", "k") == "done"
    # What stood there before is an edit again, once the files are written.
    (tmp_path / "docs" / "cats.md.md").write_text(RECORD.texts[".md"])
    assert folder.edited(folder.record(RECORD.name)) == [".md"]


def test_what_a_person_changed_since_it_was_looked_at_is_not_written_over(tmp_path):
    folder = TrinityFolder(tmp_path)
    folder.write(RECORD)
    assert folder.state(RECORD.name, "s2", "k") == "changed"
    edited = tmp_path / "docs" / "cats.md.md"
    edited.write_text("# cat\n\nCats walk.\n\nThe cat runs.\n")
    assert not folder.write(NEWER)
    assert "Cats walk." in edited.read_text()
    assert folder.state(RECORD.name, "s2", "k") == "edited"


def test_what_is_no_file_costs_a_line_and_no_link_is_followed_in_a_circle(tmp_path):
    made = tmp_path / "in"
    (made / "folder.md").mkdir(parents=True)
    (made / "folder.md" / "a\nb.txt").write_text("text")
    (made / "gone.md").symlink_to("nowhere.md")
    (made / "loop").symlink_to(".")
    (made / "zero.txt").symlink_to("/dev/zero")
    os.mkfifo(made / "pipe.txt")
    sources, skipped, problems = find_sources([made], ["md", "txt"], tmp_path / "out")
    assert [source.name for source in sources] == ["in/folder.md/a\nb.txt"]
    assert skipped == {"link to a folder": 1}
    assert [line.split(":")[0].split("/")[-1].strip("'") for line in sorted(problems)] == [
        "gone.md", "pipe.txt", "zero.txt",
    ]  # fmt: skip
    with pytest.raises(InputError, match="no file"):
        find_sources([made / "pipe.txt"], ["txt"], tmp_path / "out")
