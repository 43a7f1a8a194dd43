"""Imports point down: a file imports only from lower steps, and siblings never import each other."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "escultor"

# Step of each room. Two names on one step are siblings.
STEPS: dict[str, int] = {
    **dict.fromkeys(("errors", "strict_json", "types", "ids", "rng", "config"), 0),
    "store": 1,
    **dict.fromkeys(("text", "skills"), 2),
    "model": 3,
    "data": 4,
    **dict.fromkeys(("train", "evaluate", "serve"), 5),
    "monitor": 6,
    "cycle": 7,
    **dict.fromkeys(("web", "cli"), 8),
    "__main__": 9,
}
# The ladder inside step 0, where files stand on each other.
GROUND = ("errors", "strict_json", "ids", "rng", "types", "config")


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "escultor" and len(parts) > 1 else None


def imported(tree: ast.AST, package: list[str]):
    """Every module a file imports, lazy and relative imports included, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            if module == "escultor":
                yield from ((f"escultor.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), node.lineno


def forbidden(own: str, other: str) -> bool:
    if own == other:
        return False
    if own in GROUND and other in GROUND:
        return GROUND.index(other) >= GROUND.index(own)
    return STEPS[other] >= STEPS[own]


def violations(root: Path):
    for path in sorted(root.rglob("*.py")):
        parts = ["escultor", *path.relative_to(root).with_suffix("").parts]
        if parts[1] == "__init__":
            continue  # the package's face: names handed on lazily, checked by test_api
        if parts[1] not in STEPS:
            yield f"{path}:1: `{parts[1]}` stands on no step of tests/test_layers.py"
            continue
        for module, line in imported(ast.parse(path.read_text()), parts[:-1]):
            other = room(module)
            if other is None:
                continue
            if other not in STEPS:
                yield f"{path}:{line}: imports unlisted `{module}`"
            elif forbidden(parts[1], other):
                edge = f"`{parts[1]}` (step {STEPS[parts[1]]}) imports `{module}` (step {STEPS[other]})"
                yield f"{path}:{line}: {edge}"


def test_imports_point_down():
    assert list(violations(SOURCE)) == []


def test_the_check_finds_upward_lazy_sibling_relative_and_unlisted_imports(tmp_path):
    planted = {
        "data/upward.py": "from escultor.train import loop",
        "store/lazy.py": "def f():\n    import escultor.cli.app",
        "serve/sibling.py": "from escultor.evaluate import stats",
        "text/relative.py": "from ..model import load",
        "ids.py": "from escultor import types",
        "attic/unlisted.py": "",
        "train/dynamic.py": "import importlib\nimportlib.import_module('escultor.monitor.rules')",
        "model/fine.py": "from escultor.text import chat\nfrom . import attention",
    }
    for name, text in planted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = " ".join(violations(tmp_path))
    for name in planted:
        assert (name.split("/")[-1] in found) == (name != "model/fine.py"), name
