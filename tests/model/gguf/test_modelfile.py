"""Ollama's template is written where it renders what the model's own template renders, else left out."""

import pytest
import tiny
from gguf_models import byte_level

from escultor.model.gguf.modelfile import modelfile

DEFAULT = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LAST_ONLY = "{{ messages[-1]['content'] }}"
TRIMS_EARLIER = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + "
    "(m['content'][:1] if not loop.last else m['content']) }}"
    "{% endfor %}{{ '<|im_start|>assistant' }}"
)


def template_of(text: str) -> str:
    return text.split('"""')[1]


def test_chatml_becomes_gos_language():
    text, note = modelfile(byte_level(), "m.gguf", (2, 0))
    assert note is None
    assert text.startswith("FROM ./m.gguf\n")
    assert text.endswith('PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n')
    assert template_of(text) == (
        '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}'
        '{{ else if eq .Role "assistant" }}<|im_end|>\n<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        "{{ end }}{{ end }}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_default_system_message_is_kept():
    text, note = modelfile(byte_level(template=DEFAULT), "m.gguf", (2,))
    assert note is None
    assert '{{ if ne (index .Messages 0).Role "system" }}' in template_of(text)
    assert "Help." in template_of(text)


def test_a_date_that_is_kept_is_told():
    template = DEFAULT.replace("Help.", "' + strftime_now('%d %b %Y') + '")
    text, note = modelfile(byte_level(template=template), "m.gguf", (2,))
    assert "TEMPLATE" in text
    assert "keeps that of the export" in str(note)


@pytest.mark.parametrize("template", [LAST_ONLY, TRIMS_EARLIER, tiny.GEMMA, None])
def test_a_template_that_is_no_text_around_messages_is_left_out_with_a_note(template):
    text, note = modelfile(byte_level(template=template), "m.gguf", (2,))
    assert "TEMPLATE" not in text
    assert "compare its answers" in str(note)
