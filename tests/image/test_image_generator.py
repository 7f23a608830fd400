"""Source ► bytecodes, one case a line: `source ► code [literals]`. Code is grouped by instruction; literals stand
without the final selector and class."""

from __future__ import annotations

import pytest
from environments import behavior
from neuroscope.errors import ImageLimitError
from neuroscope.image.assembler import MAX_LITERALS
from neuroscope.image.compiler import CompiledCode, compile_do_it, compile_method
from neuroscope.image.disassembler import hex_code, stack_depths
from neuroscope.image.faults import LimitFault
from neuroscope.image.generator import MAX_FRAME, SMALL_FRAME
from neuroscope.image.literals import literal_text


def compiled(source: str, variables: str = "a b c") -> CompiledCode:
    return compile_method(source, behavior(variables))


def described(source: str) -> str:
    code = compiled(source).code
    literals = ". ".join(literal_text(each) for each in code.literals)
    return f"{hex_code(code.bytecodes)} [{literals}]"


TABLE = """
m ► 8B0001 78 []
m ^ self ► 8B0001 78 []
m ^ true ► 8B0101 79 []
m ^ false ► 8B0201 7A []
m ^ nil ► 8B0301 7B []
m ^ -1 ► 8B0401 74 7C []
m ^ 0 ► 8B0501 75 7C []
m ^ 1 ► 8B0601 76 7C []
m ^ 2 ► 8B0701 77 7C []
m ^ b ► 8B0901 01 7C []
m ^ 3 ► 20 7C [Integer 3]
m | t | ^ self ► 78 []
m: x ^ self ► 78 []
m self foo ► 70 D0 87 78 [Symbol foo]
m ^ self foo ► 70 D0 7C [Symbol foo]
m ^ Shared ► 40 7C [ClassVariable Foo Shared]
m Shared := 1 ► 76 82C0 78 [ClassVariable Foo Shared]
m Transcript := Shared := 1 ► 76 81C0 82C1 78 [ClassVariable Foo Shared. Global Transcript]
m ^ a := b := 3 ► 20 8101 8100 7C [Integer 3]
m a := 1 ► 76 60 78 []
m ^ thisContext ► 89 7C []
m a. nil. 3. 'x' ► 78 []
m [3] ► 8F000002 20 7D 87 78 [Integer 3]
m: x ^ x + 1 ► 10 76 B0 7C []
m: x ^ x - 1 < 2 ► 10 76 B1 77 B2 7C []
m: x ^ x at: 1 put: 2 ► 10 76 77 F0 7C [Symbol at:put:]
m: x x at: 1 put: 2 ► 10 76 77 C1 87 78 []
m: x ^ x at: 1 put: 2; at: 2 put: 3 ► 10 88 76 77 C1 87 77 20 F1 7C [Integer 3. Symbol at:put:]
m: x x foo; bar: 1; yourself ► 10 88 D0 87 88 76 E1 87 D2 87 78 [Symbol foo. Symbol bar:. Symbol yourself]
m ^ super foo ► 70 8500 7C [Symbol foo]
m ^ super foo: 1 bar: 2 ► 70 76 77 8540 7C [Symbol foo:bar:]
m ^ super + 1 ► 70 76 8520 7C [Symbol +]
m super foo; bar ► 70 88 8500 87 8501 87 78 [Symbol foo. Symbol bar]
m ^ self a: 1 b: 2 c: 0 ► 70 76 77 75 8360 7C [Symbol a:b:c:]
m ^ self blockCopy: 1 ► 70 76 E0 7C [Symbol blockCopy:]
m ^ {1. 2} ► 76 77 8A82 7C []
m ^ {} ► 8A80 7C []
m ^ #(1 $a foo: #[1 2] (nil)) ► 20 7C [Array (Integer 1. Character 97. Symbol foo:. ByteArray 0102. Array (nil))]
m ^ 1 foo: 1.0 bar: '1' ► 76 20 21 F2 7C [Float 3ff0000000000000. String 1. Symbol foo:bar:]
m ^ 0.0 foo: -0.0 ► 20 21 E2 7C [Float 0000000000000000. Float 8000000000000000. Symbol foo:]
m ^ 'a' , #a , 'a' ► 20 21 E2 20 E2 7C [String a. Symbol a. Symbol ,]
m ^ self foo: #foo: ► 70 20 E0 7C [Symbol foo:]
"""

