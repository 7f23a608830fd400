"""Tensor operations of every backend against NumPy, on shapes that fit no block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_checkpoints import Checkpoint, pack, unpack
from engine_places import PLACES, run

# Shaders may compute exp, log and tanh with a few units of the last place; sums run in float32.
TOLERANCE = 1e-5

generator = np.random.default_rng(11)


def noise(*shape: int) -> np.ndarray:
    return generator.standard_normal(shape).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def case(op: str, expected: np.ndarray, *inputs: np.ndarray, **parameters: Any) -> tuple[dict[str, Any], np.ndarray]:
    data = {"op": op, "inputs": [pack(each) for each in inputs], "parameters": parameters}
    return data, np.asarray(expected, dtype=np.float32)


def cases() -> list[tuple[dict[str, Any], np.ndarray]]:
    a, b, row, column, deep = noise(3, 5, 7), noise(3, 5, 7), noise(7), noise(5, 1), noise(2, 1, 3, 1, 2, 5)
    positive, wide, scalar = np.abs(a) + 0.1, noise(4, 130), noise()
    masked = np.where(np.tril(np.ones((6, 6), dtype=bool)), noise(2, 6, 6), -np.inf).astype(np.float32)
    binary = {
        "add": np.add,
        "subtract": np.subtract,
        "multiply": np.multiply,
        "minimum": np.minimum,
        "maximum": np.maximum,
    }
    found = [
        case(op, f(x, y), x, y) for op, f in binary.items() for x, y in [(a, b), (a, row), (column, a), (scalar, a)]
    ]
    found += [
        case("divide", a / positive, a, positive),
        case("add", deep + noise(4, 1, 1) * 0, deep, noise(4, 1, 1) * 0),
    ]
    found += [case("subtract", a - 2.5, a, scalar=2.5), case("subtract", 2.5 - a, a, scalar=2.5, reversed=True)]
    unary = {"negate": np.negative, "exp": np.exp, "tanh": np.tanh, "absolute": np.abs, "square": np.square}
    found += [case(op, f(a), a) for op, f in unary.items()]
    found += [case("log", np.log(positive), positive), case("sqrt", np.sqrt(positive), positive)]
    found += [case("tanh", np.tanh(a * 100), a * 100)]
    reductions = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "argmax": np.argmax}
    for op, f in reductions.items():
        found += [case(op, f(a, axis=axis), a, axis=axis) for axis in (0, 1, 2)]
        found += [case(op, f(a), a), case(op, f(wide, axis=-1), wide, axis=-1)]
        found += [case(op, np.expand_dims(f(a, axis=1), 1), a, axis=1, keepAxis=True)]
    found += [case("argmax", np.float32([1, 0]), np.float32([[1, 4, 4], [2, 2, 0]]), axis=1)]
    for x in (a, wide, masked, noise(3, 1), noise(5) * 50):
        found += [case("softmax", softmax(x), x)]
    found += [case("logSoftmax", np.log(softmax(x.astype(np.float64))), x) for x in (a, wide * 9)]
    found += [case("matmul", x @ y, x, y) for x, y in [
        (noise(3, 4), noise(4, 5)), (noise(2, 3, 4), noise(2, 4, 6)), (noise(2, 1, 3, 5), noise(4, 5, 2)),
        (noise(7), noise(7, 3)), (noise(3, 7), noise(7)), (noise(7), noise(7)), (noise(1, 9), noise(9, 1)),
    ]]  # fmt: skip
    found += [case("slice", a[1:3, 0:4, 3:6], a, starts=[1, 0, 3], sizes=[2, 4, 3])]
    found += [
        case("take", a[:, [4, 0, 0]], a, axis=1, indices=[-1, 0, 0]),
        case("take", a[[2]], a, axis=0, indices=[2]),
    ]
    found += [case("take", a[..., [6, 1]], a, axis=-1, indices=[6, 1])]
    found += [case("reshape", a.reshape(s), a, shape=list(s)) for s in [(105,), (5, 21), (3, 7, 5), (1, 105, 1)]]
    found += [case("reshape", noise_8.reshape(8, 4), noise_8, shape=[8, 4]) for noise_8 in [noise(4, 8)]]
    found += [case("transpose", a.transpose(0, 2, 1), a), case("transpose", a.transpose(2, 0, 1), a, axes=[2, 0, 1])]
    found += [case("concatenate", np.concatenate([a, a, b[:, :2]], axis=1), a, a, b[:, :2], axis=1)]
    found += [case("concatenate", np.concatenate([a, b], axis=-1), a, b, axis=-1), case("copy", a, a)]
    found += [case("add", masked + 1, masked, scalar=1)]
    return found


ERRORS: list[tuple[dict[str, Any], str, str]] = [
    ({"op": "add", "inputs": [(2, 3), (2,)]}, "ShapeMismatch", "Shapes [2 3] and [2] don't broadcast"),
    ({"op": "matmul", "inputs": [(2, 3), (2, 3)]}, "ShapeMismatch", "the inner extents 3 and 2"),
    (
        {"op": "slice", "inputs": [(2, 3)], "parameters": {"starts": [0, 2], "sizes": [2, 2]}},
        "BadParameter",
        "inside shape [2 3]",
    ),
    (
        {"op": "reshape", "inputs": [(2, 3)], "parameters": {"shape": [4]}},
        "ShapeMismatch",
        "6 elements, shape [4] has 4",
    ),
    ({"op": "reshape", "inputs": [(2, 3)], "parameters": {"shape": [-1]}}, "BadParameter", "positive integers"),
    ({"op": "sum", "inputs": [(2, 3)], "parameters": {"axis": 2}}, "BadParameter", "-2 … 1"),
    ({"op": "take", "inputs": [(2, 3)], "parameters": {"axis": 1, "indices": [3]}}, "BadParameter", "-3 … 2"),
    ({"op": "transpose", "inputs": [(2, 3)], "parameters": {"axes": [0, 0]}}, "BadParameter", "must come once"),
    (
        {"op": "concatenate", "inputs": [(2, 3), (3, 3)], "parameters": {"axis": 1}},
        "ShapeMismatch",
        "joined along axis 1",
    ),
    ({"op": "softmax", "inputs": [()]}, "ShapeMismatch", "at least 1 axes"),
    ({"op": "slice", "inputs": [(2, 3)]}, "BadMessage", "lacks its parameter starts"),
    ({"op": "exp", "inputs": [(2,), (2,)]}, "BadMessage", "takes 1"),
    ({"op": "einsum", "inputs": [(2,)]}, "BadMessage", '"einsum" is not one'),
]


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_operations_equal_numpy(
    where: str, backend: str, checkpoints: dict[str, Checkpoint], request: pytest.FixtureRequest
) -> None:
    wanted = cases()
    job = {"bundle": checkpoints["single"].folder, "passes": [], "operations": [data for data, _ in wanted]}
    [result] = run(where, backend, [job], request)
    for (data, expected), got in zip(wanted, result["operations"], strict=True):
        what = (data["op"], [each["shape"] for each in data["inputs"]], data["parameters"])
        assert "error" not in got, (what, got)
        ours = unpack(got)
        assert ours.shape == expected.shape, what
        np.testing.assert_allclose(ours, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(what))


@pytest.mark.parametrize(("where", "backend"), PLACES)
def test_wrong_operations_say_what_is_wrong(
    where: str, backend: str, checkpoints: dict[str, Checkpoint], request: pytest.FixtureRequest
) -> None:
    operations = [{**data, "inputs": [pack(noise(*shape)) for shape in data["inputs"]]} for data, _, _ in ERRORS]
    job = {"bundle": checkpoints["single"].folder, "passes": [], "operations": operations}
    [result] = run(where, backend, [job], request)
    for (data, name, text), got in zip(ERRORS, result["operations"], strict=True):
        assert got["error"]["name"] == name, (data, got)
        assert text in got["error"]["message"], got
        assert got["error"]["operation"] == data["op"]
