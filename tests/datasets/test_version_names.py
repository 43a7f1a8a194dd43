"""A name means the version that a command gave it to last, whoever made the version and under which name."""

import json

from escultor.datasets.rows import CurationRow, write_line
from escultor.datasets.versions import find_version, give_name, load_card, save_version, versions_named
from escultor.store import open_store
from escultor.types import DatasetName, DatasetVersion, Example, Message, Origin, Role


def rows_file(tmp_path, *answers):
    path = tmp_path / "rows.jsonl"
    prompt = (Message(Role.USER, "why?"),)
    items = [Example(f"r{a}", prompt, a, Origin(("x",), "test/1")) for a in answers]
    path.write_bytes(b"".join(write_line(CurationRow(item, "x")) for item in items))
    return path


def save(store, tmp_path, name, *answers):
    path = rows_file(tmp_path, *answers)
    card = {"format": "card/1", "name": name, "kind": "example", "rows": len(answers), "held_out": 0}
    return save_version(store, name, "example", path, None, {}, lambda hash: card | {"hash": hash})


def test_saving_older_rows_again_lets_the_name_mean_them(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        first, second = save(store, tmp_path, "a", "one"), save(store, tmp_path, "a", "two")
        assert find_version(store, "a") == second
        assert save(store, tmp_path, "a", "one") == first == find_version(store, "a")
        assert store.log.count(DatasetName) == 1
        save(store, tmp_path, "a", "one")
        assert store.log.count(DatasetName) == 1  # it means them already
        assert [v.hash for v in versions_named(store, "a")] == [second.hash, first.hash]


def test_a_version_has_any_number_of_names_and_its_card_shows_the_one_it_was_found_by(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        version = save(store, tmp_path, "june", "one")
        assert give_name(store, "july", version.hash).name == "july"
        found = find_version(store, "july")
        assert (found.hash, found.blob) == (version.hash, version.blob)
        assert load_card(store, found)["name"] == "july"
        assert find_version(store, "june").name == "june"
        assert [(v.name, v.hash) for v in versions_named(store)] == [
            ("june", version.hash),
            ("july", version.hash),
        ]
        assert find_version(store, version.hash[:8]).hash == version.hash


def test_a_version_without_a_card_has_one_of_what_its_record_says(tmp_path):
    with open_store(str(tmp_path / "store")) as store:
        blob = store.blobs.put_file(rows_file(tmp_path, "one"))
        store.log.append(DatasetVersion("h" * 32, "cycle", "example", 1, {"rule test/1": 1}, blob))
        card = load_card(store, find_version(store, "cycle"))
    assert (card["rows"], card["counts"]) == (1, {"rule test/1": 1})
    assert json.dumps(card)
