"""The official Python clients of OpenAI and Anthropic."""

from __future__ import annotations

from typing import Any

from client import (
    BOTH,
    FUNCTION,
    HELLO,
    KEY,
    MODEL,
    ONE,
    PARAMETERS,
    PARTS,
    PERSON,
    PICTURE,
    PIXEL,
    THINK,
    TOOLS,
    URL,
    Client,
    Person,
    call,
    joined,
    user,
)


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