CONTROL = """
m: x ^ x ifTrue: [3] ► 10 99 20 7C 7B [Integer 3]
m: x ^ x ifFalse: [3] ► 10 98 7B 20 7C [Integer 3]
m: x ^ x ifTrue: [1] ifFalse: [2] ► 10 99 76 7C 77 7C []
m: x ^ x ifFalse: [1] ifTrue: [2] ► 10 99 77 7C 76 7C []
m: x a := x ifTrue: [1] ifFalse: [2] ► 10 99 76 90 77 60 78 []
m: x a := x ifTrue: [^ 1] ifFalse: [2] ► 10 99 76 7C 77 60 78 []
m: x x ifTrue: [a := 1] ► 10 99 76 60 78 []
m: x x ifFalse: [a := 1] ► 10 A802 76 60 78 []
m: x x ifTrue: [] ► 10 87 78 []
m: x x ifTrue: [] ifFalse: [a := 1] ► 10 A802 76 60 78 []
m: x x ifTrue: [a := 1] ifFalse: [] ► 10 99 76 60 78 []
m: x x ifTrue: [^ 1] ifFalse: [^ 2] ► 10 99 76 7C 77 7C 78 []
m: x ^ x ifTrue: [] ► 10 98 7B 7B []
m: x ^ x ifTrue: a ► 10 00 E0 7C [Symbol ifTrue:]
m: x ^ x ifTrue: [:y | 1] ► 10 8F010002 76 7D E0 7C [Symbol ifTrue:]
m: x x foo; ifTrue: [1] ► 10 88 D0 87 8F000002 76 7D E1 87 78 [Symbol foo. Symbol ifTrue:]
m: x ^ x and: [a] ► 10 99 00 7C 7A []
m: x ^ x or: [a] ► 10 98 79 00 7C []
m: x a := x and: [b] ► 10 99 01 90 72 60 78 []
m: x a := x or: [b] ► 10 99 71 90 01 60 78 []
m: x (x and: [b]) ifTrue: [^ 1] ► 10 99 01 90 72 99 76 7C 78 []
m: x x and: [a foo] ► 10 9A 00 D0 87 78 [Symbol foo]
m: x ^ [x ifTrue: [1] ifFalse: [2]] ► 10 8F100006 10 99 76 7D 77 7D 7C []
m: x ^ x ifNil: [1] ► 10 88 73 C6 9A 87 76 7C 7C []
m: x a := x ifNil: [1] ► 10 88 73 C6 99 87 76 60 78 []
m: x x ifNil: [a := 1] ► 10 73 C6 99 76 60 78 []
m: x ^ x ifNotNil: [1] ► 10 73 C6 98 7B 76 7C []
m: x ^ x ifNotNil: [:y | y] ► 10 8141 73 C6 98 7B 11 7C []
m: x x ifNotNil: [:y | y foo] ► 10 8141 73 C6 A803 11 D0 87 78 [Symbol foo]
m: x ^ x ifNil: [1] ifNotNil: [:y | y] ► 10 8141 73 C6 99 76 7C 11 7C []
m: x ^ x ifNotNil: [:y | y] ifNil: [1] ► 10 8141 73 C6 99 76 7C 11 7C []
m [a] whileTrue: [b foo] ► 00 9C 01 D0 87 A3F9 78 [Symbol foo]
m [a] whileFalse: [b foo] ► 00 A805 01 D0 87 A3F8 78 [Symbol foo]
m [a] whileTrue ► 00 99 A3FC 78 []
m [a] whileFalse ► 00 A802 A3FB 78 []
m ^ [a] whileTrue ► 00 99 A3FC 7B []
m [a foo] repeat ► 00 D0 87 A3FB 78 [Symbol foo]
m a := [a foo. ^ 1] repeat ► 00 D0 87 76 7C A3F9 73 60 78 [Symbol foo]
m ^ [[a] whileTrue] ► 8F000006 00 99 A3FC 73 7D 7C []
m 1 to: 3 do: [:i | i foo] ► 76 68 10 20 B4 AC09 10 D1 87 10 76 B0 68 A3F2 78 [Integer 3. Symbol foo]
m: n ^ 1 to: n do: [:i | ] ► 76 8141 10 6A 11 12 B4 9D 11 76 B0 69 A3F6 7C []
m: n n to: 1 by: -2 do: [:i | ] ► 10 69 11 76 B5 9D 11 20 B0 69 A3F6 78 [Integer -2]
m: n 1 to: 2 by: n do: [:i | ] ► 76 77 10 8F010002 73 7D 8360 87 78 [Symbol to:by:do:]
m 1 to: 2 by: 0 do: [:i | ] ► 76 77 75 8F010002 73 7D 8360 87 78 [Symbol to:by:do:]
m 1 to: 2 do: [:i | i := 5] ► 76 77 8F010004 20 8140 7D F1 87 78 [Integer 5. Symbol to:do:]
m: x ^ x timesRepeat: [1] ► 10 8F000002 76 7D E0 7C [Symbol timesRepeat:]
m ^ super ifTrue: [1] ► 70 8F000002 76 7D 8520 7C [Symbol ifTrue:]
"""

