"""Find what arguments and options name: models, suites, files and stores; and the options that several
commands share."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from escultor.cli.output import Shell, printable
from escultor.errors import InputError, ModelError
from escultor.store import DEFAULT_FOLDER, Store, open_store, store_exists
from escultor.train.filenames import ADAPTER, LAST_GOOD, MODEL, PLAIN, RECORD, SHARDED
from escultor.types import Checkpoint, Erasure, RowKind

if TYPE_CHECKING:
    from escultor.data.jsonl import JsonlContents
    from escultor.model.loaded import Loaded
    from escultor.skills.suites import EvaluationSuite

MODEL_HELP = "Model or run folder, checkpoint id, alias, or escultor-base."
ModelArgument = Annotated[str, Argument(help=MODEL_HELP)]
SuiteOption = Annotated[
    str | None,
    Option(
        "--suite",
        metavar="NAME|FILE",
        help="A skill, safety, sycophancy, canary, a YAML or JSONL file, one in the store, "
        "or lm-eval:path/to/task.yaml; default: that of the only skill.",
    ),
]
KEY_ENV = "OPENAI_API_KEY"
KeyEnvOption = Annotated[str, Option("--key-env", help="Environment variable with the server's API key.")]
_ID_PREFIX = re.compile("[0-9a-f]{6,32}")


def find_model(shell: Shell, name: str) -> Path:
    """The folder of a model: `escultor-base`, a model folder, a run folder (of which the folder is
    `output_folder`), an alias (champion, previous, candidate), or a checkpoint id or the beginning of one.

    A folder goes before an alias of the same name. Raises ModelError where there is no such model.
    """
    from escultor.model.folders import resolve
    from escultor.store.registry import ALIASES

    shell.config  # noqa: B018  a wrong configuration is reported before a wrong name
    path = Path(name)
    if (path / RECORD).is_file() and output_folder(path).is_dir():
        return resolve(str(output_folder(path)))
    if any(path.glob(PLAIN)) or any(path.glob(SHARDED)) or (path / LAST_GOOD).is_dir():
        remedy = "repeat the command that began it"
        if (path / LAST_GOOD).is_dir():
            remedy += f", or take {path / LAST_GOOD}, the model before the step that failed"
        raise ModelError(f"the run in {name} is not finished", remedy=remedy)
    if path.exists() or not (name in ALIASES or _ID_PREFIX.fullmatch(name)):
        return resolve(name)
    with existing_store(shell, f"`{name}` is no folder, and cannot be looked up") as store:
        return resolve(str(store.blobs.tree(checkpoint_id(store, name))))


def output_folder(run: Path) -> Path:
    """The folder of the model that a run made: the whole model, or where there is none its adapter."""
    return run / (ADAPTER if (run / ADAPTER).is_dir() and not (run / MODEL).is_dir() else MODEL)


def checkpoint_id(store: Store, name: str) -> str:
    """The checkpoint id of an alias or of the beginning of an id. Raises ModelError unless there is one."""
    from escultor.store.registry import ALIASES, aliases, read_deployments

    if name in ALIASES:
        ids = aliases(read_deployments(store.log))
        if name not in ids:
            remedy = "run `escultor promote MODEL`"
            raise ModelError(f"the store has no {name}", f"aliases: {ids or 'none'}", remedy=remedy)
        return ids[name]
    matches = {c.id for _, c in store.log.read(Checkpoint) if c.id.startswith(name)}
    if len(matches) != 1:
        got = f"{len(matches)} that begin so" if matches else "none that begins so"
        raise ModelError(f"`{name}` names no checkpoint", got, "exactly one", "see `escultor models`")
    return matches.pop()


def find_gguf(name: str) -> Path | None:
    """The GGUF file of this name, None where there is none."""
    from escultor.model.gguf.header import is_gguf

    path = Path(name)
    return path if path.is_file() and is_gguf(path) else None


def load_model(folder: Path) -> Loaded:
    """The model in a folder."""
    from escultor.model.load import load

    return load(str(folder))


def checked_model(shell: Shell, name: str) -> Path:
    """The model's folder; a model that cannot be loaded is refused before anything slow begins."""
    folder = find_model(shell, name)
    load_model(folder)
    return folder


def find_suite(shell: Shell, name: str | None) -> EvaluationSuite:
    """The suite of this name (None: that of the only skill); looking it up makes no store."""
    from escultor.cycle.evaluation_service import default_suite, find_suite

    url, config = shell.store_url, shell.config
    with open_store(url) if store_exists(url) else nullcontext() as store:
        return default_suite(store, config) if name is None else find_suite(name, store, config)


def require_file(path: Path) -> Path:
    """The path of an existing file. Raises InputError otherwise, before anything slow is done."""
    if not path.is_file():
        raise InputError(f"{path} is no file", "a folder" if path.is_dir() else "nothing is there")
    return path


def read_named(shell: Shell, source: Path, kind: RowKind | None) -> tuple[RowKind, JsonlContents]:
    """The rows of a file, or of the dataset of that name in the store, and their kind."""
    from escultor.datasets.reading import read_training_rows

    with store_if_any(shell) as store:
        return read_training_rows(source, kind, store)


# --- stores -----------------------------------------------------------------------------------


def log_file(url: str) -> Path | None:
    """The file of a store's log, None where a server keeps it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Path(url) / "log.db"
    return Path(rest.removeprefix("/")) if scheme == "sqlite" else None


def store_root(url: str) -> Path:
    """The folder that holds what a store keeps on this machine."""
    file = log_file(url)
    return Path(DEFAULT_FOLDER) if file is None else file.parent


def existing_store(shell: Shell, what: str = "there is nothing to read") -> Store:
    """The store, which must exist. Raises InputError, beginning with `what`, where it does not."""
    if not store_exists(shell.store_url):
        remedy = "give --store, or begin with `escultor demo` or `escultor promote`"
        raise InputError(what, f"no store at {shell.store_url}", "an existing store", remedy)
    return open_or_create_store(shell)


def store_if_any(shell: Shell) -> AbstractContextManager[Store | None]:
    """The store, or None where there is none; looking makes none."""
    return existing_store(shell) if store_exists(shell.store_url) else nullcontext()


def open_or_create_store(shell: Shell) -> Store:
    """The store, made if there is none, which is said. What an interrupted erasure left is removed."""
    is_new = not store_exists(shell.store_url)
    store = open_store(shell.store_url)
    if is_new:
        # On stderr: what a command prints, a program may read.
        print(f"a new store was made: {printable(shell.store_url)}", file=sys.stderr)
    elif not store.is_read_only and store.log.count(Erasure):
        from escultor.datasets.erasure import finish_erasures

        finish_erasures(store)
    return store


def store_cache(shell: Shell) -> Path | None:
    """The cache in the store's folder, if there is a store."""
    root = store_root(shell.store_url)
    return root / "cache" if root.is_dir() else None


def reference_cache(shell: Shell) -> Path:
    """The cache of reference log-probabilities: in the store's folder, if there is one, else in the user's
    cache, so that every run on this machine finds it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return store_cache(shell) or Path(home) / "escultor"
