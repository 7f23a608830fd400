"""The lab as a web application: its routes, who may call them, and errors in one shape.

{"error": {"message": one sentence, "type", "param", "code"}}        as OpenAI's clients expect it
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroscope.errors import LabError, NeuroScopeError
from neuroscope.lab.registry import Registry
from neuroscope.lab.routes_chat import chat_routes
from neuroscope.lab.routes_experiments import experiment_routes
from neuroscope.lab.routes_explorer import explorer_routes
from neuroscope.lab.routes_passes import pass_routes
from neuroscope.lab.settings import Settings
from neuroscope.lab.store import ExperimentStore

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "object", "required": ["message", "type", "param", "code"]}},
    "required": ["error"],
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in (
        (400, "refused, with a sentence that helps"),
        (401, "no token, or a wrong one"),
        (403, "a page of another origin"),
        (404, "no such thing"),
        (408, "took too long"),
        (409, "no model is loaded"),
        (413, "too many bytes"),
        (422, "a body of another form"),
        (429, "too many requests wait"),
    )
}


def create_app(settings: Settings, registry: Registry | None = None) -> FastAPI:
    """The application over `registry`, a new one where none is given."""
    models = registry or Registry(settings)
    app = FastAPI(title="NeuroScope lab", version="1", responses=_REFUSALS)
    app.state.registry = models
    for routes in (chat_routes, pass_routes, explorer_routes):
        app.include_router(routes(models))
    app.include_router(experiment_routes(models, ExperimentStore(settings.database)))
    if settings.site is not None:
        app.mount("/", StaticFiles(directory=settings.site, html=True))
    _add_error_handlers(app)
    app.add_middleware(_BodyLimit, limit=settings.limits.request_bytes)
    app.middleware("http")(_gate(settings))
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"]
        )
    if settings.is_loopback:
        # a page whose name was made to point here, after it was loaded, still calls by that name
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", "testserver"])
    return app


def _gate(settings: Settings) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """Who may call: holders of the token, and pages of this origin or a listed one."""

    async def gate(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        origin = request.headers.get("origin")
        own = f"{request.url.scheme}://{request.headers.get('host', '')}"
        if origin is not None and origin != own and origin not in settings.origins:
            return _refusal(
                LabError(
                    f"Pages of {origin} may not call this lab; start it with --origin {origin}.",
                    status=403,
                    code="origin_not_allowed",
                )
            )
        is_api = request.url.path.startswith(("/v1/", "/api/"))
        if settings.token is not None and is_api and request.method != "OPTIONS":
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), settings.token.encode()):
                return _refusal(
                    LabError(
                        "This lab wants its token, and the request has none or a wrong one; send the header "
                        "Authorization: Bearer TOKEN.",
                        status=401,
                        code="invalid_api_key",
                    )
                )
        response = await call(request)
        # what a page needs to have threads
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["Cross-Origin-Embedder-Policy"] = "require-corp"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin" if settings.origins else "same-origin"
        return response

    return gate


class _BodyLimit:
    """Refuses a body beyond the limit, also one that does not tell its length before."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if told.isdigit() and int(told) > self._limit:
            return await self._refuse(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise _TooLarge
            return message

        try:
            await self._app(scope, counted, send)
        except _TooLarge:
            await self._refuse(scope, receive, send)
        return None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = LabError(
            f"The request has more than the {self._limit} bytes that this lab takes; send less.",
            status=413,
            code="request_too_large",
        )
        await _refusal(error)(scope, receive, send)


class _TooLarge(Exception):
    """A body went on beyond the limit."""


def _refusal(error: LabError) -> JSONResponse:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse({"error": error.as_json()}, status_code=error.status, headers=headers)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(LabError)
    async def refuse(_: Request, error: LabError) -> JSONResponse:
        return _refusal(error)

    @app.exception_handler(NeuroScopeError)
    async def explain(_: Request, error: NeuroScopeError) -> JSONResponse:
        return _refusal(LabError(str(error), status=409, code="not_available"))

    @app.exception_handler(RequestValidationError)
    async def misformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        text = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}; /docs describes every request."
        return _refusal(LabError(text, status=422, code="bad_body", parameter=place))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        text = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is."
        return _refusal(LabError(text, status=error.status_code, code="not_found"))
