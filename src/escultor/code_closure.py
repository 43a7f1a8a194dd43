"""The version of the code that decides a result: one hash over the files a module is computed with.

A stored result is keyed by the import closure of the code that made it, so that an edit elsewhere in the
package neither voids it nor stops a run from going on. The closure is read from the syntax trees, with lazy
imports; nothing is imported for it. A name taken from a package is followed to the file that defines it, so
that a package that only passes names on does not tie its files together. What cannot change a result is left
out of the hash: comments, docstrings, and the texts of `description=` and `help=`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from escultor.ids import hash_value

PACKAGE = "escultor"
ROOT = Path(__file__).parent
_TEXT_KEYWORDS = frozenset(("description", "help"))


def code_version(*entries: str | Callable[..., Any] | ModuleType, without: Iterable[str] = ()) -> str:
    """The hash of all files that `entries` are computed with.

    entries: dotted module names of the package, modules, or functions (each stands for its module; one
    defined outside the package counts with the file that it is in, and its imports from the package).
    without: dotted module names at which the closure ends; neither they nor what only they import counts.

    Raises ValueError for a module name that is no file of the package.
    """
    paths = sorted({_file_of(entry) for entry in entries})
    return _version(tuple(paths), tuple(sorted(without)))


def closure(*entries: str | Callable[..., Any] | ModuleType, without: Iterable[str] = ()) -> tuple[str, ...]:
    """The files behind `code_version`, by their path in the package (outside it: by file name), sorted."""
    paths = _closure(tuple(sorted({_file_of(entry) for entry in entries})), tuple(sorted(without)))
    return tuple(sorted(_label(path) for path in paths))


@cache
def _version(entries: tuple[Path, ...], without: tuple[str, ...]) -> str:
    return hash_value(sorted([_label(path), _digest(path)] for path in _closure(entries, without)))


def _closure(entries: tuple[Path, ...], without: tuple[str, ...]) -> set[Path]:
    ends = {path for name in without if (path := _path(name)) is not None}
    reached: set[Path] = set()
    waiting = list(entries)
    while waiting:
        path = waiting.pop()
        if path not in reached and path not in ends:
            reached.add(path)
            waiting += _imports(path)
    return reached


def _file_of(entry: str | Callable[..., Any] | ModuleType) -> Path:
    if isinstance(entry, ModuleType):
        return Path(str(entry.__file__)).resolve()
    if isinstance(entry, str):
        path = _path(entry)
        if path is None:
            raise ValueError(f"no file of the package holds {entry!r}; allowed: such as escultor.train.loop")
        return path
    code = getattr(entry, "__wrapped__", getattr(entry, "func", entry)).__code__
    return Path(code.co_filename).resolve()


def _path(module: str) -> Path | None:
    """The file of a module of the package, or None."""
    first, *rest = module.split(".")
    if first != PACKAGE:
        return None
    base = ROOT.joinpath(*rest)
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


@cache
def _tree(path: Path) -> ast.Module:
    return _WithoutTexts().visit(ast.parse(path.read_text(encoding="utf-8")))


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """The files of the package that a file imports, at load or later; not those for type checkers alone."""
    imported: set[Path] = set()
    waiting: list[ast.AST] = [_tree(path)]
    while waiting:
        node = waiting.pop()
        if not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            imported |= {p for alias in node.names if (p := _path(alias.name)) is not None}
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(path, node)
            imported |= {p for alias in node.names if (p := _definition(module, alias.name)) is not None}
    return tuple(sorted(imported))


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level or not path.is_relative_to(ROOT):
        return node.module or ""
    package = (PACKAGE, *path.relative_to(ROOT).parts[: -node.level])
    return ".".join((*package, node.module) if node.module else package)


def _definition(module: str, name: str) -> Path | None:
    """The file that `from module import name` ends up in: a submodule, or wherever the name is defined."""
    submodule = _path(f"{module}.{name}")
    path = submodule or _path(module)
    if path is None or submodule or path.name != "__init__.py":
        return path
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
            source = next(a.name for a in node.names if (a.asname or a.name) == name)
            return _definition(_absolute(path, node), source) or path
    return path


@cache
def _digest(path: Path) -> str:
    return hash_value(ast.dump(_tree(path)))


class _WithoutTexts(ast.NodeTransformer):
    """Drops docstrings, and the texts of keywords that only people read."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _TEXT_KEYWORDS]
        return self.generic_visit(node)
