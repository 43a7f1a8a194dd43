"""No pattern of the package backtracks: a search takes time linear in the text, whatever it holds."""

import ast
import functools
import importlib
import pkgutil
import re
import time
from collections import defaultdict
from dataclasses import fields, is_dataclass
from itertools import product
from pathlib import Path
from types import BuiltinMethodType, FunctionType

import pytest
import regex

import escultor
from escultor.errors import DataError
from escultor.patterns import is_found, linear_pattern

UNITS = [
    "\n",
    " ",
    " \n",
    "a",
    "A",
    "1",
    "1 ",
    "12-",
    "1.",
    "-",
    "--",
    "!",
    "*",
    "#",
    "=",
    ";",
    "{ ",
    "<a ",
    "&",
    ":",
    "::",
    "a@",
    "a.",
    "@a.",
    "a@a.",
    "é@",
    "用",
    "用@例.",
    "+1 ",
    "(1",
    "+1(",
    "0",
    "00 ",
    "AA11",
    "0:",
    "eyJa.",
    "-eyJaaaaaaaa",
    "sk-",
    "SG.",
    "-SG.aaaaaaaaaaaaaaaa",
    "A1b",
    "A1b/",
    "Aa ",
    "Rua A ",
    "A ",
    "1 A ",
    "a: ",
    "-----BEGIN ",
    "-----END A ",
    "́",
    "ก็",
    "Â\x80",
    "x\t",
    "1) ",
    "1 =",
    "pix ",
    "CPF ",
    "tel ",
    "11.",
    "529.982.247-25 ",
    "😀",
    "\\frac",
    "from a",
    "Calle A ",
    '"',
    '\\"',
    '"\\"',
    "\\",
    "[",
    "([",
    "{",
    "</",
    "<think>",
    "`",
    "```\n",
    "> ",
    "|-|",
    "[[",
    "\\u00",
    "x=",
    'a="',
    "/",
    "%",
    "$a",
    "\u2003",
    "- a\n",
    "if you ",
    "I can't ",
]
LENGTH = 1_500  # characters
# A search that takes less than this is linear: quadratic work on so many characters takes 1 ms and more.
# One that takes longer is measured again on eight times as much: linear work takes 8 times, quadratic 64.
FLOOR, TIMES, FACTOR = 0.0006, 8, 24
CACHED = type(functools.cache(len))
SEARCHES = {f"re.{each}" for each in dir(re) if each.islower()} - {"re.compile", "re.escape"}


