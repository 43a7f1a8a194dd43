"""`inspect`: what surprises a model in a text, and what it expects next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from escultor.cli.lookup import find_model, load_model
from escultor.cli.output import CommandResult, Shell, write_text

if TYPE_CHECKING:
    from escultor.model.inspect import Expected, Inspection, Position

TOP = 3  # tokens of the soft label that are shown
MAX_TABLE = 24  # tokens whose attention fits a terminal
BAR_BITS = 2  # surprise that one block of the bar stands for


def inspect(
    shell: Shell,
    text: Annotated[str, typer.Argument(help="The text to look at, such as 'O gato dorme muito'.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Named as elsewhere; default: model.path.")
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the attention as a heat map.")] = None,
    layer: Annotated[
        int | None, typer.Option("--layer", min=0, help="Whose attention; default: the last.")
    ] = None,
    head: Annotated[
        int | None, typer.Option("--head", min=0, help="Which head; default: their mean.")
    ] = None,
) -> CommandResult:
    """Show each token's surprise, and the soft beside the hard label of the token that follows it."""
    from escultor.model.heatmap import attention_svg
    from escultor.model.inspect import inspect_text

    loaded = load_model(find_model(model or shell.config.model.path, shell.config.store.url))
    seen = inspect_text(loaded, text, layer, TOP, head)
    if svg is not None:
        write_text(svg, attention_svg(seen.tokens, seen.attention, f"Attention, {_which(seen)}"))
    rows = [_row(at, position) for at, position in enumerate(seen.positions)]
    heads = ["", "Token", "Surprise", "", "Expected next (soft label)", "Rest", "Next (hard label)"]
    shell.table(heads, rows, left=(1, 3, 4, 6))
    _attention(shell, seen)
    known = [p.surprise_bits for p in seen.positions if p.surprise_bits is not None]
    if known:
        shell.say(f"{sum(known) / len(known):.2f} bits of surprise per token, {sum(known):.1f} in all")
    if svg is not None:
        shell.say(f"wrote {svg}")
    return CommandResult(
        {
            "positions": [asdict(p) for p in seen.positions],
            "attention": [list(row) for row in seen.attention],
            "layer": seen.layer,
            "head": seen.head,
            "svg": svg,
        }
    )


def _which(seen: Inspection) -> str:
    return f"layer {seen.layer}, {'mean of heads' if seen.head is None else f'head {seen.head}'}"


def _attention(shell: Shell, seen: Inspection) -> None:
    """The weights in percent, a row per token, a column per token it may look back at."""
    if len(seen.tokens) > MAX_TABLE:
        shell.say(f"attention: {len(seen.tokens)} tokens are too many for a table; --svg draws them")
        return
    heads = ["", "Attention in %, to:", *(str(at) for at in range(len(seen.tokens)))]
    rows = [
        (
            str(at),
            token,
            *(f"{100 * w:.0f}" for w in seen.attention[at][: at + 1]),
            *[""] * (len(seen.tokens) - at - 1),
        )
        for at, token in enumerate(seen.tokens)
    ]
    shell.say(f"attention of {_which(seen)} (of {seen.layers} layers)")
    shell.table(heads, rows, left=(1,))


def _row(at: int, position: Position) -> tuple[str, ...]:
    bits = position.surprise_bits
    hard = _expected(position.hard) + (" (a guess: the text ends)" if position.hard_is_guess else "")
    return (
        str(at),
        position.token,
        "–" if bits is None else f"{bits:.2f} bits",
        "█" * round((bits or 0.0) / BAR_BITS),
        "   ".join(map(_expected, position.soft)),
        f"{position.rest:.1%}",
        hard,
    )


def _expected(expected: Expected) -> str:
    return f"{expected.token} {expected.probability:.1%}"
