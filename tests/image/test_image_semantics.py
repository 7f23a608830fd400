"""The same random programs, compiled three ways, give the same values in a virtual machine.

Once as always, once with nothing inlined (every loop and conditional is a message to a block), once with every
captured variable in a temp vector. Inlining and copying must be invisible; the other two ways are the slow, plain ones.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from neuroscope.image import scope
from neuroscope.image.bootstrap import Bootstrap
from neuroscope.image.classes import MethodModel
from neuroscope.image.compiler import compile_method
from neuroscope.image.library import ENTRY_SELECTOR, Library
from neuroscope.image.spur import write_image
from neuroscope.project import ROOT

from tests.machines import Run

SEED, COUNT = 7, 120


class Program:
    """Small integers, loops that end, and blocks kept in `kept`, evaluated later and at the end."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names: list[str] = []
        self.fixed: set[str] = set()  # loop counters
        self.counter = 0
        self.budget = 30

    def text(self, selector: str) -> str:
        temporaries = [self.declare() for _ in range(self.random.choice((1, 3, 9)))]
        body = self.statements(0)
        return (
            f"{selector} | kept {' '.join(temporaries)} | kept := OrderedCollection new. {body}. "
            f"^ kept inject: {self.value(3)} into: [:all :each | all * 31 + each value \\\\ 65521]"
        )

    def declare(self) -> str:
        self.counter += 1
        self.names.append(f"v{self.counter}")
        return self.names[-1]

    def statements(self, depth: int) -> str:
        return ". ".join(self.statement(depth) for _ in range(self.random.choice((1, 2, 2, 3))))

    def assignment(self, depth: int) -> str:
        return f"{self.random.choice([each for each in self.names if each not in self.fixed])} := {self.value(depth)}"

    def block(self, depth: int, parameter: str = "", *, answer: bool = False) -> str:
        mark = len(self.names)
        if parameter:
            self.names.append(parameter)
        temporaries = [self.declare() for _ in range(self.random.choice((0, 1, 1, 2)))]
        head = f":{parameter} | " if parameter else ""
        declared = f"| {' '.join(temporaries)} | " if temporaries else ""
        last = f". {self.value(depth)}" if answer else ""
        body = self.statements(depth)
        text = f"[{head}{declared}{body}{last}]"
        del self.names[mark:]
        return text

    def statement(self, depth: int) -> str:
        self.budget -= 1
        if depth > 3 or self.budget < 0:
            return self.assignment(depth)
        kind, inner = self.random.randrange(9), depth + 1
        if kind < 3:
            return self.assignment(inner)
        if kind < 5:
            return f"kept add: {self.block(inner, answer=True)}"
        if kind == 5:
            self.counter += 1
            counter = f"i{self.counter}"
            self.fixed.add(counter)
            start, stop, step = self.random.choice((("1", "3", ""), ("5", "1", " by: -2"), ("1", "2", " by: 1")))
            return f"{start} to: {stop}{step} do: {self.block(inner, counter)}"
        if kind == 6:
            self.counter += 1
            rounds = f"n{self.counter}"
            test = f"{rounds} := {rounds} + 1. {rounds} {{}} {self.random.choice('234')}"
            selector, operator = self.random.choice((("whileTrue:", "<"), ("whileFalse:", ">=")))
            return f"[| {rounds} | {rounds} := 0. [{test.format(operator)}] {selector} {self.block(inner)}] value"
        if kind == 7:
            return f"{self.condition(inner)} ifTrue: {self.block(inner)} ifFalse: {self.block(inner)}"
        return f"{self.variable()} ifNil: {self.block(inner)} ifNotNil: {self.block(inner, 'w')}"

    def variable(self) -> str:
        """Mostly one of the innermost three: read soon after it is declared, perhaps before it is written."""
        return self.random.choice(self.names[-3:] if self.random.random() < 0.6 else self.names)

    def condition(self, depth: int) -> str:
        plain = f"({self.value(depth)} < {self.value(depth)})"
        kind = self.random.randrange(4)
        return plain if kind < 2 else f"({plain} {('and:', 'or:')[kind - 2]} [{self.value(depth)} > 40])"

    def value(self, depth: int) -> str:
        kind = self.random.randrange(7)
        if depth > 4 or kind < 2:
            return f"({self.variable()} ifNil: [{self.random.randrange(100)}])"
        if kind == 2:
            return str(self.random.randrange(100))
        if kind == 3:
            return f"({self.condition(depth + 1)} ifTrue: [{self.value(depth + 1)}] ifFalse: [{self.value(depth + 1)}])"
        if kind == 4 and self.budget > 0:
            self.budget -= 1
            return f"({self.block(depth + 1, answer=True)} value)"
        return f"(({self.value(depth + 1)} * 7) + {self.value(depth + 1)} \\\\ 1009)"


def may_be_shared(variable: scope.LocalVariable) -> bool:
    """Every captured variable but the counter of a to:do:, which must be outside the vector of one round."""
    loop = variable.loops[-1] if variable.loops else None
    is_counter = variable.is_parameter and loop is not None and loop.arguments[-1:] == [variable.block]
    return bool(variable.captures) and not is_counter


COMPARE = """compareAll
	| wrong |
	wrong := OrderedCollection new.
	1 to: {count} do: [:i |
		#('inlined' 'shared') do: [:way |
			| plain other |
			plain := self perform: ('sent', i printString) asSymbol.
			other := self perform: (way, i printString) asSymbol.
			plain = other ifFalse: [wrong add: way, i printString]]].
	^ wrong isEmpty ifTrue: ['all {count} agree'] ifFalse: [wrong printString]"""


def test_inlining_and_copying_are_invisible(tmp_path: Path, run_image: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    library.read(ROOT / "smalltalk", None, with_tests=False)
    library.check()
    behavior = library.behaviors["UndefinedObject", False]

    def install(source: str) -> None:
        code = compile_method(source, behavior)
        behavior.methods[code.selector] = MethodModel(behavior, "", None, "", "private", code)

    random = Random(SEED)
    programs = [Program(random).text for _ in range(COUNT)]
    texts = [program("{way}" + str(number)) for number, program in enumerate(programs, 1)]
    for way in ("inlined", "shared", "sent"):
        with monkeypatch.context() as patch:
            if way == "shared":
                patch.setattr(scope.LocalVariable, "must_be_shared", may_be_shared)
            if way == "sent":
                patch.setattr(scope, "inlining_of", lambda _: None)
            for text in texts:
                install(text.replace("{way}", way, 1))
    install(COMPARE.format(count=COUNT))
    library.add_entry("self compareAll")
    image = tmp_path / "x.image"
    image.write_bytes(write_image(Bootstrap(library).heap(("UndefinedObject", False, ENTRY_SELECTOR))))
    assert run_image(image) == [f"all {COUNT} agree"]
