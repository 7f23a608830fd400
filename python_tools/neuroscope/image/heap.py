"""Objects before they have addresses. A slot holds an object, an int (a SmallInteger) or a Char (a Character)."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import layout


@dataclass(frozen=True)
class Char:
    code: int


@dataclass(eq=False)
class HeapObject:
    """`data` are the bytes of a byte or word object, or what follows the literals of a method; a method's slots are
    its header and literals. `hash` 0 means that none is assigned yet; a class's hash is its index in the class table.
    """

    class_object: HeapObject | None
    format: int
    slots: list[Slot] = field(default_factory=list)
    data: bytes = b""
    hash: int = 0

    @property
    def has_data(self) -> bool:
        return self.format in (layout.WORDS, layout.BYTES, layout.COMPILED_METHOD)

    @property
    def word_count(self) -> int:
        return len(self.slots) + (len(self.data) + 3) // 4

    @property
    def format_field(self) -> int:
        """The format with the count of unused bytes at the end, which byte objects and methods carry in it."""
        if self.format in (layout.BYTES, layout.COMPILED_METHOD):
            return self.format + -len(self.data) % 4
        return self.format


Slot = HeapObject | int | Char
