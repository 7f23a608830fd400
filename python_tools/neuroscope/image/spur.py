"""Objects ► the bytes of an image file, format 6521: Spur, 32 bits, little endian.

Places nil, false, true, the free lists, the hidden roots and the class table pages first, then every object that can
be reached from the special objects, in the order in which a walk meets them (breadth first, class before slots).
Source: the Spur object representation; which words a loader reads is tested with two virtual machines.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass

from ..errors import ImageLimitError
from . import layout
from .heap import Char, HeapObject, Slot

VERSION = 6521
HEADER_BYTES = 64
BASE_ADDRESS = 0x00100000
FREE_LISTS_INDEX, POINTERS_INDEX = 18, 16  # class indexes of objects that the virtual machine keeps for itself
FREE_LISTS_WORDS = 32
HIDDEN_ROOTS_SLOTS = 4104
CLASS_TABLE_PAGE = 1024
BRIDGE = struct.pack("<IIII", 0x4A000003, 0x00800000, 0, 0)
LONG_OBJECT = 255  # objects of so many words have their size in an extra header word
MAX_IMAGE_BYTES = 0x7FFFFFFF - BASE_ADDRESS


@dataclass(frozen=True)
class Heap:
    """What an image consists of: everything else hangs on the special objects."""

    nil: HeapObject
    false: HeapObject
    true: HeapObject
    special_objects: HeapObject
    class_table: dict[int, HeapObject]


def reachable(heap: Heap) -> list[HeapObject]:
    """All objects, nil, false and true first."""
    found: list[HeapObject] = []
    seen: set[int] = set()
    pending: deque[Slot | None] = deque([heap.nil, heap.false, heap.true, heap.special_objects])
    pending.extend(heap.class_table[index] for index in sorted(heap.class_table))
    while pending:
        each = pending.popleft()
        if isinstance(each, HeapObject) and id(each) not in seen:
            seen.add(id(each))
            found.append(each)
            pending.append(each.class_object)
            pending.extend(each.slots)
    return found


def write_image(heap: Heap) -> bytes:
    """Raises: ImageLimitError when the image does not fit 31 bits of addresses."""
    return _Writer(heap).image()


def object_bytes(words: int) -> int:
    """Bytes of an object in the file: one or two header words of 8 bytes and the body, padded, at least 8."""
    return (16 if words >= LONG_OBJECT else 8) + max(8, (words * 4 + 7) // 8 * 8)


class _Writer:
    def __init__(self, heap: Heap) -> None:
        self.heap = heap
        self.addresses: dict[int, int] = {}
        self.next_address = BASE_ADDRESS
        self.parts: list[bytes] = []

    def image(self) -> bytes:
        objects = reachable(self.heap)
        page_count = max(self.heap.class_table) // CLASS_TABLE_PAGE + 1
        for each in objects[:3]:
            self._place(each)
        self.next_address += object_bytes(FREE_LISTS_WORDS) + object_bytes(HIDDEN_ROOTS_SLOTS)
        page_addresses = []
        for _ in range(page_count):
            page_addresses.append(self.next_address + 8)
            self.next_address += object_bytes(CLASS_TABLE_PAGE)
        for each in objects[3:]:
            self._place(each)
        if self.next_address - BASE_ADDRESS > MAX_IMAGE_BYTES:
            raise ImageLimitError(
                f"the image has {self.next_address - BASE_ADDRESS} bytes, at most {MAX_IMAGE_BYTES} are possible"
            )

        nil = self._word(self.heap.nil)
        for each in objects[:3]:
            self._write(each)
        self._write_words(FREE_LISTS_INDEX, layout.WORDS, [0] * FREE_LISTS_WORDS)
        roots = page_addresses + [nil] * (HIDDEN_ROOTS_SLOTS - page_count)
        self._write_words(POINTERS_INDEX, layout.VARIABLE, roots)
        for page in range(page_count):
            first = page * CLASS_TABLE_PAGE
            entries = [self.heap.class_table.get(first + index) for index in range(CLASS_TABLE_PAGE)]
            words = [nil if each is None else self._word(each) for each in entries]
            self._write_words(POINTERS_INDEX, layout.VARIABLE, words)
        for each in objects[3:]:
            self._write(each)
        self.parts.append(BRIDGE)
        body = b"".join(self.parts)
        special = self._word(self.heap.special_objects)
        header = [VERSION, HEADER_BYTES, len(body), BASE_ADDRESS, special, *[0] * 7, len(body), 0, 0, 0]
        return struct.pack("<16I", *header) + body

    def _place(self, each: HeapObject) -> None:
        words = each.word_count
        self.addresses[id(each)] = self.next_address + (8 if words >= LONG_OBJECT else 0)
        self.next_address += object_bytes(words)

    def _word(self, slot: Slot) -> int:
        if isinstance(slot, Char):
            return slot.code << 2 | 2
        if isinstance(slot, int):
            return (slot << 1 | 1) & 0xFFFFFFFF
        return self.addresses[id(slot)]

    def _header(self, class_index: int, format_field: int, hash_field: int, words: int) -> bytes:
        prefix = struct.pack("<II", words, 0xFF000000) if words >= LONG_OBJECT else b""
        return prefix + struct.pack("<II", format_field << 24 | class_index, min(words, LONG_OBJECT) << 24 | hash_field)

    def _write(self, each: HeapObject) -> None:
        assert each.class_object is not None
        words = each.word_count
        header = self._header(each.class_object.hash, each.format_field, each.hash, words)
        slots = struct.pack(f"<{len(each.slots)}I", *[self._word(slot) for slot in each.slots])
        self.parts.append((header + slots + each.data).ljust(object_bytes(words), b"\0"))

    def _write_words(self, class_index: int, format_field: int, words: list[int]) -> None:
        header = self._header(class_index, format_field, 0, len(words))
        self.parts.append((header + struct.pack(f"<{len(words)}I", *words)).ljust(object_bytes(len(words)), b"\0"))
