"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}} and a status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

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
)

INVALID = "invalid_request_error"
SERVER = "server_error"
_KINDS = {401: INVALID, 403: "permission_error", 429: "rate_limit_error"}
_MOST = 5  # problems of one request that are said


class ErrorDetail(BaseModel):
    """What went wrong: in words, of which sort, by which parameter, and a code for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that ends here, with its status and what the client reads."""

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
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.kind = kind or _KINDS.get(status) or (INVALID if status < 500 else SERVER)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        # Whatever a client sent may come back in a message: what is no Unicode would not be JSON.
        message = self.message.encode("utf-8", "replace").decode()
        said = {"message": message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": said}


def refusal_of(error: BaseException) -> ApiError:
    """What a client reads of any error; of one that nobody foresaw, no more than that there was one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TokenError):
        return ApiError(401, str(error), "invalid_token")
    if isinstance(error, TooLong):
        return ApiError(400, str(error), "context_length_exceeded")
    if isinstance(error, InputError):
        return ApiError(400, str(error), "invalid_value")
    if isinstance(error, Overloaded):
        return ApiError(503, str(error), "overloaded", headers={"Retry-After": "1"})
    if isinstance(error, EngineDown):
        return ApiError(503, str(error), "engine_down", headers={"Retry-After": "2"})
    if isinstance(error, SchemaFault):
        return ApiError(422, str(error), "schema_not_followed", param="response_format")
    if isinstance(error, UpstreamFault):
        return ApiError(502, str(error), "upstream_failed")
    if isinstance(error, EngineFault):
        return ApiError(500, str(error), "engine_failed")
    if isinstance(error, IdTaken):
        return ApiError(409, "other content is kept under this id; an id names one for ever", "id_conflict")
    if isinstance(error, Erased):
        return ApiError(410, "this, or what it is about, was erased on request", "erased")
    if isinstance(error, StoreError):
        # The store's own words name a file or a server; they are for the log.
        message = "the answer could not be recorded, so it is not given; ask again later"
        return ApiError(503, message, "store_failed", headers={"Retry-After": "5"})
    if isinstance(error, TimeoutError):
        return ApiError(504, "the answer took too long", "timeout")
    return ApiError(500, "something failed that was not foreseen; the server's log says what", "internal")


def refusal_for(problems: Sequence[Any], known: Iterable[str]) -> ApiError:
    """What a client reads of a body that pydantic refused: each problem, and the nearest known name."""
    lines, known = [], tuple(known)
    for problem in problems[:_MOST]:
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, known, 1) if len(problem["loc"]) == 1 else []
            hint = f"; did you mean `{near[0]}`?" if near else ""
            lines.append(f"`{name}` is not a parameter that is implemented{hint}")
        else:
            said = str(problem["msg"]).removeprefix("Value error, ")
            lines.append(f"`{name}`: {said}" if name else said)
    if len(problems) > _MOST:
        lines.append(f"and {len(problems) - _MOST} more")
    first = problems[0]
    param = str(first["loc"][0]) if first["loc"] else None
    code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
    code = "missing_required_parameter" if first["type"] == "missing" else code
    return ApiError(400, "; ".join(lines), code, param=param)
