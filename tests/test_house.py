"""The shape of the source: one meaning per type name, arguments by keyword, small files and functions."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "escultor"
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50
MOST_POSITIONAL = 5  # arguments of one call; from six on they go by keyword
MOST_PARAMETERS_P99 = 8


def trees() -> Iterator[tuple[str, ast.Module, int]]:
    """Every file of the package: its path, its syntax tree, its lines."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        yield str(path.relative_to(SOURCE)), ast.parse(text), text.count("\n")


def public_types(tree: ast.Module) -> Iterator[str]:
    """Classes and type aliases of a file that do not begin with an underscore."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [t.id for t in node.targets if isinstance(t, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        yield from (n for n in names if n[0].isalpha() and n[0].isupper() and not n.isupper())


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_a_public_type_name_means_one_thing():
    files: dict[str, list[str]] = defaultdict(list)
    for path, tree, _ in trees():
        for name in public_types(tree):
            files[name].append(path)
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


def test_from_six_arguments_on_they_go_by_keyword():
    calls = [
        f"{path}:{node.lineno}: {ast.unparse(node.func)}"
        for path, tree, _ in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and sum(not isinstance(a, ast.Starred) for a in node.args) > MOST_POSITIONAL
    ]
    assert calls == []


def test_functions_take_few_parameters():
    counts = []
    for _, tree, _ in trees():
        for function in functions(tree):
            names = [
                a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            ]
            counts.append(len([name for name in names if name not in ("self", "cls")]))
    assert sorted(counts)[int(len(counts) * 0.99)] <= MOST_PARAMETERS_P99


def test_files_and_functions_are_small():
    long_files = [path for path, _, lines in trees() if lines > MOST_LINES_OF_A_FILE]
    long_functions = [
        f"{path}:{function.lineno}: {function.name}"
        for path, tree, _ in trees()
        for function in functions(tree)
        if (function.end_lineno or 0) - function.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    ]
    assert (long_files, long_functions) == ([], [])
