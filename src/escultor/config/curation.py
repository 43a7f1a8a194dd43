"""How a dataset is made of raw rows: the steps, in their order, and what each of them holds a row to."""

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
OPTIONAL = ("perplexity",)  # steps that are there but not in the default order
TextStyle = Literal["redact", "drop", "keep"]


class Near(Section):
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.75, description="Jaccard similarity of 8-byte windows from which rows are near duplicates"
    )
    permutations: Annotated[int, Field(ge=16, le=512)] = Field(
        default=120, description="values of a MinHash signature; more find more"
    )


class Language(Section):
    keep: tuple[str, ...] = Field(default=("en",), description="ISO 639-1 codes; empty: all")
    characters: Count = Field(default=256, description="of a row that are looked at")
    min_words: Natural = Field(default=8, description="shorter rows cannot be told and are kept")


class Length(Section):
    min_words: Natural = Field(default=1, description="of what is learnt")
    max_words: Count = Field(default=20_000, description="of the whole row")


class Repetition(Section):
    max_lines: Share = Field(default=0.3, description="share of lines that repeat an earlier one")
    max_words: Share = Field(default=0.5, description="share of words in 5-grams that occurred before")


class Damage(Section):
    max_markup: Share = Field(default=0.1, description="share of characters in HTML tags and entities")
    max_replaced: Share = Field(default=0.0, description="share of characters lost to U+FFFD")


class Private(Section):
    """What is done with rows that hold each kind."""

    email: TextStyle = Field(default="redact", description="addresses of electronic mail")
    phone: TextStyle = Field(default="redact", description="telephone numbers, international or grouped")
    card: TextStyle = Field(
        default="redact", description="payment cards: 13 to 19 digits that pass Luhn's check"
    )
    iban: TextStyle = Field(default="redact", description="bank accounts that pass the check modulo 97")
    ip: TextStyle = Field(default="redact", description="IPv4 and IPv6 addresses of public networks")
    secret: TextStyle = Field(
        default="drop", description="keys and tokens: AWS, GitHub, PEM, JWT, high entropy"
    )


class Quality(Section):
    min_score: Share = Field(default=0.2, description="rows below are left out")
    ridge: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="of the logistic model fitted to ratings"
    )


class Perplexity(Section):
    model: str = Field(default="escultor-base", description="whose bits per byte become a feature")
    batch_size: Count = Field(default=64, description="rows in a forward pass")


class Decontaminate(Section):
    words: Annotated[int, Field(ge=4, le=64)] = Field(
        default=13, description="a row that shares so many words in a row with an evaluation item is left out"
    )


class Balance(Section):
    targets: dict[str, dict[str, Annotated[float, Field(gt=0, le=1)]]] = Field(
        default_factory=dict,
        description="by label (domain, purpose, style, length, or yours) share by value, `*` for all others",
    )
    rows: Count | None = Field(
        default=None, description="rows in all; null: as many as meet the targets exactly"
    )
    warn_above: Share = Field(default=0.6, description="one value with a larger share is warned of")

    @model_validator(mode="after")
    def _shares_fit(self) -> Balance:
        for label, shares in self.targets.items():
            if abs(sum(shares.values()) - 1) > 1e-6:
                given = f"targets of {label} sum to {sum(shares.values()):g}, not to 1"
                raise ValueError(f"{given}; `*` takes the rest")
        if self.rows is not None and not self.targets:
            raise ValueError("rows acts with targets alone; to take the best rows, use --top")
        return self


class Split(Section):
    by: Literal["prompt", "subject", "time"] = Field(
        default="prompt",
        description="what stays on one side: near-duplicate prompts, subjects, what is later",
    )
    held_out: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="share of rows held out")
    threshold: Annotated[float, Field(gt=0, le=0.75)] = Field(
        default=0.75,
        description="similarity from which prompts belong together; where training reads it is 0.75",
    )


class Diversity(Section):
    domains: Count = Field(default=15, description="domains a varied dataset should have")
    styles: Count = Field(default=8, description="styles it should have")
    lengths: Count = Field(default=4, description="length bands it should have")


class Curation(Section):
    """From raw rows to a dataset; see `escultor data curate`."""

    steps: tuple[str, ...] = Field(default=ORDER, description="in this order; each at most once")
    workers: Natural = Field(default=0, description="processes; 0: one for each processor")
    seed: Natural = Field(default=0, description="ties and samples follow from it")
    licences: dict[str, str] = Field(
        default_factory=dict, description="licence by name of the source file, for the card"
    )
    near: Near = Field(default=Near(), description="rows that are nearly the same")
    language: Language = Field(default=Language(), description="what rows are written in")
    length: Length = Field(default=Length(), description="how long rows are")
    repetition: Repetition = Field(default=Repetition(), description="rows that say one thing over and over")
    damage: Damage = Field(default=Damage(), description="rows that were broken on their way")
    private: Private = Field(default=Private(), description="personal data and secrets")
    quality: Quality = Field(default=Quality(), description="the score of a row")
    perplexity: Perplexity = Field(
        default=Perplexity(),
        description="what a base model thinks of a row; a step that is not in the default order",
    )
    decontaminate: Decontaminate = Field(
        default=Decontaminate(), description="rows that hold what models are examined on"
    )
    balance: Balance = Field(default=Balance(), description="shares of kinds of rows")
    split: Split = Field(default=Split(), description="what is held out")
    diversity: Diversity = Field(default=Diversity(), description="what a varied dataset has")

    @model_validator(mode="after")
    def _steps_are_known(self) -> Curation:
        known = (*ORDER, *OPTIONAL)
        if unknown := [name for name in self.steps if name not in known]:
            raise ValueError(f"steps: `{unknown[0]}` is no step; known: {', '.join(known)}")
        if len(set(self.steps)) < len(self.steps):
            raise ValueError("steps: each at most once")
        after = self.steps[self.steps.index("quality") :] if "quality" in self.steps else ()
        if "perplexity" in after:
            raise ValueError("steps: perplexity goes before quality, which uses it")
        return self
