"""Tiny tokenizers in the manner of those of public model families, trained once in a session."""

from __future__ import annotations

import json
import random
from functools import cache

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXT = """The quick brown fox jumps over the lazy dog. How are you today? I am fine, thank you! What is 2+2?
2+2 equals 4. Okay, the user asks: let me think. system user assistant model think answer Be brief.
Hello world. Hi there."""
WORDS = TEXT.split()
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _texts() -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=30)) for _ in range(80)]


@cache
def _byte_level() -> str:
    inner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    inner.normalizer, inner.decoder = normalizers.NFC(), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=letters, show_progress=False)
    inner.train_from_iterator(_texts(), trainer)
    return inner.to_str()


@cache
def _sentencepiece(prefix: str) -> str:
    """`prefix`: `always` as Llama-2's (by its normaliser), `first` as Mistral v3's, `never` as Gemma's."""
    inner = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    blanks = normalizers.Replace(" ", "▁")
    prepend = [normalizers.Prepend("▁")] if prefix == "always" else []
    words = metaspace if prefix == "first" else pre_tokenizers.Split(Regex("▁[^▁]*|[^▁]+"), "isolated")
    inner.pre_tokenizer = words
    if prefix != "first":
        inner.normalizer = normalizers.Sequence([*prepend, blanks])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if prefix != "never" else [])])
    trainer = trainers.BpeTrainer(vocab_size=440, special_tokens=["<unk>", *BYTES], show_progress=False)
    inner.train_from_iterator(_texts(), trainer)
    made = json.loads(inner.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] == "<unk>"]
    if prefix == "first":
        made["pre_tokenizer"]["split"] = False
    else:
        made["pre_tokenizer"] = None
    return json.dumps(made)


def make(
    kind: str,
    special: tuple[str, ...],
    markup: tuple[str, ...] = (),
    rstrip: bool = False,
    **names: str,
) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind (`bytes`, or a prefix of `_sentencepiece`) with special tokens, other added
    tokens (`markup`), and names such as `eos_token`. It puts its BOS, if any, before every text."""
    inner = Tokenizer.from_str(_byte_level() if kind == "bytes" else _sentencepiece(kind))
    unknown = {} if kind == "bytes" else {"unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **unknown)
    tokens = [AddedToken(each, special=True, normalized=False, rstrip=rstrip) for each in special]
    made.add_tokens(tokens, special_tokens=True)
    made.add_tokens([AddedToken(each, special=False, normalized=False) for each in markup])
    for name, token in names.items():
        setattr(made, name, token)
    if begin := names.get("bos_token"):
        ids = [(begin, made.convert_tokens_to_ids(begin))]
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=ids
        )
    return made
