"""The Hub, imitated on two origins of this machine, with faults that a test switches on.

Addresses, redirects and headers are the Hub's: /NAME/resolve/REVISION/FILE redirects weights to another host, which
serves ranges; /api/models/NAME tells commit and files. Every request is logged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_RESOLVE = re.compile(r"/(?P<name>[^/]+(/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")
_API = re.compile(r"/api/models/(?P<name>[^/]+(/(?!revision/)[^/]+)?)(/revision/(?P<revision>[^/]+))?$")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_EXPOSED = "X-Repo-Commit, X-Error-Code, ETag, Content-Range, Retry-After"


def safetensors(tensors: dict[str, bytes], *, align: int = 8) -> bytes:
    """A file of byte tensors; `align` 8 pads the header as the format's own library does, 1 leaves it as it is."""
    header, offset = {}, 0
    for name, content in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % align)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


@dataclass
class Repository:
    files: dict[str, bytes] = field(repr=False)
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    gated: bool = False


@dataclass(frozen=True)
class Asked:
    """One request; `range` is (first, last) or None."""

    method: str
    host: str
    path: str
    range: tuple[int, int | None] | None
    headers: frozenset[str]

    @property
    def file(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass
class Hub:
    """What it has, and what is wrong with it."""

    repositories: dict[str, Repository] = field(default_factory=dict, repr=False)
    log: list[Asked] = field(default_factory=list, repr=False)
    url: str = ""
    cdn: str = ""
    # Faults.
    cors: bool = True
    exposes: bool = True
    api: bool = True
    ranges: bool = True
    # How many answers about weights end early, after so many bytes.
    cuts: int = 0
    cut_after: int = 1000
    # How many requests are answered 429, and what Retry-After says.
    busy: int = 0
    retry_after: str | None = "0"
    # How many ranges come from another place than was asked for, and says so.
    mangled: int = 0
    # A new version of the weights after so many requests for them.
    changes_after: int | None = None
    # Seconds that each weight request takes before its first byte.
    delay: float = 0.0

    def weights(self) -> list[Asked]:
        return [asked for asked in self.log if asked.file.endswith(".safetensors") and asked.host == "cdn"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    place: str
    lock = threading.Lock()

    def log_message(self, format: str, *args: object) -> None:
        """The test reads hub.log."""

    def do_OPTIONS(self) -> None:
        """A preflight, which this host refuses: nothing that the page asks for may need one."""
        self._note("OPTIONS")
        self._send(403, b"no preflight here")

    def do_HEAD(self) -> None:
        self._note("HEAD")
        self._send(405, b"")

    def do_GET(self) -> None:
        self._note("GET")
        path = unquote(urlsplit(self.path).path)
        if self.hub.busy > 0:
            self.hub.busy -= 1
            headers = {} if self.hub.retry_after is None else {"Retry-After": self.hub.retry_after}
            self._send(429, b"Too many requests", headers)
            return
        if found := _API.match(path):
            self._api(found["name"], found["revision"])
        elif found := _RESOLVE.match(path):
            self._resolve(found["name"], found["revision"], found["file"])
        else:
            self._send(404, b"Not found")

    def _note(self, method: str) -> None:
        wanted = _RANGE.match(self.headers.get("Range", ""))
        span = None if wanted is None else (int(wanted[1]), int(wanted[2]) if wanted[2] else None)
        asked = Asked(method, self.place, urlsplit(self.path).path, span, frozenset(self.headers.keys()))
        with self.lock:
            self.hub.log.append(asked)

    def _api(self, name: str, revision: str | None) -> None:
        repository = self.hub.repositories.get(name)
        if not self.hub.api or repository is None or revision not in (None, "main", repository.commit):
            self._send(404 if self.hub.api and repository else 401, b"Repository not found")
            return
        listing = {"sha": repository.commit, "siblings": [{"rfilename": file} for file in repository.files]}
        self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            # The Hub does not tell a stranger whether a name is private or free.
            self._send(401, b"Invalid username or password.", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in ("main", repository.commit):
            self._send(404, b"No such revision", {"X-Error-Code": "RevisionNotFound"})
            return
        commit = {"X-Repo-Commit": repository.commit}
        if repository.gated:
            self._send(401, b"Access to this model is restricted.", {"X-Error-Code": "GatedRepo"})
        elif file not in repository.files:
            self._send(404, b"Entry not found", {**commit, "X-Error-Code": "EntryNotFound"})
        elif file.endswith((".safetensors", ".bin")) and self.place == "hub":
            self._send(302, b"", {**commit, "Location": self.hub.cdn + self.path})
        else:
            self._file(file, repository.files[file], commit)

    def _file(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        hub = self.hub
        is_weights = self.place == "cdn"
        if is_weights:
            time.sleep(hub.delay)
            with self.lock:
                if hub.changes_after is not None:
                    hub.changes_after -= 1
                    if hub.changes_after < 0:
                        content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {**headers, "ETag": f'"{hashlib.sha256(content[-64:]).hexdigest()}"'}
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if wanted is None or not hub.ranges:
            self._send(200, content, headers, cut=is_weights)
            return
        first = int(wanted[1])
        last = min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if first > last:
            self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        if hub.mangled > 0 and first > 0:
            hub.mangled -= 1
            first, last = first - 1, last - 1
        part = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self._send(206, content[first : last + 1], {**headers, **part}, cut=is_weights)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.hub.cors:
            self.send_header("Access-Control-Allow-Origin", "*")
            if self.hub.exposes:
                self.send_header("Access-Control-Expose-Headers", _EXPOSED)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if cut and self.hub.cuts > 0 and len(body) > self.hub.cut_after:
                self.hub.cuts -= 1
                self.wfile.write(body[: self.hub.cut_after])
                self.close_connection = True
                return
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A page that goes away in the middle of a request is no error."""


@contextlib.contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    servers = [
        _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "place": place}))
        for place in ("hub", "cdn")
    ]
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
