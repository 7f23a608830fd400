"""Tensors in Smalltalk against NumPy: arithmetic, broadcasting, slices, reductions, products, infinities and NaN.

A case is one line: a Smalltalk expression and the same in NumPy, over the operands below. All cases of a test are
evaluated in one run of the image, because each start costs a second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Evaluate = Callable[..., str]

SEED = 7
GENERATOR = np.random.default_rng(SEED)
OPERANDS = {
    "a": GENERATOR.normal(size=(2, 3, 4)),
    "b": GENERATOR.normal(size=(4,)),
    "c": GENERATOR.normal(size=(3, 1)),
    "d": GENERATOR.normal(size=(2, 1, 1)),
    "m": GENERATOR.normal(size=(4, 5)),
    "n": GENERATOR.normal(size=(2, 4, 5)),
    "p": GENERATOR.uniform(0.1, 3, size=(2, 3)),
    "s": GENERATOR.normal(size=()),
}
# float32 on both sides; the products sum four terms of about 1
TOLERANCE = 2e-6


def smalltalk(array: Any) -> str:
    """An array as nested literal arrays, with digits enough for every float32."""
    if isinstance(array, list):
        return "(" + " ".join(smalltalk(each) for each in array) + ")"
    return f"{array:.9f}"


def literal(array: np.ndarray) -> str:
    text = smalltalk(array.tolist())
    return f"#{text}" if array.ndim else text


def rounded(array: np.ndarray) -> np.ndarray:
    return np.asarray(np.round(array, 9), dtype=np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def answers(evaluate: Evaluate, expressions: list[str], operands: dict[str, np.ndarray]) -> list[Any]:
    """What each expression answers, as JSON reads it; an error as its description."""
    # Variables of the workspace, in sources of their own: one method has room for 56 temporaries and 255 literals.
    made = [f"{name} := ActivationTensor fromNestedArray: {literal(x)}" for name, x in operands.items()]
    for start in range(0, len(expressions), 60):
        blocks = "\n".join(f"[ {each} ]." for each in expressions[start : start + 60])
        made.append(f"""answers := (answers ifNil: [ #() ]) , ({{{blocks}}} collect: [ :each |
            [ each value in: [ :value | value isActivationTensor ifTrue: [ value asNestedArray ] ifFalse: [ value ] ] ]
                on: Error
                do: [ :error | error return: error description ] ])""")
    found: list[Any] = json.loads(evaluate(*made, "Json write: answers", raw=True))
    assert len(found) == len(expressions)
    return found


def check(evaluate: Evaluate, cases: list[tuple[str, Any]], operands: dict[str, np.ndarray]) -> None:
    found = answers(evaluate, [expression for expression, _ in cases], operands)
    for (expression, expected), answer in zip(cases, found, strict=True):
        assert not isinstance(answer, str), f"{expression}: {answer}"
        ours, theirs = np.array(answer, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        assert ours.shape == theirs.shape, f"{expression}: shape {ours.shape}, not {theirs.shape}"
        assert np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE), f"{expression}: {ours} is not {theirs}"


def test_arithmetic_broadcasts_as_numpy_does(evaluate: Evaluate) -> None:
    x = {name: rounded(array) for name, array in OPERANDS.items()}
    a, b, c, d, p, s = (x[name] for name in "abcdps")
    check(
        evaluate,
        [
            ("a + a", a + a),
            ("a - b", a - b),
            ("b - a", b - a),
            ("a * c", a * c),
            ("c / d", c / d),
            ("d + c + b", d + c + b),
            ("a + s", a + s),
            ("s * s", s * s),
            ("a max: b", np.maximum(a, b)),
            ("a min: 0", np.minimum(a, 0)),
            ("a * 2 + 1", a * 2 + 1),
            ("2 - a", 2 - a),
            ("1 / p", 1 / p),
            ("(1/2) * a", a / 2),
            ("a / 1.5s2", a / 1.5),
            ("(2 raisedTo: 70) * b / (2 raisedTo: 70)", b),
            ("a negated", -a),
            ("a abs", np.abs(a)),
            ("a squared", a**2),
            ("a exp", np.exp(a)),
            ("a tanh", np.tanh(a)),
            ("p ln", np.log(p)),
            ("p sqrt", np.sqrt(p)),
        ],
        OPERANDS,
    )


def test_reductions_and_products_agree_with_numpy(evaluate: Evaluate) -> None:
    x = {name: rounded(array) for name, array in OPERANDS.items()}
    a, b, m, n, s = (x[name] for name in "abmns")
    check(
        evaluate,
        [
            ("a mean", a.mean()),
            ("a standardDeviation", a.std()),
            ("a norm", np.linalg.norm(a)),
            ("a min", a.min()),
            ("a max", a.max()),
            ("a sum", a.sum()),
            ("s standardDeviation", 0),
            ("a sumAxis: 0", a.sum(0)),
            ("a meanAxis: -1", a.mean(-1)),
            ("a maxAxis: 1", a.max(1)),
            ("a minAxis: 1", a.min(1)),
            ("a argMax", a.argmax(-1)),
            ("a softmax", softmax(a)),
            ("a logSoftmax", np.log(softmax(a))),
            ("a matrixProduct: m", a @ m),
            ("a matrixProduct: b", a @ b),
            ("b matrixProduct: m", b @ m),
            ("b matrixProduct: b", b @ b),
            ("a matrixProduct: n", a @ n),
            ("m transposed", m.T),
            ("a transposed", a.swapaxes(1, 2)),
            ("a reshape: #(4 6)", a.reshape(4, 6)),
            ("s reshape: #(1 1)", s.reshape(1, 1)),
            ("ActivationTensor concatenate: {a. a + 1} axis: 1", np.concatenate([a, a + 1], 1)),
            ("ActivationTensor concatenate: {b} axis: -1", b),
        ],
        OPERANDS,
    )


def test_indices_count_from_0_and_from_the_end(evaluate: Evaluate) -> None:
    a = rounded(OPERANDS["a"])
    check(
        evaluate,
        [
            ("a at: 1", a[1]),
            ("a at: -1 at: 0", a[-1, 0]),
            ("a at: 1 at: -3 at: 3", a[1, -3, 3]),
            ("a at: #(0 2 -1)", a[0, 2, -1]),
            ("a at: nil at: 1", a[:, 1]),
            ("a at: nil at: nil at: -1", a[:, :, -1]),
            ("a at: 0 at: (1 to: 2)", a[0, 1:3]),
            ("a at: (-2 to: -1) at: 0 at: #(3 0)", a[:, 0][:, [3, 0]]),
            ("a at: nil at: #(2 0 2)", a[:, [2, 0, 2]]),
            ("a take: #(-1 0) axis: 2", a[:, :, [-1, 0]]),
            ("a sliceFrom: 1 to: -1 axis: -2", a[:, 1:]),
            ("a asArray", a.ravel()),
            ("(a reshape: #(24)) numbers", a.ravel()),
            ("(a at: 0 at: 0) at: 2", a[0, 0, 2]),
        ],
        OPERANDS,
    )


def test_random_shapes_broadcast_and_slice_as_in_numpy(evaluate: Evaluate) -> None:
    generator = np.random.default_rng(SEED)
    operands: dict[str, np.ndarray] = {}
    cases: list[tuple[str, Any]] = []
    for index in range(30):
        full = tuple(int(extent) for extent in generator.integers(1, 5, size=generator.integers(1, 6)))
        stretched = tuple(1 if generator.random() < 0.4 else extent for extent in full)
        start = int(generator.integers(0, len(full)))
        x, y = generator.normal(size=full), generator.normal(size=stretched[start:])
        operands |= {f"x{index}": x, f"y{index}": y}
        left, right = rounded(x), rounded(y)
        cases.append((f"x{index} + y{index}", left + right))
        cases.append((f"y{index} * x{index}", right * left))
        axis = int(generator.integers(-len(full), len(full)))
        indices = generator.integers(-full[axis], full[axis], size=3).tolist()
        taken = np.take(left, indices, axis)
        cases.append((f"x{index} take: #({' '.join(map(str, indices))}) axis: {axis}", taken))
        cases.append((f"x{index} sumAxis: {axis}", left.sum(axis)))
    check(evaluate, cases, operands)


WRONG = [
    ("a + m", "ShapeMismatch", ["#(2 3 4)", "#(4 5)"]),
    ("a matrixProduct: a", "ShapeMismatch", ["#(2 3 4)", "4 rows"]),
    ("a reshape: #(5)", "ShapeMismatch", ["24", "5"]),
    ("a + nil", "ShapeMismatch", ["nil"]),
    ("a at: 2", "SubscriptOutOfBounds", ["2", "0 to 1"]),
    ("a at: 0 at: 0 at: 0 at: 0", "ShapeMismatch", ["at most 3"]),
    ("b transposed", "ShapeMismatch", ["#(4)"]),
    ("a top: 5", "BadParameter", ["1 to 4"]),
    ("ActivationTensor zeros: #(2 0)", "BadParameter", ["1 or more"]),
    ("ActivationTensor fromNestedArray: #((1 2) (3))", "ShapeMismatch", ["equally long"]),
    ("ActivationTensor fromNestedArray: #('ab')", "BadParameter", ["numbers"]),
    ("| t | t := a + 1. t release. t mean", "ReleasedTensor", ["(literal + 1)", "released"]),
]


def test_what_is_wrong_says_what_and_names_both_sides(evaluate: Evaluate) -> None:
    found = answers(evaluate, [expression for expression, _, _ in WRONG], OPERANDS)
    for (expression, name, words), answer in zip(WRONG, found, strict=True):
        assert isinstance(answer, str), f"{expression} answered {answer}"
        assert answer.startswith(f"{name}: "), f"{expression}: {answer}"
        for word in words:
            assert word in answer, f"{expression}: {answer}"


def test_numbers_that_are_not_finite_are_themselves_here_and_null_in_json(evaluate: Evaluate) -> None:
    found = json.loads(
        evaluate(
            """| t |
            t := ActivationTensor fromNestedArray: {0. -1. 1000. Float nan. Float infinity. 1e39. 1.0e-50}.
            Json write: {
                t asJsonString.
                t exp asNestedArray collect: [ :each | each printString ].
                (t / 0) asArray collect: [ :each | each printString ].
                ((t at: (0 to: 1)) ln asArray collect: [ :each | each printString ]).
                t sum printString.
                {t mean. t min. t max. t norm}.
                (ActivationTensor fromNestedArray: {Float nan}) mean.
                (t * Float infinity) asArray first printString.
                (Float negativeInfinity + t) asArray first printString}""",
            raw=True,
        )
    )
    text, exponentials, quotients, logarithms, total, statistics, none, product, difference = found
    assert json.loads(text) == {
        "name": "literal",
        "shape": [7],
        "dtype": "float32",
        "data": [0, -1, 1000, None, None, None, 0],
    }
    assert list(json.loads(text)) == ["name", "shape", "dtype", "data"]
    assert exponentials[2:6] == ["Infinity", "NaN", "Infinity", "Infinity"]
    assert quotients[:5] == ["NaN", "-Infinity", "Infinity", "NaN", "Infinity"]
    assert logarithms == ["-Infinity", "NaN"]
    assert total == "NaN"
    assert statistics == pytest.approx([999 / 4, -1, 1000, np.sqrt(1000001)])
    assert none is None
    assert (product, difference) == ("NaN", "-Infinity")


def test_printing_tells_what_is_known_and_never_waits(evaluate: Evaluate) -> None:
    before, after, long = json.loads(
        evaluate(
            """| t before |
            t := ActivationTensor fromNestedArray: #((1 2) (3 4)).
            before := t printString.
            t mean.
            Json write: {before. t printString. (ActivationTensor zeros: #(1000 1000)) printString}""",
            raw=True,
        )
    )
    assert before == "an ActivationTensor(literal #(2 2); mean, standardDeviation, norm, min and max pending)"
    assert "mean 2.5000; standardDeviation 1.1180; norm 5.4772; min 1.0000; max 4.0000" in after
    assert len(long) < 200


