"""The Python side of the matrix of clients: every client does every feature that it has.

    python bench/clients/python_clients.py URL KEY [FEATURE …]

Runs in an environment of its own (`requirements.txt`), without the project. Prints one JSON object a line:
the client, its version, the feature, and what came of it.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import json
import logging
import os
import sys
import traceback
import uuid
import warnings
from collections.abc import Iterable
from typing import Any

import httpx
from pydantic import BaseModel

URL, KEY = sys.argv[1].rstrip("/"), sys.argv[2]
MODEL = "escultor"
HELLO, THINK, FAIL = "Say hello.", "Say hello, and think first.", "Say hello; please fail with 429."
ONE, BOTH = "What is the weather in Paris?", "What is the weather in Paris and in Lima?"
PERSON = "Who comes, and when?"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
PICTURE = f"data:image/png;base64,{PIXEL}"
PARIS, LIMA = ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Lima"})
ADA = {"name": "Ada", "day": "Friday"}
FEATURES = (
    "plain",
    "stream",
    "tools",
    "tools_streamed",
    "parallel",
    "structured",
    "reasoning",
    "picture",
    "error_401",
    "error_429",
    "feedback",
)


class Person(BaseModel):
    """Who comes, and on which day."""

    name: str
    day: str


def get_weather(city: str) -> str:
    """The weather of a city."""
    return "sunny"


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]
PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": PICTURE}},
]


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def call(name: str, arguments: Any) -> tuple[str, Any]:
    """A call in the one form that the results are compared in."""
    return name, json.loads(arguments) if isinstance(arguments, str) else dict(arguments)


def joined(pieces: Iterable[str | None]) -> str:
    """The text of a stream that came in more than one piece."""
    held = [piece for piece in pieces if piece]
    assert len(held) > 1, f"the stream came in {len(held)} pieces"
    return "".join(held)


def status_of(ask: Any) -> int:
    """The status that a client's own error names."""
    try:
        ask()
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            for name in ("status_code", "code", "status"):
                if isinstance(status := getattr(cause, name, None), int):
                    return status
            cause = cause.__cause__ or cause.__context__
        raise
    raise AssertionError("no error was raised")


def rated(ask: Any) -> int:
    """Ask with an id of our own for the answer, then send a thumb for that id; the status of the thumb."""
    id = f"m-{uuid.uuid4()}"
    ask({"x-escultor-message": id, "x-escultor-subject": "maria"})
    event = {"kind": "boolean", "name": "thumb", "value": True, "target": id, "id": f"thumb-{id}"}
    event["source"] = {"kind": "end_user", "id": "maria"}
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(f"{URL}/v1/feedback", json=event, headers=headers).status_code


class Client:
    """A client; each method named like a feature does it, and returns what is compared."""

    package = ""

    def __init__(self, key: str = KEY):
        self.key = key

    def error_401(self) -> Any:
        return status_of(type(self)("sk-wrong").plain)  # type: ignore[attr-defined]

    def error_429(self) -> Any:
        return status_of(lambda: self.plain(FAIL))  # type: ignore[attr-defined]

    def feedback(self) -> Any:
        return rated(lambda headers: self.plain(headers=headers))  # type: ignore[attr-defined]


class OpenAIChat(Client):
    package = "openai"

    def __init__(self, key: str = KEY):
        import openai

        super().__init__(key)
        self.client = openai.OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0)
        self.create = self.client.chat.completions.create

    def plain(self, text: str = HELLO, headers: Any = None) -> Any:
        made = self.create(model=MODEL, messages=user(text), extra_headers=headers)
        return made.choices[0].message.content

    def stream(self) -> Any:
        chunks = self.create(model=MODEL, messages=user(HELLO), stream=True)
        return joined(c.choices[0].delta.content for c in chunks if c.choices)

    def tools(self) -> Any:
        message = self.create(model=MODEL, messages=user(ONE), tools=TOOLS).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
        said = self.create(model=MODEL, messages=[*user(ONE), message, result], tools=TOOLS)
        calls = [call(c.function.name, c.function.arguments) for c in message.tool_calls]
        return calls, said.choices[0].message.content

    def tools_streamed(self) -> Any:
        with self.client.chat.completions.stream(model=MODEL, messages=user(ONE), tools=TOOLS) as stream:
            made = stream.get_final_completion()
        return [call(c.function.name, c.function.arguments) for c in made.choices[0].message.tool_calls or ()]

    def parallel(self) -> Any:
        message = self.create(model=MODEL, messages=user(BOTH), tools=TOOLS).choices[0].message
        return [call(c.function.name, c.function.arguments) for c in message.tool_calls or ()]

    def structured(self) -> Any:
        parse = self.client.chat.completions.parse
        made = parse(model=MODEL, messages=user(PERSON), response_format=Person)
        return made.choices[0].message.parsed.model_dump()  # type: ignore[union-attr]

    def reasoning(self) -> Any:
        made = self.create(model=MODEL, messages=user(THINK))
        return made.choices[0].message.reasoning_content  # type: ignore[attr-defined]

    def picture(self) -> Any:
        return self.plain(PARTS)  # type: ignore[arg-type]


