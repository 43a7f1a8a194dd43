"""The ASGI application: routes, the document that describes them, and errors in OpenAI's shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from escultor.errors import EscultorError
from escultor.serve.gateway import feedback_routes
from escultor.serve.gateway import routes as gateway_routes
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.gateway.middleware import RequestGuard
from escultor.serve.gateway.openapi import COMPONENTS, REQUESTS
from escultor.serve.wire.errors import ApiError, refusal_for, refusal_of

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
OPEN = ("/health", "/static/", "/v1/feedback/t/")  # paths that ask for no key
_HEADERS = ("version", "arm", "feedback-token", "ignored")


def build(gateway: Gateway, *, started: Callable[[], None] = lambda: None) -> FastAPI:
    """The application of a gateway, which it starts and closes; `started` is called in between."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        try:
            await gateway.start()
        except BaseException as error:
            app.state.failed = error  # the server says no more than that it did not start
            await gateway.close()
            raise
        started()
        try:
            yield
        finally:
            await gateway.close()

    app = FastAPI(title="Escultor", version=version("escultor"), docs_url=None, redoc_url=None, lifespan=life)
    app.state.gateway, app.state.failed = gateway, None
    app.include_router(gateway_routes.router)
    app.include_router(feedback_routes.router)
    for kind in (ApiError, EscultorError, TimeoutError):
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.openapi = lambda: _document(app)
    app.add_middleware(RequestGuard, settings=gateway.settings)
    if gateway.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(gateway.settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
            expose_headers=["x-request-id", *(f"x-escultor-{name}" for name in _HEADERS)],
        )
    return app


def _answer(refusal: ApiError) -> Response:
    body, headers = to_json(refusal.body()), refusal.headers
    return Response(body, refusal.status, headers, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    refusal = refusal_of(error)
    if refusal.status >= 500:
        raise error  # the guard logs it, and answers
    return _answer(refusal)


async def _not_found(request: Request, error: Any) -> Response:
    """Paths and methods that are not there, and what the framework refuses by itself."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    asked = f"{request.method[:20]} {request.url.path[:200]}"
    message = f"{asked}: {error.detail}" if code else str(error.detail)
    return _answer(ApiError(error.status_code, message, code, headers=error.headers))


async def _not_valid(_: Request, error: Any) -> Response:
    refusal = refusal_for(error.errors(), ())
    refusal.status = 422
    return _answer(refusal)


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the bodies that the hot paths read by themselves, and who may call."""
    if app.openapi_schema is None:
        found = FastAPI.openapi(app)
        _, bodies = models_json_schema([(kind, "validation") for kind in REQUESTS], ref_template=COMPONENTS)
        parts = found.setdefault("components", {})
        parts.setdefault("schemas", {}).update(bodies["$defs"])
        parts["securitySchemes"] = SCHEMES
        for path, methods in found["paths"].items():
            for operation in methods.values():
                operation["security"] = [] if path.startswith(OPEN) else [{name: []} for name in SCHEMES]
        app.openapi_schema = found
    return app.openapi_schema
