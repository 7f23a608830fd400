"""`neuroscope serve` as a person starts it: the site on the same origin, and a database that outlives its end."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from demo_lab import PROMPT, chat
from fastapi.testclient import TestClient
from lab_process import STARTS_WITHIN, serving


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>NeuroScope</title>")
    (folder / "assets" / "kernels.wasm").write_bytes(b"\0asm\1\0\0\0")
    return folder


def test_killed_map_over_layers_goes_on_with_the_same_hashes(
    demo_folder: Path, site: Path, tmp_path: Path, lab: TestClient
) -> None:
    """kill -9 behind the first layer; the lab that starts then has it, and makes the others as a lab never killed does.

    The same process is asked for what only the command line decides, since it takes long to start one.
    """
    options = ("--model", demo_folder, "--site", site, "--database", tmp_path / "lab.sqlite")
    body = {
        "input": PROMPT,
        "kind": "mean",
        "target": {"component": "mlp", "position": -1},
        "others": [f"{PROMPT} {number} " + "and the " * 80 for number in range(20)],
    }
    with serving(*options) as (url, process):
        check_site(url)
        answer = httpx.post(f"{url}/v1/chat/completions", json=chat(PROMPT, max_tokens=2), timeout=STARTS_WITHIN)
        assert answer.json()["choices"][0]["message"]["content"] == " Mary."
        with pytest.raises(httpx.RemoteProtocolError):
            threading.Thread(target=kill_when_one_is_kept, args=[url, process]).start()
            httpx.post(f"{url}/v1/experiments/sweep", json=body, timeout=STARTS_WITHIN)
        assert process.wait(10) == -signal.SIGKILL
    with serving(*options) as (url, process):
        kept = [each["hash"] for each in httpx.get(f"{url}/v1/experiments").json()["experiments"]]
        assert 1 <= len(kept) <= 3
        made = httpx.post(f"{url}/v1/experiments/sweep", json=body, timeout=STARTS_WITHIN).json()["map"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (130, -signal.SIGINT)
    expected = lab.post("/v1/experiments/sweep", json=body).json()["map"]
    assert [each["hash"] for each in made] == [each["hash"] for each in expected]
    assert [each["result"] for each in made] == [each["result"] for each in expected]
    assert set(kept) < {each["hash"] for each in made}


def kill_when_one_is_kept(url: str, process: Any) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        if httpx.get(f"{url}/v1/experiments").json()["experiments"]:
            break
        time.sleep(0.02)
    process.kill()


def check_site(url: str) -> None:
    page = httpx.get(f"{url}/")
    assert page.status_code == 200 and "<title>NeuroScope</title>" in page.text
    wasm = httpx.get(f"{url}/assets/kernels.wasm")
    assert wasm.content == b"\0asm\1\0\0\0" and wasm.headers["content-type"] == "application/wasm"
    for answer in (page, wasm, httpx.get(f"{url}/v1/models"), httpx.get(f"{url}/none.html")):
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    for path in ("/../lab.sqlite", "/%2e%2e/lab.sqlite", "/assets/..%2f..%2flab.sqlite"):
        assert httpx.get(f"{url}{path}").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--token"),
        (["--model", "/none/such"], "is no folder"),
        (["--site", "."], "index.html"),
        (["--database", "/none/such/lab.sqlite"], "(unable to open database file); name a file in a folder"),
        (["--max-hooks", "0"], "--max-hooks out"),
        (["--max-seconds", "nan"], "limit of seconds is nan"),
        (["--port", "99999"], "port is 99999, and ports are 0 to 65535"),
    ],
)
def test_lab_that_can_not_start_says_why(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from neuroscope.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEUROSCOPE_TOKEN", raising=False)
    assert main(["serve", "--port", "0", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_taken_port_is_told(server: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from neuroscope.cli.main import main

    port = server.rsplit(":", 1)[1]
    assert main(["serve", "--port", port, "--database", str(tmp_path / "lab.sqlite")]) == 1
    assert f"port {port}" in capsys.readouterr().err
