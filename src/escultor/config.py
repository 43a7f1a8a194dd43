"""The configuration: one YAML file, parsed once into frozen types. Unknown keys are refused.

    model:         what to start from
    pretrain: sft: dpo: kto: distillation:    training sections; they share the keys of `Training`
    evaluation: gate: serve: monitor:    what is measured, what is promoted, how it answers, when to act
    store:         where everything is kept

Every key acts. A key that cannot act with the others given is refused, not ignored.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from escultor.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) instead of full fine-tuning."""

    rank: Count = Field(default=16, description="rank of the update")
    alpha: Positive = Field(default=32.0, description="the update is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(default=(), description="module names; empty: all linear layers")
    merge: bool = Field(
        default=True,
        description="also write a whole model; false: the adapter alone, which needs its base",
    )


class Training(Section):
    """What every training section takes."""

    learning_rate: Positive = Field(default=1e-5, description="peak learning rate")
    epochs: Positive = Field(default=3, description="passes over the data; max_steps cuts it short")
    max_steps: Count | None = Field(default=None, description="optimizer steps at most; null: epochs decide")
    batch_size: Count = Field(default=32, description="examples per optimizer step")
    micro_batch_size: Count | None = Field(
        default=None, description="examples per forward pass at most; null: as memory and length suit"
    )
    warmup_steps: Natural = Field(
        default=100, description="steps of linear warm-up, at most a tenth of the run"
    )
    schedule: Literal["constant", "linear", "cosine", "wsd"] = Field(
        default="linear", description="after warm-up; wsd: flat, then linear to 0 in the last 40 %"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="decoupled, matrices only")
    max_grad_norm: Positive = Field(default=1.0, description="gradients are clipped to this norm")
    max_length: Count = Field(
        default=1024, description="tokens of a row; longer ones are handled as the card says"
    )
    shuffle: bool = Field(default=True, description="a new order each epoch")
    seed: Natural = Field(default=0, description="order, initialisation and sampling follow from it")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of matrix products; weights stay float32. auto: bfloat16 where it is fast",
    )
    optimizer: Literal["adamw", "muon", "adamw8bit"] = Field(
        default="adamw",
        description="muon: Muon on hidden matrices, AdamW on the rest; adamw8bit: moments in a byte each",
    )
    lora: Lora | None = Field(default=None, description="null: full fine-tuning")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )
    attention: Literal["auto", "dense", "segments", "flex"] = Field(
        default="auto",
        description="to packed rows; auto: flex (FlexAttention) on a GPU, else segments; dense: any model",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="layers are computed again backwards: less memory, a third more time"
    )
    activation_offload: bool = Field(
        default=False, description="on a GPU: what the backward pass needs waits in the processor's memory"
    )
    compile: bool = Field(default=False, description="each layer by torch.compile; takes its time at first")


class Model(Section):
    path: str = Field(default="escultor-base", description="a directory, or escultor-base (in the package)")


class Pretrain(Training):
    learning_rate: Positive = Field(default=4e-3, description="peak learning rate")
    epochs: Positive = Field(default=1, description="passes over the data")
    batch_size: Count = Field(default=32, description="packed rows of max_length tokens per step")
    schedule: Literal["constant", "linear", "cosine", "wsd"] = Field(default="wsd", description="see sft")
    max_length: Count = Field(
        default=384, description="tokens of a packed row; a longer document is cut into windows"
    )
    optimizer: Literal["adamw", "muon", "adamw8bit"] = Field(default="muon", description="see sft")
    vocabulary: Annotated[int, Field(ge=300)] = Field(
        default=4096, description="tokens of the byte-level BPE"
    )
    hidden_size: Count = Field(default=192, description="width")
    layers: Count = Field(default=8, description="depth")
    heads: Count = Field(default=3, description="attention heads; divides hidden_size")
    kv_heads: Count = Field(default=1, description="key-value heads; divides heads")
    intermediate_size: Count = Field(default=640, description="width of the feed-forward layer")
    context: Count = Field(default=1024, description="longest sequence the model accepts")

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Pretrain:
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(
                f"heads {self.heads} must divide hidden_size {self.hidden_size} into an even head width"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {self.heads}")
        if self.max_length > self.context:
            raise ValueError(f"max_length {self.max_length} exceeds context {self.context}")
        if self.lora is not None:
            raise ValueError("lora has no meaning when a fresh model is pre-trained; remove it")
        return self


class Sft(Training):
    pass


class Dpo(Training):
    learning_rate: Positive = Field(default=5e-6, description="peak learning rate")
    epochs: Positive = Field(default=1, description="passes over the pairs")
    batch_size: Count = Field(default=16, description="pairs per optimizer step")
    loss: Literal["sigmoid", "robust", "cdpo", "ipo", "hinge"] = Field(
        default="robust", description="of a pair's margin; robust and cdpo use the pair's flip_rate"
    )
    beta: Positive = Field(default=0.1, description="strength of the pull towards the reference")
    length_normalised: bool = Field(default=False, description="log-ratios per token instead of their sum")
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.0, description="of pairs that carry none: share of labels the wrong way round"
    )
    nll_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="adds this times the chosen answer's nll per token (RPO)"
    )

    @property
    def takes_flip_rate(self) -> bool:
        return self.loss in ("robust", "cdpo")

    @model_validator(mode="after")
    def _every_knob_acts(self) -> Dpo:
        if self.flip_rate and not self.takes_flip_rate:
            raise ValueError(
                f"flip_rate has no effect with loss {self.loss}; take robust or cdpo, or leave it out"
            )
        return self


