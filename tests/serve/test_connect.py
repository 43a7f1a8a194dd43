"""What `connect open-webui` writes sends its feedback to the row of the answer."""

import asyncio
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import httpx2
import pytest
from gateway_side import serving

from escultor.types import Feedback, Rating, Remark

FEEDBACK = SimpleNamespace(
    id="f1",
    updated_at=7,
    user_id="maria",
    meta={"chat_id": "c", "message_id": "m-1"},
    data={"rating": "-1", "comment": "wrong city"},
)


def connect(*words):
    command = [sys.executable, "-m", "escultor", "connect", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def function(tmp_path, monkeypatch):
    """The function as Open WebUI loads it, over a store of feedback that holds one."""

    def load(url):
        call = connect("open-webui", "--url", f"{url}/v1", "--out", tmp_path / "f.py")
        assert call.returncode == 0, call.stderr
        assert "{{MESSAGE_ID}}" in call.stdout

        async def get(id):
            return FEEDBACK if id == "f1" else None

        feedbacks = ModuleType("open_webui.models.feedbacks")
        feedbacks.Feedbacks = SimpleNamespace(get_feedback_by_id=get)
        monkeypatch.setitem(sys.modules, "open_webui.models.feedbacks", feedbacks)
        monkeypatch.setitem(sys.modules, "httpx", httpx2)
        scope = {}
        exec(compile((tmp_path / "f.py").read_text(), "f.py", "exec"), scope)
        return scope["Event"]()

    return load


def test_a_thumb_and_its_comment_land_on_the_row(function, tmp_path):
    with serving(tmp_path / "gateway") as side:
        body = {"model": "escultor", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"x-escultor-message": "m-1", "x-escultor-subject": "maria", "x-escultor-task": ""}
        answer = httpx2.post(side.url + "/v1/chat/completions", json=body, headers=headers, timeout=120)
        event = {"event": "feedback.created", "subject": {"id": "f1"}}
        made = function(side.url)
        for _ in range(2):  # sent again, it is kept once
            asyncio.run(made.event(event))
        asyncio.run(made.event({"event": "chat.created", "subject": {"id": "f1"}}))
        events = [e for _, e in side.log.read(Feedback, target=answer.json()["id"])]
        thumb, remark = sorted(events, key=lambda e: isinstance(e, Remark))
        assert isinstance(thumb, Rating)
        assert (thumb.value, remark.text) == (False, "wrong city")
        (row,) = side.rows()
        assert thumb.subject == row.subject


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "f.py").write_text("mine")
    call = connect("open-webui", "--out", tmp_path / "f.py")
    assert (call.returncode, "exists already" in call.stderr) == (2, True)
    assert (tmp_path / "f.py").read_text() == "mine"
    assert connect("slack").returncode == 2
