"""The messages' schema is what protocol.ts says, and what engine and image really send follows it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from jsonschema import Draft7Validator
from neuroscope.kernels import build_kernels
from neuroscope.project import DEMO_MODEL, ROOT
from protocol_schema import PROTOCOL, SCHEMA, schema_of, written

STALE = f"python tests/structure/protocol_schema.py > {SCHEMA.relative_to(ROOT)}"


def test_schema_file_is_what_the_protocol_says():
    assert SCHEMA.read_text() == written(schema_of(PROTOCOL)), (
        f"protocol.ts has changed; write the schema anew: {STALE}"
    )


def script() -> list[dict[str, Any]]:
    """One message of nearly every kind, right and wrong ones."""
    model = {"model": None}
    hook = "blocks.0.hook_resid_post"
    watched = {
        "capture": [{"name": hook, "tensor": 1, "positions": [0, -1]}],
        "interventions": [{"hook": hook, "action": "scale", "by": 2, "at": {"position": [0]}}],
    }
    tokens = [[1, 2, 3], [4, 5, 0]]
    messages: list[dict[str, Any]] = [
        {"kind": "encode", **model, "text": "The"},
        {"kind": "decode", **model, "ids": [1, 2]},
        {"kind": "createCache", "cache": 1, **model},
        {
            "kind": "forward", "pass": 1, **model, "tokens": tokens, "cache": 1, "logits": 2, "logitPositions": [-1],
            "padding": {"side": "right", "lengths": [3, 2]}, **watched,
        },
        {"kind": "forward", "pass": 2, **model, "tokens": tokens, "stop": 1, "residual": 3, "hooks": [hook]},
        {"kind": "forward", "pass": 3, **model, "tokens": tokens, "hooks": ["hook_embd"]},
        {"kind": "forward", "pass": 4, **model, "tokens": tokens, "tape": True, "logits": 4},
        {"kind": "operate", "op": "sum", "inputs": [2], "result": 5, "origin": "a test"},
        {"kind": "statistics", "tensor": 5},
        {"kind": "topK", "tensor": 2, "k": 2},
        {"kind": "read", "tensor": 99},
        {
            "kind": "generate", "pass": 5, **model, "tokens": [1], "maxTokens": 3, "stop": [],
            "sampling": {"temperature": 1, "topK": 5, "topP": 0.9, "seed": 3}, "hooks": ["hook_embed"],
            "capture": [{"name": hook, "tensor": 6}],
        },
        {"kind": "ledger"},
        {"kind": "forecast", **model, "batch": 2, "positions": 3, "names": [hook]},
        {"kind": "benchmark", **model, "lengths": [2], "repetitions": 1, "capture": "plain", "decode": 1},
        {"kind": "backends"},
        {"kind": "release", "tensors": [1, 2, 3, 4, 5, 6]},
        {"kind": "releaseCache", "cache": 1},
        {"kind": "synchronize"},
    ]  # fmt: skip
    hooks = {name: {"op": "multiply", "parameters": {"scalar": 1}} for name in (hook, "hook_embed")}
    return [{"message": message, "atHooks": hooks} for message in messages]


@pytest.fixture(scope="module")
def messages() -> list[dict[str, Any]]:
    build_kernels()
    job = {"bundle": str(DEMO_MODEL), "backend": "wasm", "passes": [], "script": script()}
    done = subprocess.run(
        [ROOT / "node_modules/.bin/node", ROOT / "tests/engine/run_jobs.ts", "--messages"],
        input=json.dumps([job]), capture_output=True, text=True, timeout=60, check=True, cwd=ROOT,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def validator_of(side: str, kind: str) -> Draft7Validator:
    """Of the one kind: what is wrong is then told in a line."""
    schema = json.loads(SCHEMA.read_text())
    options = [each["$ref"].split("/")[-1] for each in schema["definitions"][side]["anyOf"]]
    [name] = [each for each in options if schema["definitions"][each]["properties"]["kind"] == {"const": kind}]
    return Draft7Validator({"$ref": f"#/definitions/{name}", "definitions": schema["definitions"]})


def test_messages_that_go_by_follow_the_schema(messages: list[dict[str, Any]]):
    wrong, kinds = [], set()
    for each in messages:
        [(side, message)] = each.items()
        kinds.add(message["kind"])
        errors = validator_of(side.capitalize(), message["kind"]).iter_errors(message)
        wrong += [f"{message['kind']}: {error.json_path} {error.message[:200]}" for error in errors]
    assert wrong == []
    sent = {each["message"]["kind"] for each in script()}
    answered = {"loaded", "progress", "hook", "token", "generated", "done", "failed", "forecast", "benchmarked", "top"}
    assert sent | answered <= kinds


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "forward", "id": 1, "model": 1, "pass": 1, "tokens": [1, 2]},
        {"kind": "forward", "id": 1, "model": 1, "tokens": [[1, 2]]},
        {"kind": "forward", "id": 1, "model": 1, "pass": 1, "tokns": [[1]]},
        {"kind": "load", "id": 1, "bundle": "a", "backend": "cuda"},
        {"kind": "release", "tensors": "1"},
        {"kind": "nothing"},
    ],
)
def test_schema_refuses(message: dict[str, Any]):
    assert not Draft7Validator(json.loads(SCHEMA.read_text())).is_valid(message)
