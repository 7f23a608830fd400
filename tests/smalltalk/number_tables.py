"""The class NumberTables of Kernel-Tests: what Python's integers, fractions, floats and Unicode tables answer.

Python is the oracle: int and Fraction are exact, float() rounds correctly and repr() is the shortest text that reads
back. `python tests/smalltalk/number_tables.py` rewrites the class; a test compares the file with what it would write.
Every table is one string of lines, every line words or numbers separated by spaces; cases are seeded, so the same
Python gives the same file.
"""

from __future__ import annotations

import math
import random
import struct
import unicodedata
from collections.abc import Callable, Iterable
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

FILE = Path(__file__).parents[2] / "smalltalk" / "Kernel-Tests" / "NumberTables.class.st"
SEED = 1990
LAST_CODE = 0x52F  # Character's rules for letters and cases end with Cyrillic Supplement
# Letters used as symbols, whose case mapping leaves their alphabet's rule; Character has no mapping for them.
SYMBOLS = frozenset([0x37B, 0x37C, 0x37D, 0x37F, 0x3CF, *range(0x3D0, 0x3D8), *range(0x3F0, 0x400)])


def bits_of(value: float) -> str:
    return struct.pack(">d", value).hex().upper()


def float_of(bits: int) -> float:
    return float(struct.unpack(">d", struct.pack(">Q", bits))[0])


def printed(value: float) -> str:
    """repr's digits, laid out as Squeak does: from 0.0001 to below a million without an exponent."""
    mantissa, _, exponent = repr(value).partition("e")
    sign, mantissa = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole.lstrip("0")) or len(digits) - len(fraction)
    point += int(exponent or 0)
    digits = digits.rstrip("0")
    if not -3 <= point <= 6:
        return f"{sign}{digits[0]}.{digits[1:] or '0'}e{point - 1}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[:point].ljust(point, '0')}.{digits[point:] or '0'}"


def truncated_pair(a: int, b: int) -> tuple[int, int]:
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient, a - quotient * b


def integer_pairs(rng: random.Random) -> Iterable[tuple[int, int]]:
    edges = [0, 1, -1, 255, -256, 32767, 32768, 2**30 - 1, -(2**30), 2**30, -(2**30) - 1, 2**32, 2**53 + 1, 2**64 - 1]
    yield from ((a, b) for a in edges for b in (7, -(2**30), 2**32 - 1))
    for _ in range(60):
        a, b = (rng.getrandbits(rng.choice((20, 31, 40, 64, 100, 130))) * rng.choice((1, -1)) for _ in "ab")
        yield a, b or 3


def integers(rng: random.Random) -> Iterable[str]:
    for a, b in integer_pairs(rng):
        quo, rem = truncated_pair(a, b)
        results = a + b, a - b, a * b, a // b, a % b, quo, rem, a & b, a | b, a ^ b, math.gcd(a, b)
        yield " ".join(str(each) for each in (a, b, *results))


def radixes(rng: random.Random) -> Iterable[str]:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for base in (2, 3, 7, 8, 10, 16, 32, 36):
        for size in (12, 31, 64, 200):
            value = rng.getrandbits(size) | 1 << (size - 1)
            text, rest = "", value
            while rest:
                text, rest = digits[rest % base] + text, rest // base
            yield f"{value} {base} {text}"


def float_values(rng: random.Random) -> Iterable[float]:
    yield from (0.1, 0.5, 1.0, 1 / 3, 2 / 3, 100.0, 123456.0, 999999.0, 1e6, 0.0001, 0.00012345, 9.999e-5, 1e-5, 1e10)
    yield from (1e15, 1e16, 2.0**53, 2.0**53 + 2, 1e21, 1e22, 1e23, 1e100, 5e-324, 2.2250738585072014e-308)
    yield from (2.225073858507201e-308, 1.7976931348623157e308, 9007199254740993.0, 4.35, 0.30000000000000004)
    yield from (2.0**power for power in range(-1074, 1024, 61))
    yield from (float(f"1e{power}") for power in range(-307, 308, 37))
    yield from (float_of(rng.getrandbits(63)) for _ in range(60))
    yield from (round(rng.uniform(0, 1000), rng.randrange(6)) for _ in range(30))
    yield from (struct.unpack("f", struct.pack("f", rng.uniform(-3, 3)))[0] for _ in range(30))


def floats(rng: random.Random) -> Iterable[str]:
    for value in float_values(rng):
        if math.isfinite(value) and value != 0:
            yield f"{bits_of(abs(value))} {printed(abs(value))}"


