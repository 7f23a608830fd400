"""The V3-plus-closures bytecode set, in one table: the only place that knows an opcode.

The assembler takes its numbers from here, the disassembler its names and lengths, the tests its stack effects.
Source: the bytecode set of the Squeak virtual machine before Sista ("V3") with the closure bytecodes 8A and 8C-8F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SPECIAL_SELECTORS: tuple[tuple[str, int], ...] = (
    ("+", 1), ("-", 1), ("<", 1), (">", 1), ("<=", 1), (">=", 1), ("=", 1), ("~=", 1),
    ("*", 1), ("/", 1), ("\\\\", 1), ("@", 1), ("bitShift:", 1), ("//", 1), ("bitAnd:", 1), ("bitOr:", 1),
    ("at:", 1), ("at:put:", 2), ("size", 0), ("next", 0), ("nextPut:", 1), ("atEnd", 0), ("==", 1), ("class", 0),
    ("blockCopy:", 1), ("value", 0), ("value:", 1), ("do:", 1), ("new", 0), ("new:", 1), ("x", 0), ("y", 0),
)  # fmt: skip

PUSH_INSTANCE_VARIABLE = 0x00
PUSH_TEMPORARY = 0x10
PUSH_LITERAL = 0x20
PUSH_LITERAL_VARIABLE = 0x40
POP_INTO_INSTANCE_VARIABLE = 0x60
POP_INTO_TEMPORARY = 0x68
PUSH_SELF, PUSH_TRUE, PUSH_FALSE, PUSH_NIL = 0x70, 0x71, 0x72, 0x73
PUSH_MINUS_ONE, PUSH_ZERO, PUSH_ONE, PUSH_TWO = 0x74, 0x75, 0x76, 0x77
RETURN_SELF, RETURN_TRUE, RETURN_FALSE, RETURN_NIL = 0x78, 0x79, 0x7A, 0x7B
RETURN_TOP, BLOCK_RETURN = 0x7C, 0x7D
EXTENDED_PUSH, EXTENDED_STORE, EXTENDED_POP = 0x80, 0x81, 0x82
EXTENDED_SEND, DOUBLE_EXTENDED, EXTENDED_SUPER, SECOND_EXTENDED_SEND = 0x83, 0x84, 0x85, 0x86
POP, DUPLICATE, PUSH_THIS_CONTEXT = 0x87, 0x88, 0x89
NEW_ARRAY, CALL_PRIMITIVE = 0x8A, 0x8B
PUSH_REMOTE, STORE_REMOTE, POP_INTO_REMOTE, PUSH_CLOSURE = 0x8C, 0x8D, 0x8E, 0x8F
JUMP, JUMP_FALSE, LONG_JUMP, LONG_JUMP_TRUE, LONG_JUMP_FALSE = 0x90, 0x98, 0xA0, 0xA8, 0xAC
SEND_SPECIAL = 0xB0
SEND_LITERAL = 0xD0

# Operations of DOUBLE_EXTENDED, in the top three bits of its second byte:
DOUBLE_SEND, DOUBLE_SUPER, DOUBLE_PUSH_INSTANCE, DOUBLE_PUSH_LITERAL = 0, 1, 2, 3
DOUBLE_PUSH_VARIABLE, DOUBLE_STORE_INSTANCE, DOUBLE_POP_INSTANCE, DOUBLE_STORE_VARIABLE = 4, 5, 6, 7
# Kinds of EXTENDED_PUSH, _STORE and _POP, in the top two bits of the second byte:
KIND_INSTANCE, KIND_TEMPORARY, KIND_LITERAL, KIND_VARIABLE = 0, 1, 2, 3

Operands = bytes  # the instruction itself, its opcode first


@dataclass(frozen=True)
class Bytecode:
    """A row of the table: opcodes `first` to `last`, `length` bytes each. `text` and `effect` (change of the stack's
    depth when execution continues behind it) take the instruction's bytes; `effect` of a return is 0."""

    first: int
    last: int
    length: int
    text: Callable[[Operands], str]
    effect: Callable[[Operands], int]


