"""`inspect`: a model's surprise at each token of a text, what it expects next, and its attention."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from escultor.cli.lookup import MODEL_HELP, find_model, load_model
from escultor.cli.output import CommandResult, Shell, write_text
from escultor.model.heatmap import attention_svg
from escultor.model.inspect import Expected, Inspection, Position, inspect_text

TOP = 3  # tokens of the soft label that are shown
MAX_TABLE = 24  # tokens whose attention fits a terminal
BAR_BITS = 2  # surprise for each block of the bar


def inspect(
    shell: Shell,
    text: Annotated[str, Argument(help="The text to inspect, such as 'O gato dorme muito'.")],
    model: Annotated[str | None, Option(help=f"{MODEL_HELP} Default: model.path.")] = None,
    svg: Annotated[Path | None, Option(help="Write the attention as a heat map.")] = None,
    layer: Annotated[int | None, Option(min=0, help="Layer of the attention; default: the last.")] = None,
    head: Annotated[int | None, Option(min=0, help="Head of the attention; default: their mean.")] = None,
) -> CommandResult:
    """Show each token's surprise, and the soft and the hard label of the token that follows it."""
    loaded = load_model(find_model(shell, model or shell.config.model.path))
    inspection = inspect_text(loaded, text, layer, TOP, head)
    name = f"layer {inspection.layer}, {'mean of heads' if head is None else f'head {head}'}"
    if svg is not None:
        write_text(svg, attention_svg(inspection.tokens, inspection.attention, f"Attention, {name}"))
    rows = [_row(number, position) for number, position in enumerate(inspection.positions)]
    heads = ["", "Token", "Surprise", "", "Expected next (soft label)", "Rest", "Next (hard label)"]
    shell.table(heads, rows, left=(1, 3, 4, 6))
    _show_attention(shell, inspection, name)
    bits = [p.surprise_bits for p in inspection.positions if p.surprise_bits is not None]
    if bits:
        shell.print(f"{sum(bits) / len(bits):.2f} bits of surprise per token, {sum(bits):.1f} in all")
    if svg is not None:
        shell.print(f"wrote {svg}")
    return CommandResult(
        {
            "positions": [asdict(position) for position in inspection.positions],
            "attention": inspection.attention,
            "layer": inspection.layer,
            "head": inspection.head,
            "svg": svg,
        }
    )


def _show_attention(shell: Shell, inspection: Inspection, name: str) -> None:
    """Print the weights in percent: a row for each token, a column for each token that it attends to."""
    tokens = inspection.tokens
    if len(tokens) > MAX_TABLE:
        shell.print(f"attention: {len(tokens)} tokens are too many for a table; --svg draws them")
        return
    rows = []
    for number, (token, weights) in enumerate(zip(tokens, inspection.attention, strict=True)):
        percents = [f"{100 * weight:.0f}" for weight in weights[: number + 1]]
        rows.append((number, token, *percents, *[""] * (len(tokens) - len(percents))))
    shell.print(f"attention of {name} (of {inspection.layers} layers)")
    shell.table(["", "Attention in %, to:", *map(str, range(len(tokens)))], rows, left=(1,))


def _row(number: int, position: Position) -> tuple[object, ...]:
    bits = position.surprise_bits
    return (
        number,
        position.token,
        None if bits is None else f"{bits:.2f} bits",
        "█" * round((bits or 0.0) / BAR_BITS),
        "   ".join(map(_expected, position.soft)),
        f"{position.rest:.1%}",
        _expected(position.hard) + (" (a guess: the text ends)" if position.hard_is_guess else ""),
    )


def _expected(expected: Expected) -> str:
    return f"{expected.token} {expected.probability:.1%}"