def test_a_failed_operation_tells_its_shapes_and_the_method_that_posted_it_wherever_its_result_is_read(
    neuroscope: Callable[..., Any], image: Any, tmp_path: Any
) -> None:
    """A shape is checked before the engine hears of it, so the engine is asked behind the tensors' back."""
    (tmp_path / "Poisoner.class.st").write_text(
        """
"
I post an operation that fails.
"
Class { #name : #Poisoner, #superclass : #Object, #category : #Tests }

{ #category : #evaluating }
Poisoner >> poison: aTensor [
	^ aTensor operate: 'matmul' with: {aTensor} parameters: #() shape: (TensorShape of: #(2 2)) name: 'bad'
]
""",
        encoding="utf-8",
    )
    program = """| bad seen |
        bad := Poisoner new poison: (ActivationTensor zeros: #(2 3)).
        seen := {[ bad mean ]. [ bad * 2 + 1 ]. [ (bad + 1) numbers ].
            [ bad asJsonString ]. [ (bad + bad) top: 1 ]} collect: [ :each |
            [ each value. 'no error' ] on: ShapeMismatch do: [ :error | error return: error messageText ] ].
        Json write: (seen copyWith: bad printString)"""
    finished = neuroscope("eval", "--load", tmp_path, "--raw", "-e", program)
    assert finished.returncode == 0, finished.stderr
    mean, pending, numbers, text, top, printed = json.loads(finished.stdout)
    assert pending == "no error"
    for message in (mean, numbers, text, top):
        assert "matmul of #(2 3) and of #(2 3)" in message
        assert "Poisoner>>#poison:" in message
    assert "failed" in printed


