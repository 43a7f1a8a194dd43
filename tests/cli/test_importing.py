"""`data import`: what goes where, and options that cannot act are refused."""

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


def test_rows_go_into_a_file_and_events_into_the_store(cli, tmp_path):
    out, url = tmp_path / "rows.jsonl", str(tmp_path / "store")
    rows = cli("data", "import", str(FORMATS / "sharegpt.json"), "--out", str(out), "--json").data
    assert (rows["format"], rows["kept"], rows["left_out"]) == ("sharegpt", 2, {"tool calls": 1})
    events = cli("data", "import", str(FORMATS / "open-webui.json"), "--store", url, "--json").data
    assert (events["format"], events["interactions"], events["feedback"]) == ("open-webui", 3, 7)
    with open_store(url) as store:
        assert (store.log.count(Interaction), store.log.count(Feedback)) == (3, 7)


def test_options_that_cannot_act_are_refused(cli, tmp_path):
    rows, events = str(FORMATS / "openai-chat.jsonl"), str(FORMATS / "interactions.jsonl")
    for arguments in ([rows], [events, "--out", "x"], [rows, "--out", "x", "--thumb", "y"]):
        refused = cli("data", "import", *arguments)
        assert refused.code == 2
        assert "remedy" in refused.err


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
