"""`trinity` and `synthesize`: documents through a model to files, resumed, edited, and learnt from."""

import json
from types import SimpleNamespace

import jsonschema
import pytest

from escultor.store import open_store
from escultor.types import Feedback, Interaction

WORDS = ("--domain", "law", "--domain", "art", "--json")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "docs" / "deep"
    made.mkdir(parents=True)
    (made.parent / "cats.md").write_text("---\ndate: 2024-03-05\n---\n# Cats\n\nThe cat runs fast.\n")
    (made / "dogs.txt").write_text("Dogs\n\nThe dog sleeps here.\n\n" * 120)
    (made / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    (made / "picture.png").write_bytes(b"png")
    (made.parent / ".hidden.md").write_text("secret")
    return made.parent


def test_a_folder_becomes_files_that_follow_the_schemas_and_a_run_goes_on(cli, tmp_path, model, folder):
    pytest.importorskip("pypdf")
    words = ("trinity", folder, "--out", "out", "--model", model, *WORDS)
    first = cli(*words)
    assert (first.code, first.data["counts"]) == (2, {"written": 2, "failed": 1}), first.err
    assert "broken.pdf cannot be read" in first.data["failed"][0]
    assert first.data["left_out"] == {"png": 1}
    assert "sections" in first.err  # the long one does not fit the context
    schemas = cli("trinity", "--schemas", *WORDS).data
    for name in ("docs/cats.md", "docs/deep/dogs.txt"):
        for ending in (".llm.json", ".meta.json"):
            value = json.loads((tmp_path / "out" / f"{name}{ending}").read_text())
            jsonschema.validate(value, schemas[f"NAME{ending}"])
    meta = json.loads((tmp_path / "out" / "docs/cats.md.meta.json").read_text())
    assert meta["timestamp"] == "2024-03-05T00:00:00+00:00"
    assert meta["domain"] in ("law", "art")
    markdown = (tmp_path / "out" / "docs/cats.md.md").read_text()
    assert markdown.endswith("# Cats\n\nThe cat runs fast.\n")
    # nothing to do; then a file that was lost, and a document that changed
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert cli(*words).data["counts"] == {"done": 2, "failed": 1}
    (tmp_path / "out" / "docs/cats.md.md").unlink()
    assert cli(*words).data["counts"] == {"written": 1, "done": 1, "failed": 1}
    assert {path: path.read_bytes() for path in before} == before
    (folder / "cats.md").write_text("# Cats\n\nThe cat sings.\n")
    assert cli(*words).data["counts"] == {"written": 1, "done": 1, "failed": 1}
    assert "The cat sings." in (tmp_path / "out" / "docs/cats.md.md").read_text()


def test_a_name_that_is_too_long_costs_a_line_and_lines_stay_whole(cli, tmp_path, model):
    made = tmp_path / "docs"
    made.mkdir()
    for name in ("a" * 240 + ".md", "b\nc.md", "latin1.txt"):
        (made / name).write_bytes(b"# Cats\n\nThe cat runs fast.\n" + b"\xe9" * (name == "latin1.txt"))
    ended = cli("trinity", made, "--out", "out", "--model", model, *WORDS)
    assert ended.data["counts"] == {"written": 1, "failed": 2}, ended.err
    assert "docs/latin1.txt: the text is not utf-8" in ended.data["failed"][0]
    assert "File name too long" in ended.data["failed"][1]
    assert "written  docs/b c.md" in ended.err


def test_edits_come_back_as_corrections_once_and_are_never_written_over(cli, tmp_path, model, folder):
    (folder / "deep" / "broken.pdf").unlink()
    words = ("trinity", folder, "--out", "out", "--model", model, *WORDS)
    assert cli(*words).data["counts"] == {"written": 2}
    path = tmp_path / "out" / "docs/cats.md.llm.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"summary": "A cat that runs.", "entities": ["cat"]}))
    meta = tmp_path / "out" / "docs/deep/dogs.txt.meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"domain": "physics"}))
    (folder / "cats.md").write_text("# Cats\n\nThe cat sings.\n")
    assert cli(*words).data["counts"] == {"edited": 2}
    accept = ("trinity", "accept", "out", "--person", "Ana", "--json")
    call = cli(*accept)
    assert call.code == 2, call.err
    assert call.data.get("counts") == {"corrected": 1}, call.err
    assert "`domain` is not known" in call.data["failed"][0]
    with open_store(str(tmp_path / "escultor-store")) as store:
        ((_, correction),) = store.log.read(Feedback)
        ((_, row),) = store.log.read(Interaction)
    assert json.loads(correction.text)["summary"] == "A cat that runs."
    assert json.loads(correction.text)["entities"] == ["cat"]
    assert correction.target == row.id
    assert row.skill == "trinity"
    assert json.loads(row.answer)["summary"] == said["summary"]
    assert "The cat runs fast." in row.messages[-1].content
    assert "Ana" not in (correction.subject, row.subject)
    assert cli(*accept).data["counts"] == {}
    converted = cli("feedback", "convert", "--out", "learnt", "--json")
    assert converted.code == 0, converted.err
    # the accepted edit is known now: the changed document is read again
    assert cli(*words).data["counts"] == {"written": 1, "edited": 1}


def test_both_of_two_places_may_not_be_edited_in_two_ways(cli, tmp_path, model, folder):
    cli("trinity", folder / "cats.md", "--out", "out", "--model", model, *WORDS)
    markdown, meta = (tmp_path / "out" / f"cats.md{end}" for end in (".md", ".meta.json"))
    markdown.write_text("# Felines\n" + markdown.read_text().partition("\n")[2])
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"entity": "Tigers"}))
    call = cli("trinity", "accept", "out", "--json")
    assert (call.code, call.data["counts"]) == (2, {})
    assert "two values of `entity`" in call.data["failed"][0]