class OpenAIResponses(Client):
    package = "openai"

    def __init__(self, key: str = KEY):
        import openai

        super().__init__(key)
        self.client = openai.OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0)
        self.create = self.client.responses.create
        self.own = [{"type": "function", **FUNCTION}]

    def plain(self, text: Any = HELLO, headers: Any = None) -> Any:
        return self.create(model=MODEL, input=text, extra_headers=headers).output_text

    def stream(self) -> Any:
        events = self.create(model=MODEL, input=HELLO, stream=True)
        return joined(e.delta for e in events if e.type == "response.output_text.delta")

    def _calls(self, made: Any) -> list[Any]:
        return [call(item.name, item.arguments) for item in made.output if item.type == "function_call"]

    def tools(self) -> Any:
        made = self.create(model=MODEL, input=ONE, tools=self.own)
        (item,) = [item for item in made.output if item.type == "function_call"]
        result = {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
        said = self.create(model=MODEL, input=[result], tools=self.own, previous_response_id=made.id)
        return self._calls(made), said.output_text

    def tools_streamed(self) -> Any:
        with self.client.responses.stream(model=MODEL, input=ONE, tools=self.own) as stream:
            return self._calls(stream.get_final_response())

    def parallel(self) -> Any:
        return self._calls(self.create(model=MODEL, input=BOTH, tools=self.own))

    def structured(self) -> Any:
        made = self.client.responses.parse(model=MODEL, input=PERSON, text_format=Person)
        return made.output_parsed.model_dump()  # type: ignore[union-attr]

    def reasoning(self) -> Any:
        made = self.create(model=MODEL, input=THINK)
        return next(item.summary[0].text for item in made.output if item.type == "reasoning")

    def picture(self) -> Any:
        parts = [{"type": "input_text", "text": "What is this?"}]
        return self.plain(user([*parts, {"type": "input_image", "image_url": PICTURE}]))


class Anthropic(Client):
    package = "anthropic"

    def __init__(self, key: str = KEY):
        import anthropic

        super().__init__(key)
        self.client = anthropic.Anthropic(base_url=URL, api_key=key, max_retries=0)
        self.own = [{**FUNCTION, "input_schema": PARAMETERS}]
        del self.own[0]["parameters"]

    def create(self, text: Any, **more: Any) -> Any:
        messages = text if isinstance(text, list) else user(text)
        return self.client.messages.create(model=MODEL, max_tokens=200, messages=messages, **more)

    def plain(self, text: Any = HELLO, headers: Any = None) -> Any:
        return self.create(text, extra_headers=headers).content[0].text

    def stream(self) -> Any:
        with self.client.messages.stream(model=MODEL, max_tokens=200, messages=user(HELLO)) as stream:
            return joined(stream.text_stream)

    def _calls(self, made: Any) -> list[Any]:
        return [call(block.name, block.input) for block in made.content if block.type == "tool_use"]

    def tools(self) -> Any:
        made = self.create(ONE, tools=self.own)
        (block,) = [block for block in made.content if block.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
        turns = [*user(ONE), {"role": "assistant", "content": made.content}, *user([result])]
        return self._calls(made), self.create(turns, tools=self.own).content[0].text

    def tools_streamed(self) -> Any:
        asked = {"model": MODEL, "max_tokens": 200, "messages": user(ONE), "tools": self.own}
        with self.client.messages.stream(**asked) as stream:
            return self._calls(stream.get_final_message())

    def parallel(self) -> Any:
        return self._calls(self.create(BOTH, tools=self.own))

    def structured(self) -> Any:
        """A schema by way of a tool that has to be called."""
        tool = {"name": "Person", "description": "Who comes.", "input_schema": Person.model_json_schema()}
        made = self.create(PERSON, tools=[tool], tool_choice={"type": "tool", "name": "Person"})
        return self._calls(made)[0][1]

    def reasoning(self) -> Any:
        return next(block.thinking for block in self.create(THINK).content if block.type == "thinking")

    def picture(self) -> Any:
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        return self.plain(user([{"type": "image", "source": source}, PARTS[0]]))


class LangChain(Client):
    """`ChatOpenAI`; a subclass gives another model class."""

    package = "langchain-openai"

    def model(self, **more: Any) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=self.key, max_retries=0, **more)

    def plain(self, text: Any = HELLO, headers: Any = None) -> Any:
        return self.model(default_headers=headers).invoke(text).text

    def stream(self) -> Any:
        return joined(chunk.text for chunk in self.model().stream(HELLO))

    def _calls(self, message: Any) -> list[Any]:
        return [call(c["name"], c["args"]) for c in message.tool_calls]

    def tools(self) -> Any:
        from langchain_core.messages import HumanMessage, ToolMessage

        bound = self.model().bind_tools([get_weather])
        message = bound.invoke(ONE)
        result = ToolMessage("sunny", tool_call_id=message.tool_calls[0]["id"])
        return self._calls(message), bound.invoke([HumanMessage(ONE), message, result]).text

    def tools_streamed(self) -> Any:
        first, *rest = self.model().bind_tools([get_weather]).stream(ONE)
        for chunk in rest:
            first = first + chunk
        return self._calls(first)

    def parallel(self) -> Any:
        return self._calls(self.model().bind_tools([get_weather]).invoke(BOTH))

    def structured(self) -> Any:
        return self.model().with_structured_output(Person).invoke(PERSON).model_dump()

    def picture(self) -> Any:
        from langchain_core.messages import HumanMessage

        return self.plain([HumanMessage(PARTS)])


class LangChainResponses(LangChain):
    def model(self, **more: Any) -> Any:
        return super().model(use_responses_api=True, **more)

    def reasoning(self) -> Any:
        blocks = self.model(output_version="responses/v1").invoke(THINK).content
        return next(block["summary"][0]["text"] for block in blocks if block["type"] == "reasoning")


class LangChainAnthropic(LangChain):
    package = "langchain-anthropic"

    def model(self, **more: Any) -> Any:
        from langchain_anthropic import ChatAnthropic

        more = {name: value for name, value in more.items() if value is not None}
        return ChatAnthropic(
            model=MODEL, base_url=URL, api_key=self.key, max_retries=0, max_tokens=200, **more
        )

    def reasoning(self) -> Any:
        blocks = self.model().invoke(THINK).content
        return next(block["thinking"] for block in blocks if block["type"] == "thinking")


class LlamaIndex(Client):
    package = "llama-index-llms-openai-like"

    def model(self, **more: Any) -> Any:
        from llama_index.llms.openai_like import OpenAILike

        own = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 0, **more}
        return OpenAILike(model=MODEL, api_base=f"{URL}/v1", api_key=self.key, **own)

    def _message(self, text: Any) -> Any:
        from llama_index.core.llms import ChatMessage

        return text if isinstance(text, ChatMessage) else ChatMessage(role="user", content=text)

    def plain(self, text: Any = HELLO, headers: Any = None) -> Any:
        return self.model(default_headers=headers).chat([self._message(text)]).message.content

    def stream(self) -> Any:
        return joined(piece.delta for piece in self.model().stream_chat([self._message(HELLO)]))

    def _tool(self) -> Any:
        from llama_index.core.tools import FunctionTool

        return FunctionTool.from_defaults(get_weather)

    def _calls(self, response: Any) -> list[Any]:
        calls = self.model().get_tool_calls_from_response(response, error_on_no_tool_call=False)
        return [call(c.tool_name, c.tool_kwargs) for c in calls]

    def tools(self) -> Any:
        said = self.model().predict_and_call([self._tool()], user_msg=ONE)
        return [call(s.tool_name, s.raw_input["kwargs"]) for s in said.sources], self._answer()

    def _answer(self) -> str:
        """The answer after a tool's result."""
        from llama_index.core.llms import ChatMessage

        made = self.model().chat_with_tools([self._tool()], user_msg=ONE)
        id = made.message.additional_kwargs["tool_calls"][0].id
        result = ChatMessage(role="tool", content="sunny", additional_kwargs={"tool_call_id": id})
        turns = [self._message(ONE), made.message, result]
        return self.model().chat_with_tools([self._tool()], chat_history=turns).message.content

    def tools_streamed(self) -> Any:
        *_, last = self.model().stream_chat_with_tools([self._tool()], user_msg=ONE)
        return self._calls(last)

    def parallel(self) -> Any:
        asked = {"user_msg": BOTH, "allow_parallel_tool_calls": True}
        return self._calls(self.model().chat_with_tools([self._tool()], **asked))

    def structured(self) -> Any:
        model = self.model(should_use_structured_outputs=True)
        return model.as_structured_llm(Person).complete(PERSON).raw.model_dump()

    def picture(self) -> Any:
        from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

        blocks = [TextBlock(text="What is this?"), ImageBlock(image=base64.b64decode(PIXEL))]
        return self.plain(ChatMessage(role="user", blocks=blocks))


