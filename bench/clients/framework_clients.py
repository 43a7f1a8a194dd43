"""LangChain, LlamaIndex and LiteLLM."""

from __future__ import annotations

import base64
import json
from typing import Any

from client import (
    BOTH,
    HELLO,
    MODEL,
    ONE,
    PARTS,
    PERSON,
    PIXEL,
    THINK,
    TOOLS,
    URL,
    Client,
    Person,
    call,
    get_weather,
    joined,
    user,
)


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
