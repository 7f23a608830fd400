"""Bytecodes ► text, one line an instruction, for tests and people.

`instructions` also walks the stack: each instruction comes with the depth before it, found by following jumps from the
beginning of the method and of every block body.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import bytecodes as bc
from .literals import Literal, SymbolLiteral, literal_text


@dataclass(frozen=True)
class Instruction:
    pc: int  # from 0 at the first bytecode
    code: bytes
    row: bc.Bytecode

    @property
    def text(self) -> str:
        return self.row.text(self.code)

    @property
    def next_pc(self) -> int:
        return self.pc + len(self.code)

    @property
    def target(self) -> int | None:
        distance = bc.jump_distance(self.code)
        return None if distance is None else self.next_pc + distance

    @property
    def is_unconditional(self) -> bool:
        opcode = self.code[0]
        return bc.JUMP <= opcode < bc.JUMP_FALSE or bc.LONG_JUMP <= opcode < bc.LONG_JUMP_TRUE


def instructions(code: bytes) -> Iterator[Instruction]:
    """Raises: ValueError for an opcode outside the table or a truncated instruction."""
    pc = 0
    while pc < len(code):
        row = bc.BY_OPCODE[code[pc]]
        if row is None:
            raise ValueError(f"opcode {code[pc]:02X} at {pc} is not in the table of bytecodes")
        if pc + row.length > len(code):
            raise ValueError(f"instruction {code[pc]:02X} at {pc} is cut off by the end of the method at {len(code)}")
        yield Instruction(pc, code[pc : pc + row.length], row)
        pc += row.length


def literal_of(instruction: Instruction) -> int | None:
    """The index of the literal that the instruction uses, or None."""
    code = instruction.code
    opcode = code[0]
    if bc.PUSH_LITERAL <= opcode < bc.POP_INTO_INSTANCE_VARIABLE:
        return opcode & 31
    if opcode in (bc.EXTENDED_PUSH, bc.EXTENDED_STORE, bc.EXTENDED_POP):
        return code[1] & 63 if code[1] >> 6 >= bc.KIND_LITERAL else None
    if opcode in (bc.EXTENDED_SEND, bc.EXTENDED_SUPER):
        return code[1] & 31
    if opcode == bc.SECOND_EXTENDED_SEND:
        return code[1] & 63
    if opcode == bc.DOUBLE_EXTENDED:
        instance = (bc.DOUBLE_PUSH_INSTANCE, bc.DOUBLE_STORE_INSTANCE, bc.DOUBLE_POP_INSTANCE)
        return None if code[1] >> 5 in instance else code[2]
    if opcode >= bc.SEND_LITERAL:
        return opcode & 15
    return None


def disassemble(code: bytes, literals: Sequence[Literal] = ()) -> list[str]:
    """`pc: bytes text`, with the literal that the instruction names."""
    lines = []
    for each in instructions(code):
        index = literal_of(each)
        note = ""
        if index is not None and index < len(literals):
            literal = literals[index]
            note = f"  {literal.text if isinstance(literal, SymbolLiteral) else literal_text(literal)}"
        target = "" if each.target is None else f" to {each.target}"
        lines.append(f"{each.pc}: {each.code.hex(' ').upper()}  {each.text}{target}{note}")
    return lines


def hex_code(code: bytes) -> str:
    """The bytes in groups, one group an instruction: `70 88 8F0100 ...`."""
    return " ".join(each.code.hex().upper() for each in instructions(code))


def stack_depths(code: bytes, num_temps: int) -> tuple[dict[int, int], int]:
    """Depth of the frame before each reachable instruction, and the greatest depth of any frame.

    Raises: ValueError where two paths disagree, the stack falls below the temporaries, a jump goes into the middle of
    an instruction, or the code runs off its end.
    """
    by_pc = {each.pc: each for each in instructions(code)}
    depths: dict[int, int] = {}
    greatest = num_temps
    pending = [(0, num_temps)]
    while pending:
        pc, depth = pending.pop()
        if pc not in by_pc:
            raise ValueError(f"execution reaches {pc}, which is no instruction (the code has {len(code)} bytes)")
        if pc in depths:
            if depths[pc] != depth:
                raise ValueError(f"depth {depths[pc]} or {depth} at {pc}, depending on the path")
            continue
        each = by_pc[pc]
        depths[pc] = depth
        after = depth + each.row.effect(each.code)
        greatest = max(greatest, depth, after)
        if bc.is_return(each.code):
            continue
        if each.code[0] == bc.PUSH_CLOSURE:
            pending.append((each.next_pc, (each.code[1] & 15) + (each.code[1] >> 4)))
            pending.append((each.next_pc + bc.closure_size(each.code), after))
            continue
        if each.target is not None:
            pending.append((each.target, after))
        if not each.is_unconditional:
            pending.append((each.next_pc, after))
    return depths, greatest
