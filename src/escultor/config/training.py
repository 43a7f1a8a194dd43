"""The training sections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from escultor.config.section import Count, FlipRate, Natural, NonNegative, Positive, Section, Share, setting

Schedule = Literal["constant", "linear", "cosine", "wsd"]
OptimizerName = Literal["adamw", "muon", "adamw8bit"]


LORA_RATE = 10.0  # learning rate of an adapter over that of full fine-tuning, where neither is given


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) instead of full fine-tuning, on all linear layers
    and at ten times its learning rate (Schulman et al. 2025, "LoRA without regret")."""

    rank: Count = setting(16, help="rank of the update")
    alpha: Positive = setting(32.0, help="the update is scaled by alpha / rank")
    targets: tuple[str, ...] = setting((), help="module names; empty: all linear layers but the head")
    merge: bool = setting(True, help="write a merged model; false: only the adapter")


class Replay(Section):
    """Earlier training data mixed into a run, so that less of it is forgotten."""

    data: str = setting(..., help="a JSONL file or a dataset of the store, of the method's kind of rows")
    share: Annotated[float, Field(gt=0, lt=1)] = setting(0.1, help="of the rows that are trained on")


class Training(Section):
    """Keys of every training section."""

    learning_rate: Positive = setting(1e-5, help="peak learning rate; with lora the default is ten times it")
    epochs: Positive = setting(3, help="passes over the data; max_steps may end them earlier")
    max_steps: Count | None = setting(None, help="maximum optimizer steps; null: epochs decide")
    batch_size: Count = setting(32, help="examples per optimizer step")
    micro_batch_size: Count | None = setting(None, help="maximum examples per forward pass; null: by length")
    warmup_steps: Natural = setting(100, help="linear warm-up, at most a tenth of the run")
    schedule: Schedule = setting("linear", help="after warm-up; wsd: flat, then linear to 0 in the last 40 %")
    weight_decay: NonNegative = setting(0.01, help="decoupled, matrices only")
    max_grad_norm: Positive = setting(1.0, help="gradients are clipped to this norm")
    max_length: Count = setting(1024, help="tokens; longer rows are handled as the card says")
    shuffle: bool = setting(True, help="a new order each epoch")
    seed: Natural = setting(0, help="seed of order, initialisation and sampling")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", help="dtype of matrix products; weights stay float32. auto: bfloat16 where it is fast"
    )
    optimizer: OptimizerName = setting(
        "adamw", help="muon: Muon on hidden matrices, AdamW on the rest; adamw8bit: moments in a byte each"
    )
    lora: Lora | None = setting(None, help="null: full fine-tuning")
    save_dtype: Literal["base", "float32", "bfloat16", "float16"] = setting(
        "base", help="dtype of the saved weights; base: that of the model's own files"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", help="auto: a GPU if there is one")
    attention: Literal["auto", "dense", "segments", "flex"] = setting(
        "auto", help="for packed rows; auto: flex (FlexAttention) on a GPU, else segments; dense: any model"
    )
    gradient_checkpointing: bool = setting(False, help="recompute activations: less memory, 1/3 more time")
    activation_offload: bool = setting(False, help="on a GPU: keep activations in CPU memory")
    compile: bool = setting(False, help="torch.compile for each layer; the first steps are slow")
    replay: Replay | None = setting(None, help="earlier data mixed in: {data: NAME or file, share: 0.1}")

    @model_validator(mode="before")
    @classmethod
    def _rate_of_an_adapter(cls, values: Any) -> Any:
        """With lora and no learning rate, the default is LORA_RATE times that of full fine-tuning."""
        if isinstance(values, dict) and values.get("lora") is not None and "learning_rate" not in values:
            return values | {"learning_rate": LORA_RATE * cls.model_fields["learning_rate"].default}
        return values


class Pretrain(Training):
    learning_rate: Positive = setting(4e-3, help="peak learning rate")
    epochs: Positive = setting(1, help="passes over the data")
    batch_size: Count = setting(32, help="packed rows of max_length tokens per step")
    schedule: Schedule = setting("wsd", help="see sft")
    max_length: Count = setting(384, help="tokens of a packed row; longer documents are cut")
    optimizer: OptimizerName = setting("muon", help="see sft")
    vocabulary: Annotated[int, Field(ge=300)] = setting(4096, help="size of the byte-level BPE")
    hidden_size: Count = setting(192, help="width")
    layers: Count = setting(8, help="depth")
    heads: Count = setting(3, help="attention heads; divides hidden_size")
    kv_heads: Count = setting(1, help="key-value heads; divides heads")
    intermediate_size: Count = setting(640, help="width of the feed-forward layer")
    context: Count = setting(1024, help="longest sequence the model accepts")

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Pretrain:
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            what = f"heads {self.heads} must divide hidden_size {self.hidden_size} into an even head width"
            raise ValueError(what)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {self.heads}")
        if self.max_length > self.context:
            raise ValueError(f"max_length {self.max_length} exceeds context {self.context}")
        if self.lora is not None:
            raise ValueError("lora has no meaning when a fresh model is pre-trained; remove it")
        if self.replay is not None:
            raise ValueError("a fresh model has no earlier data to replay; remove replay")
        return self


class Sft(Training):
    pass


class Dpo(Training):
    learning_rate: Positive = setting(5e-6, help="peak learning rate")
    epochs: Positive = setting(1, help="passes over the pairs")
    batch_size: Count = setting(16, help="pairs per optimizer step")
    loss: Literal["sigmoid", "robust", "cdpo", "ipo", "hinge"] = setting(
        "robust", help="of a pair's margin; robust and cdpo use the pair's flip_rate"
    )
    beta: Positive = setting(0.1, help="strength of the pull towards the reference")
    length_normalised: bool = setting(False, help="log-ratios per token instead of their sum")
    flip_rate: FlipRate = setting(0.0, help="share of flipped labels, for pairs without a rate of their own")
    nll_weight: NonNegative = setting(0.0, help="weight of the chosen answer's NLL per token (RPO)")

    @property
    def takes_flip_rate(self) -> bool:
        return self.loss in ("robust", "cdpo")

    @model_validator(mode="after")
    def _every_knob_acts(self) -> Dpo:
        if self.flip_rate and not self.takes_flip_rate:
            what = f"flip_rate has no effect with loss {self.loss}; use robust or cdpo, or leave it out"
            raise ValueError(what)
        return self


class Kto(Training):
    """Unpaired examples (thumbs): {prompt, completion, label}."""

    learning_rate: Positive = setting(5e-6, help="peak learning rate")
    epochs: Positive = setting(1, help="passes over the examples")
    batch_size: Annotated[int, Field(ge=2)] = setting(32, help="examples per step, which estimate the KL")
    beta: Positive = setting(0.1, help="strength of the pull towards the reference")
    desirable_weight: Positive = setting(1.0, help="weight of desirable examples")
    undesirable_weight: Positive = setting(1.0, help="weight of undesirable examples")


class Distillation(Training):
    learning_rate: Positive = setting(2e-5, help="peak learning rate")
    epochs: Positive = setting(10, help="passes over the data")
    temperature: Positive = setting(2.0, help="softmax temperature of teacher and student")
    alpha: Share = setting(0.7, help="alpha * T^2 * KL + (1 - alpha) * cross-entropy")
    prompt_weight: Share = setting(0.0, help="weight of prompt tokens; a response token has 1")
    layers: tuple[Natural, ...] = setting((), help="teacher layers kept; empty: first and last")
    intermediate_size: Count | None = setting(None, help="feed-forward neurons kept, by weight norm")
