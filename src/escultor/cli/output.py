"""The common options of every command, and how results and errors are shown."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import typer
from typer import Option

from escultor.errors import EscultorError
from escultor.ids import plain

if TYPE_CHECKING:
    from rich.console import Console

    from escultor.config import Config

DEFAULT_CONFIG = Path("escultor.yaml")
PIPE_WIDTH = 160  # columns of a table where stdout is no terminal
NOT_PROMOTED = 3
SHORT = 12  # hex digits of an id that are shown

# typer keeps click's base class of all usage errors in different places in different versions.
USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The object that --json prints, and the exit code."""

    data: Mapping[str, Any] = field(default_factory=dict)
    code: int = 0


@dataclass
class Shell:
    """The common options of one call, its configuration and its console."""

    panel: ClassVar = "Common options"

    config_file: Annotated[
        Path | None, Option("--config", help="YAML file; default: escultor.yaml, if it exists.")
    ] = None
    overrides: Annotated[
        list[str] | None, Option("--set", metavar="SECTION.KEY=VALUE", help="Set one key; repeatable.")
    ] = None
    store: Annotated[str | None, Option(metavar="URL", help="Where the store is.")] = None
    as_json: Annotated[bool, Option("--json", help="Print one JSON object on stdout.")] = False
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False

    @cached_property
    def config(self) -> Config:
        """The configuration: the file, then --set, then --store."""
        from escultor.config import load_config

        path = self.config_file or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
        store = () if self.store is None else (f"store.url={json.dumps(self.store)}",)
        return load_config(path, (*(self.overrides or ()), *store))

    @property
    def store_url(self) -> str:
        return self.config.store.url

    @cached_property
    def console(self) -> Console:
        """The console for results: stdout, or stderr with --json."""
        from rich.console import Console

        return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)

    def print(self, text: str = "", style: str = "") -> None:
        """Print text without markup; on a terminal without its control characters."""
        from rich.text import Text

        self.console.print(Text(printable(text) if sys.stdout.isatty() else text, style), soft_wrap=True)

    def table(
        self,
        heads: Sequence[str],
        rows: Iterable[Iterable[object]],
        left: Sequence[int] = (0,),
        title: str | None = None,
    ) -> None:
        """Print a table without borders. The columns in `left` are aligned to the left, the others to the
        right; integers get thousands separators, and None is shown as a dash."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        def cell(value: object) -> Text:
            return Text(printable(_cell(value)))  # text is no markup

        above = None if title is None else cell(title)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=above, title_justify="left")
        for index, head in enumerate(heads):
            table.add_column(cell(head), justify="left" if index in left else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(cell, row))
        self.console.print(table)

    def left_out(self, counts: Mapping[str, int], lines: Mapping[str, Sequence[int]]) -> None:
        """Print the rows of a file that were not used: their number and first lines by reason, if any."""
        rows = [(reason, n, ", ".join(map(str, lines.get(reason, ())))) for reason, n in counts.items()]
        if rows:
            self.table(["Left out or not used", "Count", "Lines"], rows, left=(0, 2))


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def counted(counts: Mapping[str, int]) -> str:
    """Counts in one line: `3 interactions, 2 feedback`."""
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def local_time(time: float) -> str:
    """Seconds since the epoch as date and time to the minute, in the local time zone."""
    return datetime.fromtimestamp(time).isoformat(" ", "minutes")


_UNPRINTABLE = dict.fromkeys(
    {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {ord("\n"), ord("\t")},
    "\ufffd",
)


def printable(text: str) -> str:
    """The text with control characters, except for line ends and tabs, and those that turn the direction of
    writing, replaced by U+FFFD."""
    return text.translate(_UNPRINTABLE)


def print_json(data: Mapping[str, Any]) -> None:
    """Print one line of JSON, in ASCII so that it survives every terminal; numbers not finite are null."""
    print(json.dumps(_finite(plain(data)), default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises StoreError when the disk refuses."""
    from escultor.store.files import atomic_write

    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")


# --- errors -----------------------------------------------------------------------------------


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Within it, each warning is reported once, in one line on stderr: of configuration keys under an old
    name, and of libraries, with the library's name."""
    from escultor.config.aliases import RenamedKeyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", RenamedKeyWarning)
        shown: set[str] = set()

        def print_once(
            message: Any, category: type[Warning], filename: str, *where: Any, **options: Any
        ) -> None:
            text = printable(" ".join(str(message).split()))
            if not issubclass(category, RenamedKeyWarning):
                text += f" ({_library(filename)})"
            if text not in shown:
                shown.add(text)
                print(f"warning: {text}", file=sys.stderr)

        warnings.showwarning = print_once
        yield


def _library(filename: str) -> str:
    """The package that a file of an installed library belongs to."""
    parts = Path(filename).parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts[:-1] else Path(filename).stem


def report(error: BaseException, as_json: bool, debug: bool) -> int:
    """Print an error on stderr, with --json on stdout too, and return the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    parts, code = describe(error)
    print(f"error: {printable(str(parts['what']))}", file=sys.stderr)
    for name in ("got", "allowed", "remedy"):
        if parts[name] is not None:
            print(f"  {name + ':':8} {printable(str(parts[name]))}", file=sys.stderr)
    if as_json:
        print_json({"error": parts})
    return code


def describe(error: BaseException) -> tuple[dict[str, Any], int]:
    """What, got, allowed and remedy of any error, and its exit code."""
    got, allowed, code = None, None, 1
    if isinstance(error, EscultorError):
        what, remedy, code = error.what, error.remedy, error.exit_code
        got, allowed = (None if v is None else str(v) for v in (error.got, error.allowed))
    elif isinstance(error, ModuleNotFoundError):
        what, got = "this needs a library that is not installed", error.name
        remedy = "pip install escultor; escultor-gate compares runs of evaluation tools alone"
    elif isinstance(error, KeyboardInterrupt):
        what, code = "interrupted", 130
        remedy = "repeat the command: a training run continues from its last saved state"
    elif isinstance(error, USAGE_ERROR):
        context = getattr(error, "ctx", None)
        remedy = f"{context.command_path if context else 'escultor'} --help"
        what, code = cast(Any, error).format_message(), cast(Any, error).exit_code
    else:
        what = " ".join(f"unexpected {type(error).__name__}: {error}".split())
        remedy = "--debug shows where it happened"
    return {"what": what, "got": got, "allowed": allowed, "remedy": remedy}, code