class Kto(Training):
    """Unpaired verdicts (thumbs): {prompt, completion, label}."""

    learning_rate: Positive = Field(default=5e-6, description="peak learning rate")
    epochs: Positive = Field(default=1, description="passes over the verdicts")
    batch_size: Annotated[int, Field(ge=2)] = Field(
        default=32, description="verdicts per optimizer step; the divergence is measured over a step"
    )
    beta: Positive = Field(default=0.1, description="strength of the pull towards the reference")
    desirable_weight: Positive = Field(default=1.0, description="of a good answer")
    undesirable_weight: Positive = Field(default=1.0, description="of a bad answer")


class Distillation(Training):
    learning_rate: Positive = Field(default=2e-5, description="peak learning rate")
    epochs: Positive = Field(default=10, description="passes over the data")
    temperature: Positive = Field(default=2.0, description="softens teacher and student alike")
    alpha: Share = Field(default=0.7, description="alpha * T^2 * KL + (1 - alpha) * cross-entropy")
    prompt_weight: Share = Field(
        default=0.0, description="weight of the prompt's tokens; the response's is 1"
    )
    layers: tuple[Natural, ...] = Field(
        default=(), description="the teacher's layers kept; empty: first and last"
    )
    intermediate_size: Count | None = Field(
        default=None, description="feed-forward neurons kept, by weight norm; null: all"
    )


class Evaluation(Section):
    items: Count = Field(default=400, description="held-out items at most")
    batch_size: Count = Field(default=64, description="answers generated at a time")
    max_new_tokens: Count = Field(default=160, description="an answer is cut here")
    speed_requests: Count = Field(default=40, description="single requests timed for latency")
    seed: Natural = Field(default=0, description="which items, and the bootstrap's draws")


class Gate(Section):
    """Promote: superior on a primary metric and non-inferior on every guard."""

    primary: tuple[str, ...] = Field(default=("quality",), description="metrics of which one must be better")
    guards: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"valid": 0.02, "bits_per_byte": 0.05},
        description="metrics that may not be worse by more than the margin",
    )
    level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="one-sided error, Holm over primaries"
    )
    min_items: Count = Field(default=50, description="fewer items: hold")


class Serve(Section):
    hourly_price_usd: Positive = Field(default=0.10, description="what an hour of this machine costs")
    batch_size: Count = Field(default=32, description="answers generated at a time")
    temperature: Annotated[float, Field(ge=0)] = Field(default=0.0, description="0: greedy")
    max_new_tokens: Count = Field(default=256, description="an answer is cut here")


class Monitor(Section):
    thumbs_down_limit: Share = Field(default=0.10, description="alert when the share is shown to be above")
    min_rated: Count = Field(default=30, description="ratings before an alert may fire")
    latency_p99_ms: Positive = Field(default=5000.0, description="alert above")
    daily_cost_usd: Positive = Field(default=10.0, description="alert above")
    cooldown_s: Annotated[float, Field(ge=0)] = Field(default=3600.0, description="between two plans")


class Store(Section):
    url: str = Field(
        default="escultor-store", description="a folder (SQLite), sqlite:///…, or postgresql://…"
    )


class Config(Section):
    """The whole file. A file with only `sft:`, `dpo:` and `distillation:` is a config too."""

    store: Store = Store()
    model: Model = Model()
    pretrain: Pretrain = Pretrain()
    sft: Sft = Sft()
    dpo: Dpo = Dpo()
    kto: Kto = Kto()
    distillation: Distillation = Distillation()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    serve: Serve = Serve()
    monitor: Monitor = Monitor()


class _Loader(yaml.SafeLoader):
    """YAML whose mappings hold each key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.YAMLError(f"given twice: {', '.join(twice)} (line {node.start_mark.line + 1} on)")
        return super().construct_mapping(node, deep)


def load_config(path: Path | None = None, overrides: tuple[str, ...] = ()) -> Config:
    """Read a YAML file (None: all defaults) and apply `section.key=value` overrides.

    Raises ConfigError naming the file, the key, the nearest known key and what is allowed; all
    problems are gathered before refusing.
    """
    data: Any = {}
    where = "the configuration"
    if path is not None:
        where = str(path)
        try:
            data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{where} cannot be read as YAML", str(error).replace("\n", " ")) from error
        if data is None:
            data = {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{where} is no mapping of sections", type(data).__name__, list(Config.model_fields)
        )
    data = {key: value for key, value in data.items() if value is not None}  # `sft:` with nothing below
    for text in overrides:
        _apply(data, text)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join([f"{where} cannot be used:", *_problems(error)])) from error


def _apply(data: dict[str, Any], text: str) -> None:
    """Set one `section.key=value`, the value read as YAML."""
    name, found, value = text.partition("=")
    keys = name.strip().split(".")
    if not found or len(keys) < 2 or not all(keys):
        raise ConfigError("an override cannot be read", repr(text), "section.key=value, such as dpo.beta=0.2")
    at: Any = data
    for key in keys[:-1]:
        at = at.setdefault(key, {})
        if not isinstance(at, dict):
            raise ConfigError("an override goes below a plain value", repr(text), "section.key=value")
    try:
        parsed = yaml.safe_load(value)
        # YAML 1.1 reads 1e-5 as text; a person means the number.
        at[keys[-1]] = float(parsed) if isinstance(parsed, str) and _is_number(parsed) else parsed
    except yaml.YAMLError as error:
        raise ConfigError("an override's value is not YAML", repr(text)) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _problems(error: ValidationError) -> list[str]:
    """One line per problem: the key, what was got, what is allowed or the nearest known key."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _known_keys(problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            lines.append(f"  `{key}` is not a key; {hint}")
        else:
            got = problem["input"] if not isinstance(problem["input"], dict) else "the section"
            lines.append(f"  `{key}`: {problem['msg']}; got: {got!r}")
    return lines


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    section: Any = Config
    for part in path:
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)
