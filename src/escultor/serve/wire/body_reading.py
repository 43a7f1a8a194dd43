"""From a parsed body to a request for answers: which model it names, who answers, which parser reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from escultor.config import Serve
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import ParsedRequest

Parser = Callable[[Any, Serve], ParsedRequest]
# Of a body, and whether an upstream gets it: the body that a parser reads, and parameters without effect.
Converter = Callable[[Any, bool], tuple[Any, tuple[str, ...]]]


def as_given(body: Any, is_forwarded: bool) -> tuple[Any, tuple[str, ...]]:
    """The converter of the dialect that the parsers read."""
    return body, ()


def read_request(
    body: Any, settings: Serve, parsers: tuple[Parser, Parser], convert: Converter
) -> tuple[ParsedRequest, tuple[str, ...], str]:
    """The request in a body, read for our own models by the first parser and for an upstream by the second;
    the names of parameters without effect; the model's name. Raises ApiError for one that is not valid."""
    _refuse_many_messages(body, settings)
    model = requested_model(body)
    # An answer of an upstream is sent on as it came; what is computed here is read by its parameters.
    has_upstream = settings.upstream is not None or settings.pattern_of(model) is not None
    is_forwarded = has_upstream and not settings.strict
    given, ignored = convert(body, is_forwarded)
    return parsers[is_forwarded](given, settings), ignored, model


def requested_model(body: Any) -> str:
    """The model that a body names; empty where it names none, which its parser refuses."""
    name = body.get("model") if isinstance(body, dict) else None
    return name if isinstance(name, str) else ""


def _refuse_many_messages(body: Any, settings: Serve) -> None:
    for name in ("messages", "input"):
        messages = body.get(name) if isinstance(body, dict) else None
        if isinstance(messages, list) and len(messages) > settings.max_messages:
            message = f"`{name}` holds {len(messages)}; allowed: 1 to {settings.max_messages}"
            raise ApiError(400, message, "invalid_value", param=name)
