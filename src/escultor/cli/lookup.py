"""From what a person types to a model's folder and a store that is there."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from escultor.errors import InputError, ModelError
from escultor.train.filenames import ADAPTER, LAST_GOOD, MODEL, PLAIN, RECORD, SHARDED

if TYPE_CHECKING:
    from escultor.cli.output import Shell
    from escultor.demo.corpus import Corpus
    from escultor.model.loaded import Loaded
    from escultor.skills.suites import EvaluationSuite
    from escultor.store import Store

WHICH = "Model or run folder, checkpoint id, alias, or escultor-base."
Which = Annotated[str, typer.Argument(help=WHICH)]
WhichSuite = Annotated[
    str,
    typer.Option(
        "--suite",
        metavar="NAME|FILE",
        help="trinity, safety, sycophancy, canary, a YAML or JSONL file, one in the store, "
        "or lm-eval:path/to/task.yaml.",
    ),
]
_HASH = re.compile("[0-9a-f]{6,32}")


def find_model(name: str, store_url: str) -> Path:
    """The folder of a model: `escultor-base`, a model folder, a run folder (what it made, see `made`), an
    alias (champion, previous, candidate), or a checkpoint id or the beginning of one.

    A folder goes before an alias of the same name. Raises ModelError where there is no such model.
    """
    from escultor.model.folders import resolve
    from escultor.store.registry import ALIASES

    path = Path(name)
    if (path / RECORD).is_file() and made(path).is_dir():
        return resolve(str(made(path)))
    if any(path.glob(PLAIN)) or any(path.glob(SHARDED)) or (path / LAST_GOOD).is_dir():
        remedy = "give the command that began it again"
        if (path / LAST_GOOD).is_dir():
            remedy += f", or take {path / LAST_GOOD}, the model before the step that failed"
        raise ModelError(f"the run in {name} is not finished", remedy=remedy)
    if path.exists() or not (name in ALIASES or _HASH.fullmatch(name)):
        return resolve(name)
    with existing_store(store_url, f"`{name}` is no folder, and cannot be looked up") as store:
        return resolve(str(store.blobs.tree(_checkpoint(store, name))))


def made(run: Path) -> Path:
    """The folder of what a run made: the whole model, or where there is none its adapter."""
    return run / (ADAPTER if (run / ADAPTER).is_dir() and not (run / MODEL).is_dir() else MODEL)


def _checkpoint(store: Store, name: str) -> str:
    """The checkpoint id that an alias or the beginning of an id stands for."""
    from escultor.store.registry import ALIASES, aliases, read_deployments
    from escultor.types import Checkpoint

    if name in ALIASES:
        named = aliases(read_deployments(store.log))
        if name not in named:
            raise ModelError(
                f"the store has no {name}",
                f"aliases: {named or 'none'}",
                remedy="run `escultor promote MODEL`",
            )
        return named[name]
    known = {c.id for _, c in store.log.read(Checkpoint) if c.id.startswith(name)}
    if len(known) != 1:
        got = f"{len(known)} that begin so" if known else "none that begins so"
        raise ModelError(f"`{name}` names no checkpoint", got, "exactly one", "see `escultor models`")
    return known.pop()


def load_model(folder: Path) -> Loaded:
    """The model in a folder."""
    from escultor.model.load import load

    return load(str(folder))


def checked_model(shell: Shell, name: str) -> Path:
    """The model's folder; a model that cannot be loaded is refused before anything slow begins."""
    folder = find_model(name, shell.config.store.url)
    load_model(folder)
    return folder


def find_suite(shell: Shell, name: str) -> EvaluationSuite:
    """The suite of this name; asking makes no store. `trinity` is the one registered in the store; where
    there is none, it is made of the installed documentation."""
    from escultor.cycle import evaluation_service
    from escultor.demo.suite import NAME, trinity_suite
    from escultor.skills.suites import registered_suite
    from escultor.store import open_store, store_exists

    url = shell.config.store.url
    with open_store(url) if store_exists(url) else nullcontext() as store:
        if name == NAME and (store is None or registered_suite(store, name) is None):
            return trinity_suite(read_corpus(url).held_out, shell.config.evaluation)
        return evaluation_service.find_suite(name, store)


def need_file(path: Path) -> Path:
    """The path of a file that is there. Raises InputError otherwise, before anything slow is done."""
    if not path.is_file():
        raise InputError(f"{path} is no file", "a folder" if path.is_dir() else "nothing is there")
    return path


# --- stores -----------------------------------------------------------------------------------


def log_file(url: str) -> Path | None:
    """The file of a store's log, None where a server keeps it."""
    scheme, found, rest = url.partition("://")
    if not found:
        return Path(url) / "log.db"
    return Path(rest.removeprefix("/")) if scheme == "sqlite" else None


def store_root(url: str) -> Path:
    """The folder that holds what a store keeps on this machine."""
    from escultor.store import DEFAULT_FOLDER

    file = log_file(url)
    return Path(DEFAULT_FOLDER) if file is None else file.parent


def existing_store(url: str, what: str = "there is nothing to read") -> Store:
    """The store, which has to be there already. Raises InputError where it is not."""
    from escultor.store import open_store, store_exists

    if not store_exists(url):
        remedy = "give --store, or begin with `escultor demo` or `escultor promote`"
        raise InputError(what, f"no store at {url}", "a store that is there", remedy)
    return open_store(url)


def corpus_cache(url: str) -> Path | None:
    """Where mined documentation is kept: in the store's folder, if there is one."""
    root = store_root(url)
    return root / "cache" if root.is_dir() else None


def reference_cache(url: str) -> Path:
    """Where what references say about rows is kept: in the store's folder, if there is one, else in the
    user's cache, so that every run on this machine finds it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return corpus_cache(url) or Path(home) / "escultor"


def read_corpus(url: str) -> Corpus:
    """The documentation of the installed packages, split; what was mined is kept in the store's folder."""
    from escultor.demo import corpus

    return corpus.read_corpus(corpus_cache(url))
