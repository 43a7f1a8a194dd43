"""What the package imports is declared, and importing it asks for no library that a platform lacks."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "escultor"
NAMED = {"mlflow": "mlflow-skinny"}  # distributions of modules that tests do without


def imported_modules() -> dict[str, str]:
    """The top-level names that the package imports, lazily or not, and a file that does."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            found |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: path for name, path in found.items() if name not in {"escultor", *sys.stdlib_module_names}}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_library_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = (project["dependencies"], *project["optional-dependencies"].values())
    declared = {normalised(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for each in lists for line in each}
    providers = packages_distributions()
    undeclared = {
        f"{path}: {name}"
        for name, path in imported_modules().items()
        if not declared & {normalised(each) for each in providers.get(name, [NAMED.get(name, name)])}
    }
    assert undeclared == set()


def test_every_module_imports_where_fcntl_is_missing():
    code = (
        "import importlib, pathlib, sys\n"
        "sys.modules['fcntl'] = None\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "for path in sorted(root.rglob('*.py')):\n"
        "    parts = ('escultor', *path.relative_to(root).with_suffix('').parts)\n"
        "    if 'versions' not in parts and parts[-1] not in ('__main__', 'env'):\n"
        "        importlib.import_module('.'.join(parts).removesuffix('.__init__'))\n"
        "assert sys.modules['fcntl'] is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SOURCE)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


def test_the_gate_alone_is_the_same_version_with_fewer_libraries():
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    gate = tomllib.loads((ROOT / "packaging" / "gate" / "pyproject.toml").read_text())["project"]
    assert (gate["version"], gate["scripts"]) == (whole["version"], whole["scripts"])
    assert set(gate["dependencies"]) < set(whole["dependencies"])
    heavy = {"torch", "transformers", "scipy", "sqlalchemy", "fastapi"}
    assert not heavy & {re.split(r"[\[<>=,]", line, maxsplit=1)[0] for line in gate["dependencies"]}
