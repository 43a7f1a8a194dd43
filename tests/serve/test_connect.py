"""What `connect open-webui` writes sends its feedback to the row of the answer."""

import asyncio
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import httpx2
import pytest
from gateway_side import serving

from escultor.types import Choice, Feedback, Interaction, Rating

FEEDBACK = {
    "id": "f1",
    "updated_at": 7,
    "user_id": "maria",
    "meta": {"chat_id": "c", "message_id": "m-1"},
    "data": {"rating": "-1", "comment": "wrong city", "reason": "inaccurate", "details": {"rating": 2}},
    "snapshot": None,
}


def connect(*words):
    command = [sys.executable, "-m", "escultor", "connect", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def tree(*answers):
    """A chat whose question has these answers."""
    messages = {each["id"]: {"role": "assistant", "parentId": "q", "done": True, **each} for each in answers}
    question = {"role": "user", "content": "hi", "childrenIds": list(messages)}
    return {"history": {"messages": {"q": question, **messages}}}


class OpenWebUI:
    """What the function finds there: feedback, and a chat."""

    def __init__(self):
        self.feedback, self.chat = SimpleNamespace(**FEEDBACK), SimpleNamespace(user_id="maria", chat=tree())

    async def get_feedback_by_id(self, id):
        return self.feedback if id == "f1" else None

    async def get_chat_by_id(self, id):
        return self.chat if id == "c" else None


@pytest.fixture
def there(monkeypatch):
    """Open WebUI, as far as the function uses it."""
    made = OpenWebUI()
    for name, kind in (("feedbacks", "Feedbacks"), ("chats", "Chats")):
        module = ModuleType(f"open_webui.models.{name}")
        setattr(module, kind, made)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "httpx", httpx2)
    return made


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("connect") / "gateway") as running:
        yield running


@pytest.fixture
def function(side, tmp_path, there):
    """The function as Open WebUI loads it."""
    call = connect("open-webui", "--url", f"{side.url}/v1", "--out", tmp_path / "f.py")
    assert call.returncode == 0, call.stderr
    assert "{{MESSAGE_ID}}" in call.stdout
    scope = {}
    exec(compile((tmp_path / "f.py").read_text(), "f.py", "exec"), scope)
    return scope["Event"]()


def ask(side, message):
    """The row of an answer that Open WebUI knows as `message`."""
    body = {"model": "escultor", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-escultor-message": message, "x-escultor-subject": "maria", "x-escultor-task": ""}
    return httpx2.post(side.url + "/v1/chat/completions", json=body, headers=headers, timeout=120).json()[
        "id"
    ]


def happens(function, event, id="c", **data):
    asyncio.run(function.event({"event": event, "subject": {"id": id}, "data": data}))


def said_of(side, row):
    return [event for _, event in side.log.read(Feedback, target=row)]


def test_a_thumb_its_score_and_its_comment_land_on_the_row(function, side):
    row = ask(side, "m-1")
    for _ in range(2):  # sent again, it is kept once
        happens(function, "feedback.created", "f1")
    happens(function, "chat.created", "f1")
    thumb, score, remark = said_of(side, row)
    assert isinstance(thumb, Rating)
    assert (thumb.value, score.value, remark.text) == (False, 2.0, "inaccurate: wrong city")
    assert thumb.subject == side.log.get(Interaction, row).subject


def test_a_choice_in_the_arena_is_one_between_the_rows(function, side, there):
    shown = ask(side, "left"), ask(side, "right")
    there.feedback.meta = {"message_id": "right", "arena": True}
    there.feedback.data = {"rating": 1}
    there.feedback.snapshot = {"chat": {"chat": tree({"id": "left"}, {"id": "right"})}}
    happens(function, "feedback.updated", "f1")
    (choice,) = (event for event in said_of(side, shown[0]) if isinstance(event, Choice))
    assert (choice.shown_order, choice.winner) == (shown, shown[1])


GENERATED = "The cat."
THOUGHT = '<details type="reasoning" done="true">\n<summary>Thought</summary>\n> hm < 3\n</details>\n'


@pytest.mark.parametrize(
    ("name", "edited"),
    [
        ("its first text is kept", {"originalContent": THOUGHT + GENERATED, "content": THOUGHT + "A dog."}),
        ("its parts were changed too", {"content": "A dog.", "output": [{"type": "message", "id": "p"}]}),
    ],
)
def test_an_edit_in_place_is_a_correction(function, side, there, name, edited):
    id = name.replace(" ", "-")
    row = ask(side, id)
    there.chat.chat = tree({"id": id, "content": GENERATED})
    happens(function, "chat.finished", chat_id="c", message_id=id, message=GENERATED)
    happens(function, "chat.updated")
    assert said_of(side, row) == []
    there.chat.chat = tree({"id": id, **edited})
    happens(function, "chat.updated")
    happens(function, "message.updated", id, chat_id="c")
    (correction,) = said_of(side, row)
    assert correction.text == "A dog."


def test_an_answer_generated_again_and_one_beside_another(function, side, there):
    rows = [ask(side, f"again-{k}") for k in range(3)]
    columns = [{"id": f"again-{k}", "content": "A cat.", "modelIdx": k % 2} for k in range(3)]
    there.chat.chat = tree(*columns)
    happens(function, "chat.finished", chat_id="c", message_id="again-2", message="A cat.")
    events = [[event.event for event in said_of(side, row)] for row in rows]
    assert events == [["regenerate"], [], []]


def test_a_copy_that_was_edited_is_no_answer(function, side, there):
    row = ask(side, "first")
    part = [{"id": "part-1"}]
    there.chat.chat = tree(
        {"id": "first", "output": part}, {"id": "copy", "output": part, "content": "Mine."}
    )
    happens(function, "chat.updated")
    assert said_of(side, row) == []


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "f.py").write_text("mine")
    call = connect("open-webui", "--out", tmp_path / "f.py")
    assert (call.returncode, "exists already" in call.stderr) == (2, True)
    assert (tmp_path / "f.py").read_text() == "mine"
    assert connect("slack").returncode == 2
