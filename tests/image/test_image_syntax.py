"""Scanner and parser: what a text means, and where and how a wrong one is refused."""

from __future__ import annotations

import math

import pytest
from environments import behavior
from neuroscope.image.compiler import compile_method
from neuroscope.image.faults import Fault
from neuroscope.image.literals import float_literal, literal_text
from neuroscope.image.nodes import Cascade, LiteralNode, Return, Send, Statement, Variable
from neuroscope.image.parser import parse_do_it, parse_method
from neuroscope.image.scanner import END, Scanner


def first(source: str) -> Statement:
    statement = parse_do_it(source).statements[0]
    return statement.value if isinstance(statement, Return) else statement


def meaning(source: str) -> str:
    node = first(source)
    assert isinstance(node, LiteralNode), node
    return literal_text(node.value)


def bits(value: float) -> str:
    return literal_text(float_literal(value))


NUMBERS = """
0 ► Integer 0
16r1F ► Integer 31
2r1e4 ► Integer 16
36rZZ ► Integer 1295
1e10 ► Integer 10000000000
100e-2 ► Integer 1
1e-3 ► Fraction 1/1000
-5 ► Integer -5
-1e-1 ► Fraction -1/10
1.5s2 ► ScaledDecimal 3/2 s2
1.25s ► ScaledDecimal 5/4 s2
3s2 ► ScaledDecimal 3/1 s2
-3s ► ScaledDecimal -3/1 s0
123456789012345678901234567890 ► Integer 123456789012345678901234567890
$a ► Character 97
$  ► Character 32
$' ► Character 39
$€ ► Character 8364
'it''s' ► String it's
'' ► String 
#foo ► Symbol foo
#at:put: ► Symbol at:put:
#+ ► Symbol +
#->  ► Symbol ->
#| ► Symbol |
#'with space' ► Symbol with space
#[1 16rFF] ► ByteArray 01ff
#() ► Array ()
#(a #b c: d:e: + | nil true false) ► Array (Symbol a. Symbol b. Symbol c:. Symbol d:e:. Symbol +. Symbol |. nil. true. false)
#(-1 - 1.5 $a 'b' (1 2) #(3) [4] #[5]) ► Array (Integer -1. Symbol -. FLOAT. Character 97. String b. Array (Integer 1. Integer 2). Array (Integer 3). ByteArray 04. ByteArray 05)
#(foo:bar: #baz) ► Array (Symbol foo:bar:. Symbol baz)
"""  # noqa: E501


@pytest.mark.parametrize("line", [line for line in NUMBERS.split("\n") if line])
def test_literal_means(line: str) -> None:
    source, expected = line.split(" ► ")
    assert meaning(source) == expected.replace("FLOAT", bits(1.5))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1.5", 1.5),
        ("-0.0", -0.0),
        ("0.1", 0.1),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("4.9e-324", 5e-324),
        ("1.5e3", 1500.0),
        ("2r1.1", 1.5),
        ("16r1.8e1", 24.0),
        ("9007199254740993.0", 9007199254740992.0),  # halfway: to even
        ("123456789.123456789", 123456789.123456789),
    ],
)
def test_float_is_the_nearest_double(source: str, value: float) -> None:
    assert meaning(source) == bits(value)
    assert math.copysign(1, value) == math.copysign(1, value)


def shape(node: Statement) -> str:
    """The tree with every send in parentheses."""
    match node:
        case Variable(name=name):
            return name
        case LiteralNode(value=value):
            return literal_text(value).split()[-1]
        case Send(receiver=receiver, selector=selector, arguments=arguments):
            return f"({' '.join([shape(receiver), selector, *map(shape, arguments)])})"
        case Cascade(receiver=receiver, messages=messages):
            parts = [" ".join([each.selector, *map(shape, each.arguments)]) for each in messages]
            return f"({shape(receiver)} {'; '.join(parts)})"
    raise AssertionError(node)


SHAPES = """
a b c ► ((a b) c)
a + b * c ► ((a + b) * c)
a + b c ► (a + (b c))
a k: b + c d m: e ► (a k:m: (b + (c d)) e)
3 -2 ► (3 - 2)
3-2 ► (3 - 2)
3 - -2 ► (3 - -2)
3--2 ► (3 - -2)
a>-1 ► (a > -1)
a - b ► (a - b)
a -b ► (a - b)
a | b ► (a | b)
a b; c; d: e ► (a b; c; d: e)
a b c; d ► ((a b) c; d)
(a b) c; d ► ((a b) c; d)
a == b ► (a == b)
3 sin ► (3 sin)
3sin ► (3 sin)
3e ► (3 e)
1to: 2 ► (1 to: 2)
"""


@pytest.mark.parametrize("line", SHAPES.strip().splitlines())
def test_precedence(line: str) -> None:
    source, expected = line.split(" ► ")
    assert shape(first(source)) == expected


