"""Writes instructions: picks the shortest form of each, counts the stack, collects literals.

Every method here appends one instruction (or one fixed sequence) to the current section and moves the depth. Which
form is picked is specified in generator.py, section 6.
"""

from __future__ import annotations

from collections.abc import Callable

from . import bytecodes as bc
from .literals import GlobalBinding, Literal, SymbolLiteral

MAX_LITERALS = 255
MAX_JUMP = 1023
MAX_BACKWARD = 1024
MAX_CLOSURE_BYTES = 0xFFFF
MAX_SLOT_INDEX = 255

_SPECIAL = {selector: bc.SEND_SPECIAL + index for index, (selector, _) in enumerate(bc.SPECIAL_SELECTORS)}
NEVER_SPECIAL = frozenset(["blockCopy:"])


class JumpTooLong(Exception):
    """The code to jump over is beyond the reach of a jump."""


class Assembler:
    def __init__(self) -> None:
        self.code = bytearray()  # the current section
        self.literals: list[Literal] = []
        self.depth = 0  # of the current frame, temporaries included
        self.max_depth = 0

    def _emit(self, effect: int, *instruction: int) -> None:
        self.code += bytes(instruction)
        self.depth += effect
        self.max_depth = max(self.max_depth, self.depth)

    def section(self, generate: Callable[[], None]) -> bytes:
        """The code that `generate` emits, taken out of the current section."""
        saved, self.code = self.code, bytearray()
        try:
            generate()
            return bytes(self.code)
        finally:
            self.code = saved

    def append(self, code: bytes) -> None:
        self.code += code

    def literal_index(self, literal: Literal) -> int:
        """Raises: OverflowError when the method has more literals than the bytecodes can reach."""
        if literal in self.literals:
            return self.literals.index(literal)
        self.literals.append(literal)
        if len(self.literals) > MAX_LITERALS - 2:  # the selector and the class are still to come
            raise OverflowError
        return len(self.literals) - 1

    # Pushing and storing

    def push_constant(self, opcode: int) -> None:
        self._emit(1, opcode)

    def push_literal(self, literal: Literal) -> None:
        index = self.literal_index(literal)
        if index < 32:
            self._emit(1, bc.PUSH_LITERAL + index)
        elif index < 64:
            self._emit(1, bc.EXTENDED_PUSH, bc.KIND_LITERAL << 6 | index)
        else:
            self._emit(1, bc.DOUBLE_EXTENDED, bc.DOUBLE_PUSH_LITERAL << 5, index)

    def push_variable(self, binding: Literal) -> None:
        index = self.literal_index(binding)
        if index < 32:
            self._emit(1, bc.PUSH_LITERAL_VARIABLE + index)
        elif index < 64:
            self._emit(1, bc.EXTENDED_PUSH, bc.KIND_VARIABLE << 6 | index)
        else:
            self._emit(1, bc.DOUBLE_EXTENDED, bc.DOUBLE_PUSH_VARIABLE << 5, index)

    def store_variable(self, binding: Literal, *, pop: bool) -> None:
        index = self.literal_index(binding)
        if index < 64:
            self._emit(-pop, bc.EXTENDED_POP if pop else bc.EXTENDED_STORE, bc.KIND_VARIABLE << 6 | index)
        else:
            self._emit(0, bc.DOUBLE_EXTENDED, bc.DOUBLE_STORE_VARIABLE << 5, index)
            if pop:
                self.pop()

    def push_instance_variable(self, index: int) -> None:
        if index < 16:
            self._emit(1, bc.PUSH_INSTANCE_VARIABLE + index)
        elif index < 64:
            self._emit(1, bc.EXTENDED_PUSH, bc.KIND_INSTANCE << 6 | index)
        else:
            self._emit(1, bc.DOUBLE_EXTENDED, bc.DOUBLE_PUSH_INSTANCE << 5, index)

    def store_instance_variable(self, index: int, *, pop: bool) -> None:
        if pop and index < 8:
            self._emit(-1, bc.POP_INTO_INSTANCE_VARIABLE + index)
        elif index < 64:
            self._emit(-pop, bc.EXTENDED_POP if pop else bc.EXTENDED_STORE, bc.KIND_INSTANCE << 6 | index)
        else:
            operation = bc.DOUBLE_POP_INSTANCE if pop else bc.DOUBLE_STORE_INSTANCE
            self._emit(-pop, bc.DOUBLE_EXTENDED, operation << 5, index)

    def push_temporary(self, slot: int) -> None:
        if slot < 16:
            self._emit(1, bc.PUSH_TEMPORARY + slot)
        else:
            self._emit(1, bc.EXTENDED_PUSH, bc.KIND_TEMPORARY << 6 | slot)

    def store_temporary(self, slot: int, *, pop: bool) -> None:
        if pop and slot < 8:
            self._emit(-1, bc.POP_INTO_TEMPORARY + slot)
        else:
            self._emit(-pop, bc.EXTENDED_POP if pop else bc.EXTENDED_STORE, bc.KIND_TEMPORARY << 6 | slot)

    def push_remote(self, index: int, slot: int) -> None:
        self._emit(1, bc.PUSH_REMOTE, index, slot)

    def store_remote(self, index: int, slot: int, *, pop: bool) -> None:
        self._emit(-pop, bc.POP_INTO_REMOTE if pop else bc.STORE_REMOTE, index, slot)

    def push_this_context(self) -> None:
        self._emit(1, bc.PUSH_THIS_CONTEXT)

    def pop(self) -> None:
        self._emit(-1, bc.POP)

    def duplicate(self) -> None:
        self._emit(1, bc.DUPLICATE)

    def push_new_array(self, size: int) -> None:
        self._emit(1, bc.NEW_ARRAY, size)

    def pop_into_new_array(self, size: int) -> None:
        self._emit(1 - size, bc.NEW_ARRAY, 0x80 | size)

    def call_primitive(self, number: int) -> None:
        self._emit(0, bc.CALL_PRIMITIVE, number & 0xFF, number >> 8)

    # Sends

    def send(self, selector: str, arguments: int, *, value_discarded: bool) -> None:
        """The quick form of at:put: answers nonsense in one known virtual machine, so it is used only where nobody
        looks at the answer."""
        special = selector in _SPECIAL and selector not in NEVER_SPECIAL
        if special and (selector != "at:put:" or value_discarded):
            self._emit(-arguments, _SPECIAL[selector])
            return
        index = self.literal_index(SymbolLiteral(selector))
        if index < 16 and arguments < 3:
            self._emit(-arguments, bc.SEND_LITERAL + 16 * arguments + index)
        elif index < 32 and arguments < 8:
            self._emit(-arguments, bc.EXTENDED_SEND, arguments << 5 | index)
        elif index < 64 and arguments < 4:
            self._emit(-arguments, bc.SECOND_EXTENDED_SEND, arguments << 6 | index)
        else:
            self._emit(-arguments, bc.DOUBLE_EXTENDED, bc.DOUBLE_SEND << 5 | arguments, index)

    def send_super(self, selector: str, arguments: int) -> None:
        index = self.literal_index(SymbolLiteral(selector))
        if index < 32 and arguments < 8:
            self._emit(-arguments, bc.EXTENDED_SUPER, arguments << 5 | index)
        else:
            self._emit(-arguments, bc.DOUBLE_EXTENDED, bc.DOUBLE_SUPER << 5 | arguments, index)

    def send_identical(self) -> None:
        self.send("==", 1, value_discarded=False)

    def push_array_class(self) -> None:
        self.push_variable(GlobalBinding("Array"))

    # Jumps and returns. A jump of distance 0 is left out; a conditional one still takes the condition off the stack.

    def jump(self, distance: int) -> None:
        if distance > MAX_JUMP:
            raise JumpTooLong
        if 1 <= distance <= 8:
            self._emit(0, bc.JUMP + distance - 1)
        elif distance > 8:
            self._emit(0, bc.LONG_JUMP + 4 + distance // 256, distance % 256)

    def jump_back(self, distance: int) -> None:
        """`distance` bytes to go back from before this instruction."""
        backward = -(distance + 2)
        if backward < -MAX_BACKWARD:
            raise JumpTooLong
        self._emit(0, bc.LONG_JUMP + 4 + backward // 256, backward % 256)

    def jump_if(self, condition: bool, distance: int) -> None:
        if distance > MAX_JUMP:
            raise JumpTooLong
        if distance == 0:
            self.pop()
        elif not condition and distance <= 8:
            self._emit(-1, bc.JUMP_FALSE + distance - 1)
        else:
            base = bc.LONG_JUMP_TRUE if condition else bc.LONG_JUMP_FALSE
            self._emit(-1, base + distance // 256, distance % 256)

    @staticmethod
    def jump_size(distance: int) -> int:
        """Bytes that `jump` emits."""
        return 0 if distance == 0 else 1 if distance <= 8 else 2

    def return_constant(self, opcode: int) -> None:
        self._emit(0, opcode)

    def return_top(self) -> None:
        self._emit(-1, bc.RETURN_TOP)

    def block_return(self) -> None:
        self._emit(-1, bc.BLOCK_RETURN)

    def push_closure(self, arguments: int, copied: int, body: bytes) -> None:
        self._emit(1 - copied, bc.PUSH_CLOSURE, copied << 4 | arguments, len(body) >> 8, len(body) & 0xFF)
        self.append(body)