VARIABLES = """
m ^ [:x | x] ► 8F010002 10 7D 7C []
m: x ^ [x] ► 10 8F100002 10 7D 7C []
m ^ [:x | [x]] ► 8F010008 10 8F100002 10 7D 7D 7C []
m ^ [:x | | t | t := x. t] ► 8F010005 73 10 69 11 7D 7C []
m ^ [self foo] ► 8F000003 70 D0 7D 7C [Symbol foo]
m ^ [:x | ^ x] ► 8F010002 10 7C 7C []
m ^ [^ self] ► 8F000001 78 7C []
m ^ [] ► 8F000002 73 7D 7C []
m ^ [:x | ] ► 8F010002 73 7D 7C []
m | t | t := 3. ^ [t] ► 20 68 10 8F100002 10 7D 7C [Integer 3]
m | t | ^ [t := 1] ► 8A01 68 10 8F100005 76 8D0000 7D 7C []
m | t | a := [t]. t := 1 ► 8A01 68 10 8F100004 8C0000 7D 60 76 8E0000 78 []
m | s t | ^ [:x | t := s] ► 8A01 68 11 10 8F210005 11 8D0002 7D 7C []
m | s t | s := 1. t := 2. ^ [t + s] ► 76 68 77 69 11 10 8F200004 10 11 B0 7D 7C []
m | f | f := [:n | f] ► 8A01 68 10 8F110004 8C0001 7D 8E0000 78 []
m ^ [:x | [x := 1]] ► 8F010011 8A01 10 8E0001 11 8F100005 76 8D0000 7D 7D 7C []
m 1 to: 2 do: [:i | a foo: [i]] ► 76 68 10 77 B4 AC10 00 10 8F100002 10 7D E0 87 10 76 B0 68 A3EB 78 [Symbol foo:]
m [a] whileTrue: [| t | t := 1. b foo: [t]] ► 00 AC0E 76 68 01 10 8F100002 10 7D E0 87 A3EF 78 [Symbol foo:]
m | t | [a] whileTrue: [t := 1. b f: [t]] ► 8A01 68 00 AC12 76 8E0000 01 10 8F100004 8C0000 7D E0 87 A3EB 78 [Symbol f:]
m [a] whileTrue: [| t | b foo: [t := 1]] ► 00 AC12 8A01 68 01 10 8F100005 76 8D0000 7D E0 87 A3EB 78 [Symbol foo:]
m [a] whileTrue: [| t | t foo. t := 1] ► 00 AC09 73 68 10 D0 87 76 68 A3F4 78 [Symbol foo]
m [a] whileTrue: [| t | t := 1. t foo] ► 00 9E 76 68 10 D0 87 A3F7 78 [Symbol foo]
m a ifTrue: [| t | t foo] ► 00 9A 10 D0 87 78 [Symbol foo]
m: x x ifNotNil: [:v | a f: [v := 1]] ► 8A01 69 10 8D0001 73 C6 A80D 00 11 8F100005 76 8D0000 7D E0 87 78 [Symbol f:]
"""


