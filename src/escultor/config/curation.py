"""Curation of raw rows into a dataset: the steps, their default order, and the limits of each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from escultor.config.section import Count, Natural, Section, Share

ORDER = (
    "exact",
    "near",
    "language",
    "length",
    "repetition",
    "damage",
    "private",
    "quality",
    "decontaminate",
    "balance",
)
OPTIONAL = ("perplexity",)  # steps outside the default order
TextStyle = Literal["redact", "drop", "keep"]


class Near(Section):
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.75, description="Jaccard similarity of 8-byte windows at which rows are near duplicates"
    )
    permutations: Annotated[int, Field(ge=16, le=512)] = Field(
        default=120, description="values per MinHash signature; more values miss fewer duplicates"
    )


class Language(Section):
    keep: tuple[str, ...] = Field(default=("en",), description="ISO 639-1 codes; empty: all")
    characters: Count = Field(default=256, description="characters of a row used for detection")
    min_words: Natural = Field(default=8, description="shorter rows are not classified and stay")


class Length(Section):
    min_words: Natural = Field(default=1, description="minimum words of the training target")
    max_words: Count = Field(default=20_000, description="maximum words of the whole row")


class Repetition(Section):
    max_lines: Share = Field(default=0.3, description="share of lines that repeat an earlier one")
    max_words: Share = Field(default=0.5, description="share of words in 5-grams that occurred before")


class Damage(Section):
    max_markup: Share = Field(default=0.1, description="share of characters in HTML tags and entities")
    max_replaced: Share = Field(default=0.0, description="share of characters that are U+FFFD")


class Private(Section):
    """What to do with each kind of personal data: redact it, drop the row, or keep it."""

    email: TextStyle = Field(default="redact", description="e-mail addresses")
    phone: TextStyle = Field(default="redact", description="telephone numbers, international or grouped")
    card: TextStyle = Field(default="redact", description="payment card numbers with a valid Luhn checksum")
    iban: TextStyle = Field(default="redact", description="bank accounts with a valid checksum")
    ip: TextStyle = Field(default="redact", description="public IPv4 and IPv6 addresses")
    secret: TextStyle = Field(default="drop", description="keys, tokens: AWS, GitHub, PEM, JWT, high entropy")


class Quality(Section):
    min_score: Share = Field(default=0.2, description="rows with a lower score are dropped")
    ridge: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="ridge penalty of the logistic model fitted to ratings"
    )


class Perplexity(Section):
    model: str = Field(default="escultor-base", description="the model whose bits per byte become a feature")
    batch_size: Count = Field(default=64, description="rows per forward pass")


class Decontaminate(Section):
    words: Annotated[int, Field(ge=4, le=64)] = Field(
        default=13,
        description="rows that share this many consecutive words with an evaluation item are dropped",
    )


class Balance(Section):
    targets: dict[str, dict[str, Annotated[float, Field(gt=0, le=1)]]] = Field(
        default_factory=dict,
        description="by label (domain, purpose, style, length, or your own): share by value, `*`: others",
    )
    rows: Count | None = Field(default=None, description="rows; null: as many as meet the targets exactly")
    warn_above: Share = Field(default=0.6, description="warn about a single value with a larger share")

    @model_validator(mode="after")
    def _shares_fit(self) -> Balance:
        for label, shares in self.targets.items():
            if abs(sum(shares.values()) - 1) > 1e-6:
                total = f"targets of {label} sum to {sum(shares.values()):g}, not to 1"
                raise ValueError(f"{total}; `*` takes the rest")
        if self.rows is not None and not self.targets:
            raise ValueError("rows has an effect only with targets; to take the best rows, use --top")
        return self


class Split(Section):
    by: Literal["prompt", "subject", "time"] = Field(
        default="prompt",
        description="prompt, subject: near-duplicate prompts or a subject stay together; time: the latest",
    )
    held_out: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="share of rows held out")
    threshold: Annotated[float, Field(gt=0, le=0.75)] = Field(
        default=0.75, description="similarity at which prompts stay together; training uses 0.75"
    )


class Diversity(Section):
    domains: Count = Field(default=15, description="domains that a diverse dataset should have")
    styles: Count = Field(default=8, description="styles that it should have")
    lengths: Count = Field(default=4, description="length bands that it should have")


class Curation(Section):
    """From raw rows to a dataset; see `escultor data curate`."""

    steps: tuple[str, ...] = Field(default=ORDER, description="steps in order, each at most once")
    workers: Natural = Field(default=0, description="processes; 0: one per CPU")
    seed: Natural = Field(default=0, description="seed of ties and samples")
    licences: dict[str, str] = Field(
        default_factory=dict, description="licence per source file, for the card"
    )
    near: Near = Field(default=Near(), description="near duplicates")
    language: Language = Field(default=Language(), description="languages")
    length: Length = Field(default=Length(), description="lengths")
    repetition: Repetition = Field(default=Repetition(), description="repetitive rows")
    damage: Damage = Field(default=Damage(), description="damaged text")
    private: Private = Field(default=Private(), description="personal data and secrets")
    quality: Quality = Field(default=Quality(), description="quality score")
    perplexity: Perplexity = Field(
        default=Perplexity(),
        description="perplexity under a base model; this step is not in the default order",
    )
    decontaminate: Decontaminate = Field(default=Decontaminate(), description="rows with evaluation items")
    balance: Balance = Field(default=Balance(), description="shares of rows per label")
    split: Split = Field(default=Split(), description="held-out rows")
    diversity: Diversity = Field(default=Diversity(), description="expected diversity")

    @model_validator(mode="after")
    def _steps_are_known(self) -> Curation:
        known = (*ORDER, *OPTIONAL)
        if unknown := [name for name in self.steps if name not in known]:
            raise ValueError(f"steps: `{unknown[0]}` is unknown; known: {', '.join(known)}")
        if len(set(self.steps)) < len(self.steps):
            raise ValueError("steps: a step occurs twice; each may occur once")
        after = self.steps[self.steps.index("quality") :] if "quality" in self.steps else ()
        if "perplexity" in after:
            raise ValueError("steps: perplexity must precede quality, which uses it")
        return self
