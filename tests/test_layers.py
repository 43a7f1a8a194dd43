"""Imports point down: a file imports only from lower steps, siblings never import each other, the parts of a
room obey the same law, and no two files import each other in a circle."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "escultor"

# The ladder, from the ground. Names in one tuple are siblings: they never import each other.
LADDER = (
    ("errors",),
    ("strict_json", "strict_yaml", "patterns"),
    ("ids",),
    ("code_closure",),
    ("rng",),
    ("process_pool",),
    ("types",),
    ("config",),
    ("stats", "text"),
    ("store",),
    ("skills",),
    ("model",),
    ("data", "batching"),
    ("datasets",),
    ("feedback", "train", "evaluate", "serve"),
    ("monitor",),
    ("cycle",),
    ("demo",),
    ("cli", "web"),
    ("__main__",),
)
STEPS = {room: step for step, rooms in enumerate(LADDER) for room in rooms}


def imported(tree: ast.AST, package: list[str]) -> Iterator[tuple[str, list[str], int]]:
    """Every import of a file, lazy and relative ones included: module, names taken from it, line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, [], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield module, [alias.name for alias in node.names], node.lineno
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), [], node.lineno


def modules(root: Path) -> dict[str, Path]:
    """The files of the package by dotted name, without the package's own face."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = ["escultor", *path.relative_to(root).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "escultor":
            found[name] = path
    return found


def edges(root: Path) -> Iterator[tuple[str, str, str]]:
    """Each import inside the package: importing module, imported module, `path:line`.

    `from a import b` is an import of the file `a.b` where there is one, and of `a` otherwise.
    """
    known = modules(root)
    for name, path in known.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for module, names, line in imported(ast.parse(path.read_text()), package):
            if module != "escultor" and not module.startswith("escultor."):
                continue
            files = [f"{module}.{each}" for each in names if f"{module}.{each}" in known]
            if len(files) < len(names) or not names or (module == "escultor" and not files):
                others = [f"escultor.{each}" for each in names] if module == "escultor" else [module]
                files += [each for each in others if each not in files]
            for each in files:
                yield name, each, f"{path}:{line}"


def upward(root: Path) -> Iterator[str]:
    """Imports that do not point down the ladder, and files that stand on no step of it."""
    for name, path in modules(root).items():
        if name.split(".")[1] not in STEPS:
            yield f"{path}:1: `{name.split('.')[1]}` stands on no step of tests/test_layers.py"
    for name, other, where in edges(root):
        own, room = name.split(".")[1], ([*other.split("."), ""])[1]
        if own not in STEPS or own == room or not room:
            continue
        if room not in STEPS:
            yield f"{where}: imports unlisted `{other}`"
        elif STEPS[room] >= STEPS[own]:
            yield f"{where}: `{own}` (step {STEPS[own]}) imports `{other}` (step {STEPS[room]})"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (strongly connected components of two or more)."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for each in graph.get(todo.pop(), ()):
                if each not in seen:
                    seen.add(each)
                    todo.append(each)
        reach[start] = seen
    groups = {frozenset({n, *(m for m in reach[n] if n in reach.get(m, ()))}) for n in graph if n in reach[n]}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def file_graph(root: Path) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = defaultdict(set)
    for name, other, _ in edges(root):
        if name != other:
            graph[name].add(other)
    return graph


def part_graph(root: Path) -> dict[str, set[str]]:
    """The same with every sub-package of a room as one node; a room's loose files are nodes of their own."""
    packages = {name for name, path in modules(root).items() if path.name == "__init__.py"}

    def part(name: str) -> str:
        within = [p for p in packages if p.count(".") > 1 and (name == p or name.startswith(p + "."))]
        return min(within, key=len, default=name)

    graph: dict[str, set[str]] = defaultdict(set)
    for name, other, _ in edges(root):
        if part(name) != part(other):
            graph[part(name)].add(part(other))
    return graph


def test_imports_point_down():
    assert list(upward(SOURCE)) == []


def test_no_files_import_each_other_in_a_circle():
    assert circles(file_graph(SOURCE)) == []


def test_the_parts_of_a_room_import_each_other_in_one_direction():
    assert circles(part_graph(SOURCE)) == []


def test_the_check_finds_upward_lazy_sibling_relative_and_unlisted_imports(tmp_path):
    planted = {
        "data/upward.py": "from escultor.train import loop",
        "store/lazy.py": "def f():\n    import escultor.cli.app",
        "serve/sibling.py": "from escultor.evaluate import gate",
        "text/relative.py": "from ..model import load",
        "ids.py": "from escultor import types",
        "attic/unlisted.py": "",
        "train/dynamic.py": "import importlib\nimportlib.import_module('escultor.monitor.rules')",
        "model/fine.py": "from escultor.text import chat\nfrom . import attention",
    }
    for name, text in planted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = " ".join(upward(tmp_path))
    for name in planted:
        assert (name.split("/")[-1] in found) == (name != "model/fine.py"), name


def test_the_check_finds_circles_between_files_and_between_parts(tmp_path):
    planted = {
        "store/log.py": "def f():\n    from escultor.store.blobs import g",
        "store/blobs.py": "from escultor.store import log",
        "serve/wire/__init__.py": "",
        "serve/wire/errors.py": "",
        "serve/wire/requests.py": "from escultor.serve.gateway import app",
        "serve/gateway/__init__.py": "",
        "serve/gateway/app.py": "",
        "serve/gateway/server.py": "from escultor.serve.wire.errors import ApiError",
    }
    for name, text in planted.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert circles(file_graph(tmp_path)) == [["escultor.store.blobs", "escultor.store.log"]]
    assert ["escultor.serve.gateway", "escultor.serve.wire"] in circles(part_graph(tmp_path))
