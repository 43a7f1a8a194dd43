"""The documentation inside the standard library and the installed packages, as text.

Files are parsed to syntax trees; no package is imported or run. The result depends on the files
alone: same files, same entries in the same order, however many processes read them.
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

RULES = "python-docs/1"  # a part of the cache's key: change it whenever the rules below change
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
        """The first paragraph on one line, which PEP 257 makes the summary."""
        return " ".join(self.doc.split("\n\n", 1)[0].split())

    @property
    def body(self) -> str:
        """What follows the summary."""
        _, _, rest = self.doc.partition("\n\n")
        return rest.strip("\n")


def package_roots() -> list[tuple[str, Path]]:
    """(package, file or folder) of everything importable here, sorted by name."""
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
    """All entries of the given packages (default: every one installed), ordered by package and name.

    `cache` keeps the entries of each package under the hash of its files, so that only changed
    packages are read again. A repeated docstring is kept once, under its first name.
    Raises DataError when nothing was found.
    """
    roots = package_roots() if roots is None else roots
    jobs = [(name, str(path), str(cache) if cache else None) for name, path in roots]
    workers = workers or min(len(os.sched_getaffinity(0)), 16)
    if workers > 1 and len(jobs) > 1:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(_mine_package, jobs, chunksize=1))
    else:
        found = [_mine_package(job) for job in jobs]
    entries: list[DocEntry] = []
    seen: set[str] = set()
    for entry in (DocEntry(**row) for rows in found for row in rows):
        key = hash_bytes(" ".join(entry.doc.split()).encode())
        if key not in seen:
            seen.add(key)
            entries.append(entry)
    if not entries:
        raise DataError("no documentation was found", f"{len(jobs)} packages", "at least one docstring")
    return entries


def _mine_package(job: tuple[str, str, str | None]) -> list[dict[str, str]]:
    package, path, cache = job
    contents = _contents(Path(path))
    key = hash_value([RULES, sys.version_info[:2], [[ascii(str(f)), hash_bytes(c)] for f, c in contents]])
    kept = Path(cache) / f"{package}-{key}.json" if cache else None
    if kept and kept.is_file():
        with suppress(ValueError):  # a damaged file is written again
            return json.loads(kept.read_text(encoding="utf-8"))
    rows = [asdict(entry) for file, data in contents for entry in _mine_file(package, file, data)]
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(rows), encoding="utf-8")
        temporary.replace(kept)
    return rows


def _contents(path: Path) -> list[tuple[Path, bytes]]:
    """Python files, named from the package's parent folder, with their bytes."""
    found = []
    for file in _python_files(path):
        with suppress(OSError):  # links to nowhere, files that may not be read
            if file.stat().st_size <= MAX_FILE_BYTES:
                found.append((file.relative_to(path.parent), file.read_bytes()))
    return found


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
            warnings.simplefilter("ignore")  # the mined file's invalid escapes are not ours
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
    if kind == "function":
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _walk(package, f"{name}.{child.name}", child, "class")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _walk(package, f"{name}.{child.name}", child, "function")


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
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = node.args
        for group in (arguments.posonlyargs, arguments.args, arguments.kwonlyargs):
            for argument in group:
                argument.annotation = None
        for argument in (arguments.vararg, arguments.kwarg):
            if argument is not None:
                argument.annotation = None
        text = ast.unparse(arguments)
        for receiver in ("self", "cls"):
            if text == receiver or text.startswith(f"{receiver}, "):
                text = text[len(receiver) :].lstrip(", ")
        return f"{name}({text})"
    return name
