"""The ASGI application: routes, their OpenAPI document, and errors in OpenAI's format."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match

from escultor.errors import EscultorError
from escultor.serve.budgets import BUDGETS
from escultor.serve.gateway import (
    approval_routes,
    embedding_routes,
    feedback_routes,
    message_routes,
    metric_routes,
    responses_routes,
)
from escultor.serve.gateway import routes as gateway_routes
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.gateway.middleware import OPEN_PATHS, RequestGuard, error_response
from escultor.serve.gateway.openapi import component_schemas, links
from escultor.serve.wire.errors import ApiError, to_api_error, validation_error

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_ROUTERS = (
    gateway_routes.router,
    message_routes.router,
    responses_routes.router,
    embedding_routes.router,
    feedback_routes.router,
    metric_routes.router,
    approval_routes.router,
)
_REMAINING = tuple(f"remaining-{name.replace('_', '-')}" for name in BUDGETS)
_EXPOSED = ("x-request-id", "retry-after", "x-should-retry")  # the last two: official clients wait by them
_HEADERS = ("version", "arm", "feedback-token", "ignored")


def build(gateway: Gateway, *, started: Callable[[], None] = lambda: None) -> FastAPI:
    """The application of a gateway, which it starts and closes; `started` is called once it has started."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await gateway.start()
        except BaseException as error:
            app.state.failed = error  # the server itself reports only that it did not start
            await gateway.close()
            raise
        started()
        try:
            yield
        finally:
            await gateway.close()

    app = FastAPI(
        title="Escultor",
        version=version("escultor"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the redirect would go to whatever host the request names
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.gateway, app.state.failed = gateway, None
    for router in _ROUTERS:
        app.include_router(router)
    for kind in (ApiError, EscultorError, TimeoutError):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.openapi = lambda: _openapi(app)
    app.add_middleware(RequestGuard, gateway=gateway)
    if gateway.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(gateway.settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],  # clients send headers of their own: x-stainless-…, anthropic-…
            expose_headers=[*_EXPOSED, *(f"x-escultor-{name}" for name in (*_HEADERS, *_REMAINING))],
        )
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    api_error = to_api_error(error)
    if api_error.status >= 500:
        raise error  # the middleware logs it, and responds
    return error_response(api_error, request.url.path)


async def _on_http_exception(request: Request, error: Any) -> Response:
    """Unknown paths and methods, and what the framework itself refuses."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    route = f"{request.method[:20]} {request.url.path[:200]}"
    message = f"{route}: {error.detail}" if code else str(error.detail)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    if error.status_code == 405 and request.method == "OPTIONS":  # no page may ask
        return Response(status_code=204, headers=headers)
    api_error = ApiError(error.status_code, message, code, headers=headers)
    return error_response(api_error, request.url.path)


def _allowed(request: Request) -> str:
    """The methods that a path has, over all of its routes."""
    routes = [*request.app.routes, *(route for router in _ROUTERS for route in router.routes)]
    on_path = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in on_path for method in getattr(route, "methods", None) or ()}
    return ", ".join(sorted({"OPTIONS", *methods, *(["HEAD"] if "GET" in methods else [])}))


async def _on_invalid_request(request: Request, error: Any) -> Response:
    api_error = validation_error(error.errors(), ())
    api_error.status = 422
    return error_response(api_error, request.url.path)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with security and the request bodies that the completion routes parse."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {}).update(component_schemas())
        parts["securitySchemes"] = SCHEMES
        for path, methods in document["paths"].items():
            for operation in methods.values():
                operation["security"] = (
                    [] if path.startswith(OPEN_PATHS) else [{name: []} for name in SCHEMES]
                )
                if after := links(operation["operationId"]):
                    next(iter(operation["responses"].values()))["links"] = after
        app.openapi_schema = document
    return app.openapi_schema
