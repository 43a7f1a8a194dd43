"""Ollama's Modelfile for a GGUF file, with the chat template in Go's language where that can be proved
equal.

Ollama does not run the Jinja template in the file: it compares it with templates that it knows, and where
none fits passes the prompt through bare. So the template is derived from what the model's own template
renders, and written only if it renders a set of conversations in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from escultor.text.rendering import Renderer

_ROLES = ("system", "user", "assistant")
_MARK = "\ue000{}\ue001"
_PROOFS = ("u", "su", "uau", "suau", "uauau", "suauau")  # roles of the conversations that must be equal


@dataclass(frozen=True)
class _GoTemplate:
    """The text around each role's content, before a conversation without a system message, and at its
    end."""

    around: dict[str, tuple[str, str]]
    default: str
    begin: str
    generation: str

    def render(self, roles: Sequence[str]) -> str:
        """What the Go template renders of messages with these roles, contents being marks."""
        text = self.begin + ("" if roles[0] == "system" else self.default)
        for index, role in enumerate(roles):
            before, after = self.around[role]
            text += before + _MARK.format(index) + after
        return text + self.generation

    def go(self) -> str:
        lines = [_go(self.begin)]
        if self.default:
            lines.append('{{ if ne (index .Messages 0).Role "system" }}' + _go(self.default) + "{{ end }}")
        lines.append("{{ range .Messages }}")
        for index, (role, (before, after)) in enumerate(self.around.items()):
            test = f'{{{{ {"else if" if index else "if"} eq .Role "{role}" }}}}'
            lines.append(test + _go(before) + "{{ .Content }}" + _go(after))
        return "".join([*lines, "{{ end }}{{ end }}", _go(self.generation)])


def modelfile(tokenizer: Any, file: str, stops: Sequence[int]) -> tuple[str, str | None]:
    """A Modelfile for the GGUF file of this name, and a note where its template could not be derived
    or keeps a date."""
    template = _derive(tokenizer)
    lines = [f"FROM ./{file}"]
    note = None
    if template is None:
        note = (
            "the chat template could not be put into Ollama's language: compare its answers before you use it"
        )
    else:
        lines.append(f'TEMPLATE """{template.go()}"""')
        if "strftime_now" in str(tokenizer.chat_template):
            note = "the chat template writes today's date: the Modelfile keeps that of the export"
    for id in stops:
        lines.append(f"PARAMETER stop {json.dumps(tokenizer.convert_ids_to_tokens(id), ensure_ascii=False)}")
    return "\n".join(lines) + "\n", note


def _derive(tokenizer: Any) -> _GoTemplate | None:
    """The template in parts, None where the model's own is not a text around each message."""
    if tokenizer.chat_template is None:
        return None
    try:
        rendered = {code: _render(tokenizer, code) for code in _PROOFS}
    except Exception:  # Jinja's errors and a template's own, as of one without system messages
        return None
    try:
        found = _parts(rendered)
    except (ValueError, IndexError):
        return None
    if any(found.render(_roles(code)) != text for code, text in rendered.items()) or '"""' in found.go():
        return None
    bos = tokenizer.bos_token
    adds = tokenizer.encode("a")[0] == tokenizer.bos_token_id
    if adds and bos and found.begin.startswith(bos):  # llama.cpp writes it
        return _GoTemplate(found.around, found.default, found.begin.removeprefix(bos), found.generation)
    return found


def _parts(rendered: dict[str, str]) -> _GoTemplate:
    def between(code: str, first: int) -> str:
        """The text between two contents."""
        return rendered[code].split(_MARK.format(first))[1].split(_MARK.format(first + 1))[0]

    to_answer = rendered["u"].split(_MARK.format(0))[1]  # end of the question, begin of the answer
    answered = between("uau", 1)  # end of the answer, begin of the question
    asked = between("su", 0)  # end of the system message, begin of the question
    alone = rendered["u"].split(_MARK.format(0))[0]
    begin_question = _common_end(_common_end(answered, asked), alone)
    end_answer, end_system = answered.removesuffix(begin_question), asked.removesuffix(begin_question)
    begin_answer = _common_end(between("uau", 0), to_answer)
    end_question = to_answer.removesuffix(begin_answer)
    lead = rendered["su"].split(_MARK.format(0))[0]
    plain = alone.removesuffix(begin_question)
    around = {
        "system": (lead, end_system),
        "user": (begin_question, end_question),
        "assistant": (begin_answer, end_answer),
    }
    begin = _common_begin(lead, plain)
    around["system"] = (lead.removeprefix(begin), end_system)
    return _GoTemplate(around, plain.removeprefix(begin), begin, begin_answer)


def _roles(code: str) -> list[str]:
    return [next(role for role in _ROLES if role[0] == letter) for letter in code]


def _render(tokenizer: Any, code: str) -> str:
    messages = [{"role": role, "content": _MARK.format(i)} for i, role in enumerate(_roles(code))]
    return Renderer(tokenizer, None, "").render(messages, None, True)


def _common_end(one: str, other: str) -> str:
    size = 0
    while size < min(len(one), len(other)) and one[-1 - size] == other[-1 - size]:
        size += 1
    return one[len(one) - size :]


def _common_begin(one: str, other: str) -> str:
    return _common_end(one[::-1], other[::-1])[::-1]


def _go(text: str) -> str:
    """A text as Go's template language writes it: braces would begin an action, so they are a string."""
    return text if "{{" not in text and "}}" not in text else "{{ " + json.dumps(text) + " }}"
