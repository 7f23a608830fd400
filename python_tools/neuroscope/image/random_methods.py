"""Seeded random methods: what the compiler inside the image must compile to the same bytes as this one does.

They need not make sense, only compile: every construct of the language, deep nesting, captured and shared variables,
and now and then a method near a limit (a jump too long to inline, many literals, many temporaries, wide arrays).
The same seed gives the same methods. Their selectors differ, so that one class can hold them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from .classes import Behavior
from .compiler import CompiledCode, compile_method
from .faults import LimitFault

UNARY = ("foo", "size", "class", "value", "isNil", "new", "x", "bar")
BINARY = ("+", "-", "<", ">", "<=", ">=", "=", "~=", "*", "/", "//", "\\\\", "@", "==", ",", "->", "|", "&", ">=>")
KEYWORDS = (
    "at:",
    "at:put:",
    "foo:",
    "foo:bar:",
    "value:",
    "do:",
    "new:",
    "nextPut:",
    "a:b:c:",
    "a:b:c:d:e:",
    "bitAnd:",
)
LITERALS = (
    "0", "1", "2", "-1", "3", "-7", "1000000", "1073741823", "1073741824", "-1073741825", "16rFF", "2r1e4", "1e10",
    "1.5", "-0.0", "0.0", "0.1", "1e-3", "3.25s2", "2s", "-1.0e-5", "123456789012345678901234567890",
    "$a", "$ ", "$'", "$λ", "'text'", "'it''s'", "'λx'", "''", "#foo", "#at:put:", "#+", "#'with space'", "#|",
    "#(1 $a foo bar: #baz 'x' (1 2) true nil)", "#[1 2 255]", "#()", "#(1 2)", "#(1.0 2)", "#(-1 - #(a b:c: + ))",
)  # fmt: skip
PRAGMAS = ("<primitive: 60>", "<primitive: 'go' module: 'Car'>", "<view: 'λ' order: 2>", "<plain>", "<k: #(1 a) l: -2>")
SPACES = (*[" "] * 16, "\n\t", "\n\t", "  ", ' "a comment, it\'s [ignored" ')
LIMIT_SHARE = 0.04  # of the methods are near a limit


@dataclass(frozen=True)
class RandomMethod:
    source: str
    compiled: CompiledCode


class _Writer:
    """Writes one method. `names` are the variables in reach, innermost last, each with whether it may be assigned."""

    def __init__(self, random: Random, behavior: Behavior, globals: Sequence[str]) -> None:
        self.random = random
        self.outer = list(behavior.all_variables())
        self.outer += [name for each in behavior.model.chain() for name in each.class_variables]
        self.globals = list(globals)
        self.names: list[tuple[str, bool]] = []
        self.counter = 0
        self.budget = random.choice((6, 15, 30, 60))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def space(self) -> str:
        return self.random.choice(SPACES)

    def new_name(self) -> str:
        self.counter += 1
        return f"v{self.counter}"

    def method(self, name: str) -> str:
        keywords = self.random.choice(("", "", ":", ":with:", ":b:c:d:"))
        parts = [f"{keyword}: {self.declare(assignable=False)}" for keyword in keywords.split(":")[:-1]]
        pragmas = [self.random.choice(PRAGMAS)] if self.chance(0.15) else []
        body = self.body(temporaries=self.random.choice((0, 0, 1, 2, 3, 3, 18)), pragmas=pragmas)
        return f"{name}{' '.join(parts)}\n\t{body}"

    def declare(self, *, assignable: bool) -> str:
        name = self.new_name()
        self.names.append((name, assignable))
        return name

    def body(self, *, temporaries: int, pragmas: Sequence[str] = ()) -> str:
        parts = list(pragmas)
        if temporaries:
            parts.append(f"| {' '.join(self.declare(assignable=True) for _ in range(temporaries))} |")
        statements = [self.statement() for _ in range(self.random.choice((0, 1, 1, 2, 3, 5)))]
        if self.chance(0.35):
            statements.append(f"^{self.space()}{self.expression(0)}")
        parts.append(f".{self.space()}".join(statements))
        if statements and self.chance(0.1):
            parts.append(".")
        return self.space().join(parts)

    def block(self, parameters: int = 0) -> str:
        mark = len(self.names)
        heads = [f":{self.declare(assignable=self.chance(0.3))}" for _ in range(parameters)]
        head = f"{' '.join(heads)} |{self.space()}" if heads else ""
        body = self.body(temporaries=self.random.choice((0, 0, 0, 1, 1, 2)))
        del self.names[mark:]
        return f"[{head}{body}]"

    def statement(self) -> str:
        if self.chance(0.4) and self.targets():
            return f"{self.random.choice(self.targets())} := {self.expression(0)}"
        return self.expression(0)

    def targets(self) -> list[str]:
        return [name for name, assignable in self.names if assignable] + self.outer

    def atom(self) -> str:
        kind = self.random.random()
        if kind < 0.45 and self.names:
            return self.random.choice(self.names)[0]
        if kind < 0.6 and self.outer:
            return self.random.choice(self.outer)
        if kind < 0.68:
            return self.random.choice(self.globals)
        if kind < 0.8:
            return self.random.choice(("self", "self", "true", "false", "nil", "thisContext"))
        return self.random.choice(LITERALS)

    def expression(self, depth: int) -> str:
        self.budget -= 1
        if depth > 6 or self.budget < 0:
            return self.atom()
        writers = (
            lambda _: self.atom(), self.unary, self.binary, self.keyword, self.keyword, self.cascade, self.brace,
            self.real_block, self.conditional, self.conditional, self.nil_test, self.loop,
            self.logic, self.assignment, self.to_super,
        )  # fmt: skip
        writer = self.random.choice(writers)
        return writer(depth + 1)

    def operand(self, depth: int) -> str:
        if self.budget > 0 and self.chance(0.15):
            return self.random.choice((self.real_block, self.brace))(depth)
        text = self.expression(depth)
        return text if text.isalnum() else f"({text})"

    def unary(self, depth: int) -> str:
        return f"{self.operand(depth)} {self.random.choice(UNARY)}"

    def binary(self, depth: int) -> str:
        return f"{self.operand(depth)} {self.random.choice(BINARY)} {self.operand(depth)}"

    def message(self, depth: int, selector: str) -> str:
        return self.space().join(f"{keyword}: {self.operand(depth)}" for keyword in selector.split(":")[:-1])

    def keyword(self, depth: int) -> str:
        return f"{self.operand(depth)} {self.message(depth, self.random.choice(KEYWORDS))}"

    def cascade(self, depth: int) -> str:
        receiver = "super" if self.chance(0.1) else self.operand(depth)
        parts = []
        for _ in range(self.random.choice((2, 2, 3, 4))):
            kind = self.random.random()
            if kind < 0.4:
                parts.append(self.random.choice(UNARY))
            elif kind < 0.5:
                parts.append(f"{self.random.choice(BINARY)} {self.operand(depth)}")
            elif kind < 0.6:
                parts.append(f"ifTrue: {self.block()}")
            else:
                parts.append(self.message(depth, self.random.choice(KEYWORDS)))
        return f"{receiver} {f';{self.space()}'.join(parts)}"

    def brace(self, depth: int) -> str:
        count = self.random.choice((0, 1, 2, 3, 5))
        return f"{{{'. '.join(self.expression(depth) for _ in range(count))}}}"

    def real_block(self, _: int) -> str:
        return self.block(self.random.choice((0, 0, 1, 1, 2, 3)))

    def conditional(self, depth: int) -> str:
        receiver, kind = self.operand(depth), self.random.randrange(5)
        if kind == 4:
            return f"{receiver} ifTrue: {self.operand(depth)}"
        selector = ("ifTrue:", "ifFalse:", "ifTrue:ifFalse:", "ifFalse:ifTrue:")[kind]
        return f"{receiver} {self.space().join(f'{each}: {self.block()}' for each in selector.split(':')[:-1])}"

    def nil_test(self, depth: int) -> str:
        receiver, kind = self.operand(depth), self.random.randrange(4)
        present, absent = f"ifNotNil: {self.block(self.random.choice((0, 1, 1)))}", f"ifNil: {self.block()}"
        return f"{receiver} {(present, absent, f'{present} {absent}', f'{absent} {present}')[kind]}"

    def logic(self, depth: int) -> str:
        argument = self.block() if self.chance(0.85) else self.operand(depth)
        return f"{self.operand(depth)} {self.random.choice(('and:', 'or:'))} {argument}"

    def loop(self, depth: int) -> str:
        kind = self.random.randrange(9)
        if kind < 4:
            selector = ("whileTrue", "whileFalse", "whileTrue:", "whileFalse:")[kind]
            return f"{self.block()} {selector}{f' {self.block()}' if selector[-1] == ':' else ''}"
        if kind == 4:
            return f"{self.block()} repeat"
        if kind == 5:
            return f"{self.operand(depth)} timesRepeat: {self.block()}"
        stop = self.random.choice(("10", "3.5", self.operand(depth)))
        step = f" by: {self.random.choice(('1', '-2', '0.5', '0', '2s', self.operand(depth)))}" if kind == 8 else ""
        return f"{self.operand(depth)} to: {stop}{step} do: {self.block(1)}"

    def assignment(self, depth: int) -> str:
        targets = self.targets()
        return f"({self.random.choice(targets)} := {self.expression(depth)})" if targets else self.atom()

    def to_super(self, depth: int) -> str:
        selector = self.random.choice(("foo", "+", "foo:bar:", "ifTrue:"))
        if selector == "foo":
            return "super foo"
        return f"super + {self.operand(depth)}" if selector == "+" else f"super {self.message(depth, selector)}"


def _near_a_limit(random: Random, name: str) -> str:
    """A method that needs a rare form: a long jump, long literal indexes, many temporaries, a wide array."""
    kind, size = random.randrange(5), random.randrange(20)
    if kind == 0:
        otherwise = "a bar: 1. " * random.choice((1, 200, 300))
        return f"{name}: a\n\t^ a ifTrue: [{'self foo. ' * (330 + size)}a] ifFalse: [{otherwise}]"
    if kind == 1:
        body = "i foo: v. " * (190 + size)
        return f"{name}\n\t| i | i := 0. [i < 3] whileTrue: [i ifNotNil: [:v | {body}]. i := i + 1]"
    if kind == 2:
        sends = " ".join(f"self s{each}: {1000 + each}." for each in range(55 + size))
        return f"{name}: a\n\t{sends} super z. self a: 1 b: 2 c: 3; foo. ^ a last: 'x'"
    if kind == 3:
        names = [f"t{each}" for each in range(20 + size)]
        return (
            f"{name}\n\t| {' '.join(names)} | {names[-1]} := {names[16]} := 1. ^ [:x | {names[18]} := {names[17]} + x]"
        )
    elements = [random.choice(("a", "1", "#z", "[a]", "$b")) for _ in range(23 + size)]
    return f"{name}: a\n\t^ {{{'. '.join(elements)}}}"


def random_methods(behavior: Behavior, globals: Sequence[str], *, seed: int, count: int) -> Iterator[RandomMethod]:
    """Methods for the class, which must declare no names that begin with v or t and a digit."""
    random = Random(seed)
    made = 0
    while made < count:
        near = random.random() < LIMIT_SHARE
        name = f"m{made + 1}"
        source = _near_a_limit(random, name) if near else _Writer(random, behavior, globals).method(name)
        try:
            compiled = compile_method(source, behavior)
        except LimitFault:
            continue
        made += 1
        yield RandomMethod(source, compiled)
