"""Every snippet of the documents that the lab started from runs as written, but for the paths of models.

The documents lie in seeds/. The model has the 24 layers that they speak of, and 16 numbers a position.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lab_process import serving
from mlx_engine import load_model
from neuroscope import project

SEEDS = Path(__file__).parent / "seeds"
_BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
# The documents ask for up to 200 tokens; a generation ends where the positions do.
_LAYERS, _POSITIONS = 24, 32


def snippets(document: str, language: str) -> list[str]:
    text = (SEEDS / document).read_text(encoding="utf-8")
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


def dedented(body: str) -> str:
    first = next(line for line in body.splitlines() if line.strip())
    return re.sub(rf"^{' ' * (len(first) - len(first.lstrip()))}", "", body, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "tall"
    tokens = json.loads((project.ROOT / "demo_model" / "config.json").read_text())
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=tokens["vocab_size"],
        n_positions=_POSITIONS,
        n_embd=16,
        n_layer=_LAYERS,
        n_head=2,
        bos_token_id=tokens["bos_token_id"],
        eos_token_id=tokens["eos_token_id"],
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(project.ROOT / "demo_model" / name, folder)
    return folder


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python -m mlx_engine.api_server`, as the document starts it, told its port and what it may load."""
    folder = tmp_path_factory.mktemp("server")
    with serving("--model", model_folder, program=["mlx_engine.api_server"], cwd=folder) as (url, _):
        yield url


@pytest.fixture
def python_session(
    server: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], dict[str, Any]]:
    """Runs Python snippets one after another, in a folder of their own; answers their names."""
    monkeypatch.setenv("NEUROSCOPE_LAB", server)
    monkeypatch.chdir(tmp_path)
    # The section on debugging uses load_model without importing it.
    names: dict[str, Any] = {"load_model": load_model}

    def run(bodies: list[str]) -> dict[str, Any]:
        for body in bodies:
            source = re.sub(r"/path/to/(your/)?model", str(model_folder), dedented(body))
            exec(compile(source, "mlx_engine.md", "exec"), names)
        return names

    return run


def test_documents_have_the_snippets_that_are_run() -> None:
    counts = {kind: len(snippets("mlx_engine.md", kind)) for kind in ("python", "smalltalk", "json", "bash")}
    assert counts == {"python": 8, "smalltalk": 1, "json": 2, "bash": 2}
    assert len(snippets("mechanistic_explorer.md", "python")) == 1


def test_python_snippets_run_as_written(
    python_session: Callable[[list[str]], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    names = python_session(snippets("mlx_engine.md", "python"))
    shown = capsys.readouterr().out
    assert "MLX Engine available" in shown
    assert "Model loaded: {'status': 'loaded'" in shown
    assert "Captured activations: 2 hooks" in shown
    assert "Captured data from 72 hooks" in shown  # 24 layers, three components
    assert "Has activation hooks: True" in shown
    assert "Successfully registered hook: transformer.h.0_residual" in shown
    assert "Hook registration failed" not in shown
    attention = names["attention_data"]
    assert set(attention) == {
        f"layer_{layer}_{part}"
        for layer in (5, 10, 15, 20)
        for part in ("attention_scores", "attention_pattern", "query", "key", "value")
    }
    chunks = list(names["result"])  # the last generation streams
    assert [len(chunk["activations"]) for chunk in chunks] == [len(names["hooks"])] * len(chunks)
    assert len(chunks) > 1


def test_request_and_response_have_the_documented_form(server: str) -> None:
    request, response = (json.loads(re.sub(r"\[\.\.\.\]", "[]", body)) for body in snippets("mlx_engine.md", "json"))
    answer = httpx.post(f"{server}/v1/chat/completions/with_activations", json=request, timeout=300).json()
    entry = answer["activations"]["layer_5_residual"][0]
    documented = response["activations"]["layer_5_residual"][0]
    assert set(documented) <= set(entry)
    assert {name: entry[name] for name in ("hook_id", "layer_name", "component", "dtype", "is_input")} == {
        name: documented[name] for name in ("hook_id", "layer_name", "component", "dtype", "is_input")
    }
    assert entry["shape"] == [1, len(entry["data"][0]), 16]
    assert answer["choices"][0]["message"]["role"] == response["choices"][0]["message"]["role"]
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


def test_smalltalk_snippet_runs_as_written(
    python_session: Callable[[list[str]], dict[str, Any]],
    neuroscope: Callable[..., Any],
    image: Path,
    model_folder: Path,
) -> None:
    python_session(snippets("mlx_engine.md", "python")[3:4])  # it writes the class
    [program] = snippets("mlx_engine.md", "smalltalk")
    finished = neuroscope(
        "eval", "--raw", "--load", "LMStudioRESTClient.st",
        "-e", program.replace("/path/to/your/model", str(model_folder)),
        "-e", "tensor := (neuroScopeActivations at: 'layer_3_mlp') first. entry := ((result at: #activations) at: "
        "'layer_3_mlp') first. Json write: {hooks size. tensor shape. (tensor at: 0 at: -1) asArray. entry at: 'data'. "
        "circuits collect: [ :each | {each key. each value} ]}",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    count, shape, last, data, circuits = json.loads(finished.stdout)
    assert count == 72
    assert shape == [1, len(data[0]), 16]
    assert last == pytest.approx(data[0][-1], rel=1e-6)
    assert len(circuits) == 72
    lengths = [length for _, length in circuits]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 0


def test_example_runs(server: str, model_folder: Path, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, str(project.ROOT / "examples" / "neuroscope_integration_example.py"), str(model_folder)],
        cwd=tmp_path,
        env={**os.environ, "NEUROSCOPE_LAB": server},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "layer_23_residual" in finished.stdout
    assert (tmp_path / "LMStudioRESTClient.st").exists()


def test_explorer_snippet_and_endpoints_are_there(server: str) -> None:
    names: dict[str, Any] = {}
    [body] = snippets("mechanistic_explorer.md", "python")
    exec(compile(body, "mechanistic_explorer.md", "exec"), names)
    assert names["model_name"] == "your-model-name"
    text = (SEEDS / "mechanistic_explorer.md").read_text(encoding="utf-8")
    endpoints = re.findall(r"- `(\w+) (/api/\w+)`", text)
    assert len(endpoints) == 3
    for method, path in endpoints:
        body = {"messages": [{"role": "user", "content": "Once"}], "message": "Once", "max_tokens": 2}
        answer = httpx.request(method, server + path, json=body if method == "POST" else None, timeout=300)
        assert answer.status_code == 200, answer.text
