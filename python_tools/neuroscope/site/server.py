"""A static server for this machine: folders under URL prefixes, single byte ranges, no caching, isolated pages.

Isolation is three headers, without which a page has no shared memory, so no threads; a host that can't set them has the
site's service worker, and `isolated=False` imitates such a host.

For `neuroscope demo`, for tests and for runs in Chromium. Not for the public: any static host serves a site.
"""

from __future__ import annotations

import contextlib
import mimetypes
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json", ".css": "text/css"}
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mounts: Mapping[str, Path]
    on_request: Callable[[str], None] | None
    isolated: bool

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: the terminal shows the URL and nothing else."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.on_request is not None:
            self.on_request(path)
        file = self._file(path)
        if file is None:
            self._send(HTTPStatus.NOT_FOUND, b"No such file.\n", "text/plain", with_body=with_body)
            return
        content = file.read_bytes()
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if wanted is None:
            self._send(HTTPStatus.OK, content, kind, with_body=with_body)
            return
        first = int(wanted[1])
        last = min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if first > last:
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", kind, with_body=with_body)
            return
        part = content[first : last + 1]
        self._send(HTTPStatus.PARTIAL_CONTENT, part, kind, f"bytes {first}-{last}/{len(content)}", with_body=with_body)

    def _file(self, path: str) -> Path | None:
        """The longest prefix wins; nothing outside of a mounted folder is served."""
        for prefix in sorted(self.mounts, key=len, reverse=True):
            if not path.startswith(prefix):
                continue
            folder = self.mounts[prefix].resolve()
            file = (folder / path.removeprefix(prefix)).resolve()
            if file.is_dir():
                file = file / "index.html"
            return file if file.is_relative_to(folder) and file.is_file() else None
        return None

    def _send(
        self, status: HTTPStatus, content: bytes, kind: str, content_range: str | None = None, *, with_body: bool
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-store")
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        if self.isolated:
            for header, value in _ISOLATION.items():
                self.send_header(header, value)
        self.end_headers()
        if with_body:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle of a request is no error."""


@contextlib.contextmanager
def serve(
    mounts: Mapping[str, Path],
    *,
    port: int = 0,
    on_request: Callable[[str], None] | None = None,
    isolated: bool = True,
) -> Iterator[str]:
    """Serves folders on loopback while the block runs, and yields the URL of the root, without a slash at its end.

    `mounts` maps URL prefixes, which begin and end with a slash, to folders; port 0 takes a free one.
    """
    attributes = {
        "mounts": dict(mounts),
        "on_request": staticmethod(on_request) if on_request else None,
        "isolated": isolated,
    }
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), attributes))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