def readings(rng: random.Random) -> Iterable[str]:
    """Texts that lie on a tie between two floats or next to it, and texts with more digits than needed."""
    texts = ["1.0e23", "8.41e21", "2.2250738585072011e-308", "4.9e-324", "2.4703282292062327e-324", "1.5e-324"]
    texts += [
        "9007199254740993.0",
        "9007199254740992.99999",
        "0.500000000000000166533453693773481063544750213623046875",
    ]
    texts += [
        "3.518437208883201171875e13",
        "62.5364939768271845828",
        "8.10109172351e-10",
        "1.50000000000000011102230246251565",
    ]
    texts += ["1.7976931348623158e308", "179769313486231580793.0e289", "0.000000000000000000000000000000000001e-280"]
    for _ in range(30):
        value = Fraction(float_of(rng.randrange(0x3000 << 48, 0x5000 << 48)))
        tie = value + Fraction(math.ulp(float(value))) / 2
        scale = 0
        while tie.denominator != 1 and scale < 120:
            tie, scale = tie * 10, scale + 1
        texts += [f"{int(tie) + step}.0e{-scale}" for step in (-1, 0, 1)]
    texts += [f"{rng.getrandbits(90)}.{rng.getrandbits(60)}e{rng.randrange(-300, 270)}" for _ in range(40)]
    yield from (f"{text} {bits_of(float(text))}" for text in texts)


def quotients(rng: random.Random) -> Iterable[str]:
    """Integers and fractions converted to floats; Python's true division of ints is correctly rounded."""
    for shift in (0, 1, 5, 60, 900):
        for low in (2**53 + 1, 2**53 + 3, 2**54 + 1, 2**54 - 1, 2**55 + 6, 2**53 - 1):
            for extra in (-1, 0, 1):
                yield f"{(low << shift) + extra} 1 {bits_of(float((low << shift) + extra))}"
    for _ in range(60):
        a, b = (rng.getrandbits(rng.choice((10, 60, 300, 1000))) + 1 for _ in "ab")
        yield f"{a} {b} {bits_of(a / b)}"
    yield from (
        f"{a} {2**1074 * b} {bits_of(a / (2**1074 * b))}"
        for a, b in ((1, 1), (1, 2), (3, 2), (5, 2), (7, 3), (2**53, 3))
    )


def series(first: Decimal, power: int, x: Decimal) -> Decimal:
    """first - first*x*x / ((power+1)*(power+2)) + ...: the sine from x and 1, the cosine from 1 and 0."""
    total, term = Decimal(0), first
    while total + term != total:
        total, term, power = total + term, -term * x * x / ((power + 1) * (power + 2)), power + 2
    return total


def arc_tan(x: Decimal) -> Decimal:
    """Halve the angle four times, then the series."""
    for _ in range(4):
        x = x / (1 + (1 + x * x).sqrt())
    total, term, odd = Decimal(0), x, 1
    while total + term / odd != total:
        total, term, odd = total + term / odd, -term * x * x, odd + 2
    return 16 * total


def sin(x: Decimal) -> Decimal:
    return series(x, 1, x)


def cos(x: Decimal) -> Decimal:
    return series(Decimal(1), 0, x)


def arc_sin(x: Decimal) -> Decimal:
    return arc_tan(x / (1 - x * x).sqrt())


def tanh(x: Decimal) -> Decimal:
    return ((2 * x).exp() - 1) / ((2 * x).exp() + 1)


def functions(rng: random.Random) -> Iterable[str]:
    """Selector, argument, correctly rounded value: the C library's own functions differ from machine to machine."""
    table: dict[str, tuple[Callable[[Decimal], Decimal], float, float]] = {
        "sin": (sin, -10, 10),
        "cos": (cos, -10, 10),
        "tan": (lambda x: sin(x) / cos(x), -1.5, 1.5),
        "arcSin": (arc_sin, -1, 1),
        "arcCos": (lambda x: 2 * arc_tan(Decimal(1)) - arc_sin(x), -1, 1),
        "arcTan": (arc_tan, -20, 20),
        "exp": (Decimal.exp, -30, 30),
        "ln": (Decimal.ln, 1e-6, 1e6),
        "log": (Decimal.log10, 1e-6, 1e6),
        "sqrt": (Decimal.sqrt, 0, 1e6),
        "tanh": (tanh, -5, 5),
    }
    extra = {"cos": (0.0, 1.5707963267948966, 1.5707, 11.0, 101.5), "tanh": (1e-9, 0.0009, 0.0011, 21.0, -25.0)}
    with localcontext(prec=120):
        for selector, (function, low, high) in table.items():
            for x in (*(rng.uniform(low, high) for _ in range(8)), *extra.get(selector, ())):
                yield f"{selector} {bits_of(x)} {bits_of(float(function(Decimal(x))))}"