def patterns_in(value, seen):
    """Every compiled pattern that a value holds: in containers, fields, closures, or made on first use."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    inner = []
    if isinstance(value, re.Pattern | regex.Pattern):
        yield value
    elif isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, tuple | list):
        inner = list(value)
    elif is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, BuiltinMethodType):
        inner = [value.__self__]
    elif isinstance(value, FunctionType):
        inner = [cell.cell_contents for cell in value.__closure__ or ()]
    elif isinstance(value, CACHED) and "Pattern" in str(value.__wrapped__.__annotations__):
        inner = [value()]
    for each in inner:
        yield from patterns_in(each, seen)


def calls():
    """Every pattern that is written in a call, and for each name the methods that are called on it: of
    a private one in its own file."""
    written, methods = set(), defaultdict(set)
    for path in Path(escultor.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        owners = {id(node.value): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                methods[path if node.id[0] == "_" else "", node.id].add(owners.get(id(node)))
            elif (
                isinstance(node, ast.Call)
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and ast.unparse(node.func) in SEARCHES
            ):
                written.add(node.args[0].value)
    return written, methods


@functools.cache
def all_patterns():
    """Each pattern of the package, with how it is searched: at one place where it is only matched there."""
    written, methods = calls()
    found = {re.compile(each): "finditer" for each in written}
    for module in pkgutil.walk_packages(escultor.__path__, "escultor."):
        if ".migrations" in module.name or module.name.endswith("__main__"):
            continue
        imported = importlib.import_module(module.name)
        for name, value in list(vars(imported).items()):
            for each in patterns_in(value, {}):
                used = methods[Path(imported.__file__) if name[0] == "_" else "", name]
                alone = (
                    isinstance(value, re.Pattern | regex.Pattern) and used and used <= {"match", "fullmatch"}
                )
                found[each] = "match" if alone else "finditer"
    return found


def sample(parsed):
    """A text that a parsed pattern matches, but for what lookarounds ask."""
    text = ""
    for kind, said in parsed:
        name = str(kind)
        if name in ("LITERAL", "NOT_LITERAL"):
            text += chr(said) if name == "LITERAL" else "a"
        elif name == "IN":
            kind, first = next((each for each in said if str(each[0]) != "NEGATE"), (None, None))
            is_character = str(kind) in ("LITERAL", "RANGE") and str(said[0][0]) != "NEGATE"
            text += chr(first[0] if isinstance(first, tuple) else first) if is_character else "1"
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            text += sample(said[2]) * max(said[0], 1)
        elif name == "BRANCH":
            text += sample(said[1][0])
        elif name in ("SUBPATTERN", "ATOMIC_GROUP"):
            text += sample(said[-1] if name == "SUBPATTERN" else said)
        elif name == "ANY":
            text += "a"
    return text


def own_units(pattern):
    """A text that the pattern matches, and its beginnings: what it goes into, and has to give up again."""
    if isinstance(pattern, regex.Pattern):
        return set()
    said = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    text = sample(re._parser.parse(said, pattern.flags & ~re.UNICODE & ~re.ASCII))
    return {text[:end] for end in (len(text), *range(len(text) - 1, 0, -1)[:5])} - {""}


def seconds(search, text):
    start = time.process_time()
    for _ in search(text) or ():
        pass
    return time.process_time() - start


def is_linear(search, unit, before="", encode=False):
    text = (before + unit * (TIMES * LENGTH // len(unit) + 1))[: TIMES * LENGTH]
    text = text.encode("utf-8", "replace") if encode else text
    part, parts, wholes = text[:LENGTH], [], []
    for _ in range(3):  # what else the machine does makes both longer at times
        parts.append(seconds(search, part))
        if parts[-1] < FLOOR:
            return True
        wholes.append(seconds(search, text))
        if min(wholes) < FACTOR * min(parts):
            return True
    return False


def searcher(pattern, method):
    if method == "finditer":
        return pattern.finditer
    return lambda text: (pattern.match(text), pattern.fullmatch(text), None)[2]


def test_every_pattern_takes_linear_time():
    found = all_patterns()
    assert len(found) > 120
    slow = []
    for pattern, method in found.items():
        is_bytes = isinstance(pattern.pattern, bytes)
        own = own_units(pattern)
        # Alone; and behind something that matches, or opens what does not end.
        for unit, before in [*product(UNITS, ("", '"')), *product(own, ("", "1 ", '"', "a"))]:
            if not is_linear(searcher(pattern, method), unit, before, is_bytes):
                slow.append((pattern.pattern, before, unit))
    assert slow == []


# --- patterns that users write --------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["(a|aa)+$", r"^(\w+\s?)*$", "(x+x+)+y", "(.*)*x", "(a|b|ab)*c"])
def test_a_users_pattern_takes_linear_time(pattern):
    for unit in ("a", "x", "ab", "a "):
        assert is_linear(lambda text: [is_found(pattern, text + "!")], unit)


@pytest.mark.parametrize(
    "pattern", ["(?=a)b", "(?<!a)b", r"(a)\1", "a{1001}", "(", "(a{900}){900}", "\ud800"]
)
def test_what_no_linear_engine_can_search_is_refused(pattern):
    with pytest.raises(DataError, match=r"answer\.pattern cannot be searched in linear time"):
        linear_pattern(pattern, "answer.pattern")


def test_a_pattern_means_what_json_schema_says():
    found = {r"^\u00e9\/$": "é/", r"^a\Z": "a", "b": "abc", "^.$": "\ud800"}  # the last is half of a pair
    assert all(is_found(pattern, text) for pattern, text in found.items())
    assert not is_found("^a$", "a\n")
    assert not is_found(r"^\d$", "٣")
