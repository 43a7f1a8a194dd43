"""The docstrings of the standard library and the installed packages.

Files are parsed to syntax trees; no package is imported or run. The entries and their order depend on the
files alone, whatever the number of processes.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from escultor.errors import DataError
from escultor.ids import hash_bytes, hash_value
from escultor.process_pool import usable_cpus

RULES = "python-docs/1"  # part of the key of the cache: change it with the rules below
MIN_CHARS = 20
MAX_FILE_BYTES = 2_000_000
SKIPPED_FOLDERS = {"test", "tests", "testing", "_vendor", "_vendored", "vendored", "externals", "idlelib"}
SKIPPED_PACKAGES = {"escultor", "site-packages", "dist-packages", "lib2to3", "turtledemo", "__pycache__"}


@dataclass(frozen=True, slots=True)
class DocEntry:
    """One documented object: a module, class or function."""

    package: str
    name: str  # qualified: json.encoder.JSONEncoder.default
    kind: str  # module, class, function
    signature: str  # as it would be called; a module's and a class's is its name
    doc: str  # the docstring, dedented

    @property
    def summary(self) -> str:
        """The first paragraph on one line (the summary, by PEP 257)."""
        return " ".join(self.doc.split("\n\n", 1)[0].split())

    @property
    def body(self) -> str:
        """The text after the summary."""
        _, _, rest = self.doc.partition("\n\n")
        return rest.strip("\n")


def package_roots() -> list[tuple[str, Path]]:
    """(package, file or folder) of every importable package, sorted by name."""
    paths = sysconfig.get_paths()
    roots: dict[str, Path] = {}
    for folder in dict.fromkeys((paths["stdlib"], paths["purelib"], paths["platlib"])):
        for path in sorted(Path(folder).iterdir()):
            name = path.stem if path.suffix == ".py" else path.name
            is_package = path.is_dir() and (path / "__init__.py").is_file()
            if not (is_package or path.suffix == ".py") or not name.isidentifier():
                continue
            if name not in SKIPPED_PACKAGES and name not in SKIPPED_FOLDERS and not name.startswith("__"):
                roots.setdefault(name.lstrip("_") or name, path)
    return sorted(roots.items())


def mine(
    cache: Path | None = None, roots: Iterable[tuple[str, Path]] | None = None, workers: int | None = None
) -> list[DocEntry]:
    """All entries of the given packages (default: all installed), ordered by package and name.

    `cache` is a folder for the entries of each package by the hash of its files, so that only changed
    packages are read again. A repeated docstring is kept once, under its first name. Raises DataError if
    there is no entry.
    """
    roots = package_roots() if roots is None else roots
    jobs = [(name, str(path), str(cache) if cache else None) for name, path in roots]
    workers = workers or min(usable_cpus(), 16)
    if workers > 1 and len(jobs) > 1:
        with ProcessPoolExecutor(workers) as pool:
            rows_of_packages = list(pool.map(_mine_package, jobs, chunksize=1))
    else:
        rows_of_packages = list(map(_mine_package, jobs))
    entries: dict[str, DocEntry] = {}  # by a hash of the words of the docstring
    for entry in (DocEntry(**row) for rows in rows_of_packages for row in rows):
        entries.setdefault(hash_bytes(" ".join(entry.doc.split()).encode()), entry)
    if not entries:
        raise DataError("no documentation was found", f"{len(jobs)} packages", "at least one docstring")
    return list(entries.values())


def _mine_package(job: tuple[str, str, str | None]) -> list[dict[str, str]]:
    package, path, cache = job
    contents = _contents(Path(path))
    key = hash_value([RULES, sys.version_info[:2], [[ascii(str(f)), hash_bytes(c)] for f, c in contents]])
    cached = Path(cache) / f"{package}-{key}.json" if cache else None
    if cached and cached.is_file():
        with suppress(ValueError):  # a damaged file is written again
            return json.loads(cached.read_text(encoding="utf-8"))
    rows = [asdict(entry) for file, data in contents for entry in _mine_file(package, file, data)]
    if cached:
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(rows), encoding="utf-8")
        temporary.replace(cached)
    return rows


def _contents(path: Path) -> list[tuple[Path, bytes]]:
    """The Python files of a package, relative to its parent folder, with their bytes."""
    contents = []
    for file in _python_files(path):
        with suppress(OSError):  # dangling links, files without read permission
            if file.stat().st_size <= MAX_FILE_BYTES:
                contents.append((file.relative_to(path.parent), file.read_bytes()))
    return contents


def _python_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS and not f.startswith("."))
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("test_"):
                yield Path(folder) / name


def _mine_file(package: str, relative: Path, data: bytes) -> Iterator[DocEntry]:
    if b'"""' not in data and b"'''" not in data:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes of the mined file
            tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # templates, files for other Python versions, expressions too deep
    parts = relative.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    yield from _walk(package, module, tree, "module")


def _walk(package: str, name: str, node: ast.AST, kind: str) -> Iterator[DocEntry]:
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    doc = _docstring(node)
    if doc is not None:
        yield DocEntry(package, name, kind, _signature(name, node), doc)
    for child in node.body if kind != "function" else ():
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            child_kind = "class" if isinstance(child, ast.ClassDef) else "function"
            yield from _walk(package, f"{name}.{child.name}", child, child_kind)


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    raw = ast.get_docstring(node, clean=False)
    if raw is None or "\x00" in raw:
        return None
    doc = inspect.cleandoc(raw).strip()
    try:
        doc.encode()
    except UnicodeEncodeError:  # lone surrogates written as escapes
        return None
    return doc if len(doc) >= MIN_CHARS else None


def _signature(name: str, node: ast.AST) -> str:
    """A function's name with its arguments, without annotations and receiver; the name of anything else."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return name
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    text = ast.unparse(node.args)
    for receiver in ("self", "cls"):
        if text == receiver or text.startswith(f"{receiver}, "):
            text = text[len(receiver) :].lstrip(", ")
    return f"{name}({text})"
