"""`data import`: what goes where, and options that cannot act are refused."""

import json
from pathlib import Path

import pytest

from escultor.store import open_store
from escultor.types import Consent, Feedback, Interaction

WORDS_IN_THE_FILES = (
    b"capital of France",
    b"Madrid",
    b"The Nile",
    b"Name a river",
    b"Ebro",
    b"Quick and right",
    b"too_short",
)
FORMATS = Path(__file__).parents[1] / "data" / "formats"


def test_rows_become_a_dataset_or_a_file_and_events_go_into_the_store(cli, tmp_path):
    url = str(tmp_path / "store")
    rows = cli("data", "import", FORMATS / "sharegpt.json", "--store", url, "--json").data
    assert (rows["format"], rows["kept"], rows["left_out"], rows["broken"]) == ("sharegpt", 3, {}, 0)
    assert [(d["name"], d["kind"], d["rows"]) for d in rows["datasets"]] == [("sharegpt", "example", 3)]
    cli("data", "import", FORMATS / "sharegpt.json", "--out", "rows.jsonl")
    assert cli("data", "check", "rows.jsonl", "--json").data["counts"]["kept"] == 3
    events = cli("data", "import", FORMATS / "open-webui.json", "--store", url, "--json").data
    assert (events["format"], events["interactions"], events["feedback"]) == ("open-webui", 3, 7)
    with open_store(url) as store:
        assert (store.log.count(Interaction), store.log.count(Feedback)) == (3, 7)


def test_options_that_cannot_act_are_refused(cli, tmp_path):
    rows, events = str(FORMATS / "openai-chat.jsonl"), str(FORMATS / "interactions.jsonl")
    for arguments in ([rows, "--thumb", "y"], [events, "--out", "x"], [rows, "--format", "none"]):
        refused = cli("data", "import", *arguments)
        assert refused.code == 2
        assert "remedy" in refused.err or "allowed" in refused.err


def test_one_screen_says_what_was_taken_read_and_left_out(cli, tmp_path):
    lines = [
        '{"instruction": "a", "output": "b", "origin_url": "u"}',
        "{",
        '{"instruction": "c", "output": " "}',
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    shown = cli("data", "import", "mine.jsonl")
    assert shown.code == 0, shown.err
    for part in (
        "mine.jsonl: taken for alpaca; 3 rows read: 1 of kind example",
        "broken: the row is not JSON",
        "mine.jsonl:2: the row is not JSON",
        "empty completion",
        "columns not used: origin_url",
        "next: escultor sft --model MODEL --data mine --out RUN",
    ):
        assert part in shown.out


def test_a_folder_becomes_one_dataset_and_says_what_it_did_not_read(cli, tmp_path):
    folder = tmp_path / "dump"
    folder.mkdir()
    (folder / "a.csv").write_text("question,answer\nq1,a1\nq2,a2\n")
    (folder / "b.jsonl").write_text(
        '{"prompt": "p", "completion": "c"}\n{"prompt": "q1", "completion": "a1"}\n'
    )
    (folder / "c.json").write_text('{"loss": [1, 2]}')
    (folder / "test.csv").write_text("question,answer\nq9,a9\n")
    made = cli("data", "import", "dump", "--json").data
    assert {name: f["format"] for name, f in made["files"].items()} == {
        "a.csv": "question-answer",
        "b.jsonl": "prompt-completion",
    }
    assert set(made["not_read"]) == {"c.json", "test.csv"}
    ((dataset),) = made["datasets"]
    assert (dataset["name"], dataset["rows"]) == ("dump", 3)  # one row stands in both files


def test_a_file_of_two_kinds_becomes_a_dataset_of_each(cli, tmp_path):
    best = {"text": "a", "role": "assistant", "rank": 0, "replies": []}
    worst = {"text": "b", "role": "assistant", "rank": 1, "replies": []}
    tree = {"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": [worst, best]}}
    (tmp_path / "trees.jsonl").write_text(json.dumps(tree))
    made = cli("data", "import", "trees.jsonl", "--json").data
    assert {d["name"]: d["kind"] for d in made["datasets"]} == {
        "trees-example": "example",
        "trees-pair": "pair",
    }
    only = cli("data", "import", "trees.jsonl", "--kind", "pair", "--name", "one", "--json").data
    assert [(d["name"], d["rows"]) for d in only["datasets"]] == [("one", 1)]


def test_ids_given_twice_name_one_row_each(cli, tmp_path):
    rows = [{"id": "1", "prompt": "p", "completion": c} for c in ("a", "b", "a")]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = cli("data", "import", "x.jsonl", "--json").data
    assert made["datasets"][0]["rows"] == 2
    cli("data", "export", "x", "--out", "out.jsonl")
    again = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in again}) == 2


def test_no_word_enters_a_store_that_keeps_no_text_and_the_import_says_so(cli, tmp_path):
    url = str(tmp_path / "store")
    brought = {}
    for name in ("open-webui.json", "langfuse.jsonl", "interactions.jsonl"):
        path, none = str(FORMATS / name), "serve.keep_text=false"
        brought[name] = cli("data", "import", path, "--store", url, "--set", none, "--json").data
    reason = "kept without its text: serve.keep_text is false"
    assert [found["left_out"][reason] for found in brought.values()] == [5, 3, 2]
    with open_store(url) as store:
        calls = [call for _, call in store.log.read(Interaction)]
        assert {call.consent for call in calls} == {Consent.NONE}
        assert len({call.prompt_hash for call in calls}) == 4  # two answers were given to one prompt
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    for word in WORDS_IN_THE_FILES:
        assert any(word in (FORMATS / name).read_bytes() for name in brought)
        assert word not in on_disk


@pytest.mark.parametrize("group", ["feedback", "interactions"])
def test_one_screen_says_what_a_file_was_taken_for_what_was_read_and_what_was_not(cli, tmp_path, group):
    url = str(tmp_path / "store")
    path = tmp_path / "scores.jsonl"
    bad = '{"id": "bad", "name": "n", "dataType": "TEXT", "traceId": 7}\n'
    path.write_text((FORMATS / "langfuse.jsonl").read_text() + bad)
    shown = cli(group, "import", str(path), "--store", url)
    assert shown.code == 0
    for part in (
        "taken for Langfuse's scores or traces (--format langfuse)",
        "read: ",
        "thumb: the score user-feedback",
        "a score of a session, not of an answer",
        "broken: `traceId` is of the wrong type",
        "bad (line 8)",
    ):
        assert part in shown.out
    again = cli(group, "import", str(path), "--store", url, "--json").data
    assert (again["format"], again["interactions"], again["feedback"]) == ("langfuse", 0, 0)
    assert (again["known"], again["broken"], again["thumb"]) == (7, 1, ["user-feedback"])


def test_a_file_of_no_known_events_names_the_formats_and_where_rows_go(cli, tmp_path):
    refused = cli("feedback", "import", str(FORMATS / "sharegpt.json"), "--store", str(tmp_path / "store"))
    assert refused.code != 0
    assert "open-webui" in refused.err
    assert "escultor data import" in refused.err
    assert not (tmp_path / "store").exists()
