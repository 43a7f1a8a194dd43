"""`judge`: by a local model or a server; its verdicts in the store once, corrected by people's."""

import pytest
from cli_rows import SMALL
from test_rating import SUITE

from escultor.evaluate.raters import judge as room
from escultor.store import open_store
from escultor.types import Feedback, Sampling


@pytest.fixture
def judged(cli, tmp_path, model, other_model):
    (tmp_path / "pets.yaml").write_text(SUITE)
    return lambda *words: cli("judge", model, other_model, "--suite", "pets.yaml", *words, *SMALL)


def test_verdicts_are_told_kept_once_and_corrected_by_people(cli, judged, model, other_model, monkeypatch):
    monkeypatch.setattr(room.EndpointJudge, "ask", lambda self, prompts: ["[[C]]" for _ in prompts])
    words = ("--judge", "strong", "--url", "http://127.0.0.1:9/v1")
    call = judged(*words, "--json")
    assert call.code == 0, call.err
    assert (call.data["judged"], call.data["ties"], call.data["corrected"]) == (12, 12, None)
    assert "No person rated" in call.err
    with open_store("escultor-store") as store:
        kept = store.log.count(Feedback)
    cli("rate", model, other_model, "--suite", "pets.yaml", "--rater", "Ada", *SMALL, input="t\n1\n2\nt\n")
    again = judged(*words, "--json")
    assert again.data["corrected"]["labelled"] >= 3
    with open_store("escultor-store") as store:
        assert store.log.count(Feedback) == kept + 4


def test_a_judge_that_names_no_verdict_is_refused_and_so_is_none_at_all(judged, model, monkeypatch):
    monkeypatch.setattr(room, "SAMPLING", Sampling(max_new_tokens=4))
    call = judged("--judge", model)
    assert call.code == 2
    assert "named no verdict" in call.err
    assert judged().code == 2