class LiteLLM(Client):
    package = "litellm"
    provider, base = "openai", f"{URL}/v1"

    def create(self, text: Any, **more: Any) -> Any:
        import litellm

        litellm.suppress_debug_info, litellm.telemetry = True, False
        messages = text if isinstance(text, list) else user(text)
        own = {"api_base": self.base, "api_key": self.key, "num_retries": 0, "max_retries": 0}
        return litellm.completion(model=f"{self.provider}/{MODEL}", messages=messages, **own, **more)

    def plain(self, text: Any = HELLO, headers: Any = None) -> Any:
        return self.create(text, extra_headers=headers).choices[0].message.content

    def stream(self) -> Any:
        return joined(c.choices[0].delta.content for c in self.create(HELLO, stream=True))

    def _calls(self, made: Any) -> list[Any]:
        calls = made.choices[0].message.tool_calls or ()
        return [call(c.function.name, c.function.arguments) for c in calls]

    def tools(self) -> Any:
        made = self.create(ONE, tools=TOOLS)
        message = made.choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
        said = self.create([*user(ONE), message, result], tools=TOOLS)
        return self._calls(made), said.choices[0].message.content

    def tools_streamed(self) -> Any:
        import litellm

        chunks = list(self.create(ONE, tools=TOOLS, stream=True))
        return self._calls(litellm.stream_chunk_builder(chunks))

    def parallel(self) -> Any:
        return self._calls(self.create(BOTH, tools=TOOLS))

    def structured(self) -> Any:
        return json.loads(self.create(PERSON, response_format=Person).choices[0].message.content)

    def reasoning(self) -> Any:
        return self.create(THINK).choices[0].message.reasoning_content

    def picture(self) -> Any:
        return self.plain(user(PARTS))


