"""The official client, as an application uses it: nothing changes but `base_url`."""

import asyncio
import json

import openai
import pytest
from gateway_side import Fake, serving
from pydantic import BaseModel

SAY = [{"role": "user", "content": "Olá?"}]


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("openai")) as running:
        yield running


@pytest.fixture(scope="module")
def client(side):
    with openai.OpenAI(base_url=f"{side.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_an_answer_and_its_headers(client):
    raw = client.chat.completions.with_raw_response.create(model="escultor", messages=SAY, seed=1, n=2)
    answer = raw.parse()
    assert [choice.message.content for choice in answer.choices] == ["Olá world é"] * 2
    assert answer.usage.total_tokens == 17
    assert raw.headers["x-escultor-version"] == answer.model


def test_a_stream_with_usage(client):
    stream = client.chat.completions.create(
        model="escultor", messages=SAY, stream=True, stream_options={"include_usage": True}
    )
    *pieces, last = stream
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "Olá world é"
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens == 5


def test_logprobs(client):
    answer = client.chat.completions.create(model="escultor", messages=SAY, logprobs=True, top_logprobs=2)
    first = answer.choices[0].logprobs.content[0]
    assert (first.token, bytes(first.bytes), first.logprob) == ("Olá", "Olá".encode(), -0.5)
    assert [top.token for top in first.top_logprobs] == ["Olá", "."]


def test_completions_with_echo(client):
    answer = client.completions.create(
        model="escultor", prompt=["a b", "c"], echo=True, logprobs=1, max_tokens=1
    )
    assert [choice.text for choice in answer.choices] == ["a bOlá", "cOlá"]
    assert answer.choices[0].logprobs.token_logprobs == [None, -0.5, -0.5]
    pieces = client.completions.create(model="escultor", prompt="a", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "Olá world é"


def test_models(client):
    assert {model.id for model in client.models.list()} == {"escultor", "champion", "v1"}
    assert client.models.retrieve("escultor").root == "v1"


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="gpt-4o", messages=SAY)
    with pytest.raises(openai.BadRequestError, match="not implemented") as caught:
        client.chat.completions.create(model="escultor", messages=SAY, presence_penalty=1)
    assert caught.value.param == "presence_penalty"


def test_the_asynchronous_client(side):
    async def several():
        async with openai.AsyncOpenAI(base_url=f"{side.url}/v1", api_key="none") as client:
            ask = client.chat.completions.create
            answers = await asyncio.gather(*(ask(model="escultor", messages=SAY) for _ in range(20)))
            pieces = [piece async for piece in await ask(model="escultor", messages=SAY, stream=True)]
            return answers, pieces

    answers, pieces = asyncio.run(several())
    assert len({answer.id for answer in answers}) == 20
    assert pieces[-1].choices[0].finish_reason == "stop"


class Summary(BaseModel):
    title: str
    points: list[str]


def test_structured_output(tmp_path):
    said = json.dumps({"title": "t", "points": ["p"]})
    with serving(tmp_path, Fake(words=tuple(said))) as side:
        client = openai.OpenAI(base_url=f"{side.url}/v1", api_key="none")
        with client:
            answer = client.chat.completions.parse(model="escultor", messages=SAY, response_format=Summary)
            assert answer.choices[0].message.parsed == Summary(title="t", points=["p"])
            assert side.engine.asks[-1].schema["required"] == ["title", "points"]
            client.chat.completions.create(
                model="escultor", messages=SAY, response_format={"type": "json_object"}
            )
            assert side.engine.asks[-1].schema == {}