def singles(rng: random.Random) -> Iterable[str]:
    """A double and the 32 bits of the nearest single."""
    values = [rng.uniform(-9, 9) * float(f"1e{rng.randrange(-46, 38)}") for _ in range(60)]
    values += [1 + 2.0**-24, 1 + 3 * 2.0**-24, 2.0**-149, 2.0**-150, 3 * 2.0**-150, 2.0**-126 - 2.0**-151]
    for value in values:
        if abs(value) < 3.4028235e38:
            yield f"{bits_of(value)} {struct.pack('>f', value).hex().upper()}"


def letters() -> Iterable[str]:
    """The runs of letters: first and last code point."""
    codes = [code for code in range(LAST_CODE + 1) if unicodedata.category(chr(code)).startswith("L")]
    codes = [code for code in codes if not 0x180 <= code < 0x370]
    start = codes[0]
    for before, code in zip(codes, [*codes[1:], -1], strict=True):
        if code != before + 1:
            yield f"{start} {before}"
            start = code


def cases() -> Iterable[str]:
    """Code point, that of its small letter, that of its capital letter, where one differs."""
    for code in range(LAST_CODE + 1):
        lower, upper = chr(code).lower(), chr(code).upper()
        small = 0x69 if code == 0x130 else ord(lower) if len(lower) == 1 else code
        capital = ord(upper) if len(upper) == 1 else code
        inside = not 0x180 <= code < 0x370 and code not in SYMBOLS and small not in SYMBOLS
        if inside and (small, capital) != (code, code):
            yield f"{code} {small} {capital}"


def wrapped(lines: Iterable[str]) -> Iterable[str]:
    """Short lines side by side, separated by commas, so that the file stays readable."""
    row = ""
    for line in lines:
        if row and len(row) + len(line) > 118:
            yield row
            row = ""
        row += (", " if row else "") + line
    yield row


HEADER = """"
I am tables of what Python answers: its integers and fractions are exact, its float() rounds correctly,
its repr() is the shortest text that reads back. tests/smalltalk/number_tables.py writes me; don't edit me.

	(NumberTables rowsOf: #radixes) first size >>> 3

A Float in me is the 16 hexadecimal digits of its bits.
"
Class {
	#name : #NumberTables,
	#superclass : #Object,
	#category : #'Kernel-Tests-Numbers'
}

{ #category : #accessing }
NumberTables class >> floatAt: aString [
	"Answer the Float with the bits that aString says."

	| float |
	float := Float basicNew: 2.
	float basicAt: 1 put: (Integer readFrom: (aString copyFrom: 1 to: 8) base: 16).
	float basicAt: 2 put: (Integer readFrom: (aString copyFrom: 9 to: 16) base: 16).
	^ float
]

{ #category : #accessing }
NumberTables class >> rowsOf: aSymbol [
	"Answer the rows of a table, each a collection of Strings."

	| text rows row word |
	text := self perform: aSymbol.
	rows := OrderedCollection new.
	row := OrderedCollection new.
	word := WriteStream on: String new.
	text do: [ :each |
		(each = $, or: [ each isSeparator ])
			ifTrue: [
				word position > 0 ifTrue: [
					row add: word contents.
					word := WriteStream on: String new ].
				(each = $, and: [ row notEmpty ]) ifTrue: [
					rows add: row.
					row := OrderedCollection new ] ]
			ifFalse: [ word nextPut: each ] ].
	^ rows
]
"""


def method(name: str, columns: str, lines: Iterable[str]) -> str:
    text = ",\n".join(wrapped(lines))
    return f"""
{{ #category : #accessing }}
NumberTables class >> {name} [
	"{columns}"

	^ '{text},'
]
"""


def class_text() -> str:
    rng = random.Random(SEED)
    return HEADER + "".join(
        (
            method("cases", "code point, its small letter, its capital letter", cases()),
            method("floats", "Float, its text", floats(rng)),
            method("functions", "selector, receiver, answer", functions(rng)),
            method("integers", "a b a+b a-b a*b a//b a\\\\b quo: rem: bitAnd: bitOr: bitXor: gcd:", integers(rng)),
            method("letters", "first and last code point of a run of letters", letters()),
            method("quotients", "numerator, denominator, nearest Float", quotients(rng)),
            method("radixes", "integer, base, its text", radixes(rng)),
            method("readings", "text, nearest Float", readings(rng)),
            method("singles", "Float, bits of the nearest single", singles(rng)),
        )
    )


if __name__ == "__main__":
    FILE.write_text(class_text(), encoding="utf-8")
