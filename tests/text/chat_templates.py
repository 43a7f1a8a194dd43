"""Chat templates written for the tests in the style of public model families.

The wording of the templates is the tests' own; what they write around contents (control tokens, blanks, what
is stripped or added when) follows the families' published templates.
"""

# ruff: noqa: E501 (templates)

from __future__ import annotations

# The calls of a message, each as JSON between tags, and definitions of tools in a system message.
CALLS = "{% for call in m.tool_calls or [] %}{{ '\n<tool_call>\n' + call.function | tojson + '\n</tool_call>' }}{% endfor %}"
DEFINED = "{% if tools %}{{ '\n\n<tools>' }}{% for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}{{ '\n</tools>' }}{% endif %}"
RESULT = "{{ '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
# Index of the last message that a person wrote.
LAST = "{% set n = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set n.last = loop.index0 %}{% endif %}{% endfor %}"
# Reasoning and content of a message, the reasoning from its field or from the content.
SPLIT = (
    "{% set said = m.content %}{% set thought = m.reasoning_content or '' %}"
    "{% if not thought and '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)


def chatml(
    assistant: str, generation: str = "", default: str = "", tools: bool = True, before: str = ""
) -> str:
    """A template with Qwen's tokens: `assistant` writes an answer `m` without its header and end, `generation`
    what follows the header of the next answer, `default` is the system message where there is none."""
    system = (
        "{% set first = messages[0].role in ('system', 'developer') %}"
        f"{{% set said = messages[0].content if first else '{default}' %}}"
        "{% if said or tools or first %}{{ '<|im_start|>system\n' + said }}"
        + (DEFINED if tools else "")
        + "{{ '<|im_end|>\n' }}{% endif %}"
    )
    return (
        before
        + LAST
        + system
        + "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
        + "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
        + assistant
        + "{{ '<|im_end|>\n' }}{% elif m.role == 'tool' %}"
        + RESULT
        + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        + generation
        + "{% endif %}"
    )


def turns(user: str, assistant: str, system: str, generation: str, before: str = "") -> str:
    """A template of one expression for each role, for a message `m`."""
    return (
        f"{before}{{% for m in messages %}}{{% if m.role == 'user' %}}{{{{ {user} }}}}"
        f"{{% elif m.role == 'assistant' %}}{assistant}{{% else %}}{system}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {generation} }}}}{{% endif %}}"
    )


REFUSED = "{{ raise_exception('no system messages here') }}"
# The system message, taken out of the messages and written by the first user's turn.
FOLDED = (
    "{% set ns = namespace(said='') %}{% if messages[0].role == 'system' %}"
    "{% set ns.said = OPEN + messages[0].content + CLOSE %}{% set messages = messages[1:] %}{% endif %}"
)


def folded(opened: str, closed: str) -> str:
    return FOLDED.replace("OPEN", repr(opened)).replace("CLOSE", repr(closed))


INST = "bos_token + '[INST] ' + (ns.said if loop.first else '') + m.content{trim} + ' [/INST]'"
LLAMA2 = turns(
    INST.format(trim=".strip()"),
    "{{ ' ' + m.content.strip() + ' ' + eos_token }}",
    "",
    "''",
    folded("<<SYS>>\n", "\n<</SYS>>\n\n"),
)
MISTRAL1 = turns(
    "'[INST] ' + m.content + ' [/INST]'",
    "{{ ' ' + m.content + eos_token }}",
    REFUSED,
    "''",
    "{{ bos_token }}",
)
MISTRAL3 = (
    "{{ bos_token }}{% if tools %}{{ '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS] ' + {'content': m.content, 'call_id': m.tool_call_id} | tojson + '[/TOOL_RESULTS]' }}"
    "{% elif m.role == 'assistant' %}{% if m.tool_calls %}{{ '[TOOL_CALLS] [' }}"
    "{% for call in m.tool_calls %}{{ call.function | tojson }}{% endfor %}{{ ']' + eos_token }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% else %}" + REFUSED + "{% endif %}{% endfor %}"
)
HEADER = "'<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>'"
LLAMA3_GENERATION = "'<|start_header_id|>assistant<|end_header_id|>\n\n'"
LLAMA3 = turns(HEADER, "{{ " + HEADER + " }}", "{{ " + HEADER + " }}", LLAMA3_GENERATION, "{{ bos_token }}")
LLAMA3_2 = (
    "{{ bos_token }}{% set said = '' %}{% if messages[0].role == 'system' %}{% set said = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{ 'Today Date: ' + strftime_now('%d %b %Y') + '\n\n' }}{% if tools %}{{ tools | tojson + '\n\n' }}{% endif %}"
    "{{ said + '<|eot_id|>' }}{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' + m.content | tojson + '<|eot_id|>' }}"
    "{% elif m.tool_calls %}{% set call = m.tool_calls[0].function %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{{ {'name': call.name, 'parameters': call.arguments} | tojson + '<|eot_id|>' }}"
    "{% else %}{{ " + HEADER + " }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ " + LLAMA3_GENERATION + " }}{% endif %}"
)
ZEPHYR_TURN = "'<|' + m.role + '|>\n' + m.content + eos_token + '\n'"
ZEPHYR = turns(ZEPHYR_TURN, "{{ " + ZEPHYR_TURN + " }}", "{{ " + ZEPHYR_TURN + " }}", "'<|assistant|>\n'")
VICUNA = turns(
    "'USER: ' + m.content + ' '",
    "{{ 'ASSISTANT: ' + m.content + eos_token }}",
    "{{ m.content + ' ' }}",
    "'ASSISTANT:'",
    "{{ bos_token }}",
)
GEMMA_TURN = (
    "'<start_of_turn>user\n' + (ns.said if loop.first else '') + m.content | trim + '<end_of_turn>\n'"
)
GEMMA_ANSWER = "{{ '<start_of_turn>model\n' + m.content | trim + '<end_of_turn>\n' }}"
GEMMA = turns(
    GEMMA_TURN.replace("(ns.said if loop.first else '') + ", ""),
    GEMMA_ANSWER,
    REFUSED,
    "'<start_of_turn>model\n'",
    "{{ bos_token }}",
)
GEMMA3 = turns(
    GEMMA_TURN, GEMMA_ANSWER, "", "'<start_of_turn>model\n'", "{{ bos_token }}" + folded("", "\n\n")
)
PHI3_TURN = "'<|' + m.role + '|>\n' + m.content + '<|end|>\n'"
PHI3 = turns(PHI3_TURN, "{{ " + PHI3_TURN + " }}", "{{ " + PHI3_TURN + " }}", "'<|assistant|>\n'") + (
    "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
)
PHI4_TURN = "'<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>'"
PHI4 = turns(
    PHI4_TURN, "{{ " + PHI4_TURN + " }}", "{{ " + PHI4_TURN + " }}", "'<|im_start|>assistant<|im_sep|>'"
)
QWEN3_ANSWER = (
    SPLIT + "{% if loop.index0 > n.last and (loop.last or thought) %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') }}{% else %}{{ said }}{% endif %}"
    + CALLS
)
QWEN35_ANSWER = (
    SPLIT + "{% if loop.index0 > n.last %}{{ '<think>\n' + thought | trim + '\n</think>\n\n' + said }}"
    "{% else %}{{ said }}{% endif %}" + CALLS
)
PLAIN_ANSWER = "{{ m.content }}" + CALLS
NEMOTRON_ANSWER = (
    "{% set said = '<think>\n' + m.reasoning_content + '\n</think>\n' + m.content if m.reasoning_content else m.content %}"
    "{% if '</think>' not in said %}{% set said = '<think></think>' + said %}{% endif %}"
    "{% if loop.index0 < n.last %}{% set said = '<think></think>' + said.split('</think>')[-1] %}{% endif %}"
    "{{ said | trim }}" + CALLS
)
SMOLLM3_ANSWER = "{{ '<think>\n\n</think>\n' + m.content.split('</think>')[-1].lstrip('\n') }}" + CALLS
EXAONE_ANSWER = "{{ m.content.split('</think>')[-1].lstrip('\n') }}" + CALLS
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1] %}"
    "{{ '<｜Assistant｜>' + BEFORE + said }}{% for call in m.tool_calls or [] %}"
    "{{ '<｜tool▁call▁begin｜>' + call.type + '<｜tool▁sep｜>' + call.function.name + '\n' + call.function.arguments + '<｜tool▁call▁end｜>' }}"
    "{% endfor %}{{ eos_token }}{% elif m.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' + AFTER }}{% endif %}"
)


