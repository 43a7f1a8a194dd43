"""Tiny random models of the architectures that GGUF files are read and written for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from escultor.model.gguf import pre_tokenizers as pre
from escultor.model.loaded import Loaded

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 500_000.0,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "long_factor": [1.0, 1.5, 2.0, 4.0],
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "original_max_position_embeddings": 256,
}
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_parameters": ROPE,
    "tie_word_embeddings": False,
}
TYPES = ["sliding_attention"] * 5 + ["full_attention"]
KINDS = {
    "llama": {},
    "llama-tied-wide-heads": {"model_type": "llama", "tie_word_embeddings": True, "head_dim": 32},
    "llama3": {"model_type": "llama", "rope_parameters": LLAMA3, "max_position_embeddings": 16384},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-linear": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    },
    "mistral": {"sliding_window": 64, "head_dim": 16},
    "qwen2": {},
    "qwen2-yarn": {
        "model_type": "qwen2",
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "rope_theta": 1e4,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "phi3": {"original_max_position_embeddings": 128, "num_key_value_heads": 4},
    "phi3-long": {
        "model_type": "phi3",
        "rope_parameters": {**LONG, "partial_rotary_factor": 0.5},
        "original_max_position_embeddings": 256,
        "max_position_embeddings": 512,
    },
    "gemma": {"head_dim": 16, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 16, "tie_word_embeddings": True, "query_pre_attn_scalar": 16, "sliding_window": 8},
    "gemma3_text": {
        "head_dim": 16,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 16,
        "sliding_window": 8,
        "num_hidden_layers": 7,
        "layer_types": [*TYPES, "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": ROPE,
        },
    },
    "smollm3": {"num_hidden_layers": 4, "tie_word_embeddings": True},
}


def byte_level(name: str = "smollm", size: int = 400, template: str | None = tiny.CHATML, **named: str):
    """A byte-level BPE that splits words as llama.cpp does under this name."""
    kind = pre.BY_NAME[name]
    inner = Tokenizer(models.BPE(ignore_merges=kind.whole_words))
    inner.pre_tokenizer, inner.decoder = pre.build(kind), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*tiny.TEXTS, "don't 12345 x1 été naïve // \n\n  spaces   here"] * 3, trainer)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"} | named
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, chat_template=template, clean_up_tokenization_spaces=False, **names
    )
    tokenizer.add_tokens(["<think>", "</think>", "    "])
    return tokenizer


def sentencepiece(prefix: bool = True, template: str | None = None):
    """A BPE with bytes to fall back on, as SentencePiece's in Llama 2 and Gemma."""
    texts = [*tiny.TEXTS, "in the thing 12 and\nthen"] * 3
    normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if prefix else []), normalizers.Replace(" ", "▁")]
    )
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizer
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    merged = ["".join(pair) for pair in learnt["merges"]]
    rest = [token for token in learnt["vocab"] if token not in merged]
    vocabulary = {token: id for id, token in enumerate([*names, *dict.fromkeys(merged), *rest])}
    merges = [tuple(pair) for pair in learnt["merges"]]
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizer
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def model(kind: str, tokenizer=None, extra_rows: int = 5) -> Loaded:
    """A random model of a kind in KINDS, its biases and norms random too."""
    tokenizer = tokenizer or byte_level()
    wanted = deepcopy(SHAPE | {"model_type": kind} | KINDS.get(kind, {}))
    name = wanted.pop("model_type")
    config = AutoConfig.for_model(
        name,
        **wanted,
        vocab_size=len(tokenizer) + extra_rows,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(1)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.mul_(8)
    return Loaded(made.eval(), tokenizer)


def ask_llama_cpp(jobs: list[dict]) -> list[dict]:
    """The results of llama_probe.py; the test is skipped where no llama.cpp wheel is installed."""
    pytest.importorskip("xllamacpp")
    file = Path(__file__).with_name("llama_probe.py")
    done = subprocess.run(
        [sys.executable, file], input=json.dumps(jobs), capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def texts(count: int = 200) -> list[str]:
    """Ordinary and hostile texts, the same ones every time."""
    draw = random.Random(4)
    alphabet = (
        *(
            "the cat runs ",
            "don't ",
            "I'LL",
            "it's",
            "  ",
            "   \n",
            "\n\n",
            "\t",
            " \r\n",
            "1",
            "23",
            "4567",
            "1,234.5",
        ),
        *(
            "<|im_end|>",
            "<|im_start|>user",
            "<think>",
            "</think>",
            "<s>",
            "</s>",
            "<unk>",
            "<0x41>",
            "[INST]",
            "    ",
        ),
        *(
            "été",
            "e\u0301",
            "naïve",
            "ÜBER",
            "straße",
            "İ",
            "你好",
            "日本語です",
            "안녕",
            "مرحبا",
            "हिन्दी",
            "ไทย",
            "🙂",
            "👨‍👩‍👧",
        ),
        *(
            "\u00a0",
            "\u200b",
            "\u2028",
            "\ufeff",
            "\u3000",
            "\x07",
            "\u2581",
            "▁the",
            "Ġ",
            "½",
            "²",
            "Ⅻ",
            "٣",
        ),
        *(
            "def f(x):\n    return x//2",
            "http://a.b/c?d=e&f#g",
            "a_b-c",
            "CamelCaseWord",
            "!?...",
            "$%^&*",
            "'",
            "''s",
            "ǅ",
        ),
    )
    made = ["", " ", "a", "\n", "  a", "a  ", *alphabet]
    while len(made) < count:
        made.append("".join(draw.choice(alphabet) for _ in range(draw.randint(1, 8))))
    return made[:count]
