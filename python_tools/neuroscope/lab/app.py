"""The lab as a web application: its routes behind their gates, and errors in one shape.

{"error": {"message": one sentence, "type", "param", "code"}}        as OpenAI's clients expect it
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from neuroscope.errors import LabError, NeuroScopeError
from neuroscope.lab.gate import BodyLimit, Gate, TokenGate, refusal
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
        (403, "a page of another origin, or another name for this host"),
        (404, "no such thing"),
        (408, "took too long"),
        (409, "no model is loaded"),
        (413, "too many bytes"),
        (422, "a body of another form"),
        (429, "too many requests wait"),
    )
}


def create_app(settings: Settings, registry: Registry | None = None) -> FastAPI:
    """The application over `registry`, a new one where none is given. Raises: LabError for a site that is none."""
    models = registry or Registry(settings)
    store = ExperimentStore(settings.database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()

    app = FastAPI(title="NeuroScope lab", version="1", responses=_REFUSALS, lifespan=lifespan)
    app.state.registry = models
    for routes in (chat_routes, pass_routes, explorer_routes):
        app.include_router(routes(models))
    app.include_router(experiment_routes(models, store))
    if settings.site is not None:
        if not (settings.site / "index.html").is_file():
            raise LabError(f"{settings.site} has no index.html, so it is no site; `neuroscope site` builds one.")
        # in place of the site's own list: its page offers the models of this lab
        app.add_api_route("/labs.json", lambda: ["/"], include_in_schema=False)
        app.mount("/", StaticFiles(directory=settings.site, html=True))
    _add_error_handlers(app)
    # each layer lies around those before it
    app.add_middleware(BodyLimit, limit=settings.limits.request_bytes)
    if settings.token is not None:
        app.add_middleware(TokenGate, token=settings.token)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
            allow_private_network=True,
        )
    app.add_middleware(Gate, settings=settings)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(LabError)
    async def refuse(_: Request, error: LabError) -> Response:
        return refusal(error)

    @app.exception_handler(NeuroScopeError)
    async def explain(_: Request, error: NeuroScopeError) -> Response:
        return refusal(LabError(str(error), status=409, code="not_available"))

    @app.exception_handler(RequestValidationError)
    async def misformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        text = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}; /docs describes every request."
        return refusal(LabError(text, status=422, code="bad_body", parameter=place))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
        text = error.detail
        if text == HTTPStatus(error.status_code).phrase:
            text = f"{request.method} {request.url.path}: {text}; /docs lists what there is."
        code = codes.get(error.status_code, "invalid_request")
        return refusal(LabError(text, status=error.status_code, code=code), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return refusal(LabError("The client went away.", status=499, code="client_closed"))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        """A defect of the lab: its traceback belongs to the terminal, which has it, and not to the client."""
        text = (
            f"The lab failed at {request.method} {request.url.path} ({type(error).__name__}), which is a defect of its "
            "own; its terminal shows where."
        )
        return refusal(LabError(text, status=500, code="internal_error"))