def cohere(before: str, after: str) -> str:
    turn = "'<|START_OF_TURN_TOKEN|><|{}_TOKEN|>' + {} + '<|END_OF_TURN_TOKEN|>'"
    return turns(
        turn.format("USER", "m.content"),
        "{{ " + turn.format("CHATBOT", f"'{before}' + m.content | trim + '{after}'") + " }}",
        "{{ " + turn.format("SYSTEM", "m.content") + " }}",
        "'<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'",
        "{{ bos_token }}",
    )


LFM2_TURN = "'<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n'"
LFM2 = turns(
    LFM2_TURN,
    "{{ '<|im_start|>assistant\n' + (m.content if loop.last else m.content.split('</think>')[-1] | trim) + '<|im_end|>\n' }}",
    "{% if m.role == 'tool' %}{{ '<|im_start|>tool\n<|tool_response_start|>' + m.content + '<|tool_response_end|><|im_end|>\n' }}"
    "{% else %}{{ " + LFM2_TURN + " }}{% endif %}",
    "'<|im_start|>assistant\n'",
    "{{ bos_token }}",
)
MAGISTRAL = turns(
    "'[INST]' + m.content + '[/INST]'",
    "{{ ('[THINK]' + m.reasoning_content + '[/THINK]' if m.reasoning_content else '') + m.content + eos_token }}",
    "{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}",
    "''",
    "{{ bos_token }}",
)
GPT_OSS = (
    "{{ '<|start|>system<|message|>Today: ' + strftime_now('%Y-%m-%d') + '\nReasoning: medium<|end|>' }}"
    "{% if messages[0].role in ('system', 'developer') %}{% set said = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
    "{% if said or tools %}{{ '<|start|>developer<|message|># Instructions\n\n' + (said or '') }}"
    "{% if tools %}{{ '\n\n' + tools | tojson }}{% endif %}{{ '<|end|>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'tool' %}{{ '<|start|>functions.' + n + ' to=assistant<|channel|>commentary<|message|>' + m.content | tojson + '<|end|>' }}"
    "{% elif 'tool_calls' in m %}{% set call = m.tool_calls[0].function %}{% set later = namespace(final=false) %}"
    "{% for other in messages[loop.index:] %}{% if other.role == 'assistant' and 'tool_calls' not in other %}{% set later.final = true %}{% endif %}{% endfor %}"
    "{% if m.thinking and not later.final %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' + call.arguments | tojson + '<|call|>' }}"
    "{% elif loop.last and not add_generation_prompt %}"
    "{% if m.thinking %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}"
    "{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
).replace("functions.' + n", "functions.' + (m.name or 'f')")
GLM = (
    LAST
    + "{{ '[gMASK]<sop>' }}{% if tools %}{{ '<|system|>\n<tools>' + tools | tojson + '</tools>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\n' + m.content }}"
    "{% elif m.role == 'system' %}{{ '<|system|>\n' + m.content }}"
    "{% elif m.role == 'tool' %}{{ '<|observation|>\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{% else %}"
    + SPLIT
    + "{{ '<|assistant|>\n<think>' + (thought.strip() if loop.index0 > n.last else '') + '</think>' }}"
    "{% if said.strip() %}{{ '\n' + said.strip() }}{% endif %}{% for call in m.tool_calls or [] %}{{ '\n<tool_call>' + call.function.name }}"
    "{% for key, value in call.function.arguments.items() %}{{ '\n<arg_key>' + key + '</arg_key>\n<arg_value>' + value | tojson + '</arg_value>' }}{% endfor %}"
    "{{ '\n</tool_call>' }}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
GRANITE_TURN = "'<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n'"
GRANITE = turns(
    GRANITE_TURN,
    "{{ " + GRANITE_TURN + " }}",
    "{{ " + GRANITE_TURN + " }}",
    "'<|start_of_role|>assistant<|end_of_role|>'",
    "{% if messages[0].role != 'system' %}{{ '<|start_of_role|>system<|end_of_role|>Today is ' + strftime_now('%B %d, %Y') + '.<|end_of_text|>\n' }}{% endif %}",
)
OLMO = turns(
    "'<|user|>\n' + m.content + '\n'",
    "{{ '<|assistant|>\n' + m.content + eos_token }}{% if not loop.last %}{{ '\n' }}{% endif %}",
    "{{ '<|system|>\n' + m.content + '\n' }}",
    "'<|assistant|>\n'",
    "{{ bos_token }}",
)
KIMI_TURN = "'<|im_{}|>' + m.role + '<|im_middle|>' + m.content"
KIMI = turns(
    KIMI_TURN.format("user") + " + '<|im_end|>'",
    "{{ " + KIMI_TURN.format("assistant") + " }}{% if m.tool_calls %}{{ '<|tool_calls_section_begin|>' }}"
    "{% for call in m.tool_calls %}{{ '<|tool_call_begin|>' + call.id + call.function.name + '<|tool_call_argument_begin|>' }}"
    "{{ call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}{{ '<|tool_call_end|>' }}"
    "{% endfor %}{{ '<|tool_calls_section_end|>' }}{% endif %}{{ '<|im_end|>' }}",
    "{{ " + KIMI_TURN.format("system") + " + '<|im_end|>' }}",
    "'<|im_assistant|>assistant<|im_middle|>'",
    "{% if tools %}{{ '<|im_system|>tool_declare<|im_middle|>' + tools | tojson + '<|im_end|>' }}{% endif %}",
)
MINIMAX = (
    LAST
    + "{{ ']~!b[]~b]system\n' + (messages[0].content if messages[0].role == 'system' else 'You are a helpful assistant.') + '[e~[\n' }}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ ']~b]user\n' + m.content + '[e~[\n' }}{% elif m.role == 'assistant' %}"
    + SPLIT
    + "{{ ']~b]ai\n' }}{% if thought and loop.index0 > n.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ said + '[e~[\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ ']~b]ai\n<think>\n' }}{% endif %}"
)