def _constant(effect: int) -> Callable[[Operands], int]:
    return lambda _: effect


def _named(text: str) -> Callable[[Operands], str]:
    return lambda _: text


def _numbered(text: str, base: int) -> Callable[[Operands], str]:
    return lambda code: f"{text} {code[0] - base}"


_KINDS = ("instance variable", "temporary", "literal", "literal variable")
_DOUBLE = (
    "send", "super send", "push instance variable", "push literal", "push literal variable",
    "store instance variable", "pop into instance variable", "store literal variable",
)  # fmt: skip


def _extended(verb: str) -> Callable[[Operands], str]:
    return lambda code: f"{verb} {_KINDS[code[1] >> 6]} {code[1] & 63}"


def _double_text(code: Operands) -> str:
    operation = code[1] >> 5
    arguments = f" with {code[1] & 31}" if operation <= DOUBLE_SUPER else ""
    return f"{_DOUBLE[operation]} {code[2]}{arguments}"


def _double_effect(code: Operands) -> int:
    operation = code[1] >> 5
    if operation <= DOUBLE_SUPER:
        return -(code[1] & 31)
    return {DOUBLE_STORE_INSTANCE: 0, DOUBLE_POP_INSTANCE: -1, DOUBLE_STORE_VARIABLE: 0}.get(operation, 1)


def _array_text(code: Operands) -> str:
    return f"pop {code[1] & 127} into new Array" if code[1] > 127 else f"push new Array {code[1]}"


def _closure_text(code: Operands) -> str:
    return f"push closure, {code[1] & 15} arguments, {code[1] >> 4} copied, {closure_size(code)} bytes"


def closure_size(code: Operands) -> int:
    """Bytes of the block's body, which follows the instruction."""
    return code[2] << 8 | code[3]


def jump_distance(code: Operands) -> int | None:
    """Distance from the end of the instruction, or None where it is no jump."""
    opcode = code[0]
    if JUMP <= opcode < LONG_JUMP:
        return (opcode & 7) + 1
    if LONG_JUMP <= opcode < LONG_JUMP_TRUE:
        return ((opcode & 7) - 4) * 256 + code[1]
    if LONG_JUMP_TRUE <= opcode < SEND_SPECIAL:
        return (opcode & 3) * 256 + code[1]
    return None


def is_return(code: Operands) -> bool:
    return RETURN_SELF <= code[0] <= BLOCK_RETURN


def _jump_text(text: str) -> Callable[[Operands], str]:
    return lambda code: f"{text} {jump_distance(code):+d}"


def _send_text(verb: str, index_bits: int) -> Callable[[Operands], str]:
    return lambda code: f"{verb} {code[1] & ((1 << index_bits) - 1)} with {code[1] >> index_bits}"


def _special_text(code: Operands) -> str:
    return f"send {SPECIAL_SELECTORS[code[0] - SEND_SPECIAL][0]}"


def _special_effect(code: Operands) -> int:
    return -SPECIAL_SELECTORS[code[0] - SEND_SPECIAL][1]


