"""Curation of raw rows into a dataset: the steps, their default order, and the limits of each."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from escultor.config.section import Count, Natural, Positive, PositiveShare, Section, Share, setting

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
Country = Literal["BR", "CN", "DE", "ES", "FR", "GB", "IN", "JP", "US"]
COUNTRIES: tuple[Country, ...] = get_args(Country)


class Near(Section):
    threshold: PositiveShare = setting(0.75, help="Jaccard similarity of 8-byte windows of near duplicates")
    permutations: Annotated[int, Field(ge=16, le=512)] = setting(120, help="values per MinHash signature")


class Language(Section):
    keep: tuple[str, ...] = setting((), help="ISO 639-1 codes; empty: every language")
    characters: Count = setting(256, help="characters of a row used for detection")
    min_words: Natural = setting(8, help="shorter rows are not classified and stay")


class Length(Section):
    min_words: Natural = setting(1, help="minimum words of the training target")
    max_words: Count = setting(20_000, help="maximum words of the whole row")


class Repetition(Section):
    max_lines: Share = setting(0.3, help="share of lines that repeat an earlier one")
    max_words: Share = setting(0.5, help="share of words in 5-grams that occurred before")


class Damage(Section):
    max_markup: Share = setting(0.1, help="share of characters in HTML tags and entities")
    max_replaced: Share = setting(0.0, help="share of characters that are U+FFFD")


class Private(Section):
    """What to do with each kind of personal data: redact it, drop the row, or keep it."""

    countries: tuple[Country, ...] = setting(
        COUNTRIES, help="whose numbers, telephones and addresses are looked for (ISO 3166)"
    )
    email: TextStyle = setting("redact", help="e-mail addresses, in any script")
    phone: TextStyle = setting("redact", help="telephone numbers, international or in a national form")
    card: TextStyle = setting("redact", help="payment card numbers with a valid Luhn checksum")
    iban: TextStyle = setting("redact", help="bank accounts with a valid checksum")
    document: TextStyle = setting("redact", help="numbers of identity, tax and health: CPF, SSN, DNI, …")
    pix: TextStyle = setting("redact", help="PIX keys that are UUIDs, beside the word")
    address: TextStyle = setting("redact", help="streets with a number, postal codes beside a word")
    ip: TextStyle = setting("redact", help="public IPv4 and IPv6 addresses")
    secret: TextStyle = setting("drop", help="keys, tokens: AWS, GitHub, PEM, JWT, high entropy")


class Quality(Section):
    min_score: Share = setting(0.2, help="rows with a lower score are dropped")
    ridge: Positive = setting(1.0, help="ridge penalty of the logistic model fitted to ratings")


class Perplexity(Section):
    model: str = setting("escultor-base", help="the model whose bits per byte become a feature")
    batch_size: Count = setting(64, help="rows per forward pass")


class Decontaminate(Section):
    words: Annotated[int, Field(ge=4, le=64)] = setting(
        13, help="rows that share this many consecutive words with an evaluation item are dropped"
    )


class Balance(Section):
    targets: dict[str, dict[str, PositiveShare]] = setting(
        {}, help="by label (domain, purpose, style, length, or your own): share by value, `*`: others"
    )
    rows: Count | None = setting(None, help="rows; null: as many as meet the targets exactly")
    warn_above: Share = setting(0.6, help="warn about a single value with a larger share")

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
    by: Literal["prompt", "subject", "time"] = setting(
        "prompt", help="prompt, subject: near-duplicate prompts or a subject stay together; time: the latest"
    )
    held_out: Annotated[float, Field(ge=0, lt=1)] = setting(0.0, help="share of rows held out")
    threshold: Annotated[float, Field(gt=0, le=0.75)] = setting(
        0.75, help="similarity at which prompts stay together; training uses 0.75"
    )


class Diversity(Section):
    domains: Count = setting(15, help="domains that a diverse dataset should have")
    styles: Count = setting(8, help="styles that it should have")
    lengths: Count = setting(4, help="length bands that it should have")


class Curation(Section):
    """From raw rows to a dataset; see `escultor data curate`."""

    steps: tuple[str, ...] = setting(ORDER, help="steps in order, each at most once")
    workers: Natural = setting(0, help="processes; 0: one per CPU")
    seed: Natural = setting(0, help="seed of ties and samples")
    licences: dict[str, str] = setting({}, help="licence per source file, for the card")
    near: Near = setting(Near(), help="near duplicates")
    language: Language = setting(Language(), help="languages")
    length: Length = setting(Length(), help="lengths")
    repetition: Repetition = setting(Repetition(), help="repetitive rows")
    damage: Damage = setting(Damage(), help="damaged text")
    private: Private = setting(Private(), help="personal data and secrets")
    quality: Quality = setting(Quality(), help="quality score")
    perplexity: Perplexity = setting(Perplexity(), help="perplexity under a base model; not a default step")
    decontaminate: Decontaminate = setting(Decontaminate(), help="rows with evaluation items")
    balance: Balance = setting(Balance(), help="shares of rows per label")
    split: Split = setting(Split(), help="held-out rows")
    diversity: Diversity = setting(Diversity(), help="expected diversity")

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
