"""Patterns that users write, in JSON schemas and suites, searched in time linear in the text (RE2).

The patterns of the package itself are `re`'s, and a test holds each to linear time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

from escultor.errors import DataError

_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(Z)|.)", re.S)  # what JSON Schema and Python write otherwise
_ALLOWED = "RE2's syntax: no lookaround, no backreferences, repetitions up to 1000"
_REMEDY = "write it without; lengths are better said by minLength and maxLength"


@lru_cache(maxsize=256)
def linear_pattern(pattern: str, where: str = "the pattern") -> Any:
    r"""A compiled pattern with `search`, `fullmatch`, `finditer`, … as those of `re`, whose time is linear in
    the text. `\d`, `\w` and `\b` are of ASCII and `$` is the very end, as JSON Schema has them (ECMA 262).

    Raises DataError, which begins with `where`, for a pattern that no linear engine can search.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(_ESCAPE.sub(_rewritten, pattern), options)
    except (re2.error, UnicodeEncodeError) as error:
        got = error.args[0]
        got = got.decode("utf-8", "replace") if isinstance(got, bytes) else str(error)
        raise DataError(
            f"{where} cannot be searched in linear time: {pattern!r:.200}", got, _ALLOWED, _REMEDY
        ) from error


def is_found(pattern: str, text: str) -> bool:
    """Whether a pattern occurs in a text, whatever it holds. Raises DataError as `linear_pattern`."""
    return linear_pattern(pattern).search(text.encode("utf-8", "replace")) is not None


def _rewritten(escape: re.Match[str]) -> str:
    if escape[1]:
        return rf"\x{{{escape[1]}}}"
    return r"\z" if escape[2] else escape[0]
