"""Who may call a lab, and how much a request may weigh: ASGI layers around its routes.

    Gate         the host's name, the page's origin, the headers that isolate a page   (outermost)
    (CORS)       Starlette's own, for the origins that were listed
    TokenGate    the token, on everything but the site and the description
    BodyLimit    bytes of a body, told before or not                                   (innermost)

They are plain ASGI and not Starlette's `http` middleware, which stands between a route and the news that its client
has gone.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroscope.errors import LabError
from neuroscope.lab.settings import LOOPBACK, Settings


def refusal(error: LabError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's shape."""
    more = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    # half of a surrogate pair, which JSON can name and UTF-8 can't, may have come with what was refused
    content = {
        name: None if text is None else text.encode("utf-8", "replace").decode()
        for name, text in error.as_json().items()
    }
    return JSONResponse({"error": content}, status_code=error.status, headers={**(headers or {}), **more})


class Gate:
    """Refuses hosts and origins that are none of the lab's, and isolates its pages, which so may have threads."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._isolation = {
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Resource-Policy": "cross-origin" if settings.origins else "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def isolated(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._isolation)
            await send(message)

        error = self._wrong(Headers(scope=scope), scope["scheme"])
        app = self._app if error is None else refusal(error)
        return await app(scope, receive, isolated)

    def _wrong(self, headers: Headers, scheme: str) -> LabError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        # A page whose name was made to point here after it was loaded still calls by that name.
        if self._settings.is_loopback and _name_of(host) not in LOOPBACK:
            return LabError(
                f"The request calls this lab {host!r}, and it answers to {', '.join(LOOPBACK)} alone; use one of them, "
                "or start the lab with --host and --token.",
                status=403,
                code="host_not_allowed",
            )
        if origin is not None and origin != f"{scheme}://{host}" and origin not in self._settings.origins:
            return LabError(
                f"Pages of {origin} may not call this lab; start it with --origin {origin}.",
                status=403,
                code="origin_not_allowed",
            )
        return None


def _name_of(host: str) -> str | None:
    """The name in a Host header, without its port and an address's brackets."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class TokenGate:
    """Refuses who lacks the token. Whoever has it may do everything that the lab can."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/v1/", "/api/")):
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("authorization", "")
        if hmac.compare_digest(given.removeprefix("Bearer ").encode(), self._token):
            return await self._app(scope, receive, send)
        error = LabError(
            "This lab wants its token, and the request has none or a wrong one; send the header Authorization: "
            "Bearer TOKEN; in the image a lab is made with Lab at: ADDRESS token: TOKEN.",
            status=401,
            code="invalid_api_key",
        )
        return await refusal(error, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


class BodyLimit:
    """Refuses a body beyond the limit, also one that does not tell its length before."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        told = Headers(scope=scope).get("content-length", "0")
        if told.isdigit() and int(told) > self._limit:
            return await refusal(self._too_large())(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                # of the exceptions that reading a body may raise this is the one that FastAPI passes on
                raise HTTPException(413, str(self._too_large()))
            return message

        return await self._app(scope, counted, send)

    def _too_large(self) -> LabError:
        return LabError(
            f"The request has more than the {self._limit} bytes that this lab takes; send less.",
            status=413,
            code="request_too_large",
        )
