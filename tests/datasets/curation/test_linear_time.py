"""No step of curation does quadratic work, whatever a text holds. Patterns: `tests/test_patterns.py`."""

from curate_rows import jsonl
from test_patterns import UNITS, is_linear

from escultor.config.curation import Curation
from escultor.datasets.curation.pipeline import curate
from escultor.text.normalization import contradict, words_with_symbols


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
