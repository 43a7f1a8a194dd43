"""The training sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from escultor.config.section import Count, Natural, Positive, Section, Share


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) instead of full fine-tuning."""

    rank: Count = Field(default=16, description="rank of the update")
    alpha: Positive = Field(default=32.0, description="the update is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(default=(), description="module names; empty: all linear layers")
    merge: bool = Field(default=True, description="write a merged model; false: only the adapter")


class Training(Section):
    """Keys of every training section."""

    learning_rate: Positive = Field(default=1e-5, description="peak learning rate")
    epochs: Positive = Field(default=3, description="passes over the data; max_steps may end them earlier")
    max_steps: Count | None = Field(default=None, description="maximum optimizer steps; null: epochs decide")
    batch_size: Count = Field(default=32, description="examples per optimizer step")
    micro_batch_size: Count | None = Field(
        default=None, description="maximum examples per forward pass; null: chosen by memory and length"
    )
    warmup_steps: Natural = Field(default=100, description="linear warm-up, at most a tenth of the run")
    schedule: Literal["constant", "linear", "cosine", "wsd"] = Field(
        default="linear", description="after warm-up; wsd: flat, then linear to 0 in the last 40 %"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="decoupled, matrices only")
    max_grad_norm: Positive = Field(default=1.0, description="gradients are clipped to this norm")
    max_length: Count = Field(default=1024, description="tokens; longer rows are handled as the card says")
    shuffle: bool = Field(default=True, description="a new order each epoch")
    seed: Natural = Field(default=0, description="seed of order, initialisation and sampling")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="dtype of matrix products; weights stay float32. auto: bfloat16 where it is fast",
    )
    optimizer: Literal["adamw", "muon", "adamw8bit"] = Field(
        default="adamw",
        description="muon: Muon on hidden matrices, AdamW on the rest; adamw8bit: moments in a byte each",
    )
    lora: Lora | None = Field(default=None, description="null: full fine-tuning")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU if there is one")
    attention: Literal["auto", "dense", "segments", "flex"] = Field(
        default="auto",
        description="for packed rows; auto: flex (FlexAttention) on a GPU, else segments; dense: any model",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="recompute activations in the backward pass: less memory, a third more time",
    )
    activation_offload: bool = Field(default=False, description="on a GPU: keep activations in CPU memory")
    compile: bool = Field(default=False, description="torch.compile for each layer; the first steps are slow")


class Pretrain(Training):
    learning_rate: Positive = Field(default=4e-3, description="peak learning rate")
    epochs: Positive = Field(default=1, description="passes over the data")
    batch_size: Count = Field(default=32, description="packed rows of max_length tokens per step")
    schedule: Literal["constant", "linear", "cosine", "wsd"] = Field(default="wsd", description="see sft")
    max_length: Count = Field(default=384, description="tokens of a packed row; longer documents are cut")
    optimizer: Literal["adamw", "muon", "adamw8bit"] = Field(default="muon", description="see sft")
    vocabulary: Annotated[int, Field(ge=300)] = Field(default=4096, description="size of the byte-level BPE")
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
        default=0.0, description="share of flipped labels, for pairs without a rate of their own"
    )
    nll_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="weight of the chosen answer's NLL per token, added to the loss (RPO)"
    )

    @property
    def takes_flip_rate(self) -> bool:
        return self.loss in ("robust", "cdpo")

    @model_validator(mode="after")
    def _every_knob_acts(self) -> Dpo:
        if self.flip_rate and not self.takes_flip_rate:
            raise ValueError(
                f"flip_rate has no effect with loss {self.loss}; use robust or cdpo, or leave it out"
            )
        return self


class Kto(Training):
    """Unpaired examples (thumbs): {prompt, completion, label}."""

    learning_rate: Positive = Field(default=5e-6, description="peak learning rate")
    epochs: Positive = Field(default=1, description="passes over the examples")
    batch_size: Annotated[int, Field(ge=2)] = Field(
        default=32, description="examples per optimizer step; the KL term is estimated over a step"
    )
    beta: Positive = Field(default=0.1, description="strength of the pull towards the reference")
    desirable_weight: Positive = Field(default=1.0, description="weight of desirable examples")
    undesirable_weight: Positive = Field(default=1.0, description="weight of undesirable examples")


class Distillation(Training):
    learning_rate: Positive = Field(default=2e-5, description="peak learning rate")
    epochs: Positive = Field(default=10, description="passes over the data")
    temperature: Positive = Field(default=2.0, description="softmax temperature of teacher and student")
    alpha: Share = Field(default=0.7, description="alpha * T^2 * KL + (1 - alpha) * cross-entropy")
    prompt_weight: Share = Field(default=0.0, description="weight of prompt tokens; a response token has 1")
    layers: tuple[Natural, ...] = Field(default=(), description="teacher layers kept; empty: first and last")
    intermediate_size: Count | None = Field(
        default=None, description="feed-forward neurons kept in the student, by weight norm; null: all"
    )
