"""Tokenizers from the vocabulary in a GGUF file, so that texts have the tokens that llama.cpp gives them.

Two kinds are read: byte-level BPE (`gpt2`), whose merges are in the file, and SentencePiece's BPE
(`llama`), whose merges follow from the scores. What llama.cpp decides by a token's text (which tokens end
an answer, which are control tokens) is decided the same way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from escultor.errors import ModelError
from escultor.model.gguf import pre_tokenizers
from escultor.model.gguf.header import GgufFile

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's token types
SPACE = "\u2581"
PADDING = re.compile(r"\[PAD\d+\]")  # rows of an embedding without a token
ENDERS = frozenset(  # texts of tokens that end an answer, whatever else the file says
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<｜end▁of▁sentence｜>",
    ]
)
_MOST_TOKENS = 1 << 21
_LONGEST_TOKEN = 1024  # characters; splits of a token grow with its length
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator", "mask": "mask"}


class GgufVocabulary:
    """The tokens of a file, their types and the ids with a meaning."""

    def __init__(self, file: GgufFile):
        self.file = file
        self.model = file.get("tokenizer.ggml.model", str, "none")
        if self.model not in ("gpt2", "llama"):
            what = f"{file.path}: this kind of vocabulary cannot be imported"
            raise ModelError(what, self.model, "gpt2 (byte-level BPE), llama (SentencePiece BPE)")
        self.tokens: list[str] = self._strings("tokens")
        if not 0 < len(self.tokens) <= _MOST_TOKENS or len(set(self.tokens)) < len(self.tokens):
            raise ModelError(
                f"{file.path}: the vocabulary has no tokens, too many, or one twice", len(self.tokens)
            )
        types = file.metadata.get("tokenizer.ggml.token_type")
        self.types = [NORMAL] * len(self.tokens) if types is None else list(map(int, types))
        if len(self.types) != len(self.tokens):
            raise ModelError(f"{file.path}: tokens and their types differ in number", len(self.types))
        for id, token in enumerate(self.tokens):
            if token in ENDERS:
                self.types[id] = CONTROL
        self.ids = {name: self._id(f"{key}_token_id") for name, key in _NAMED.items()}
        self.pre = (
            pre_tokenizers.named(file.get("tokenizer.ggml.pre", str, "")) if self.model == "gpt2" else None
        )
        if self.model == "llama":
            for name, id in (("bos", 1), ("eos", 2), ("unk", 0)):  # llama.cpp's defaults
                if self.ids[name] is None and id < len(self.tokens):
                    self.ids[name] = id

    def _strings(self, name: str) -> list[str]:
        found = self.file.get(f"tokenizer.ggml.{name}", list, [])
        if not all(isinstance(each, str) for each in found):
            raise ModelError(f"{self.file.path}: `tokenizer.ggml.{name}` holds something else than texts")
        return found

    def _id(self, name: str) -> int | None:
        id = self.file.get(f"tokenizer.ggml.{name}", int)
        return id if id is not None and 0 <= id < len(self.tokens) else None  # as llama.cpp does

    @property
    def adds_bos(self) -> bool:
        default = True if self.pre is None else self.pre.adds_bos
        return self.file.get("tokenizer.ggml.add_bos_token", bool, default) and self.ids["bos"] is not None

    @property
    def adds_eos(self) -> bool:
        return self.file.get("tokenizer.ggml.add_eos_token", bool, False) and self.ids["eos"] is not None

    @property
    def ends(self) -> list[int]:
        """The ids of all tokens that end an answer, the end-of-text token first."""
        named = [self.ids["eos"], self._id("eot_token_id"), self._id("eom_token_id")]
        by_text = [id for id, token in enumerate(self.tokens) if token in ENDERS]
        harmony = {"<|return|>", "<|call|>", "<|end|>"}
        if harmony <= set(self.tokens):  # there `<|end|>` ends a message, not the answer
            by_text.remove(self.tokens.index("<|end|>"))
        return list(dict.fromkeys(id for id in (*named, *by_text) if id is not None))

    def merges(self) -> list[tuple[str, str]]:
        if self.model == "llama":
            return merges_by_score(self.tokens, self.types, self._scores())
        pairs = [merge[0] + merge[1:].partition(" ")[0] for merge in self._strings("merges") if merge]
        rests = [merge[1:].partition(" ")[2] for merge in self._strings("merges") if merge]
        known = set(self.tokens)
        for first, second in zip(pairs, rests, strict=True):
            if not {first, second, first + second} <= known:
                raise ModelError(
                    f"{self.file.path}: a merge is of tokens that are not there", [first, second]
                )
        return list(zip(pairs, rests, strict=True))

    def _scores(self) -> Sequence[float]:
        scores = self.file.metadata.get("tokenizer.ggml.scores")
        if scores is None or len(scores) != len(self.tokens):
            raise ModelError(f"{self.file.path}: the vocabulary has no score for each token")
        return [float(score) for score in scores]


def merges_by_score(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]
) -> list[tuple[str, str]]:
    """The merges that SentencePiece's BPE makes: any two tokens into a third, the highest score first."""
    normal = {token: id for id, token in enumerate(tokens) if types[id] in (NORMAL, USER_DEFINED, UNUSED)}
    found: list[tuple[float, int, int, int, tuple[str, str]]] = []
    for token, id in normal.items():
        if len(token) > _LONGEST_TOKEN:
            raise ModelError("a token is too long", len(token), f"{_LONGEST_TOKEN} characters")
        for at in range(1, len(token)):
            first, second = token[:at], token[at:]
            if first in normal and second in normal:
                found.append((-scores[id], id, normal[first], normal[second], (first, second)))
    return [merge for *_, merge in sorted(found)]