def test_files_of_others_are_not_written_over_and_two_of_one_name_are_told_apart(cli, tmp_path, model):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "cat.md").write_text("The cat runs.")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cat.md.md").write_text("mine")
    call = cli("trinity", "a/cat.md", "b/cat.md", "--out", "out", "--model", model, "--json")
    assert (call.code, call.data["counts"]) == (2, {"failed": 2})
    assert "taken by a/cat.md" in "".join(call.data["failed"])
    assert (tmp_path / "out" / "cat.md.md").read_text() == "mine"
    assert cli("trinity", "a", "--json").code == 2
    assert cli("trinity", "nowhere", "--out", "out").code == 2


def test_a_model_behind_a_server_is_asked_for_the_schema(cli, tmp_path, folder, monkeypatch):
    from escultor.evaluate import served_model

    bodies = []
    answer = {
        "entity": "Cats",
        "domain": "art",
        "purpose": "reference",
        "entities": ["cat"],
        "summary": "Runs.",
    }

    def post(self, path, sent, parse):
        bodies.extend(sent)
        choice = {"finish_reason": "stop", "message": {"content": json.dumps(answer)}}
        return [parse({"choices": [choice], "usage": {"completion_tokens": 9}}) for _ in sent]

    monkeypatch.setattr(served_model.Endpoint, "post", post)
    monkeypatch.setattr(served_model.Endpoint, "get", lambda *_: {"m": "m-1"})
    words = (
        "trinity",
        folder / "cats.md",
        "--out",
        "out",
        "--url",
        "http://there/v1",
        "--model",
        "m",
        *WORDS,
    )
    assert cli(*words).data["counts"] == {"written": 1}
    (body,) = bodies
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["domain"] == {"enum": ["law", "art"]}
    assert body["store"] is False
    assert json.loads((tmp_path / "out" / "cats.md.llm.json").read_text())["entities"] == ["cat"]


def test_a_document_is_summarised_in_the_fixed_structure(cli, tmp_path, model, folder, monkeypatch):
    monkeypatch.setattr("escultor.cli.synthesize.SKILL", "./short.yaml")
    text = cli("skills", "show", "synthesize").out.replace("name: synthesize", "name: short")
    assert "structure" in text
    skill = {
        "name": "short", "inputs": ["document"], "metrics": ["f1"], "decoding": {"max_new_tokens": 64},
        "output": {"json": cli("skills", "show", "synthesize", "--json").data["schema"]},
    }  # fmt: skip
    (tmp_path / "short.yaml").write_text(json.dumps(skill))
    call = cli("synthesize", folder / "deep" / "dogs.txt", "--model", model, "--out", "made.md", "--json")
    assert call.code == 0, call.err
    assert len(call.data["summary"]) == 2
    assert call.data["key_points"]
    assert call.data["sections"] > 1
    assert (tmp_path / "made.md").read_text().startswith("# ")
    assert SimpleNamespace(**call.data).out == "made.md"