def test_tokens_know_their_place_and_the_last_one_is_the_end() -> None:
    tokens = Scanner('foo "comment" := 3').tokens()
    assert [(each.text, each.start, each.stop) for each in tokens[:3]] == [("foo", 0, 3), (":=", 14, 16), ("3", 17, 18)]
    assert tokens[-1].kind == END


def test_temporaries_pragmas_and_comments_stand_in_any_order() -> None:
    method = parse_method('m: x "c" <a> | t u | "d" <primitive: 3> ..^ x..')
    assert [each.name for each in method.temporaries] == ["t", "u"]
    assert [each.selector for each in method.pragmas] == ["a", "primitive:"]
    assert len(method.statements) == 1


def test_block_parameters_may_be_followed_by_temporaries_without_a_space() -> None:
    assert parse_do_it("[:a || t | t]").statements


FAULTS = """
m ^ 'abc ► 4 ► unterminated string; found the end of the source, expected `'`
m "abc ► 2 ► unterminated comment
m ^ #'abc ► 5 ► unterminated symbol
m ^ #(1 2 ► 4 ► unterminated literal array; found end of the source, expected `)`
m ^ #[1 2 ► 4 ► unterminated byte array
m ^ #[256] ► 6 ► found `256` in a byte array, expected an integer from 0 to 255
m ^ #[a] ► 6 ► found `a` in a byte array
m ^ #(1 } ) ► 8 ► found `}`, expected an element of a literal array or `)`
m ^ # a ► 4 ► found ' ' after `#`, expected a symbol
m ^ $ ► 4 ► expected a character after it
m ^ é ► 4 ► found 'é' (code point 233), which begins no Smalltalk token
m ^ 37r1 ► 4 ► radix 37, expected 2 to 36
m ^ 8r9 ► 4 ► digit '9' in a number of radix 8, expected one of 01234567
m ^ 1.0e400 ► 4 ► beyond the range of Float, which ends at 1.7976931348623157e308
m ^ 1e99999 ► 5 ► exponent 99999, expected at most 9999
m ^ (1 + 2 ► 10 ► found end of the source, expected `)` to close the parenthesis
m ^ [1 ► 6 ► found end of the source, expected `.` or `]`
m ^ {1 2} ► 7 ► found `2`, expected `.` or `}`
m ^ 1 2 ► 6 ► found `2`, expected the end of the method after a return statement
m ^ 1. 2 ► 7 ► found `2`, expected the end of the method after a return statement
m a foo 3 ► 8 ► found `3`, expected `.` or the end of the method
m ^ ► 3 ► found end of the source, expected an operand
m ^ a + ► 7 ► found end of the source, expected an operand
m ^ super ► 4 ► found `super` without a message to it
m ^ a + super + 1 ► 8 ► found `super` without a message to it
m a; foo ► 3 ► found `;`, expected a message before the cascade
m (a b); foo ► 7 ► found `;`, expected a message before the cascade
m a b; 3 ► 7 ► found `3`, expected a message after `;`
m a b; c + 1 ► 9 ► found `+`, expected `;` or the end of the cascade
m [:x 1] ► 6 ► found `1`, expected `|` after the block's arguments
m | a 1 ► 6 ► found `1`, expected a temporary's name or `|`
m <foo: a> ► 8 ► found `a`, expected a literal as the pragma's argument
m <foo ► 6 ► expected `>` at the end of the pragma
m <primitive: 0> ► 2 ► primitive number 0, expected 1 to 32767
m <primitive: #(1)> ► 2 ► expected <primitive: 60>, <primitive: 'name'> or <primitive: 'name' module: 'Module'>
m: ► 2 ► found end of the source, expected the argument's name
3 ► 0 ► found `3`, expected a method pattern
m: x x := 1 ► 5 ► `x` is an argument of the method, which can't be assigned to
m: x [x := 1] ► 6 ► `x` is an argument of the method
m self := 1 ► 2 ► `self` can't be assigned to
m | self | ► 4 ► `self` can't be declared
m | a a | ► 6 ► `a` is declared twice
m: x | x | ► 7 ► `x` is declared twice
m [:x :x | 1] ► 7 ► `x` is declared twice
m ^ unknown ► 4 ► `unknown` is unknown in Foo, expected a variable
m ^ Transcripd ► 4 ► expected a class, or a global declared in a package.st; near it: Transcript
m ^ Shered ► 4 ► near it: Shared
m Foo := 1 ► 2 ► `Foo` is a class, which can't be assigned to
m [ | t | t ]. t foo ► 15 ► `t` is unknown in Foo
"""


@pytest.mark.parametrize("line", FAULTS.strip().splitlines())
def test_fault_has_offset_found_and_expected(line: str) -> None:
    source, offset, message = line.split(" ► ")
    with pytest.raises(Fault) as caught:
        compile_method(source, behavior())
    assert (caught.value.offset, message in caught.value.message) == (int(offset), True), caught.value.message


def test_inner_variables_hide_outer_ones() -> None:
    compile_method("m | a | a := 1. ^ [:a | a foo]", behavior())


def test_block_arguments_may_be_assigned_to() -> None:
    compile_method("m ^ [:x | x := x + 1]", behavior())