def read_tokenizer(file: GgufFile) -> tuple[Any, list[int]]:
    """The tokenizer (PreTrainedTokenizerFast) of a file, with its chat template, and the ids that end an
    answer.

    Raises ModelError for a vocabulary that is damaged, or of a kind that is not read.
    """
    from transformers import PreTrainedTokenizerFast

    vocabulary = GgufVocabulary(file)
    try:
        backend = _backend(vocabulary)
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises Exception itself
        raise ModelError(f"{file.path}: no tokenizer can be made of its vocabulary", error) from error
    named = {f"{k}_token": vocabulary.tokens[id] for k, id in vocabulary.ids.items() if id is not None}
    template = file.get("tokenizer.chat_template", str)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=file.get(
            f"{file.get('general.architecture', str, '')}.context_length", int, 1 << 30
        ),
        **named,
    )
    return tokenizer, vocabulary.ends


def _backend(vocabulary: GgufVocabulary) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    tokens, types = vocabulary.tokens, vocabulary.types
    padding = len(tokens)
    while padding and types[padding - 1] == UNUSED and PADDING.fullmatch(tokens[padding - 1]):
        padding -= 1
    table = {token: id for id, token in enumerate(tokens[:padding])}
    if vocabulary.pre is not None:
        model = models.BPE(table, vocabulary.merges(), ignore_merges=vocabulary.pre.whole_words)
        backend = Tokenizer(model)
        backend.pre_tokenizer = pre_tokenizers.build(vocabulary.pre)
        backend.decoder = decoders.ByteLevel()
    else:
        unknown = vocabulary.ids["unk"]
        name = None if unknown is None else tokens[unknown]
        model = models.BPE(table, vocabulary.merges(), unk_token=name, byte_fallback=True, fuse_unk=True)
        backend = Tokenizer(model)
        prefixed = vocabulary.file.get("tokenizer.ggml.add_space_prefix", bool, True)
        prefix = [normalizers.Prepend(SPACE)] if prefixed else []
        backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
        strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
        spaces = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence([*spaces, *strip])
    strips = _strips(vocabulary.file)
    added = [
        AddedToken(token, normalized=False, special=types[id] in (CONTROL, UNKNOWN), rstrip=token in strips)
        for id, token in enumerate(tokens[:padding])
        if types[id] in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    backend.add_tokens(added)
    before = [(vocabulary.ids["bos"], "$A")] if vocabulary.adds_bos else []
    around = [*(tokens[id] for id, _ in before), "$A"]  # type: ignore[index]
    if vocabulary.adds_eos:
        around.append(tokens[vocabulary.ids["eos"]])  # type: ignore[index]
    if len(around) > 1:
        special = [(token, table[token]) for token in around if token != "$A"]
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join(around), special_tokens=special
        )
    return backend


class _RightStripped:
    """The added tokens of Phi-3 that take the spaces after them, as llama.cpp knows by the model's name."""

    def __init__(self, applies: bool):
        self.applies = applies

    def __contains__(self, token: str) -> bool:
        return self.applies and token not in ("<unk>", "<s>", "<|endoftext|>")


def _strips(file: GgufFile) -> _RightStripped:
    name = file.get("general.name", str, "").lower()
    return _RightStripped("phi-3" in name or "phi3" in name)
