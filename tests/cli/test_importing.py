"""`data import`: what goes where, and options that cannot act are refused."""

from pathlib import Path

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
