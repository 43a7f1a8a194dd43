"""A tiny model that has learnt the matrix's questions by heart, so that each answer is right or wrong.

    python bench/clients/own_model.py FOLDER

A Llama of 100,000 weights, trained by the project's own SFT on a dozen conversations with tools. Its
template shows tools by their names alone, so that clients which describe a tool differently get the same
prompt. Half a minute on one core.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from upstream import CITIES, PERSON, TEXT, THOUGHT

from escultor.config import Pretrain, Sft
from escultor.model.load import init_llama
from escultor.model.loaded import Loaded
from escultor.text.tokenizer import train_tokenizer
from escultor.train.run_record import TrainingTask
from escultor.train.runs import run
from escultor.types import Example, Message, Origin, Role, ToolCall
from escultor.types.training import AnswerExtras

QUESTIONS = {"Say hello.": (), "What is the weather in Paris?": CITIES[:1]}
QUESTIONS["What is the weather in Paris and in Lima?"] = CITIES
SUNNY, WHO, THINK = "It is sunny.", "Who comes, and when?", "Say hello, and think first."
# As clients call a schema that they pass as a tool.
PERSON_TOOLS = ("Person", "person", "final_result", "json_tool_call")
# As clients ask for JSON in words.
SYSTEM = (
    "As a genius expert, your task is to understand the content and provide the parsed objects in json that "
    "match the following json_schema:\n\n{}\n\nMake sure to return an instance of the JSON, not the schema "
    "itself\n",
    "Return the correct JSON response within a ```json codeblock. not the JSON_SCHEMA",
    '{"type": "object"}',
)
LAYERS, SIZE, VOCABULARY, STEPS, COPIES = 2, 64, 512, 350, 8
CALLS = (
    "{% for call in message.tool_calls %}{{ '<tool_call>' + {'name': call.function.name, 'arguments': "
    "call.function.arguments} | tojson + '</tool_call>' }}{% endfor %}"
)
TEMPLATE = (
    "{% if tools %}{{ '<|tools|>' }}{% for tool in tools %}{{ tool.function.name + '\n' }}{% endfor %}"
    "{{ '<|end|>' }}{% endif %}{% for message in messages %}"
    "{{ '<|' + message.role + '|>' }}"
    "{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif %}"
    "{{ message.content or '' }}"
    "{% if message.tool_calls %}" + CALLS + "{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARKS = (
    "<|tools|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|end|>",
    "<|pad|>",
    "<think>",
    "</think>",
)


def tools_of(name: str) -> str:
    return json.dumps([{"type": "function", "function": {"name": name}}])


def example(
    prompt: list[Message],
    answer: str = "",
    calls: tuple[ToolCall, ...] = (),
    tools: str = "",
    reasoning: str = "",
) -> Example:
    origin = Origin(("matrix",), "matrix/1")
    return Example("", tuple(prompt), answer, origin, tools=tools, extras=AnswerExtras(reasoning, calls))


def conversations() -> list[Example]:
    """Every question of the matrix, with its answer."""
    weather, found = tools_of("get_weather"), []
    for text, cities in QUESTIONS.items():
        asked = Message(Role.USER, text)
        arguments = [json.dumps({"city": city}) for city in cities]
        calls = tuple(ToolCall(f"call_{at}", "get_weather", each) for at, each in enumerate(arguments))
        if not calls:
            found.append(example([asked], TEXT))
            continue
        found.append(example([asked], calls=calls, tools=weather))
        results = [Message(Role.TOOL, "sunny", tool_call_id=call.id) for call in calls]
        said = Message(Role.ASSISTANT, "", tool_calls=calls)
        found.append(example([asked, said, *results], SUNNY, tools=weather))
    found.append(example([Message(Role.USER, THINK)], TEXT, reasoning=THOUGHT))
    asked = Message(Role.USER, WHO)
    found += [example([Message(Role.SYSTEM, words), asked], json.dumps(PERSON)) for words in SYSTEM]
    found.append(example([asked], json.dumps(PERSON)))
    for name in PERSON_TOOLS:
        # A call that a schema constrains is JSON without marks.
        text = json.dumps({"name": name, "arguments": PERSON})
        found.append(example([asked], text, tools=tools_of(name)))
    return found


def fresh(items: list[Example]) -> Loaded:
    torch.manual_seed(0)
    texts = [m.content + "".join(c.arguments for c in m.tool_calls) for item in items for m in item.prompt]
    texts += [item.response + item.tools for item in items] * 4
    tokenizer = train_tokenizer(texts, VOCABULARY, 1024)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS), "eos_token": "<|end|>"})
    tokenizer.chat_template = TEMPLATE
    shape = Pretrain(
        hidden_size=SIZE,
        intermediate_size=2 * SIZE,
        layers=LAYERS,
        heads=4,
        kv_heads=4,
        vocabulary=len(tokenizer),
    )
    return Loaded(init_llama(shape, tokenizer, len(tokenizer)), tokenizer)


def build(folder: Path) -> None:
    """Train the model, and move its folder there."""
    items = conversations()
    rows = [
        Example(f"{copy}-{at}", item.prompt, item.response, item.origin, tools=item.tools, extras=item.extras)
        for copy in range(COPIES)
        for at, item in enumerate(items)
    ]
    random.Random(0).shuffle(rows)
    settings = Sft(
        learning_rate=3e-3,
        epochs=1000,
        max_steps=STEPS,
        batch_size=len(items),
        warmup_steps=10,
        dtype="float32",
    )
    with tempfile.TemporaryDirectory() as name:
        run(TrainingTask("sft", fresh(items), rows, settings), Path(name) / "run")
        (Path(name) / "run" / "model").rename(folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
