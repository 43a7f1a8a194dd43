"""Small things for the tests: a tokenizer, a Llama, rows. Nothing here touches a network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from escultor.batching.rows import NllRow, PairRow
from escultor.config import Pretrain, Training
from escultor.model.load import init_llama
from escultor.model.loaded import Loaded
from escultor.text.tokenizer import PIECES, train_tokenizer
from escultor.types import Example, Message, Origin, Role

WORDS = [
    "red",
    "green",
    "blue",
    "one",
    "two",
    "three",
    "cat",
    "dog",
    "bird",
    "runs",
    "sleeps",
    "sings",
    "fast",
    "slow",
    "here",
    "there",
    "now",
    "then",
]
TEXTS = [f"The {a} {b} {c}." for a in WORDS[:6] for b in WORDS[6:9] for c in WORDS[9:]]
VOCABULARY = 300
ORIGIN = Origin(("test",), "test/1")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRAINING = Training(
    learning_rate=1e-2, epochs=1, batch_size=4, warmup_steps=0, weight_decay=0.0, dtype="float32", seed=3
)


def settings(**changes: object) -> Training:
    return Training.model_validate(TRAINING.model_dump() | changes)


@cache
def _tokenizer_text() -> str:
    return train_tokenizer(TEXTS, VOCABULARY, 256).backend_tokenizer.to_str()


def tokenizer():
    """The project's own tokenizer, trained on a few words once per session; a fresh object each call."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from escultor.text.tokenizer import BEGIN, CHAT_TEMPLATE, END, PAD, ROLES

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_text()),
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


@cache
def _words_text(special: tuple[str, ...]) -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    return inner.to_str()


def _tokenizer_of(special: tuple[str, ...], template: str | None, **names: str):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_words_text(special)),
        additional_special_tokens=list(special),
        chat_template=template,
        clean_up_tokenization_spaces=False,
        **names,
    )


def chatml_tokenizer(template: str | None = CHATML):
    """A tokenizer in the manner of Qwen: no BOS, and a line end after the token that ends a turn."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return _tokenizer_of(special, template, pad_token=special[0], eos_token=special[2])


def qwen_tokenizer():
    """As ChatML's, with added tokens that are not marked special: markup, blanks and a word."""
    made = chatml_tokenizer()
    made.add_tokens(["<think>", "</think>", "<tool_call>", "<|fim_middle|>", "    ", "covid", "[ID]"])
    return made


LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ '[INST] ' + message['content'] + '\n\n' }}{% else %}"
    "{{ ('' if loop.index0 == 1 and messages[0]['role'] == 'system' else '[INST] ') + message['content'] + "
    "' [/INST]' }}{% endif %}{% endfor %}"
)


def tokenizer_like(family: str):
    """A tiny tokenizer that writes conversations in the manner of a family of models. Llama's, Gemma's
    and Mistral's put a BOS before every text by themselves, and their templates write one too."""
    from tokenizers import processors

    if family == "qwen":
        return qwen_tokenizer()
    special, template, names = {
        "llama3": (
            (
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>",
            ),
            LLAMA3,
            {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        ),
        "gemma": (
            ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
            GEMMA,
            {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        ),
        "mistral": (
            ("<s>", "</s>", "[INST]", "[/INST]"),
            MISTRAL,
            {"bos_token": "<s>", "eos_token": "</s>"},
        ),
    }[family]
    made = _tokenizer_of(special, template, **names)
    begin = names["bos_token"]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, made.convert_tokens_to_ids(begin))]
    )
    return made


def shape(**changes: object) -> Pretrain:
    base = {"vocabulary": VOCABULARY, "hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1}
    return Pretrain.model_validate(
        base | {"intermediate_size": 64, "context": 256, "max_length": 64} | changes
    )


def llama(seed: int = 0, context: int = 256) -> Loaded:
    """A Llama of two layers with the tiny tokenizer, always the same for a seed."""
    torch.manual_seed(seed)
    own = tokenizer()
    return Loaded(init_llama(shape(context=context), own), own)


def nll_rows(count: int = 8, seed: int = 0, start: int | None = None) -> list[NllRow]:
    """Random rows of ragged lengths, labelled from somewhere in the middle on (or from `start`); every third
    of the former has a second learnt turn, where it is long enough."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        n = int(random.integers(4, 30))
        ids = random.integers(6, VOCABULARY, n).astype(np.int32)
        first = start or int(random.integers(1, n))
        gaps = ((first + 1, n - 1),) if start is None and i % 3 == 2 and n - first > 2 else ()
        rows.append(NllRow(f"row{i}", ids, first, 1.0 + i % 3, gaps=gaps))
    return rows


def pair_rows(count: int = 5, seed: int = 0) -> list[PairRow]:
    random = np.random.default_rng(seed)
    parts = lambda: random.integers(6, VOCABULARY, int(random.integers(1, 15))).astype(np.int32)  # noqa: E731
    return [PairRow(f"pair{i}", parts(), parts(), parts(), 1.0 + i % 2) for i in range(count)]


def example(i: int, prompt: str, response: str) -> Example:
    return Example(f"example{i}", (Message(Role.USER, prompt),), response, ORIGIN)


def examples(count: int = 8) -> list[Example]:
    return [example(i, f"{WORDS[i]} {WORDS[i + 6]}", f"{WORDS[i + 4]} {WORDS[-i - 1]}") for i in range(count)]


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models are equal bit for bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def weighted(rows: list[NllRow], weight: float) -> list[NllRow]:
    return [replace(row, weight=weight) for row in rows]
