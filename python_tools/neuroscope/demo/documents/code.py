"""Lines that look like code, in Python's and Smalltalk's manner: names are reused, brackets close, blocks indent."""

from __future__ import annotations

import random

from neuroscope.demo.documents.words import words

NAMES = words("total price count value size width height index result sum")
FUNCTIONS = words("add scale measure check update compute")
OPERATORS = ("+", "-", "*")


def _assignments(source: random.Random) -> str:
    a, b, c = source.sample(NAMES, 3)
    operator = source.choice(OPERATORS)
    return (
        f"{a} = {source.randint(0, 30)}\n{b} = {source.randint(0, 30)}\n{c} = {a} {operator} {b}\n"
        f"print({source.choice((a, b, c))})\n"
    )


def _function(source: random.Random) -> str:
    a, b = source.sample(NAMES, 2)
    name, operator = source.choice(FUNCTIONS), source.choice(OPERATORS)
    return (
        f"def {name}({a}, {b}):\n    return {a} {operator} {b}\n\n"
        f"print({name}({source.randint(0, 30)}, {source.randint(0, 30)}))\n"
    )


def _loop(source: random.Random) -> str:
    a, b = source.sample(NAMES, 2)
    return f"for {a} in range({source.randint(2, 30)}):\n    {b} = {b} + {a}\nprint({b})\n"


def _condition(source: random.Random) -> str:
    a, b = source.sample(NAMES, 2)
    return f"if {a} > {b}:\n    print({a})\nelse:\n    print({b})\n"


def _smalltalk(source: random.Random) -> str:
    a, b = source.sample(NAMES, 2)
    return source.choice(
        (
            f"| {a} {b} |\n{a} := {source.randint(0, 30)}.\n"
            f"{b} := {a} + {source.randint(0, 30)}.\nTranscript show: {b}.\n",
            f"list do: [:{a} | Transcript show: {a}].\n",
            f"{a} > {b} ifTrue: [^ {a}] ifFalse: [^ {b}].\n",
            f"{a} := list inject: 0 into: [:{b} :each | {b} + each].\n",
        )
    )


def document(source: random.Random) -> str:
    return source.choice((_assignments, _function, _loop, _condition, _smalltalk))(source)