def cases(table: str) -> list[tuple[str, str]]:
    pairs = [line.split(" ► ") for line in table.strip().splitlines()]
    return [(source, expected) for source, expected in pairs]


@pytest.mark.parametrize(("source", "expected"), cases(TABLE + CONTROL.lstrip() + VARIABLES.lstrip()))
def test_source_becomes_bytecodes(source: str, expected: str) -> None:
    assert described(source) == expected


@pytest.mark.parametrize(("source", "_"), cases(TABLE + CONTROL.lstrip() + VARIABLES.lstrip()))
def test_counted_stack_depth_is_the_depth_that_a_walk_finds(source: str, _: str) -> None:
    code = compiled(source).code
    _, greatest = stack_depths(code.bytecodes, code.num_temps)
    assert code.large_frame == (greatest > SMALL_FRAME)


def test_header_counts_literals_arguments_temporaries_primitive_and_frame() -> None:
    assert compiled("m self foo").header == 3
    assert compiled("m: x | t | t := x. self foo").header == 3 | 2 << 18 | 1 << 24
    assert compiled("m ^ nil").header == 2 | 1 << 16
    assert compiled("m ^ {" + "a. " * SMALL_FRAME + "a}").header == 2 | 1 << 17


def test_primitive_pragmas_become_the_first_bytecode() -> None:
    numbered = compiled("at: i <primitive: 60> ^ self fail").code
    assert (numbered.primitive, hex_code(numbered.bytecodes)) == (60, "8B3C00 70 D0 7C")
    named = compiled("m <primitive: 'go' module: 'Car'> ^ 1").code
    assert hex_code(named.bytecodes) == "8B7500 76 7C"
    assert [literal_text(each) for each in named.literals] == ["Primitive Car go"]


def test_named_primitive_shares_no_literal_with_an_equal_array() -> None:
    code = compiled("m <primitive: 'go' module: 'Car'> ^ #(Car go 0 0)").code
    assert len(code.literals) == 2


def test_pragmas_keep_selector_and_arguments() -> None:
    pragmas = compiled("m <primitive: 1> <view: 'x' order: -1> <plain> <k: #(a nil)>").pragmas
    assert [each.selector for each in pragmas] == ["view:order:", "plain", "k:"]
    assert [literal_text(each) for each in pragmas[0].arguments] == ["String x", "Integer -1"]


def test_do_it_answers_its_last_expression() -> None:
    assert hex_code(compile_do_it("| x | x := 3. x + 1", behavior()).code.bytecodes) == "20 68 10 76 B0 7C"


def test_wide_brace_arrays_are_filled_by_at_put() -> None:
    code = compiled("m ^ {" + "a. " * 33 + "}").code
    listing = hex_code(code.bytecodes)
    assert listing.startswith("40 21 CD 88 76 00 C1 87 88 77 00 C1 87 88 22 00 C1 87 ")
    assert literal_text(code.literals[0]) == "Global Array"
    assert not code.large_frame


def test_a_jump_beyond_1023_bytes_becomes_a_send_with_a_block() -> None:
    """The innermost send whose jump is too long is sent; a short one inside stays inlined."""
    body = "self foo. " * 340
    near = compiled(f"m a ifTrue: [{body}]").code.bytecodes
    far = compiled(f"m a ifTrue: [{body}self foo. self foo. self foo]").code
    assert b"\xaf" in near and len(near) == 1024
    assert [literal_text(each) for each in far.literals] == ["Symbol foo", "Symbol ifTrue:"]
    assert hex_code(far.bytecodes).startswith("00 8F000405 70 D0 87 ")


def test_a_loop_beyond_1024_bytes_backwards_becomes_a_send_with_blocks() -> None:
    code = compiled(f"m [a] whileTrue: [{'self foo. ' * 341}]").code
    assert literal_text(code.literals[-1]) == "Symbol whileTrue:"


def test_only_the_innermost_long_send_is_un_inlined_unless_the_outer_is_long_too() -> None:
    code = compiled(f"m a ifTrue: [b ifTrue: [{'self foo. ' * 345}]]").code
    assert [literal_text(each) for each in code.literals] == ["Symbol foo", "Symbol ifTrue:"]
    assert hex_code(code.bytecodes).startswith("00 8F")