TABLE: tuple[Bytecode, ...] = (
    Bytecode(0x00, 0x0F, 1, _numbered("push instance variable", 0x00), _constant(1)),
    Bytecode(0x10, 0x1F, 1, _numbered("push temporary", 0x10), _constant(1)),
    Bytecode(0x20, 0x3F, 1, _numbered("push literal", 0x20), _constant(1)),
    Bytecode(0x40, 0x5F, 1, _numbered("push literal variable", 0x40), _constant(1)),
    Bytecode(0x60, 0x67, 1, _numbered("pop into instance variable", 0x60), _constant(-1)),
    Bytecode(0x68, 0x6F, 1, _numbered("pop into temporary", 0x68), _constant(-1)),
    Bytecode(0x70, 0x70, 1, _named("push self"), _constant(1)),
    Bytecode(0x71, 0x71, 1, _named("push true"), _constant(1)),
    Bytecode(0x72, 0x72, 1, _named("push false"), _constant(1)),
    Bytecode(0x73, 0x73, 1, _named("push nil"), _constant(1)),
    Bytecode(0x74, 0x77, 1, _numbered("push", 0x75), _constant(1)),
    Bytecode(0x78, 0x78, 1, _named("return self"), _constant(0)),
    Bytecode(0x79, 0x79, 1, _named("return true"), _constant(0)),
    Bytecode(0x7A, 0x7A, 1, _named("return false"), _constant(0)),
    Bytecode(0x7B, 0x7B, 1, _named("return nil"), _constant(0)),
    Bytecode(0x7C, 0x7C, 1, _named("return top"), _constant(0)),
    Bytecode(0x7D, 0x7D, 1, _named("block return top"), _constant(0)),
    Bytecode(0x80, 0x80, 2, _extended("push"), _constant(1)),
    Bytecode(0x81, 0x81, 2, _extended("store"), _constant(0)),
    Bytecode(0x82, 0x82, 2, _extended("pop into"), _constant(-1)),
    Bytecode(0x83, 0x83, 2, _send_text("send literal", 5), lambda code: -(code[1] >> 5)),
    Bytecode(0x84, 0x84, 3, _double_text, _double_effect),
    Bytecode(0x85, 0x85, 2, _send_text("super send literal", 5), lambda code: -(code[1] >> 5)),
    Bytecode(0x86, 0x86, 2, _send_text("send literal", 6), lambda code: -(code[1] >> 6)),
    Bytecode(0x87, 0x87, 1, _named("pop"), _constant(-1)),
    Bytecode(0x88, 0x88, 1, _named("duplicate"), _constant(1)),
    Bytecode(0x89, 0x89, 1, _named("push thisContext"), _constant(1)),
    Bytecode(0x8A, 0x8A, 2, _array_text, lambda code: 1 - (code[1] & 127) if code[1] > 127 else 1),
    Bytecode(0x8B, 0x8B, 3, lambda code: f"primitive {code[1] | code[2] << 8}", _constant(0)),
    Bytecode(0x8C, 0x8C, 3, lambda code: f"push {code[1]} of vector in temporary {code[2]}", _constant(1)),
    Bytecode(0x8D, 0x8D, 3, lambda code: f"store {code[1]} of vector in temporary {code[2]}", _constant(0)),
    Bytecode(0x8E, 0x8E, 3, lambda code: f"pop into {code[1]} of vector in temporary {code[2]}", _constant(-1)),
    Bytecode(0x8F, 0x8F, 4, _closure_text, lambda code: 1 - (code[1] >> 4)),
    Bytecode(0x90, 0x97, 1, _jump_text("jump"), _constant(0)),
    Bytecode(0x98, 0x9F, 1, _jump_text("jump if false"), _constant(-1)),
    Bytecode(0xA0, 0xA7, 2, _jump_text("jump"), _constant(0)),
    Bytecode(0xA8, 0xAB, 2, _jump_text("jump if true"), _constant(-1)),
    Bytecode(0xAC, 0xAF, 2, _jump_text("jump if false"), _constant(-1)),
    Bytecode(0xB0, 0xCF, 1, _special_text, _special_effect),
    Bytecode(0xD0, 0xDF, 1, lambda code: f"send literal {code[0] & 15} with 0", _constant(0)),
    Bytecode(0xE0, 0xEF, 1, lambda code: f"send literal {code[0] & 15} with 1", _constant(-1)),
    Bytecode(0xF0, 0xFF, 1, lambda code: f"send literal {code[0] & 15} with 2", _constant(-2)),
)

BY_OPCODE: tuple[Bytecode | None, ...] = tuple(
    next((row for row in TABLE if row.first <= opcode <= row.last), None) for opcode in range(256)
)