class LiteLLMAnthropic(LiteLLM):
    provider, base = "anthropic", URL


class Instructor(Client):
    package = "instructor"

    def structured(self) -> Any:
        import instructor
        import openai

        client = openai.OpenAI(base_url=f"{URL}/v1", api_key=self.key, max_retries=0)
        modes = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON]
        made = [
            instructor.from_openai(client, mode=mode).chat.completions.create(
                model=MODEL, response_model=Person, max_retries=0, messages=user(PERSON)
            )
            for mode in modes
        ]
        assert len({each.model_dump_json() for each in made}) == 1, made
        return made[0].model_dump()

    error_401 = error_429 = feedback = None  # type: ignore[assignment]


class PydanticAI(Client):
    package = "pydantic-ai-slim"

    def model(self) -> Any:
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=self.key, max_retries=0)
        return OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))

    def agent(self, **more: Any) -> Any:
        from pydantic_ai import Agent

        return Agent(self.model(), **more)

    def plain(self, text: Any = HELLO, headers: Any = None) -> Any:
        settings = {"extra_headers": headers} if headers else None
        return self.agent().run_sync(text, model_settings=settings).output

    def stream(self) -> Any:
        async def run() -> str:
            async with self.agent().run_stream(HELLO) as result:
                return joined([piece async for piece in result.stream_text(delta=True, debounce_by=None)])

        return asyncio.run(run())

    def _calls(self, messages: Any) -> list[Any]:
        parts = [part for message in messages for part in message.parts]
        return [call(part.tool_name, part.args) for part in parts if part.part_kind == "tool-call"]

    def tools(self) -> Any:
        result = self.agent(tools=[get_weather]).run_sync(ONE)
        return self._calls(result.all_messages()), result.output

    def tools_streamed(self) -> Any:
        async def run() -> Any:
            async with self.agent(tools=[get_weather]).run_stream(ONE) as result:
                await result.get_output()
                return self._calls(result.all_messages())

        return asyncio.run(run())

    def parallel(self) -> Any:
        return self._calls(self.agent(tools=[get_weather]).run_sync(BOTH).all_messages())

    def structured(self) -> Any:
        """By the call of a tool, its default, and by the server's schema."""
        from pydantic_ai import NativeOutput

        first = self.agent(output_type=Person).run_sync(PERSON).output
        assert first == self.agent(output_type=NativeOutput(Person)).run_sync(PERSON).output
        return first.model_dump()

    def reasoning(self) -> Any:
        messages = self.agent().run_sync(THINK).all_messages()
        return next(p.content for m in messages for p in m.parts if p.part_kind == "thinking")

    def picture(self) -> Any:
        from pydantic_ai import BinaryContent

        return self.plain(["What is this?", BinaryContent(base64.b64decode(PIXEL), media_type="image/png")])


