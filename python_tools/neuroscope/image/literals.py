"""The literals of a method, one frozen record per Smalltalk class.

Two literals of a method share one slot of its literal frame exactly when their records are equal: same class, same
value, Floats by their bits, Arrays element by element. That is why `1`, `1.0`, `'a'`, `#a` and `$a` never merge.
Records hold values only; heap.py makes objects of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SMALL_INTEGER_MIN = -(2**30)
SMALL_INTEGER_MAX = 2**30 - 1


@dataclass(frozen=True)
class ConstantLiteral:
    """nil, true or false inside a literal array or a pragma; elsewhere they have bytecodes of their own."""

    name: str


@dataclass(frozen=True)
class IntegerLiteral:
    value: int


@dataclass(frozen=True)
class FloatLiteral:
    """A Float by its 64 bits, so that 0.0 and -0.0 stay two literals and a NaN equals itself."""

    bits: int

    @property
    def value(self) -> float:
        return float(struct.unpack("<d", struct.pack("<Q", self.bits))[0])


@dataclass(frozen=True)
class FractionLiteral:
    """An integer with a negative exponent that is not whole: `1e-3`. In lowest terms, denominator > 1."""

    numerator: int
    denominator: int


@dataclass(frozen=True)
class ScaledDecimalLiteral:
    """`1.5s2`: an exact fraction in lowest terms, printed with `scale` digits. The denominator may be 1."""

    numerator: int
    denominator: int
    scale: int


@dataclass(frozen=True)
class CharacterLiteral:
    code: int


@dataclass(frozen=True)
class StringLiteral:
    text: str


@dataclass(frozen=True)
class SymbolLiteral:
    text: str


@dataclass(frozen=True)
class ByteArrayLiteral:
    data: bytes


@dataclass(frozen=True)
class ArrayLiteral:
    elements: tuple[Literal, ...]


@dataclass(frozen=True)
class GlobalBinding:
    """The Association of a global variable in Smalltalk."""

    name: str


@dataclass(frozen=True)
class ClassVariableBinding:
    """The Association of a class variable in the classPool of the class that declares it."""

    class_name: str
    name: str


@dataclass(frozen=True)
class NamedPrimitiveLiteral:
    """Literal 0 of a method with primitive 117: an Array {module. function. 0. 0}. The VM writes into the two zeros,
    so it is a record of its own and never merges with an equal literal array."""

    module: str
    function: str


Literal = (
    ConstantLiteral
    | IntegerLiteral
    | FloatLiteral
    | FractionLiteral
    | ScaledDecimalLiteral
    | CharacterLiteral
    | StringLiteral
    | SymbolLiteral
    | ByteArrayLiteral
    | ArrayLiteral
    | GlobalBinding
    | ClassVariableBinding
    | NamedPrimitiveLiteral
)

NIL = ConstantLiteral("nil")
TRUE = ConstantLiteral("true")
FALSE = ConstantLiteral("false")


def float_literal(value: float) -> FloatLiteral:
    return FloatLiteral(struct.unpack("<Q", struct.pack("<d", value))[0])


def literal_text(literal: Literal) -> str:
    """One canonical line for a literal, with its class: what tests and the compilers' agreement compare."""
    match literal:
        case ConstantLiteral(name):
            return name
        case IntegerLiteral(value):
            return f"Integer {value}"
        case FloatLiteral(bits):
            return f"Float {bits:016x}"
        case FractionLiteral(numerator, denominator):
            return f"Fraction {numerator}/{denominator}"
        case ScaledDecimalLiteral(numerator, denominator, scale):
            return f"ScaledDecimal {numerator}/{denominator} s{scale}"
        case CharacterLiteral(code):
            return f"Character {code}"
        case StringLiteral(text):
            return f"String {text}"
        case SymbolLiteral(text):
            return f"Symbol {text}"
        case ByteArrayLiteral(data):
            return f"ByteArray {data.hex()}"
        case ArrayLiteral(elements):
            return f"Array ({'. '.join(literal_text(each) for each in elements)})"
        case GlobalBinding(name):
            return f"Global {name}"
        case ClassVariableBinding(class_name, name):
            return f"ClassVariable {class_name} {name}"
        case NamedPrimitiveLiteral(module, function):
            return f"Primitive {module} {function}"
