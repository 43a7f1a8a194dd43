"""Clients around a task: instructor, Pydantic AI, OpenAI Agents and lm-eval."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from client import (
    BOTH,
    HELLO,
    MODEL,
    ONE,
    PERSON,
    PICTURE,
    PIXEL,
    THINK,
    URL,
    Client,
    Person,
    call,
    get_weather,
    joined,
    user,
)


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


TASK = """task: said
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: '{{{{text}}}}'
doc_to_target: ''
generation_kwargs: {{until: ['<none>'], max_gen_toks: 200}}
metric_list: [{{metric: exact_match}}]
"""


class LmEval(Client):
    """A task of one question, by the harness's own client of chat completions."""

    package = "lm_eval"

    def plain(self, text: str = HELLO, headers: Any = None) -> Any:
        import lm_eval
        from lm_eval.tasks import TaskManager

        own = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        args = {"model": MODEL, "base_url": f"{URL}/v1/chat/completions", "header": own, "max_retries": 1}
        with tempfile.TemporaryDirectory() as name:
            rows = Path(name) / "rows.jsonl"
            rows.write_text(json.dumps({"text": text}))
            (Path(name) / "said.yaml").write_text(TASK.format(rows=rows))
            found = lm_eval.simple_evaluate(
                "local-chat-completions",
                args,
                tasks=["said"],
                task_manager=TaskManager(include_path=name, include_defaults=False),
                apply_chat_template=True,
                log_samples=True,
            )
        return found["samples"]["said"][0]["resps"][0][0]
