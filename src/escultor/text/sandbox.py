"""Chat templates are programs that come with a model. They run in the sandbox of transformers, and here
within limits of time and size: one that loops or writes without end is an error, and leaves no thread.

A clock ends loops; what a single call can make large (repetition, padding, replacement) is computed from its
arguments before it is called.
"""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from escultor.errors import ModelError

LIMIT_S = 10.0  # for one conversation; a page of text takes a thousandth of a second
MAX_CHARS = 16 << 20  # that a template writes in all, that a value in it holds, and of its own text
_POLL_S, _IDLE = 0.2, 10  # seconds between looks, and looks without a deadline before the thread ends
_WIDE = re.compile(r"%[^a-zA-Z%]{0,20}(?:\*|[0-9]{7})|\{[^}]{0,99}[0-9]{7}")  # in a format
_SIZED = ("center", "indent", "ljust", "rjust", "zfill", "expandtabs", "format", "replace", "join", "batch")


class TemplateOverdue(BaseException):
    """Raised in the thread of a template that takes too long."""


class BoundedTemplate:
    """A compiled chat template. Raises ModelError, and what Jinja raises, for one that cannot be read."""

    def __init__(self, source: str):
        from transformers.utils.chat_template_utils import _compile_jinja_template

        if len(source) > MAX_CHARS:
            raise _too_large(len(source))
        environment: Any = _compile_jinja_template("").environment.overlay()  # the sandboxed kind
        call, filters = environment.call, environment.filters.items()
        environment.intercepted_binops = frozenset(("+", "*", "**", "%"))
        environment.binop_table = {name: _bounded(name, f) for name, f in environment.binop_table.items()}
        environment.filters = {name: _bounded(name, f) if name in _SIZED else f for name, f in filters}

        def bounded_call(context: Any, function: Any, /, *given: Any, **named: Any) -> Any:
            text = getattr(function, "__self__", None)
            if isinstance(text, str) and function.__name__ in _SIZED:
                _refuse_large(function.__name__, (text, *given, *named.values()))
            return call(context, function, *given, **named)

        environment.call = bounded_call
        self._template = environment.from_string(source)
        self._template.globals = dict(
            self._template.globals
        )  # a chain of maps is copied slowly for each text
        names = self._template.root_render_func.__globals__
        names.update({name: _bounded("join", names[name]) for name in ("str_join", "markup_join")})

    def render(self, **names: Any) -> str:
        """What the template writes. Raises ModelError beyond a limit, and what the template raises."""
        pieces, size = list[str](), 0
        try:
            with _deadline(LIMIT_S):
                for piece in self._template.generate(**names):
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_CHARS:
                        raise _too_large(size)
        except TemplateOverdue:
            what, remedy = (
                "the chat template takes too long: it may never end",
                "correct the model's template",
            )
            raise ModelError(what, f"over {LIMIT_S:g} s", f"{LIMIT_S:g} s a conversation", remedy) from None
        return "".join(pieces)


# --- size -------------------------------------------------------------------------------------------------


def _too_large(size: float) -> ModelError:
    what, remedy = "the chat template makes a text without end", "correct the model's template"
    return ModelError(what, f"{size:,.0f} characters" if size < 1e30 else "more", f"{MAX_CHARS:,}", remedy)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, refusing arguments of which it would make something too large."""

    @wraps(function)  # with the marks by which Jinja knows what a filter wants to be given
    def call(*given: Any, **named: Any) -> Any:
        _refuse_large(name, (*given, *named.values()))
        return function(*given, **named)

    def add(one: Any, other: Any) -> Any:  # texts, dozens of times in every conversation
        if type(one) is str is type(other) and len(one) + len(other) <= MAX_CHARS:
            return one + other
        return call(one, other)

    return add if name == "+" else call


def _refuse_large(name: str, values: Sequence[Any]) -> None:
    numbers = [abs(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    lengths = sorted((_length(v) for v in values), reverse=True)
    longest, number = max(lengths, default=0), max(numbers, default=0)
    texts = [v for v in values if isinstance(v, str)]
    size: float = sum(lengths)
    if name == "**" and len(numbers) == 2:
        size = numbers[1] * _bits(numbers[0]) if numbers[1] > 1 else 0
    elif name == "*":
        size = longest * number if longest else sum(map(_bits, numbers))
    elif name == "join":
        lists = [v for v in values if isinstance(v, list | tuple)]
        size += sum(sum(map(_length, v)) + len(v) * max(map(len, texts), default=0) for v in lists)
    elif name == "replace":
        size = longest * (1 + (lengths[1] if lengths[1:] else 0))
    elif name in ("%", "format"):
        size += MAX_CHARS if texts and _WIDE.search(texts[0]) else 0
    elif name != "+":
        size += number * (1 + longest if name in ("indent", "expandtabs") else 1)
    if size > MAX_CHARS:
        raise _too_large(size)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 64


# --- time -------------------------------------------------------------------------------------------------


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise TemplateOverdue in this thread after so long, unless the block has ended."""
    thread = threading.get_ident()
    _clock.add(entry := (time.monotonic() + seconds, thread))
    try:
        yield
    finally:
        if not _clock.remove(entry):  # what was raised and has not arrived yet must not do so later
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


class _Clock:
    """One thread for all deadlines of a process, while there are any."""

    def __init__(self) -> None:
        self._lock, self._entries = threading.Lock(), set[tuple[float, int]]()
        self._thread: threading.Thread | None = None

    def add(self, entry: tuple[float, int]) -> None:
        with self._lock:
            self._entries.add(entry)
            if self._thread is None or not self._thread.is_alive():  # it is not copied with a process
                self._thread = threading.Thread(target=self._watch, name="escultor-templates", daemon=True)
                self._thread.start()

    def remove(self, entry: tuple[float, int]) -> bool:
        """Whether it was still to come."""
        with self._lock:
            is_there = entry in self._entries
            self._entries.discard(entry)
        return is_there

    def _watch(self) -> None:
        idle = 0
        while idle < _IDLE:
            time.sleep(_POLL_S)
            with self._lock:
                idle = 0 if self._entries else idle + 1
                for entry in [each for each in self._entries if time.monotonic() > each[0]]:
                    self._entries.discard(entry)
                    thread, error = ctypes.c_ulong(entry[1]), ctypes.py_object(TemplateOverdue)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
                if idle >= _IDLE:
                    self._thread = None


_clock = _Clock()
