"""Public model families as the tests know them: their kind of tokenizer, their template, what they learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from chat_templates import (
    DEEPSEEK,
    EXAONE_ANSWER,
    GEMMA,
    GEMMA3,
    GLM,
    GPT_OSS,
    GRANITE,
    KIMI,
    LFM2,
    LLAMA2,
    LLAMA3,
    LLAMA3_2,
    MAGISTRAL,
    MINIMAX,
    MISTRAL1,
    MISTRAL3,
    NEMOTRON_ANSWER,
    OLMO,
    PHI3,
    PHI4,
    PLAIN_ANSWER,
    QWEN3_ANSWER,
    QWEN35_ANSWER,
    SMOLLM3_ANSWER,
    VICUNA,
    ZEPHYR,
    chatml,
    cohere,
)
from toy_tokenizers import make

THINK = ("<think>", "</think>")
TOOLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"

qwen = partial(
    make,
    "bytes",
    ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    (*THINK, *TOOLS, "<|fim_prefix|>"),
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
)
llama2 = partial(make, "always", ("<s>", "</s>"), bos_token="<s>", eos_token="</s>", pad_token="</s>")
llama3 = partial(
    make,
    "bytes",
    (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|python_tag|>",
    ),
    bos_token="<|begin_of_text|>",
    eos_token="<|eot_id|>",
)
gemma = partial(
    make,
    "never",
    ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
    bos_token="<bos>",
    eos_token="<eos>",
    pad_token="<pad>",
)
deepseek = partial(
    make,
    "bytes",
    (BEGIN, END),
    (
        "<｜User｜>",
        "<｜Assistant｜>",
        *THINK,
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁output▁begin｜>",
        "<｜tool▁output▁end｜>",
    ),
    bos_token=BEGIN,
    eos_token=END,
    pad_token=END,
)
COHERE = tuple(f"<|{name}_TOKEN|>" for name in ("START_OF_TURN", "END_OF_TURN", "USER", "CHATBOT", "SYSTEM"))
command = partial(make, "bytes", ("<BOS_TOKEN>", "<PAD>", *COHERE, "<|START_RESPONSE|>", "<|END_RESPONSE|>"))
command = partial(command, bos_token="<BOS_TOKEN>", eos_token="<|END_OF_TURN_TOKEN|>", pad_token="<PAD>")


@dataclass(frozen=True)
class Family:
    """`answer` and `thought`: what a model has to write for an answer `{}`, and for one with the reasoning
    `Okay.`; `thought` is empty where the reasoning stays in the content as it is given, and None where the
    prompt leaves no room for it. `joined`: a conversation of plain answers is one row."""

    name: str
    tokenizer: Callable[..., Any]
    template: str | None
    answer: str
    thought: str | None = ""
    takes_system: bool = True
    takes_tools: bool = False
    joined: bool = True
    kind: str = "byte-level BPE"

    def make(self) -> Any:
        made = self.tokenizer()
        made.chat_template = self.template
        return made


SP = "SentencePiece BPE"
FAMILIES = (
    Family("Llama-2", llama2, LLAMA2, " {} </s>", kind=SP),
    Family("Mistral v1", llama2, MISTRAL1, " {}</s>", takes_system=False, kind=SP),
    Family(
        "Mistral v3",
        partial(
            make,
            "first",
            (
                "<s>",
                "</s>",
                "[INST]",
                "[/INST]",
                "[TOOL_CALLS]",
                "[AVAILABLE_TOOLS]",
                "[/AVAILABLE_TOOLS]",
                "[TOOL_RESULTS]",
                "[/TOOL_RESULTS]",
            ),
            bos_token="<s>",
            eos_token="</s>",
        ),
        MISTRAL3,
        " {}</s>",
        takes_system=False,
        takes_tools=True,
        kind=SP,
    ),
    Family(
        "Magistral",
        partial(
            make,
            "bytes",
            (
                "<s>",
                "</s>",
                "[INST]",
                "[/INST]",
                "[SYSTEM_PROMPT]",
                "[/SYSTEM_PROMPT]",
                "[THINK]",
                "[/THINK]",
            ),
            bos_token="<s>",
            eos_token="</s>",
        ),
        MAGISTRAL,
        "{}</s>",
        "[THINK]Okay.[/THINK]{}</s>",
    ),
    Family("Zephyr", llama2, ZEPHYR, "{}</s>", kind=SP),
    Family("Vicuna", llama2, VICUNA, " {}</s>", kind=SP),
    Family("Llama-3", llama3, LLAMA3, "{}<|eot_id|>"),
    Family("Llama-3.2", llama3, LLAMA3_2, "{}<|eot_id|>", takes_tools=True),
    Family("Gemma", gemma, GEMMA, "{}<end_of_turn>", takes_system=False, kind=SP),
    Family("Gemma-3", gemma, GEMMA3, "{}<end_of_turn>", kind=SP),
    Family(
        "Phi-3",
        partial(
            make,
            "always",
            ("<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
            rstrip=True,
            bos_token="<s>",
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
        ),
        PHI3,
        "{}<|end|>",
        kind=SP,
    ),
    Family(
        "Phi-4",
        partial(
            make,
            "bytes",
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
        ),
        PHI4,
        "{}<|im_end|>",
    ),
    Family(
        "Qwen2.5",
        qwen,
        chatml(PLAIN_ANSWER, default="You are a helpful assistant."),
        "{}<|im_end|>",
        takes_tools=True,
    ),
    Family(
        "Qwen3",
        qwen,
        chatml(QWEN3_ANSWER),
        "<think>\n\n</think>\n\n{}<|im_end|>",
        "<think>\nOkay.\n</think>\n\n{}<|im_end|>",
        takes_tools=True,
        joined=False,
    ),
    Family("Qwen3-2507", qwen, chatml(PLAIN_ANSWER), "{}<|im_end|>", takes_tools=True),
    Family(
        "Qwen3.5 thinking",
        qwen,
        chatml(QWEN35_ANSWER, "{{ '<think>\n' }}"),
        "\n</think>\n\n{}<|im_end|>",
        "Okay.\n</think>\n\n{}<|im_end|>",
        takes_tools=True,
        joined=False,
    ),
    Family(
        "Qwen3.5 not thinking",
        qwen,
        chatml(QWEN35_ANSWER, "{{ '<think>\n\n</think>\n\n' }}"),
        "{}<|im_end|>",
        None,
        takes_tools=True,
        joined=False,
    ),
    Family(
        "DeepSeek-R1",
        deepseek,
        DEEPSEEK.replace("BEFORE", "''").replace("AFTER", "'<think>\n'"),
        "\n</think>\n\n{}" + END,
        "Okay.\n</think>\n\n{}" + END,
        takes_tools=True,
        joined=False,
    ),
    Family(
        "DeepSeek-V3.1",
        deepseek,
        DEEPSEEK.replace("BEFORE", "'</think>'").replace("AFTER", "'</think>'"),
        "{}" + END,
        None,
        takes_tools=True,
    ),
    Family("Command-R", command, cohere("", ""), "{}<|END_OF_TURN_TOKEN|>"),
    Family(
        "Command-R7B",
        command,
        cohere("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        "<|START_RESPONSE|>{}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
    Family(
        "LFM2",
        partial(
            make,
            "bytes",
            (
                "<|startoftext|>",
                "<|pad|>",
                "<|im_start|>",
                "<|im_end|>",
                *THINK,
                "<|tool_response_start|>",
                "<|tool_response_end|>",
            ),
            bos_token="<|startoftext|>",
            eos_token="<|im_end|>",
            pad_token="<|pad|>",
        ),
        LFM2,
        "{}<|im_end|>",
    ),
    Family(
        "gpt-oss",
        partial(
            make,
            "bytes",
            (
                "<|startoftext|>",
                "<|endoftext|>",
                "<|return|>",
                "<|start|>",
                "<|end|>",
                "<|message|>",
                "<|channel|>",
                "<|call|>",
                "<|constrain|>",
            ),
            eos_token="<|return|>",
            pad_token="<|endoftext|>",
        ),
        GPT_OSS,
        "<|channel|>final<|message|>{}<|return|>",
        "<|channel|>analysis<|message|>Okay.<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
        takes_tools=True,
        joined=False,
    ),
    Family(
        "GLM-4.5",
        partial(
            make,
            "bytes",
            (
                "<|endoftext|>",
                "[gMASK]",
                "<sop>",
                "<|system|>",
                "<|user|>",
                "<|assistant|>",
                "<|observation|>",
            ),
            (*THINK, *TOOLS, "/nothink"),
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
        ),
        GLM,
        "\n<think></think>\n{}<|endoftext|>",
        "\n<think>Okay.</think>\n{}<|endoftext|>",
        takes_tools=True,
        joined=False,
    ),
    Family(
        "Nemotron-3",
        qwen,
        chatml(NEMOTRON_ANSWER, "{{ '<think>\n' }}"),
        "</think>{}<|im_end|>",
        "Okay.\n</think>\n{}<|im_end|>",
        takes_tools=True,
        joined=False,
    ),
    Family(
        "SmolLM2",
        qwen,
        chatml("{{ m.content }}", default="You are a helpful AI assistant named SmolLM.", tools=False),
        "{}<|im_end|>",
    ),
    Family(
        "SmolLM3 not thinking",
        qwen,
        chatml(SMOLLM3_ANSWER, "{{ '<think>\n\n</think>\n' }}"),
        "{}<|im_end|>",
        None,
        takes_tools=True,
    ),
    Family(
        "EXAONE-4 not thinking",
        qwen,
        chatml(EXAONE_ANSWER, "{{ '<think>\n\n</think>\n\n' }}"),
        "{}<|im_end|>",
        None,
        takes_tools=True,
        joined=False,
    ),
    Family(
        "Granite-3",
        partial(
            make,
            "bytes",
            ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
            eos_token="<|end_of_text|>",
            pad_token="<|end_of_text|>",
        ),
        GRANITE,
        "{}<|end_of_text|>",
    ),
    Family(
        "OLMo-2",
        partial(
            make,
            "bytes",
            ("<|endoftext|>", "<|pad|>"),
            bos_token="<|endoftext|>",
            eos_token="<|endoftext|>",
            pad_token="<|pad|>",
        ),
        OLMO,
        "{}<|endoftext|>",
    ),
    Family(
        "Kimi-K2",
        partial(
            make,
            "bytes",
            (
                "[BOS]",
                "[EOS]",
                "<|im_end|>",
                "<|im_user|>",
                "<|im_assistant|>",
                "<|im_system|>",
                "<|im_middle|>",
                "<|tool_calls_section_begin|>",
                "<|tool_calls_section_end|>",
                "<|tool_call_begin|>",
                "<|tool_call_argument_begin|>",
                "<|tool_call_end|>",
            ),
            eos_token="<|im_end|>",
            pad_token="[EOS]",
        ),
        KIMI,
        "{}<|im_end|>",
        takes_tools=True,
    ),
    Family(
        "MiniMax-M2",
        partial(make, "bytes", ("]~!b[", "]~b]", "[e~["), THINK, eos_token="[e~["),
        MINIMAX,
        "\n</think>\n\n{}[e~[",
        "Okay.\n</think>\n\n{}[e~[",
        joined=False,
    ),
    Family(
        "without a template",
        partial(make, "bytes", ("<|endoftext|>",), bos_token=None, eos_token="<|endoftext|>"),
        None,
        "{}<|endoftext|>",
    ),
)