def test_forgotten_tensors_never_fill_the_engine(evaluate: Evaluate) -> None:
    """Ten thousand results of 400 KB are four times the budget; nobody releases one, and none is refused."""
    most, budget, last = json.loads(
        evaluate(
            """| t one most |
            t := ActivationTensor zeros: #(1000 100).
            one := t + 1.
            most := 0.
            1 to: 10000 do: [ :index |
                t := t + one.
                index \\\\ 250 = 0 ifTrue: [
                    most := most max: ((Engine default request: 'ledger' fields: #()) await at: 'bytes') ] ].
            Json write: {most. (Engine default ledger at: 'budget'). t mean}""",
            raw=True,
        )
    )
    assert last == 10000
    assert most < budget / 2


def test_a_full_engine_says_so_and_works_on_once_something_is_let_go_of(evaluate: Evaluate) -> None:
    refused, number = json.loads(
        evaluate(
            """| zeros kept refused |
            zeros := ActivationTensor zeros: #(1024 1024).
            kept := OrderedCollection new.
            refused := [ 300 timesRepeat: [ kept add: zeros + zeros ]. kept last mean. 'all went in' ]
                on: OverBudget
                do: [ :error | error return: error messageText ].
            kept := nil.
            Json write: {refused. (zeros + 1) mean}""",
            raw=True,
        )
    )
    assert re.search(r"\d+ bytes of the \d+ allowed", refused), refused
    assert number == 1
