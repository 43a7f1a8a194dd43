"""`data import`: what goes where, and options that cannot act are refused."""

from pathlib import Path

from escultor.store import open_store
from escultor.types import Feedback, Interaction

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
