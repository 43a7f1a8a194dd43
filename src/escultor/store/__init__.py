"""The store: an append-only log, content-addressed blobs, and the registry folded from the log.

Importing this package loads no database library; `open_store` does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from escultor.errors import ConfigError, StoreError
from escultor.store.blobs import Blobs

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from escultor.store.log import Log

__all__ = ["Blobs", "Store", "open_store", "store_exists"]

DEFAULT_FOLDER = "escultor-store"


@dataclass(frozen=True)
class Store:
    """An open log, its blobs, and the folder on this machine. Close it when done."""

    log: Log
    blobs: Blobs
    root: Path

    @property
    def is_read_only(self) -> bool:
        """Whether its log may not be written by this user."""
        return self.log.is_read_only

    def close(self) -> None:
        """Close the connections to the database."""
        self.log.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_store(url: str = DEFAULT_FOLDER, blobs: str | Path | None = None) -> Store:
    """Open the store at `url`, creating or upgrading it where needed.

    `url` is a folder (the file `log.db` and the folder `blobs` in it), sqlite:///path/of/file.db
    (`blobs` beside the file), or postgresql://user@host/name (`blobs` in the folder escultor-store).
    `blobs` puts the blobs into another folder. Raises ConfigError for a url of another kind, and
    StoreError when the store cannot be opened.
    """
    from escultor.store.schema import open_log

    location, root = _locate(url)
    if isinstance(location, Path):
        location = _sqlite_url(location, url)
    return Store(open_log(location), Blobs(root / "blobs" if blobs is None else Path(blobs)), root)


def _sqlite_url(file: Path, url: str) -> URL:
    """The SQLAlchemy url of a log's file, which is made where there is none: its folder and file are for this
    user alone. A file that may not be written is opened for reading."""
    from sqlalchemy.engine import URL

    root, is_folder = file.parent, "://" not in url
    if file.is_file() and not (os.access(file, os.W_OK) and os.access(root, os.W_OK)):
        mode = {"uri": "true", "mode": "ro"}
        if not file.with_name(f"{file.name}-wal").is_file():
            mode["immutable"] = "1"  # SQLite would have to make files to share it with a writer
        return URL.create("sqlite", database=f"file:{quote(str(file.absolute()))}", query=mode)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_folder and os.name != "nt" and root.stat().st_uid == os.getuid():
            root.chmod(root.stat().st_mode & 0o770)  # earlier versions left it open to all
        has_content = any(root.glob("*.key")) or (root / "blobs").is_dir()
        if has_content and file.is_file() and not file.stat().st_size:
            remedy = "restore it from a copy; to begin anew, move the folder away"
            raise StoreError(f"the log of the store {url} is empty", "0 bytes", "what was recorded", remedy)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        remedy = "choose a folder that this user may write in"
        raise StoreError(f"the store {url} cannot be created", error, "a folder", remedy) from error
    return URL.create("sqlite", database=str(file))


def store_exists(url: str) -> bool:
    """Whether there is a store at `url`; nothing is created. True for every database server. Raises
    ConfigError as `open_store` does."""
    location, _ = _locate(url)
    return not isinstance(location, Path) or location.is_file()


def _locate(url: str) -> tuple[Path | str, Path]:
    """The log's SQLite file or database url, and the folder of the store."""
    scheme, separator, rest = url.partition("://")
    if not separator and url.strip():
        return Path(url) / "log.db", Path(url)
    if scheme == "sqlite" and rest.startswith("/") and rest[1:] not in ("", ":memory:"):
        return Path(rest[1:]), Path(rest[1:]).parent
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return f"postgresql+psycopg://{rest}", Path(DEFAULT_FOLDER)
    raise ConfigError(
        "the url of the store cannot be used",
        repr(f"{scheme}://…" if separator else url),
        "a folder, sqlite:///path/of/file.db, postgresql://user@host/name",
        "correct store.url",
    )
