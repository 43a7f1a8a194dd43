"""The vocabulary of the source: words that this project once used privately do not come back.

Names are those of modules, classes, functions, parameters, and of module and class variables; texts are
docstrings, comments and messages. `docs/glossary.md` has the terms in use.
"""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "escultor"

# Class and module names that did not say what they hold.
TYPES = """Asked Ask Call Circumstances Crew Dossier Down Exam Given Hopes Judged Kept Making Memo Most
Opening Place Race Release Reopening Seen Spill Standing Taken Terms Told Utterance Voice Word"""
MODULES = "joining ledger lean looking measuring minimised nouns placing sparing watching"
WORDS = {  # in names, and in texts unless they are allowed there: the term in use
    "arrow": "step",
    "crew": "process pool",
    "dictation": "prompt echo",
    "dossier": "decision record",
    "exam": "suite",
    "haste": "rate anomaly",
    "hasty": "rate anomaly",
    "hopes": "acceptance targets",
    "lockstep": "collusion",
    "memo": "evaluation cache",
    "noun": "record",
    "race": "latency benchmark",
    "utterance": "generation state",
}
PHRASES = {
    "are wont": "usually",
    "is wont": "usually",
    "beside one another": "together",
    "circumstances": "gate context",
    "manieth": "the number of",
    "the how": "the number of",
    "turn of the loop": "cycle run",
    "whoever": "a person who, the caller",
}
ALLOWED = {  # (file, word): why it stays
    **dict.fromkeys(
        (f"data/containers/{name}.py", "arrow")
        for name in ("bytes_of_files", "columnar_process", "rows_of_files", "tables")
    ),  # a format of files
    ("config/aliases.py", "hopes"): "a key of older configurations",
    ("evaluate/gate/decision.py", "hopes"): "hashed under its old name",
    ("evaluate/speed.py", "race"): "the name of a stream of random numbers",
    ("feedback/abuse_rules.py", "dictation"): "in the ids of stored entries",
    ("feedback/abuse_rules.py", "haste"): "in the ids of stored entries",
}


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), path.read_text(encoding="utf-8")


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names of classes, functions and parameters, and of variables outside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        if isinstance(node, ast.Module | ast.ClassDef):
            for statement in node.body:
                targets = statement.targets if isinstance(statement, ast.Assign) else []
                targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
                yield from ((target.lineno, target.id) for target in targets if isinstance(target, ast.Name))


def literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String literals, docstrings and the fixed parts of f-strings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def words_of(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case and without a plural s."""
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    return words | {word.removesuffix("s") for word in words}


def uses() -> Iterator[tuple[str, int, str, str]]:
    """Every use of a banned word: file, line, word, and the term in use."""
    terms = {**WORDS, **PHRASES}
    in_text = re.compile(rf"\b(?:({'|'.join(WORDS)})s?|({'|'.join(PHRASES)}))\b", re.IGNORECASE)
    for file, source in sources():
        if (stem := Path(file).stem) in MODULES.split() or words_of(stem) & WORDS.keys():
            yield file, 1, stem, "a name for what is in the file"
        tree = ast.parse(source)
        for line, name in names(tree):
            if name.lstrip("_") in TYPES.split():
                yield file, line, name, "a name for what it holds"
            yield from ((file, line, word, WORDS[word]) for word in words_of(name) & WORDS.keys())
        said = comments(source) if in_text.search(source) else ()  # reading tokens takes long
        for line, text in (*literals(tree), *said):
            for match in in_text.finditer(text):
                word = (match[1] or match[2]).lower()
                yield file, line, word, terms[word]


@functools.cache
def found() -> list[tuple[str, int, str, str]]:
    return list(uses())


def test_private_words_do_not_come_back():
    banned = [use for use in found() if (use[0], use[2]) not in ALLOWED]
    assert [f"{file}:{line}: `{word}`: say {term}" for file, line, word, term in banned] == []


def test_every_exception_is_still_needed():
    assert ALLOWED.keys() == {(file, word) for file, _, word, _ in found()} & ALLOWED.keys()
