"""How byte-level vocabularies split text into words: llama.cpp's names for it, and the regular expressions.

A GGUF names its pre-tokenizer (`tokenizer.ggml.pre`) and does not hold it; llama.cpp has the expressions in
its source (src/llama-vocab.cpp). A name that is missing here is refused: split otherwise, a text has other
tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from escultor.errors import ModelError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"
QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_SLASHED}"
GPT4O = rf"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_SLASHED}"
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@dataclass(frozen=True)
class PreTokenizer:
    """Expressions that split a text one after another. `whole_words`: a word that is a token is taken as
    such, whether or not merges lead to it (`ignore_merges`). `adds_bos`: where the file says nothing."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


_GPT2, _DIGITS, _QWEN2 = PreTokenizer((GPT2,)), PreTokenizer((_DIGIT, GPT2)), PreTokenizer((QWEN2,))
_LLAMA3, _GPT4O = PreTokenizer((LLAMA3,), True, True), PreTokenizer((GPT4O,))
_LLAMA3_MERGED = PreTokenizer((LLAMA3,))
# The first name of each kind is the one that is written.
BY_NAME = {
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat", "mellum", "trillion"), _GPT2
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS
    ),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo", "grok-2"), _QWEN2
    ),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "midm-2.0"), _LLAMA3),
    **dict.fromkeys(("smaug-bpe", "dbrx", "glm4", "chatglm-bpe"), _LLAMA3_MERGED),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), _GPT4O),
    "qwen35": PreTokenizer((QWEN35,)),
    "tekken": PreTokenizer((TEKKEN,), True, True),
    "deepseek-v3": PreTokenizer(_DEEPSEEK3),
}


def named(name: str) -> PreTokenizer:
    """The pre-tokenizer of this name in llama.cpp. Raises ModelError for one that is not known here."""
    if name not in BY_NAME:
        what = "the vocabulary splits words in a way that is not known here (`tokenizer.ggml.pre`)"
        raise ModelError(what, name, ", ".join(BY_NAME), "import the model's transformers folder instead")
    return BY_NAME[name]


def build(pre: PreTokenizer) -> Any:
    """The pre-tokenizer as the library `tokenizers` runs it, with the mapping of bytes to characters."""
    from tokenizers import Regex, pre_tokenizers

    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, last])


def name_of(parts: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer in a tokenizer.json. Raises ModelError where it has none."""
    patterns = tuple(_patterns(parts["pre_tokenizer"]))
    whole_words = bool(parts["model"].get("ignore_merges"))
    for name, pre in BY_NAME.items():
        if pre.patterns == patterns and pre.whole_words == whole_words:
            return name
    what = "llama.cpp knows no pre-tokenizer that splits words as this model's tokenizer does"
    got = json.dumps(parts["pre_tokenizer"], ensure_ascii=False)[:300]
    raise ModelError(
        what, got, ", ".join(BY_NAME), "serve the model as safetensors, with vLLM or `escultor serve`"
    )


def _patterns(step: dict[str, Any]) -> list[str]:
    """The expressions by which a step of a tokenizer.json splits; a text in angle brackets for what is
    none."""
    kind = step["type"]
    if kind == "Sequence":
        return [pattern for inner in step["pretokenizers"] for pattern in _patterns(inner)]
    if kind == "ByteLevel" and not step["add_prefix_space"]:
        return [GPT2] if step.get("use_regex", True) else []
    if kind == "Digits" and step["individual_digits"]:
        return [_DIGIT]
    if (
        kind == "Split"
        and step["behavior"] == "Isolated"
        and not step["invert"]
        and "Regex" in step["pattern"]
    ):
        return [step["pattern"]["Regex"]]
    return [f"<{kind}>"]