@pytest.mark.parametrize(
    ("index", "push", "pop", "store"),
    [
        (7, "07", "67", "8107"),
        (8, "08", "8208", "8108"),
        (15, "0F", "820F", "810F"),
        (16, "8010", "8210", "8110"),
        (63, "803F", "823F", "813F"),
        (64, "844040", "84C040", "84A040"),
        (255, "8440FF", "84C0FF", "84A0FF"),
    ],
)
def test_instance_variables_use_the_shortest_form(index: int, push: str, pop: str, store: str) -> None:
    variables = " ".join(f"v{i}" for i in range(256))
    assert hex_code(compiled(f"m: x ^ v{index}", variables).code.bytecodes) == f"{push} 7C"
    assert hex_code(compiled(f"m: x v{index} := x", variables).code.bytecodes) == f"10 {pop} 78"
    assert hex_code(compiled(f"m: x ^ v{index} := x", variables).code.bytecodes) == f"10 {store} 7C"


@pytest.mark.parametrize(
    ("index", "push", "unary", "three", "five", "super_"),
    [
        (0, "20", "D0", "8360", "83A0", "8500"),
        (15, "2F", "DF", "836F", "83AF", "850F"),
        (16, "30", "8310", "8370", "83B0", "8510"),
        (31, "3F", "831F", "837F", "83BF", "851F"),
        (32, "80A0", "8620", "86E0", "840520", "842020"),
        (63, "80BF", "863F", "86FF", "84053F", "84203F"),
        (64, "846040", "840040", "840340", "840540", "842040"),
    ],
)
def test_literals_and_sends_use_the_shortest_form(
    index: int, push: str, unary: str, three: str, five: str, super_: str
) -> None:
    fill = "".join(f"a := {100 + i}. " for i in range(index))

    def last(statement: str) -> str:
        return hex_code(compiled(f"m: x {fill}{statement}").code.bytecodes)

    assert last("^ 'last'").endswith(f" {push} 7C" if index else f"{push} 7C")
    assert last("x foo").endswith(f"10 {unary} 87 78")
    assert last("x a: 1 b: 1 c: 1").endswith(f"10 76 76 76 {three} 87 78")
    assert last("x a: 1 b: 1 c: 1 d: 1 e: 1").endswith(f"10 76 76 76 76 76 {five} 87 78")
    assert last("super foo").endswith(f"70 {super_} 87 78")


LIMITS = [
    ("m ^ {" + ". ".join(f"#s{i}" for i in range(254)) + "}", "more than 255 literals"),
    ("m | " + " ".join(f"t{i}" for i in range(64)) + " |", "64 arguments and temporaries, at most 63"),
    ("m | " + " ".join(f"t{i}" for i in range(57)) + " |", "57 frame slots (temporaries and stack), at most 56"),
    ("m ^ [| " + " ".join(f"t{i}" for i in range(57)) + " | 1]", "the block has 58 frame slots"),
    (" ".join(f"k{i}: x{i}" for i in range(16)), "the method has 16 arguments, at most 15"),
    ("m ^ [" + " ".join(f":x{i}" for i in range(16)) + " | 1]", "the block has 16 arguments, at most 15"),
    ("m ^ self " + " ".join(f"k{i}: 1" for i in range(16)), "16 arguments in a message, at most 15"),
    (
        "m | " + " ".join(f"t{i}" for i in range(16)) + " | ^ [" + ". ".join(f"t{i} foo" for i in range(16)) + "]",
        "the block has 16 variables copied from outside, at most 15",
    ),
]


@pytest.mark.parametrize(("source", "message"), LIMITS)
def test_a_limit_is_refused_with_value_and_bound(source: str, message: str) -> None:
    with pytest.raises(LimitFault) as caught:
        compiled(source)
    assert message in caught.value.message
    assert isinstance(caught.value.located("F.st", 1, 1), ImageLimitError)


def test_the_greatest_allowed_counts_compile() -> None:
    names = " ".join(f"t{i}" for i in range(MAX_FRAME))
    assert compiled(f"m | {names} |").code.num_temps == MAX_FRAME
    literals = ". ".join(f"a := #s{i}" for i in range(MAX_LITERALS - 2))
    assert len(compiled(f"m {literals}").code.literals) == MAX_LITERALS - 2
