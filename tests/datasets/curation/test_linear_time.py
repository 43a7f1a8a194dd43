"""No pattern of the datasets' room backtracks, and no step does quadratic work, whatever a text holds."""

import importlib
import pkgutil
import re
import time
from dataclasses import fields, is_dataclass
from types import BuiltinMethodType, FunctionType

from curate_rows import jsonl

import escultor.datasets
from escultor.config.curation import Curation
from escultor.datasets.curation.pipeline import curate
from escultor.datasets.similarity.normalization import contradict, words_with_symbols

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
]
LENGTH = 4_000  # characters
# A search that takes less than this is linear: quadratic work on so many characters takes 0.05 s and more.
# One that takes longer is measured again on an eighth: linear work takes an eighth, quadratic a 64th.
FLOOR, FACTOR = 0.012, 24


def patterns_in(value, seen):
    """Every compiled pattern that a value holds: in containers, fields, closures, or made on first use."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    inner = []
    if isinstance(value, re.Pattern):
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
    elif hasattr(value, "cache_info") and "Pattern" in str(value.__wrapped__.__annotations__):
        inner = [value()]
    for each in inner:
        yield from patterns_in(each, seen)


def all_patterns():
    names = [
        module.name for module in pkgutil.walk_packages(escultor.datasets.__path__, "escultor.datasets.")
    ]
    seen = {}
    for name in names:
        for value in list(vars(importlib.import_module(name)).values()):
            yield from (found for found in patterns_in(value, seen) if isinstance(found.pattern, str))


def seconds(search, text):
    start = time.process_time()
    for _ in search(text):
        pass
    return time.process_time() - start


def is_linear(search, unit):
    text = (unit * LENGTH)[:LENGTH]
    if seconds(search, text) < FLOOR or seconds(search, text) < FLOOR:
        return True
    whole, part = (min(seconds(search, said) for _ in range(3)) for said in (text, text[: LENGTH // 8]))
    return whole < FACTOR * part


def test_every_pattern_takes_linear_time():
    found = set(all_patterns())
    assert len(found) > 80
    slow = [(p.pattern, unit) for p in found for unit in UNITS if not is_linear(p.finditer, unit)]
    # A part that matches, and then a row that does not end as it should.
    slow += [
        (p.pattern, unit) for p in found for unit in UNITS[:30] if not is_linear(p.finditer, f"1 {unit}")
    ]
    assert slow == []


def test_the_comparison_of_texts_takes_linear_time():
    for unit in UNITS:
        assert is_linear(words_with_symbols, unit), unit
        assert is_linear(lambda text: [contradict([("x", text)], [("x", f"x{text}")])], unit), unit


def test_rows_of_nothing_but_line_breaks_or_symbols_are_curated(tmp_path):
    units = ("\n", " ", "; ", "- ", "1", "a@", "\u3042")
    rows = [{"text": f"row {number} " + unit * 60_000} for number, unit in enumerate(units)]
    settings = Curation(workers=1, quality={"min_score": 0})
    made = curate([jsonl(tmp_path / "in.jsonl", *rows)], tmp_path / "out", settings)
    assert made.steps[0].left == len(rows)