class OpenAIAgents(Client):
    """Agents over chat completions; `responses` for the default, the Responses API."""

    package = "openai-agents"
    responses = False

    def agent(self, headers: Any = None, **more: Any) -> Any:
        import agents
        from openai import AsyncOpenAI

        agents.set_tracing_disabled(True)
        client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=self.key, max_retries=0)
        kind = agents.OpenAIResponsesModel if self.responses else agents.OpenAIChatCompletionsModel
        settings = agents.ModelSettings(extra_headers=headers)
        return agents.Agent(name="a", model=kind(MODEL, client), model_settings=settings, **more)

    def run(self, text: Any, **more: Any) -> Any:
        from agents import Runner

        return Runner.run_sync(self.agent(**more), text)

    def plain(self, text: Any = HELLO, headers: Any = None) -> Any:
        return self.run(text, headers=headers).final_output

    def _streamed(self, text: str, **more: Any) -> tuple[list[str], Any]:
        from agents import Runner

        async def run() -> tuple[list[str], Any]:
            result = Runner.run_streamed(self.agent(**more), text)
            events = [e.data async for e in result.stream_events() if e.type == "raw_response_event"]
            return [e.delta for e in events if e.type == "response.output_text.delta"], result

        return asyncio.run(run())

    def stream(self) -> Any:
        return joined(self._streamed(HELLO)[0])

    def _calls(self, result: Any) -> list[Any]:
        items = [item.raw_item for item in result.new_items if item.type == "tool_call_item"]
        return [call(item.name, item.arguments) for item in items]

    def tools(self) -> Any:
        from agents import function_tool

        result = self.run(ONE, tools=[function_tool(get_weather)])
        return self._calls(result), result.final_output

    def tools_streamed(self) -> Any:
        from agents import function_tool

        return self._calls(self._streamed(ONE, tools=[function_tool(get_weather)])[1])

    def parallel(self) -> Any:
        from agents import function_tool

        return self._calls(self.run(BOTH, tools=[function_tool(get_weather)]))

    def structured(self) -> Any:
        return self.run(PERSON, output_type=Person).final_output.model_dump()

    def reasoning(self) -> Any:
        items = self.run(THINK).new_items
        return next(item.raw_item.summary[0].text for item in items if item.type == "reasoning_item")

    def picture(self) -> Any:
        parts = [{"type": "input_text", "text": "What is this?"}]
        parts.append({"type": "input_image", "image_url": PICTURE, "detail": "auto"})
        return self.plain(user(parts))


class OpenAIAgentsResponses(OpenAIAgents):
    responses = True


CLIENTS: dict[str, type[Client]] = {
    "openai, chat completions": OpenAIChat,
    "openai, responses": OpenAIResponses,
    "anthropic": Anthropic,
    "LangChain ChatOpenAI": LangChain,
    "LangChain ChatOpenAI, responses": LangChainResponses,
    "LangChain ChatAnthropic": LangChainAnthropic,
    "LlamaIndex OpenAILike": LlamaIndex,
    "LiteLLM openai/": LiteLLM,
    "LiteLLM anthropic/": LiteLLMAnthropic,
    "instructor": Instructor,
    "Pydantic AI": PydanticAI,
    "OpenAI Agents, chat completions": OpenAIAgents,
    "OpenAI Agents, responses": OpenAIAgentsResponses,
}


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["OPENAI_API_KEY"] = os.environ["ANTHROPIC_API_KEY"] = "unused"
    os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
    for name, kind in CLIENTS.items():
        version = f"{kind.package} {importlib.metadata.version(kind.package)}"
        for feature in sys.argv[3:] or FEATURES:
            if (method := getattr(kind, feature, None)) is None:
                continue
            row: dict[str, Any] = {"client": name, "version": version, "feature": feature}
            try:
                row["got"] = method(kind())
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:600]
                row["trace"] = traceback.format_exc()[-1500:]
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
