"""A lab with the demo model: in this process for one request at a time, and as a real server where connections matter.

The model is loaded once a run, from a copy of its folder; each lab has its own database, limits and queue.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from demo_lab import HOST
from fastapi.testclient import TestClient
from neuroscope import project
from neuroscope.lab.app import create_app
from neuroscope.lab.model import LabModel
from neuroscope.lab.registry import Registry, load_model
from neuroscope.lab.settings import KEEP_ALIVE, Limits, ModelSource, Settings

MakeLab = Callable[..., TestClient]
Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 1.3 million parameters, with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "demo"
    shutil.copytree(project.ROOT / "demo_model", folder)
    return folder


@pytest.fixture(scope="session")
def demo_model(demo_folder: Path) -> LabModel:
    import torch

    torch.set_num_threads(1)
    return load_model(ModelSource("demo", demo_folder))


@pytest.fixture(scope="session")
def make_app(demo_model: LabModel, demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    def make(
        *,
        model: LabModel | None = None,
        limits: dict[str, Any] | None = None,
        database: Path | None = None,
        **more: Any,
    ) -> Any:
        settings = Settings(
            models={"demo": ModelSource("demo", demo_folder)},
            limits=Limits(**(limits or {})),
            database=database or tmp_path_factory.mktemp("lab") / "experiments.sqlite",
            **more,
        )
        return create_app(settings, Registry(settings, lambda source: model or demo_model))

    return make


@pytest.fixture(scope="session")
def make_lab(make_app: Callable[..., Any]) -> Iterator[MakeLab]:
    """A client of a new lab, without a server; what a lab does not foresee is a 500, not an exception here."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> TestClient:
            client = TestClient(make_app(**options), base_url=HOST, raise_server_exceptions=False)
            return stack.enter_context(client)

        yield make


@pytest.fixture(scope="session")
def lab(make_lab: MakeLab) -> TestClient:
    return make_lab()


@pytest.fixture(scope="session")
def serve(make_app: Callable[..., Any]) -> Serve:
    """A new lab behind uvicorn, at a free port; yields its URL, without a slash at its end."""

    @contextlib.contextmanager
    def serving(**options: Any) -> Iterator[str]:
        app = make_app(**options)
        config = uvicorn.Config(app, log_level="error", timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as place:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
            thread.start()
            deadline = time.monotonic() + 30
            while not server.started:
                assert thread.is_alive() and time.monotonic() < deadline, "the server did not start within 30 s"
                time.sleep(0.01)
            try:
                yield f"{HOST}:{place.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join(10)

    return serving


@pytest.fixture(scope="session")
def server(serve: Serve) -> Iterator[str]:
    with serve() as url:
        yield url
