"""What every command shares: its common options, and how results and errors are shown."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from escultor.errors import EscultorError
from escultor.ids import plain

if TYPE_CHECKING:
    from rich.console import Console

    from escultor.config import Config

DEFAULT_CONFIG = Path("escultor.yaml")
WIDTH_OF_PIPES = 160  # columns where no terminal says how wide it is
COMMON = "Common options"
NOT_PROMOTED = 3

# typer keeps click's base of all usage errors in different places in different versions.
USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command came to: the object that --json prints, and the exit code."""

    data: dict[str, Any] = field(default_factory=dict)
    code: int = 0


@dataclass
class Shell:
    """The common options of one call, and what follows from them."""

    config_file: Path | None = None
    overrides: tuple[str, ...] = ()
    store: str | None = None
    as_json: bool = False

    @cached_property
    def config(self) -> Config:
        """The configuration: the file, then --set, then --store."""
        from escultor.config import load_config

        path = self.config_file or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
        chosen = () if self.store is None else (f"store.url={json.dumps(self.store)}",)
        return load_config(path, (*self.overrides, *chosen))

    @cached_property
    def console(self) -> Console:
        """Where results are shown: stdout, or stderr with --json."""
        from rich.console import Console

        return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_PIPES)

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line of text as it is; control characters are not for a terminal."""
        from rich.text import Text

        shown = printable(text) if sys.stdout.isatty() else text
        self.console.print(Text(shown, style=style or ""), soft_wrap=True)

    def table(
        self, heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), title: str = ""
    ) -> None:
        """A table without borders; the columns in `left` are text, the others numbers."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left")
        for at, head in enumerate(heads):
            table.add_column(head, justify="left" if at in left else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.console.print(table)


def shell_of(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Configuration file; default: escultor.yaml if there.", rich_help_panel=COMMON
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Set one key; repeatable.", rich_help_panel=COMMON
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="Where the store is.", rich_help_panel=COMMON)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=COMMON)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=COMMON)
    ] = False,
) -> Shell:
    """The shell of a call; its signature is the list of the common options."""
    return Shell(config, tuple(overrides or ()), store, as_json)


def printable(text: str) -> str:
    """Text whose control characters, but for line ends and tabs, cannot steer a terminal."""
    return "".join(c if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) else "\ufffd" for c in text)


def print_json(data: dict[str, Any]) -> None:
    """One line of JSON, in ASCII so that it survives every terminal; numbers that are none are null."""
    print(json.dumps(_finite(plain(data)), default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


# --- errors -----------------------------------------------------------------------------------


@contextmanager
def renamed_keys_on_stderr() -> Iterator[None]:
    """Within it, configuration keys under an old name are named in one plain line on stderr, once each."""
    from escultor.config.aliases import RenamedKeyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", RenamedKeyWarning)
        show, shown = warnings.showwarning, set[str]()

        def print_renamed(message: Any, category: type[Warning], *where: Any, **options: Any) -> None:
            if not issubclass(category, RenamedKeyWarning):
                show(message, category, *where, **options)
            elif str(message) not in shown:
                shown.add(str(message))
                print(f"warning: {printable(str(message))}", file=sys.stderr)

        warnings.showwarning = print_renamed
        yield


def exit_code(error: BaseException) -> int:
    """With which code the command leaves after this error."""
    return _parts(error)[1]


def report(error: BaseException, as_json: bool, debug: bool) -> int:
    """Say on stderr what went wrong, with --json on stdout too, and return the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    parts, code = _parts(error)
    print(f"error: {printable(str(parts['what']))}", file=sys.stderr)
    for name in ("got", "allowed", "remedy"):
        if parts[name] is not None:
            print(f"  {name + ':':8} {printable(str(parts[name]))}", file=sys.stderr)
    if as_json:
        print_json({"error": parts})
    return code


def _parts(error: BaseException) -> tuple[dict[str, Any], int]:
    """What, got, allowed and remedy of any error, and its exit code."""
    if isinstance(error, EscultorError):
        got, allowed = (None if v is None else str(v) for v in (error.got, error.allowed))
        return {"what": error.what, "got": got, "allowed": allowed, "remedy": error.remedy}, error.exit_code
    nothing: dict[str, Any] = {"got": None, "allowed": None}
    if isinstance(error, KeyboardInterrupt):
        remedy = "a training run goes on where its last state stands when the same command is given again"
        return {"what": "interrupted", **nothing, "remedy": remedy}, 130
    if isinstance(error, USAGE_ERROR):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "escultor"
        message = cast(Any, error).format_message()
        return {"what": message, **nothing, "remedy": f"{command} --help"}, cast(Any, error).exit_code
    what = " ".join(f"unexpected {type(error).__name__}: {error}".split())
    return {"what": what, **nothing, "remedy": "--debug shows where it happened"}, 1


# --- files ------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises StoreError when the disk refuses."""
    from escultor.store.files import atomic_write

    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")
