"""Pictures, audio and files: sent on as they came, kept once within a limit, erased with their rows."""

import json

import httpx2
import pytest
from forwarding_side import forwarding
from hypothesis import given
from hypothesis import strategies as st
from mock_upstream import MockUpstream, serves

from escultor.serve.wire.media import LEAST, MediaBox, restored
from escultor.types import Interaction, Media

DATA = "data:image/png;base64," + "iVBORw0KGgo" * 500
SOUND = "UklGRg" * 1000
PARTS = [
    {"type": "text", "text": "what is this? " * 200},
    {"type": "image_url", "image_url": {"url": DATA}},
    {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}},
    {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}},
]


def ask(side, content, path="/v1/chat/completions", **more):
    body = {"model": "escultor", "messages": [{"role": "user", "content": content}], **more}
    return httpx2.post(side.url + path, json=body, timeout=120)


def row_of(side, answer) -> Interaction:
    row = side.log.get(Interaction, answer.json()["id"])
    assert row is not None
    return row


@pytest.mark.parametrize("is_streamed", [False, True])
def test_data_is_sent_on_as_it_came_and_kept_once_for_all_rows(mock, tmp_path, is_streamed):
    with forwarding(tmp_path, mock) as side:
        for user in ("ann", "bob"):
            mock.now(serves())
            assert ask(side, PARTS, user=user, stream=is_streamed).status_code == 200
            assert mock.asked[0].body["messages"][0]["content"] == PARTS
        ann, bob = side.rows()
        media = {each.id: each.text for _, each in side.log.read(Media)}
        assert sorted(media.values()) == sorted([DATA, SOUND])
        assert set(ann.messages[0].media) == media.keys()
        assert DATA not in ann.messages[0].parts
        assert restored(json.loads(ann.messages[0].parts), media) == PARTS
        side.log.erase(ann.subject, "ann")
        assert side.log.count(Media) == 2  # bob sent them too
        side.log.erase(bob.subject, "bob")
        assert side.log.count(Media) == 0
        ask(side, PARTS, user="ann")  # and they are kept again when they come again
        assert side.log.count(Media) == 2


def test_what_is_beyond_the_limit_is_sent_on_named_in_the_row_and_told(mock, tmp_path):
    with forwarding(tmp_path, mock, media_mb=0.006) as side:
        mock.now(serves())
        answer = ask(side, PARTS)
        assert mock.asked[0].body["messages"][0]["content"] == PARTS
        assert answer.headers["x-escultor-ignored"] == "1 media beyond serve.media_mb"
        row = row_of(side, answer)
        assert f"[{len(SOUND)} characters, not kept]" in row.messages[0].parts
        assert [each.text for _, each in side.log.read(Media)] == [DATA]


def test_no_data_is_kept_where_no_text_is(mock, tmp_path):
    with forwarding(tmp_path, mock, keep_text=False) as side:
        mock.now(serves())
        row = row_of(side, ask(side, PARTS))
        assert (row.messages[0].media, side.log.count(Media)) == ((), 0)


def test_a_picture_over_the_limit_of_a_body_is_refused_unread(mock, tmp_path):
    with forwarding(tmp_path, mock, max_body_mb=0.01) as side:
        mock.now(serves())
        huge = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20_000}}]
        answer = ask(side, huge)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert (mock.asked, side.rows()) == ([], [])


def test_an_address_of_a_picture_is_never_fetched(mock, tmp_path):
    with MockUpstream(serves()) as other, forwarding(tmp_path, mock) as side:
        mock.now(serves())
        content = [{"type": "image_url", "image_url": {"url": f"{other.url}/secret.png"}}]
        assert ask(side, content).status_code == 200
        assert (mock.asked[0].body["messages"][0]["content"], other.connections) == (content, 0)


def test_a_picture_of_an_earlier_response_is_asked_again(mock, tmp_path):
    with forwarding(tmp_path, mock) as side:
        mock.now(serves())
        content = [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": DATA}]
        first = {"model": "escultor", "input": [{"role": "user", "content": content}]}
        id = httpx2.post(side.url + "/v1/responses", json=first, timeout=120).json()["id"]
        more = {"model": "escultor", "input": "and now?", "previous_response_id": id}
        assert httpx2.post(side.url + "/v1/responses", json=more, timeout=120).status_code == 200
        sent = mock.asked[-1].body["messages"][0]["content"]
        assert sent[1] == {"type": "image_url", "image_url": {"url": DATA}}


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from((DATA, SOUND, "media:x")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_nothing_is_lost_by_taking_data_out(value):
    box = MediaBox(10**6)
    taken, ids = box.take(value)
    media = {id: box.media[id].text for id in ids}
    assert restored(taken, media) == value
    assert len(json.dumps(taken)) < LEAST
