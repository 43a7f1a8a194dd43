"""Model architectures in GGUF files and in transformers: configurations, names and layouts of tensors.

One table serves both directions, so that what is exported can be imported again. `configuration` and
`metadata` are checked against one another at every export: what a GGUF cannot say of a model is named and
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from escultor.errors import ModelError
from escultor.model.gguf.header import GgufFile
from escultor.model.gguf.rope import TENSORS, read_rope, write_rope

_COUNTS = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
}
_EPSILON = "attention.layer_norm_rms_epsilon"
_COUNT_MAX = 1 << 31
# Keys of a configuration that do not change what is computed here: they may differ from those read back.
_FREE = {
    *(
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "dtype",
        "embd_pdrop",
        "eos_token_id",
        "id2label",
    ),
    *("initializer_range", "label2id", "max_window_layers", "model_type", "name_or_path", "_name_or_path"),
    *("pad_token_id", "pretraining_tp", "resid_pdrop", "transformers_version", "use_cache", "vocab_size"),
    *(
        "original_max_position_embeddings",
        "_sliding_window_pattern",
        "use_sliding_window",
        "no_rope_layer_interval",
    ),
    *("chunk_size_feed_forward", "output_attentions", "output_hidden_states", "return_dict", "problem_type"),
    *("is_encoder_decoder", "tokenizer_class", "layer_types", "sliding_window", "head_dim", "torch_dtype"),
}


@dataclass(frozen=True)
class Architecture:
    """`model_type` is transformers'; `floats` and `window` are keys of both sides beyond those all have.

    `interleaved`: rows of the query and key projections are stored pair by pair. `norm_shift`: added to the
    weights of norms. `scaled_by_width` (layers): the number of layers for which llama.cpp scales attention
    by width over heads instead of the head's size.
    """

    model_type: str
    interleaved: bool = False
    norm_shift: float = 0.0
    floats: tuple[str, ...] = ()
    window_every: int = 0  # one layer in so many sees the whole text, the others a window
    scaled_by_width: int = 0
    defaults: Mapping[str, Any] = None  # type: ignore[assignment]


_SOFT_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "smollm3": Architecture("smollm3", interleaved=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "phi3": Architecture("phi3"),
    "gemma": Architecture("gemma", norm_shift=1.0),
    "gemma2": Architecture("gemma2", norm_shift=1.0, floats=_SOFT_CAPS, window_every=2, scaled_by_width=46),
    "gemma3": Architecture(
        "gemma3_text", norm_shift=1.0, floats=_SOFT_CAPS[1:], window_every=6, scaled_by_width=62
    ),
}
_ALIASES = {"mistral": "llama"}  # computed alike, without a window


def architecture_of(model_type: str) -> str:
    """The GGUF architecture for a `model_type` of transformers. Raises ModelError where there is none."""
    by_type = {row.model_type: name for name, row in ARCHITECTURES.items()} | _ALIASES
    if model_type not in by_type:
        what = "models of this type cannot be written as GGUF here"
        remedy = "export safetensors, and use llama.cpp's convert_hf_to_gguf.py"
        raise ModelError(what, model_type, ", ".join(by_type), remedy)
    return by_type[model_type]


class TensorNames:
    """Which tensor of a GGUF is which of a model, and how its values are laid out."""

    def __init__(self, arch: str, config: Any):
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        number = next(key for key, name in MODEL_ARCH_NAMES.items() if name == arch)
        self._names = get_tensor_name_map(number, config.num_hidden_layers)
        self._row, self._config = ARCHITECTURES[arch], config

    def of(self, name: str) -> str:
        """The GGUF name of a tensor of the model. Raises ModelError where the format has none."""
        stem, _, suffix = name.rpartition(".")
        found = self._names.get_name(stem)
        if found is None:
            raise ModelError("this tensor has no place in a GGUF file", name)
        return f"{found}.{suffix}"

    def stored(self, name: str, values: Any) -> Any:
        """The values (numpy, float32) as the file holds them."""
        return self._laid_out(name, values, self._row.norm_shift, 2, -1)

    def restored(self, name: str, values: Any) -> Any:
        """The values as the model holds them: the reverse of `stored`."""
        return self._laid_out(name, values, -self._row.norm_shift, -1, 2)

    def _laid_out(self, name: str, values: Any, shift: float, halves: int, rest: int) -> Any:
        if shift and name.endswith("norm.weight"):
            return values + type(values.flat[0])(shift)
        if not self._row.interleaved or (
            ".self_attn.q_proj." not in name and ".self_attn.k_proj." not in name
        ):
            return values
        query = ".q_proj." in name
        heads = self._config.num_attention_heads if query else self._config.num_key_value_heads
        return values.reshape(heads, halves, rest, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


# --- reading -----------------------------------------------------------------------------------


class _Reader:
    """Reads the configuration of one file."""

    def __init__(self, file: GgufFile):
        self.file = file
        self.arch = file.get("general.architecture", str, "")
        if self.arch not in ARCHITECTURES:
            what = f"{file.path}: models of this architecture cannot be imported from GGUF"
            raise ModelError(
                what, self.arch or "none", ", ".join(ARCHITECTURES), "import its transformers folder"
            )
        if file.get(f"{self.arch}.expert_count", int, 0):
            raise ModelError(f"{file.path}: mixtures of experts cannot be imported from GGUF", self.arch)
        self.row = ARCHITECTURES[self.arch]

    def count(self, key: str, default: int | None = None, most: int = _COUNT_MAX) -> int:
        value = self.file.get(f"{self.arch}.{key}", int, default)
        if value is None or not 0 < value <= most:
            what = f"{self.file.path}: `{self.arch}.{key}` is missing or out of range"
            raise ModelError(what, value, f"1 to {most}")
        return value

    @cached_property
    def head_dim(self) -> int:
        heads = self.count("attention.head_count")
        size = self.count("attention.key_length", self.count("embedding_length") // heads or None)
        if self.count("attention.value_length", size) != size:
            raise ModelError(f"{self.file.path}: keys and values of different size cannot be imported")
        return size

    def values(self) -> dict[str, Any]:
        """The keys of the configuration that the file states."""
        heads = self.count("attention.head_count")
        defaults = {"num_key_value_heads": heads}
        values: dict[str, Any] = {name: self.count(key, defaults.get(name)) for name, key in _COUNTS.items()}
        if values["num_hidden_layers"] > (most := len(self.file.tensors)):
            raise ModelError(
                f"{self.file.path}: too many layers", values["num_hidden_layers"], f"{most} tensors"
            )
        if heads % values["num_key_value_heads"]:
            raise ModelError(f"{self.file.path}: heads cannot be shared out", values)
        epsilon = self.file.get(f"{self.arch}.{_EPSILON}", float, 1e-6)
        values |= {"rms_norm_eps": float(f"{epsilon:.7g}"), "vocab_size": self._rows()}
        values["tie_word_embeddings"] = "output.weight" not in self.file.tensors
        values["rope_parameters"] = rope = read_rope(self.file, self.arch, self.head_dim)
        if self.head_dim * heads != values["hidden_size"] or self.arch in ("llama", "qwen3", *_GEMMAS):
            values["head_dim"] = self.head_dim
        for name in self.row.floats:
            values[name] = self.file.get(f"{self.arch}.{name}", float, None)
        values |= self._biases() | self._window(values, rope)
        if self.row.scaled_by_width:
            by_width = values["num_hidden_layers"] == self.row.scaled_by_width
            values["query_pre_attn_scalar"] = values["hidden_size"] // heads if by_width else self.head_dim
        return values

    def _rows(self) -> int:
        embedding = self.file.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise ModelError(f"{self.file.path} holds no embedding (token_embd.weight)")
        return embedding.shape[0]

    def _biases(self) -> dict[str, bool]:
        if self.arch not in ("llama", "smollm3", "qwen3"):
            return {}
        found = {"attention_bias": "blk.0.attn_output.bias" in self.file.tensors}
        return (
            found
            if self.arch == "qwen3"
            else found | {"mlp_bias": "blk.0.ffn_down.bias" in self.file.tensors}
        )

    def _window(self, values: dict[str, Any], rope: dict[str, Any]) -> dict[str, Any]:
        window = self.file.get(f"{self.arch}.attention.sliding_window", int, 0) or None
        if self.arch == "phi3":
            original = rope.get("original_max_position_embeddings", values["max_position_embeddings"])
            return {"sliding_window": window, "original_max_position_embeddings": original}
        if not self.row.window_every:
            return {}
        every = self.file.get(f"{self.arch}.attention.sliding_window_pattern", int, self.row.window_every)
        found: dict[str, Any] = {
            "layer_types": layer_types(values["num_hidden_layers"], every if window else 1)
        }
        if window:
            found["sliding_window"] = window
        if self.arch == "gemma3":
            base = float(self.file.get("gemma3.rope.freq_base_swa", float, 1e4))
            local = {"rope_type": "default", "rope_theta": base}
            found["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
        return found


_GEMMAS = ("gemma", "gemma2", "gemma3")


def layer_types(layers: int, every: int) -> list[str]:
    """Which layers see the whole text: the last of every `every`."""
    return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]


def configuration(file: GgufFile) -> tuple[str, Any]:
    """The architecture of a file, and the model's configuration in transformers. Raises ModelError for what
    is missing, out of range or of an architecture that cannot be imported."""
    from transformers import AutoConfig

    reader = _Reader(file)
    values = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")) | reader.values()
    try:
        return reader.arch, AutoConfig.for_model(reader.row.model_type, **values)
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        what = f"{file.path}: no model can be made of these sizes"
        raise ModelError(what, " ".join(str(error).split())[:200]) from error


# --- writing -----------------------------------------------------------------------------------


def metadata(config: Any) -> tuple[str, dict[str, Any], dict[str, list[float]]]:
    """Architecture, metadata without the vocabulary, and tensors of positions, of a model's configuration.

    Raises ModelError for a model whose computation a GGUF cannot state, naming the keys.
    """
    values = config.to_dict()
    arch = architecture_of(config.model_type)
    row = ARCHITECTURES[arch]
    head_dim = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    if config.model_type == "mistral" and (window := values["sliding_window"]):
        # llama.cpp has no window for this architecture: within one window's length there is no difference.
        values["max_position_embeddings"] = min(window, values["max_position_embeddings"])
    found: dict[str, Any] = {key: int(values[name]) for name, key in _COUNTS.items()}
    found |= {_EPSILON: float(values["rms_norm_eps"]), "vocab_size": int(values["vocab_size"])}
    found |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    found |= {name: float(values[name]) for name in row.floats if values.get(name) is not None}
    rope = values["rope_parameters"]
    if arch == "gemma3":
        found["rope.freq_base_swa"] = float(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    if arch == "phi3":
        rope = rope | {"original_max_position_embeddings": values["original_max_position_embeddings"]}
    positions, tensors = write_rope(rope, values["max_position_embeddings"], head_dim)
    found |= {f"rope.{key}": value for key, value in positions.items()}
    kinds = values.get("layer_types") or []
    windowed = "sliding_attention" in kinds
    if windowed or arch == "phi3":
        found["attention.sliding_window"] = int(values["sliding_window"] or 0)
    if windowed and kinds != (allowed := layer_types(len(kinds), row.window_every or 1)):
        raise ModelError("llama.cpp has other layers see a window", kinds, allowed, "serve it as safetensors")
    return arch, {f"{arch}.{key}": value for key, value in found.items()}, tensors


def refuse_loss(config: Any, file: GgufFile) -> None:
    """Compare a model's configuration with the one read back from a file of it. Raises ModelError with the
    keys that the file does not give back: the exported model would compute something else."""
    _, again = configuration(file)
    before, after = config.to_dict(), again.to_dict()
    if config.model_type == "mistral":
        after["max_position_embeddings"] = before["max_position_embeddings"]
    changed = {
        key: before[key]
        for key in before.keys() - _FREE
        if not key.startswith("_") and not _alike(before[key], after.get(key))
    }
    if changed:
        what = "a GGUF file cannot state these settings of the model, and it would compute something else"
        raise ModelError(what, changed, {key: after.get(key) for key in changed}, "serve it as safetensors")


def _alike(one: Any, other: Any) -> bool:
    """Whether two settings are equal, numbers to the precision of float32; None and absent are False."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = (one.keys() | other.keys()) - {"attention_factor"}  # where it is absent, it is computed
        one, other = {"partial_rotary_factor": 1.0, **one}, {"partial_rotary_factor": 1.0, **other}
        return all(_alike(one.get(key), other.get(key)) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= 1e-6 * max(abs(one), abs(other))
    return one == other or (not one and not other)


def left_over(file: GgufFile, used: set[str]) -> None:
    """Raise ModelError for tensors of a file that the model has no place for: leaving them out would change
    what it computes."""
    if unknown := sorted(set(file.tensors) - used - set(TENSORS)):
        what = f"{file.path} holds tensors that this architecture does not have"
        raise ModelError(
            what, f"{len(unknown)}, such as {unknown[0]}", remedy="import its transformers folder"
        )
