"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}} and a status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from escultor.errors import (
    EngineDown,
    EngineFault,
    Erased,
    IdTaken,
    InputError,
    Overloaded,
    SchemaFault,
    StoreError,
    TokenError,
    TooLong,
    UpstreamFault,
    UpstreamStatus,
    shortened,
)

INVALID = "invalid_request_error"
SERVER = "server_error"
_KINDS = {401: INVALID, 403: "permission_error", 429: "rate_limit_error"}
_MAX_PROBLEMS = 5  # problems of one request that are listed
_MAX_COUNTED = 1000
MAX_MESSAGE, MAX_NAME = 2000, 100  # characters of an error's message, and of a name in it


def readable(text: str) -> str:
    """The text as Unicode: what quotes a client may hold lone surrogates, which would be no JSON."""
    return text.encode("utf-8", "replace").decode()


class ErrorDetail(BaseModel):
    """What went wrong: message, error type, parameter, and a code for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


class ApiError(Exception):
    """An error response: its HTTP status and what the client reads."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        message = shortened(message, MAX_MESSAGE)
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param = None if param is None else shortened(param, MAX_NAME)
        self.kind = kind or _KINDS.get(status) or (INVALID if status < 500 else SERVER)
        self.headers = dict(headers or {})

    def __reduce__(self) -> Any:  # the default would give `args` alone
        made = partial(ApiError, param=self.param, kind=self.kind, headers=self.headers)
        return made, (self.status, self.message, self.code)

    def body(self) -> dict[str, Any]:
        """The body that the client reads."""
        # A message may quote what the client sent: what is not Unicode would not be JSON.
        message, param = (None if t is None else readable(t) for t in (self.message, self.param))
        return {"error": {"message": message, "type": self.kind, "param": param, "code": self.code}}


_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (  # status and code; the first match counts
    (TokenError, 401, "invalid_token"),
    (TooLong, 400, "context_length_exceeded"),
    (InputError, 400, "invalid_value"),
    (Overloaded, 503, "overloaded"),
    (EngineDown, 503, "engine_down"),
    (SchemaFault, 422, "schema_not_followed"),
    (UpstreamFault, 502, "upstream_failed"),
    (EngineFault, 500, "engine_failed"),
    (IdTaken, 409, "id_conflict"),
    (Erased, 410, "erased"),
    (StoreError, 503, "store_failed"),
    (TimeoutError, 504, "timeout"),
)
_HEADERS: dict[str, dict[str, str]] = {
    "overloaded": {"Retry-After": "1"},
    "engine_down": {"Retry-After": "2"},
    "store_failed": {"Retry-After": "5"},
    # What helps was tried here, or nothing does: official clients would multiply it.
    "upstream_failed": {"x-should-retry": "false"},
    "timeout": {"x-should-retry": "false"},
}
_MESSAGES = {  # in place of the error's own, which may name a file or a server: those are for the log
    "id_conflict": "other content is stored under this id; an id names one content for ever",
    "erased": "this, or what it is about, was erased: on request, or at the end of its retention",
    "store_failed": "the answer could not be recorded, so it is not given; try again later",
    "timeout": "the answer took too long",
}


def to_api_error(error: BaseException) -> ApiError:
    """The response to any error; to an unforeseen one it reveals nothing but that there was one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UpstreamStatus):
        # Asking again was tried here; official clients do not multiply it.
        headers = error.headers if error.status == 429 else {**error.headers, "x-should-retry": "false"}
        status = error.status if error.status < 600 else 502  # HTTP has no others
        return ApiError(status, str(error), error.code or "upstream_refused", headers=headers)
    for kind, status, code in _ERRORS:
        if isinstance(error, kind):
            headers = _HEADERS.get(code)
            param = "response_format" if code == "schema_not_followed" else None
            return ApiError(status, _MESSAGES.get(code) or str(error), code, param=param, headers=headers)
    return ApiError(500, "an unforeseen error occurred; the server's log has it", "internal")


def listed_problems(error: ValidationError) -> list[Any]:
    """The problems of a body, for `validation_error`; none where listing them would cost more than reading
    it did."""
    if error.error_count() > _MAX_COUNTED:
        return []
    return error.errors(include_url=False, include_context=False, include_input=False)


def validation_error(problems: Sequence[Any], known: Iterable[str]) -> ApiError:
    """The response to a body that pydantic refused: each problem, and the nearest known name."""
    if not problems:
        return ApiError(400, "the body has too many problems to list", "invalid_value")
    lines, known = [], tuple(known)
    for problem in problems[:_MAX_PROBLEMS]:
        name = shortened(".".join(shortened(str(part), MAX_NAME) for part in problem["loc"]), MAX_NAME)
        if problem["type"] == "extra_forbidden":
            is_own = len(problem["loc"]) == 1 and len(name) < MAX_NAME
            near = difflib.get_close_matches(name, known, 1) if is_own else []
            hint = f"; did you mean `{near[0]}`?" if near else ""
            lines.append(f"`{name}` is not an implemented parameter{hint}")
        else:
            message = str(problem["msg"]).removeprefix("Value error, ")
            lines.append(f"`{name}`: {message}" if name else message)
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    first = problems[0]
    param = str(first["loc"][0]) if first["loc"] else None
    code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
    code = "missing_required_parameter" if first["type"] == "missing" else code
    return ApiError(400, "; ".join(lines), code, param=param)
